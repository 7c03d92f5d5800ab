// The tools of the tests themselves: a proxy starts, relays an echo, counts it and ends with 0.
#include <signal.h>

#include <gtest/gtest.h>

#include "tests/support/certificates.h"
#include "tests/support/echo_backend.h"
#include "tests/support/proxy_process.h"
#include "tests/support/raw_backend.h"
#include "tests/support/raw_client.h"

namespace sluice::test {
namespace {

TEST(Support, ProxyRelaysAnEchoAndEndsWithZero) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client = ConnectWebSocket(proxy.port(), "/chat?token=secret");
  client.SendFrame(kText, "hello");
  EXPECT_EQ(client.ReadFrame().payload, "hello");
  proxy.AwaitMetric("sluice_sessions_open", 1);
  EXPECT_EQ(client.CloseAndAwait(1000).close_code(), 1000);
  client.FinishWrite();
  client.ExpectEnd();
  proxy.AwaitMetric("sluice_sessions_open", 0);
  EXPECT_EQ(proxy.AwaitAccessLog(1).front()["event"], "ws_close");
  EXPECT_GT(proxy.OpenFds(), 5U);
  EXPECT_GT(proxy.ResidentBytes(), 1U << 20);
  proxy.Signal(SIGTERM);
  EXPECT_EQ(proxy.Wait(), 0);
}

TEST(Support, TlsClientTrustsAnIssuedCertificate) {
  TestCerts certs;
  const CertificateFiles files = certs.Issue({"chat.test"});
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .listener = "tls.certificates = [{ chain = \"" + files.chain +
                                        "\", key = \"" + files.key + "\" }]"});
  RawClient client(proxy.port(), TlsClientOptions{.sni = "chat.test", .trust = certs.ca()});
  EXPECT_EQ(client.Upgrade().status, 101);
  client.SendFrame(kBinary, "over TLS");
  EXPECT_EQ(client.ReadFrame().payload, "over TLS");
}

TEST(Support, MetricSumsTheSeriesThatCarryTheLabels) {
  constexpr const char* kPage =
      "# HELP a b\nx_total{a=\"1\",b=\"2\"} 3\nx_total{a=\"2\",b=\"2\"} 4\n";
  EXPECT_EQ(MetricOf(kPage, "x_total{b=\"2\"}"), 7);
  EXPECT_EQ(MetricOf(kPage, "x_total{b=\"2\",a=\"2\"}"), 4);
  EXPECT_NE(MetricOf(kPage, "y_total"), 0);
}

TEST(Support, ProcessThatEndsInsteadOfServingSaysWhy) {
  try {
    ProxyProcess proxy(std::string("nonsense = 1\n"));
    FAIL() << "it serves";
  } catch (const Failure& failure) {
    EXPECT_NE(std::string(failure.what()).find("nonsense"), std::string::npos) << failure.what();
  }
}

}  // namespace
}  // namespace sluice::test
