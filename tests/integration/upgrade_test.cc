// The upgrade, from the request to the relayed 101: what is refused with which answer, what a
// backend may answer, what comes early, which backend is tried next, who is kept where.
#include <signal.h>
#include <sys/ioctl.h>

#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/certificates.h"
#include "tests/support/echo_backend.h"
#include "tests/support/proxy_process.h"
#include "tests/support/raw_backend.h"
#include "tests/support/raw_client.h"

namespace sluice::test {
namespace {

constexpr std::string_view kGoodFields =
    "Host: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

// An upgrade with one field replaced by `instead`, or left out when that is empty.
std::string With(std::string_view field, std::string_view instead) {
  std::string fields(kGoodFields);
  const std::size_t at = fields.find(std::string(field) + ":");
  fields.replace(at, fields.find("\r\n", at) + 2 - at, instead);
  return "GET / HTTP/1.1\r\n" + fields + "\r\n";
}

std::string WithMore(std::string_view more, std::string_view line = "GET / HTTP/1.1") {
  return std::string(line) + "\r\n" + std::string(kGoodFields) + std::string(more) + "\r\n";
}

std::string ManyFields(std::size_t count) {
  std::string fields;
  for (std::size_t i = 0; i < count; ++i) {
    fields += "x-" + std::to_string(i) + ": y\r\n";
  }
  return fields;
}

// The name of a row of a table.
struct NameOf {
  template <class Row>
  std::string operator()(const testing::TestParamInfo<Row>& row) const {
    return row.param.name;
  }
};

// Refused requests.

enum class After { kClosed, kReusable };

struct RefusedCase {
  const char* name;
  std::string request;
  int status;
  const char* field;  // one that the answer must have
  const char* value;  // its value; null: any
  After after;
};

void PrintTo(const RefusedCase& one, std::ostream* out) {
  *out << one.name;
}

class RefusedUpgrade : public testing::TestWithParam<RefusedCase> {};

TEST_P(RefusedUpgrade, IsAnsweredAndReachesNoBackend) {
  const RefusedCase& one = GetParam();
  EchoBackend backend;
  ProxyProcess proxy(Config{
      .backends = {backend.port()},
      .route = "origins = [\"https://good.example\"]\npath = \"/\"\n",
      .more = "[[route]]\nname = \"plain-only\"\npath = \"/plain\"\npool = \"app\"\nupgrades = "
              "false\n[[route]]\nname = \"hosted\"\nhost = \"only.example\"\npath = \"/h\"\n"
              "pool = \"app\"\n"});
  RawClient client(proxy.port());
  client.Send(one.request);
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.status, one.status) << answer.head << answer.body;
  EXPECT_EQ(answer.Field("Content-Type"), "text/plain; charset=utf-8");
  EXPECT_GT(answer.body.size(), 10U) << "the body says what is wrong";
  if (one.field != nullptr) {
    EXPECT_EQ(answer.Count(one.field), 1U) << one.field << " in " << answer.head;
    if (one.value != nullptr) {
      EXPECT_EQ(answer.Field(one.field), one.value);
    }
  }
  if (one.status == 426) {  // RFC 9110 sections 7.8, 15.5.22
    EXPECT_EQ(answer.Field("Upgrade"), "websocket");
    EXPECT_EQ(answer.Field("Connection"), "Upgrade");
  }
  if (one.after == After::kClosed) {
    EXPECT_EQ(answer.Field("Connection"), "close");
    client.ExpectEnd();
  } else {
    EXPECT_EQ(answer.Field("Connection").find("close"), std::string::npos);
  }
  EXPECT_EQ(proxy.Metric("sluice_picks_total"), 0) << "no backend is even chosen";
  EXPECT_EQ(backend.accepts(), 0U);
  EXPECT_EQ(backend.bytes(), 0U);
  if (one.after == After::kReusable) {
    EXPECT_EQ(client.Upgrade().status, 101) << "the connection takes another request";
  }
}

INSTANTIATE_TEST_SUITE_P(
    RequestTable, RefusedUpgrade,
    testing::Values(
        // RFC 6455 section 4.2.1
        RefusedCase{"Post", WithMore("", "POST / HTTP/1.1"), 405, "Allow", "GET", After::kReusable},
        RefusedCase{"PostWithBody", WithMore("Content-Length: 5\r\n", "POST / HTTP/1.1") + "hello",
                    405, "Allow", "GET", After::kClosed},
        RefusedCase{"Http10", WithMore("Connection: keep-alive\r\n", "GET / HTTP/1.0"), 400,
                    nullptr, nullptr, After::kClosed},
        RefusedCase{"NoHost", With("Host", ""), 400, nullptr, nullptr, After::kClosed},
        RefusedCase{"TwoHosts", WithMore("Host: 127.0.0.1\r\n"), 400, nullptr, nullptr,
                    After::kClosed},
        RefusedCase{"BadHost", With("Host", "Host: a b\r\n"), 400, nullptr, nullptr,
                    After::kClosed},
        // CVE-2026-58055: a body behind an upgrade must not become a request at a backend
        RefusedCase{"Body", WithMore("Content-Length: 5\r\n") + "hello", 400, nullptr, nullptr,
                    After::kClosed},
        RefusedCase{"ChunkedBody", WithMore("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", 400,
                    nullptr, nullptr, After::kClosed},
        RefusedCase{"NoKey", With("Sec-WebSocket-Key", ""), 400, nullptr, nullptr, After::kClosed},
        RefusedCase{"TwoKeys", WithMore("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400,
                    nullptr, nullptr, After::kClosed},
        RefusedCase{"KeyNotBase64",
                    With("Sec-WebSocket-Key", "Sec-WebSocket-Key: not*base64*at*all****==\r\n"),
                    400, nullptr, nullptr, After::kClosed},
        RefusedCase{"KeyOf15Bytes",
                    With("Sec-WebSocket-Key", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA\r\n"), 400,
                    nullptr, nullptr, After::kClosed},
        RefusedCase{"NoVersion", With("Sec-WebSocket-Version", ""), 426, "Sec-WebSocket-Version",
                    "13", After::kReusable},
        // websocket-smuggle 1: a version that a backend refuses must not open a tunnel
        RefusedCase{"Version7777", With("Sec-WebSocket-Version", "Sec-WebSocket-Version: 7777\r\n"),
                    426, "Sec-WebSocket-Version", "13", After::kReusable},
        RefusedCase{"Version8", With("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8\r\n"), 426,
                    "Sec-WebSocket-Version", "13", After::kReusable},
        // Cross-site WebSocket hijacking (RFC 6455 section 10.2)
        RefusedCase{"OriginNotListed", WithMore("Origin: https://evil.example\r\n"), 403, nullptr,
                    nullptr, After::kReusable},
        RefusedCase{"OriginNull", WithMore("Origin: null\r\n"), 403, nullptr, nullptr,
                    After::kReusable},
        RefusedCase{"AsteriskTarget", WithMore("", "GET * HTTP/1.1"), 400, nullptr, nullptr,
                    After::kClosed},
        RefusedCase{"RouteNotForUpgrades", WithMore("", "GET /plain/x HTTP/1.1"), 403, nullptr,
                    nullptr, After::kReusable},
        RefusedCase{"HeadTooLarge", WithMore("x: " + std::string(33 * 1024, 'a') + "\r\n"), 431,
                    nullptr, nullptr, After::kClosed},
        RefusedCase{"TooManyFields", WithMore(ManyFields(96)), 431, nullptr, nullptr,
                    After::kClosed},
        RefusedCase{"TwoThousandFields", WithMore(ManyFields(2000)), 431, nullptr, nullptr,
                    After::kClosed},
        RefusedCase{"RequestLineTooLong",
                    WithMore("", "GET /" + std::string(9 * 1024, 'a') + " HTTP/1.1"), 414, nullptr,
                    nullptr, After::kClosed},
        // Headers whose regular expressions have hung other servers
        RefusedCase{"ProtocolOf64KiB",
                    WithMore("Sec-WebSocket-Protocol: b" + std::string(64 * 1024, ' ') + "x\r\n"),
                    431, nullptr, nullptr, After::kClosed},
        RefusedCase{"ProtocolOfSpaces",
                    WithMore("Sec-WebSocket-Protocol: b" + std::string(30 * 1024, ' ') + "x\r\n"),
                    400, nullptr, nullptr, After::kClosed},
        RefusedCase{"ExtensionsOfSpaces",
                    WithMore("Sec-WebSocket-Extensions: b" + std::string(30 * 1024, ' ') + "x\r\n"),
                    400, nullptr, nullptr, After::kClosed},
        RefusedCase{"ProtocolNotAToken", WithMore("Sec-WebSocket-Protocol: a b\r\n"), 400, nullptr,
                    nullptr, After::kClosed},
        RefusedCase{"ExtensionMalformed",
                    WithMore("Sec-WebSocket-Extensions: permessage-deflate; =1\r\n"), 400, nullptr,
                    nullptr, After::kClosed},
        // Targets that name another server
        RefusedCase{"AbsoluteFormOfAnotherHost",
                    WithMore("", "GET http://169.254.169.254/ HTTP/1.1"), 400, nullptr, nullptr,
                    After::kClosed},
        RefusedCase{"AbsoluteFormOfAnotherScheme", WithMore("", "GET gopher://127.0.0.1/ HTTP/1.1"),
                    400, nullptr, nullptr, After::kClosed},
        RefusedCase{"CrInTarget", WithMore("", "GET /a\rb HTTP/1.1"), 400, nullptr, nullptr,
                    After::kClosed},
        RefusedCase{"ConnectMethod", WithMore("", "CONNECT 127.0.0.1:80 HTTP/1.1"), 405, "Allow",
                    nullptr, After::kReusable},
        // RFC 9112 sections 2.2, 5
        RefusedCase{"BareLf", "GET / HTTP/1.1\n" + std::string(kGoodFields) + "\r\n", 400, nullptr,
                    nullptr, After::kClosed},
        RefusedCase{"NulByte", WithMore(std::string("x: a\0b\r\n", 8)), 400, nullptr, nullptr,
                    After::kClosed},
        RefusedCase{"ControlByte", WithMore("x: a\x01z\r\n"), 400, nullptr, nullptr,
                    After::kClosed},
        RefusedCase{"ObsFold", WithMore("x: a\r\n b\r\n"), 400, nullptr, nullptr, After::kClosed},
        RefusedCase{"SpaceBeforeColon", WithMore("x : a\r\n"), 400, nullptr, nullptr,
                    After::kClosed},
        RefusedCase{"EmptyName", WithMore(": a\r\n"), 400, nullptr, nullptr, After::kClosed},
        RefusedCase{"EmptyContentLength", WithMore("Content-Length:\r\n"), 400, nullptr, nullptr,
                    After::kClosed},
        RefusedCase{"SignedContentLength", WithMore("Content-Length: +1\r\n"), 400, nullptr,
                    nullptr, After::kClosed},
        RefusedCase{"ListOfContentLengths", WithMore("Content-Length: 1, 1\r\n"), 400, nullptr,
                    nullptr, After::kClosed},
        RefusedCase{"TwoContentLengths", WithMore("Content-Length: 0\r\nContent-Length: 0\r\n"),
                    400, nullptr, nullptr, After::kClosed},
        RefusedCase{"LengthAndEncoding",
                    WithMore("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400, nullptr,
                    nullptr, After::kClosed}),
    NameOf());

class UpgradeTest : public testing::Test {};

TEST_F(UpgradeTest, UnknownHostOrPathIs404) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .route = "host = \"chat.example\"\npath = \"/socket\"\n"});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest("/socket", "", "other.example"));
  EXPECT_EQ(client.ReadResponse().status, 404);
  client.Send(UpgradeRequest("/sockets", "", "chat.example"));
  EXPECT_EQ(client.ReadResponse().status, 404);
  EXPECT_EQ(backend.accepts(), 0U);
  client.Send(UpgradeRequest("/socket/deeper", "", "CHAT.example:80"));
  EXPECT_EQ(client.ReadResponse().status, 101);
}

TEST_F(UpgradeTest, ListedOriginAndAbsentOriginAreTaken) {
  EchoBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .route = "origins = [\"https://good.example\"]\n"});
  ConnectWebSocket(proxy.port(), "/", "Origin: https://good.example\r\n");
  ConnectWebSocket(proxy.port());
  EXPECT_EQ(proxy.Metric("sluice_upgrades_total{outcome=\"origin_denied\"}"), 0);
  EXPECT_EQ(backend.accepts(), 2U);
}

