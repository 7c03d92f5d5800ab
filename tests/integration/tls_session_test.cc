// Proves sessions over TLS: both versions, the certificate by name, ALPN, resumption on any worker,
// client certificates, and that neither record borders nor a missing close_notify matter.
#include <signal.h>

#include <memory>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "tests/integration/relayed_session.h"
#include "tests/integration/resumption.h"
#include "tests/support/certificates.h"
#include "tests/support/echo_backend.h"

namespace sluice::test {
namespace {

std::string Pair(const CertificateFiles& files) {
  return "{ chain = \"" + files.chain + "\", key = \"" + files.key + "\" }";
}

class TlsTest : public testing::Test {
 protected:
  TestCerts certs;
  CertificateFiles chat = certs.Issue({"chat.test", "*.rooms.test"});
  CertificateFiles other = certs.Issue({"other.test"});
  EchoBackend backend;
  ProxyProcess proxy{
      Config{.backends = {backend.port()},
             .listener = "tls.certificates = [" + Pair(chat) + ", " + Pair(other) + "]"}};
};

TEST_F(TlsTest, EchoesWithBothVersions) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    RawClient client(
        proxy.port(),
        TlsClientOptions{.sni = "chat.test", .trust = certs.ca(), .max_version = version});
    EXPECT_EQ(SSL_version(client.ssl()), version);
    EXPECT_EQ(client.Upgrade().status, 101);
    for (const std::size_t size : {0U, 1U, 16383U, 16384U, 16385U, 65536U, 1U << 20U}) {
      const std::string payload = Pattern(size);
      std::thread writer([&] { client.SendFrame(kBinary, payload); });
      writer.join();
      EXPECT_TRUE(client.ReadFrame().payload == payload) << size;
    }
    EXPECT_EQ(client.CloseAndAwait(1000).close_code(), 1000);
  }
  EXPECT_EQ(proxy.Metric("sluice_tls_handshakes_total{result=\"ok\",version=\"1.2\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_tls_handshakes_total{result=\"ok\",version=\"1.3\"}"), 1);
}

TEST_F(TlsTest, ChoosesTheCertificateByName) {
  // The client checks that the certificate is good for the name it asked for.
  for (const char* name : {"chat.test", "a.rooms.test", "other.test", "OTHER.test"}) {
    EXPECT_NO_THROW(RawClient(proxy.port(), TlsClientOptions{.sni = name, .trust = certs.ca()}))
        << name;
  }
  for (const char* name : {"unknown.test", "a.b.rooms.test"}) {
    EXPECT_THROW(RawClient(proxy.port(), TlsClientOptions{.sni = name, .trust = certs.ca()}),
                 Failure)
        << name;
    EXPECT_NO_THROW(RawClient(proxy.port(), TlsClientOptions{.sni = name})) << name;
  }
}

TEST_F(TlsTest, AgreesOnHttp11Only) {
  RawClient client(proxy.port(), TlsClientOptions{.sni = "chat.test", .alpn = "http/1.1"});
  const unsigned char* chosen = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(client.ssl(), &chosen, &size);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(chosen), size), "http/1.1");
  EXPECT_THROW(RawClient(proxy.port(), TlsClientOptions{.sni = "chat.test", .alpn = "h2"}),
               Failure);
  proxy.AwaitMetric("sluice_tls_handshakes_total{result=\"failed\"}", 1);
}

TEST_F(TlsTest, RefusesARenegotiation) {
  RawClient client(proxy.port(),
                   TlsClientOptions{.sni = "chat.test", .max_version = TLS1_2_VERSION});
  EXPECT_EQ(client.Upgrade().status, 101);
  ASSERT_EQ(SSL_renegotiate(client.ssl()), 1);
  static_cast<void>(SSL_do_handshake(client.ssl()));
  // It is refused with a warning alert or the connection ends; the session is not renegotiated.
  static_cast<void>(client.HasInput(Millis(200)));
  EXPECT_NE(SSL_do_handshake(client.ssl()), 1);
}

TEST_F(TlsTest, ManyFramesInOneRecordAndOneFrameInManyRecords) {
  RawClient client(proxy.port(), TlsClientOptions{.sni = "chat.test"});
  EXPECT_EQ(client.Upgrade().status, 101);
  std::string many;
  for (int i = 0; i < 200; ++i) {
    many += BuildFrame(kText, std::to_string(i));
  }
  client.Send(many);  // one SSL_write
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(client.ReadFrame().payload, std::to_string(i));
  }
  client.SendDribble(BuildFrame(kText, "a record for every byte"));
  EXPECT_EQ(client.ReadFrame().payload, "a record for every byte");
}

TEST_F(TlsTest, ClientThatLeavesWithoutCloseNotifyIsAnOrdinaryEnd) {
  RawClient client(proxy.port(), TlsClientOptions{.sni = "chat.test"});
  EXPECT_EQ(client.Upgrade().status, 101);
  client.SendFrame(kText, "x");
  EXPECT_EQ(client.ReadFrame().payload, "x");
  SSL_set_quiet_shutdown(client.ssl(), 1);
  client.Close();
  proxy.AwaitMetric("sluice_sessions_open", 0);
  EXPECT_EQ(proxy.Metric("sluice_torn_total"), 0);
  EXPECT_EQ(proxy.Metric("sluice_closes_total{code=\"none\",by=\"client\"}"), 1);
}

