// Proves TLS to backends: nothing is said to, or taken from, a backend before its certificate is
// verified; one that is not believed is passed over like one that refuses; sessions are resumed,
// and relays, closes, drains and reloads work as they do in plain text.
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"
#include "tests/support/certificates.h"
#include "tests/support/echo_backend.h"
#include "tests/support/tls_server.h"

namespace sluice::test {
namespace {

using nlohmann::json;

class BackendTlsTest : public testing::Test {
 protected:
  // A pool that believes `ca`, or the authority of `certs`; `more`: further keys.
  [[nodiscard]] std::string Tls(const std::string& more = {}, const std::string& ca = {}) const {
    return "tls.ca = \"" + (ca.empty() ? certs.ca() : ca) + "\"\n" + more + "\n";
  }

  TestCerts certs;
  TestCerts others;
  CertificateFiles good = certs.Issue({"backend.test"});
  TlsServer tls{{.certificate = good}};
  TlsServer strange{{.certificate = others.Issue({"backend.test"})}};
};

constexpr const char* kInTurn = "balance = \"round_robin\"\n";
constexpr const char* kGet = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

HttpMessage Get(const ProxyProcess& proxy) {
  RawClient client(proxy.port());
  client.Send(kGet);
  return client.ReadResponse();
}

std::size_t Count(std::string_view text, std::string_view what) {
  std::size_t count = 0;
  for (std::size_t at = text.find(what); at != std::string_view::npos;
       at = text.find(what, at + 1)) {
    ++count;
  }
  return count;
}

// A session whose backend's end is TLS too.
RelayedSession OpenTlsSession(const ProxyProcess& proxy, RawBackend& backend, const TlsServer& tls,
                              const ClientOptions& options = {}) {
  RelayedSession session{RawClient(proxy.port(), options), Stream()};
  session.client.Send(UpgradeRequest());
  session.backend = backend.Accept();
  session.backend.AcceptTls(tls);
  const HttpMessage request = session.backend.ReadHead();
  session.backend.Send(SwitchingProtocols(request.Field("Sec-WebSocket-Key")));
  EXPECT_EQ(session.client.ReadHead().status, 101);
  return session;
}

TEST_F(BackendTlsTest, EchoesWithBothVersionsByteForByte) {
  TlsServer older{{.certificate = good, .max_version = TLS1_2_VERSION}};
  for (const TlsServer* server : {&older, &tls}) {
    EchoBackend backend("echo", server);
    ProxyProcess proxy(Config{.backends = {backend.port()}, .pool = Tls()});
    RawClient client = ConnectWebSocket(proxy.port());
    for (const std::size_t size : {0U, 1U, 16383U, 16385U, 65536U, (1U << 20U) + 1}) {
      const std::string payload = Pattern(size);
      std::thread writer([&] { client.SendFrame(kBinary, payload); });
      const std::string echoed = client.ReadFrame().payload;
      writer.join();
      EXPECT_TRUE(echoed == payload) << size;
    }
    EXPECT_EQ(client.CloseAndAwait(1000).close_code(), 1000);
    client.FinishWrite();
    ASSERT_TRUE(backend.AwaitCloses(1));
    EXPECT_EQ(backend.handshakes().at(0).version,
              server == &older ? TLS1_2_VERSION : TLS1_3_VERSION);
    EXPECT_EQ(proxy.Metric("sluice_backend_tls_handshakes_total{backend=\"b0\",result=\"ok\"}"), 1);
    EXPECT_EQ(proxy.AwaitAccessLog(1).at(0)["close_code_backend"], 1000);
  }
}

TEST_F(BackendTlsTest, CarriesPlainHttpWithContent) {
  EchoBackend backend("echo", &tls);
  ProxyProcess proxy(Config{.backends = {backend.port()}, .pool = Tls()});
  const std::string content(200'000, 'c');
  RawClient client(proxy.port());
  for (int i = 0; i < 2; ++i) {
    std::thread writer([&] {
      client.Send("POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + content);
    });
    const HttpMessage answer = client.ReadResponse();
    writer.join();
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body, "echo POST /p\n");
  }
  ASSERT_EQ(backend.heads().size(), 2U);
  EXPECT_TRUE(backend.heads()[1].body == content);
}

TEST_F(BackendTlsTest, SendsTheNameThatIsConfiguredAndNoAddress) {
  for (const bool named : {false, true}) {
    EchoBackend backend("echo", &tls);
    ProxyProcess proxy(Config{.backends = {backend.port()},
                              .pool = Tls(named ? "tls.server_name = \"Backend.test\"" : "")});
    EXPECT_EQ(Get(proxy).status, 200);
    const TlsFacts facts = backend.handshakes().at(0);
    EXPECT_EQ(facts.sni, named ? "backend.test" : "");
    EXPECT_EQ(facts.alpn, "http/1.1");
  }
}

TEST_F(BackendTlsTest, GoesOnToTheNextWhenOneIsNotBelieved) {
  EchoBackend bad("bad", &strange);
  EchoBackend fine("fine", &tls);
  ProxyProcess proxy(
      Config{.backends = {bad.port(), fine.port()}, .workers = 1, .pool = kInTurn + Tls()});
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(Get(proxy).body, "fine GET /\n");
    RawClient client = ConnectWebSocket(proxy.port());
    client.SendFrame(kText, "over TLS");
    EXPECT_EQ(client.ReadFrame().payload, "over TLS");
  }
  EXPECT_TRUE(bad.heads().empty()) << "it must not see a request";
  EXPECT_GE(proxy.Metric("sluice_backend_failures_total{backend=\"b0\",reason=\"tls\"}"), 3);
  EXPECT_GE(proxy.Metric("sluice_backend_tls_handshakes_total{backend=\"b0\",result=\"failed\"}"),
            3);
  EXPECT_EQ(proxy.Metric("sluice_backend_failures_total{backend=\"b1\"}"), 0);
  EXPECT_TRUE(
      proxy.AwaitErr("pool=app backend=b0 server_name=127.0.0.1 "
                     "why=\"certificate signature failure\""));
  EXPECT_EQ(Count(proxy.err(), "no TLS with a backend"), 1U) << "told once";
}

TEST_F(BackendTlsTest, Answers503WhenTheNameIsWrong) {
  EchoBackend backend("echo", &tls);
  ProxyProcess proxy(Config{
      .backends = {backend.port()}, .workers = 1, .pool = Tls("tls.server_name = \"other.test\"")});
  RawClient client(proxy.port());
  EXPECT_EQ(client.Upgrade().status, 503);
  EXPECT_EQ(Get(proxy).status, 503);
  EXPECT_TRUE(backend.heads().empty());
  EXPECT_TRUE(proxy.AwaitErr("server_name=other.test why=\"hostname mismatch\""));
  EXPECT_EQ(proxy.AwaitAccessLog(1).at(0)["reason"], "no_backend");
}

// Checks go the way of sessions: with the authority of the pool, and after the PROXY header.
TEST_F(BackendTlsTest, ChecksGoOverTlsToo) {
  EchoBackend fine("fine", &tls);
  EchoBackend bad("bad", &strange);
  ProxyProcess proxy(Config{
      .backends = {fine.port(), bad.port()},
      .pool = Tls("health = { type = \"websocket\", interval = \"100ms\", rise = 1, fall = 1 }")});
  proxy.AwaitMetricAtLeast("sluice_health_checks_total{backend=\"b0\",result=\"ok\"}", 2);
  proxy.AwaitMetric("sluice_backend_up{backend=\"b1\"}", 0);
  EXPECT_EQ(proxy.Metric("sluice_backend_up{backend=\"b0\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_health_checks_total{backend=\"b0\",result=\"failed\"}"), 0);
  EXPECT_EQ(proxy.AskJson("GET", "/backends/app/b1")["health"]["last_error"],
            "TLS: certificate signature failure");
  EXPECT_TRUE(bad.heads().empty());
}

// What somebody on the way could try, and what a backend does that speaks plain HTTP.
TEST_F(BackendTlsTest, TakesNoPlaintextInPlaceOfTheHandshake) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .route = "retries = 0", .pool = Tls()});
  for (const std::string& injected :
       {std::string("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ninjected"),
        SwitchingProtocols(kKey) + BackendFrame(kText, "injected"),
        std::string("\x17\x03\x03\x00\x08injected", 13)}) {
    RawClient client(proxy.port());
    client.Send(UpgradeRequest());
    Stream peer = backend.Accept();
    peer.Send(injected);
    const HttpMessage answer = client.ReadResponse();
    EXPECT_EQ(answer.status, 503);
    EXPECT_EQ(answer.body.find("injected"), std::string::npos);
    std::string seen;
    for (std::string more = peer.ReadSome(); !more.empty(); more = peer.ReadSome()) {
      seen += more;
      if (peer.AwaitEnd() != StreamEnd::kFin) {
        break;
      }
    }
    EXPECT_EQ(seen.substr(0, 2), "\x16\x03") << "a handshake record";
    EXPECT_EQ(seen.find("GET"), std::string::npos);
  }
  EXPECT_EQ(proxy.Metric("sluice_backend_failures_total{reason=\"tls\"}"), 3);
}

