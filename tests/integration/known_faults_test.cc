// What has gone wrong in other proxies and WebSocket servers, one test for each, on the whole way
// from a client through the real binary to a backend. docs/HTTP.md has the table, with the tests
// elsewhere that hold the same fault by its single rules.
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include "tests/integration/relayed_session.h"
#include "tests/integration/resumption.h"
#include "tests/support/certificates.h"
#include "tests/support/echo_backend.h"
#include "tests/support/tls_server.h"

namespace sluice::test {
namespace {

constexpr std::string_view kAdmin = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";

// One route, /chat: whatever else is asked for gets 404 from Sluice and reaches nobody.
class KnownFaults : public testing::Test {
 protected:
  // An upgrade that has reached the backend, with `behind` in the same segment as its head.
  Stream BeginUpgrade(RawClient& client, std::string_view behind = {}) {
    client.Send(UpgradeRequest("/chat") + std::string(behind));
    Stream peer = backend.Accept();
    EXPECT_EQ(peer.ReadHead().target, "/chat");
    EXPECT_EQ(peer.unread(), "") << "bytes behind the head";
    return peer;
  }

  RawBackend backend;
  ProxyProcess proxy{Config{.backends = {backend.port()}, .route = "path = \"/chat\"\n"}};
};

// A proxy took the connection for a tunnel as soon as a request had asked for one, so that a
// version which the backend answered with 426 left the client a pipe to it, past every rule.
TEST_F(KnownFaults, UpgradeRefusedWith426IsNotATunnel) {
  RawClient client(proxy.port());
  client.Send(
      "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 7777\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 426) << "Sluice's own";
  EXPECT_FALSE(backend.HasConnection(Millis(0)));

  Stream peer = BeginUpgrade(client, kAdmin);
  peer.Send(
      "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Version: 8\r\nContent-Length: 0\r\n\r\n");
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.status, 426) << "the backend's";
  EXPECT_EQ(answer.Field("Sec-WebSocket-Version"), "8");
  EXPECT_EQ(client.ReadResponse().status, 404) << "the hidden request is one like any other";
  EXPECT_EQ(peer.ReadToEnd(), "");
  client.Send(kAdmin);
  EXPECT_EQ(client.ReadResponse().status, 404) << "and so is the next";
  EXPECT_FALSE(backend.HasConnection(Millis(0)));
}

// Of a backend's 101 only the status was looked at: one that an attacker made some service send was
// enough for a tunnel to it.
TEST_F(KnownFaults, StatusOf101AloneIsNotATunnel) {
  RawClient client(proxy.port());
  Stream peer = BeginUpgrade(client, kAdmin);
  peer.Send("HTTP/1.1 101 Switching Protocols\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 502);
  EXPECT_EQ(peer.ReadToEnd(), "") << "the backend is left, and told nothing";
  EXPECT_EQ(client.ReadResponse().status, 404) << "what was behind is a request";

  // And a POST asks for no tunnel, whatever its fields say.
  client.Send(
      "POST /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 405);
  EXPECT_FALSE(backend.HasConnection(Millis(0)));
}

// What a client sent behind an upgrade went on at once, as if the 101 had been given already.
TEST_F(KnownFaults, BytesBehindAnUpgradeWaitForThe101) {
  RawClient client(proxy.port());
  Stream peer = BeginUpgrade(client, kAdmin);
  client.Send(kAdmin);
  EXPECT_FALSE(peer.HasInput(Millis(50)));
  peer.Send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 404);
  EXPECT_EQ(peer.ReadToEnd(), "");
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(client.ReadResponse().status, 404) << "Sluice's own: there is no such route";
  }
}

// An upgrade with a Content-Length went on over a connection that others used next: its content was
// their request.
TEST_F(KnownFaults, UpgradeWithContentIsRefusedAndItsConnectionServesNobodyElse) {
  for (const std::string& framing : {"Content-Length: " + std::to_string(kAdmin.size()) + "\r\n",
                                     std::string("Transfer-Encoding: chunked\r\n")}) {
    RawClient client(proxy.port());
    client.Send(UpgradeRequest("/chat", framing) + std::string(kAdmin));
    EXPECT_EQ(client.ReadResponse().status, 400);
    client.ExpectEnd();
    EXPECT_FALSE(backend.HasConnection(Millis(0)));
  }
  RawClient client(proxy.port());
  Stream peer = BeginUpgrade(client);
  peer.Send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 401);
  client.Send("GET /chat/next HTTP/1.1\r\nHost: a\r\n\r\n");
  Stream next = backend.Accept();
  EXPECT_EQ(next.ReadRequest().target, "/chat/next") << "over a connection of its own";
  EXPECT_EQ(peer.ReadToEnd(), "") << "one that has seen an upgrade is not used again";
  next.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  EXPECT_EQ(client.ReadResponse().body, "ok");
}

// A 200 with an Upgrade field was taken for success.
TEST_F(KnownFaults, AnAnswerOf200IsNotATunnel) {
  RawClient client(proxy.port());
  Stream peer = BeginUpgrade(client);
  peer.Send(
      "HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nContent-Length: 0\r\n\r\n");
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.status, 200);
  EXPECT_FALSE(answer.Has("Upgrade")) << answer.head;
  EXPECT_EQ(answer.Field("Connection"), "") << answer.head;
  client.Send(kAdmin);
  EXPECT_EQ(client.ReadResponse().status, 404);
  EXPECT_EQ(peer.ReadToEnd(), "");
}

