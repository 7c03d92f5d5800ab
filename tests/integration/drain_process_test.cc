// Proves how the process as a whole ends: paced closes, deadlines, a second signal, and SIGTERM at
// every moment in the life of a connection. The exit status is 0 in all of it.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"
#include "tests/support/certificates.h"
#include "tests/support/echo_backend.h"
#include "tests/support/raw_backend.h"

namespace sluice::test {
namespace {

using std::chrono::steady_clock;

Config DrainConfig(std::uint16_t port, std::string drain) {
  return Config{.backends = {port},
                .server = "close_timeout = \"400ms\"",
                .drain = "message_grace = \"400ms\"\n" + std::move(drain)};
}

TEST(DrainPace, SpreadsTheClosesOverTheWindow) {
  constexpr std::size_t kSessions = 200;
  EchoBackend backend;
  ProxyProcess proxy(DrainConfig(backend.port(), "window = \"2s\"\ngrace = \"5s\""));
  std::vector<RawClient> clients;
  for (std::size_t i = 0; i < kSessions; ++i) {
    clients.push_back(ConnectWebSocket(proxy.port()));
  }
  proxy.AwaitMetric("sluice_sessions_open", kSessions);
  const auto began = steady_clock::now();
  proxy.Signal(SIGTERM);
  std::vector<double> seconds;
  const Deadline deadline;
  while (seconds.size() < kSessions && !deadline.passed()) {
    for (RawClient& client : clients) {
      if (client.open() && client.HasInput(Millis(0))) {
        const Frame close = client.ReadFrame();
        EXPECT_EQ(close.close_code(), 1012);
        seconds.push_back(std::chrono::duration<double>(steady_clock::now() - began).count());
        client.Send(ClientClose(1012));
        client.Close();
      }
    }
  }
  ASSERT_EQ(seconds.size(), kSessions);
  // Each worker spreads its own: every quarter of the window has its share.
  for (int quarter = 0; quarter < 4; ++quarter) {
    const auto count = std::count_if(seconds.begin(), seconds.end(), [&](double at) {
      return static_cast<int>(std::min(at, 1.99) / 0.5) == quarter;
    });
    EXPECT_GE(count, 25) << quarter;
    EXPECT_LE(count, 80) << quarter;
  }
  EXPECT_EQ(proxy.Wait(), 0);
}

TEST(DrainDeadline, ForcesWhoeverIsLeftAndCountsIt) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .server = "close_timeout = \"60s\"",
                            .drain = "window = \"0s\"\ngrace = \"3s\""});
  RelayedSession quick = OpenSession(proxy, backend);
  RelayedSession stuck = OpenSession(proxy, backend);
  const auto began = steady_clock::now();
  proxy.Signal(SIGTERM);
  EXPECT_EQ(quick.backend.ReadFrame().close_code(), 1001);
  quick.backend.Send(BackendClose(1001));
  EXPECT_EQ(quick.client.ReadFrame().close_code(), 1012);
  quick.client.Send(ClientClose(1012));
  quick.client.Close();
  quick.backend.Close();
  EXPECT_EQ(stuck.backend.ReadFrame().close_code(), 1001);
  proxy.AwaitMetric("sluice_drain_closed_total{how=\"clean\"}", 1);
  EXPECT_EQ(proxy.Metric("sluice_drain_closed_total{how=\"forced\"}"), 0);
  EXPECT_EQ(proxy.Metric("sluice_drain_sessions_remaining"), 1);
  EXPECT_EQ(stuck.client.ReadFrame().close_code(), 1012);  // also when it is cut
  EXPECT_EQ(proxy.Wait(), 0);
  const auto took = steady_clock::now() - began;
  EXPECT_GE(took, Millis(2900));
  EXPECT_LT(took, Millis(8000));
  EXPECT_EQ(proxy.AccessLog().size(), 2U);
}

TEST(DrainSecondSignal, EndsAllAtOnceWithCloseFrames) {
  EchoBackend backend;
  ProxyProcess proxy(DrainConfig(backend.port(), "window = \"60s\"\ngrace = \"60s\""));
  std::vector<RawClient> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(ConnectWebSocket(proxy.port()));
  }
  proxy.Signal(SIGTERM);
  ASSERT_TRUE(proxy.AwaitErr("draining"));
  const auto began = steady_clock::now();
  proxy.Signal(SIGTERM);
  for (RawClient& client : clients) {
    EXPECT_EQ(client.ReadFrame().close_code(), 1012);
    client.Send(ClientClose(1012));
    client.Close();
  }
  EXPECT_EQ(proxy.Wait(), 0);
  EXPECT_LT(steady_clock::now() - began, Millis(4000));
}