TEST_F(BackendTlsTest, AHandshakeThatStallsIsLeftAtConnectTimeout) {
  RawBackend silent;  // connections wait in its queue, and nobody answers
  EchoBackend fine("fine", &tls);
  ProxyProcess proxy(Config{.backends = {silent.port(), fine.port()},
                            .workers = 1,
                            .pool = kInTurn + Tls("connect_timeout = \"150ms\"")});
  for (int i = 0; i < 2; ++i) {
    ConnectWebSocket(proxy.port());
    EXPECT_EQ(Get(proxy).body, "fine GET /\n");
  }
  EXPECT_GE(proxy.Metric("sluice_backend_failures_total{backend=\"b0\",reason=\"timeout\"}"), 1);
  EXPECT_TRUE(proxy.AwaitErr("why=\"no end of the handshake in connect_timeout\""));
}

// The content came with the head, and waits here while the backend takes its time.
TEST_F(BackendTlsTest, AClientThatHasSentAllMayFinishBeforeTheHandshakeHas) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .pool = Tls()});
  RawClient client(proxy.port());
  client.Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
  client.FinishWrite();
  Stream peer = backend.Accept();
  EXPECT_FALSE(client.HasInput(Millis(500)));
  peer.AcceptTls(tls);
  EXPECT_EQ(peer.ReadRequest().body, "hello");
  peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 200);
}

