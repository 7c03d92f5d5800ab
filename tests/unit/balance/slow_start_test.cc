// Proves what slow start promises: a backend that has just come back gets a tenth of its share of
// what is new, then more with time, whatever the policy; nobody else's clients move, a client that
// must stay stays, and without a backend that starts everything is as without slow start.
#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/balance/pool_fixture.h"

namespace sluice::balance::test {
namespace {

constexpr Millis kRamp{30'000};
constexpr std::size_t kStarting = 1;  // of the pools below

constexpr BackendSet::Options With(Policy policy, double bounded_load) {
  return {policy, bounded_load, kRamp};
}

// The part of its share that a backend gets so long after it began.
double PartAfter(Millis passed) {
  const double part = static_cast<double>(passed.count()) / 30'000;
  return part < 0.1 ? 0.1 : part > 1 ? 1 : part;
}

const std::vector<Millis> kMoments = {Millis(-1000),  Millis(0),        Millis(3000),
                                      Millis(7500),   Millis(15'000),   Millis(29'999),
                                      Millis(30'000), Millis(3'000'000)};

class SlowStart : public testing::TestWithParam<Policy> {};

TEST_P(SlowStart, GivesATenthFirstAndThenMore) {
  // Nobody holds anything, so that only the share decides; the least loaded one goes by the key
  // then.
  for (const Weights& weights : {EqualWeights(4), Weights{{"a", 1}, {"b", 2}, {"c", 4}}}) {
    double sum = 0;
    for (const auto& [name, weight] : weights) {
      sum += weight;
    }
    for (const Millis passed : kMoments) {
      Pool pool(weights, With(GetParam(), 0));
      pool.state(kStarting).BeginRamp(pool.now);
      pool.now += passed;
      constexpr int kPicks = 20'000;
      int taken = 0;
      for (int i = 0; i < kPicks; ++i) {
        taken += pool.Choose(KeyHash(static_cast<std::uint64_t>(i))).value().index == kStarting;
      }
      const double weight = weights[kStarting].second * PartAfter(passed);
      const double share = weight / (sum - weights[kStarting].second + weight);
      EXPECT_NEAR(taken, kPicks * share, 5 * std::sqrt(kPicks * share * (1 - share)))
          << passed.count() << " ms, of " << weights.size();
    }
  }
}

TEST_P(SlowStart, FillsAPoolByWhatHoldsNow) {
  Pool pool(EqualWeights(4), With(GetParam(), 1.25));
  pool.state(kStarting).BeginRamp(pool.now);
  pool.now += kRamp / 2;
  Random keys(3);
  for (int i = 0; i < 7000; ++i) {
    pool.Take(keys.Next());
  }
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(static_cast<double>(pool.state(i).open), i == kStarting ? 1000 : 2000, 150) << i;
  }
}

TEST_P(SlowStart, ChangesNothingWhileNobodyStarts) {
  // Once none has ever started, once all have been up for long enough, once without slow start.
  const Weights weights = {{"a", 1}, {"b", 2}, {"c", 0.5}, {"d", 4}};
  Pool plain(weights, {GetParam(), 1.25});
  Pool fresh(weights, With(GetParam(), 1.25));
  Pool up(weights, With(GetParam(), 1.25));
  Pool off(weights, {GetParam(), 1.25});
  for (std::size_t i = 0; i < weights.size(); ++i) {
    up.state(i).BeginRamp(up.now - kRamp);
    off.state(i).BeginRamp(off.now);
  }
  for (std::uint64_t key = 0; key < 5000; ++key) {
    const Pick want = plain.Choose(KeyHash(key)).value();
    for (Pool* pool : {&fresh, &up, &off}) {
      const Pick got = pool->Choose(KeyHash(key)).value();
      ASSERT_EQ(got.index, want.index) << key;
      ASSERT_EQ(got.how, want.how) << key;
      ++pool->state(got.index).open;
    }
    ++plain.state(want.index).open;
  }
}

TEST_P(SlowStart, SharesAsAlwaysWhenAllStartTogether) {
  Pool pool(EqualWeights(4), With(GetParam(), 1.25));
  for (std::size_t i = 0; i < 4; ++i) {
    pool.state(i).BeginRamp(pool.now);
  }
  for (std::uint64_t key = 0; key < 4000; ++key) {
    pool.Take(KeyHash(key));
  }
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(static_cast<double>(pool.state(i).open), 1000, 130) << i;
  }
}

TEST_P(SlowStart, IsNoReasonToRefuse) {
  Pool pool(EqualWeights(3), With(GetParam(), 1.25));
  pool.state(kStarting).BeginRamp(pool.now);
  pool.state(0).healthy = false;
  pool.state(kStarting).open = 1000;
  for (std::uint64_t key = 0; key < 100; ++key) {
    EXPECT_EQ(pool.Choose(KeyHash(key), {2}).value().index, kStarting);
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, SlowStart,
                         testing::Values(Policy::kRendezvous, Policy::kLeastConnections,
                                         Policy::kRandomTwoChoices, Policy::kRoundRobin),
                         [](const auto& param_info) {
                           switch (param_info.param) {
                             case Policy::kRendezvous:
                               return "Rendezvous";
                             case Policy::kLeastConnections:
                               return "LeastConnections";
                             case Policy::kRandomTwoChoices:
                               return "RandomTwoChoices";
                             case Policy::kRoundRobin:
                               return "RoundRobin";
                           }
                           return "";
                         });

TEST(SlowStartRendezvous, MovesOnlyTheKeysOfWhoStartsAndEachBackOnce) {
  for (const Weights& weights : {EqualWeights(5), Weights{{"a", 1}, {"b", 2}, {"c", 0.5}}}) {
    Pool pool(weights, With(Policy::kRendezvous, 0));
    const Instant began = pool.now;
    for (std::uint64_t key = 0; key < 3000; ++key) {
      const std::size_t home = pool.set.HomeOf(KeyHash(key));
      bool is_back = false;
      pool.state(kStarting).BeginRamp(began);
      for (Millis passed{0}; passed <= kRamp; passed += Millis(1500)) {
        pool.now = began + passed;
        const Pick pick = pool.Choose(KeyHash(key)).value();
        if (pick.index == home) {
          EXPECT_EQ(pick.how, PickHow::kHome);
          is_back = true;
          continue;
        }
        ASSERT_EQ(home, kStarting) << "key " << key << " moved for nothing";
        ASSERT_FALSE(is_back) << "key " << key << " left again";
        EXPECT_EQ(pick.how, PickHow::kOverflow);
      }
      EXPECT_TRUE(is_back) << key;
    }
  }
}

TEST(SlowStartRendezvous, MovesAKeyToItsNextChoice) {
  // The keys that do not go home go where they would if the home were out of service.
  Pool pool(EqualWeights(5), With(Policy::kRendezvous, 0));
  pool.state(kStarting).BeginRamp(pool.now);
  int moved = 0;
  for (std::uint64_t key = 0; key < 3000; ++key) {
    const std::size_t index = pool.Choose(KeyHash(key)).value().index;
    if (pool.set.HomeOf(KeyHash(key)) == kStarting && index != kStarting) {
      EXPECT_EQ(index, pool.Choose(KeyHash(key), {kStarting}).value().index);
      ++moved;
    }
  }
  EXPECT_GT(moved, 400);
}

TEST(SlowStartRendezvous, IsNotForAClientThatMustStay) {
  Pool pool(EqualWeights(5), With(Policy::kRendezvous, 1.25));
  for (std::uint64_t key = 0; key < 1000; ++key) {
    pool.state(kStarting).ramp_from = 0;
    const std::size_t home = pool.set.HomeOf(KeyHash(key));
    pool.state(kStarting).BeginRamp(pool.now);
    EXPECT_EQ(pool.set.HomeOf(KeyHash(key)), home);
    const auto pick = pool.set.ChooseHome(KeyHash(key), {});
    ASSERT_TRUE(pick.has_value());
    EXPECT_EQ(pick->index, home);
    EXPECT_EQ(pick->how, PickHow::kHome);
  }
}

TEST(SlowStartBoundedLoad, CapsByTheWeightsThatHoldNow) {
  const Weights weights = {{"a", 1}, {"b", 2}, {"c", 1}};
  Pool pool(weights, With(Policy::kRendezvous, 1.25));
  pool.state(kStarting).BeginRamp(pool.now);
  pool.now += kRamp / 4;
  const std::array<double, 3> now = {1, 0.5, 1};
  for (std::uint64_t key = 0; key < 4000; ++key) {
    std::array<double, 3> caps{};
    double open = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      open += static_cast<double>(pool.state(i).open);
    }
    for (std::size_t i = 0; i < 3; ++i) {
      caps[i] = std::ceil(1.25 * now[i] * (open + 1) / 2.5);
    }
    // Half of all clients share one key, whose home is the one that starts.
    const std::uint64_t hash = key % 2 == 0 ? HashKey("alice") : KeyHash(key);
    const std::size_t taken = pool.Take(hash);
    ASSERT_LE(static_cast<double>(pool.state(taken).open), caps[taken]) << "at key " << key;
  }
}

}  // namespace
}  // namespace sluice::balance::test