TEST(DrainSecondSignal, DoesNotWaitLongerThanTwoSeconds) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .server = "close_timeout = \"60s\"",
                            .drain = "window = \"60s\"\ngrace = \"60s\""});
  RelayedSession s = OpenSession(proxy, backend);
  proxy.Signal(SIGTERM);
  ASSERT_TRUE(proxy.AwaitErr("draining"));
  const auto began = steady_clock::now();
  proxy.Signal(SIGTERM);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  EXPECT_EQ(proxy.Wait(), 0);
  EXPECT_LT(steady_clock::now() - began, Millis(5000));
}

// SIGTERM at every moment of a connection's life.

TEST(DrainMoment, WithNothingOpen) {
  EchoBackend backend;
  ProxyProcess proxy(DrainConfig(backend.port(), "window = \"30s\"\ngrace = \"30s\""));
  const auto began = steady_clock::now();
  proxy.Signal(SIGTERM);
  EXPECT_EQ(proxy.Wait(), 0);
  EXPECT_LT(steady_clock::now() - began, Millis(5000));
}

TEST(DrainMoment, InATlsHandshake) {
  TestCerts certs;
  const CertificateFiles files = certs.Issue({"chat.test"});
  EchoBackend backend;
  Config config = DrainConfig(backend.port(), "window = \"30s\"\ngrace = \"30s\"");
  config.listener =
      "tls.certificates = [{ chain = \"" + files.chain + "\", key = \"" + files.key + "\" }]";
  ProxyProcess proxy(config);
  RawClient silent(proxy.port());
  RawClient begun(proxy.port());
  begun.Send(std::string("\x16\x03\x01\x02\x00\x01", 6));  // the start of a ClientHello
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 2);
  proxy.Signal(SIGTERM);
  EXPECT_EQ(proxy.Wait(), 0);
  static_cast<void>(silent.AwaitEnd());
  static_cast<void>(begun.AwaitEnd());
}

TEST(DrainMoment, WithAnUpgradeThatTheBackendDoesNotAnswer) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .route = "handshake_timeout = \"60s\"",
                            .drain = "window = \"30s\"\ngrace = \"30s\""});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  Stream leg = backend.Accept();
  EXPECT_EQ(leg.ReadHead().method, "GET");
  proxy.Signal(SIGTERM);
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.status, 503);
  EXPECT_TRUE(answer.Has("Retry-After"));
  client.ExpectEnd();
  client.Close();
  leg.ExpectEnd();
  EXPECT_EQ(proxy.Wait(), 0);
}

TEST(DrainMoment, WhileConnectingToABackendThatIsNotThere) {
  SilentPort silent;
  ProxyProcess proxy(Config{.backends = {silent.port()},
                            .route = "handshake_timeout = \"60s\"",
                            .pool = "connect_timeout = \"60s\"",
                            .drain = "window = \"30s\"\ngrace = \"30s\""});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  proxy.AwaitMetric("sluice_picks_total", 1);
  EXPECT_FALSE(client.HasInput(Millis(20)));
  proxy.Signal(SIGTERM);
  EXPECT_EQ(client.ReadResponse().status, 503);
  client.ExpectEnd();
  client.Close();
  EXPECT_EQ(proxy.Wait(), 0);
}

TEST(DrainMoment, WithHalfAHead) {
  EchoBackend backend;
  ProxyProcess proxy(DrainConfig(backend.port(), "window = \"30s\"\ngrace = \"30s\""));
  RawClient client(proxy.port());
  client.Send("GET / HTTP/1.1\r\nHost: x\r\nUpg");
  RawClient idle(proxy.port());
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 2);
  proxy.Signal(SIGTERM);
  EXPECT_EQ(client.ReadResponse().status, 503);
  client.ExpectEnd();
  client.Close();
  idle.ExpectEnd();  // nothing was asked, nothing is answered
  idle.Close();
  EXPECT_EQ(proxy.Wait(), 0);
}

TEST(DrainMoment, WithAnIdleKeepAliveConnection) {
  EchoBackend backend;
  ProxyProcess proxy(DrainConfig(backend.port(), "window = \"30s\"\ngrace = \"30s\""));
  RawClient client(proxy.port());
  client.Send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 200);
  proxy.Signal(SIGTERM);
  client.ExpectEnd();
  client.Close();
  EXPECT_EQ(proxy.Wait(), 0);
}