TEST_F(BackendTlsTest, ResumesWithTheSameBackend) {
  TlsServer older{{.certificate = good, .max_version = TLS1_2_VERSION}};
  for (const TlsServer* server : {&older, &tls}) {
    EchoBackend backend("echo", server);
    ProxyProcess proxy(Config{.backends = {backend.port()}, .workers = 1, .pool = Tls()});
    for (int i = 0; i < 3; ++i) {
      RawClient client = ConnectWebSocket(proxy.port());
      if (i != 1) {  // also one that is not closed in order leaves a session
        EXPECT_EQ(client.CloseAndAwait(1000).close_code(), 1000);
      }
    }
    const std::vector<TlsFacts> seen = backend.handshakes();
    ASSERT_EQ(seen.size(), 3U);
    EXPECT_FALSE(seen[0].resumed);
    EXPECT_TRUE(seen[1].resumed);
    EXPECT_TRUE(seen[2].resumed);
    EXPECT_EQ(proxy.Metric("sluice_backend_tls_handshakes_total{result=\"ok\"}"), 1);
    EXPECT_EQ(proxy.Metric("sluice_backend_tls_handshakes_total{result=\"resumed\"}"), 2);
  }
}

TEST_F(BackendTlsTest, ASessionOfOnePoolIsNoneOfAnother) {
  EchoBackend backend("echo", &tls);
  const std::string other =
      "[[route]]\npath = \"/other\"\npool = \"other\"\n[pool.other]\n" + Tls() +
      "backends = [{ name = \"b0\", address = \"127.0.0.1:" + std::to_string(backend.port()) +
      "\" }]\n";
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .workers = 1, .pool = Tls(), .more = other});
  ConnectWebSocket(proxy.port(), "/");
  ConnectWebSocket(proxy.port(), "/other");
  ConnectWebSocket(proxy.port(), "/other");
  const std::vector<TlsFacts> seen = backend.handshakes();
  ASSERT_EQ(seen.size(), 3U);
  EXPECT_FALSE(seen[1].resumed);
  EXPECT_TRUE(seen[2].resumed);
}

TEST_F(BackendTlsTest, ShowsItsCertificateToABackendThatAsks) {
  const CertificateFiles own = certs.Issue({"sluice.test"});
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsServer mutual{{.certificate = good, .client_ca = certs.ca(), .max_version = version}};
    EchoBackend backend("echo", &mutual);
    const Config without{.backends = {backend.port()}, .pool = Tls()};
    Config with = without;
    with.pool =
        Tls("tls.certificate = { chain = \"" + own.chain + "\", key = \"" + own.key + "\" }");
    ProxyProcess proxy(without);
    RawClient client(proxy.port());
    EXPECT_EQ(client.Upgrade().status, 503);  // in TLS 1.3 it is told after the handshake only
    EXPECT_EQ(proxy.Metric("sluice_backend_failures_total{reason=\"tls\"}"), 1);
    EXPECT_TRUE(backend.heads().empty());

    proxy.Configure(with);
    ASSERT_EQ(proxy.Ask("POST", "/reload").status, 200);
    const Deadline deadline;
    while (Get(proxy).status != 200) {
      ASSERT_FALSE(deadline.passed());
    }
    EXPECT_TRUE(backend.handshakes().back().client_certificate);
  }
}

