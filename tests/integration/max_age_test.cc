// Proves that a session is closed in order when it has reached its age: not all at the same moment,
// not where its route says otherwise, and at the end of the message that is in flight.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"
#include "tests/support/echo_backend.h"

namespace sluice::test {
namespace {

using std::chrono::steady_clock;

constexpr Millis kAge{1'000};
// Sessions are looked after at a grain of 50 ms; the rest is for a loaded machine.
constexpr Millis kLate{200};

Config AgeConfig(std::uint16_t port, std::string more = {}) {
  return Config{.backends = {port},
                .server = "close_timeout = \"400ms\"",
                .limits = "max_connection_age = \"1s\"",
                .drain = "window = \"0s\"\nmessage_grace = \"10s\"",
                .more = std::move(more)};
}

TEST(MaxAge, ClosesEverybodyAboutItsAgeAndNotTogether) {
  constexpr std::size_t kSessions = 60;
  EchoBackend backend;
  ProxyProcess proxy(AgeConfig(backend.port()));
  struct Aging {
    RawClient client;
    steady_clock::time_point asked;     // it is older than this says
    steady_clock::time_point answered;  // and younger than this says
  };
  std::vector<Aging> all;
  for (std::size_t i = 0; i < kSessions; ++i) {
    const auto asked = steady_clock::now();
    RawClient client = ConnectWebSocket(proxy.port());
    all.push_back({std::move(client), asked, steady_clock::now()});
  }
  std::vector<double> ages;  // seconds
  const Deadline deadline;
  while (ages.size() < kSessions) {
    ASSERT_FALSE(deadline.passed());
    for (Aging& one : all) {
      if (!one.client.open() || !one.client.HasInput(Millis(0))) {
        continue;
      }
      const auto now = steady_clock::now();
      const Frame close = one.client.ReadFrame();
      EXPECT_EQ(close.close_code(), 1012);
      EXPECT_EQ(close.close_reason(), "service restart");
      EXPECT_GE(now - one.asked, kAge * 9 / 10);
      EXPECT_LE(now - one.answered, kAge * 11 / 10 + kLate);
      ages.push_back(std::chrono::duration<double>(now - one.answered).count());
      one.client.Send(ClientClose(1012));
      one.client.ExpectEnd();
      one.client.Close();
    }
  }
  // 60 draws from a span of 200 ms that all fall into half of it would be a wonder.
  const auto [least, most] = std::minmax_element(ages.begin(), ages.end());
  EXPECT_GE(*most - *least, 0.1);
  proxy.AwaitMetric("sluice_sessions_open", 0);
  EXPECT_EQ(proxy.Metric("sluice_own_closes_total{cause=\"max_age\"}"), kSessions);
  EXPECT_EQ(proxy.Metric("sluice_own_closes_total"), kSessions);
  EXPECT_EQ(proxy.Metric("sluice_closes_total{code=\"1012\",by=\"sluice\"}"), kSessions);
  EXPECT_TRUE(backend.AwaitCloses(kSessions));
  for (const std::uint16_t code : backend.closes()) {
    EXPECT_EQ(code, 1001);
  }
  for (const auto& line : proxy.AwaitAccessLog(kSessions)) {
    EXPECT_EQ(line["reason"], "max_age");
    EXPECT_EQ(line["closed_by"], "sluice");
  }
}

TEST(MaxAge, ARouteMayHaveItsOwnOrNone) {
  EchoBackend backend;
  ProxyProcess proxy(AgeConfig(backend.port(),
                               "[[route]]\nname = \"long\"\npath = \"/long\"\npool = \"app\"\n"
                               "limits.max_connection_age = \"0s\"\n"
                               "[[route]]\nname = \"older\"\npath = \"/older\"\npool = \"app\"\n"
                               "limits.max_connection_age = \"2s\""));
  RawClient eternal = ConnectWebSocket(proxy.port(), "/long");
  RawClient older = ConnectWebSocket(proxy.port(), "/older");
  const auto began = steady_clock::now();
  RawClient usual = ConnectWebSocket(proxy.port(), "/");
  EXPECT_EQ(usual.ReadFrame().close_code(), 1012);
  EXPECT_LT(steady_clock::now() - began, Millis(1100) + kLate);
  EXPECT_EQ(older.ReadFrame().close_code(), 1012);
  EXPECT_GE(steady_clock::now() - began, Millis(1700));
  EXPECT_FALSE(eternal.HasInput(Millis(500)));
  eternal.Send(BuildFrame(kText, "lives"));
  EXPECT_EQ(eternal.ReadFrame().payload, "lives");
  EXPECT_EQ(proxy.Metric("sluice_own_closes_total{route=\"long\",cause=\"max_age\"}"), 0);
  EXPECT_EQ(proxy.Metric("sluice_own_closes_total{route=\"older\",cause=\"max_age\"}"), 1);
}

TEST(MaxAge, IsOffUnlessAsked) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client = ConnectWebSocket(proxy.port());
  EXPECT_FALSE(client.HasInput(Millis(1500)));
  EXPECT_EQ(proxy.Metric("sluice_own_closes_total"), 0);
}

TEST(MaxAge, WaitsForTheEndOfTheClientsMessage) {
  RawBackend backend;
  ProxyProcess proxy(AgeConfig(backend.port()));
  RelayedSession s = OpenSession(proxy, backend);
  const std::string begin = BuildFrame(kText, "first half, ", {.fin = false});
  s.client.Send(begin);
  EXPECT_EQ(s.backend.ReadExactly(begin.size()), begin);
  proxy.AwaitMetric("sluice_own_closes_total{cause=\"max_age\"}", 1);
  EXPECT_FALSE(s.backend.HasInput(Millis(200))) << "a message was cut in two";
  const std::string end = BuildFrame(kContinuation, "second half");
  s.client.Send(end + BuildFrame(kText, "too late"));
  EXPECT_EQ(s.backend.ReadExactly(end.size()), end);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  s.backend.Send(BackendClose(1001));
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  s.client.Send(ClientClose(1012));
  s.client.ExpectEnd();
}

TEST(MaxAge, WaitsForTheEndOfTheBackendsMessage) {
  RawBackend backend;
  ProxyProcess proxy(AgeConfig(backend.port()));
  RelayedSession s = OpenSession(proxy, backend);
  const std::string begin = BackendFrame(kText, "first half, ", false);
  s.backend.Send(begin);
  EXPECT_EQ(s.client.ReadExactly(begin.size()), begin);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  EXPECT_FALSE(s.client.HasInput(Millis(200))) << "a message was cut in two";
  const std::string end = BackendFrame(kContinuation, "second half");
  s.backend.Send(end + BackendClose(1001));
  EXPECT_EQ(s.client.ReadExactly(end.size()), end);
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
}

TEST(MaxAge, ASessionThatIsClosingAlreadyIsLeftToIt) {
  RawBackend backend;
  Config config = AgeConfig(backend.port());
  config.server = "close_timeout = \"2s\"";
  ProxyProcess proxy(config);
  RelayedSession s = OpenSession(proxy, backend);
  s.client.Send(ClientClose(1000, "bye"));
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1000);
  EXPECT_FALSE(s.backend.HasInput(Millis(1300)));
  s.backend.Send(BackendClose(1000));
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1000);
  s.client.ExpectEnd();
  EXPECT_EQ(proxy.Metric("sluice_own_closes_total"), 0);
}

}  // namespace
}  // namespace sluice::test
