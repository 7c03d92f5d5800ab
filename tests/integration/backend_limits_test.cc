// Proves what a backend may get: max_connections to the last place under many upgrades at once, the
// groups, and the rate of new sessions in a reconnect storm.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/echo_backend.h"
#include "tests/support/proxy_process.h"
#include "tests/support/raw_backend.h"
#include "tests/support/raw_client.h"

namespace sluice::test {
namespace {

using std::chrono::steady_clock;

// The configuration with further keys for its backends: `keys[i]`, such as "group = 1", for bi.
std::string TextWith(const Config& config, const std::vector<std::string>& keys) {
  std::string text = config.Text();
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const std::string name = "{ name = \"b" + std::to_string(i) + "\"";
    const std::size_t place = text.find(name);
    if (place == std::string::npos) {
      throw Failure("there is no backend b" + std::to_string(i));
    }
    text.insert(place + name.size(), ", " + keys[i]);
  }
  return text;
}

// So many clients that have all sent an upgrade before the proxy reads the first of them.
std::vector<RawClient> Storm(const ProxyProcess& proxy, std::size_t count) {
  proxy.Stop();
  std::vector<RawClient> clients;
  clients.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    clients.emplace_back(proxy.port())
        .Send(UpgradeRequest("/", "x-user: " + std::to_string(i) + "\r\n"));
  }
  proxy.Continue();
  return clients;
}

struct Answers {
  std::vector<RawClient> accepted;
  std::vector<RawClient> refused;
  std::map<int, int> retry_after;  // how many were told so many seconds
};

// What each was answered: 101, or 503 with a Retry-After.
Answers Sort(std::vector<RawClient> clients) {
  Answers answers;
  for (RawClient& client : clients) {
    const HttpMessage answer = client.ReadResponse();
    if (answer.status == 101) {
      answers.accepted.push_back(std::move(client));
      continue;
    }
    EXPECT_EQ(answer.status, 503);
    ++answers.retry_after[std::stoi(answer.Field("Retry-After"))];
    answers.refused.push_back(std::move(client));
  }
  return answers;
}

// Asks until it is accepted; each time over the same connection, which a refusal leaves open.
RawClient Insist(const ProxyProcess& proxy, std::string_view more = {}) {
  RawClient client(proxy.port());
  const Deadline deadline;
  while (client.Upgrade("/", more).status != 101) {
    if (deadline.passed()) {
      throw Failure("never accepted");
    }
  }
  return client;
}

std::string BackendFor(const ProxyProcess& proxy, std::string_view more = {}) {
  RawClient client(proxy.port());
  const HttpMessage answer = client.Upgrade("/", more);
  EXPECT_EQ(answer.status, 101);
  return answer.Field("X-Backend");
}

// max_connections.

TEST(BackendLimitsTest, NoBackendEverHasMoreThanItsMaxConnections) {
  for (const char* pool : {"bounded_load = 0", "balance = \"least_connections\""}) {
    EchoBackend a;
    EchoBackend b;
    ProxyProcess proxy(TextWith(Config{.backends = {a.port(), b.port()},
                                       .workers = 2,
                                       .route = "affinity = [\"header:x-user\"]",
                                       .pool = pool},
                                {"max_connections = 7", "max_connections = 12"}));
    Answers answers = Sort(Storm(proxy, 200));
    EXPECT_EQ(answers.accepted.size(), 19U) << pool;
    EXPECT_EQ(a.accepts(), 7U) << "as none was given back, all that it ever got";
    EXPECT_EQ(b.accepts(), 12U);
    EXPECT_LE(answers.retry_after.rbegin()->first, 5);
    EXPECT_GE(answers.retry_after.begin()->first, 1);
    proxy.AwaitMetric("sluice_rate_limited_total{reason=\"backend_full\"}", 181);
    proxy.AwaitMetric("sluice_upgrades_total{outcome=\"limit\"}", 181);
    EXPECT_EQ(proxy.Metric("sluice_upgrades_total{outcome=\"no_backend\"}"), 0);

    // Plain requests are legs too.
    answers.refused.front().Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(answers.refused.front().ReadResponse().status, 503);

    // A place that is given back is given to the next.
    answers.accepted.back().CloseAndAwait();
    answers.accepted.back().Close();
    const RawClient next = Insist(proxy);
    EXPECT_EQ(a.accepts() + b.accepts(), 20U);
  }
}

