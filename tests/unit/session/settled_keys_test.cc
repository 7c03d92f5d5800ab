#include "proxy/session/settled_keys.h"

#include <chrono>
#include <cstdint>
#include <string>

#include <gtest/gtest.h>

#include "proxy/balance/backend_set.h"

namespace sluice::session {
namespace {

constexpr Instant kNow{std::chrono::hours(100)};

TEST(SettledKeys, KnowsNobodyAtFirst) {
  const SettledKeys keys;
  for (std::uint64_t key = 0; key < 1000; ++key) {
    EXPECT_FALSE(keys.Knows(balance::HashKey(std::to_string(key)), kNow));
  }
  EXPECT_FALSE(keys.Knows(0, Instant{}));
}

TEST(SettledKeys, KnowsAKeyForItsTimeSinceItWasNotedLast) {
  SettledKeys keys;
  const std::uint64_t key = balance::HashKey("a");
  keys.Note(key, kNow);
  EXPECT_TRUE(keys.Knows(key, kNow));
  EXPECT_TRUE(keys.Knows(key, kNow - std::chrono::seconds(1))) << "by another worker's clock";
  EXPECT_TRUE(keys.Knows(key, kNow + SettledKeys::kFor));
  EXPECT_FALSE(keys.Knows(key, kNow + SettledKeys::kFor + Millis(1000)));
  keys.Note(key, kNow + SettledKeys::kFor);
  EXPECT_TRUE(keys.Knows(key, kNow + 2 * SettledKeys::kFor));
  EXPECT_FALSE(keys.Knows(balance::HashKey("b"), kNow));
}

TEST(SettledKeys, KnowsTensOfThousandsAtATime) {
  constexpr std::uint64_t kCount = 20'000;
  SettledKeys keys;
  for (std::uint64_t key = 0; key < kCount; ++key) {
    keys.Note(balance::HashKey(std::to_string(key)), kNow);
  }
  std::uint64_t known = 0;
  std::uint64_t mistaken = 0;
  for (std::uint64_t key = 0; key < kCount; ++key) {
    known += keys.Knows(balance::HashKey(std::to_string(key)), kNow) ? 1 : 0;
    mistaken += keys.Knows(balance::HashKey("not " + std::to_string(key)), kNow) ? 1 : 0;
  }
  EXPECT_GE(known, kCount * 99 / 100);
  EXPECT_EQ(mistaken, 0U);
}

// Of those that share a place, the ones that were noted last are known.
TEST(SettledKeys, ForgetsTheOldestWhereThereIsNoRoom) {
  constexpr std::uint64_t kOfOneBucket = 12;
  SettledKeys keys;
  for (std::uint64_t i = 0; i < kOfOneBucket; ++i) {
    keys.Note(i << 32U, kNow + std::chrono::seconds(i));
  }
  const Instant later = kNow + std::chrono::seconds(kOfOneBucket);
  for (std::uint64_t i = 0; i < kOfOneBucket; ++i) {
    EXPECT_EQ(keys.Knows(i << 32U, later), i >= kOfOneBucket - 8) << i;
  }
}

}  // namespace
}  // namespace sluice::session