TEST_F(UpgradeTest, RequiredOriginMustBeThere) {
  EchoBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()},
             .route = "origins = [\"https://good.example\"]\nrequire_origin = true\n"});
  RawClient client(proxy.port());
  EXPECT_EQ(client.Upgrade().status, 403);
  EXPECT_EQ(backend.accepts(), 0U);
}

TEST_F(UpgradeTest, ContentLengthOfZeroIsNoBody) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client = ConnectWebSocket(proxy.port(), "/", "Content-Length: 0\r\n");
  client.SendFrame(kText, "hi");
  EXPECT_EQ(client.ReadFrame().payload, "hi");
}

// Requests that ask for something else than a WebSocket are plain HTTP without the asking.

struct StrippedCase {
  const char* name;
  const char* fields;
};

void PrintTo(const StrippedCase& one, std::ostream* out) {
  *out << one.name;
}

class StrippedUpgrade : public testing::TestWithParam<StrippedCase> {};

TEST_P(StrippedUpgrade, IsForwardedAsPlainHttp) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send(std::string("GET /x HTTP/1.1\r\nHost: a\r\n") + GetParam().fields + "\r\n");
  Stream peer = backend.Accept();
  const HttpMessage request = peer.ReadRequest();
  EXPECT_FALSE(request.Has("Upgrade")) << request.head;
  EXPECT_FALSE(request.Has("Connection")) << request.head;
  EXPECT_FALSE(request.Has("HTTP2-Settings")) << request.head;
  peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  EXPECT_EQ(client.ReadResponse().body, "ok");
}