TEST_F(BackendTlsTest, ASlowBackendHoldsItsClientUp) {
  RawBackend backend(true);
  ProxyProcess proxy(Config{.backends = {backend.port()}, .pool = Tls()});
  RelayedSession session = OpenTlsSession(proxy, backend, tls, {.small_buffers = true});
  const std::string frame = BuildFrame(kBinary, Pattern(8U << 20U));
  const std::size_t before = proxy.ResidentBytes();
  std::size_t sent = 0;
  while (session.client.HasRoom(Millis(200))) {
    sent += session.client.SendSome(std::string_view(frame).substr(sent));
  }
  EXPECT_LT(sent, frame.size());
  EXPECT_LT(proxy.ResidentBytes(), before + AllowedGrowth(proxy));
  EXPECT_GE(proxy.Metric("sluice_backpressure_pauses_total{side=\"client\"}"), 1);
  std::thread writer([&] { session.client.Send(std::string_view(frame).substr(sent)); });
  const std::string got = session.backend.ReadExactly(frame.size());
  writer.join();
  EXPECT_TRUE(got == frame);
}

TEST_F(BackendTlsTest, ASlowClientHoldsItsBackendUp) {
  RawBackend backend(true);
  ProxyProcess proxy(Config{.backends = {backend.port()}, .pool = Tls()});
  RelayedSession session = OpenTlsSession(proxy, backend, tls, {.small_buffers = true});
  const std::string frame = BackendFrame(kBinary, Pattern(8U << 20U));
  const std::size_t before = proxy.ResidentBytes();
  std::size_t sent = 0;
  while (session.backend.HasRoom(Millis(200))) {
    sent += session.backend.SendSome(std::string_view(frame).substr(sent));
  }
  EXPECT_LT(sent, frame.size());
  EXPECT_LT(proxy.ResidentBytes(), before + AllowedGrowth(proxy));
  EXPECT_GE(proxy.Metric("sluice_backpressure_pauses_total{side=\"backend\"}"), 1);
  std::thread writer([&] { session.backend.Send(std::string_view(frame).substr(sent)); });
  const std::string got = session.client.ReadExactly(frame.size());
  writer.join();
  EXPECT_TRUE(got == frame);
}

TEST_F(BackendTlsTest, KeyUpdatesOfTheBackendAreFollowed) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .pool = Tls()});
  RelayedSession session = OpenTlsSession(proxy, backend, tls);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(SSL_key_update(session.backend.ssl(), SSL_KEY_UPDATE_REQUESTED), 1);
    session.backend.Send(BackendFrame(kText, "after"));
    EXPECT_EQ(session.client.ReadFrame().payload, "after");
    session.client.SendFrame(kText, "answer");
    EXPECT_EQ(session.backend.ReadFrame().payload, "answer");
  }
}

TEST_F(BackendTlsTest, ADrainClosesInOrder) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .pool = Tls()});
  RelayedSession session = OpenTlsSession(proxy, backend, tls);
  proxy.Signal(SIGTERM);
  const Frame close = session.backend.ReadFrame();
  EXPECT_EQ(close.opcode, kClose);
  EXPECT_TRUE(close.masked);
  session.backend.Send(BackendClose(1001));
  EXPECT_EQ(session.client.ReadFrame().close_code(), 1012);
  session.client.Send(ClientClose(1012));
  session.client.FinishWrite();
  EXPECT_EQ(session.backend.AwaitEnd(), StreamEnd::kFin) << "with a close_notify";
  session.backend.FinishWrite();
  EXPECT_EQ(session.client.AwaitEnd(), StreamEnd::kFin);
  EXPECT_EQ(proxy.Wait(), 0);
}

