// Proves the order of the drain: which stage at which instant, what a second signal changes from
// each stage, and that closes are paced inside their window, gently at first and then evenly, and
// under their rate.
#include "proxy/drain/drain_plan.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include <gtest/gtest.h>

namespace sluice::drain {
namespace {

using std::chrono::nanoseconds;

constexpr Instant kStart{std::chrono::hours(1000)};
constexpr nanoseconds kInstantBefore{-1};

// 2 s Refusing, 5 s window, 3 s grace: Closing from 2 s, Killing from 10 s.
constexpr DrainOptions kOptions{Millis(2000), Millis(5000), Millis(3000), 0};

Instant At(Millis since_start) {
  return kStart + since_start;
}

std::vector<Instant> CloseAll(DrainPlan& plan, std::size_t count, std::uint64_t seed = 1) {
  Random random(seed);
  std::vector<Instant> closes;
  for (std::size_t i = 0; i < count; ++i) {
    closes.push_back(plan.CloseAt(i, count, random));
  }
  return closes;
}

// The share of all closes that is due at a part of the window, both in [0, 1]: a density that rises
// over the first tenth, and is level from there on.
double ShareBy(double part) {
  return part < 0.1 ? part * part / (2 * 0.1 * 0.95) : (part - 0.05) / 0.95;
}

// A part of a window of 5 s that begins at kStart.
double PartOf(Instant close) {
  return std::chrono::duration<double>(close - kStart).count() / 5;
}

TEST(DrainPlan, ServesUntilToldToStart) {
  const DrainPlan plan(kOptions);
  EXPECT_EQ(plan.StageAt(kStart), Stage::kServing);
  EXPECT_EQ(plan.StageAt(Instant::max()), Stage::kServing);
  EXPECT_EQ(plan.NextChange(kStart), Instant::max());
}

TEST(DrainPlan, GoesThroughItsStagesAtExactInstants) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  struct Case {
    const char* name;
    Instant now;
    Stage stage;
    Instant next;
  };

