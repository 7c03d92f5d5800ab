// Proves what of the failures that sessions see makes a row, and that a process which takes a
// thousand sessions with it is one event.
#include "proxy/balance/failure_count.h"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace sluice::balance {
namespace {

constexpr Instant kNoon{std::chrono::hours(12)};
constexpr Millis kApart = FailureCount::kOneLoss;

TEST(FailureCount, TellsOfEveryFullRow) {
  FailureCount count;
  std::string told;
  for (int i = 0; i < 7; ++i) {
    told += count.AddFailure(3) ? '!' : '.';
  }
  EXPECT_EQ(told, "..!..!.");
}

TEST(FailureCount, BeginsAnewWithASuccess) {
  FailureCount count;
  EXPECT_FALSE(count.AddFailure(2));
  count.EndFailures();
  EXPECT_FALSE(count.AddFailure(2));
  EXPECT_TRUE(count.AddFailure(2));
}

TEST(FailureCount, NeverTellsWhenItIsOff) {
  FailureCount count;
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(count.AddFailure(0));
    EXPECT_FALSE(count.AddLoss(0, kNoon + i * kApart));
  }
}

TEST(FailureCount, TakesManyLossesAtOnceForOne) {
  FailureCount count;
  for (int i = 0; i < 1000; ++i) {
    EXPECT_FALSE(count.AddLoss(2, kNoon + Millis(i % 1000) / 2));
  }
  EXPECT_TRUE(count.AddLoss(2, kNoon + kApart));
}

TEST(FailureCount, ForgetsLossesThatAreFarBetween) {
  FailureCount count;
  Instant now = kNoon;
  EXPECT_FALSE(count.AddLoss(2, now));
  now += FailureCount::kLossMemory + Millis(1);
  EXPECT_FALSE(count.AddLoss(2, now));
  now += FailureCount::kLossMemory;
  EXPECT_TRUE(count.AddLoss(2, now));
}

TEST(FailureCount, AnOrderlyEndMakesGoodForLossesAndNotForFailures) {
  FailureCount count;
  EXPECT_FALSE(count.AddLoss(2, kNoon));
  EXPECT_FALSE(count.AddFailure(2));
  count.EndLosses();
  EXPECT_FALSE(count.AddLoss(2, kNoon + kApart));
  EXPECT_TRUE(count.AddFailure(2));
  count.EndFailures();
  EXPECT_TRUE(count.AddLoss(2, kNoon + 2 * kApart));
}

TEST(FailureCount, ResetBeginsBothRowsAnew) {
  FailureCount count;
  EXPECT_FALSE(count.AddFailure(2));
  EXPECT_FALSE(count.AddLoss(2, kNoon));
  count.Reset();
  EXPECT_FALSE(count.AddFailure(2));
  EXPECT_FALSE(count.AddLoss(2, kNoon + kApart));
}

TEST(FailureCount, CountsALossOnceWhenManyThreadsSeeIt) {
  FailureCount count;
  std::atomic<int> told{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 1000; ++k) {
        told += count.AddLoss(1, kNoon) ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(told, 1);
}

}  // namespace
}  // namespace sluice::balance