TEST_F(BackendTlsTest, ABackendThatLeavesWithoutCloseNotifyAfterItsCloseDoesNoHarm) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .pool = Tls()});
  RelayedSession session = OpenTlsSession(proxy, backend, tls);
  session.backend.Send(BackendClose(1000));
  ::shutdown(session.backend.fd(), SHUT_WR);
  EXPECT_EQ(session.client.ReadFrame().close_code(), 1000);
  session.client.Send(ClientClose(1000));
  session.client.FinishWrite();
  EXPECT_EQ(session.backend.ReadFrame().close_code(), 1000) << "it is still answered";
  EXPECT_EQ(session.backend.AwaitEnd(), StreamEnd::kFin);
  const json line = proxy.AwaitAccessLog(1).at(0);
  EXPECT_EQ(line["close_code_client"], 1000);
  EXPECT_EQ(line["closed_by"], "backend");
  EXPECT_EQ(proxy.Metric("sluice_backend_failures_total"), 0);
}

TEST_F(BackendTlsTest, AnAnswerUntilTheEndNeedsACloseNotify) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .pool = Tls()});
  for (const bool notify : {true, false}) {
    RawClient client(proxy.port());
    client.Send(kGet);
    Stream peer = backend.Accept();
    peer.AcceptTls(tls);
    static_cast<void>(peer.ReadHead());
    peer.Send("HTTP/1.1 200 OK\r\n\r\nall of it");
    static_cast<void>(client.ReadHead());
    EXPECT_EQ(client.ReadChunk(), "all of it");
    if (notify) {
      peer.FinishWrite();
      EXPECT_EQ(client.ReadChunk(), "") << "the last chunk";
    } else {
      ::shutdown(peer.fd(), SHUT_WR);
      EXPECT_THROW(static_cast<void>(client.ReadChunk()), Failure) << "the answer is cut";
    }
  }
  EXPECT_EQ(proxy.Metric("sluice_backend_failures_total{reason=\"lost\"}"), 1);
}

TEST_F(BackendTlsTest, AReloadExchangesTheAuthorityForNewConnections) {
  EchoBackend backend("echo", &tls);
  Config config{.backends = {backend.port()}, .pool = Tls()};
  ProxyProcess proxy(config);
  RawClient open = ConnectWebSocket(proxy.port());
  const auto await_status = [&](int status) {
    const Deadline deadline;
    while (Get(proxy).status != status) {
      ASSERT_FALSE(deadline.passed());
    }
  };
  config.pool = Tls("", others.ca());
  proxy.Configure(config);
  ASSERT_EQ(proxy.Ask("POST", "/reload").status, 200);
  await_status(503);
  open.SendFrame(kText, "still here");
  EXPECT_EQ(open.ReadFrame().payload, "still here");

  config.pool = Tls("", good.key);  // no certificate in it
  proxy.Configure(config);
  const HttpMessage refused = proxy.Ask("POST", "/reload");
  EXPECT_EQ(refused.status, 422);
  EXPECT_NE(refused.body.find("pool.app.tls.ca: cannot use the CA file"), std::string::npos)
      << refused.body;

  config.pool = Tls();
  proxy.Configure(config);
  ASSERT_EQ(proxy.Ask("POST", "/reload").status, 200);
  await_status(200);
  open.SendFrame(kText, "still here");
  EXPECT_EQ(open.ReadFrame().payload, "still here");
}

TEST_F(BackendTlsTest, TheCheckNamesEveryFileThatIsWrong) {
  const CertificateFiles other = certs.Issue({"other.test"});
  TempDir dir;
  const std::string path = dir.path() + "/sluice.toml";
  Config config{.backends = {1},
                .pool = "tls.ca = \"" + good.key + "\"\ntls.certificate = { chain = \"" +
                        good.chain + "\", key = \"" + other.key + "\" }\ntls.verify = false\n"};
  const std::string text = config.Text();
  std::ofstream(path) << text;
  const auto line = [&](std::string_view key) {
    return path + ":" +
           std::to_string(1 + std::count(text.begin(),
                                         text.begin() + static_cast<std::ptrdiff_t>(text.find(key)),
                                         '\n'));
  };
  ProxyProcess check({"check", "-c", path});
  EXPECT_EQ(check.Wait(), 78);
  const std::string said = check.err();
  EXPECT_NE(said.find(line("tls.ca") + ": pool.app.tls.ca: cannot use the CA file " + good.key),
            std::string::npos)
      << said;
  EXPECT_NE(said.find(line("tls.certificate") + ": pool.app.tls.certificate: the key " + other.key),
            std::string::npos)
      << said;
  EXPECT_NE(said.find(line("tls.verify") + ": pool.app.tls.verify: certificates of these backends"),
            std::string::npos)
      << said;
}

}  // namespace
}  // namespace sluice::test
