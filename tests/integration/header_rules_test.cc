// Proves that a route's rules for header fields hold for requests and answers, upgrades included,
// and for the answers that Sluice itself gives.
#include <string>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"
#include "tests/support/certificates.h"

namespace sluice::test {
namespace {

constexpr std::string_view kRules =
    "request_headers = { add = { \"X-Env\" = \"prod\", \"X-Both\" = \"ours\" }, "
    "remove = [\"X-Debug\", \"x-both\"] }\n"
    "response_headers = { add = { \"X-Frame-Options\" = \"DENY\", \"Server\" = \"ours\", "
    "\"Cache-Control\" = \"private\" }, remove = [\"server\", \"X-Powered-By\"] }\n";

class HeaderRulesTest : public testing::Test {
 protected:
  explicit HeaderRulesTest(std::string_view rules = kRules)
      : proxy(Config{.backends = {backend.port()}, .route = std::string(rules)}) {}

  RawBackend backend;
  ProxyProcess proxy;
};

constexpr std::string_view kSent =
    "X-Debug: 1\r\nX-Both: theirs\r\nX-Env: test\r\nX-Kept: k\r\nx-debug: 2\r\n";

void ExpectRequest(const HttpMessage& request) {
  EXPECT_FALSE(request.Has("X-Debug")) << request.head;
  EXPECT_EQ(request.Count("X-Both"), 1U) << request.head;
  EXPECT_EQ(request.Field("X-Both"), "ours");
  EXPECT_EQ(request.Count("X-Env"), 2U) << "what is only added stands beside what was sent";
  EXPECT_EQ(request.Field("X-Kept"), "k");
}

void ExpectAnswer(const HttpMessage& answer) {
  EXPECT_EQ(answer.Count("Server"), 1U) << answer.head;
  EXPECT_EQ(answer.Field("Server"), "ours");
  EXPECT_EQ(answer.Field("X-Frame-Options"), "DENY");
  EXPECT_FALSE(answer.Has("X-Powered-By"));
}

TEST_F(HeaderRulesTest, HoldForRequestsAndAnswers) {
  RawClient client(proxy.port());
  client.Send("GET / HTTP/1.1\r\nHost: a\r\n" + std::string(kSent) + "\r\n");
  Stream peer = backend.Accept();
  ExpectRequest(peer.ReadRequest());
  peer.Send(
      "HTTP/1.1 103 Early Hints\r\nServer: theirs\r\n\r\n"
      "HTTP/1.1 200 OK\r\nServer: theirs\r\nX-Powered-By: p\r\nX-Own: o\r\nContent-Length: 2\r\n"
      "\r\nok");
  const HttpMessage hints = client.ReadResponse();
  EXPECT_EQ(hints.status, 103);
  EXPECT_FALSE(hints.Has("Server")) << "nothing is added to interim answers";
  const HttpMessage answer = client.ReadResponse();
  ExpectAnswer(answer);
  EXPECT_EQ(answer.Field("X-Own"), "o");
  EXPECT_EQ(answer.Field("Cache-Control"), "private");
  EXPECT_EQ(answer.body, "ok");
}

TEST_F(HeaderRulesTest, HoldForUpgrades) {
  RawClient client(proxy.port());
  client.Send(UpgradeRequest("/", kSent));
  HttpMessage request;
  Stream peer =
      backend.AcceptWebSocket("Server: theirs\r\nX-Powered-By: p\r\nX-Own: o\r\n", &request);
  ExpectRequest(request);
  const HttpMessage answer = client.ReadHead();
  EXPECT_EQ(answer.status, 101);
  ExpectAnswer(answer);
  EXPECT_EQ(answer.Field("X-Own"), "o");
  client.SendFrame(kText, "hello");
  EXPECT_EQ(peer.ReadFrame().payload, "hello");
}

TEST_F(HeaderRulesTest, HoldForSluicesOwnAnswers) {
  // From Session: an upgrade that is none.
  RawClient client(proxy.port());
  client.Send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
  const HttpMessage refused = client.ReadResponse();
  EXPECT_EQ(refused.status / 100, 4);
  ExpectAnswer(refused);
  EXPECT_EQ(refused.Count("Cache-Control"), 1U);
  EXPECT_EQ(refused.Field("Cache-Control"), "no-store") << "its own field stays";
  // A method that no route takes, of a path that one has.
  RawClient tracing(proxy.port());
  tracing.Send("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n");
  const HttpMessage traced = tracing.ReadResponse();
  EXPECT_EQ(traced.status, 405);
  ExpectAnswer(traced);
  // From Exchange.
  backend.StopListening();
  RawClient other(proxy.port());
  other.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  const HttpMessage failed = other.ReadResponse();
  EXPECT_EQ(failed.status, 503);
  ExpectAnswer(failed);
  EXPECT_TRUE(failed.Has("Retry-After"));
}

TEST_F(HeaderRulesTest, FollowAReload) {
  RawClient client(proxy.port());
  proxy.Configure(
      Config{.backends = {backend.port()}, .route = "request_headers.add = { X-Env = \"new\" }"});
  EXPECT_EQ(proxy.Ask("POST", "/reload").status, 200);
  client.Send("GET / HTTP/1.1\r\nHost: a\r\nX-Debug: 1\r\n\r\n");
  Stream peer = backend.Accept();
  const HttpMessage request = peer.ReadRequest();
  EXPECT_EQ(request.Field("X-Env"), "new");
  EXPECT_EQ(request.Field("X-Debug"), "1");
  peer.Send("HTTP/1.1 204 No Content\r\n\r\n");
  EXPECT_FALSE(client.ReadResponse().Has("X-Frame-Options"));
}

class HstsTest : public testing::Test {
 protected:
  HstsTest()
      : chat(certs.Issue({"chat.test"})),
        proxy(Config{
            .backends = {backend.port()},
            .route = "hsts = { max_age = \"1d\", include_subdomains = true }",
            .more =
                "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\ntls.certificates = [{ "
                "chain = \"" +
                chat.chain + "\", key = \"" + chat.key + "\" }]\n"}) {}

