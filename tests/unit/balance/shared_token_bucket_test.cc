// Proves the bound of the token bucket: in no span of time does it give more than its burst and the
// rate times that span, whoever asks and however often; and that what it refuses comes back as fast
// as it can be served.
#include "proxy/balance/shared_token_bucket.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/base/random.h"

namespace sluice::balance::test {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kStart = 1000 * kSecond;

// The most tokens that were given in any span of `length`. `times` ascend.
std::size_t MostIn(const std::vector<std::int64_t>& times, std::int64_t length) {
  std::size_t most = 0;
  std::size_t first = 0;
  for (std::size_t last = 0; last < times.size(); ++last) {
    while (times[last] - times[first] > length) {
      ++first;
    }
    most = std::max(most, last - first + 1);
  }
  return most;
}

TEST(SharedTokenBucket, GivesItsBurstAtOnceAndThenOneAnInterval) {
  const SharedTokenBucket::Rate rate = SharedTokenBucket::Rate::Of(10, 3);
  SharedTokenBucket bucket;
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(bucket.HasToken(rate, kStart));
    EXPECT_TRUE(bucket.Take(rate, kStart)) << i;
  }
  EXPECT_FALSE(bucket.HasToken(rate, kStart));
  EXPECT_FALSE(bucket.Take(rate, kStart));
  EXPECT_FALSE(bucket.Take(rate, kStart + rate.interval - 1));
  EXPECT_TRUE(bucket.Take(rate, kStart + rate.interval)) << "refused takes cost nothing";
  EXPECT_FALSE(bucket.Take(rate, kStart + rate.interval));
  EXPECT_NEAR(static_cast<double>(rate.interval), 0.1 * kSecond, 2);
}

TEST(SharedTokenBucket, IsFullAgainAfterAPauseAndNoFuller) {
  const SharedTokenBucket::Rate rate = SharedTokenBucket::Rate::Of(100, 5);
  SharedTokenBucket bucket;
  for (const std::int64_t later : {std::int64_t{0}, kSecond, 3600 * kSecond}) {
    int taken = 0;
    while (bucket.Take(rate, kStart + later)) {
      ++taken;
    }
    EXPECT_EQ(taken, 5) << later;
  }
}

TEST(SharedTokenBucket, NeverGivesMoreThanItsRateInAnySpan) {
  Random random(5);
  for (const double per_second : {0.5, 7.0, 333.0, 20'000.0}) {
    for (const std::uint64_t burst : {1U, 4U, 50U}) {
      const SharedTokenBucket::Rate rate = SharedTokenBucket::Rate::Of(per_second, burst);
      SharedTokenBucket bucket;
      std::vector<std::int64_t> given;
      std::int64_t now = kStart;
      for (int i = 0; i < 20'000; ++i) {
        // Storms with pauses between them.
        now += static_cast<std::int64_t>(random.Unit() * static_cast<double>(rate.interval) *
                                         (i % 500 == 0 ? 100 : 0.5));
        if (bucket.Take(rate, now)) {
          given.push_back(now);
        }
      }
      ASSERT_GT(given.size(), 1000U);
      for (const double spans : {0.0, 1.0, 10.0, 250.0}) {
        const auto length = static_cast<std::int64_t>(spans * static_cast<double>(rate.interval));
        EXPECT_LE(
            static_cast<double>(MostIn(given, length)),
            static_cast<double>(burst) + per_second * static_cast<double>(length) / kSecond + 1e-6)
            << per_second << " per second, burst " << burst << ", over " << length;
      }
    }
  }
}

TEST(SharedTokenBucket, ThreadsTogetherNeverGetMore) {
  const SharedTokenBucket::Rate rate = SharedTokenBucket::Rate::Of(1000, 20);
  SharedTokenBucket bucket;
  std::atomic<std::int64_t> clock{kStart};
  std::atomic<std::uint64_t> given{0};
  std::vector<std::thread> threads;
  constexpr std::int64_t kStep = kSecond / 100'000;  // a hundredth of an interval
  constexpr std::int64_t kSteps = 50'000;            // half a second
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      std::uint64_t mine = 0;
      while (clock.load() < kStart + kSteps * kStep) {
        mine += bucket.Take(rate, clock.fetch_add(kStep)) ? 1 : 0;
      }
      given += mine;
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_LE(given.load(), 20U + 500U + 1U);
  EXPECT_GE(given.load(), 500U) << "a thread that loses a race tries again";
}

TEST(SharedTokenBucket, ThreadsAtOneInstantGetTheBurst) {
  for (int round = 0; round < 200; ++round) {
    const SharedTokenBucket::Rate rate = SharedTokenBucket::Rate::Of(1, 7);
    SharedTokenBucket bucket;
    std::atomic<int> given{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (int k = 0; k < 5; ++k) {
          given += bucket.Take(rate, kStart) ? 1 : 0;
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    ASSERT_EQ(given.load(), 7) << round;
  }
}

TEST(ComebackQueue, SpreadsAStormOverTheTimeThatItTakes) {
  const SharedTokenBucket::Rate rate = SharedTokenBucket::Rate::Of(100, 1);
  ComebackQueue queue;
  for (int i = 1; i <= 1000; ++i) {
    EXPECT_EQ(queue.Enter(rate, kStart), i * rate.interval);
  }
  // Half of them are through five seconds later.
  EXPECT_EQ(queue.Enter(rate, kStart + 500 * rate.interval), 501 * rate.interval);
  EXPECT_EQ(queue.Enter(rate, kStart + 3600 * kSecond), rate.interval) << "long empty";
}

TEST(ComebackQueue, HasAnEnd) {
  const SharedTokenBucket::Rate rate = SharedTokenBucket::Rate::Of(10, 1);
  ComebackQueue queue;
  for (int i = 0; i < 5000; ++i) {
    EXPECT_LE(queue.Enter(rate, kStart), ComebackQueue::kLongest);
  }
  EXPECT_EQ(queue.Enter(rate, kStart), ComebackQueue::kLongest);
  EXPECT_LE(queue.Enter(rate, kStart + 10 * kSecond), ComebackQueue::kLongest - 9 * kSecond)
      << "those behind the end did not lengthen it";
}

}  // namespace
}  // namespace sluice::balance::test