  const std::vector<Case> cases = {
      {"at the signal", At(Millis(0)), Stage::kRefusing, At(Millis(2000))},
      {"the last of Refusing", At(Millis(2000)) + kInstantBefore, Stage::kRefusing,
       At(Millis(2000))},
      {"the first of Closing", At(Millis(2000)), Stage::kClosing, At(Millis(10'000))},
      {"the end of the window", At(Millis(7000)), Stage::kClosing, At(Millis(10'000))},
      {"the last of Closing", At(Millis(10'000)) + kInstantBefore, Stage::kClosing,
       At(Millis(10'000))},
      {"the first of Killing", At(Millis(10'000)), Stage::kKilling, Instant::max()},
      {"long after", At(Millis(1'000'000)), Stage::kKilling, Instant::max()},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(plan.StageAt(c.now), c.stage) << c.name;
    EXPECT_EQ(plan.NextChange(c.now), c.next) << c.name;
  }
  EXPECT_EQ(plan.kill_at(), At(Millis(10'000)));
}

TEST(DrainPlan, SkipsRefusingWithoutReadyDelay) {
  DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 0});
  plan.Start(kStart);
  EXPECT_EQ(plan.StageAt(kStart), Stage::kClosing);
  EXPECT_EQ(plan.NextChange(kStart), At(Millis(8000)));
}

TEST(DrainPlan, KillsAtOnceWithoutWindowAndGrace) {
  DrainPlan plan({Millis(0), Millis(0), Millis(0), 0});
  plan.Start(kStart);
  EXPECT_EQ(plan.StageAt(kStart), Stage::kKilling);
  EXPECT_EQ(plan.kill_at(), kStart);
  for (const Instant close : CloseAll(plan, 10)) {
    EXPECT_EQ(close, kStart);
  }
}

TEST(DrainPlan, StartsOnce) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  plan.Start(At(Millis(1000)));
  plan.Start(At(Millis(5000)));
  EXPECT_EQ(plan.kill_at(), At(Millis(10'000)));
  EXPECT_EQ(plan.NextChange(kStart), At(Millis(2000)));
}

TEST(DrainPlanHurry, FromServingClosesAtOnce) {
  DrainPlan plan(kOptions);
  plan.Hurry(kStart, Millis(2000));
  EXPECT_EQ(plan.StageAt(kStart), Stage::kClosing);
  EXPECT_EQ(plan.NextChange(kStart), At(Millis(2000)));
  EXPECT_EQ(plan.StageAt(At(Millis(2000))), Stage::kKilling);
  for (const Instant close : CloseAll(plan, 100)) {
    EXPECT_EQ(close, kStart);
  }
  plan.Start(At(Millis(100)));
  EXPECT_EQ(plan.kill_at(), At(Millis(2000))) << "a start after it changes nothing";
}

TEST(DrainPlanHurry, FromRefusingSkipsTheRestOfIt) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  plan.Hurry(At(Millis(500)), Millis(2000));
  EXPECT_EQ(plan.StageAt(At(Millis(500))), Stage::kClosing);
  EXPECT_EQ(plan.kill_at(), At(Millis(2500)));
  for (const Instant close : CloseAll(plan, 100)) {
    EXPECT_EQ(close, At(Millis(500)));
  }
}

TEST(DrainPlanHurry, FromClosingEndsTheWindow) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  plan.Hurry(At(Millis(3000)), Millis(2000));
  EXPECT_EQ(plan.StageAt(At(Millis(2500))), Stage::kClosing) << "what was stays as it was";
  EXPECT_EQ(plan.StageAt(At(Millis(3000))), Stage::kClosing);
  EXPECT_EQ(plan.kill_at(), At(Millis(5000)));
  for (const Instant close : CloseAll(plan, 100)) {
    EXPECT_EQ(close, At(Millis(3000)));
  }
}

TEST(DrainPlanHurry, NeverProlongs) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  plan.Hurry(At(Millis(9500)), Millis(2000));
  EXPECT_EQ(plan.kill_at(), At(Millis(10'000)));
}

TEST(DrainPlanHurry, ComesTooLateInKilling) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  plan.Hurry(At(Millis(10'000)), Millis(2000));
  EXPECT_EQ(plan.StageAt(At(Millis(10'000))), Stage::kKilling);
  EXPECT_EQ(plan.NextChange(At(Millis(10'000))), Instant::max());
  EXPECT_EQ(plan.kill_at(), At(Millis(10'000)));
  EXPECT_EQ(plan.StageAt(At(Millis(5000))), Stage::kClosing) << "what was stays as it was";
}

TEST(DrainPlanHurry, AgainCanOnlyBeSooner) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  plan.Hurry(At(Millis(3000)), Millis(2000));
  plan.Hurry(At(Millis(4000)), Millis(2000));
  EXPECT_EQ(plan.kill_at(), At(Millis(5000)));
  EXPECT_EQ(CloseAll(plan, 1).front(), At(Millis(3000)));
  plan.Hurry(At(Millis(4000)), Millis(100));
  EXPECT_EQ(plan.kill_at(), At(Millis(4100)));
}

TEST(DrainPlanHurry, OverridesTheRateCap) {
  DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 10});
  plan.Start(kStart);
  (void)CloseAll(plan, 20);
  plan.Hurry(At(Millis(1000)), Millis(2000));
  for (const Instant close : CloseAll(plan, 100)) {
    EXPECT_EQ(close, At(Millis(1000)));
  }
}

TEST(DrainPlanHurry, WithoutALimitKillsAtOnce) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  plan.Hurry(At(Millis(2500)), Millis(0));
  EXPECT_EQ(plan.StageAt(At(Millis(2500))), Stage::kKilling);
}

TEST(DrainPlanPacing, FillsEveryTenthOfASecondWithItsShare) {
  // 2,000 sessions over 5 s: 42 in each bin of 100 ms behind the ramp, less before, and never more
  // than 3 times the mean of 40. The slices keep it far closer: a bin can only differ by the two
  // sessions at its ends.
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 0});
    plan.Start(kStart);
    std::vector<int> bins(50, 0);
    for (const Instant close : CloseAll(plan, 2000, seed)) {
      const auto bin = (close - kStart) / Millis(100);
      ASSERT_GE(bin, 0);
      ASSERT_LT(bin, 50) << "outside of the window";
      ++bins[static_cast<std::size_t>(bin)];
    }
    for (std::size_t i = 0; i < bins.size(); ++i) {
      const double from = static_cast<double>(i) / 50;
      EXPECT_NEAR(bins[i], 2000 * (ShareBy(from + 0.02) - ShareBy(from)), 2)
          << "bin " << i << ", seed " << seed;
    }
  }
}

TEST(DrainPlanPacing, BeginsGently) {
  // The first tenth of the window gets a half of an even share, and the first half of it a quarter
  // of that.
  DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 0});
  plan.Start(kStart);
  int first_tenth = 0;
  int first_twentieth = 0;
  for (const Instant close : CloseAll(plan, 2000)) {
    first_tenth += close < At(Millis(500)) ? 1 : 0;
    first_twentieth += close < At(Millis(250)) ? 1 : 0;
  }
  EXPECT_NEAR(first_tenth, 105, 1);
  EXPECT_NEAR(first_twentieth, 26, 1);
}

TEST(DrainPlanPacing, HasNoPeak) {
  // 5,000 sessions: no hundredth of the window gets more than 1.6 times the mean, at any offset.
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 0});
    plan.Start(kStart);
    std::vector<Instant> closes = CloseAll(plan, 5000, seed);
    EXPECT_TRUE(std::is_sorted(closes.begin(), closes.end()));
    for (auto from = closes.begin(); from != closes.end(); ++from) {
      const auto to = std::lower_bound(from, closes.end(), *from + Millis(50));
      ASSERT_LE(to - from, 80) << "seed " << seed << ", at " << PartOf(*from);
    }
  }
}

TEST(DrainPlanPacing, StaysEvenAcrossWorkers) {
  // Workers pace on their own; their sum must hold the promise too, also with odd counts.
  std::vector<int> bins(50, 0);
  int total = 0;
  for (const std::size_t count : {313U, 1U, 512U, 7U, 667U, 500U}) {
    DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 0});
    plan.Start(kStart);
    for (const Instant close : CloseAll(plan, count, count)) {
      ++bins[static_cast<std::size_t>((close - kStart) / Millis(100))];
      ++total;
    }
  }
  EXPECT_EQ(total, 2000);
  EXPECT_LE(*std::max_element(bins.begin(), bins.end()), 120);
}

TEST(DrainPlanPacing, JittersInsideEachSlice) {
  DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 0});
  plan.Start(kStart);
  const std::vector<Instant> closes = CloseAll(plan, 1000);
  double sum = 0;
  std::size_t early = 0;
  for (std::size_t i = 0; i < closes.size(); ++i) {
    const double part = 1000 * ShareBy(PartOf(closes[i])) - static_cast<double>(i);
    ASSERT_GT(part, -1e-4) << i;  // an instant is cut to nanoseconds
    ASSERT_LT(part, 1) << i;
    sum += part;
    early += part < 0.1 ? 1 : 0;
  }
  EXPECT_NEAR(sum / 1000, 0.5, 0.05);  // five standard deviations of a uniform mean
  EXPECT_NEAR(static_cast<double>(early), 100, 48);
}

TEST(DrainPlanPacing, SpreadsASingleSessionOverTheWholeWindow) {
  // One session on each of many machines: all draws together must fill the window.
  Random random(1);
  std::vector<int> tenths(10, 0);
  for (int i = 0; i < 10'000; ++i) {
    DrainPlan plan({Millis(1000), Millis(5000), Millis(3000), 0});
    plan.Start(kStart);
    const Instant close = plan.CloseAt(0, 1, random);
    ++tenths[static_cast<std::size_t>((close - At(Millis(1000))) / Millis(500))];
  }
  for (std::size_t i = 0; i < tenths.size(); ++i) {
    EXPECT_NEAR(tenths[i], i == 0 ? 526 : 1053, 155) << i;  // five standard deviations
  }
}

TEST(DrainPlanRate, SpacesCloses) {
  // 50 in 5 s are 10 a second on average; the jitter alone would bring two close together.
  DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 12});
  plan.Start(kStart);
  const std::vector<Instant> closes = CloseAll(plan, 50);
  for (std::size_t i = 1; i < closes.size(); ++i) {
    EXPECT_GE(std::chrono::duration<double>(closes[i] - closes[i - 1]).count(), 1.0 / 12) << i;
  }
  EXPECT_LT(closes.back(), At(Millis(5200))) << "the cap is not what decides here";
}

TEST(DrainPlanRate, GoesBeyondTheWindowWhenItMust) {
  DrainPlan plan({Millis(0), Millis(5000), Millis(10'000), 10});
  plan.Start(kStart);
  const std::vector<Instant> closes = CloseAll(plan, 100);  // 10 s worth of slots
  for (std::size_t i = 1; i < closes.size(); ++i) {
    EXPECT_GE(closes[i] - closes[i - 1], Millis(100)) << i;
  }
  // The first two come when the ramp says so, in the first 308 ms; from there on the cap decides.
  EXPECT_GT(closes.back(), At(Millis(9800)));
  EXPECT_LT(closes.back(), At(Millis(10'110)));
}

TEST(DrainPlanRate, NeverGoesBeyondTheKill) {
  DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 10});
  plan.Start(kStart);
  const std::vector<Instant> closes = CloseAll(plan, 1000);
  EXPECT_TRUE(std::is_sorted(closes.begin(), closes.end()));
  EXPECT_EQ(closes.back(), plan.kill_at());
  EXPECT_EQ(std::count_if(closes.begin(), closes.end(),
                          [&](Instant close) { return close < plan.kill_at(); }),
            80);  // 8 s at 10 a second
}

TEST(DrainPlanRate, HoldsWhereTheRampEnds) {
  // 1,000 in 5 s are 200 a second on average and 210.5 at the full rate, which the cap cuts.
  DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 205});
  plan.Start(kStart);
  const std::vector<Instant> closes = CloseAll(plan, 1000);
  for (std::size_t i = 1; i < closes.size(); ++i) {
    ASSERT_GE(std::chrono::duration<double>(closes[i] - closes[i - 1]).count(), 1.0 / 205) << i;
  }
  EXPECT_GT(closes.back(), At(Millis(5000)));
  EXPECT_LT(closes.back(), At(Millis(5250)));
}

TEST(DrainPlanRate, SurvivesExtremes) {
  for (const double rate : {1e-300, 1e-9, 1e300}) {
    DrainPlan plan({Millis(0), Millis(5000), Millis(3000), rate});
    plan.Start(kStart);
    for (const Instant close : CloseAll(plan, 100)) {
      EXPECT_GE(close, kStart) << rate;
      EXPECT_LE(close, plan.kill_at()) << rate;
    }
  }
}

TEST(DrainPlanLate, DrawsFromWhatIsLeftOfTheWindow) {
  DrainPlan plan(kOptions);  // the window is from 2 s to 7 s
  plan.Start(kStart);
  Random random(1);
  std::vector<int> quarters(4, 0);
  for (int i = 0; i < 4000; ++i) {
    const Instant close = plan.LateCloseAt(At(Millis(5000)), random);
    ASSERT_GE(close, At(Millis(5000)));
    ASSERT_LT(close, At(Millis(7000)));
    ++quarters[static_cast<std::size_t>((close - At(Millis(5000))) / Millis(500))];
  }
  for (const int quarter : quarters) {
    EXPECT_NEAR(quarter, 1000, 137);  // five standard deviations
  }
}

TEST(DrainPlanLate, NeverComesBeforeTheWindow) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  Random random(1);
  for (int i = 0; i < 1000; ++i) {
    const Instant close = plan.LateCloseAt(At(Millis(1990)), random);
    ASSERT_GE(close, At(Millis(2000)));
    ASSERT_LT(close, At(Millis(7000)));
  }
}

TEST(DrainPlanLate, ComesAtOnceBehindTheWindow) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  Random random(1);
  EXPECT_EQ(plan.LateCloseAt(At(Millis(7000)), random), At(Millis(7000)));
  EXPECT_EQ(plan.LateCloseAt(At(Millis(9000)), random), At(Millis(9000)));
  EXPECT_EQ(plan.LateCloseAt(At(Millis(12'000)), random), plan.kill_at()) << "behind the end";
}

TEST(DrainPlanLate, ComesAtOnceAfterASecondSignal) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  plan.Hurry(At(Millis(3000)), Millis(2000));
  Random random(1);
  EXPECT_EQ(plan.LateCloseAt(At(Millis(3000)), random), At(Millis(3000)));
  EXPECT_EQ(plan.LateCloseAt(At(Millis(4000)), random), At(Millis(4000)));
  EXPECT_EQ(plan.LateCloseAt(At(Millis(6000)), random), At(Millis(5000))) << "behind the end";
}

TEST(DrainPlanLate, KeepsTheRateCap) {
  DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 12});
  plan.Start(kStart);
  std::vector<Instant> closes = CloseAll(plan, 50);
  Random random(1);
  for (int i = 0; i < 20; ++i) {
    closes.push_back(plan.LateCloseAt(At(Millis(2500)), random));
  }
  for (std::size_t i = 1; i < closes.size(); ++i) {
    EXPECT_GE(std::chrono::duration<double>(closes[i] - closes[i - 1]).count(), 1.0 / 12) << i;
  }
  EXPECT_LT(closes.back(), plan.kill_at());
  for (int i = 0; i < 100; ++i) {
    closes.push_back(plan.LateCloseAt(At(Millis(2500)), random));
  }
  EXPECT_EQ(closes.back(), plan.kill_at()) << "no slot is left before the end";
}

}  // namespace
}  // namespace sluice::drain