TEST(BackendLimitsTest, ClientsOfAFullBackendOverflow) {
  EchoBackend a("a");
  EchoBackend b("b");
  ProxyProcess proxy(TextWith(Config{.backends = {a.port(), b.port()},
                                     .route = "affinity_cookie = \"stay\"",
                                     .pool = "bounded_load = 0"},
                              {"max_connections = 1", "max_connections = 1"}));
  RawClient first(proxy.port());
  const HttpMessage answer = first.Upgrade();
  ASSERT_EQ(answer.status, 101);
  const std::string cookie = answer.Field("Set-Cookie");
  const std::string pair = "Cookie: " + cookie.substr(0, cookie.find(';')) + "\r\n";
  // A client of the same cookie cannot stay with it, but is not refused.
  RawClient second(proxy.port());
  const HttpMessage elsewhere = second.Upgrade("/", pair);
  ASSERT_EQ(elsewhere.status, 101);
  EXPECT_NE(elsewhere.Field("X-Backend"), answer.Field("X-Backend"));
  proxy.AwaitMetric("sluice_picks_total{how=\"overflow\"}", 1);
  RawClient third(proxy.port());
  EXPECT_EQ(third.Upgrade("/", pair).status, 503);
}

// Groups.

TEST(BackendLimitsTest, TheNextGroupTakesOverWhileTheFirstDrains) {
  EchoBackend a("a");
  EchoBackend b("b");
  EchoBackend c("c");
  EchoBackend d("d");
  ProxyProcess proxy(TextWith(Config{.backends = {a.port(), b.port(), c.port(), d.port()},
                                     .route = "affinity_cookie = \"stay\"",
                                     .pool = "bounded_load = 0\nslow_start = \"0s\""},
                              {"group = 0", "group = 1", "group = 1", "group = 1"}));
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(BackendFor(proxy), "a");
  }
  static_cast<void>(proxy.AskJson("POST", "/backends/app/b0/drain?window=0s", 202));
  std::set<std::string> standby;
  std::vector<std::string> cookies;
  for (int i = 0; i < 8; ++i) {
    RawClient client(proxy.port());
    const HttpMessage answer = client.Upgrade();
    ASSERT_EQ(answer.status, 101);
    const std::string cookie = answer.Field("Set-Cookie");
    cookies.push_back("Cookie: " + cookie.substr(0, cookie.find(';')) + "\r\n");
    EXPECT_EQ(BackendFor(proxy, cookies.back()), answer.Field("X-Backend"))
        << "the cookie leads back in the second group too";
    standby.insert(answer.Field("X-Backend"));
  }
  EXPECT_FALSE(standby.contains("a"));
  EXPECT_GT(standby.size(), 1U);
  EXPECT_EQ(a.accepts(), 5U);
  static_cast<void>(proxy.AskJson("POST", "/backends/app/b0/undrain"));
  for (const std::string& cookie : cookies) {
    EXPECT_EQ(BackendFor(proxy, cookie), "a") << "everybody is back";
  }
}

TEST(BackendLimitsTest, TheNextGroupTakesWhatTheFirstRefuses) {
  ClosedPort closed;
  EchoBackend spare("spare");
  ProxyProcess proxy(
      TextWith(Config{.backends = {closed.port(), spare.port()}}, {"group = 0", "group = 1"}));
  EXPECT_EQ(BackendFor(proxy), "spare");
  proxy.AwaitMetric("sluice_backend_failures_total{backend=\"b0\",reason=\"refused\"}", 1);
  proxy.AwaitMetric("sluice_picks_total{how=\"fallback\"}", 1);
}

TEST(BackendLimitsTest, TheNextGroupHelpsAFullOne) {
  EchoBackend first("first");
  EchoBackend spare("spare");
  ProxyProcess proxy(TextWith(Config{.backends = {first.port(), spare.port()}},
                              {"max_connections = 2", "group = 1"}));
  std::vector<RawClient> clients;
  std::vector<std::string> backends;
  for (int i = 0; i < 4; ++i) {
    backends.push_back(clients.emplace_back(proxy.port()).Upgrade().Field("X-Backend"));
  }
  EXPECT_EQ(backends, (std::vector<std::string>{"first", "first", "spare", "spare"}));
}

// The rate of new sessions.

// A backend that takes every upgrade and remembers when each connection came.
class TimedBackend {
 public:
  TimedBackend() : thread_([this] { Run(); }) {}
  ~TimedBackend() {
    stop_ = true;
    thread_.join();
  }
  TimedBackend(const TimedBackend&) = delete;
  TimedBackend& operator=(const TimedBackend&) = delete;

  [[nodiscard]] std::uint16_t port() const { return backend_.port(); }
  // To be called once no upgrade is under way.
  [[nodiscard]] std::vector<steady_clock::time_point> Times() {
    stop_ = true;
    while (!stopped_) {
      std::this_thread::yield();
    }
    return times_;
  }

 private:
  void Run() {
    while (!stop_) {
      if (backend_.HasConnection(Millis(10))) {
        times_.push_back(steady_clock::now());
        sessions_.push_back(backend_.AcceptWebSocket());
      }
    }
    stopped_ = true;
  }

  RawBackend backend_;
  std::vector<steady_clock::time_point> times_;
  std::vector<Stream> sessions_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> stopped_{false};
  std::thread thread_;
};

