// Proves how long ejections are, and when a pool cannot do without a backend.
#include "proxy/health/ejection.h"

#include <vector>

#include <gtest/gtest.h>

namespace sluice::health {
namespace {

constexpr Ejection::Rule kRule{Millis(10'000), Millis(60'000)};
constexpr Instant kNoon{std::chrono::hours(12)};

// Ejections that follow each other as soon as the one before is over, in seconds.
std::vector<long> InARow(Ejection& ejection, Instant& now, std::size_t count, bool grows = true) {
  std::vector<long> seconds;
  for (std::size_t i = 0; i < count; ++i) {
    const Millis length = ejection.Begin(kRule, grows, now);
    EXPECT_TRUE(ejection.is_on());
    now += length;
    ejection.End(now);
    EXPECT_FALSE(ejection.is_on());
    seconds.push_back(static_cast<long>(length.count()) / 1000);
  }
  return seconds;
}

TEST(Ejection, LastsTwiceAsLongEachTimeUpToTheLongest) {
  Ejection ejection;
  Instant now = kNoon;
  EXPECT_EQ(InARow(ejection, now, 6), (std::vector<long>{10, 20, 40, 60, 60, 60}));
}

TEST(Ejection, BeginsAnewAfterAQuietTime) {
  Ejection ejection;
  Instant now = kNoon;
  EXPECT_EQ(InARow(ejection, now, 3), (std::vector<long>{10, 20, 40}));
  now += kRule.most_time - Millis(1);
  EXPECT_EQ(InARow(ejection, now, 1), (std::vector<long>{60}));
  now += kRule.most_time;
  EXPECT_EQ(InARow(ejection, now, 2), (std::vector<long>{10, 20}));
}

TEST(Ejection, OneThatDoesNotGrowIsAlwaysTheShortest) {
  Ejection ejection;
  Instant now = kNoon;
  EXPECT_EQ(InARow(ejection, now, 3, false), (std::vector<long>{10, 10, 10}));
  EXPECT_EQ(InARow(ejection, now, 2), (std::vector<long>{10, 20}));
  EXPECT_EQ(InARow(ejection, now, 2, false), (std::vector<long>{10, 10}));
  EXPECT_EQ(InARow(ejection, now, 1), (std::vector<long>{40}));
}

TEST(Ejection, StaysTheSameWhereTheFirstIsTheLongest) {
  Ejection ejection;
  const Ejection::Rule rule{Millis(500), Millis(500)};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(ejection.Begin(rule, true, kNoon), Millis(500));
    ejection.End(kNoon);
  }
}

TEST(MayEject, KeepsToItsShareOfThePool) {
  EXPECT_TRUE(MayEject({4, 0, 3}, 0.5));
  EXPECT_TRUE(MayEject({4, 1, 2}, 0.5));
  EXPECT_FALSE(MayEject({4, 2, 1}, 0.5));
  EXPECT_TRUE(MayEject({5, 1, 3}, 0.5));
  EXPECT_FALSE(MayEject({5, 2, 2}, 0.5));
}

TEST(MayEject, AllowsOneWhateverTheShare) {
  EXPECT_TRUE(MayEject({3, 0, 2}, 0.1));
  EXPECT_FALSE(MayEject({3, 1, 1}, 0.1));
}

TEST(MayEject, NeverTakesTheLastThatTakesSessions) {
  EXPECT_FALSE(MayEject({1, 0, 0}, 1));
  EXPECT_FALSE(MayEject({5, 0, 0}, 1));
  EXPECT_TRUE(MayEject({5, 3, 1}, 1));
}

}  // namespace
}  // namespace sluice::health