  RawClient OverTls() { return {proxy.port("tls"), TlsClientOptions{.sni = "chat.test"}}; }

  // The answer to a request that the backend has answered.
  HttpMessage Answered(RawClient client) {
    client.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    Stream peer = backend.Accept();
    static_cast<void>(peer.ReadRequest());
    peer.Send(
        "HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 0\r\n\r\n");
    return client.ReadResponse();
  }

  // The answer to an upgrade that the backend has taken.
  HttpMessage Upgraded(RawClient client) {
    client.Send(UpgradeRequest("/"));
    Stream peer = backend.AcceptWebSocket("strict-transport-security: max-age=1\r\n");
    return client.ReadHead();
  }

  // The answer of Sluice itself.
  static HttpMessage Refused(RawClient client) {
    client.Send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    return client.ReadResponse();
  }

  TestCerts certs;
  CertificateFiles chat;
  RawBackend backend;
  ProxyProcess proxy;
};

TEST_F(HstsTest, IsSaidOnceOverTls) {
  for (const HttpMessage& answer : {Answered(OverTls()), Upgraded(OverTls()), Refused(OverTls())}) {
    EXPECT_EQ(answer.Count("Strict-Transport-Security"), 1U) << answer.head;
    EXPECT_EQ(answer.Field("Strict-Transport-Security"), "max-age=86400; includeSubDomains");
  }
}

TEST_F(HstsTest, IsNeverSaidInPlainText) {
  for (const HttpMessage& answer :
       {Answered(RawClient(proxy.port())), Upgraded(RawClient(proxy.port())),
        Refused(RawClient(proxy.port()))}) {
    EXPECT_FALSE(answer.Has("Strict-Transport-Security")) << answer.head;
  }
}

}  // namespace
}  // namespace sluice::test
