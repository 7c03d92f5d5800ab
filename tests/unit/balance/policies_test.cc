// Proves what the policies without consistent hashing promise: shares by weight, the less loaded
// one taken, and the same skipping of what is out of service.
#include <array>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/balance/pool_fixture.h"

namespace sluice::balance::test {
namespace {

const Weights kOneTwoFour = {{"one", 1}, {"two", 2}, {"four", 4}};

class EveryPolicy : public testing::TestWithParam<Policy> {};

TEST_P(EveryPolicy, SkipsUnhealthyEjectedDrainingAndTried) {
  Pool pool(EqualWeights(6), {GetParam(), 1.25});
  pool.state(0).healthy = false;
  pool.state(1).draining = true;
  pool.state(5).ejected = true;
  std::array<int, 6> taken{};
  for (std::uint64_t key = 0; key < 1000; ++key) {
    ++taken[pool.Choose(HashKey(std::to_string(key)), {2}).value().index];
  }
  EXPECT_EQ(taken[0] + taken[1] + taken[2] + taken[5], 0);
  EXPECT_GT(taken[3], 400);
  EXPECT_GT(taken[4], 400);
}

TEST_P(EveryPolicy, NothingLeftGivesNothing) {
  Pool pool(EqualWeights(3), {GetParam(), 1.25});
  pool.state(0).healthy = false;
  EXPECT_FALSE(pool.Choose(1, {1, 2}).has_value());
  EXPECT_EQ(pool.Choose(1, {1}).value().index, 2U);
  Pool empty({}, {GetParam(), 1.25});
  EXPECT_FALSE(empty.Choose(1).has_value());
}

TEST_P(EveryPolicy, ReportsARetryAsFallback) {
  Pool pool(EqualWeights(3), {GetParam(), 1.25});
  const Pick first = pool.Choose(1).value();
  EXPECT_EQ(first.how, PickHow::kHome);
  EXPECT_EQ(pool.Choose(1, {first.index}).value().how, PickHow::kFallback);
}

TEST_P(EveryPolicy, FillsAPoolByWeight) {
  Pool pool(kOneTwoFour, {GetParam(), 1.25});
  Random keys(3);
  for (int i = 0; i < 7000; ++i) {
    pool.Take(keys.Next());
  }
  EXPECT_NEAR(static_cast<double>(pool.state(0).open), 1000, 100);
  EXPECT_NEAR(static_cast<double>(pool.state(1).open), 2000, 200);
  EXPECT_NEAR(static_cast<double>(pool.state(2).open), 4000, 400);
}

INSTANTIATE_TEST_SUITE_P(Policies, EveryPolicy,
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

TEST(LeastConnections, TakesTheLeastOpenPerWeight) {
  Pool pool(kOneTwoFour, {Policy::kLeastConnections, 0});
  pool.state(0).open = 3;
  pool.state(1).open = 5;   // 2.5 per weight
  pool.state(2).open = 11;  // 2.75 per weight
  EXPECT_EQ(pool.Choose(1).value().index, 1U);
  pool.state(1).open = 6;
  EXPECT_EQ(pool.Choose(1).value().index, 2U);
}

TEST(LeastConnections, BreaksTiesByRendezvousOrder) {
  Pool pool(EqualWeights(10), {Policy::kLeastConnections, 0});
  Pool hashed(EqualWeights(10));
  std::map<std::string_view, int> used;
  for (std::uint64_t key = 0; key < 1000; ++key) {
    const std::string_view name = pool.NameFor(key);
    ASSERT_EQ(name, hashed.NameFor(key));
    ++used[name];
  }
  EXPECT_EQ(used.size(), 10U);
}

TEST(RandomTwoChoices, NeverTakesTheMostLoadedOfThree) {
  // Of two distinct ones the most loaded always loses.
  Pool pool(EqualWeights(3), {Policy::kRandomTwoChoices, 0});
  pool.state(0).open = 1;
  pool.state(1).open = 2;
  pool.state(2).open = 3;
  std::array<int, 3> taken{};
  for (int i = 0; i < 3000; ++i) {
    ++taken[pool.Choose(0).value().index];
  }
  EXPECT_EQ(taken[2], 0);
  EXPECT_NEAR(taken[0], 2000, 130);  // in two of three pairs; five standard deviations
}

TEST(RandomTwoChoices, KeepsAPoolEven) {
  Pool pool(EqualWeights(10), {Policy::kRandomTwoChoices, 0});
  for (int i = 0; i < 10'000; ++i) {
    pool.Take(0);
  }
  for (std::size_t i = 0; i < 10; ++i) {
    // The gap to the mean stays at a few sessions however many there are.
    EXPECT_NEAR(static_cast<double>(pool.state(i).open), 1000, 10) << i;
  }
}

TEST(RoundRobin, GoesInTurn) {
  Pool pool(EqualWeights(3), {Policy::kRoundRobin, 0});
  for (int i = 0; i < 30; ++i) {
    EXPECT_EQ(pool.Choose(0).value().index, static_cast<std::size_t>(i % 3));
  }
}

TEST(RoundRobin, SpreadsTheTurnsOfAHeavyOne) {
  Pool pool({{"a", 5}, {"b", 1}, {"c", 1}}, {Policy::kRoundRobin, 0});
  std::string turns;
  for (int i = 0; i < 14; ++i) {
    turns += pool.set.backends()[pool.Choose(0).value().index].name;
  }
  // Seven turns a period; a's are apart by one of the others as often as there are others.
  EXPECT_EQ(turns, "aabacaaaabacaa");
}

TEST(RoundRobin, SharesTheTurnsOfAMissingOneEvenly) {
  Pool pool(EqualWeights(4), {Policy::kRoundRobin, 0});
  pool.state(1).healthy = false;
  std::array<int, 4> taken{};
  for (int i = 0; i < 300; ++i) {
    ++taken[pool.Choose(0).value().index];
  }
  EXPECT_EQ(taken, (std::array<int, 4>{100, 0, 100, 100}));
}

TEST(RoundRobin, HonoursWeightsThatHaveNoShortPeriod) {
  Pool pool({{"a", 1}, {"b", 3.14159265}, {"c", 0.0001}}, {Policy::kRoundRobin, 0});
  std::array<double, 3> taken{};
  for (int i = 0; i < 41'416; ++i) {
    taken[pool.Choose(0).value().index] += 1;
  }
  EXPECT_NEAR(taken[1] / taken[0], 3.14159265, 0.02);
  EXPECT_GT(taken[2], 0) << "a very small weight still gets a turn";
}

TEST(RoundRobin, TwoThreadsShareOneTurn) {
  constexpr int kPerThread = 30'000;
  Pool pool(EqualWeights(3), {Policy::kRoundRobin, 0});
  const auto take = [&pool] {
    Random random(1);
    for (int i = 0; i < kPerThread; ++i) {
      ++pool.state(pool.set.Choose(0, {}, pool.now, random).value().index).open;
    }
  };
  std::thread other(take);
  take();
  other.join();
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(pool.state(i).open.load(), 2 * kPerThread / 3) << i;
  }
}

}  // namespace
}  // namespace sluice::balance::test