INSTANTIATE_TEST_SUITE_P(
    RequestTable, StrippedUpgrade,
    testing::Values(
        // HAProxy 3843f48fa: one of the two without the other
        StrippedCase{"UpgradeWithoutConnection", "Upgrade: websocket\r\n"},
        StrippedCase{"ConnectionWithoutUpgrade", "Connection: upgrade\r\n"},
        StrippedCase{"ConnectionOfAnotherToken", "Upgrade: websocket\r\nConnection: x\r\n"},
        // h2c smuggling, also split over two lines
        StrippedCase{"H2c",
                     "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                     "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"},
        StrippedCase{"H2cBehindWebSocket",
                     "Upgrade: websocket\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"},
        StrippedCase{"H2cBeforeWebSocket",
                     "Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"},
        StrippedCase{"H2cInOneList", "Upgrade: websocket, h2c\r\nConnection: Upgrade\r\n"},
        StrippedCase{"WebSocketWithVersion", "Upgrade: websocket/13\r\nConnection: Upgrade\r\n"},
        StrippedCase{"TlsUpgrade", "Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n"}),
    NameOf());

// A backend's 101 that does not hold.

struct Bad101Case {
  const char* name;
  std::string answer;
};

void PrintTo(const Bad101Case& one, std::ostream* out) {
  *out << one.name;
}

std::string Answer101(std::string_view fields) {
  return "HTTP/1.1 101 Switching Protocols\r\n" + std::string(fields) + "\r\n";
}

const std::string kUp = "Upgrade: websocket\r\n";
const std::string kConnectionUp = "Connection: Upgrade\r\n";
const std::string kAccept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

class Bad101 : public testing::TestWithParam<Bad101Case> {};

TEST_P(Bad101, IsA502AndClosesTheBackend) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest("/", "Sec-WebSocket-Protocol: chat, mqtt\r\n"));
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadHead());
  peer.Send(GetParam().answer);
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.status, 502);
  EXPECT_GT(answer.body.size(), 10U);
  peer.AwaitEnd();
  EXPECT_FALSE(backend.HasConnection(Millis(0))) << "a broken answer is not asked for again";
  proxy.AwaitMetric("sluice_upgrades_total{outcome=\"backend_error\"}", 1);
  proxy.AwaitMetric("sluice_backend_failures_total{reason=\"bad_answer\"}", 1);
}

INSTANTIATE_TEST_SUITE_P(
    ResponseTable, Bad101,
    testing::Values(
        // websocket-smuggle 2: the status alone proves nothing
        Bad101Case{"StatusAlone", Answer101("")},
        Bad101Case{"NoAccept", Answer101(kUp + kConnectionUp)},
        Bad101Case{"WrongAccept",
                   Answer101(kUp + kConnectionUp +
                             "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n")},
        Bad101Case{"TwoAccepts", Answer101(kUp + kConnectionUp + kAccept + kAccept)},
        Bad101Case{"NoUpgrade", Answer101(kConnectionUp + kAccept)},
        Bad101Case{"UpgradeToH2c", Answer101("Upgrade: h2c\r\n" + kConnectionUp + kAccept)},
        Bad101Case{"NoConnection", Answer101(kUp + kAccept)},
        Bad101Case{"UnofferedProtocol",
                   Answer101(kUp + kConnectionUp + kAccept + "Sec-WebSocket-Protocol: soap\r\n")},
        Bad101Case{"UnofferedExtension", Answer101(kUp + kConnectionUp + kAccept +
                                                   "Sec-WebSocket-Extensions: "
                                                   "permessage-deflate\r\n")},
        Bad101Case{"Body",
                   Answer101(kUp + kConnectionUp + kAccept + "Content-Length: 5\r\n") + "hello"},
        Bad101Case{"BareLf",
                   "HTTP/1.1 101 Switching Protocols\n" + kUp + kConnectionUp + kAccept + "\r\n"},
        Bad101Case{"NotHttp", "SSH-2.0-OpenSSH_9.2\r\n\r\n"}),
    NameOf());

TEST_F(UpgradeTest, OfferedProtocolAndExtensionComeBack) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest("/",
                             "Sec-WebSocket-Protocol: chat, mqtt\r\n"
                             "Sec-WebSocket-Extensions: permessage-deflate; "
                             "client_max_window_bits\r\n"));
  HttpMessage request;
  Stream peer = backend.AcceptWebSocket(
      "Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Extensions: permessage-deflate\r\n", &request);
  EXPECT_EQ(request.Field("Sec-WebSocket-Protocol"), "chat, mqtt");
  EXPECT_EQ(request.Field("Sec-WebSocket-Key"), kKey);
  EXPECT_EQ(request.Field("Upgrade"), "websocket");
  EXPECT_EQ(request.Field("Connection"), "Upgrade");
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.status, 101);
  EXPECT_EQ(answer.Field("Sec-WebSocket-Protocol"), "mqtt");
  EXPECT_EQ(answer.Field("Sec-WebSocket-Extensions"), "permessage-deflate");
  EXPECT_EQ(answer.Field("Sec-WebSocket-Accept"), AcceptFor(kKey));
  // RSV1 is legal now, and the frame arrives as it was.
  client.SendFrame(kText, "squeezed", {.rsv = 4});
  const Frame frame = peer.ReadFrame();
  EXPECT_EQ(frame.rsv, 4);
  EXPECT_EQ(frame.payload, "squeezed");
}

