// What the metrics say after a known piece of traffic: every counter moves once, by its label, and
// gauges come back to where they were.
#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "tests/support/echo_backend.h"
#include "tests/support/proxy_process.h"
#include "tests/support/raw_backend.h"
#include "tests/support/raw_client.h"

namespace sluice::test {
namespace {

class MetricsTest : public testing::Test {
 protected:
  EchoBackend backend_;
  ProxyProcess proxy_{Config{.backends = {backend_.port()},
                             .more = "[[route]]\nname = \"closed\"\npath = \"/closed\"\n"
                                     "pool = \"app\"\nupgrades = false\n"}};

  double Count(const std::string& series) { return proxy_.Metric(series); }

  void EndInOrder(RawClient& client, std::uint16_t code) {
    EXPECT_EQ(client.CloseAndAwait(code).close_code(), code);
    client.FinishWrite();
    client.ExpectEnd();
  }
};

TEST_F(MetricsTest, SeriesExistWithZeroFromTheStart) {
  for (const char* series :
       {"sluice_accepts_total{listener=\"plain\"}",
        "sluice_connections_open{side=\"client\"}",
        "sluice_upgrades_total{route=\"main\",outcome=\"accepted\"}",
        "sluice_upgrades_total{route=\"closed\",outcome=\"bad_request\"}",
        "sluice_upgrades_total{route=\"main\",outcome=\"backend_error\"}",
        "sluice_http_requests_total{route=\"main\",code=\"2xx\"}",
        "sluice_http_requests_total{route=\"main\",code=\"none\"}",
        "sluice_sessions_open{route=\"main\",pool=\"app\",backend=\"b0\"}",
        "sluice_messages_total{route=\"main\",from=\"client\",opcode=\"text\"}",
        "sluice_bytes_total{route=\"main\",from=\"backend\"}",
        "sluice_closes_total{route=\"main\",code=\"1000\",by=\"client\"}",
        "sluice_closes_total{route=\"main\",code=\"1012\",by=\"sluice\"}",
        "sluice_torn_total{route=\"main\",reason=\"backend_lost\"}",
        "sluice_backend_failures_total{backend=\"b0\",reason=\"refused\"}",
        "sluice_backend_retries_total{backend=\"b0\"}",
        "sluice_picks_total{pool=\"app\",how=\"home\"}",
        "sluice_accept_paused_total{reason=\"emfile\"}",
        "sluice_picks_total{pool=\"app\",how=\"panic\"}",
        "sluice_rate_limited_total{reason=\"connections_per_ip\"}",
        "sluice_rate_limited_total{reason=\"backend_rate\"}",
        "sluice_rate_limited_total{reason=\"backend_full\"}",
        "sluice_drain_active{what=\"process\"}",
        "sluice_drain_closed_total{how=\"forced\"}",
        "sluice_out_buffer_bytes",
        "sluice_log_dropped_total"}) {
    EXPECT_EQ(Count(series), 0) << series;
  }
  proxy_.AwaitMetric("sluice_backend_up{pool=\"app\",backend=\"b0\"}", 1);
  proxy_.AwaitMetric("sluice_config_last_reload_successful", 1);
  proxy_.AwaitMetric("sluice_build_info", 1);
  proxy_.AwaitMetric("sluice_workers", TestWorkers());
  EXPECT_GT(Count("sluice_open_fds"), 5);
}

TEST_F(MetricsTest, SessionIsCountedFromItsUpgradeToItsClose) {
  RawClient client = ConnectWebSocket(proxy_.port());
  proxy_.AwaitMetric("sluice_accepts_total{listener=\"plain\"}", 1);
  proxy_.AwaitMetric("sluice_connections_open{side=\"client\",listener=\"plain\",tls=\"false\"}",
                     1);
  proxy_.AwaitMetric("sluice_upgrades_total{route=\"main\",outcome=\"accepted\"}", 1);
  proxy_.AwaitMetric("sluice_upgrade_seconds_count{route=\"main\"}", 1);
  proxy_.AwaitMetric("sluice_sessions_open{route=\"main\",pool=\"app\",backend=\"b0\"}", 1);
  proxy_.AwaitMetric("sluice_backend_connections_open{backend=\"b0\"}", 1);
  proxy_.AwaitMetric("sluice_backend_connect_seconds_count{backend=\"b0\"}", 1);
  proxy_.AwaitMetric("sluice_picks_total{how=\"home\"}", 1);

  client.SendFrame(kText, "hello");
  EXPECT_EQ(client.ReadFrame().payload, "hello");
  // One message of three frames, with a ping inside.
  client.SendFrame(kBinary, "a", {.fin = false});
  client.SendFrame(kPing, "?");
  client.SendFrame(kContinuation, "b", {.fin = false});
  client.SendFrame(kContinuation, "c");
  for (int i = 0; i < 4; ++i) {
    static_cast<void>(client.ReadFrame());
  }
  EndInOrder(client, 1000);
  proxy_.AwaitMetric("sluice_sessions_open", 0);
  proxy_.AwaitMetric("sluice_connections_open", 0);

  for (const char* from : {"client", "backend"}) {
    const std::string labels = "{route=\"main\",from=\"" + std::string(from) + "\",opcode=\"";
    proxy_.AwaitMetric("sluice_messages_total" + labels + "text\"}", 1);
    proxy_.AwaitMetric("sluice_messages_total" + labels + "binary\"}", 1);
    proxy_.AwaitMetric("sluice_messages_total" + labels + "close\"}", 1);
    proxy_.AwaitMetric("sluice_message_bytes_count{from=\"" + std::string(from) + "\"}", 2);
    proxy_.AwaitMetric("sluice_message_bytes_sum{from=\"" + std::string(from) + "\"}", 8);
  }
  proxy_.AwaitMetric("sluice_messages_total{from=\"client\",opcode=\"ping\"}", 1);
  proxy_.AwaitMetric("sluice_messages_total{from=\"backend\",opcode=\"pong\"}", 1);
  // Headers are counted: 2 bytes each, and 4 for the mask.
  proxy_.AwaitMetric("sluice_bytes_total{from=\"client\"}", 6 * 6 + 5 + 1 + 1 + 1 + 1 + 2);
  proxy_.AwaitMetric("sluice_bytes_total{from=\"backend\"}", 6 * 2 + 5 + 1 + 1 + 1 + 1 + 2);
  proxy_.AwaitMetric("sluice_closes_total{route=\"main\",code=\"1000\",by=\"client\"}", 1);
  EXPECT_EQ(Count("sluice_closes_total"), 1) << "one session, one count";
  proxy_.AwaitMetric("sluice_session_seconds_count{route=\"main\"}", 1);
  EXPECT_EQ(Count("sluice_torn_total"), 0);
  proxy_.AwaitMetric("sluice_backend_connections_open{backend=\"b0\"}", 0);
}

TEST_F(MetricsTest, ApplicationCloseCodesAreCountedByClass) {
  for (const int code : {3001, 4999}) {
    RawClient client = ConnectWebSocket(proxy_.port());
    EndInOrder(client, static_cast<std::uint16_t>(code));
  }
  proxy_.AwaitMetric("sluice_closes_total", 2);
  proxy_.AwaitMetric("sluice_closes_total{code=\"3xxx\",by=\"client\"}", 1);
  proxy_.AwaitMetric("sluice_closes_total{code=\"4xxx\",by=\"client\"}", 1);
}

TEST_F(MetricsTest, ClientThatVanishesIsCountedWithoutACode) {
  RawClient client = ConnectWebSocket(proxy_.port());
  client.Reset();
  proxy_.AwaitMetric("sluice_closes_total{code=\"none\",by=\"client\"}", 1);
  proxy_.AwaitMetric("sluice_sessions_open", 0);
}

TEST_F(MetricsTest, RefusedUpgradesAreCountedByOutcome) {
  RawClient client(proxy_.port());
  EXPECT_EQ(client.Upgrade("/closed").status, 403);
  proxy_.AwaitMetric("sluice_upgrades_total{route=\"closed\",outcome=\"not_allowed\"}", 1);
  client.Send(
      "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 426);
  proxy_.AwaitMetric("sluice_upgrades_total{route=\"main\",outcome=\"bad_request\"}", 1);
  EXPECT_EQ(Count("sluice_upgrades_total{outcome=\"accepted\"}"), 0);
}

TEST_F(MetricsTest, PlainRequestsAreCountedByClassOfStatus) {
  RawClient client(proxy_.port());
  for (int i = 0; i < 3; ++i) {
    client.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(client.ReadResponse().status, 200);
  }
  proxy_.AwaitMetric("sluice_http_requests_total{route=\"main\",code=\"2xx\"}", 3);
  proxy_.AwaitMetric("sluice_http_requests_total", 3);
  proxy_.AwaitMetric("sluice_http_request_seconds_count{route=\"main\"}", 3);
  proxy_.AwaitMetric("sluice_accepts_total", 1);
}

TEST_F(MetricsTest, ParseErrorsAreCountedByReason) {
  for (const char* request :
       {"GET / HTTP/1.1\nHost: a\r\n\r\n", "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"}) {
    RawClient client(proxy_.port());
    client.Send(request);
    EXPECT_EQ(client.ReadResponse().status, 400);
  }
  proxy_.AwaitMetric("sluice_http_parse_errors_total{reason=\"bare_lf\"}", 2);
  proxy_.AwaitMetric("sluice_http_parse_errors_total{reason=\"space_before_colon\"}", 1);
  proxy_.AwaitMetric("sluice_http_parse_errors_total{reason=\"missing_host\"}", 1);
  proxy_.AwaitMetric("sluice_http_parse_errors_total", 4);
}

TEST_F(MetricsTest, ProtocolErrorsAreCountedBySideAndReason) {
  RawClient client = ConnectWebSocket(proxy_.port());
  client.SendFrame(kText, "unmasked", {.masked = false});
  const Frame close = client.ReadFrame();
  EXPECT_EQ(close.opcode, kClose);
  EXPECT_EQ(close.close_code(), 1002);
  proxy_.AwaitMetric("sluice_protocol_errors_total{side=\"client\"}", 1);
  EXPECT_EQ(Count("sluice_protocol_errors_total{side=\"backend\"}"), 0);
  client.SendFrame(kClose, ClosePayload(1002));
  client.FinishWrite();
  client.AwaitEnd();
  proxy_.AwaitMetric("sluice_closes_total{code=\"1002\",by=\"sluice\"}", 1);
}

TEST(Metrics, LostBackendIsCounted) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  Stream peer = backend.AcceptWebSocket();
  EXPECT_EQ(client.ReadHead().status, 101);
  peer.Close();
  EXPECT_EQ(client.ReadFrame().close_code(), 1012);
  client.SendFrame(kClose, ClosePayload(1012));
  client.FinishWrite();
  client.ExpectEnd();
  proxy.AwaitMetric("sluice_closes_total{code=\"1012\",by=\"backend\"}", 1);
  proxy.AwaitMetric("sluice_backend_failures_total{reason=\"lost\"}", 1);
  EXPECT_EQ(proxy.Metric("sluice_torn_total"), 0);
}

TEST(Metrics, BackendThatDiesInsideAFrameIsTorn) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  Stream peer = backend.AcceptWebSocket();
  EXPECT_EQ(client.ReadHead().status, 101);
  const std::string frame = BuildFrame(kText, std::string(1000, 'x'), {.masked = false});
  peer.Send(frame.substr(0, 500));
  EXPECT_EQ(client.ReadExactly(500), frame.substr(0, 500));
  peer.Close();
  client.AwaitEnd();
  EXPECT_EQ(client.unread(), "") << "a CLOSE inside a frame would be taken for its content";
  proxy.AwaitMetric("sluice_torn_total{reason=\"backend_lost\"}", 1);
}

TEST(Metrics, AdminAnswersItsPathsAndRefusesTheRest) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  int status = 0;
  EXPECT_EQ(proxy.Admin("/healthz", &status), "ok\n");
  EXPECT_EQ(status, 200);
  EXPECT_EQ(proxy.Admin("/readyz", &status), "ready\n");
  EXPECT_EQ(status, 200);
  EXPECT_NE(proxy.Admin("/nothing", &status).find("\"status\":404"), std::string::npos);
  EXPECT_EQ(status, 404);

  RawClient client(proxy.admin_port());
  client.Send(
      "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nHEAD /metrics HTTP/1.1\r\nHost: "
      "localhost\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().body, "ok\n");
  const HttpMessage head = client.ReadResponse("HEAD");
  EXPECT_EQ(head.Field("Content-Type").rfind("text/plain; version=0.0.4", 0), 0U)
      << head.Field("Content-Type");
  client.Send("POST /readyz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx");
  EXPECT_EQ(client.ReadResponse().status, 405);
  RawClient smuggler(proxy.admin_port());
  smuggler.Send(
      "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(smuggler.ReadResponse().status, 400);
  RawClient rebound(proxy.admin_port());
  rebound.Send("POST /drain HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(rebound.ReadResponse().status, 403);
  EXPECT_EQ(proxy.Admin("/readyz", &status), "ready\n");
  EXPECT_EQ(backend.accepts(), 0U);
}

}  // namespace
}  // namespace sluice::test
