// Proves what a backend and a client are sent: hop-by-hop fields replaced, forwarding fields set,
// everything else as it came (RFC 9110 section 7.6.1, RFC 7239).
#include "proxy/session/rewrite.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/http/parser.h"

namespace sluice::session {
namespace {

class RewriteTest : public testing::Test {
 protected:
  const http::RequestHead& Request(std::string text) {
    text_ = std::move(text);
    request_.Reset();
    EXPECT_EQ(request_.Parse(text_), ParseStatus::kDone) << text_;
    return request_.head();
  }

  const http::ResponseHead& Response(std::string text) {
    text_ = std::move(text);
    response_.Reset();
    EXPECT_EQ(response_.Parse(text_, false), ParseStatus::kDone) << text_;
    return response_.head();
  }

  static ForwardFacts Facts() {
    ForwardFacts facts;
    facts.peer_ip = "192.0.2.7";
    facts.request_id = "id-1";
    return facts;
  }

 private:
  std::string text_;
  http::RequestParser request_;
  http::ResponseParser response_;
};

TEST_F(RewriteTest, BackendRequestKeepsTargetAndFieldsAndSetsForwarding) {
  const auto& head = Request(
      "GET /chat?room=1 HTTP/1.1\r\nHost: a.example\r\nX-Custom: Yes\r\nCookie: a=b\r\n\r\n");
  EXPECT_EQ(BackendRequest(head, Facts(), Passage::kClose),
            "GET /chat?room=1 HTTP/1.1\r\nHost: a.example\r\nX-Custom: Yes\r\nCookie: a=b\r\n"
            "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"
            "X-Forwarded-Host: a.example\r\n"
            "Forwarded: for=192.0.2.7;host=\"a.example\";proto=http\r\n"
            "X-Request-Id: id-1\r\nVia: 1.1 sluice\r\nConnection: close\r\n\r\n");
}

TEST_F(RewriteTest, HopByHopFieldsAndWhatConnectionNamesStayHere) {
  const auto& head = Request(
      "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Secret, Upgrade\r\nX-Secret: 1\r\n"
      "Keep-Alive: 5\r\nTE: gzip\r\nTrailer: X\r\nProxy-Connection: x\r\nUpgrade: h2c\r\n"
      "HTTP2-Settings: AAA\r\n\r\n");
  const std::string out = BackendRequest(head, Facts(), Passage::kClose);
  for (const char* gone : {"X-Secret", "Keep-Alive", "TE:", "Trailer", "Proxy-Connection",
                           "Upgrade", "h2c", "keep-alive", "HTTP2-Settings"}) {
    EXPECT_EQ(out.find(gone), std::string::npos) << gone << " in\n" << out;
  }
  EXPECT_NE(out.find("\r\nConnection: close\r\n"), std::string::npos);
}

// RFC 9110 sections 7.6.3 and 10.1.4.
TEST_F(RewriteTest, ViaGoesOnInOrderAndOfTeOnlyTrailers) {
  const auto& head =
      Request("GET / HTTP/1.0\r\nVia: 1.1 a, 1.1 b\r\nTE: gzip;q=0.5, Trailers\r\n\r\n");
  const std::string kept = BackendRequest(head, Facts(), Passage::kKeepAlive);
  EXPECT_LT(kept.find("\r\nVia: 1.1 a, 1.1 b\r\n"), kept.find("\r\nVia: 1.0 sluice\r\n"));
  EXPECT_NE(kept.find("\r\nTE: trailers\r\nConnection: TE\r\n\r\n"), std::string::npos) << kept;
  const std::string closing = BackendRequest(head, Facts(), Passage::kClose);
  EXPECT_NE(closing.find("\r\nConnection: TE, close\r\n\r\n"), std::string::npos) << closing;
  const std::string plain =
      BackendRequest(Request("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Facts(), Passage::kKeepAlive);
  EXPECT_EQ(plain.find("Connection"), std::string::npos) << plain;
}

// RFC 9110 section 6.6.1: who passes an answer on says when it came, unless that is said.
TEST_F(RewriteTest, AFinalAnswerHasADate) {
  ClientResponse how;
  how.date = "Sun, 06 Nov 1994 08:49:37 GMT";
  EXPECT_EQ(ClientHead(Response("HTTP/1.1 200 OK\r\nX: 1\r\n\r\n"), how),
            "HTTP/1.1 200 OK\r\nX: 1\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
            "Via: 1.1 sluice\r\n\r\n");
  const std::string own = ClientHead(Response("HTTP/1.1 200 OK\r\ndate: today\r\n\r\n"), how);
  EXPECT_NE(own.find("\r\ndate: today\r\n"), std::string::npos) << own;
  EXPECT_EQ(own.find("1994"), std::string::npos) << own;
  EXPECT_EQ(ClientHead(Response("HTTP/1.1 103 Early Hints\r\n\r\n"), how),
            "HTTP/1.1 103 Early Hints\r\n\r\n");
}

// RFC 9110 section 10.1.1.
TEST_F(RewriteTest, AnExpectationOfHttp10IsNone) {
  const std::string fields = "Host: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
  EXPECT_EQ(BackendRequest(Request("POST / HTTP/1.0\r\n" + fields), Facts(), Passage::kKeepAlive)
                .find("Expect"),
            std::string::npos);
  EXPECT_NE(BackendRequest(Request("POST / HTTP/1.1\r\n" + fields), Facts(), Passage::kKeepAlive)
                .find("\r\nExpect: 100-continue\r\n"),
            std::string::npos);
}

// RFC 9110 section 7.6.2: of OPTIONS each proxy counts it down, of other methods it says nothing.
TEST_F(RewriteTest, MaxForwardsIsCountedDown) {
  const auto sent = [this](const std::string& method, const std::string& fields) {
    return BackendRequest(Request(method + " / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n"), Facts(),
                          Passage::kKeepAlive);
  };
  const std::string counted = sent("OPTIONS", "max-forwards: 10\r\n");
  EXPECT_NE(counted.find("\r\nMax-Forwards: 9\r\n"), std::string::npos) << counted;
  EXPECT_EQ(counted.find("10"), std::string::npos) << counted;
  for (const char* unreadable :
       {"Max-Forwards: -1\r\n", "Max-Forwards: 0x5\r\n", "Max-Forwards: \r\n",
        "Max-Forwards: 99999999999999999999\r\n", "Max-Forwards: 2\r\nMax-Forwards: 3\r\n"}) {
    const std::string out = sent("OPTIONS", unreadable);
    EXPECT_NE(out.find(unreadable), std::string::npos) << out;
  }
  for (const char* method : {"GET", "options"}) {
    EXPECT_NE(sent(method, "Max-Forwards: 0\r\n").find("\r\nMax-Forwards: 0\r\n"),
              std::string::npos);
  }
}

TEST_F(RewriteTest, UpgradeIsAnnouncedAnew) {
  const auto& head = Request(
      "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
  const std::string out = BackendRequest(head, Facts(), Passage::kUpgrade);
  EXPECT_NE(out.find("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), std::string::npos);
  EXPECT_NE(out.find("\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), std::string::npos);
  EXPECT_EQ(out.find("Connection: close"), std::string::npos);
}

TEST_F(RewriteTest, RequestFieldsAreRemovedBeforeAnyIsAdded) {
  const std::vector<std::string> removed{"x-debug", "X-ENV", "X-Forwarded"};
  ForwardFacts facts = Facts();
  facts.change = {removed, "X-Env: prod\r\nX-New: 1\r\n"};
  const std::string fields =
      "Host: a\r\nX-Debug: 1\r\nX-New: 0\r\nX-Env: dev\r\nX-Debug: 2\r\nX-Debugger: 3\r\n";
  const std::string out =
      BackendRequest(Request("GET / HTTP/1.1\r\n" + fields + "\r\n"), facts, Passage::kClose);
  EXPECT_EQ(out,
            "GET / HTTP/1.1\r\nHost: a\r\nX-New: 0\r\nX-Debugger: 3\r\n"
            "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n"
            "Forwarded: for=192.0.2.7;host=\"a\";proto=http\r\nX-Request-Id: id-1\r\n"
            "Via: 1.1 sluice\r\nX-Env: prod\r\nX-New: 1\r\nConnection: close\r\n\r\n");
  const std::string upgrade = BackendRequest(
      Request("GET / HTTP/1.1\r\n" + fields +
              "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"),
      facts, Passage::kUpgrade);
  EXPECT_EQ(upgrade.find("X-Debug:"), std::string::npos);
  EXPECT_NE(upgrade.find("\r\nX-Env: prod\r\nX-New: 1\r\nConnection: Upgrade\r\n"),
            std::string::npos);
}

TEST_F(RewriteTest, ResponseFieldsAreRemovedBeforeAnyIsAdded) {
  const std::vector<std::string> removed{"Server", "set-cookie"};
  ClientResponse how;
  how.set_cookie = "sluice=1";
  how.change = {removed, "Server: s\r\n"};
  EXPECT_EQ(ClientHead(Response("HTTP/1.1 200 OK\r\nSERVER: b\r\nX-Server: c\r\nSet-Cookie: a=b\r\n"
                                "Content-Length: 0\r\n\r\n"),
                       how),
            "HTTP/1.1 200 OK\r\nX-Server: c\r\nContent-Length: 0\r\nSet-Cookie: sluice=1\r\n"
            "Via: 1.1 sluice\r\nServer: s\r\n\r\n")
      << "the cookie of Sluice itself stays";
  how.set_cookie = {};
  EXPECT_EQ(ClientHead(Response("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                "Server: b\r\nConnection: Upgrade\r\n\r\n"),
                       how),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nServer: s\r\n"
            "Connection: Upgrade\r\n\r\n");
}

TEST_F(RewriteTest, ForwardingFieldsOfAnUntrustedPeerAreDropped) {
  const auto& head = Request(
      "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\n"
      "X-Forwarded-Host: evil\r\nForwarded: for=1.1.1.1\r\n\r\n");
  const std::string out = BackendRequest(head, Facts(), Passage::kClose);
  EXPECT_EQ(out.find("1.1.1.1"), std::string::npos) << out;
  EXPECT_EQ(out.find("evil"), std::string::npos) << out;
  EXPECT_NE(out.find("X-Forwarded-Proto: http\r\n"), std::string::npos) << out;
}

TEST_F(RewriteTest, ForwardingFieldsOfATrustedPeerAreContinued) {
  const auto& head = Request(
      "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n"
      "X-Forwarded-Host: shop\r\nForwarded: for=203.0.113.9\r\n\r\n");
  ForwardFacts facts = Facts();
  facts.peer_trusted = true;
  const std::string out = BackendRequest(head, facts, Passage::kClose);
  EXPECT_NE(out.find("X-Forwarded-For: 203.0.113.9, 192.0.2.7\r\n"), std::string::npos) << out;
  EXPECT_NE(out.find("X-Forwarded-Proto: https\r\n"), std::string::npos) << out;
  EXPECT_NE(out.find("X-Forwarded-Host: shop\r\n"), std::string::npos) << out;
  EXPECT_NE(out.find("Forwarded: for=203.0.113.9, for=192.0.2.7;"), std::string::npos) << out;
}

TEST_F(RewriteTest, Ipv6IsQuotedInForwarded) {
  ForwardFacts facts = Facts();
  facts.peer_ip = "2001:db8::1";
  facts.tls = true;
  const std::string out =
      BackendRequest(Request("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), facts, Passage::kClose);
  // RFC 7239 section 6: an IPv6 address is in brackets and quotes.
  EXPECT_NE(out.find("for=\"[2001:db8::1]\";host=\"a\";proto=https"), std::string::npos) << out;
}

TEST_F(RewriteTest, AnEmptyQueryStaysAnEmptyQuery) {
  EXPECT_EQ(BackendRequest(Request("GET /a? HTTP/1.1\r\nHost: a\r\n\r\n"), Facts(), Passage::kClose)
                .substr(0, 17),
            "GET /a? HTTP/1.1\r");
}

TEST_F(RewriteTest, AbsoluteFormBecomesOriginForm) {
  EXPECT_EQ(BackendRequest(Request("GET http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n"),
                           Facts(), Passage::kClose)
                .substr(0, 16),
            "GET / HTTP/1.1\r\n");
}

TEST_F(RewriteTest, ChunkedContentIsAnnouncedToTheBackend) {
  const std::string out =
      BackendRequest(Request("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
                     Facts(), Passage::kClose);
  EXPECT_NE(out.find("\r\nTransfer-Encoding: chunked\r\n"), std::string::npos) << out;
}

TEST_F(RewriteTest, AddedFieldsGoOutWhateverConnectionNames) {
  const auto& head = Request("GET / HTTP/1.1\r\nHost: a\r\nConnection: X-User\r\n\r\n");
  ForwardFacts facts = Facts();
  facts.added = "X-User: alice\r\n";
  const std::string out = BackendRequest(head, facts, Passage::kClose);
  EXPECT_NE(out.find("\r\nX-User: alice\r\nVia: 1.1 sluice\r\nConnection: close\r\n\r\n"),
            std::string::npos)
      << out;
}

TEST_F(RewriteTest, AuthRequestHasWhatIsForwardedAndWhatWasAsked) {
  config::Auth auth;
  auth.authority = "auth.local:81";
  auth.target = "/check?a=b";
  auth.forward = {"authorization", "cookie", "x-real-ip"};
  const auto& head = Request(
      "PUT http://a.example/x/y?z HTTP/1.1\r\nHost: a.example\r\nCOOKIE: a=b\r\nX-Other: 1\r\n"
      "X-Real-IP: 192.0.2.9\r\ncookie: c=d\r\nContent-Length: 5\r\nConnection: cookie\r\n"
      "X-Forwarded-For: 192.0.2.9\r\nX-Original-Method: GET\r\n\r\n");
  EXPECT_EQ(AuthRequest(head, Facts(), auth),
            "GET /check?a=b HTTP/1.1\r\nHost: auth.local:81\r\nCOOKIE: a=b\r\ncookie: c=d\r\n"
            "X-Original-Method: PUT\r\nX-Original-URI: /x/y?z\r\n"
            "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"
            "X-Forwarded-Host: a.example\r\n"
            "Forwarded: for=192.0.2.7;host=\"a.example\";proto=http\r\n"
            "X-Request-Id: id-1\r\n\r\n");
  ForwardFacts believed = Facts();
  believed.peer_trusted = true;
  const std::string out = AuthRequest(head, believed, auth);
  EXPECT_NE(out.find("\r\nX-Real-IP: 192.0.2.9\r\n"), std::string::npos);
  EXPECT_NE(out.find("\r\nX-Forwarded-For: 192.0.2.9, 192.0.2.7\r\n"), std::string::npos);
}

// Both see the same request: what is for this hop alone goes to neither.
TEST_F(RewriteTest, AuthRequestHasNothingThatTheBackendIsNotShown) {
  config::Auth auth;
  auth.forward = {"x-tenant", "authorization"};
  const auto& head = Request(
      "GET / HTTP/1.1\r\nHost: a\r\nX-Tenant: mine\r\nAuthorization: b\r\n"
      "Connection: x-tenant, authorization\r\n\r\n");
  for (const std::string& out :
       {AuthRequest(head, Facts(), auth), BackendRequest(head, Facts(), Passage::kClose)}) {
    EXPECT_EQ(out.find("X-Tenant"), std::string::npos) << out;
    EXPECT_NE(out.find("Authorization: b\r\n"), std::string::npos) << out;
  }
}

TEST_F(RewriteTest, ClientHeadDropsHopByHopFields) {
  const auto& head = Response(
      "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
      "Upgrade: h2c\r\nX-Keep: 1\r\n\r\n");
  EXPECT_EQ(ClientHead(head, {}),
            "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nX-Keep: 1\r\nVia: 1.1 sluice\r\n\r\n");
}

TEST_F(RewriteTest, ClientHeadAddsWhatIsAsked) {
  ClientResponse how;
  how.chunked = true;
  how.close = true;
  how.set_cookie = "a=b";
  EXPECT_EQ(
      ClientHead(Response("HTTP/1.1 200 OK\r\n\r\n"), how),
      "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nVia: 1.1 sluice\r\nTransfer-Encoding: chunked\r\n"
      "Connection: close\r\n\r\n");
}

TEST_F(RewriteTest, A426KeepsItsUpgradeField) {
  // RFC 9110 section 15.5.22: it says what to upgrade to.
  const auto& head = Response(
      "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(ClientHead(head, {}),
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\nVia: 1.1 sluice\r\nConnection: "
            "Upgrade\r\n\r\n");
}

struct ClientCase {
  const char* name;
  std::string fields;
  const char* client;  // of a request from 10.0.0.1, where 10.0.0.0/8 and 2001:db8::/32 are trusted
};

void PrintTo(const ClientCase& one, std::ostream* out) {
  *out << one.name;
}

class OriginalClientTest : public RewriteTest, public testing::WithParamInterface<ClientCase> {
 protected:
  std::string ClientBehind(const char* peer) {
    const net::Cidr v4 = *net::Cidr::Parse("10.0.0.0/8");
    const net::Cidr v6 = *net::Cidr::Parse("2001:db8::/32");
    const auto& head = Request("GET / HTTP/1.1\r\nHost: a\r\n" + GetParam().fields + "\r\n");
    return OriginalClient(
        head, *net::Address::FromNumeric(peer, 80),
        [&](const net::Address& address) { return v4.Contains(address) || v6.Contains(address); });
  }
};

TEST_P(OriginalClientTest, IsTheRightmostThatIsNotTrusted) {
  EXPECT_EQ(ClientBehind("10.0.0.1"), GetParam().client);
}

TEST_P(OriginalClientTest, IsThePeerUnlessThatIsTrusted) {
  EXPECT_EQ(ClientBehind("192.0.2.7"), "192.0.2.7");
}

const ClientCase kClientCases[] = {
    {"NoFields", "", "10.0.0.1"},
    {"OneHop", "X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"},
    {"TrustedHops", "X-Forwarded-For: 203.0.113.9, 10.0.0.3\r\nX-Forwarded-For: 10.0.0.2\r\n",
     "203.0.113.9"},
    {"MadeUpInFront", "X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.0.0.2\r\n", "203.0.113.9"},
    {"TrustedAddressMadeUpInFront", "X-Forwarded-For: 10.0.0.9, 203.0.113.9\r\n", "203.0.113.9"},
    {"AllTrusted", "X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n", "10.0.0.3"},
    {"Port", "X-Forwarded-For: 203.0.113.9:4711\r\n", "203.0.113.9"},
    {"Ipv6", "X-Forwarded-For: 2001:0DB9:0::1, 2001:db8::2\r\n", "2001:db9::1"},
    {"BracketsAndPort", "X-Forwarded-For: [2001:db9::1]:4711\r\n", "2001:db9::1"},
    {"Mapped", "X-Forwarded-For: 203.0.113.9, ::ffff:10.0.0.2\r\n", "203.0.113.9"},
    {"Unknown", "X-Forwarded-For: 203.0.113.9, unknown\r\n", "10.0.0.1"},
    {"UnknownBehindOneMore", "X-Forwarded-For: 203.0.113.9, unknown, 10.0.0.2\r\n", "10.0.0.2"},
    {"Junk", "X-Forwarded-For: 203.0.113.9, <script>, 10.0.0.2\r\n", "10.0.0.2"},
    {"EmptyElements", "X-Forwarded-For: 203.0.113.9,,\r\n", "203.0.113.9"},
    {"EmptyField", "X-Forwarded-For:\r\n", "10.0.0.1"},
    // RFC 7239
    {"Forwarded", "Forwarded: for=203.0.113.9;proto=https, for=10.0.0.2\r\n", "203.0.113.9"},
    {"ForwardedIpv6", "Forwarded: for=\"[2001:DB9::1]:4711\"\r\n", "2001:db9::1"},
    {"ForwardedLines", "Forwarded: for=6.6.6.6\r\nForwarded: for=203.0.113.9\r\n", "203.0.113.9"},
    {"ForwardedHidden", "Forwarded: for=203.0.113.9, for=_hidden, for=10.0.0.2\r\n", "10.0.0.2"},
    {"ForwardedWithoutFor", "Forwarded: for=203.0.113.9, proto=https\r\n", "10.0.0.1"},
    {"ForwardedJunk", "Forwarded: for=203.0.113.9, for=\"\r\n", "10.0.0.1"},
    {"ForwardedCommaInQuotes", "Forwarded: for=\"x, for=203.0.113.9\"\r\n", "10.0.0.1"},
    // A proxy that adds to the one does not know of the other, which the client may have made up.
    {"BothFields", "Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"},
};
INSTANTIATE_TEST_SUITE_P(Table, OriginalClientTest, testing::ValuesIn(kClientCases),
                         [](const auto& one) { return std::string(one.param.name); });

TEST_F(RewriteTest, WhatSpeaksForTheClientIsTakenFromTrustedPeersOnly) {
  const auto& head = Request(
      "GET / HTTP/1.1\r\nHost: a\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Port: 1\r\n"
      "x-forwarded-client-cert: x\r\nX-Forwarded: 7\r\nX-Forward: 8\r\n\r\n");
  ForwardFacts facts = Facts();
  const std::string dropped = BackendRequest(head, facts, Passage::kClose);
  for (const char* gone : {"X-Real-IP", "X-Forwarded-Port", "x-forwarded-client-cert"}) {
    EXPECT_EQ(dropped.find(gone), std::string::npos) << gone << " in\n" << dropped;
  }
  EXPECT_NE(dropped.find("X-Forward: 8\r\n"), std::string::npos) << dropped;
  facts.peer_trusted = true;
  const std::string kept = BackendRequest(head, facts, Passage::kClose);
  for (const char* there :
       {"X-Real-IP: 6.6.6.6\r\n", "X-Forwarded-Port: 1\r\n", "x-forwarded-client-cert: x\r\n"}) {
    EXPECT_NE(kept.find(there), std::string::npos) << there << " in\n" << kept;
  }
}

// To CGI and what has come of it these are the same names.
TEST_F(RewriteTest, WhatIsSpelledInAnotherWayIsDroppedAsWell) {
  const auto& head = Request(
      "GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\n"
      "x.forwarded.proto: https\r\nX_Debug: 1\r\nX_Other: 2\r\n\r\n");
  const std::vector<std::string> removed{"X-Debug"};
  ForwardFacts facts = Facts();
  facts.change.removed = removed;
  const std::string dropped = BackendRequest(head, facts, Passage::kClose);
  for (const char* gone : {"6.6.6.6", "https", "X_Debug"}) {
    EXPECT_EQ(dropped.find(gone), std::string::npos) << gone << " in\n" << dropped;
  }
  EXPECT_NE(dropped.find("X_Other: 2\r\n"), std::string::npos) << dropped;
  facts.peer_trusted = true;
  const std::string kept = BackendRequest(head, facts, Passage::kClose);
  EXPECT_NE(kept.find("X_Forwarded_For: 6.6.6.6\r\n"), std::string::npos) << kept;
  config::Auth auth;
  auth.forward = {"x_real_ip"};
  EXPECT_EQ(AuthRequest(head, Facts(), auth).find("6.6.6.6"), std::string::npos);
}

TEST_F(RewriteTest, AcceptEncodingStaysHereWhenTheAnswerIsToBeRead) {
  const auto& head = Request(
      "POST /negotiate HTTP/1.1\r\nHost: a\r\naccept-encoding: gzip\r\nAccept: */*\r\n"
      "Accept-Encoding: br\r\n\r\n");
  ForwardFacts facts = Facts();
  const std::string kept = BackendRequest(head, facts, Passage::kClose);
  EXPECT_NE(kept.find("accept-encoding: gzip\r\n"), std::string::npos) << kept;
  EXPECT_NE(kept.find("Accept-Encoding: br\r\n"), std::string::npos) << kept;
  facts.readable = true;
  const std::string out = BackendRequest(head, facts, Passage::kClose);
  EXPECT_EQ(out.find("ncoding"), std::string::npos) << out;
  EXPECT_NE(out.find("Accept: */*\r\n"), std::string::npos) << out;
}

TEST_F(RewriteTest, AMalformedForwardedIsNotContinued) {
  const auto& head = Request(
      "GET / HTTP/1.1\r\nHost: a\r\nForwarded: for=203.0.113.9\r\nForwarded: for=\"x\r\n\r\n");
  ForwardFacts facts = Facts();
  facts.peer_trusted = true;
  const std::string out = BackendRequest(head, facts, Passage::kClose);
  EXPECT_NE(out.find("\r\nForwarded: for=192.0.2.7;host=\"a\";proto=http\r\n"), std::string::npos)
      << out;
}

TEST_F(RewriteTest, RequestIdsAreKeptOnlyWhenHarmless) {
  EXPECT_TRUE(IsUsableRequestId("abc-123"));
  EXPECT_FALSE(IsUsableRequestId(""));
  EXPECT_FALSE(IsUsableRequestId("a b"));
  EXPECT_FALSE(IsUsableRequestId(std::string(129, 'a')));
  EXPECT_FALSE(IsUsableRequestId("caf\xc3\xa9"));
}

}  // namespace
}  // namespace sluice::session