// CVE-2026-1527 and relatives: a 101 that nobody asked for opens nothing.
TEST_F(UpgradeTest, Unasked101ToPlainGetIs502) {
  for (const char* request : {"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                              "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"}) {
    RawBackend backend;
    ProxyProcess proxy(Config{.backends = {backend.port()}});
    RawClient client(proxy.port());
    client.Send(request);
    Stream peer = backend.Accept();
    static_cast<void>(peer.ReadRequest());
    peer.Send(SwitchingProtocols(kKey) + BuildFrame(kText, "smuggled", {.masked = false}));
    EXPECT_EQ(client.ReadResponse().status, 502);
    peer.AwaitEnd();
  }
}

// Answers other than 101 are plain HTTP (HAProxy 5f36bfe42; websocket-smuggle 1; CVE-2024-23326).

struct OtherAnswerCase {
  const char* name;
  const char* answer;
  int status;
  const char* field;
  const char* value;
  const char* body;
};

void PrintTo(const OtherAnswerCase& one, std::ostream* out) {
  *out << one.name;
}

class OtherAnswer : public testing::TestWithParam<OtherAnswerCase> {};

TEST_P(OtherAnswer, IsRelayedAndOpensNoTunnel) {
  const OtherAnswerCase& one = GetParam();
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest("/first"));
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadHead());
  peer.Send(one.answer);
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.status, one.status);
  EXPECT_EQ(answer.Field(one.field), one.value) << answer.head;
  EXPECT_EQ(answer.body, one.body);
  peer.AwaitEnd();
  proxy.AwaitMetric("sluice_upgrades_total{outcome=\"backend_refused\"}", 1);

  // The next bytes are a request: checked, routed, on a connection of its own.
  client.Send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
  Stream next = backend.Accept();
  EXPECT_EQ(next.ReadRequest().target, "/second");
  next.Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext");
  EXPECT_EQ(client.ReadResponse().body, "next");
}

INSTANTIATE_TEST_SUITE_P(
    ResponseTable, OtherAnswer,
    testing::Values(
        OtherAnswerCase{"UpgradeRequired",
                        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Version: 8\r\n"
                        "Content-Length: 4\r\n\r\nno 7",
                        426, "Sec-WebSocket-Version", "8", "no 7"},
        OtherAnswerCase{"UpgradeRequiredKeepsUpgrade",
                        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nContent-Length: 0\r\n\r\n",
                        426, "Upgrade", "websocket", ""},
        OtherAnswerCase{"Unauthorized",
                        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\n"
                        "Content-Length: 5\r\n\r\nlogin",
                        401, "WWW-Authenticate", "Basic realm=\"x\"", "login"},
        OtherAnswerCase{"Found",
                        "HTTP/1.1 302 Found\r\nLocation: https://else.example/\r\n"
                        "Content-Length: 0\r\n\r\n",
                        302, "Location", "https://else.example/", ""},
        OtherAnswerCase{"OkWithUpgrade",
                        "HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Content-Length: 2\r\n\r\nok",
                        200, "Upgrade", "", "ok"},
        OtherAnswerCase{"ServerError",
                        "HTTP/1.1 500 Internal Server Error\r\nX-Why: bug\r\n"
                        "Transfer-Encoding: chunked\r\n\r\n3\r\nbug\r\n0\r\n\r\n",
                        500, "X-Why", "bug", "bug"}),
    NameOf());

// CVE-2026-2833: what follows an upgrade is not passed through before the 101, and if none comes it
// is a request like any other, with every check.
TEST_F(UpgradeTest, PipelinedRequestIsHeldAndCheckedWhenTheUpgradeFails) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .route = "path = \"/chat\"\n"});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest("/chat") + "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n");
  Stream peer = backend.Accept();
  EXPECT_EQ(peer.ReadHead().target, "/chat");
  EXPECT_EQ(peer.unread(), "") << "bytes behind the head before the 101";
  peer.Send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 401);
  EXPECT_EQ(client.ReadResponse().status, 404) << "/admin has no route";
  EXPECT_EQ(peer.ReadToEnd(), "") << "nothing of it may reach the backend";
  EXPECT_FALSE(backend.HasConnection(Millis(0)));
}

// Early data.

// Bytes that wait in the kernel to be read by the proxy on the connection from `client_port`.
std::size_t UnreadByProxy(std::uint16_t proxy_port, std::uint16_t client_port) {
  std::ifstream table("/proc/net/tcp");
  std::string line;
  std::getline(table, line);
  while (std::getline(table, line)) {
    unsigned local = 0;
    unsigned remote = 0;
    unsigned unread = 0;
    if (std::sscanf(line.c_str(), " %*d: %*x:%x %*x:%x %*x %*x:%x", &local, &remote, &unread) ==
            3 &&
        local == proxy_port && remote == client_port) {
      return unread;
    }
  }
  throw Failure("the proxy has no such connection");
}

TEST_F(UpgradeTest, EarlyDataIsHeldUpTo16KiBAndDeliveredOnceAfterThe101) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  std::string early;
  for (int i = 0; i < 48; ++i) {
    early += BuildFrame(kBinary, std::string(1000, static_cast<char>('A' + i)));
  }
  client.Send(UpgradeRequest());
  client.Send(early);
  Stream peer = backend.Accept();
  const HttpMessage request = peer.ReadHead();
  const Deadline deadline;
  constexpr std::size_t kHeld = 16 * 1024;
  while (UnreadByProxy(proxy.port(), client.local_port()) != early.size() - kHeld) {
    ASSERT_FALSE(deadline.passed())
        << "unread: " << UnreadByProxy(proxy.port(), client.local_port());
  }
  EXPECT_EQ(peer.unread(), "");
  EXPECT_FALSE(peer.HasInput(Millis(50))) << "nothing goes on before the 101";
  EXPECT_EQ(UnreadByProxy(proxy.port(), client.local_port()), early.size() - kHeld)
      << "beyond the bound the client is not read";
  peer.Send(SwitchingProtocols(request.Field("Sec-WebSocket-Key")));
  EXPECT_EQ(client.ReadResponse().status, 101);
  EXPECT_EQ(peer.ReadExactly(early.size()), early);
  client.SendFrame(kText, "later");
  EXPECT_EQ(peer.ReadFrame().payload, "later");
}

TEST_F(UpgradeTest, BytesGluedToTheBackends101AreDeliveredAfterIt) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  Stream peer = backend.Accept();
  const HttpMessage request = peer.ReadHead();
  const std::string frames = BuildFrame(kText, "welcome", {.masked = false}) +
                             BuildFrame(kBinary, std::string(20'000, 'b'), {.masked = false});
  peer.Send(SwitchingProtocols(request.Field("Sec-WebSocket-Key")) + frames);
  EXPECT_EQ(client.ReadHead().status, 101);
  EXPECT_EQ(client.ReadExactly(frames.size()), frames);
}

TEST_F(UpgradeTest, EarlyDataOfBothSidesCrosses) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest() + BuildFrame(kText, "from client"));
  Stream peer = backend.Accept();
  const HttpMessage request = peer.ReadHead();
  peer.Send(SwitchingProtocols(request.Field("Sec-WebSocket-Key")) +
            BuildFrame(kText, "from backend", {.masked = false}));
  EXPECT_EQ(client.ReadHead().status, 101);
  EXPECT_EQ(client.ReadFrame().payload, "from backend");
  EXPECT_EQ(peer.ReadFrame().payload, "from client");
}

