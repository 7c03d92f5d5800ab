// Proves what a backend may get: groups, max_connections, what happens when nobody is in service,
// and the rate of handshakes; and that clients are back at home when all is well again.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/balance/pool_fixture.h"

namespace sluice::balance::test {
namespace {

// Backends 0 to 3 are group 0, 4 to 6 are group 1, 7 is group 5.
const Weights kEight = EqualWeights(8);

std::vector<Backend> InGroups(const Weights& weights = kEight) {
  std::vector<Backend> backends = MakeBackends(weights);
  for (std::size_t i = 4; i < backends.size(); ++i) {
    backends[i].group = i < 7 ? 1 : 5;
  }
  return backends;
}

std::vector<Backend> WithCaps(std::vector<std::int64_t> caps) {
  std::vector<Backend> backends = MakeBackends(EqualWeights(caps.size()));
  for (std::size_t i = 0; i < caps.size(); ++i) {
    backends[i].max_connections = caps[i];
  }
  return backends;
}

// Which backends get something of many picks.
std::set<std::size_t> Served(Pool& pool, std::vector<std::size_t> tried = {}) {
  std::set<std::size_t> served;
  for (std::uint64_t key = 0; key < 1000; ++key) {
    const auto pick = pool.Choose(KeyHash(key), tried);
    if (pick) {
      served.insert(pick->index);
    }
  }
  return served;
}

std::set<std::size_t> ServedHome(Pool& pool) {
  std::set<std::size_t> served;
  for (std::uint64_t key = 0; key < 1000; ++key) {
    if (const auto pick = pool.set.ChooseHome(KeyHash(key), {})) {
      served.insert(pick->index);
    }
  }
  return served;
}

using Set = std::set<std::size_t>;

class Limits : public testing::TestWithParam<Policy> {
 protected:
  [[nodiscard]] static BackendSet::Options Options() { return {.policy = GetParam()}; }
};

// Groups.

TEST_P(Limits, TheFirstGroupServesAloneWhileEnoughOfItIsUsable) {
  Pool pool(Options(), InGroups());
  EXPECT_EQ(Served(pool), (Set{0, 1, 2, 3}));
  pool.state(1).healthy = false;
  pool.state(2).ejected = true;
  EXPECT_EQ(Served(pool), (Set{0, 3})) << "half of it is not below the threshold";
  EXPECT_EQ(ServedHome(pool), (Set{0, 3}));
}

TEST_P(Limits, TheNextGroupJoinsBelowTheThreshold) {
  Pool pool(Options(), InGroups());
  pool.state(0).healthy = false;
  pool.state(1).draining = true;
  pool.state(2).ejected = true;
  EXPECT_EQ(Served(pool), (Set{3, 4, 5, 6}));
  EXPECT_EQ(ServedHome(pool), (Set{3, 4, 5, 6}));
  pool.state(4).healthy = false;
  pool.state(5).healthy = false;
  EXPECT_EQ(Served(pool), (Set{3, 6, 7})) << "a third of the second group is too little as well";
}

TEST_P(Limits, TheNextGroupServesAloneWhenNobodyIsLeft) {
  Pool pool(Options(), InGroups());
  for (std::size_t i = 0; i < 4; ++i) {
    pool.state(i).healthy = false;
  }
  EXPECT_EQ(Served(pool), (Set{4, 5, 6}));
  EXPECT_EQ(ServedHome(pool), (Set{4, 5, 6}));
  EXPECT_EQ(pool.Choose(KeyHash(1)).value().how, PickHow::kFallback);
  for (std::size_t i = 4; i < 7; ++i) {
    pool.state(i).draining = true;
  }
  EXPECT_EQ(Served(pool), (Set{7})) << "numbers that nobody has are no groups";
  pool.state(7).healthy = false;
  EXPECT_EQ(Served(pool), Set{});
}

TEST_P(Limits, OneThatWasTriedIsNotUsable) {
  Pool pool(Options(), InGroups());
  EXPECT_EQ(Served(pool, {0, 1, 2, 3}), (Set{4, 5, 6}));
  EXPECT_EQ(Served(pool, {0, 1}), (Set{2, 3}));
}

TEST_P(Limits, TheThresholdIsAShareOfTheWeight) {
  std::vector<Backend> backends = MakeBackends({{"a", 6}, {"b", 3}, {"c", 1}, {"spare", 1}});
  backends[3].group = 1;
  for (const auto& [threshold, joins] : std::map<double, bool>{
           {0.0, false}, {0.3, false}, {0.4, false}, {0.41, true}, {1.0, true}}) {
    BackendSet::Options options = Options();
    options.group_threshold = threshold;
    Pool pool(options, backends);
    pool.state(0).healthy = false;
    EXPECT_EQ(Served(pool).contains(3), joins) << threshold;
    pool.state(0).healthy = true;
    EXPECT_FALSE(Served(pool).contains(3)) << threshold;
  }
}

TEST_P(Limits, EverybodyReturnsToTheFirstGroup) {
  Pool pool(Options(), InGroups());
  for (std::size_t i = 0; i < 4; ++i) {
    pool.state(i).draining = true;
  }
  EXPECT_EQ(Served(pool), (Set{4, 5, 6}));
  for (std::size_t i = 0; i < 4; ++i) {
    pool.state(i).draining = false;
  }
  EXPECT_EQ(Served(pool), (Set{0, 1, 2, 3}));
}

TEST_P(Limits, GroupsThatAreAllTheSameChangeNothing) {
  std::vector<Backend> backends = MakeBackends(kEight);
  for (Backend& backend : backends) {
    backend.group = 3;
  }
  Pool grouped(Options(), backends);
  Pool plain(kEight, Options());
  for (std::uint64_t key = 0; key < 5000; ++key) {
    const auto a = grouped.Choose(KeyHash(key));
    const auto b = plain.Choose(KeyHash(key));
    ASSERT_EQ(a->index, b->index) << key;
    ASSERT_EQ(a->how, b->how) << key;
  }
}

TEST_P(Limits, SharesFollowTheWeightsWithinTheGroupsThatServe) {
  std::vector<Backend> backends = MakeBackends({{"a", 1}, {"b", 3}, {"c", 1}, {"d", 2}});
  backends[2].group = 1;
  backends[3].group = 1;
  Pool pool(Options(), backends);
  Random keys(11);
  for (int i = 0; i < 4000; ++i) {
    pool.Take(keys.Next());
  }
  EXPECT_NEAR(static_cast<double>(pool.state(0).open), 1000, 100);
  EXPECT_NEAR(static_cast<double>(pool.state(1).open), 3000, 100);
  pool.state(0).draining = true;
  pool.state(1).draining = true;
  for (int i = 0; i < 3000; ++i) {
    pool.Take(keys.Next());
  }
  EXPECT_NEAR(static_cast<double>(pool.state(2).open), 1000, 100);
  EXPECT_NEAR(static_cast<double>(pool.state(3).open), 2000, 100);
}

TEST(GroupsWithHomes, WhoseHomeIsUsableStaysWhenAnotherGroupJoins) {
  Pool pool({}, InGroups());
  for (std::size_t i = 0; i < 3; ++i) {
    pool.state(i).healthy = false;
  }
  std::size_t at_home = 0;
  for (std::uint64_t key = 0; key < 5000; ++key) {
    if (pool.set.HomeOf(KeyHash(key)) == 3) {
      ++at_home;
      ASSERT_EQ(pool.Choose(KeyHash(key)).value().index, 3U);
      ASSERT_EQ(pool.set.ChooseHome(KeyHash(key), {}).value().index, 3U);
    }
  }
  EXPECT_GT(at_home, 1000U);
}

TEST(GroupsWithHomes, TheBoundIsOverTheGroupsThatServe) {
  Pool pool({}, InGroups());
  // What the standby group holds from before is none of the first group's business.
  pool.state(4).open = 1000;
  std::uint64_t key = 0;
  while (pool.set.HomeOf(KeyHash(key)) != 0) {
    ++key;
  }
  pool.state(0).open = 2;
  EXPECT_NE(pool.Choose(KeyHash(key)).value().index, 0U) << "the bound is ceil(1.25 * 3 / 4) = 1";
  pool.state(4).open = 0;
  // With 3 more backends the same load is still too much; with a larger sum of open ones it is not.
  for (std::size_t i = 1; i < 4; ++i) {
    pool.state(i).healthy = false;
  }
  EXPECT_NE(pool.Choose(KeyHash(key)).value().index, 0U) << "ceil(1.25 * 3 / 4) = 1 again";
  for (std::size_t i = 4; i < 7; ++i) {
    pool.state(i).open = 3;
  }
  EXPECT_EQ(pool.Choose(KeyHash(key)).value().index, 0U) << "ceil(1.25 * 12 / 4) = 4";
}

TEST(GroupsWithHomes, AKeyLeadsToABackendOfALaterGroupAsThingsAre) {
  Pool pool({}, InGroups());
  for (std::uint64_t key = 0; key < 100; ++key) {
    EXPECT_TRUE(pool.set.LeadsTo(KeyHash(key), pool.set.HomeOf(KeyHash(key))));
    for (std::size_t i = 4; i < 8; ++i) {
      EXPECT_FALSE(pool.set.LeadsTo(KeyHash(key), i));
    }
  }
  for (std::size_t i = 0; i < 4; ++i) {
    pool.state(i).draining = true;
  }
  for (std::uint64_t key = 0; key < 100; ++key) {
    const std::size_t now = pool.set.ChooseHome(KeyHash(key), {}).value().index;
    EXPECT_TRUE(pool.set.LeadsTo(KeyHash(key), now));
    EXPECT_GE(now, 4U);
  }
}

// max_connections.

TEST_P(Limits, AFullBackendIsPassedOver) {
  Pool pool(Options(), WithCaps({5, 0, 5}));
  pool.state(0).open = 4;
  pool.state(1).open = 4;
  pool.state(2).open = 4;
  EXPECT_TRUE(Served(pool).contains(0)) << "there is one place left";
  pool.state(0).open = 5;
  EXPECT_EQ(Served(pool), (Set{1, 2}));
  EXPECT_EQ(ServedHome(pool), (Set{1, 2})) << "full is full for everybody";
  pool.state(2).open = 7;
  EXPECT_EQ(Served(pool), (Set{1}));
  pool.state(1).open = 1'000'000;
  EXPECT_EQ(Served(pool), (Set{1})) << "0 is no limit";
  pool.state(1).draining = true;
  EXPECT_EQ(Served(pool), Set{});
  EXPECT_EQ(pool.set.WhyNone({}, pool.now, Want::kRequest).cause, Shortage::Cause::kFull);
  pool.state(0).healthy = false;
  pool.state(2).healthy = false;
  EXPECT_EQ(pool.set.WhyNone({}, pool.now, Want::kRequest).cause, Shortage::Cause::kOutOfService);
}

TEST_P(Limits, NoneIsFilledBeyondItsLimit) {
  Pool pool(Options(), WithCaps({5, 10, 1, 20}));
  for (std::uint64_t key = 0; key < 36; ++key) {
    pool.Take(KeyHash(key));
  }
  EXPECT_FALSE(pool.Choose(KeyHash(0)).has_value());
  EXPECT_EQ(pool.state(0).open, 5);
  EXPECT_EQ(pool.state(1).open, 10);
  EXPECT_EQ(pool.state(2).open, 1);
  EXPECT_EQ(pool.state(3).open, 20);
}

TEST_P(Limits, AFullGroupIsHelpedByTheNext) {
  std::vector<Backend> backends = WithCaps({2, 2, 0});
  backends[2].group = 1;
  Pool pool(Options(), backends);
  for (std::uint64_t key = 0; key < 4; ++key) {
    EXPECT_LT(pool.Take(KeyHash(key)), 2U);
  }
  EXPECT_EQ(Served(pool), (Set{2}));
}

TEST(MaxConnections, PassingAFullHomeIsAnOverflow) {
  Pool pool({.bounded_load = 0}, WithCaps({1, 1, 1}));
  const std::size_t home = pool.Take(KeyHash(7));
  EXPECT_EQ(pool.Choose(KeyHash(7)).value().how, PickHow::kOverflow);
  EXPECT_EQ(pool.set.ChooseHome(KeyHash(7), {}).value().how, PickHow::kOverflow);
  pool.state(home).open = 0;
  EXPECT_EQ(pool.Choose(KeyHash(7)).value().how, PickHow::kHome);
}

// Panic.

TEST_P(Limits, PanicTriesAllButThoseThatDrainOrAreFull) {
  BackendSet::Options options = Options();
  options.panic = Panic::kTryAll;
  Pool pool(options, WithCaps({0, 0, 2, 0}));
  pool.state(0).healthy = false;
  pool.state(1).ejected = true;
  pool.state(2).healthy = false;
  pool.state(3).healthy = false;
  EXPECT_EQ(Served(pool), (Set{0, 1, 2, 3}));
  EXPECT_EQ(pool.Choose(KeyHash(3)).value().how, PickHow::kPanic);
  EXPECT_EQ(pool.set.ChooseHome(KeyHash(3), {}).value().how, PickHow::kPanic);
  EXPECT_EQ(Served(pool, {1}), (Set{0, 2, 3}));
  pool.state(2).open = 2;
  pool.state(3).draining = true;
  EXPECT_EQ(Served(pool), (Set{0, 1}));
  EXPECT_EQ(ServedHome(pool), (Set{0, 1}));
  pool.state(0).draining = true;
  pool.state(1).draining = true;
  EXPECT_EQ(Served(pool), Set{}) << "a drain is respected";
  EXPECT_EQ(pool.set.WhyNone({}, pool.now, Want::kRequest).cause, Shortage::Cause::kFull);
}

// A client that must stay on one backend stays there for as long as it may be taken.
TEST_P(Limits, ThisOneIsTakenWhateverTheLoad) {
  BackendSet::Options options = Options();
  options.panic = Panic::kTryAll;
  options.bounded_load = 1;
  std::vector<Backend> backends = WithCaps({0, 0, 1'000, 0});
  backends[2].group = 1;
  Pool pool(options, backends);
  pool.state(2).open = 999;
  pool.state(2).BeginRamp(pool.now);
  const auto take = [&](std::vector<std::size_t> tried = {}) {
    return pool.set.ChooseThis(2, tried, 1.0, pool.now);
  };
  EXPECT_EQ(take().value().index, 2U);
  EXPECT_EQ(take({0, 1}).value().how, PickHow::kHome);
  EXPECT_FALSE(take({2}));
  pool.state(2).open = 1'000;
  EXPECT_FALSE(take()) << "full";
  pool.state(2).open = 0;
  for (auto* flag : {&pool.state(2).ejected, &pool.state(2).draining}) {
    *flag = true;
    EXPECT_FALSE(take());
    *flag = false;
  }
  pool.state(2).healthy = false;
  EXPECT_FALSE(take());
  for (const std::size_t other : {0, 1, 3}) {
    pool.state(other).healthy = false;
  }
  EXPECT_EQ(take().value().how, PickHow::kPanic) << "nobody else is in service either";
  pool.state(2).draining = true;
  EXPECT_FALSE(take());
}

// What has begun on a backend may go on there while that drains, for a part of the window.
TEST_P(Limits, ThisOneIsTakenWhileItDrainsUntilItsPartIsOver) {
  Pool pool(Options(), WithCaps({0, 0, 5}));
  const auto take = [&](double part, Millis after, std::vector<std::size_t> tried = {}) {
    return pool.set.ChooseThis(2, tried, part, pool.now + after);
  };
  BackendState& state = pool.state(2);
  state.BeginDrain(pool.now, Millis(1000));
  EXPECT_EQ(take(1.0, Millis(999)).value().index, 2U);
  EXPECT_EQ(take(1.0, Millis(999)).value().how, PickHow::kHome);
  EXPECT_FALSE(take(1.0, Millis(1000)));
  EXPECT_TRUE(take(0.25, Millis(249)));
  EXPECT_FALSE(take(0.25, Millis(250)));
  EXPECT_FALSE(take(0, Millis(0)));
  EXPECT_FALSE(take(1.0, Millis(0), {2})) << "tried";
  state.open = 5;
  EXPECT_FALSE(take(1.0, Millis(0))) << "full";
  state.open = 0;
  for (auto* flag : {&state.healthy, &state.ejected}) {
    *flag = !*flag;
    EXPECT_FALSE(take(1.0, Millis(0)));
    *flag = !*flag;
  }
  for (std::uint64_t key = 0; key < 100; ++key) {
    ASSERT_NE(pool.Choose(KeyHash(key)).value().index, 2U) << "what is new goes elsewhere";
    ASSERT_NE(pool.set.ChooseHome(KeyHash(key), {}).value().index, 2U);
  }

  // Begun anew, the window does too.
  state.BeginDrain(pool.now + Millis(500), Millis(1000));
  EXPECT_TRUE(take(0.25, Millis(749)));
  EXPECT_FALSE(take(0.25, Millis(750)));
  state.draining = false;
  EXPECT_TRUE(take(0, Millis(2000))) << "it does not drain any more";
}

TEST_P(Limits, ThisOneIsNotTakenWhenItsDrainIsOver) {
  Pool pool(Options(), WithCaps({0, 0, 0}));
  pool.state(1).BeginDrain(pool.now, Millis(1000));
  pool.state(1).EndDrain(pool.now + Millis(100));
  EXPECT_FALSE(pool.set.ChooseThis(1, {}, 1.0, pool.now + Millis(100)));
  pool.state(2).BeginDrain(pool.now, Millis(0));
  EXPECT_FALSE(pool.set.ChooseThis(2, {}, 1.0, pool.now)) << "no window";
}

TEST_P(Limits, NoPanicWhileOneIsInService) {
  BackendSet::Options options = Options();
  options.panic = Panic::kTryAll;
  Pool pool(options, WithCaps({0, 3, 0}));
  pool.state(0).healthy = false;
  pool.state(2).healthy = false;
  EXPECT_EQ(Served(pool), (Set{1}));
  EXPECT_NE(pool.Choose(KeyHash(3)).value().how, PickHow::kPanic);
  EXPECT_FALSE(pool.Choose(KeyHash(3), {1}).has_value()) << "tried is not sick";
  pool.state(1).open = 3;
  EXPECT_EQ(Served(pool), Set{}) << "full is not sick";
}

TEST_P(Limits, PanicKeepsToTheGroups) {
  BackendSet::Options options = Options();
  options.panic = Panic::kTryAll;
  Pool pool(options, InGroups());
  for (std::size_t i = 0; i < 8; ++i) {
    pool.state(i).healthy = false;
  }
  EXPECT_EQ(Served(pool), (Set{0, 1, 2, 3}));
}

TEST_P(Limits, WithoutPanicNobodyIsTried) {
  Pool pool(EqualWeights(3), Options());
  for (std::size_t i = 0; i < 3; ++i) {
    pool.state(i).healthy = false;
  }
  EXPECT_EQ(Served(pool), Set{});
  EXPECT_EQ(ServedHome(pool), Set{});
}

TEST(PanicWithHomes, EverybodyIsAtHome) {
  Pool pool(EqualWeights(5), {.panic = Panic::kTryAll});
  for (std::size_t i = 0; i < 5; ++i) {
    pool.state(i).healthy = false;
  }
  for (std::uint64_t key = 0; key < 1000; ++key) {
    ASSERT_EQ(pool.Choose(KeyHash(key)).value().index, pool.set.HomeOf(KeyHash(key)));
  }
}

// Handshakes.

TEST_P(Limits, EachBackendGetsItsRateOfHandshakes) {
  BackendSet::Options options = Options();
  options.handshake_rate = 10;
  options.handshake_burst = 4;
  options.bounded_load = 0;
  Pool pool(EqualWeights(3), options);
  std::array<int, 3> taken{};
  std::uint64_t key = 0;
  const auto storm = [&] {
    for (int i = 0; i < 500; ++i) {
      const auto pick =
          pool.set.Choose(KeyHash(key++), {}, pool.now, pool.random, Want::kHandshake);
      if (pick && pool.set.TakeHandshake(pick->index, pool.now)) {
        ++taken[pick->index];
      }
    }
  };
  storm();
  EXPECT_EQ(taken, (std::array<int, 3>{4, 4, 4}));
  pool.now += Millis(201);
  storm();
  EXPECT_EQ(taken, (std::array<int, 3>{6, 6, 6}));
}

TEST_P(Limits, RequestsAreNotHeldBackByTheRate) {
  BackendSet::Options options = Options();
  options.handshake_rate = 1;
  Pool pool(EqualWeights(2), options);
  while (pool.set.TakeHandshake(0, pool.now) || pool.set.TakeHandshake(1, pool.now)) {
  }
  EXPECT_EQ(Served(pool), (Set{0, 1}));
}

TEST_P(Limits, WithoutARateThereAreHandshakesWithoutEnd) {
  Pool pool(EqualWeights(1), Options());
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(pool.set.TakeHandshake(0, pool.now));
  }
}

TEST(HandshakeRate, WithAHomeNobodyElseIsChosen) {
  Pool pool(EqualWeights(4), {.bounded_load = 0, .handshake_rate = 1, .handshake_burst = 1});
  const std::size_t home = pool.set.HomeOf(KeyHash(9));
  EXPECT_TRUE(pool.set.TakeHandshake(home, pool.now));
  EXPECT_EQ(pool.set.Choose(KeyHash(9), {}, pool.now, pool.random, Want::kHandshake)->index, home);
  EXPECT_FALSE(pool.set.TakeHandshake(home, pool.now));
}

TEST(HandshakeRate, WithoutHomesAnyBackendWithATokenWill) {
  for (const Policy policy :
       {Policy::kLeastConnections, Policy::kRandomTwoChoices, Policy::kRoundRobin}) {
    Pool pool({.policy = policy, .handshake_rate = 1, .handshake_burst = 1}, InGroups());
    std::set<std::size_t> taken;
    for (int i = 0; i < 4; ++i) {
      const auto pick =
          pool.set.Choose(KeyHash(0), {}, pool.now, pool.random, Want::kHandshake).value();
      EXPECT_TRUE(pool.set.TakeHandshake(pick.index, pool.now));
      taken.insert(pick.index);
    }
    EXPECT_EQ(taken, (Set{0, 1, 2, 3}));
    EXPECT_FALSE(pool.set.Choose(KeyHash(0), {}, pool.now, pool.random, Want::kHandshake))
        << "a storm does not wake the standby group";
    const Shortage why = pool.set.WhyNone({}, pool.now, Want::kHandshake);
    EXPECT_EQ(why.cause, Shortage::Cause::kRate);
    EXPECT_LT(why.index, 4U);
    // Those who are sent away are spread over the backends.
    std::set<std::size_t> queues;
    for (int i = 0; i < 4; ++i) {
      const std::size_t next = pool.set.WhyNone({}, pool.now, Want::kHandshake).index;
      EXPECT_GE(pool.set.QueueComeback(next, pool.now), std::chrono::seconds(1));
      queues.insert(next);
    }
    EXPECT_EQ(queues, (Set{0, 1, 2, 3}));
  }
}

TEST(HandshakeRate, TheBurstIsASecondUnlessGiven) {
  for (const auto& [rate, want] : std::map<double, int>{{0.2, 1}, {1.0, 1}, {2.5, 3}, {40.0, 40}}) {
    Pool pool(EqualWeights(1), {.handshake_rate = rate});
    int taken = 0;
    while (pool.set.TakeHandshake(0, pool.now)) {
      ++taken;
    }
    EXPECT_EQ(taken, want) << rate;
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, Limits,
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

// Flaps: whatever goes down and comes back, a key whose home is usable is at home, so that only the
// clients of what is down move, and all are where they were when all is well again.
TEST(Flaps, MoveOnlyTheKeysOfWhatIsDown) {
  const std::vector<Backend> pools[] = {MakeBackends(EqualWeights(10)),
                                        MakeBackends({{"a", 1}, {"b", 2}, {"c", 0.5}, {"d", 4}}),
                                        InGroups()};
  for (const std::vector<Backend>& backends : pools) {
    Pool pool({}, backends);
    constexpr std::uint64_t kSome = 500;
    std::vector<std::size_t> before;
    for (std::uint64_t key = 0; key < kSome; ++key) {
      before.push_back(pool.Choose(KeyHash(key)).value().index);
    }
    Random flaps(backends.size());
    for (int round = 0; round < 200; ++round) {
      BackendState& flapping = pool.state(flaps.Next() % backends.size());
      switch (flaps.Next() % 3) {
        case 0:
          flapping.healthy = !flapping.healthy;
          break;
        case 1:
          flapping.ejected = !flapping.ejected;
          break;
        default:
          flapping.draining = !flapping.draining;
      }
      for (std::uint64_t key = 0; key < kSome; ++key) {
        if (pool.state(before[key]).IsInService()) {
          ASSERT_EQ(pool.Choose(KeyHash(key)).value().index, before[key]);
          ASSERT_EQ(pool.set.ChooseHome(KeyHash(key), {}).value().index, before[key]);
        } else if (const auto pick = pool.Choose(KeyHash(key))) {
          ASSERT_TRUE(pool.state(pick->index).IsInService());
        }
      }
    }
    for (std::size_t i = 0; i < backends.size(); ++i) {
      pool.state(i).healthy = true;
      pool.state(i).ejected = false;
      pool.state(i).draining = false;
    }
    for (std::uint64_t key = 0; key < kSome; ++key) {
      ASSERT_EQ(pool.Choose(KeyHash(key)).value().index, before[key]);
      ASSERT_EQ(pool.set.ChooseHome(KeyHash(key), {}).value().index, before[key]);
    }
  }
}

}  // namespace
}  // namespace sluice::balance::test