TEST_F(TlsTest, CloseAndCloseNotifyInOneSegmentEndInOrder) {
  RawClient client(proxy.port(), TlsClientOptions{.sni = "chat.test"});
  EXPECT_EQ(client.Upgrade().status, 101);
  client.Send(BuildFrame(kText, "last") + ClientClose(1000));
  SSL_shutdown(client.ssl());  // close_notify, and no FIN until ours is here
  EXPECT_TRUE(backend.AwaitCloses(1));
  EXPECT_EQ(client.AwaitEnd(), StreamEnd::kFin);
  client.Close();
  proxy.AwaitMetric("sluice_sessions_open", 0);
  EXPECT_EQ(proxy.Metric("sluice_closes_total{code=\"1000\",by=\"client\"}"), 1);
}

TEST_F(TlsTest, DrainSendsCloseAndCloseNotify) {
  RawClient client(proxy.port(), TlsClientOptions{.sni = "chat.test"});
  EXPECT_EQ(client.Upgrade().status, 101);
  proxy.Signal(SIGTERM);
  EXPECT_EQ(client.ReadFrame().close_code(), 1012);
  client.Send(ClientClose(1012));
  EXPECT_EQ(client.AwaitEnd(), StreamEnd::kFin);
  EXPECT_NE(SSL_get_shutdown(client.ssl()) & SSL_RECEIVED_SHUTDOWN, 0);
  client.Close();
  EXPECT_EQ(proxy.Wait(), 0);
}

TEST_F(TlsTest, PlainTextToATlsPortIsAFailedHandshake) {
  RawClient client(proxy.port());
  client.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  static_cast<void>(client.AwaitEnd());
  proxy.AwaitMetric("sluice_tls_handshakes_total{result=\"failed\"}", 1);
}

TEST_F(TlsTest, ResumesOnAnyWorker) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const SslContext context = MakeClientContext(version);
    SslSession session;
    EXPECT_FALSE(Resume(proxy.port(), context.get(), session));
    // Each connection lands on one of two workers: all on the same one is next to impossible.
    for (int i = 0; i < 20; ++i) {
      EXPECT_TRUE(Resume(proxy.port(), context.get(), session)) << version << " " << i;
    }
  }
  EXPECT_EQ(proxy.Metric("sluice_tls_handshakes_total{resumed=\"true\"}"), 40);
}

TEST(TlsTimeout, AClientThatDoesNotShakeHandsIsDropped) {
  TestCerts certs;
  EchoBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()},
             .server = "tls_timeout = \"300ms\"",
             .listener = "tls.certificates = [" + Pair(certs.Issue({"chat.test"})) + "]"});
  RawClient silent(proxy.port());
  RawClient half(proxy.port());
  half.Send(std::string("\x16\x03\x01\x02\x00\x01", 6));  // the start of a ClientHello
  silent.ExpectEnd();
  static_cast<void>(half.AwaitEnd());
  proxy.AwaitMetric("sluice_tls_handshakes_total{result=\"timeout\"}", 2);
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 0);
}

TEST(TlsVersion, CanBeRaisedTo13) {
  TestCerts certs;
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .listener = "tls.min_version = \"1.3\"\ntls.certificates = [" +
                                        Pair(certs.Issue({"chat.test"})) + "]"});
  EXPECT_THROW(RawClient(proxy.port(), TlsClientOptions{.max_version = TLS1_2_VERSION}), Failure);
  EXPECT_NO_THROW(RawClient(proxy.port(), TlsClientOptions{}));
}

TEST(TlsMutual, AsksForACertificateOfTheAuthority) {
  TestCerts certs;
  TestCerts strangers;
  const CertificateFiles ours = certs.Issue({"client.test"});
  const CertificateFiles theirs = strangers.Issue({"client.test"});
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .listener = "tls.client_ca = \"" + certs.ca() +
                                        "\"\ntls.certificates = [" +
                                        Pair(certs.Issue({"chat.test"})) + "]"});
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    RawClient known(proxy.port(),
                    TlsClientOptions{.chain = ours.chain, .key = ours.key, .max_version = version});
    EXPECT_EQ(known.Upgrade().status, 101);
    // In TLS 1.3 a client learns of the refusal with its first read.
    const auto use = [&](const TlsClientOptions& options) {
      RawClient client(proxy.port(), options);
      static_cast<void>(client.Upgrade());
    };
    EXPECT_THROW(use({.max_version = version}), Failure);
    EXPECT_THROW(use({.chain = theirs.chain, .key = theirs.key, .max_version = version}), Failure);
  }
  EXPECT_EQ(backend.accepts(), 2U);
}

TEST(TlsSlow, ReaderOverTlsGetsEverything) {
  TestCerts certs;
  RawBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()},
             .listener = "tls.certificates = [" + Pair(certs.Issue({"chat.test"})) + "]"});
  const std::size_t before = proxy.ResidentBytes();
  RawClient client(proxy.port(), TlsClientOptions{}, {.small_buffers = true});
  client.Send(UpgradeRequest());
  Stream leg = backend.AcceptWebSocket();
  EXPECT_EQ(client.ReadHead().status, 101);
  std::string stream;
  for (unsigned i = 0; i < 300; ++i) {
    stream += BackendFrame(kBinary, Pattern(100'000, i));
  }
  std::thread writer([&] {
    leg.Send(stream);
    leg.Close();
  });
  proxy.AwaitMetricAtLeast("sluice_backpressure_pauses_total{side=\"backend\"}", 1);
  EXPECT_LT(proxy.ResidentBytes(), before + AllowedGrowth(proxy));
  EXPECT_TRUE(client.ReadExactly(stream.size()) == stream);
  writer.join();
  EXPECT_EQ(client.ReadFrame().close_code(), 1012);
}

}  // namespace
}  // namespace sluice::test