// HAProxy 3cf4e7afb: what a backend sent before it left still arrives.
TEST_F(UpgradeTest, BackendThatLeavesRightAfterThe101LosesNothing) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  Stream peer = backend.Accept();
  const HttpMessage request = peer.ReadHead();
  const std::string frame = BuildFrame(kBinary, std::string(200'000, 'z'), {.masked = false});
  peer.Send(SwitchingProtocols(request.Field("Sec-WebSocket-Key")) + frame);
  peer.Close();
  EXPECT_EQ(client.ReadHead().status, 101);
  EXPECT_EQ(client.ReadExactly(frame.size()), frame);
  const Frame close = client.ReadFrame();
  EXPECT_EQ(close.opcode, kClose);
  EXPECT_EQ(close.close_code(), 1012);
}

struct LengthCase {
  const char* name;
  std::string header;
  std::uint16_t code;
};

void PrintTo(const LengthCase& one, std::ostream* out) {
  *out << one.name;
}

class EarlyLength : public testing::TestWithParam<LengthCase> {};

// CVE-2020-27813, CVE-2026-1528: lengths that overflow, right behind the upgrade.
TEST_P(EarlyLength, IsClosedWithoutBeingAllocated) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  const std::size_t before = proxy.ResidentBytes();
  RawClient client(proxy.port());
  client.Send(UpgradeRequest() + GetParam().header + "mask");
  Stream peer = backend.AcceptWebSocket();
  EXPECT_EQ(client.ReadHead().status, 101);
  EXPECT_EQ(peer.ReadFrame().opcode, kClose);
  peer.SendFrame(kClose, ClosePayload(1000), {.masked = false});
  const Frame to_client = client.ReadFrame();
  EXPECT_EQ(to_client.opcode, kClose);
  EXPECT_EQ(to_client.close_code(), GetParam().code);
  EXPECT_LT(proxy.ResidentBytes(), before + (32U << 20));
}

INSTANTIATE_TEST_SUITE_P(
    FrameLengths, EarlyLength,
    testing::Values(LengthCase{"TopBitSet", BuildHeader(0x82, true, 1ULL << 63, 8), 1002},
                    LengthCase{"Largest63Bit", BuildHeader(0x82, true, (1ULL << 63) - 1, 8), 1009},
                    LengthCase{"FourGiB", BuildHeader(0x82, true, 1ULL << 32, 8), 1009},
                    LengthCase{"NotMinimal16", BuildHeader(0x82, true, 5, 2), 1002},
                    LengthCase{"NotMinimal64", BuildHeader(0x82, true, 65'535, 8), 1002}),
    NameOf());

// CVE-2025-10148: a mask that a client can foresee lets it write to the backend through us.
TEST_F(UpgradeTest, OurFramesToBackendsCarryFreshMasks) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  std::vector<RawClient> clients;
  std::vector<Stream> peers;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back(proxy.port());
    clients.back().Send(UpgradeRequest());
    peers.push_back(backend.AcceptWebSocket());
    ASSERT_EQ(clients.back().ReadHead().status, 101);
  }
  proxy.Signal(SIGTERM);
  std::set<std::string> masks;
  for (Stream& peer : peers) {
    const Frame close = peer.ReadFrame();
    EXPECT_EQ(close.opcode, kClose);
    EXPECT_EQ(close.close_code(), 1001);
    EXPECT_TRUE(close.masked);
    masks.insert(close.mask);
  }
  EXPECT_EQ(masks.size(), peers.size());
}

// Time.

TEST_F(UpgradeTest, HeadThatDribblesPastItsTimeIs408) {
  EchoBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .server = "header_timeout = \"300ms\"\n"});
  RawClient client(proxy.port());
  client.Send("GET / HTTP/1.1\r\nHost: a\r\nx: ");
  const Deadline deadline;
  while (!client.HasInput(Millis(20)) && !deadline.passed()) {
    client.Send("y");  // progress does not buy time
  }
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.status, 408);
  EXPECT_EQ(answer.Field("Connection"), "close");
  client.FinishWrite();
  client.ExpectEnd();
  EXPECT_EQ(backend.accepts(), 0U);
}

TEST_F(UpgradeTest, ConnectionThatSendsNothingIsClosedWithoutAnAnswer) {
  EchoBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .server = "header_timeout = \"100ms\"\n"});
  RawClient client(proxy.port());
  client.ExpectEnd();
}

TEST_F(UpgradeTest, WholeHandshakeArrivesOneByteAtATimeInBothDirections) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.SendDribble(UpgradeRequest("/slow?x=1"));
  Stream peer = backend.Accept();
  const HttpMessage request = peer.ReadHead();
  EXPECT_EQ(request.target, "/slow?x=1");
  peer.SendDribble(SwitchingProtocols(request.Field("Sec-WebSocket-Key")) +
                   BuildFrame(kText, "drop by drop", {.masked = false}));
  EXPECT_EQ(client.ReadHead().status, 101);
  EXPECT_EQ(client.ReadFrame().payload, "drop by drop");
  client.SendDribble(BuildFrame(kText, "and back"));
  EXPECT_EQ(peer.ReadFrame().payload, "and back");
}

TEST_F(UpgradeTest, BackendThatNeverAnswersIs504) {
  RawBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .route = "handshake_timeout = \"200ms\"\n"});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  Stream peer = backend.Accept();
  EXPECT_EQ(client.ReadResponse().status, 504);
  peer.AwaitEnd();
  proxy.AwaitMetric("sluice_upgrades_total{outcome=\"timeout\"}", 1);
}

// A backend that sends its 101 byte by byte may not stretch the handshake either.
TEST_F(UpgradeTest, BackendThatDribblesPastTheHandshakeTimeIs504) {
  RawBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .route = "handshake_timeout = \"300ms\"\n"});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  Stream peer = backend.Accept();
  peer.Send("HTTP/1.1 101 Switching Protocols\r\nx: ");
  const Deadline deadline;
  while (!client.HasInput(Millis(20)) && !deadline.passed()) {
    peer.Send("y");
  }
  EXPECT_EQ(client.ReadResponse().status, 504);
}

TEST_F(UpgradeTest, ClientThatLeavesBeforeThe101FreesTheBackend) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadHead());
  client.Reset();
  peer.AwaitEnd();
  proxy.AwaitMetric("sluice_upgrades_total{outcome=\"client_gone\"}", 1);
  proxy.AwaitMetric("sluice_connections_open", 0);
  EXPECT_EQ(proxy.AwaitAccessLog(1).at(0)["reason"], "client_gone");
}

