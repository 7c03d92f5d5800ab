// Proves that Sluice's own answers on a route have the content of its error pages, that nothing
// else of them changes, and that the answers of backends pass as they are.
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"

namespace sluice::test {
namespace {

class ErrorPagesTest : public testing::Test {
 protected:
  ErrorPagesTest() {
    Write("503.json", "{\"error\":\"later\"}");
    Write("426.html", Page());
  }

  static std::string Page() { return "<p>" + Pattern(60'000) + "</p>"; }

  void Write(const std::string& name, const std::string& content) const {
    std::ofstream(dir.path() + "/" + name, std::ios::binary) << content;
  }

  Config Of(std::uint16_t backend_port) const {
    return Config{.backends = {backend_port},
                  .route = "path = \"/app\"\nerror_pages = { 503 = \"" + dir.path() +
                           "/503.json\", 426 = \"" + dir.path() + "/426.html\" }"};
  }

  static HttpMessage Ask(RawClient& client, const std::string& method = "GET",
                         const std::string& more = {}, const std::string& path = "/app") {
    client.Send(method + " " + path + " HTTP/1.1\r\nHost: a\r\n" + more + "\r\n");
    return client.ReadResponse(method);
  }

  TempDir dir;
};

TEST_F(ErrorPagesTest, AreTheContentOfSluicesOwnAnswers) {
  const ClosedPort nobody;
  ProxyProcess proxy(Of(nobody.port()));
  RawClient client(proxy.port());
  // From Exchange.
  const HttpMessage failed = Ask(client);
  EXPECT_EQ(failed.status, 503);
  EXPECT_EQ(failed.Field("Content-Type"), "application/json");
  EXPECT_EQ(failed.Field("Cache-Control"), "no-store");
  EXPECT_TRUE(failed.Has("Retry-After"));
  EXPECT_EQ(failed.body, "{\"error\":\"later\"}");
  // HEAD: the length without the content, and the connection goes on.
  const HttpMessage head = Ask(client, "HEAD");
  EXPECT_EQ(head.status, 503);
  EXPECT_EQ(head.Field("Content-Length"), std::to_string(failed.body.size()));
  // From Session, with the fields that belong to the status.
  const HttpMessage refused =
      Ask(client, "GET",
          "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 7\r\n"
          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
  EXPECT_EQ(refused.status, 426);
  EXPECT_EQ(refused.Field("Sec-WebSocket-Version"), "13");
  EXPECT_EQ(refused.Field("Content-Type"), "text/html; charset=utf-8");
  EXPECT_TRUE(refused.body == Page());
  // What the route does not serve, or has no page for.
  const HttpMessage unknown = Ask(client, "GET", "", "/other");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(unknown.Field("Content-Type"), "text/plain; charset=utf-8");
  EXPECT_EQ(Ask(client).status, 503);
}

TEST_F(ErrorPagesTest, AreNotForTheAnswersOfBackends) {
  RawBackend backend;
  ProxyProcess proxy(Of(backend.port()));
  RawClient client(proxy.port());
  client.Send("GET /app HTTP/1.1\r\nHost: a\r\n\r\n");
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  peer.Send("HTTP/1.1 503 Own Words\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nbusy");
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.start_line, "HTTP/1.1 503 Own Words");
  EXPECT_EQ(answer.Field("Content-Type"), "text/plain");
  EXPECT_EQ(answer.body, "busy");
}

TEST_F(ErrorPagesTest, AreReadAnewByAReload) {
  const ClosedPort nobody;
  ProxyProcess proxy(Of(nobody.port()));
  RawClient client(proxy.port());
  Write("503.json", "{}");
  EXPECT_EQ(Ask(client).body, "{\"error\":\"later\"}") << "what was loaded stays";
  EXPECT_EQ(proxy.Ask("POST", "/reload").status, 200);
  EXPECT_EQ(Ask(client).body, "{}");
  // A page that has become too large is a mistake, which changes nothing.
  Write("426.html", std::string((64U << 10U) + 1, 'x'));
  const HttpMessage answer = proxy.Ask("POST", "/reload");
  EXPECT_EQ(answer.status, 422);
  EXPECT_NE(answer.body.find("is larger than 64KiB, so it is not an error page"), std::string::npos)
      << answer.body;
  EXPECT_EQ(Ask(client).body, "{}");
}

}  // namespace
}  // namespace sluice::test