// Frames that came before the answer went to the backend even though it then refused.
TEST_F(KnownFaults, EarlyFramesOfARefusedUpgradeReachNobody) {
  RawClient client(proxy.port());
  Stream peer = BeginUpgrade(client, BuildFrame(kText, "early") + BuildFrame(kBinary, "bird"));
  peer.Send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 403);
  EXPECT_EQ(client.ReadResponse().status, 400) << "a frame is no request";
  client.ExpectEnd();
  EXPECT_EQ(peer.ReadToEnd(), "");
  EXPECT_FALSE(backend.HasConnection(Millis(0)));

  // With a 101 they arrive, once and in order.
  RawClient accepted(proxy.port());
  const std::string early = BuildFrame(kText, "early") + BuildFrame(kBinary, "bird");
  accepted.Send(UpgradeRequest("/chat") + early);
  Stream leg = backend.AcceptWebSocket();
  EXPECT_EQ(accepted.ReadHead().status, 101);
  EXPECT_EQ(leg.ReadExactly(early.size()), early);
  EXPECT_FALSE(leg.HasInput(Millis(20)));
}

// A filter looked for h2c in the first Upgrade line, and the second one had it: behind it the
// client spoke HTTP/2 with the backend, and nobody checked anything.
TEST_F(KnownFaults, H2cInASecondUpgradeLineIsNotForwarded) {
  for (const std::string& fields :
       {std::string("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"),
        std::string("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: websocket\r\n"
                    "upgrade: h2c\r\n"),
        std::string("Connection: Upgrade\r\nConnection: HTTP2-Settings\r\nUpgrade: a\r\n"
                    "Upgrade: h2c\r\n")}) {
    RawClient client(proxy.port());
    client.Send("GET /chat HTTP/1.1\r\nHost: a\r\n" + fields +
                "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n");
    Stream peer = backend.Accept();
    const HttpMessage request = peer.ReadRequest();
    EXPECT_FALSE(request.Has("Upgrade")) << request.head;
    EXPECT_FALSE(request.Has("HTTP2-Settings")) << request.head;
    EXPECT_EQ(request.Field("Connection").find("pgrade"), std::string::npos) << request.head;
    peer.Send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
    EXPECT_EQ(client.ReadResponse().status, 502) << "nor is it believed when the backend says so";
  }
}

// One half of an upgrade went on without the other, and the two ends disagreed on whether there was
// one.
TEST_F(KnownFaults, HalfOfAnUpgradeIsNoneAndIsTakenOff) {
  for (const char* half : {"Connection: Upgrade\r\n", "Upgrade: websocket\r\n",
                           "Connection: close, upgrade\r\n", "Upgrade: websocket, x\r\n"}) {
    RawClient client(proxy.port());
    client.Send(std::string("GET /chat HTTP/1.1\r\nHost: a\r\n"
                            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                            "Sec-WebSocket-Version: 13\r\n") +
                half + "\r\n");
    Stream peer = backend.Accept();
    const HttpMessage request = peer.ReadRequest();
    EXPECT_FALSE(request.Has("Upgrade")) << half;
    EXPECT_EQ(request.Field("Connection").find("pgrade"), std::string::npos) << half;
    peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    EXPECT_EQ(client.ReadResponse().body, "ok");
  }
}