// The limit for all of an upgrade holds while it still connects, too.
TEST_F(UpgradeTest, BackendThatIsSilentPastTheHandshakeTimeIs504) {
  SilentPort silent;
  ProxyProcess proxy(Config{.backends = {silent.port()},
                            .route = "handshake_timeout = \"200ms\"\n",
                            .pool = "connect_timeout = \"60s\"\n"});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  EXPECT_EQ(client.ReadResponse().status, 504);
  proxy.AwaitMetric("sluice_upgrades_total{outcome=\"timeout\"}", 1);
}

TEST_F(UpgradeTest, ConnectThatTakesTooLongGoesToTheNextCandidate) {
  SilentPort silent;
  EchoBackend good;
  ProxyProcess proxy(Config{.backends = {silent.port(), good.port()},
                            .route = "affinity = [\"header:x-user\"]\n",
                            .pool = "bounded_load = 0.0\nconnect_timeout = \"200ms\"\n"});
  constexpr int kClients = 8;
  std::vector<RawClient> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back(proxy.port())
        .Send(UpgradeRequest("/", "x-user: " + std::to_string(i) + "\r\n"));
  }
  for (RawClient& client : clients) {
    EXPECT_EQ(client.ReadHead().status, 101);
  }
  EXPECT_EQ(good.accepts(), static_cast<std::size_t>(kClients));
  // Of 8 keys some have the silent one as their first choice.
  EXPECT_GT(proxy.Metric("sluice_backend_failures_total{reason=\"timeout\"}"), 0);
}

TEST_F(UpgradeTest, NoBackendThatAnswersAConnectIs503) {
  SilentPort silent;
  ProxyProcess proxy(Config{.backends = {silent.port()}, .pool = "connect_timeout = \"100ms\"\n"});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  EXPECT_EQ(client.ReadResponse().status, 503);
  proxy.AwaitMetric("sluice_backend_failures_total{reason=\"timeout\"}", 1);
}

// Retries.

TEST_F(UpgradeTest, RefusedConnectGoesToTheNextCandidate) {
  ClosedPort closed_1;
  ClosedPort closed_2;
  EchoBackend good;
  ProxyProcess proxy(Config{.backends = {closed_1.port(), closed_2.port(), good.port()},
                            .route = "affinity = [\"header:x-user\"]\n",
                            .pool = "bounded_load = 0.0\n"});
  constexpr int kClients = 12;
  for (int i = 0; i < kClients; ++i) {
    ConnectWebSocket(proxy.port(), "/", "x-user: " + std::to_string(i) + "\r\n");
  }
  proxy.AwaitMetric("sluice_upgrades_total{outcome=\"accepted\"}", kClients);
  EXPECT_EQ(good.accepts(), static_cast<std::size_t>(kClients));
  // Of 12 keys some have a closed one as their first choice.
  proxy.AwaitMetricAtLeast("sluice_backend_retries_total", 1);
  proxy.AwaitMetricAtLeast("sluice_backend_failures_total{reason=\"refused\"}", 1);
}

TEST_F(UpgradeTest, AllBackendsDownIs503WithRetryAfter) {
  ClosedPort closed_1;
  ClosedPort closed_2;
  ProxyProcess proxy(Config{.backends = {closed_1.port(), closed_2.port()}});
  RawClient client(proxy.port());
  const HttpMessage answer = client.Upgrade();
  EXPECT_EQ(answer.status, 503);
  EXPECT_GE(std::stoi(answer.Field("Retry-After")), 1);
  EXPECT_LE(std::stoi(answer.Field("Retry-After")), 60);
  proxy.AwaitMetric("sluice_upgrades_total{outcome=\"no_backend\"}", 1);
  client.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  const HttpMessage plain = client.ReadResponse();
  EXPECT_EQ(plain.status, 503);
  EXPECT_TRUE(plain.Has("Retry-After"));
}

TEST_F(UpgradeTest, RetriesAreBounded) {
  ClosedPort closed;
  EchoBackend good;
  ProxyProcess proxy(Config{.backends = {closed.port(), good.port()},
                            .route = "retries = 0\naffinity = [\"header:x-user\"]\n",
                            .pool = "bounded_load = 0.0\n"});
  int refused = 0;
  for (int i = 0; i < 12; ++i) {
    RawClient client(proxy.port());
    refused += client.Upgrade("/", "x-user: " + std::to_string(i) + "\r\n").status == 503 ? 1 : 0;
  }
  EXPECT_GT(refused, 0);
  EXPECT_LT(refused, 12);
  EXPECT_EQ(proxy.Metric("sluice_backend_retries_total"), 0);
}

struct RetryCase {
  const char* name;
  std::function<void(Stream&)> fail;
};

void PrintTo(const RetryCase& one, std::ostream* out) {
  *out << one.name;
}

class RetriedUpgrade : public testing::TestWithParam<RetryCase> {};

TEST_P(RetriedUpgrade, IsTriedAtTheNextCandidate) {
  RawBackend a;
  RawBackend b;
  ProxyProcess proxy(Config{.backends = {a.port(), b.port()}});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest("/again", "X-Request-Id: r-1\r\n") + BuildFrame(kText, "early"));
  const bool a_first = AwaitAny({&a, &b}) == 0;
  RawBackend& first = a_first ? a : b;
  RawBackend& second = a_first ? b : a;
  Stream failing = first.Accept();
  const HttpMessage sent = failing.ReadHead();
  GetParam().fail(failing);
  HttpMessage again;
  Stream peer = second.AcceptWebSocket("", &again);
  EXPECT_EQ(again.head, sent.head) << "the same request is replayed";
  EXPECT_EQ(client.ReadHead().status, 101);
  EXPECT_EQ(peer.ReadFrame().payload, "early") << "what came early is not lost with the first";
  proxy.AwaitMetric("sluice_backend_retries_total", 1);
}

INSTANTIATE_TEST_SUITE_P(BeforeThe101, RetriedUpgrade,
                         testing::Values(RetryCase{"ServiceUnavailable",
                                                   [](Stream& peer) {
                                                     peer.Send(
                                                         "HTTP/1.1 503 Service Unavailable\r\n"
                                                         "Content-Length: 4\r\n\r\nbusy");
                                                   }},
                                         RetryCase{"BadGateway",
                                                   [](Stream& peer) {
                                                     peer.Send(
                                                         "HTTP/1.1 502 Bad Gateway\r\n"
                                                         "Content-Length: 0\r\n\r\n");
                                                   }},
                                         RetryCase{"GatewayTimeout",
                                                   [](Stream& peer) {
                                                     peer.Send(
                                                         "HTTP/1.1 504 Gateway Timeout\r\n"
                                                         "Content-Length: 0\r\n\r\n");
                                                   }},
                                         RetryCase{"Reset", [](Stream& peer) { peer.Reset(); }},
                                         RetryCase{"Fin", [](Stream& peer) { peer.Close(); }},
                                         RetryCase{"HalfAHead",
                                                   [](Stream& peer) {
                                                     peer.Send("HTTP/1.1 101 Switching");
                                                     peer.Close();
                                                   }}),
                         NameOf());

