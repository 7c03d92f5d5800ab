// Proves that a learned token leads to the backend that handed it out and to no other, that the
// table stays within its bounds and forgets what was used least lately, and that workers may share
// it.
#include "proxy/session/learned_tokens.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/base/random.h"

namespace sluice::session {
namespace {

using std::chrono::minutes;

constexpr Millis kTtl = minutes(10);
constexpr Instant kNow{std::chrono::hours(1)};

std::vector<balance::Backend> Backends(std::size_t count) {
  std::vector<balance::Backend> backends;
  for (std::size_t i = 0; i < count; ++i) {
    backends.push_back({"b" + std::to_string(i), 1.0, std::make_shared<balance::BackendState>()});
  }
  return backends;
}

// The hash of token number i: spread over all shards, as real ones are.
std::uint64_t Token(std::uint64_t i) {
  return balance::HashKey("token-" + std::to_string(i));
}

// Where the token leads, of these backends.
std::optional<std::size_t> Find(LearnedTokens& table, std::uint64_t token,
                                const std::vector<balance::Backend>& backends, Instant now) {
  const auto found = table.Find(token, backends, now);
  return found && found->home == LearnedTokens::Home::kHere ? std::optional(found->index)
                                                            : std::nullopt;
}

TEST(LearnedTokens, LeadToTheBackendThatHandedThemOut) {
  const auto backends = Backends(3);
  LearnedTokens table(100, kTtl);
  EXPECT_EQ(Find(table, Token(1), backends, kNow), std::nullopt);
  EXPECT_TRUE(table.Learn(Token(1), backends[2].state, kNow));
  EXPECT_TRUE(table.Learn(Token(2), backends[0].state, kNow));
  EXPECT_EQ(Find(table, Token(1), backends, kNow), 2U);
  EXPECT_EQ(Find(table, Token(2), backends, kNow), 0U);
  EXPECT_EQ(Find(table, Token(3), backends, kNow), std::nullopt);
  EXPECT_EQ(table.Count(kNow), 2U);
}

TEST(LearnedTokens, OneThatIsHandedOutAgainBelongsToTheLast) {
  const auto backends = Backends(2);
  LearnedTokens table(1, kTtl);
  EXPECT_TRUE(table.Learn(Token(1), backends[0].state, kNow));
  EXPECT_TRUE(table.Learn(Token(1), backends[1].state, kNow)) << "nobody had to go for it";
  EXPECT_EQ(Find(table, Token(1), backends, kNow), 1U);
  EXPECT_EQ(table.Count(kNow), 1U);
}

TEST(LearnedTokens, AreFoundWhereverTheBackendStandsToday) {
  auto backends = Backends(3);
  LearnedTokens table(100, kTtl);
  table.Learn(Token(1), backends[2].state, kNow);
  std::swap(backends[2], backends[0]);
  EXPECT_EQ(Find(table, Token(1), backends, kNow), 0U);
  backends.erase(backends.begin());
  EXPECT_EQ(Find(table, Token(1), backends, kNow), std::nullopt) << "it is gone";
  // One of the same name that comes later is another one.
  backends.push_back({"b2", 1.0, std::make_shared<balance::BackendState>()});
  EXPECT_EQ(Find(table, Token(1), backends, kNow), std::nullopt);
}

TEST(LearnedTokens, TellWhatHasBecomeOfABackendThatIsNotThere) {
  using Home = LearnedTokens::Home;
  auto backends = Backends(3);
  const std::vector<balance::Backend> others(backends.begin(), backends.begin() + 1);
  LearnedTokens table(100, kTtl);
  table.Learn(Token(1), backends[1].state, kNow);
  table.Learn(Token(2), backends[2].state, kNow);
  EXPECT_EQ(table.Find(Token(1), others, kNow)->home, Home::kLeft);
  backends[1].state->BeginDrain(kNow, minutes(1));
  EXPECT_EQ(table.Find(Token(1), others, kNow)->home, Home::kGone);
  EXPECT_EQ(table.Find(Token(1), backends, kNow)->home, Home::kHere);
  backends.pop_back();
  EXPECT_EQ(table.Find(Token(2), others, kNow)->home, Home::kGone);
}

TEST(LearnedTokens, ThatHaveEndedAreKnownAsSuchForAWhile) {
  using Home = LearnedTokens::Home;
  const auto backends = Backends(2);
  LearnedTokens table(100, kTtl);
  table.End(Token(1), kNow);
  EXPECT_FALSE(table.Find(Token(1), backends, kNow)) << "never known";
  table.Learn(Token(1), backends[0].state, kNow);
  table.Learn(Token(2), backends[1].state, kNow);
  table.End(Token(1), kNow);
  const Instant later = kNow + LearnedTokens::kAfterEnd;
  table.End(Token(1), later);  // of a client that asks on: the first one counts
  LearnedTokens copy(50, kTtl, table);
  for (LearnedTokens* one : {&table, &copy}) {
    EXPECT_EQ(one->Find(Token(1), backends, later)->home, Home::kEnded);
    EXPECT_EQ(one->Find(Token(2), backends, later)->index, 1U);
    EXPECT_FALSE(one->Find(Token(1), backends, later + Millis(1)));
    EXPECT_EQ(one->Count(later + Millis(1)), 1U);
  }
  table.Learn(Token(2), backends[0].state, kNow);
  table.End(Token(2), kNow);
  table.Learn(Token(2), backends[0].state, kNow);
  EXPECT_EQ(Find(table, Token(2), backends, kNow), 0U) << "handed out anew";
}

// A backend that was drained and is back is most likely another process.
TEST(LearnedTokens, OfBeforeADrainHaveEndedWithIt) {
  using Home = LearnedTokens::Home;
  const auto backends = Backends(1);
  balance::BackendState& state = *backends[0].state;
  LearnedTokens table(100, kTtl);
  table.Learn(Token(1), backends[0].state, kNow);
  state.BeginDrain(kNow + Millis(1), minutes(1));
  EXPECT_EQ(table.Find(Token(1), backends, kNow + Millis(2))->home, Home::kHere);
  state.EndDrain(kNow + Millis(3));
  state.draining = false;
  table.Learn(Token(2), backends[0].state, kNow + Millis(4));
  EXPECT_EQ(table.Find(Token(1), backends, kNow + Millis(5))->home, Home::kEnded);
  EXPECT_EQ(table.Find(Token(2), backends, kNow + Millis(5))->home, Home::kHere);
  EXPECT_FALSE(table.Find(Token(1), backends, kNow + Millis(6) + LearnedTokens::kAfterEnd));
}

TEST(LearnedTokens, KeepNoBackend) {
  auto backends = Backends(1);
  LearnedTokens table(100, kTtl);
  table.Learn(Token(1), backends[0].state, kNow);
  EXPECT_EQ(backends[0].state.use_count(), 1);
  backends.clear();
  EXPECT_EQ(Find(table, Token(1), backends, kNow), std::nullopt);
}

TEST(LearnedTokens, TheOneUsedLeastLatelyGoesFirst) {
  const auto backends = Backends(1);
  LearnedTokens table(3, kTtl);
  for (std::uint64_t i = 1; i <= 3; ++i) {
    EXPECT_TRUE(table.Learn(Token(i), backends[0].state, kNow));
  }
  EXPECT_EQ(Find(table, Token(1), backends, kNow), 0U);          // used
  EXPECT_TRUE(table.Learn(Token(2), backends[0].state, kNow));   // used too
  EXPECT_FALSE(table.Learn(Token(4), backends[0].state, kNow));  // instead of 3
  EXPECT_FALSE(Find(table, Token(3), backends, kNow));
  EXPECT_FALSE(table.Learn(Token(5), backends[0].state, kNow));  // instead of 1
  EXPECT_FALSE(Find(table, Token(1), backends, kNow));
  for (const std::uint64_t kept : {2, 4, 5}) {
    EXPECT_TRUE(Find(table, Token(kept), backends, kNow)) << kept;
  }
  EXPECT_EQ(table.Count(kNow), 3U);
}

TEST(LearnedTokens, NeverAreMoreThanTheirBound) {
  const auto backends = Backends(1);
  for (const std::size_t most : {1U, 7U, 8191U, 8192U, 17'001U}) {
    LearnedTokens table(most, kTtl);
    std::size_t evicted = 0;
    for (std::uint64_t i = 0; i < 2 * most; ++i) {
      evicted += table.Learn(Token(i), backends[0].state, kNow) ? 0 : 1;
    }
    EXPECT_EQ(table.Count(kNow) + evicted, 2 * most) << most;
    EXPECT_LE(table.Count(kNow), most);
    EXPECT_GE(table.Count(kNow), most - most / 100) << most << ": the shards fill evenly";
  }
}

// With several shards it is the oldest of its shard that goes, which is nearly the oldest of all.
TEST(LearnedTokens, InAFullTableTheNewestStay) {
  constexpr std::size_t kMost = 16'384;  // four shards
  const auto backends = Backends(1);
  LearnedTokens table(kMost, kTtl);
  for (std::uint64_t i = 0; i < 2 * kMost; ++i) {
    table.Learn(Token(i), backends[0].state, kNow);
  }
  for (std::uint64_t i = 0; i < kMost * 9 / 10; ++i) {
    ASSERT_FALSE(Find(table, Token(i), backends, kNow)) << i;
    ASSERT_TRUE(Find(table, Token(2 * kMost - 1 - i), backends, kNow)) << i;
  }
}

TEST(LearnedTokens, AreForgottenSoLongAfterTheirLastUse) {
  const auto backends = Backends(1);
  LearnedTokens table(2, kTtl);
  table.Learn(Token(1), backends[0].state, kNow);
  table.Learn(Token(2), backends[0].state, kNow);
  EXPECT_TRUE(Find(table, Token(1), backends, kNow + minutes(6)));
  EXPECT_TRUE(Find(table, Token(1), backends, kNow + minutes(12))) << "used six minutes ago";
  EXPECT_EQ(table.Count(kNow + minutes(12)), 1U) << "the other one is over";
  EXPECT_TRUE(table.Learn(Token(3), backends[0].state, kNow + minutes(12)))
      << "there is room, so nobody had to go before its time";
  EXPECT_TRUE(Find(table, Token(1), backends, kNow + minutes(22)));
  EXPECT_FALSE(Find(table, Token(1), backends, kNow + minutes(32) + Millis(1)));
  EXPECT_EQ(table.Count(kNow + minutes(32) + Millis(1)), 0U);
}

TEST(LearnedTokens, AMissIsNoUse) {
  const auto backends = Backends(2);
  const std::vector<balance::Backend> without(backends.begin(), backends.begin() + 1);
  LearnedTokens table(2, kTtl);
  table.Learn(Token(1), backends[1].state, kNow);
  EXPECT_FALSE(Find(table, Token(1), without, kNow + minutes(9)));
  EXPECT_FALSE(Find(table, Token(1), backends, kNow + minutes(11)));
}

TEST(LearnedTokens, MoveToATableOfOtherBounds) {
  const auto backends = Backends(2);
  LearnedTokens before(20'000, kTtl);
  for (std::uint64_t i = 0; i < 100; ++i) {
    before.Learn(Token(i), backends[i % 2].state, kNow + Millis(i));
  }
  EXPECT_TRUE(Find(before, Token(7), backends, kNow + Millis(200)));

  LearnedTokens wider(70'000, minutes(1), before);
  EXPECT_EQ(wider.Count(kNow + Millis(200)), 100U);
  for (std::uint64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(Find(wider, Token(i), backends, kNow + Millis(200)), i % 2) << i;
  }
  EXPECT_EQ(wider.Count(kNow + minutes(2)), 0U) << "the new time holds for old ones too";

  LearnedTokens narrower(3, kTtl, before);
  EXPECT_EQ(narrower.Count(kNow + Millis(200)), 3U);
  for (const std::uint64_t kept : {7, 98, 99}) {
    EXPECT_TRUE(Find(narrower, Token(kept), backends, kNow + Millis(200))) << kept;
  }
  EXPECT_EQ(before.Count(kNow + Millis(200)), 100U);
}

TEST(LearnedTokens, MayBeSharedByWorkers) {
  constexpr std::uint64_t kEach = 4000;
  constexpr std::size_t kThreads = 4;
  const auto backends = Backends(kThreads);
  LearnedTokens table(kThreads * kEach * 2, kTtl);
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> threads;
  for (std::size_t mine = 0; mine < kThreads; ++mine) {
    threads.emplace_back([&, mine] {
      Random random(mine + 1);
      for (std::uint64_t i = 0; i < kEach; ++i) {
        table.Learn(Token(i * kThreads + mine), backends[mine].state, kNow);
        // Whatever is found of the others is right.
        const std::uint64_t asked = random.Next() % (kThreads * kEach);
        const auto found = Find(table, Token(asked), backends, kNow);
        wrong += found && *found != asked % kThreads ? 1 : 0;
        if (i % 512 == 0) {
          wrong += table.Count(kNow) > kThreads * kEach ? 1 : 0;
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, 0U);
  EXPECT_EQ(table.Count(kNow), kThreads * kEach);
}

TEST(LearnedTokens, StayWithinTheirBoundWhenWorkersFillThem) {
  constexpr std::size_t kMost = 9000;  // of two shards
  const auto backends = Backends(1);
  LearnedTokens table(kMost, kTtl);
  std::atomic<std::uint64_t> evicted{0};
  std::vector<std::thread> threads;
  for (std::uint64_t mine = 0; mine < 4; ++mine) {
    threads.emplace_back([&, mine] {
      for (std::uint64_t i = 0; i < kMost; ++i) {
        evicted += table.Learn(Token(i * 4 + mine), backends[0].state, kNow) ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(table.Count(kNow), kMost);
  EXPECT_EQ(evicted, 3 * kMost);
}

}  // namespace
}  // namespace sluice::session
