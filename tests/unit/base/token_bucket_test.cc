// Proves that a token bucket gives its burst at once and its rate after that, that a debt is as
// long as it is large, and that nothing is saved beyond the burst.
#include "proxy/base/token_bucket.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

constexpr Instant kStart{std::chrono::hours(1000)};
constexpr TokenRate kTen{10, 5};

int TakeAll(TokenBucket& bucket, const TokenRate& rate, Instant now) {
  int taken = 0;
  while (taken < 1000 && bucket.Take(rate, now)) {
    ++taken;
  }
  return taken;
}

TEST(TokenBucket, GivesItsBurstAtOnceAndThenItsRate) {
  TokenBucket bucket;
  EXPECT_EQ(TakeAll(bucket, kTen, kStart), 5);
  EXPECT_EQ(TakeAll(bucket, kTen, kStart + Millis(99)), 0);
  EXPECT_EQ(TakeAll(bucket, kTen, kStart + Millis(100)), 1);
  EXPECT_EQ(TakeAll(bucket, kTen, kStart + Millis(350)), 2);
}

TEST(TokenBucket, SavesNoMoreThanItsBurst) {
  TokenBucket bucket;
  EXPECT_EQ(TakeAll(bucket, kTen, kStart + std::chrono::hours(1)), 5);
}

TEST(TokenBucket, NeverGivesMoreThanRateAndBurstInAnyWindow) {
  TokenBucket bucket;
  int taken = 0;
  for (int ms = 0; ms <= 10'000; ++ms) {
    taken += TakeAll(bucket, kTen, kStart + Millis(ms));
    EXPECT_LE(taken, 5 + ms / 100);
  }
  EXPECT_EQ(taken, 105);
}

TEST(TokenBucket, TakesSeveralOrNone) {
  TokenBucket bucket;
  EXPECT_TRUE(bucket.Take(kTen, kStart, 3));
  EXPECT_FALSE(bucket.Take(kTen, kStart, 3));
  EXPECT_TRUE(bucket.Take(kTen, kStart, 2));
}

TEST(TokenBucket, ADebtIsPaidWithTime) {
  TokenBucket bucket;
  EXPECT_LE(bucket.Spend(kTen, kStart, 5), Instant::duration(0));
  EXPECT_EQ(bucket.Spend(kTen, kStart, 20), std::chrono::seconds(2));
  EXPECT_FALSE(bucket.Take(kTen, kStart + Millis(1'999)));
  EXPECT_EQ(bucket.Wait(kTen, kStart + Millis(2'000)), Millis(100));
  EXPECT_TRUE(bucket.Take(kTen, kStart + Millis(2'100)));
}

TEST(TokenBucket, IsFullWhenItsTimeHasPassed) {
  TokenBucket bucket;
  EXPECT_TRUE(bucket.IsFull(kStart));
  ASSERT_TRUE(bucket.Take(kTen, kStart));
  EXPECT_FALSE(bucket.IsFull(kStart + Millis(99)));
  EXPECT_TRUE(bucket.IsFull(kStart + Millis(100)));
}

TEST(TokenBucket, AnAbsurdDebtDoesNotOverflow) {
  TokenBucket bucket;
  const TokenRate slow{0.01, 1};
  EXPECT_GT(bucket.Spend(slow, kStart, 1e300), std::chrono::hours(8'000));
  EXPECT_FALSE(bucket.Take(slow, kStart + std::chrono::hours(24)));
}

}  // namespace
}  // namespace sluice