// When one end finished its direction, what was still on its way to it, or from it, was thrown away
// with the connection. Who finishes, and to whom data is under way meanwhile:
struct HalfClose {
  const char* name;
  bool client_finishes;  // else the backend does
  bool data_to_client;   // else to the backend
};

void PrintTo(const HalfClose& one, std::ostream* out) {
  *out << one.name;
}

class HalfClosed : public testing::TestWithParam<HalfClose> {};

TEST_P(HalfClosed, LosesNothingThatIsUnderWay) {
  const HalfClose& one = GetParam();
  RawBackend backend(true);
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RelayedSession s = OpenSession(proxy, backend, {.small_buffers = true});
  std::string data;
  for (unsigned i = 0; i < 6; ++i) {
    data += one.data_to_client ? BackendFrame(kBinary, Pattern(100'000, i))
                               : BuildFrame(kBinary, Pattern(100'000, i));
  }
  Stream& client = s.client;
  Stream& sender = one.data_to_client ? s.backend : client;
  Stream& reader = one.data_to_client ? client : s.backend;
  Stream& finisher = one.client_finishes ? client : s.backend;
  const bool behind_its_data = &finisher == &sender;
  std::jthread writer([&] {
    sender.Send(data);
    if (behind_its_data) {
      sender.FinishWrite();
    }
  });
  // The reader reads nothing yet, and its buffer is small: the rest is everywhere on the way.
  ASSERT_TRUE(reader.HasInput(Millis(10'000)));
  if (!behind_its_data) {
    finisher.FinishWrite();
  }
  if (!one.client_finishes && !one.data_to_client) {
    EXPECT_EQ(client.ReadFrame().close_code(), 1012) << "at once: nothing is before it";
  }
  EXPECT_TRUE(reader.ReadExactly(data.size()) == data);
  writer.join();
  if (one.client_finishes && !one.data_to_client) {
    s.backend.ExpectEnd();
  }
  if (!one.client_finishes && one.data_to_client) {
    EXPECT_EQ(client.ReadFrame().close_code(), 1012) << "behind all that the backend has said";
  }
}

INSTANTIATE_TEST_SUITE_P(Matrix, HalfClosed,
                         testing::Values(HalfClose{"ClientBehindItsData", true, false},
                                         HalfClose{"ClientThatStillReads", true, true},
                                         HalfClose{"BackendBehindItsData", false, true},
                                         HalfClose{"BackendThatStillReads", false, false}),
                         [](const auto& row) { return std::string(row.param.name); });

// A 426 with an Upgrade field was a broken answer to the parser, and the client got a 502.
TEST_F(KnownFaults, RefusalsOfAnUpgradeArriveAsTheyAre) {
  struct Row {
    std::string answer;
    int status;
    const char* field;
    const char* value;
  };
  for (const Row& row :
       {Row{"426 Upgrade Required\r\nUpgrade: websocket, x/2\r\nConnection: Upgrade\r\n", 426,
            "Upgrade", "websocket, x/2"},
        Row{"401 Unauthorized\r\nWWW-Authenticate: Bearer\r\n", 401, "WWW-Authenticate", "Bearer"},
        Row{"302 Found\r\nLocation: /login\r\n", 302, "Location", "/login"}}) {
    RawClient client(proxy.port());
    Stream peer = BeginUpgrade(client);
    peer.Send("HTTP/1.1 " + row.answer + "Content-Length: 3\r\n\r\nwhy");
    const HttpMessage answer = client.ReadResponse();
    EXPECT_EQ(answer.status, row.status);
    EXPECT_EQ(answer.Field(row.field), row.value);
    EXPECT_EQ(answer.body, "why");
  }
}

// Field names without a byte, or with more than a counter could hold, and lengths that were empty
// or signed made one parser skip what another one saw.
TEST_F(KnownFaults, FieldsThatOtherParsersLostAreRefusedOrKept) {
  const std::string head = "POST /chat HTTP/1.1\r\nHost: a\r\n";
  for (const std::string& fields :
       {std::string(": \r\nContent-Length: 34\r\n"), std::string("Content-Length:\r\n"),
        std::string("Content-Length: \r\nContent-Length: 34\r\n"),
        std::string("Content-Length: +1\r\n"), std::string("Content-Length: 1,1\r\n"),
        std::string("Content-Length: 1\r\nContent-Length: 1\r\n"),
        std::string("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
        std::string("X: a\r\n Content-Length: 34\r\n"), std::string("X: a\nContent-Length: 34\r\n"),
        std::string("X: a\0\r\n", 7), std::string("Content-Length : 34\r\n")}) {
    RawClient client(proxy.port());
    client.Send(head + fields + "\r\n" + std::string(kAdmin));
    EXPECT_EQ(client.ReadResponse().status, 400) << fields;
    client.FinishWrite();
    client.ExpectEnd();
  }
  EXPECT_FALSE(backend.HasConnection(Millis(0)));
  EXPECT_EQ(proxy.Metric("sluice_picks_total"), 0);

  // 256 + 14: in a counter of one byte it would be as long as the name that it hides.
  const std::string name = "Content-Length" + std::string(256, 'x');
  RawClient client(proxy.port());
  client.Send(head + name + ": 0\r\nContent-Length: " + std::to_string(kAdmin.size()) + "\r\n\r\n" +
              std::string(kAdmin));
  Stream peer = backend.Accept();
  const HttpMessage request = peer.ReadRequest();
  EXPECT_EQ(request.Field(name), "0");
  EXPECT_EQ(request.body, kAdmin);
}

// Expressions that went back and forth over a list of blanks took seconds for one field.

// User and system time of all threads, to a clock tick.
double CpuSeconds(const ProxyProcess& proxy) {
  std::ifstream file("/proc/" + std::to_string(proxy.pid()) + "/stat");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::istringstream words(text.substr(text.rfind(')') + 1));
  std::vector<std::string> fields{std::istream_iterator<std::string>(words), {}};
  constexpr std::size_t kUser = 11;  // proc(5), counted from the state
  return static_cast<double>(std::stoull(fields.at(kUser)) + std::stoull(fields.at(kUser + 1))) /
         static_cast<double>(::sysconf(_SC_CLK_TCK));
}

TEST_F(KnownFaults, BlanksInListsOfAnUpgradeCostNoTime) {
  std::vector<std::string> requests;
  for (const std::string field : {"Sec-WebSocket-Protocol: ", "Sec-WebSocket-Extensions: "}) {
    for (const std::size_t size : {std::size_t{64} * 1024, std::size_t{30} * 1024}) {
      std::string letters;
      while (letters.size() < size) {
        letters += "b ";
      }
      requests.push_back(UpgradeRequest("/chat", field + letters + "x\r\n"));
      requests.push_back(UpgradeRequest("/chat", field + "b" + std::string(size, ' ') + "x\r\n"));
      requests.push_back(
          UpgradeRequest("/chat", field + "b;" + std::string(size, ' ') + "=\"\r\n"));
    }
  }
  constexpr int kRounds = 10;
  const double before = CpuSeconds(proxy);
  for (int round = 0; round < kRounds; ++round) {
    for (const std::string& request : requests) {
      RawClient client(proxy.port());
      client.Send(request);
      const int status = client.ReadResponse().status;
      EXPECT_TRUE(status == 400 || status == 431) << status << " " << request.size();
    }
  }
  const double used = CpuSeconds(proxy) - before;
  // A connection and its answer included; ten clock ticks are what there is of precision.
  const double most = 0.001 * kRounds * static_cast<double>(requests.size());
  EXPECT_LE(used, IsSanitized(proxy) ? most * 20 : most);
  EXPECT_FALSE(backend.HasConnection(Millis(0)));
}

// More fields than a table had room for ended the process.
TEST_F(KnownFaults, TwoThousandFieldsAreOneRefusal) {
  std::string fields;
  for (int i = 0; i < 2000; ++i) {
    fields += "x" + std::to_string(i) + ": y\r\n";
  }
  RawClient client(proxy.port());
  client.Send(UpgradeRequest("/chat", fields));
  EXPECT_EQ(client.ReadResponse().status, 431);
  client.ExpectEnd();
  EXPECT_FALSE(backend.HasConnection(Millis(0)));
  RawClient other(proxy.port());
  other.Send(kAdmin);
  EXPECT_EQ(other.ReadResponse().status, 404) << "everybody else is served";
}

// An upgrade whose target named a server was connected to that server, past the checks that plain
// requests got.
TEST(KnownFault, UpgradeTargetsThatNameAServerAreRoutedByConfigAlone) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  for (const char* target : {"//169.254.169.254/latest", "/%0d%0aHost:%20b/", "/@127.0.0.1:1/",
                             "/http://127.0.0.1:1/"}) {
    RawClient client(proxy.port());
    client.Send(UpgradeRequest(target));
    HttpMessage request;
    Stream leg = backend.AcceptWebSocket({}, &request);
    EXPECT_EQ(request.target, target) << "as it came";
    EXPECT_EQ(request.Count("Host"), 1U);
    EXPECT_EQ(client.ReadHead().status, 101);
  }
  for (const char* target : {"http://169.254.169.254/", "ws://127.0.0.1/", "http:127.0.0.1",
                             "https://127.0.0.1:1@evil/", "/a\r\nX: y", "/a b"}) {
    RawClient client(proxy.port());
    client.Send(UpgradeRequest(target));
    EXPECT_EQ(client.ReadResponse().status, 400) << target;
    client.FinishWrite();
    static_cast<void>(client.AwaitEnd());
  }
  EXPECT_FALSE(backend.HasConnection(Millis(0)));
}

// Plain bytes that somebody put in front of a backend's TLS were taken for its answer.
TEST(KnownFault, PlainBytesBeforeABackendsTlsAreNoAnswer) {
  TestCerts certs;
  RawBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()},
             .route = "retries = 0",
             .pool = "tls.ca = \"" + certs.ca() + "\"\ntls.server_name = \"b.test\"\n"});
  TlsServer tls{{.certificate = certs.Issue({"b.test"})}};
  RawClient client(proxy.port());
  client.Send("GET /secret HTTP/1.1\r\nHost: a\r\n\r\n");
  Stream peer = backend.Accept();
  peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ninjected");
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.body.find("injected"), std::string::npos);
  peer.Close();

  client.Send("GET /fine HTTP/1.1\r\nHost: a\r\n\r\n");
  Stream next = backend.Accept();
  next.AcceptTls(tls);
  EXPECT_EQ(next.ReadRequest().target, "/fine");
  next.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  EXPECT_EQ(client.ReadResponse().body, "ok");
}

// A session that was agreed on where nobody asks for a certificate was taken up where one is
// required, and stood in for it.
TEST(KnownFault, SessionOfAnOpenListenerIsNoCertificateForAMutualOne) {
  TestCerts certs;
  const CertificateFiles own = certs.Issue({"chat.test"});
  const std::string pair = "{ chain = \"" + own.chain + "\", key = \"" + own.key + "\" }";
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .listener = "tls.certificates = [" + pair +
                                        "]\n[[listener]]\nname = \"mutual\"\n"
                                        "address = \"127.0.0.1:0\"\ntls.client_ca = \"" +
                                        certs.ca() + "\"\ntls.certificates = [" + pair + "]\n"});
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const SslContext context = MakeClientContext(version);
    SslSession session;
    EXPECT_FALSE(Resume(proxy.port(), context.get(), session));
    EXPECT_TRUE(Resume(proxy.port(), context.get(), session)) << "it is a session that works";
    const double served = static_cast<double>(backend.heads().size());
    try {
      EXPECT_FALSE(Resume(proxy.port("mutual"), context.get(), session));
    } catch (const Failure&) {
      // TLS 1.2 says it in the handshake.
    }
    EXPECT_EQ(static_cast<double>(backend.heads().size()), served) << "a request got through";
  }
}

}  // namespace
}  // namespace sluice::test
