// Proves when DNS is asked again: never before the TTL has passed, within the bounds, spread, and
// after failures with growing distance.
#include "proxy/discovery/refresh_schedule.h"

#include <set>

#include <gtest/gtest.h>

namespace sluice::discovery {
namespace {

void ExpectAbout(Millis got, Millis want) {
  EXPECT_GE(got, want);
  EXPECT_LE(got, want + want / 10);
}

TEST(RefreshSchedule, AnAnswerIsUsedForItsTtlWithinTheBounds) {
  Random random(1);
  RefreshSchedule schedule({Millis(1000), Millis(60'000)});
  for (int i = 0; i < 100; ++i) {
    ExpectAbout(schedule.AfterAnswer(Millis(5000), random), Millis(5000));
    ExpectAbout(schedule.AfterAnswer(Millis(0), random), Millis(1000));
    ExpectAbout(schedule.AfterAnswer(Millis(86'400'000), random), Millis(60'000));
  }
}

TEST(RefreshSchedule, IsSpread) {
  std::set<Millis> delays;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    Random random(seed);
    delays.insert(
        RefreshSchedule({Millis(1000), Millis(60'000)}).AfterAnswer(Millis(10'000), random));
  }
  EXPECT_GT(delays.size(), 80U);
}

TEST(RefreshSchedule, FailuresAreFurtherApartEachTimeUpToHalfAMinute) {
  Random random(1);
  RefreshSchedule schedule({Millis(1000), Millis(300'000)});
  for (const int seconds : {1, 2, 4, 8, 16, 30, 30}) {
    ExpectAbout(schedule.AfterFailure(random), Millis(seconds * 1000));
  }
}

TEST(RefreshSchedule, FailuresStayWithinTheBounds) {
  Random random(1);
  RefreshSchedule brief({Millis(100), Millis(300)});
  for (const int delay : {100, 200, 300, 300}) {
    ExpectAbout(brief.AfterFailure(random), Millis(delay));
  }
  RefreshSchedule patient({Millis(60'000), Millis(600'000)});
  ExpectAbout(patient.AfterFailure(random), Millis(60'000));
  ExpectAbout(patient.AfterFailure(random), Millis(60'000));
}

TEST(RefreshSchedule, AnAnswerForgetsTheFailures) {
  Random random(1);
  RefreshSchedule schedule({Millis(1000), Millis(300'000)});
  for (int i = 0; i < 4; ++i) {
    static_cast<void>(schedule.AfterFailure(random));
  }
  ExpectAbout(schedule.AfterAnswer(Millis(5000), random), Millis(5000));
  ExpectAbout(schedule.AfterFailure(random), Millis(1000));
}

}  // namespace
}  // namespace sluice::discovery