TEST_F(UpgradeTest, LastUnavailableAnswerIsRelayed) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadHead());
  peer.Send("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy");
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.Field("Retry-After"), "7");
  EXPECT_EQ(answer.body, "busy");
}

// Affinity.

TEST_F(UpgradeTest, AffinityCookieIsIssuedOnceAndLeadsBack) {
  EchoBackend a("a");
  EchoBackend b("b");
  EchoBackend c("c");
  ProxyProcess proxy(Config{.backends = {a.port(), b.port(), c.port()},
                            .route = "affinity_cookie = \"stay\"\naffinity = [\"cookie:stay\"]\n",
                            .pool = "bounded_load = 0.0\n"});
  std::set<std::string> homes;
  std::set<std::string> ids;
  for (int i = 0; i < 8; ++i) {
    // From an address of its own, so that not all begin at the same backend.
    RawClient client(proxy.port(), ClientOptions{.source = "127.0.0." + std::to_string(10 + i)});
    const HttpMessage first = client.Upgrade();
    ASSERT_EQ(first.status, 101);
    ASSERT_EQ(first.Count("Set-Cookie"), 1U);
    const std::string cookie = first.Field("Set-Cookie");
    EXPECT_EQ(cookie.rfind("stay=", 0), 0U) << cookie;
    EXPECT_NE(cookie.find("; HttpOnly"), std::string::npos) << cookie;
    EXPECT_NE(cookie.find("; SameSite=Lax"), std::string::npos) << cookie;
    EXPECT_EQ(cookie.find("Secure"), std::string::npos) << "not over plain HTTP: " << cookie;
    const std::string pair = cookie.substr(0, cookie.find(';'));
    EXPECT_GE(pair.size(), sizeof("stay=") - 1 + 22) << "the id is too short to be random";
    ids.insert(pair);
    homes.insert(first.Field("X-Backend"));

    for (int again = 0; again < 3; ++again) {
      RawClient back(proxy.port());
      const HttpMessage answer = back.Upgrade("/", "Cookie: other=1; " + pair + "\r\n");
      EXPECT_EQ(answer.Field("X-Backend"), first.Field("X-Backend"));
      EXPECT_FALSE(answer.Has("Set-Cookie")) << "the client has one already";
    }
    RawClient plain(proxy.port());
    plain.Send("GET / HTTP/1.1\r\nHost: a\r\nCookie: " + pair + "\r\n\r\n");
    EXPECT_EQ(plain.ReadResponse().Field("X-Backend"), first.Field("X-Backend"))
        << "plain HTTP lands there too";
  }
  EXPECT_EQ(ids.size(), 8U);
  EXPECT_GT(homes.size(), 1U) << "8 addresses on one of 3 backends";
}

TEST_F(UpgradeTest, AffinityCookieComesWithTheFirstHttpAnswerToo) {
  EchoBackend a("a");
  EchoBackend b("b");
  ProxyProcess proxy(Config{.backends = {a.port(), b.port()},
                            .route = "affinity_cookie = \"stay\"\n",
                            .pool = "bounded_load = 0.0\n"});
  RawClient client(proxy.port());
  client.Send("GET /poll HTTP/1.1\r\nHost: a\r\n\r\n");
  const HttpMessage first = client.ReadResponse();
  ASSERT_EQ(first.Count("Set-Cookie"), 1U);
  const std::string cookie = first.Field("Set-Cookie");
  const HttpMessage upgraded =
      client.Upgrade("/", "Cookie: " + cookie.substr(0, cookie.find(';')) + "\r\n");
  EXPECT_EQ(upgraded.status, 101);
  EXPECT_EQ(upgraded.Field("X-Backend"), first.Field("X-Backend"));
}

TEST_F(UpgradeTest, AffinityCookieFollowsWhatIsDoneInSeveralRequests) {
  EchoBackend a("b0");
  EchoBackend b("b1");
  ProxyProcess proxy(Config{.backends = {a.port(), b.port()},
                            .route = "affinity_cookie = \"stay\"\n",
                            .pool = "bounded_load = 0.0\nslow_start = \"0s\"\n"});
  RawClient client(proxy.port());
  const auto poll = [&client](const std::string& pair) {
    client.Send("GET /poll HTTP/1.1\r\nHost: a\r\n" +
                (pair.empty() ? "" : "Cookie: " + pair + "\r\n") + "\r\n");
    return client.ReadResponse();
  };
  const auto pair_of = [](const HttpMessage& answer) {
    const std::string cookie = answer.Field("Set-Cookie");
    return cookie.substr(0, cookie.find(';'));
  };
  const HttpMessage first = poll("");
  ASSERT_EQ(first.Count("Set-Cookie"), 1U);
  const std::string home = first.Field("X-Backend");
  static_cast<void>(proxy.AskJson("POST", "/backends/app/" + home + "/drain?window=0s", 202));

  RawClient upgrading(proxy.port());
  const HttpMessage upgraded = upgrading.Upgrade("/", "Cookie: " + pair_of(first) + "\r\n");
  EXPECT_EQ(upgraded.status, 101);
  EXPECT_NE(upgraded.Field("X-Backend"), home);
  EXPECT_FALSE(upgraded.Has("Set-Cookie")) << "a WebSocket goes home the next time";
  const HttpMessage moved = poll(pair_of(first));
  EXPECT_NE(moved.Field("X-Backend"), home);
  ASSERT_EQ(moved.Count("Set-Cookie"), 1U);

  static_cast<void>(proxy.AskJson("POST", "/backends/app/" + home + "/undrain"));
  EXPECT_EQ(poll(pair_of(first)).Field("X-Backend"), home);
  const HttpMessage stays = poll(pair_of(moved));
  EXPECT_EQ(stays.Field("X-Backend"), moved.Field("X-Backend"));
  EXPECT_FALSE(stays.Has("Set-Cookie"));
}