TEST(BackendLimitsTest, AStormReachesTheBackendAtItsRate) {
  constexpr double kRate = 20;
  constexpr double kBurst = 5;
  TimedBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .workers = 2,
                            .pool = "handshake_rate = 20\nhandshake_burst = 5"});
  const auto began = steady_clock::now();
  Answers answers = Sort(Storm(proxy, 100));
  EXPECT_GE(answers.accepted.size(), 5U);
  const auto refused = static_cast<double>(answers.refused.size());
  EXPECT_GT(refused, 0);
  // 100 take 5 seconds, and are told to come back within that time, not all at once.
  EXPECT_GE(answers.retry_after.begin()->first, 1);
  EXPECT_LE(answers.retry_after.rbegin()->first, 6);
  EXPECT_GE(answers.retry_after.size(), 3U);
  for (const auto& [seconds, count] : answers.retry_after) {
    EXPECT_LE(count, 40) << "told " << seconds << " s, of which each takes 20";
  }
  proxy.AwaitMetric("sluice_rate_limited_total{reason=\"backend_rate\"}", refused);
  proxy.AwaitMetric("sluice_upgrades_total{outcome=\"limit\"}", refused);
  EXPECT_EQ(proxy.Metric("sluice_picks_total"), static_cast<double>(answers.accepted.size()));

  // Those who come later are let in, as fast as the rate allows.
  for (int i = 0; i < 20; ++i) {
    answers.accepted.push_back(Insist(proxy));
  }
  const auto times = backend.Times();
  ASSERT_EQ(times.size(), answers.accepted.size());
  for (std::size_t i = 0; i < times.size(); ++i) {
    const double passed = std::chrono::duration<double>(times[i] - began).count();
    EXPECT_LE(static_cast<double>(i + 1), kBurst + kRate * passed) << "after " << passed << " s";
  }
}

TEST(BackendLimitsTest, AStormOfOneBackendsClientsStaysWithThatBackend) {
  EchoBackend a("a");
  EchoBackend b("b");
  // A token in 100 seconds.
  ProxyProcess proxy(Config{.backends = {a.port(), b.port()},
                            .route = "affinity = [\"header:x-user\"]",
                            .pool = "bounded_load = 0\nhandshake_rate = 0.01"});
  std::set<std::string> served;
  int refused = 0;
  for (int i = 0; i < 12; ++i) {
    RawClient client(proxy.port());
    const HttpMessage answer = client.Upgrade("/", "x-user: " + std::to_string(i) + "\r\n");
    if (answer.status == 101) {
      EXPECT_TRUE(served.insert(answer.Field("X-Backend")).second) << "a second session in 100 s";
    } else {
      EXPECT_EQ(answer.status, 503);
      EXPECT_GE(std::stoi(answer.Field("Retry-After")), 1);
      EXPECT_LE(std::stoi(answer.Field("Retry-After")), 30);
      ++refused;
      // The connection lasts, and plain requests are not counted.
      client.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
      EXPECT_EQ(client.ReadResponse().status, 200);
    }
  }
  EXPECT_EQ(served.size(), 2U);
  EXPECT_EQ(refused, 10);
  EXPECT_EQ(proxy.Metric("sluice_backend_retries_total"), 0);
}

TEST(BackendLimitsTest, WithoutAHomeAnyBackendWithATokenWill) {
  EchoBackend a;
  EchoBackend b;
  EchoBackend c;
  ProxyProcess proxy(
      Config{.backends = {a.port(), b.port(), c.port()},
             .workers = 2,
             .pool = "balance = \"round_robin\"\nhandshake_rate = 0.01\nhandshake_burst = 3"});
  Answers answers = Sort(Storm(proxy, 30));
  EXPECT_EQ(answers.accepted.size(), 9U);
  EXPECT_EQ(a.accepts(), 3U);
  EXPECT_EQ(b.accepts(), 3U);
  EXPECT_EQ(c.accepts(), 3U);
  proxy.AwaitMetric("sluice_rate_limited_total{reason=\"backend_rate\"}", 21);
}

TEST(BackendLimitsTest, AReloadKeepsWhatIsOpenAndWhatWasTaken) {
  EchoBackend a;
  const Config config{.backends = {a.port()}, .pool = "handshake_rate = 0.01\nhandshake_burst = 2"};
  ProxyProcess proxy(TextWith(config, {"max_connections = 1"}));
  RawClient first = ConnectWebSocket(proxy.port());
  EXPECT_EQ(RawClient(proxy.port()).Upgrade().status, 503) << "full";
  proxy.Configure(TextWith(config, {"max_connections = 3"}));
  static_cast<void>(proxy.AskJson("POST", "/reload"));
  RawClient second = Insist(proxy);
  EXPECT_EQ(RawClient(proxy.port()).Upgrade().status, 503) << "both tokens are taken";
  proxy.AwaitMetricAtLeast("sluice_rate_limited_total{reason=\"backend_rate\"}", 1);
  proxy.AwaitMetricAtLeast("sluice_rate_limited_total{reason=\"backend_full\"}", 1);
}

}  // namespace
}  // namespace sluice::test
