// Clients that try to speak past the checks, or to make Sluice hold what they do not read.
#include <string>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"
#include "tests/support/proxy_process.h"
#include "tests/support/raw_backend.h"
#include "tests/support/raw_client.h"

namespace sluice::test {
namespace {

// A request that has reached the backend and is not answered yet.
class HttpAbuseOfOneRequest : public testing::Test {
 protected:
  HttpAbuseOfOneRequest() {
    client.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    peer = backend.Accept();
    static_cast<void>(peer.ReadRequest());
  }

  RawBackend backend;
  ProxyProcess proxy{Config{.backends = {backend.port()}}};
  RawClient client{proxy.port()};
  Stream peer;
};

TEST(HttpAbuse, ConnectionFieldCannotTakeTheLengthOffARequest) {
  // Without its length the content would be the next request to a backend that reads on.
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  const std::string content = "GET /secret HTTP/1.1\r\nHost: a\r\n\r\n";
  RawClient client(proxy.port());
  client.Send("POST /a HTTP/1.1\r\nHost: a\r\nConnection: Content-Length\r\nContent-Length: " +
              std::to_string(content.size()) + "\r\n\r\n" + content);
  Stream peer = backend.Accept();
  const HttpMessage request = peer.ReadRequest();
  EXPECT_EQ(request.Field("Content-Length"), std::to_string(content.size()));
  EXPECT_EQ(request.body, content);
}

TEST_F(HttpAbuseOfOneRequest, ConnectionFieldCannotTakeTheLengthOffAnAnswer) {
  peer.Send("HTTP/1.1 200 OK\r\nConnection: close, Content-Length\r\nContent-Length: 2\r\n\r\nhi");
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.Field("Content-Length"), "2");
  EXPECT_EQ(answer.body, "hi");
}

TEST(HttpAbuse, ContentNeverOvertakesTheHeadOnARetry) {
  RawBackend first;
  RawBackend second;
  ProxyProcess proxy(Config{.backends = {first.port(), second.port()}});
  const std::string content = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
  RawClient client(proxy.port());
  client.Send("GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(content.size()) +
              "\r\n\r\n");
  const bool second_is_home = AwaitAny({&first, &second}) == 1;
  RawBackend& home = second_is_home ? second : first;
  RawBackend& next = second_is_home ? first : second;
  {
    Stream peer = home.Accept();
    static_cast<void>(peer.ReadHead());
    // In one turn the backend is found gone and the content is there.
    proxy.Stop();
    peer.Close();
    client.Send(content);
    proxy.Continue();
  }
  Stream peer = next.Accept();
  const HttpMessage request = peer.ReadRequest();
  EXPECT_EQ(request.start_line, "GET /a HTTP/1.1");
  EXPECT_EQ(request.body, content);
}

TEST(HttpAbuse, AnswersThatNobodyReadsDoNotPileUp) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .route = "path = \"/only\""});
  RawClient client(proxy.port(), ClientOptions{.small_buffers = true});
  const std::string request = "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n";
  std::string many;
  while (many.size() < 64 * 1024) {
    many += request;
  }
  const std::size_t before = proxy.ResidentBytes();
  std::size_t sent = 0;
  constexpr std::size_t kMost = 32 * 1024 * 1024;
  while (sent < kMost && client.HasRoom(Millis(500))) {
    // Go on in the middle of a request where the last piece ended.
    sent += client.SendSome(std::string_view(many).substr(sent % request.size()));
  }
  EXPECT_LT(sent, kMost) << "it was read without end";
  // A sanitizer keeps what was freed, up to 256 MiB; each request was parsed and logged.
  const std::size_t allowed = (IsSanitized(proxy) ? 300U : 8U) << 20U;
  EXPECT_LT(proxy.ResidentBytes(), before + allowed);

  // Nothing that was taken is lost: every whole request gets its answer, in time.
  const std::size_t whole = sent / request.size();
  for (std::size_t i = 0; i < whole; ++i) {
    ASSERT_EQ(client.ReadResponse().status, 404) << i << " of " << whole;
  }
}

TEST(HttpAbuse, AConnectThatFailsAtOnceServesEachRequestOnce) {
  // TCP to the broadcast address fails inside connect(2), so the whole exchange ends within the
  // call that began it.
  ProxyProcess proxy(std::string(
      "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n[[route]]\npool = \"app\"\n"
      "[pool.app]\nbackends = [{ name = \"b0\", address = \"255.255.255.255:9\" }]\n"
      "[drain]\nwindow = \"0s\"\n[admin]\naddress = \"127.0.0.1:0\"\n"));
  RawClient client(proxy.port());
  const std::string request = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
  client.Send(request + request);
  EXPECT_EQ(client.ReadResponse().status, 503);
  EXPECT_EQ(client.ReadResponse().status, 503);
  client.Send(request.substr(0, 10));
  client.Send(request.substr(10));
  EXPECT_EQ(client.ReadResponse().status, 503);
  client.Send(request);
  EXPECT_EQ(client.ReadResponse().status, 503);
  EXPECT_FALSE(client.HasInput(Millis(200)));
  EXPECT_EQ(proxy.AwaitAccessLog(4).size(), 4U);
}

TEST(HttpAbuse, AClientThatFinishesItsDirectionStillGetsTheWholeAnswer) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port(), ClientOptions{.small_buffers = true});
  client.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  const std::string body(64 * 1024, 'x');
  peer.Send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
            body);
  // The exchange is over for the proxy, its end still waits for the client.
  static_cast<void>(proxy.AwaitAccessLog(1));
  client.FinishWrite();
  EXPECT_EQ(client.ReadResponse().body, body);
  client.ExpectEnd();
}

TEST_F(HttpAbuseOfOneRequest, AHalfClosedClientIsNotKeptAlive) {
  peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh");
  static_cast<void>(client.ReadUntil("\r\n\r\nh"));
  client.FinishWrite();
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 1);
  peer.Send("i");
  EXPECT_EQ(client.ReadToEnd(), "i");
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 0);
}

TEST_F(HttpAbuseOfOneRequest, AFloodOfInterimAnswersIsABadAnswer) {
  std::string flood;
  for (int i = 0; i < 100; ++i) {
    flood += "HTTP/1.1 103 Early Hints\r\n\r\n";
  }
  peer.Send(flood);
  HttpMessage answer = client.ReadResponse();
  int interim = 0;
  while (answer.status == 103) {
    ++interim;
    answer = client.ReadResponse();
  }
  EXPECT_EQ(answer.status, 502);
  EXPECT_LT(interim, 100);
}

}  // namespace
}  // namespace sluice::test
