// Proves the listener that sends its clients to https: what it answers, that it keeps connections,
// counts and drains like any other, and that a reload turns it on and off.
#include <signal.h>

#include <string>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"

namespace sluice::test {
namespace {

std::string Secure(const std::string& redirect) {
  return "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n" + redirect + "\n";
}

class RedirectTest : public testing::Test {
 protected:
  Config Of(const std::string& redirect) const {
    return Config{.backends = {backend.port()},
                  .route = "host = \"chat.test\"",
                  .drain = "window = \"100ms\"",
                  .more = Secure(redirect)};
  }

  static std::string Get(std::string_view target, std::string_view more = {}) {
    return "GET " + std::string(target) + " HTTP/1.1\r\nHost: chat.test:80\r\n" +
           std::string(more) + "\r\n";
  }

  RawBackend backend;
  ProxyProcess proxy{Of("redirect = \"https\"")};
};

TEST_F(RedirectTest, AnswersOneRequestAfterTheOtherAndAsksNoBackend) {
  RawClient client(proxy.port("web"));
  for (const std::string target : {"/", "/a%20b?c=d", "/a?"}) {
    client.Send(Get(target));
    const HttpMessage answer = client.ReadResponse();
    EXPECT_EQ(answer.status, 308);
    EXPECT_EQ(answer.start_line, "HTTP/1.1 308 Permanent Redirect");
    EXPECT_EQ(answer.Field("Location"), "https://chat.test" + target);
    EXPECT_FALSE(answer.Has("Connection"));
    EXPECT_FALSE(answer.Has("Cache-Control")) << "it is to be remembered";
  }
  // Several at once, and upgrades.
  client.Send(Get("/1") + Get("/2", "Connection: Upgrade\r\nUpgrade: websocket\r\n"));
  EXPECT_EQ(client.ReadResponse().Field("Location"), "https://chat.test/1");
  EXPECT_EQ(client.ReadResponse().Field("Location"), "https://chat.test/2");
  EXPECT_EQ(client.Upgrade("/ws", "").status, 404) << "its Host is another one";
  // Content that nobody reads would be taken for the next request.
  client.Send("POST /p HTTP/1.1\r\nHost: chat.test\r\nContent-Length: 2\r\n\r\nhi");
  const HttpMessage last = client.ReadResponse();
  EXPECT_EQ(last.status, 308);
  EXPECT_EQ(last.Field("Connection"), "close");
  client.ExpectEnd();
  EXPECT_FALSE(backend.HasConnection(Millis(0)));
  proxy.AwaitMetric("sluice_http_requests_total{route=\"main\",code=\"3xx\"}", 6);
  const auto log = proxy.AwaitAccessLog(7);
  EXPECT_EQ(log[0]["status"], 308);
  EXPECT_EQ(log[0]["reason"], "redirect");
  EXPECT_EQ(log[0]["route"], "main");
}

TEST_F(RedirectTest, SendsNobodyToAHostThatNoRouteServes) {
  RawClient client(proxy.port("web"));
  client.Send("GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n");
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.status, 404);
  EXPECT_FALSE(answer.Has("Location"));
  client.Send(Get("/"));
  EXPECT_EQ(client.ReadResponse().status, 308);
  RawClient old(proxy.port("web"));
  old.Send("GET / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(old.ReadResponse().status, 404) << "no route serves every host";
  RawClient absolute(proxy.port("web"));
  absolute.Send("HEAD http://chat.test/x HTTP/1.0\r\n\r\n");
  EXPECT_EQ(absolute.ReadResponse("HEAD").Field("Location"), "https://chat.test/x");
  absolute.ExpectEnd();
}

TEST_F(RedirectTest, FollowsAReload) {
  RawClient before(proxy.port("web"));
  before.Send(Get("/"));
  EXPECT_EQ(before.ReadResponse().status, 308);
  proxy.Configure(Of("redirect = { port = 8443, status = 302 }"));
  EXPECT_EQ(proxy.Ask("POST", "/reload").status, 200);
  RawClient after(proxy.port("web"));
  after.Send(Get("/x"));
  const HttpMessage answer = after.ReadResponse();
  EXPECT_EQ(answer.status, 302);
  EXPECT_EQ(answer.Field("Location"), "https://chat.test:8443/x");
  EXPECT_EQ(answer.Field("Cache-Control"), "no-store");
  proxy.Configure(Of(""));
  EXPECT_EQ(proxy.Ask("POST", "/reload").status, 200);
  RawClient served(proxy.port("web"));
  served.Send(Get("/x"));
  Stream peer = backend.Accept();
  EXPECT_EQ(peer.ReadRequest().target, "/x");
  peer.Send("HTTP/1.1 204 No Content\r\n\r\n");
  EXPECT_EQ(served.ReadResponse().status, 204);
}

TEST_F(RedirectTest, DrainsLikeAnyOther) {
  RawClient idle(proxy.port("web"));
  idle.Send(Get("/"));
  EXPECT_EQ(idle.ReadResponse().status, 308);
  proxy.Signal(SIGTERM);
  idle.ExpectEnd();
  idle.Close();
  EXPECT_EQ(proxy.Wait(), 0) << proxy.err();
}

}  // namespace
}  // namespace sluice::test