TEST(DrainMoment, APlainResponseInFlightIsFinished) {
  RawBackend backend;
  ProxyProcess proxy(DrainConfig(backend.port(), "window = \"0s\"\ngrace = \"10s\""));
  RawClient client(proxy.port());
  client.Send("GET /long HTTP/1.1\r\nHost: x\r\n\r\n");
  Stream leg = backend.Accept();
  static_cast<void>(leg.ReadHead());
  leg.Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
  EXPECT_EQ(client.ReadHead().status, 200);
  EXPECT_EQ(client.ReadExactly(5), "hello");
  proxy.Signal(SIGTERM);
  proxy.AwaitMetric("sluice_drain_sessions_remaining", 1);
  leg.Send("world");
  EXPECT_EQ(client.ReadExactly(5), "world");
  client.ExpectEnd();
  client.Close();
  EXPECT_EQ(proxy.Wait(), 0);
}

TEST(DrainMoment, StoppedWhileConnectionsQueue) {
  // The kernel completes connections while the process stands still; then the signal and the queue
  // are there at once, in whatever order. Each client gets an answer or an orderly end.
  EchoBackend backend;
  ProxyProcess proxy(DrainConfig(backend.port(), "window = \"0s\"\ngrace = \"3s\""));
  proxy.Signal(SIGSTOP);
  std::vector<RawClient> clients;
  for (int i = 0; i < 300; ++i) {
    clients.emplace_back(proxy.port());
    clients.back().Send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  }
  proxy.Signal(SIGTERM);
  proxy.Signal(SIGCONT);
  for (RawClient& client : clients) {
    const std::string answer = client.ReadToEnd();
    EXPECT_EQ(answer.substr(0, 8), "HTTP/1.1") << answer;
    client.Close();
  }
  EXPECT_EQ(proxy.Wait(), 0) << proxy.err();
}

TEST(DrainMoment, StoppedWhileTlsConnectionsQueue) {
  TestCerts certs;
  const CertificateFiles files = certs.Issue({"chat.test"});
  EchoBackend backend;
  Config config = DrainConfig(backend.port(), "window = \"0s\"\ngrace = \"1s\"");
  config.listener =
      "tls.certificates = [{ chain = \"" + files.chain + "\", key = \"" + files.key + "\" }]";
  ProxyProcess proxy(config);
  proxy.Signal(SIGSTOP);
  std::vector<RawClient> clients;
  for (int i = 0; i < 300; ++i) {
    clients.emplace_back(proxy.port());
  }
  proxy.Signal(SIGTERM);
  proxy.Signal(SIGCONT);
  EXPECT_EQ(proxy.Wait(), 0) << proxy.err();
}

// Readiness.

TEST(DrainReadiness, ReadyDelayServesPlainRequestsAndRefusesUpgrades) {
  EchoBackend backend;
  ProxyProcess proxy(
      DrainConfig(backend.port(), "ready_delay = \"60s\"\nwindow = \"0s\"\ngrace = \"5s\""));
  RawClient open = ConnectWebSocket(proxy.port());
  int status = 0;
  static_cast<void>(proxy.Admin("/readyz", &status));
  EXPECT_EQ(status, 200);
  proxy.Signal(SIGTERM);
  ASSERT_TRUE(proxy.AwaitErr("draining"));
  static_cast<void>(proxy.Admin("/readyz", &status));
  EXPECT_EQ(status, 503);
  static_cast<void>(proxy.Admin("/healthz", &status));
  EXPECT_EQ(status, 200);
  EXPECT_EQ(proxy.Metric("sluice_drain_active"), 1);
  // Workers hear of it a moment after the control thread.
  const Deadline deadline;
  HttpMessage answer;
  do {
    RawClient late(proxy.port());
    answer = late.Upgrade();
  } while (answer.status == 101 && !deadline.passed());
  EXPECT_EQ(answer.status, 503);
  EXPECT_TRUE(answer.Has("Retry-After"));
  RawClient plain(proxy.port());
  plain.Send("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(plain.ReadResponse().status, 200);
  open.SendFrame(kText, "still relayed");
  EXPECT_EQ(open.ReadFrame().payload, "still relayed");
  proxy.Signal(SIGTERM);
  EXPECT_EQ(open.ReadFrame().close_code(), 1012);
  open.Send(ClientClose(1012));
  open.Close();
  plain.Close();
  EXPECT_EQ(proxy.Wait(), 0);
}

}  // namespace
}  // namespace sluice::test
