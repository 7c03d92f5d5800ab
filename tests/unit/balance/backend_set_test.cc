// Proves what consistent hashing promises: known choices for known keys, exactly the necessary
// moves when a backend comes or goes, shares by weight, and bounded load.
//
// The golden vectors are printed by rendezvous_golden.py, which computes score and ranking on its
// own in decimals but takes XXH3 from the same library; the values of XXH3 are pinned below by the
// published one. They must never change: a proxy of one version and a proxy of the next would send
// the same client to different backends.
#include "proxy/balance/backend_set.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/balance/pool_fixture.h"

namespace sluice::balance::test {
namespace {

constexpr BackendSet::Options kUnbounded{Policy::kRendezvous, 0};

const Weights kEqual = {{"chat-1", 1}, {"chat-2", 1}, {"chat-3", 1}};
const Weights kWeighted = {{"a", 1}, {"b", 2}, {"c", 0.5}, {"d", 4}};
const Weights kTen = EqualWeights(10);

// Lives as long as the pool.
std::vector<std::string_view> AllChoices(Pool& pool) {
  std::vector<std::string_view> names;
  names.reserve(kKeys);
  for (std::uint64_t key = 0; key < kKeys; ++key) {
    names.push_back(pool.NameFor(key));
  }
  return names;
}

TEST(HashKey, IsXxh3) {
  EXPECT_EQ(HashKey(""), 0x2d06800538d394c2ULL);  // published with the xxHash specification
  EXPECT_NE(HashKey("a"), HashKey("b"));
}

TEST(Rendezvous, MatchesTheGoldenVectors) {
  struct Case {
    const Weights& weights;
    std::string key;
    std::array<std::string_view, 3> ranking;  // the first three choices
  };

  const std::vector<Case> cases = {
      {kEqual, "", {"chat-2", "chat-3", "chat-1"}},
      {kEqual, "a", {"chat-2", "chat-1", "chat-3"}},
      {kEqual, "10.0.0.1", {"chat-1", "chat-3", "chat-2"}},
      {kEqual, "2001:db8::1", {"chat-3", "chat-2", "chat-1"}},
      {kEqual, "alice", {"chat-2", "chat-3", "chat-1"}},
      {kEqual, "bob", {"chat-2", "chat-3", "chat-1"}},
      {kEqual, "sid=7f3a90cc", {"chat-2", "chat-1", "chat-3"}},
      {kEqual, "0123456789abcdef", {"chat-3", "chat-1", "chat-2"}},
      {kEqual, "0123456789abcdef0", {"chat-3", "chat-1", "chat-2"}},
      {kEqual,
       "a token that is longer than the sixteen bytes of the short path",
       {"chat-2", "chat-3", "chat-1"}},
      {kEqual, std::string(200, 'x'), {"chat-3", "chat-1", "chat-2"}},
      {kEqual, std::string(300, 'x'), {"chat-2", "chat-3", "chat-1"}},
      {kWeighted, "", {"c", "b", "d"}},
      {kWeighted, "a", {"d", "b", "c"}},
      {kWeighted, "10.0.0.1", {"b", "d", "a"}},
      {kWeighted, "2001:db8::1", {"d", "b", "a"}},
      {kWeighted, "alice", {"b", "a", "d"}},
      {kWeighted, "bob", {"d", "a", "b"}},
      {kWeighted, "sid=7f3a90cc", {"d", "c", "b"}},
      {kWeighted, "0123456789abcdef", {"d", "c", "b"}},
      {kWeighted, "0123456789abcdef0", {"a", "d", "b"}},
      {kWeighted,
       "a token that is longer than the sixteen bytes of the short path",
       {"b", "d", "a"}},
      {kWeighted, std::string(200, 'x'), {"d", "b", "a"}},
      {kWeighted, std::string(300, 'x'), {"a", "c", "d"}},
      {kTen, "", {"ws-3", "ws-5", "ws-6"}},
      {kTen, "a", {"ws-1", "ws-8", "ws-6"}},
      {kTen, "10.0.0.1", {"ws-7", "ws-3", "ws-6"}},
      {kTen, "2001:db8::1", {"ws-0", "ws-5", "ws-9"}},
      {kTen, "alice", {"ws-5", "ws-3", "ws-2"}},
      {kTen, "bob", {"ws-4", "ws-9", "ws-0"}},
      {kTen, "sid=7f3a90cc", {"ws-8", "ws-3", "ws-4"}},
      {kTen, "0123456789abcdef", {"ws-6", "ws-9", "ws-3"}},
      {kTen, "0123456789abcdef0", {"ws-2", "ws-3", "ws-5"}},
      {kTen,
       "a token that is longer than the sixteen bytes of the short path",
       {"ws-7", "ws-4", "ws-8"}},
      {kTen, std::string(200, 'x'), {"ws-0", "ws-3", "ws-1"}},
      {kTen, std::string(300, 'x'), {"ws-6", "ws-8", "ws-9"}},
  };
  for (const Case& c : cases) {
    Pool pool(c.weights);
    std::vector<std::size_t> tried;
    for (const std::string_view want : c.ranking) {
      const auto pick = pool.Choose(HashKey(c.key), tried);
      ASSERT_TRUE(pick.has_value());
      EXPECT_EQ(pool.set.backends()[pick->index].name, want)
          << "key '" << c.key << "', choice " << tried.size() + 1;
      tried.push_back(pick->index);
    }
  }
}

TEST(Rendezvous, RemovingOneOfTenMovesItsOwnKeysOnly) {
  Pool whole(kTen);
  const std::vector<std::string_view> before = AllChoices(whole);
  for (std::size_t removed = 0; removed < kTen.size(); ++removed) {
    Weights rest = kTen;
    rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(removed));
    Pool pool(rest);
    std::size_t innocents_moved = 0;
    std::size_t kept_on_removed = 0;
    for (std::uint64_t key = 0; key < kKeys; ++key) {
      const std::string_view now = pool.NameFor(key);
      innocents_moved += before[key] != kTen[removed].first && now != before[key] ? 1 : 0;
      kept_on_removed += now == kTen[removed].first ? 1 : 0;
    }
    EXPECT_EQ(innocents_moved, 0U) << "without " << kTen[removed].first;
    EXPECT_EQ(kept_on_removed, 0U);
  }
}

TEST(Rendezvous, OneBackendDownMovesItsOwnKeysOnly) {
  Pool pool(kTen);
  const std::vector<std::string_view> before = AllChoices(pool);
  pool.state(4).healthy = false;
  std::size_t innocents_moved = 0;
  std::size_t moved = 0;
  for (std::uint64_t key = 0; key < kKeys; ++key) {
    const bool changed = pool.NameFor(key) != before[key];
    moved += changed ? 1 : 0;
    innocents_moved += changed && before[key] != kTen[4].first ? 1 : 0;
  }
  EXPECT_EQ(innocents_moved, 0U);
  EXPECT_EQ(moved,
            static_cast<std::size_t>(std::count(before.begin(), before.end(), kTen[4].first)));
}

TEST(Rendezvous, AddingOneMovesItsShareAndAllOfThatToIt) {
  for (const std::size_t count : {2U, 9U, 10U, 20U}) {
    Pool before(EqualWeights(count));
    Pool after(EqualWeights(count + 1));
    const std::string added = "ws-" + std::to_string(count);
    std::size_t moved = 0;
    std::size_t moved_elsewhere = 0;
    for (std::uint64_t key = 0; key < kKeys; ++key) {
      const std::string_view now = after.NameFor(key);
      if (now != before.NameFor(key)) {
        ++moved;
        moved_elsewhere += now != added ? 1 : 0;
      }
    }
    const double want = static_cast<double>(kKeys) / static_cast<double>(count + 1);
    EXPECT_NEAR(static_cast<double>(moved), want, 0.1 * want) << count << " backends";
    EXPECT_EQ(moved_elsewhere, 0U);
  }
}

TEST(Rendezvous, RaisingAWeightMovesKeysToThatBackendOnly) {
  Weights heavier = kWeighted;
  heavier[0].second = 3;
  Pool before(kWeighted);
  Pool after(heavier);
  std::size_t moved = 0;
  std::size_t moved_elsewhere = 0;
  for (std::uint64_t key = 0; key < kKeys; ++key) {
    const std::string_view now = after.NameFor(key);
    if (now != before.NameFor(key)) {
      ++moved;
      moved_elsewhere += now != heavier[0].first ? 1 : 0;
    }
  }
  EXPECT_GT(moved, 0U);
  EXPECT_EQ(moved_elsewhere, 0U);
}

TEST(Rendezvous, OrderOfTheBackendsIsIrrelevant) {
  Weights shuffled = kWeighted;
  std::reverse(shuffled.begin(), shuffled.end());
  std::swap(shuffled[0], shuffled[1]);
  Pool as_written(kWeighted);
  Pool otherwise(shuffled);
  EXPECT_EQ(AllChoices(as_written), AllChoices(otherwise));
}

TEST(Rendezvous, OrderIsIrrelevantUnderLoadToo) {
  Weights reversed = kWeighted;
  std::reverse(reversed.begin(), reversed.end());
  Pool as_written(kWeighted);
  Pool otherwise(reversed);
  for (std::uint64_t key = 0; key < 10'000; ++key) {
    const std::uint64_t hash = HashKey(std::to_string(key % 97));
    const std::size_t a = as_written.Take(hash);
    const std::size_t b = otherwise.Take(hash);
    ASSERT_EQ(as_written.set.backends()[a].name, otherwise.set.backends()[b].name) << key;
  }
}

TEST(Rendezvous, TwoSetsBuiltApartPickAlike) {
  Pool here(kTen);
  Pool there(kTen, kUnbounded);  // with nothing open the bound changes nothing
  EXPECT_EQ(AllChoices(here), AllChoices(there));
}

TEST(Rendezvous, SharesAreEven) {
  Pool pool(kTen);
  std::map<std::string_view, std::size_t> keys;
  for (const std::string_view name : AllChoices(pool)) {
    ++keys[name];
  }
  ASSERT_EQ(keys.size(), kTen.size());
  for (const auto& [name, count] : keys) {
    // Five standard deviations of a binomial draw: sqrt(100,000 * 0.1 * 0.9) = 95.
    EXPECT_NEAR(static_cast<double>(count), 10'000, 475) << name;
  }
}

TEST(Rendezvous, WeightTwoGetsTwice) {
  Pool pool({{"one", 1}, {"two", 2}, {"uno", 1}});
  std::map<std::string_view, double> keys;
  for (const std::string_view name : AllChoices(pool)) {
    keys[name] += 1;
  }
  EXPECT_NEAR(keys["two"] / keys["one"], 2.0, 0.1);
  EXPECT_NEAR(keys["two"] / keys["uno"], 2.0, 0.1);
}

TEST(Rendezvous, SimilarNamesAndKeysSpreadEvenly) {
  // Addresses that differ in one digit, names too: what real configurations look like.
  Pool pool({{"10.0.0.1", 1}, {"10.0.0.2", 1}, {"10.0.0.3", 1}, {"10.0.0.4", 1}});
  std::array<int, 4> keys{};
  for (int third = 0; third < 100; ++third) {
    for (int fourth = 0; fourth < 100; ++fourth) {
      const std::string ip = "10.0." + std::to_string(third) + "." + std::to_string(fourth);
      ++keys[pool.Choose(HashKey(ip)).value().index];
    }
  }
  for (const int count : keys) {
    EXPECT_NEAR(count, 2500, 217);  // five standard deviations
  }
}

// What the set may hold at most on `index` when one more session comes, by the definition.
std::int64_t Cap(Pool& pool, std::size_t index, double bound) {
  double weights = 0;
  std::int64_t open = 0;
  for (const Backend& backend : pool.set.backends()) {
    if (backend.state->healthy && !backend.state->draining) {
      weights += backend.weight;
      open += backend.state->open;
    }
  }
  return static_cast<std::int64_t>(std::ceil(bound * pool.set.backends()[index].weight *
                                             static_cast<double>(open + 1) / weights));
}

TEST(BoundedLoad, NoBackendExceedsItsCap) {
  for (const Weights& weights : {kTen, kWeighted}) {
    Pool pool(weights);
    for (std::uint64_t key = 0; key < 5000; ++key) {
      std::vector<std::int64_t> caps;
      for (std::size_t i = 0; i < weights.size(); ++i) {
        caps.push_back(Cap(pool, i, 1.25));
      }
      // Half of all clients share one key, so that one backend is pushed against its cap.
      const std::size_t taken = pool.Take(HashKey(std::to_string(key % 2 == 0 ? 0 : key)));
      ASSERT_LE(pool.state(taken).open.load(), caps[taken]) << "at key " << key;
    }
  }
}

TEST(BoundedLoad, OneHotKeySpillsInItsOwnOrder) {
  Pool pool(kEqual);
  const std::uint64_t hot = HashKey("alice");  // chat-2, chat-3, chat-1 by the golden vectors
  std::vector<std::size_t> picks;
  std::vector<PickHow> hows;
  for (int i = 0; i < 6; ++i) {
    const Pick pick = pool.Choose(hot).value();
    ++pool.state(pick.index).open;
    picks.push_back(pick.index);
    hows.push_back(pick.how);
  }
  // ceil(1.25 * (open + 1) / 3) for open = 0..5 is 1 1 2 2 3 3.
  EXPECT_EQ(picks, (std::vector<std::size_t>{1, 2, 1, 2, 1, 2}));
  EXPECT_EQ(hows, (std::vector<PickHow>{PickHow::kHome, PickHow::kOverflow, PickHow::kHome,
                                        PickHow::kOverflow, PickHow::kHome, PickHow::kOverflow}));
}

TEST(BoundedLoad, ZeroTurnsItOff) {
  Pool pool(kEqual, kUnbounded);
  const std::uint64_t hot = HashKey("alice");
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(pool.Take(hot), 1U);
  }
}

// Requests that belong together meet at one backend, unless very many go by one key.
TEST(BoundedLoad, MovesWhoeverIsSettledLateOnly) {
  Pool pool(kTen);
  const std::uint64_t key = HashKey("hot");
  const std::size_t home = pool.set.HomeOf(key);
  const auto choose = [&](Want want) {
    return pool.set.Choose(key, {}, pool.now, pool.random, want).value();
  };
  for (std::int64_t i = 0; i < kSettledRoom; ++i) {
    const Pick pick = choose(Want::kSettled);
    EXPECT_EQ(pick.index, home);
    EXPECT_EQ(pick.how, PickHow::kHome);
    ++pool.state(home).open;
  }
  EXPECT_NE(choose(Want::kHandshake).index, home);
  EXPECT_NE(choose(Want::kSettled).index, home);
  // Of 1,000 in all, 2 * 1.25 * a tenth.
  for (std::size_t other = 0; other < kTen.size(); ++other) {
    pool.state(other).open = other == home ? 249 : 83;
  }
  EXPECT_EQ(choose(Want::kSettled).index, home);
  ++pool.state(home).open;
  EXPECT_NE(choose(Want::kSettled).index, home);
}

TEST(BoundedLoad, OfOneMeansPerfectlyEven) {
  Pool pool(kTen, {Policy::kRendezvous, 1.0});
  for (int i = 0; i < 1000; ++i) {
    pool.Take(HashKey("everybody"));
  }
  for (std::size_t i = 0; i < kTen.size(); ++i) {
    EXPECT_EQ(pool.state(i).open.load(), 100) << i;
  }
}

TEST(BoundedLoad, CountsEligibleBackendsOnly) {
  Pool pool(kEqual);
  pool.state(0).open = 1000;  // chat-1 is full of old sessions, and drains
  pool.state(0).draining = true;
  pool.state(1).open = 3;
  pool.state(2).open = 2;
  // The cap of each of the two others is ceil(1.25 * 6 / 2) = 4.
  EXPECT_EQ(pool.Choose(HashKey("alice")).value().index, 1U);
  pool.state(1).open = 4;
  pool.state(2).open = 1;
  const Pick pick = pool.Choose(HashKey("alice")).value();
  EXPECT_EQ(pick.index, 2U);
  EXPECT_EQ(pick.how, PickHow::kOverflow);
}

TEST(BoundedLoad, TakesTheHomeWhenAllAreFull) {
  // Below 1, which the configuration refuses, the caps do not add up to the load.
  Pool pool(kEqual, {Policy::kRendezvous, 0.25});
  for (std::size_t i = 0; i < 3; ++i) {
    pool.state(i).open = 100;
  }
  const Pick pick = pool.Choose(HashKey("alice")).value();
  EXPECT_EQ(pick.index, 1U);
  EXPECT_EQ(pick.how, PickHow::kHome);
}

TEST(BoundedLoad, SurvivesANegativeCount) {
  Pool pool(kEqual);
  for (std::size_t i = 0; i < 3; ++i) {
    pool.state(i).open = -5;
  }
  EXPECT_EQ(pool.Choose(HashKey("alice")).value().how, PickHow::kHome);
}

TEST(Rendezvous, SkipsUnhealthyDrainingAndTried) {
  const std::uint64_t key = HashKey("alice");  // chat-2, chat-3, chat-1
  Pool pool(kEqual);
  EXPECT_EQ(pool.Choose(key).value().index, 1U);
  EXPECT_EQ(pool.Choose(key).value().how, PickHow::kHome);

  pool.state(1).healthy = false;
  EXPECT_EQ(pool.Choose(key).value().index, 2U);
  EXPECT_EQ(pool.Choose(key).value().how, PickHow::kFallback);

  pool.state(1).healthy = true;
  pool.state(1).draining = true;
  EXPECT_EQ(pool.Choose(key).value().index, 2U);
  EXPECT_EQ(pool.Choose(key).value().how, PickHow::kFallback);

  pool.state(1).draining = false;
  EXPECT_EQ(pool.Choose(key, {1}).value().index, 2U);
  EXPECT_EQ(pool.Choose(key, {1}).value().how, PickHow::kFallback);
  EXPECT_EQ(pool.Choose(key, {2, 1}).value().index, 0U);
  EXPECT_EQ(pool.Choose(key, {2}).value().how, PickHow::kHome) << "the first choice is free";
}

TEST(Rendezvous, FallbackSkipsAFullBackendButStaysFallback) {
  Pool pool(kEqual);
  pool.state(1).healthy = false;
  pool.state(2).open = 10;
  const Pick pick = pool.Choose(HashKey("alice")).value();
  EXPECT_EQ(pick.index, 0U);
  EXPECT_EQ(pick.how, PickHow::kFallback) << "the first choice was out of service, not full";
}

TEST(Rendezvous, NothingLeftGivesNothing) {
  Pool pool(kEqual);
  EXPECT_FALSE(pool.Choose(1, {0, 1, 2}).has_value());
  pool.state(0).healthy = false;
  pool.state(1).draining = true;
  EXPECT_FALSE(pool.Choose(1, {2}).has_value());
  EXPECT_TRUE(pool.Choose(1).has_value());
  Pool empty({});
  EXPECT_FALSE(empty.Choose(1).has_value());
}

TEST(Rendezvous, IsSafeWhileOthersChange) {
  // The thread sanitizer is the judge of the loads; the result must hold in any case.
  Pool pool(kTen, {.slow_start = Millis(30'000)});
  std::atomic<bool> stop{false};
  std::thread other([&] {
    Random random(7);
    while (!stop) {
      const auto pick = pool.set.Choose(random.Next(), {}, pool.now, random);
      if (pick.has_value()) {
        ++pool.state(pick->index).open;
        pool.state(random.Next() % 10).healthy = random.Unit() < 0.7;
        pool.state(random.Next() % 10).BeginRamp(pool.now - Millis(random.Next() % 40'000));
      }
    }
  });
  std::size_t out_of_range = 0;
  for (std::uint64_t key = 0; key < kKeys; ++key) {
    const auto pick = pool.Choose(HashKey(std::to_string(key)));
    out_of_range += pick.has_value() && pick->index >= kTen.size() ? 1 : 0;
  }
  stop = true;
  other.join();
  EXPECT_EQ(out_of_range, 0U);
  std::int64_t open = 0;
  for (std::size_t i = 0; i < kTen.size(); ++i) {
    open += pool.state(i).open;
  }
  EXPECT_GT(open, 0) << "the other thread chose nothing";
}

}  // namespace
}  // namespace sluice::balance::test
