// The access log: one JSON line for each request and each session, with what an operator looks for
// and without what must stay secret.
#include <signal.h>

#include <algorithm>
#include <regex>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/echo_backend.h"
#include "tests/support/proxy_process.h"
#include "tests/support/raw_backend.h"
#include "tests/support/raw_client.h"

namespace sluice::test {
namespace {

TEST(AccessLog, SessionIsOneLineAtItsEnd) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest("/chat/room?token=hush",
                             "Origin: https://o.example\r\nUser-Agent: test/1\r\n"
                             "X-Request-Id: id-7\r\n",
                             "chat.example"));
  ASSERT_EQ(client.ReadResponse().status, 101);
  client.SendFrame(kText, "hello");
  static_cast<void>(client.ReadFrame());
  EXPECT_TRUE(proxy.AccessLog().empty()) << "the line comes at the end";
  EXPECT_EQ(client.CloseAndAwait(4001).close_code(), 4001);
  const std::uint16_t port = client.local_port();
  client.FinishWrite();
  client.ExpectEnd();

  const auto lines = proxy.AwaitAccessLog(1);
  proxy.AwaitMetric("sluice_connections_open", 0);
  ASSERT_EQ(proxy.AccessLog().size(), 1U);
  const auto& line = lines.front();
  EXPECT_TRUE(std::regex_match(line["ts"].get<std::string>(),
                               std::regex(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)")))
      << line;
  EXPECT_EQ(line["event"], "ws_close");
  EXPECT_EQ(line["client_ip"], "127.0.0.1");
  EXPECT_EQ(line["client_port"], port);
  EXPECT_EQ(line["listener"], "plain");
  EXPECT_EQ(line["method"], "GET");
  EXPECT_EQ(line["host"], "chat.example");
  EXPECT_EQ(line["path"], "/chat/room");
  EXPECT_EQ(line["query"], "[redacted]");
  EXPECT_EQ(line["origin"], "https://o.example");
  EXPECT_EQ(line["user_agent"], "test/1");
  EXPECT_EQ(line["request_id"], "id-7");
  EXPECT_EQ(line["status"], 101);
  EXPECT_EQ(line["route"], "main");
  EXPECT_EQ(line["pool"], "app");
  EXPECT_EQ(line["backend"], "b0");
  EXPECT_EQ(line["attempts"], 1);
  EXPECT_GE(line["duration_ms"].get<int>(), 0);
  EXPECT_GE(line["handshake_ms"].get<int>(), 0);
  EXPECT_EQ(line["bytes_in"], 2 + 4 + 5 + 2 + 4 + 2);
  EXPECT_EQ(line["bytes_out"], 2 + 5 + 2 + 2);
  EXPECT_EQ(line["msgs_in"], 2) << "the message and the CLOSE";
  EXPECT_EQ(line["msgs_out"], 2);
  EXPECT_EQ(line["close_code_client"], 4001);
  EXPECT_EQ(line["close_code_backend"], 4001);
  EXPECT_EQ(line["closed_by"], "client");
  EXPECT_EQ(proxy.out().find("hush"), std::string::npos) << "tokens travel in queries";
}

TEST(AccessLog, RequestsAndRefusalsAreOneLineEach) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .route = "path = \"/app\"\n"});
  RawClient client(proxy.port());
  client.Send("GET /app/x?secret=1 HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 200);
  client.Send("GET /elsewhere HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 404);
  client.Send("GET /app HTTP/1.1\nHost: a\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 400);

  const auto lines = proxy.AwaitAccessLog(3);
  ASSERT_EQ(lines.size(), 3U);
  for (const auto& line : lines) {
    EXPECT_EQ(line["event"], "http") << line;
    EXPECT_EQ(line["client_ip"], "127.0.0.1") << line;
  }
  EXPECT_EQ(lines[0]["status"], 200);
  EXPECT_EQ(lines[0]["backend"], "b0");
  EXPECT_EQ(lines[0]["path"], "/app/x");
  EXPECT_EQ(lines[0]["query"], "[redacted]");
  EXPECT_EQ(lines[1]["status"], 404);
  EXPECT_EQ(lines[1]["reason"], "no_route");
  EXPECT_FALSE(lines[1].contains("backend"));
  EXPECT_EQ(lines[2]["status"], 400);
  EXPECT_EQ(lines[2]["reason"], "bare_lf");
}

TEST(AccessLog, QueriesAreWrittenWhenAskedFor) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .log = "query = true\n"});
  RawClient client(proxy.port());
  client.Send("GET /?a=1&b=%22 HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 200);
  EXPECT_EQ(proxy.AwaitAccessLog(1).front()["query"], "a=1&b=%22");
}

// A client may put anything into its fields; a line stays one line of valid JSON.
TEST(AccessLog, HostileFieldsCannotForgeALine) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send(
      "GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: \",\"status\":500,\"x\":\"\\\t\xFF\xC3\r\n"
      "Origin: {\"event\":\"http\"}\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 200);
  const auto lines = proxy.AwaitAccessLog(1);  // parses every line
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(lines.front()["status"], 200);
  EXPECT_EQ(lines.front()["origin"], "{\"event\":\"http\"}");
}

TEST(AccessLog, RetriesShowInAttempts) {
  ClosedPort closed;
  ProxyProcess proxy(Config{.backends = {closed.port()}});
  RawClient client(proxy.port());
  EXPECT_EQ(client.Upgrade().status, 503);
  const auto line = proxy.AwaitAccessLog(1).front();
  EXPECT_EQ(line["status"], 503);
  EXPECT_EQ(line["attempts"], 1);
  EXPECT_EQ(line["reason"], "no_backend");
}

TEST(AccessLog, TextFormatIsOneLineToo) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .log = "access = \"text\"\n"});
  RawClient client(proxy.port());
  client.Send("GET /t?q HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 200);
  client.Close();
  proxy.AwaitMetric("sluice_connections_open", 0);
  proxy.Signal(SIGTERM);
  ASSERT_EQ(proxy.Wait(), 0);
  const std::string out = proxy.out();
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 1) << out;
  EXPECT_NE(out.find("GET a/t?[redacted] 200 backend=b0"), std::string::npos) << out;
}

TEST(AccessLog, OffWritesNothing) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .log = "access = \"off\"\n"});
  RawClient client(proxy.port());
  client.Send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 200);
  client.Close();
  proxy.Signal(SIGTERM);
  ASSERT_EQ(proxy.Wait(), 0);
  EXPECT_EQ(proxy.out(), "");
}

}  // namespace
}  // namespace sluice::test
