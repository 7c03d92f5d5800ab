// Proves that a drawn id brings its client back to the backend that served it first.
#include "proxy/session/affinity_cookie.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

namespace sluice::session {
namespace {

balance::BackendSet MakeSet(std::size_t count, balance::Policy policy) {
  std::vector<balance::Backend> backends;
  for (std::size_t i = 0; i < count; ++i) {
    backends.push_back({"b" + std::to_string(i), 1.0, std::make_shared<balance::BackendState>()});
  }
  return {{policy, 1.25}, std::move(backends)};
}

TEST(AffinityCookie, TheDrawnIdsHomeIsTheBackend) {
  for (const std::size_t count : {1U, 2U, 10U, 100U}) {
    const balance::BackendSet set = MakeSet(count, balance::Policy::kRendezvous);
    for (std::size_t backend = 0; backend < count; ++backend) {
      const std::string id = DrawAffinityId(set, backend);
      EXPECT_EQ(set.HomeOf(balance::HashKey(id)), backend) << count << " backends";
    }
  }
}

TEST(AffinityCookie, AReturningClientGoesHomeWhateverTheLoadAndThePolicy) {
  for (const auto policy : {balance::Policy::kRendezvous, balance::Policy::kLeastConnections,
                            balance::Policy::kRandomTwoChoices, balance::Policy::kRoundRobin}) {
    const balance::BackendSet set = MakeSet(3, policy);
    const std::uint64_t key = balance::HashKey(DrawAffinityId(set, 1));
    set.backends()[1].state->open = 1'000'000;
    const auto pick = set.ChooseHome(key, {});
    ASSERT_TRUE(pick);
    EXPECT_EQ(pick->index, 1U);
    EXPECT_EQ(pick->how, balance::PickHow::kHome);
  }
}

TEST(AffinityCookie, WithoutItsHomeAClientGoesToTheSameOtherOne) {
  const balance::BackendSet set = MakeSet(3, balance::Policy::kRendezvous);
  const std::uint64_t key = balance::HashKey(DrawAffinityId(set, 1));
  set.backends()[1].state->healthy = false;
  const auto first = set.ChooseHome(key, {});
  ASSERT_TRUE(first);
  EXPECT_NE(first->index, 1U);
  EXPECT_EQ(first->how, balance::PickHow::kFallback);
  EXPECT_EQ(set.ChooseHome(key, {})->index, first->index);
  const std::size_t tried[] = {first->index};
  const auto second = set.ChooseHome(key, tried);
  ASSERT_TRUE(second);
  EXPECT_NE(second->index, first->index);
  EXPECT_NE(second->index, 1U);
  const std::size_t both[] = {first->index, second->index};
  EXPECT_FALSE(set.ChooseHome(key, both));
}

TEST(AffinityCookie, IdsDifferAndAreHex) {
  const balance::BackendSet set = MakeSet(2, balance::Policy::kRendezvous);
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = DrawAffinityId(set, 0);
    EXPECT_EQ(id.size(), 32U);
    EXPECT_TRUE(std::all_of(id.begin(), id.end(), [](char c) {
      return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    })) << id;
    seen.insert(id);
  }
  EXPECT_EQ(seen.size(), 1000U);
}

TEST(AffinityCookie, AttributesKeepItFromScriptsAndPlainText) {
  EXPECT_EQ(AffinityCookie("sid", "x", false), "sid=x; Path=/; HttpOnly; SameSite=Lax");
  EXPECT_EQ(AffinityCookie("sid", "x", true), "sid=x; Path=/; HttpOnly; SameSite=Lax; Secure");
}

}  // namespace
}  // namespace sluice::session
