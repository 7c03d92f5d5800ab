// Proves that a snapshot carries what the configuration says of a pool into the choice among its
// backends.
#include "proxy/session/snapshot.h"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/base/random.h"

namespace sluice::session {
namespace {

config::Config WithSlowStart(Millis slow_start) {
  config::Pool pool;
  pool.name = "a";
  pool.bounded_load = 0;
  pool.slow_start = slow_start;
  pool.backends = {{"one", "127.0.0.1", 9001, 1.0}, {"two", "127.0.0.1", 9002, 1.0}};
  config::Route route;
  route.pool = "a";
  config::Config config;
  config.pools = {pool};
  config.routes = {route};
  return config;
}

// Of 1,000 keys: how many go to a backend 3 s after it came back.
int TakenAfter3s(Millis slow_start) {
  const auto snapshot = Snapshot::Make(WithSlowStart(slow_start));
  EXPECT_TRUE(snapshot.has_value());
  const balance::BackendSet& backends = (*snapshot)->pools[0]->backends;
  constexpr Instant kBegan{std::chrono::hours(1)};
  backends.backends()[0].state->BeginRamp(kBegan);
  Random random(1);
  int taken = 0;
  for (std::uint64_t key = 0; key < 1000; ++key) {
    const auto pick =
        backends.Choose(key * 0x9e3779b97f4a7c15ULL, {}, kBegan + Millis(3000), random);
    taken += pick.has_value() && pick->index == 0 ? 1 : 0;
  }
  return taken;
}

TEST(Snapshot, CarriesSlowStartIntoTheChoice) {
  EXPECT_NEAR(TakenAfter3s(Millis(30'000)), 91, 46);  // 0.1 / 1.1; five standard deviations
  EXPECT_NEAR(TakenAfter3s(Millis(6000)), 333, 75);   // 0.5 / 1.5
  EXPECT_NEAR(TakenAfter3s(Millis(0)), 500, 79);
}

TEST(Snapshot, CarriesWhatABackendMayGet) {
  config::Config config = WithSlowStart(Millis(0));
  config::Pool& pool = config.pools[0];
  pool.handshake_rate = 0.5;
  pool.handshake_burst = 2;
  pool.group_threshold = 1;
  pool.backends[0].max_connections = 3;
  pool.backends.push_back({"spare", "127.0.0.1", 9003, 1.0, 4, 0, ""});
  const auto made = Snapshot::Make(config);
  ASSERT_TRUE(made.has_value());
  const balance::BackendSet& set = (*made)->pools[0]->backends;
  EXPECT_EQ(set.backends()[0].max_connections, 3);
  EXPECT_EQ(set.backends()[2].group, 4U);
  constexpr Instant kNow{std::chrono::hours(1)};
  EXPECT_TRUE(set.TakeHandshake(0, kNow));
  EXPECT_TRUE(set.TakeHandshake(0, kNow));
  EXPECT_FALSE(set.TakeHandshake(0, kNow + Millis(1999)));
  EXPECT_TRUE(set.TakeHandshake(0, kNow + Millis(2001)));

  set.backends()[0].state->healthy = false;
  int spare = 0;
  Random random(1);
  for (std::uint64_t key = 0; key < 1000; ++key) {
    spare += set.Choose(key * 0x9e3779b97f4a7c15ULL, {}, kNow, random)->index == 2 ? 1 : 0;
  }
  EXPECT_GT(spare, 0) << "with a threshold of 1 the next group joins at once";
  set.backends()[1].state->healthy = false;
  set.backends()[2].state->healthy = false;
  EXPECT_EQ(set.Choose(1, {}, kNow, random)->how, balance::PickHow::kPanic);
  config.pools[0].panic = config::Panic::kRefuse;
  const auto refusing = Snapshot::Make(config, made->get());
  ASSERT_TRUE(refusing.has_value());
  EXPECT_FALSE((*refusing)->pools[0]->backends.Choose(1, {}, kNow, random).has_value());
}

TEST(FailureNews, TellsEachFailureOnceUntilItChangesOrHasBeenAway) {
  FailureNews news;
  Instant now = Instant() + std::chrono::hours(1);
  EXPECT_TRUE(news.IsNews("expired", now));
  for (int i = 0; i < 100; ++i) {
    now += std::chrono::seconds(59);
    EXPECT_FALSE(news.IsNews("expired", now)) << i;
  }
  EXPECT_TRUE(news.IsNews("hostname mismatch", now));
  EXPECT_FALSE(news.IsNews("hostname mismatch", now));
  EXPECT_TRUE(news.IsNews("expired", now));
  EXPECT_TRUE(news.IsNews("expired", now + std::chrono::seconds(61)));
}

config::Config WithBackends(std::vector<config::Backend> backends) {
  config::Config config = WithSlowStart(Millis(30'000));
  config.pools[0].backends = std::move(backends);
  return config;
}

TEST(Snapshot, BackendsThatStayKeepTheirStateAndNewOnesStartSlowly) {
  const auto before = *Snapshot::Make(WithBackends({{"one", "127.0.0.1", 9001, 1.0}}));
  const auto& old = before->pools[0]->backends.backends();
  EXPECT_EQ(old[0].state->ramp_from, 0);
  const auto after = *Snapshot::Make(
      WithBackends({{"two", "127.0.0.1", 9002, 1.0}, {"one", "127.0.0.1", 9001, 2.0}}),
      before.get(), Snapshot::Names::kKeep);
  const auto& now = after->pools[0]->backends.backends();
  EXPECT_EQ(now[1].state, old[0].state);
  EXPECT_EQ(now[1].weight, 2.0);
  EXPECT_NE(now[0].state->ramp_from, 0);
}

// Where nobody else could take what a slow start spares.
TEST(Snapshot, TheFirstBackendsOfAPoolDoNotStartSlowly) {
  const auto before = *Snapshot::Make(WithBackends({}));
  EXPECT_TRUE(before->pools[0]->addresses.empty());
  const auto after = *Snapshot::Make(WithBackends({{"one", "127.0.0.1", 9001, 1.0}}), before.get());
  EXPECT_EQ(after->pools[0]->backends.backends()[0].state->ramp_from, 0);
}

// What was learned outlives a reload that keeps the route's name, whatever else it changes.
TEST(Snapshot, KeepsTheLearnedTokensOfARoute) {
  config::Config config =
      WithBackends({{"one", "127.0.0.1", 9001, 1.0}, {"two", "127.0.0.1", 9002, 1.0}});
  config.routes[0].name = "chat";
  config.routes[0].learn = {"sid", "/a"};
  const auto before = *Snapshot::Make(config);
  constexpr Instant kNow{std::chrono::hours(1)};
  before->routes[0].learned->Learn(7, before->pools[0]->backends.backends()[1].state, kNow);

  config.pools[0].backends.erase(config.pools[0].backends.begin());
  config.routes[0].learn->from = "/b";
  const auto kept = *Snapshot::Make(config, before.get());
  EXPECT_EQ(kept->routes[0].learned, before->routes[0].learned);
  EXPECT_EQ(kept->routes[0].learned->Find(7, kept->pools[0]->backends.backends(), kNow)->index, 0U);

  config.routes[0].learn->max_entries = 1;
  config.routes[0].learn->ttl = Millis(1000);
  const auto resized = *Snapshot::Make(config, kept.get());
  EXPECT_NE(resized->routes[0].learned, kept->routes[0].learned);
  EXPECT_EQ(resized->routes[0].learned->most(), 1U);
  EXPECT_EQ(resized->routes[0].learned->ttl(), Millis(1000));
  EXPECT_EQ(
      resized->routes[0].learned->Find(7, resized->pools[0]->backends.backends(), kNow)->index, 0U);

  config.routes[0].name = "talk";
  const auto renamed = *Snapshot::Make(config, resized.get());
  EXPECT_EQ(renamed->routes[0].learned->Count(kNow), 0U);
  config.routes[0].learn.reset();
  EXPECT_EQ((*Snapshot::Make(config, renamed.get()))->routes[0].learned, nullptr);
}

TEST(Snapshot, KeepsAddressesWhereNamesAreNotLookedUp) {
  const auto before = *Snapshot::Make(WithBackends({{"one", "localhost", 9001, 1.0}}));
  const auto make = [&](const char* host, std::uint16_t port) {
    return Snapshot::Make(WithBackends({{"one", host, port, 1.0}}), before.get(),
                          Snapshot::Names::kKeep);
  };
  const auto kept = make("localhost", 9001);
  ASSERT_TRUE(kept.has_value());
  EXPECT_EQ((*kept)->pools[0]->addresses[0].Text(), before->pools[0]->addresses[0].Text());
  const auto moved = make("127.0.0.2", 9002);
  ASSERT_TRUE(moved.has_value());
  EXPECT_EQ((*moved)->pools[0]->addresses[0].Text(), "127.0.0.2:9002");
  EXPECT_FALSE(make("no such host", 9001).has_value());
}

TEST(Snapshot, HasTheAddressesOfAuthServers) {
  config::Config config = WithBackends({{"one", "127.0.0.1", 9001, 1.0}});
  const auto make = [&](const char* host, std::uint16_t port, const Snapshot* before) {
    config.routes[0].auth = config::Auth{.host = host, .port = port};
    return Snapshot::Make(config, before, Snapshot::Names::kKeep);
  };
  EXPECT_EQ((*Snapshot::Make(config))->routes[0].auth.family(), AF_UNSPEC);
  const auto before = make("localhost", 81, nullptr);
  ASSERT_TRUE(before.has_value());
  EXPECT_EQ((*before)->routes[0].auth.port(), 81);
  const auto kept = make("localhost", 81, before->get());
  ASSERT_TRUE(kept.has_value());
  EXPECT_EQ((*kept)->routes[0].auth.Text(), (*before)->routes[0].auth.Text());
  EXPECT_EQ((*make("127.0.0.2", 82, before->get()))->routes[0].auth.Text(), "127.0.0.2:82");
  config.routes[0].name = "r";
  const auto missing = make("no such host", 81, before->get());
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().message.substr(0, 18), "route r: auth.url:");
}

}  // namespace
}  // namespace sluice::session