TEST_F(UpgradeTest, AffinityCookieIsSecureUnderTls) {
  TestCerts certs;
  const CertificateFiles files = certs.Issue({"chat.test"});
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .listener = "tls.certificates = [{ chain = \"" + files.chain +
                                        "\", key = \"" + files.key + "\" }]\n",
                            .route = "affinity_cookie = \"stay\"\n"});
  RawClient client(proxy.port(), TlsClientOptions{.sni = "chat.test", .trust = certs.ca()});
  const HttpMessage answer = client.Upgrade();
  EXPECT_NE(answer.Field("Set-Cookie").find("; Secure"), std::string::npos) << answer.head;
  EXPECT_EQ(backend.heads().front().Field("X-Forwarded-Proto"), "https");
}

TEST_F(UpgradeTest, HeaderQueryAndPathKeysKeepAClientInItsPlace) {
  EchoBackend a("a");
  EchoBackend b("b");
  EchoBackend c("c");
  ProxyProcess proxy(
      Config{.backends = {a.port(), b.port(), c.port()},
             .route = "path = \"/q\"\naffinity = [\"query:room\"]\n",
             .pool = "bounded_load = 0.0\n",
             .more = "[[route]]\npath = \"/p\"\npool = \"app\"\naffinity = [\"path:2\"]\n"
                     "[[route]]\npath = \"/h\"\npool = \"app\"\naffinity = [\"header:x-user\"]\n"});
  const auto home = [&](const std::string& target, const std::string& more) {
    RawClient client(proxy.port());
    const HttpMessage answer = client.Upgrade(target, more);
    EXPECT_EQ(answer.status, 101);
    return answer.Field("X-Backend");
  };
  std::set<std::string> homes;
  for (int i = 0; i < 12; ++i) {
    const std::string key = "key-" + std::to_string(i);
    const std::string by_query = home("/q?a=b&room=" + key, "");
    EXPECT_EQ(home("/q/other?room=" + key + "&z", ""), by_query);
    EXPECT_EQ(home("/p/" + key, ""), by_query) << "the same key, wherever it comes from";
    EXPECT_EQ(home("/h", "X-User: " + key + "\r\n"), by_query);
    homes.insert(by_query);
  }
  EXPECT_EQ(homes.size(), 3U);
}

// Forwarding fields.

TEST_F(UpgradeTest, ForwardingFieldsAreSetAndTheClientsOwnAreDropped) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest("/",
                             "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n"
                             "X-Forwarded-Host: evil.example\r\nForwarded: for=6.6.6.6\r\n"
                             "X-Request-Id: my-id-1\r\nKeep-Alive: 5\r\nTE: trailers\r\n",
                             "chat.example"));
  ASSERT_EQ(client.ReadResponse().status, 101);
  const HttpMessage head = backend.heads().front();
  EXPECT_EQ(head.Count("X-Forwarded-For"), 1U);
  EXPECT_EQ(head.Field("X-Forwarded-For"), "127.0.0.1");
  EXPECT_EQ(head.Field("X-Forwarded-Proto"), "http");
  EXPECT_EQ(head.Field("X-Forwarded-Host"), "chat.example");
  EXPECT_EQ(head.Count("Forwarded"), 1U);
  EXPECT_EQ(head.Field("Forwarded"), "for=127.0.0.1;host=\"chat.example\";proto=http");
  EXPECT_EQ(head.Field("X-Request-Id"), "my-id-1");
  EXPECT_EQ(head.Field("Host"), "chat.example");
  EXPECT_FALSE(head.Has("Keep-Alive"));
  EXPECT_FALSE(head.Has("TE"));
}

TEST_F(UpgradeTest, TrustedProxysForwardingFieldsAreExtended) {
  EchoBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .server = "trusted_proxies = [\"127.0.0.0/8\"]\n"});
  ConnectWebSocket(proxy.port(), "/",
                   "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n"
                   "X-Forwarded-Host: outer.example\r\nForwarded: for=203.0.113.9\r\n");
  const HttpMessage head = backend.heads().front();
  EXPECT_EQ(head.Field("X-Forwarded-For"), "203.0.113.9, 127.0.0.1");
  EXPECT_EQ(head.Field("X-Forwarded-Proto"), "https");
  EXPECT_EQ(head.Field("X-Forwarded-Host"), "outer.example");
  EXPECT_EQ(head.Field("Forwarded").rfind("for=203.0.113.9, for=127.0.0.1", 0), 0U)
      << head.Field("Forwarded");
  EXPECT_EQ(proxy.AwaitAccessLog(1).front()["client_ip"], "203.0.113.9");
}

TEST_F(UpgradeTest, RequestIdIsMadeWhenThereIsNone) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  ConnectWebSocket(proxy.port());
  ConnectWebSocket(proxy.port());
  ASSERT_TRUE(backend.AwaitAccepts(2));
  const auto heads = backend.heads();
  EXPECT_GE(heads.at(0).Field("X-Request-Id").size(), 16U);
  EXPECT_NE(heads.at(0).Field("X-Request-Id"), heads.at(1).Field("X-Request-Id"));
}

// Limits.

TEST_F(UpgradeTest, ConnectionsPerIpIs429WithRetryAfter) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .limits = "connections_per_ip = 2\n"});
  RawClient one = ConnectWebSocket(proxy.port());
  RawClient two = ConnectWebSocket(proxy.port());
  RawClient three(proxy.port());
  const HttpMessage answer = three.Upgrade();
  EXPECT_EQ(answer.status, 429);
  EXPECT_TRUE(answer.Has("Retry-After"));
  three.FinishWrite();
  three.ExpectEnd();
  EXPECT_EQ(backend.accepts(), 2U);
  RawClient other(proxy.port(), ClientOptions{.source = "127.0.0.2"});
  EXPECT_EQ(other.Upgrade().status, 101) << "another address is not concerned";
  proxy.AwaitMetric("sluice_rate_limited_total{reason=\"connections_per_ip\"}", 1);
  proxy.AwaitMetric("sluice_upgrades_total{outcome=\"limit\"}", 1);
  one.Reset();
  two.Reset();
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 1);
  ConnectWebSocket(proxy.port());
}

TEST_F(UpgradeTest, MaxConnectionsIs503WithRetryAfter) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .limits = "max_connections = 2\n"});
  RawClient one = ConnectWebSocket(proxy.port());
  RawClient two = ConnectWebSocket(proxy.port());
  RawClient three(proxy.port());
  const HttpMessage answer = three.Upgrade();
  EXPECT_EQ(answer.status, 503);
  EXPECT_TRUE(answer.Has("Retry-After"));
  EXPECT_EQ(backend.accepts(), 2U);
  proxy.AwaitMetric("sluice_rate_limited_total{reason=\"connections\"}", 1);
  three.Close();
  two.Reset();
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 1);
  ConnectWebSocket(proxy.port());
  one.SendFrame(kText, "undisturbed");
  EXPECT_EQ(one.ReadFrame().payload, "undisturbed");
}

}  // namespace
}  // namespace sluice::test
