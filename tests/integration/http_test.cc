// Plain HTTP beside the upgrades: content of every framing passes both ways without being stored,
// connections are kept alive, a cut stays visible as a cut, and nothing that two parsers could read
// differently gets through.
#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/echo_backend.h"
#include "tests/support/proxy_process.h"
#include "tests/support/raw_backend.h"
#include "tests/support/raw_client.h"
#include "tests/support/split.h"

namespace sluice::test {
namespace {

// Bytes that show a shift or a repetition.
std::string Pattern(std::size_t size) {
  std::string out(size, '\0');
  std::uint32_t state = 12345;
  for (char& c : out) {
    state = state * 1664525 + 1013904223;
    c = static_cast<char>('a' + (state >> 24) % 26);
  }
  return out;
}

class HttpTest : public testing::Test {
 protected:
  RawBackend backend_;
  ProxyProcess proxy_{Config{.backends = {backend_.port()}}};

  // A client whose request has reached the backend.
  struct Exchange {
    RawClient client;
    Stream peer;
    HttpMessage request;
  };

  Exchange Begin(std::string_view request) {
    Exchange both;
    both.client = RawClient(proxy_.port());
    both.client.Send(request);
    both.peer = backend_.Accept();
    both.request = both.peer.ReadRequest();
    return both;
  }
};

constexpr std::string_view kGet = "GET /x?y=z HTTP/1.1\r\nHost: a\r\n\r\n";

TEST_F(HttpTest, ContentLengthResponsePassesUnchanged) {
  Exchange one = Begin(kGet);
  EXPECT_EQ(one.request.target, "/x?y=z");
  EXPECT_EQ(one.request.Field("Host"), "a");
  one.peer.Send(
      "HTTP/1.1 201 Made It\r\nX-Own: 1\r\nX-Own: 2\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n"
      "Content-Length: 5\r\nConnection: close\r\n\r\nhello");
  const HttpMessage answer = one.client.ReadResponse();
  EXPECT_EQ(answer.start_line, "HTTP/1.1 201 Made It");
  EXPECT_EQ(answer.Count("X-Own"), 2U);
  EXPECT_EQ(answer.Count("Set-Cookie"), 2U);
  EXPECT_EQ(answer.Field("Content-Length"), "5");
  EXPECT_FALSE(answer.Has("Connection")) << "the backend's connection is not the client's";
  EXPECT_EQ(answer.body, "hello");
}

TEST_F(HttpTest, ChunkedResponseIsRechunked) {
  Exchange one = Begin(kGet);
  one.peer.Send(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
      "5;ext=1\r\nhello\r\n0000006\r\n world\r\n0\r\nX-Trailer: t\r\n\r\n");
  const HttpMessage answer = one.client.ReadResponse();
  EXPECT_EQ(answer.Field("Transfer-Encoding"), "chunked");
  EXPECT_EQ(answer.body, "hello world");
}

TEST_F(HttpTest, ChunkedResponseArrivesWholeHoweverItIsCut) {
  Exchange one = Begin(kGet);
  one.peer.SendDribble(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
      "5;e=\"q\"\r\nhello\r\nA\r\n0123456789\r\n0\r\nT: x\r\n\r\n");
  EXPECT_EQ(one.client.ReadResponse().body, "hello0123456789");
  // The connection is between two messages: another exchange goes through.
  one.client.Send(kGet);
  static_cast<void>(one.peer.ReadRequest());
  one.peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  EXPECT_EQ(one.client.ReadResponse().body, "ok");
}

TEST_F(HttpTest, ContentLengthRequestReachesTheBackend) {
  Exchange one = Begin("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
  EXPECT_EQ(one.request.method, "POST");
  EXPECT_EQ(one.request.Field("Content-Length"), "5");
  EXPECT_EQ(one.request.body, "hello");
  one.peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(one.client.ReadResponse().status, 200);
}

TEST_F(HttpTest, ChunkedRequestReachesTheBackendHoweverItIsCut) {
  const std::string content = "5;a=b\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nTrailer: t\r\n\r\n";
  RawClient client(proxy_.port());
  client.SendDribble("POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + content);
  Stream peer = backend_.Accept();
  const HttpMessage request = peer.ReadRequest();
  EXPECT_EQ(request.Field("Transfer-Encoding"), "chunked");
  EXPECT_FALSE(request.Has("Content-Length"));
  EXPECT_EQ(request.body, "hello world");
  peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 200);
}

TEST_F(HttpTest, MalformedChunkIsNotPassedOn) {
  RawClient client(proxy_.port());
  client.Send("POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
  Stream peer = backend_.Accept();
  static_cast<void>(peer.ReadHead());
  EXPECT_EQ(peer.ReadChunk(), "abc");
  client.Send("+3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 400);
  client.FinishWrite();
  client.ExpectEnd();
  EXPECT_EQ(peer.ReadToEnd(), "") << "neither the chunk nor an end of the content";
  EXPECT_FALSE(backend_.HasConnection(Millis(0)));
}

TEST_F(HttpTest, HeadHasNoContentWhateverItAnnounces) {
  Exchange one = Begin("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(one.request.method, "HEAD");
  one.peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
  const HttpMessage answer = one.client.ReadResponse("HEAD");
  EXPECT_EQ(answer.Field("Content-Length"), "1000");
  one.client.Send(kGet);
  static_cast<void>(one.peer.ReadRequest());
  one.peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  EXPECT_EQ(one.client.ReadResponse().body, "ok");
}

TEST_F(HttpTest, NoContentAndNotModifiedEndAtTheHead) {
  RawClient client(proxy_.port());
  for (const std::string status : {"204 No Content", "304 Not Modified"}) {
    client.Send(kGet);
    Stream peer = backend_.Accept();
    static_cast<void>(peer.ReadRequest());
    peer.Send("HTTP/1.1 " + status + "\r\nETag: \"e\"\r\n" +
              (status[0] == '3' ? "Content-Length: 77\r\n" : "") + "\r\n");
    const HttpMessage answer = client.ReadResponse();
    EXPECT_EQ(answer.start_line, "HTTP/1.1 " + status);
    EXPECT_EQ(answer.Field("ETag"), "\"e\"");
    EXPECT_FALSE(answer.Has("Transfer-Encoding"));
  }
}

TEST_F(HttpTest, ContinueIsRelayedBeforeTheContentComes) {
  RawClient client(proxy_.port());
  client.Send("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
  Stream peer = backend_.Accept();
  EXPECT_EQ(peer.ReadHead().Field("Expect"), "100-continue");
  peer.Send("HTTP/1.1 100 Continue\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 100);
  client.Send("hello");
  EXPECT_EQ(peer.ReadExactly(5), "hello");
  peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  EXPECT_EQ(client.ReadResponse().body, "ok");
}

TEST_F(HttpTest, EarlyHintsPassBeforeTheAnswer) {
  Exchange one = Begin(kGet);
  one.peer.Send(
      "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  const HttpMessage hints = one.client.ReadResponse();
  EXPECT_EQ(hints.status, 103);
  EXPECT_EQ(hints.Field("Link"), "</a.css>");
  EXPECT_EQ(one.client.ReadResponse().body, "ok");
}

TEST_F(HttpTest, FirstChunkArrivesBeforeTheBackendSendsTheSecond) {
  Exchange one = Begin("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
  one.peer.Send(
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
  EXPECT_EQ(one.client.ReadHead().status, 200);
  for (int i = 0; i < 3; ++i) {
    one.peer.Send("8\r\ndata: " + std::to_string(i) + "\n\r\n");
    EXPECT_EQ(one.client.ReadChunk(), "data: " + std::to_string(i) + "\n");
  }
  one.peer.Send("0\r\n\r\n");
  EXPECT_EQ(one.client.ReadChunk(), "");
}

TEST_F(HttpTest, RequestContentStreamsToo) {
  RawClient client(proxy_.port());
  client.Send("POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n");
  Stream peer = backend_.Accept();
  static_cast<void>(peer.ReadHead());
  EXPECT_EQ(peer.ReadChunk(), "ab");
  client.Send("2\r\ncd\r\n0\r\n\r\n");
  EXPECT_EQ(peer.ReadChunk(), "cd");
  EXPECT_EQ(peer.ReadChunk(), "");
}

// Sends until neither the socket nor what lies between takes any more; how much that was.
std::size_t SendUntilStuck(Stream& from, std::string_view bytes) {
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    const std::size_t some = from.SendSome(bytes.substr(sent));
    sent += some;
    if (some == 0 && !from.HasRoom(Millis(300))) {
      break;
    }
  }
  return sent;
}

TEST_F(HttpTest, SlowDownloadHoldsTheBackendBack) {
  RawClient client(proxy_.port(), ClientOptions{.small_buffers = true});
  client.Send(kGet);
  Stream peer = backend_.Accept();
  static_cast<void>(peer.ReadRequest());
  const std::string content = Pattern(32 << 20);
  peer.Send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(content.size()) + "\r\n\r\n");
  const std::size_t before = proxy_.ResidentBytes();
  const std::size_t sent = SendUntilStuck(peer, content);
  EXPECT_LT(sent, content.size()) << "the backend was never held back";
  EXPECT_LT(proxy_.ResidentBytes(), before + (8U << 20)) << "what it sent is stored";
  proxy_.AwaitMetricAtLeast("sluice_backpressure_pauses_total", 1);

  EXPECT_EQ(client.ReadHead().status, 200);
  std::string got = client.ReadExactly(sent / 2);
  peer.Send(std::string_view(content).substr(sent, 1 << 20));
  got += client.ReadExactly(sent + (1 << 20) - got.size());
  EXPECT_TRUE(got == content.substr(0, sent + (1 << 20))) << "the content is not what was sent";
}

TEST_F(HttpTest, SlowBackendHoldsAnUploadBack) {
  RawBackend slow(true);
  ProxyProcess proxy(Config{.backends = {slow.port()}});
  RawClient client(proxy.port());
  const std::string content = Pattern(32 << 20);
  client.Send("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(content.size()) +
              "\r\n\r\n");
  Stream peer = slow.Accept();
  static_cast<void>(peer.ReadHead());
  const std::size_t before = proxy.ResidentBytes();
  const std::size_t sent = SendUntilStuck(client, content);
  EXPECT_LT(sent, content.size()) << "the client was never held back";
  EXPECT_LT(proxy.ResidentBytes(), before + (8U << 20)) << "what it sent is stored";
  const std::string got = peer.ReadExactly(sent);
  EXPECT_TRUE(got == content.substr(0, sent)) << "the content is not what was sent";
}

TEST_F(HttpTest, MebibytesArriveWholeBothWays) {
  const std::string content = Pattern(3 << 20);
  RawClient client(proxy_.port());
  client.Send("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(content.size()) +
              "\r\n\r\n");
  Stream peer = backend_.Accept();
  static_cast<void>(peer.ReadHead());
  constexpr std::size_t kPiece = 64 * 1024;
  std::string got;
  for (std::size_t at = 0; at < content.size(); at += kPiece) {
    client.Send(std::string_view(content).substr(at, kPiece));
    got += peer.ReadExactly(std::min(kPiece, content.size() - at));
  }
  EXPECT_TRUE(got == content);
  peer.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
  EXPECT_EQ(client.ReadHead().status, 200);
  std::string back;
  for (std::size_t at = 0; at < content.size(); at += kPiece) {
    peer.Send("10000\r\n" + content.substr(at, kPiece) + "\r\n");
    while (back.size() < at + kPiece) {
      back += client.ReadChunk();
    }
  }
  EXPECT_TRUE(back == content);
}

// Connections of the client.

TEST(HttpKeepAlive, ManyRequestsOnOneConnection) {
  EchoBackend backend("e");
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  for (int i = 0; i < 5; ++i) {
    const std::string target = "/r" + std::to_string(i);
    client.Send("GET " + target + " HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(client.ReadResponse().body, "e GET " + target + "\n");
  }
  EXPECT_EQ(client.Upgrade().status, 101) << "and an upgrade after them";
  proxy.AwaitMetric("sluice_accepts_total", 1);
}

TEST(HttpKeepAlive, PipelinedRequestsAreAnsweredInOrder) {
  EchoBackend backend("e");
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send(
      "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
      "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
      "HEAD /3 HTTP/1.1\r\nHost: a\r\n\r\n"
      "POST /4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
      "GET /5 HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().body, "e GET /1\n");
  EXPECT_EQ(client.ReadResponse().body, "e POST /2\n");
  EXPECT_EQ(client.ReadResponse("HEAD").status, 200);
  EXPECT_EQ(client.ReadResponse().body, "e POST /4\n");
  EXPECT_EQ(client.ReadResponse().body, "e GET /5\n");
  EXPECT_EQ(backend.heads().at(1).body, "abc");
}

TEST(HttpKeepAlive, ConnectionCloseIsObeyed) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().Field("Connection"), "close");
  client.ExpectEnd();
}

TEST(HttpKeepAlive, IdleConnectionIsClosed) {
  EchoBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .server = "keep_alive_timeout = \"100ms\"\n"});
  RawClient client(proxy.port());
  client.Send(kGet);
  EXPECT_EQ(client.ReadResponse().status, 200);
  client.ExpectEnd();
}

TEST_F(HttpTest, Http10ClientGetsContentAndTheEndOfTheConnection) {
  Exchange one = Begin("GET /old HTTP/1.0\r\nHost: a\r\n\r\n");
  EXPECT_EQ(one.request.start_line, "GET /old HTTP/1.1");
  one.peer.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
  const HttpMessage answer = one.client.ReadResponse();
  EXPECT_FALSE(answer.Has("Transfer-Encoding")) << "HTTP/1.0 does not know it";
  EXPECT_EQ(answer.body, "hello");
}

TEST_F(HttpTest, HalfClosedClientStillGetsItsAnswer) {
  RawClient client(proxy_.port());
  client.Send(kGet);
  client.FinishWrite();
  Stream peer = backend_.Accept();
  static_cast<void>(peer.ReadRequest());
  peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  EXPECT_EQ(client.ReadResponse().body, "ok");
  client.ExpectEnd();
}

TEST_F(HttpTest, ClientThatResetsFreesTheBackend) {
  Exchange one = Begin(kGet);
  one.client.Reset();
  one.peer.AwaitEnd();
  proxy_.AwaitMetric("sluice_connections_open", 0);
}

// A cut stays a cut.

TEST_F(HttpTest, BackendThatClosesInsideTheContentIsACutNotAnEnd) {
  Exchange one = Begin(kGet);
  one.peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npartial");
  EXPECT_EQ(one.client.ReadHead().status, 200);
  EXPECT_EQ(one.client.ReadExactly(7), "partial");
  one.peer.Close();
  const auto had = one.client.bytes_read();
  one.client.AwaitEnd();
  EXPECT_EQ(one.client.bytes_read(), had) << "nothing may fill the gap";
  proxy_.AwaitMetric("sluice_backend_failures_total{reason=\"lost\"}", 1);
}

TEST_F(HttpTest, BackendThatClosesInsideChunksGetsNoLastChunk) {
  Exchange one = Begin(kGet);
  one.peer.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nwo");
  EXPECT_EQ(one.client.ReadHead().status, 200);
  std::string got = one.client.ReadChunk();
  while (got.size() < 7) {
    got += one.client.ReadChunk();
  }
  EXPECT_EQ(got, "hellowo");
  one.peer.Close();
  std::string rest;
  try {
    rest = one.client.ReadToEnd();
  } catch (const Failure&) {
    // A reset says it as well.
  }
  EXPECT_EQ(rest, "") << "a last chunk would make it whole";
}

TEST_F(HttpTest, MalformedChunkOfABackendIsACut) {
  Exchange one = Begin(kGet);
  one.peer.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
  EXPECT_EQ(one.client.ReadHead().status, 200);
  EXPECT_EQ(one.client.ReadChunk(), "hello");
  one.peer.Send("xyz\r\n0\r\n\r\n");
  std::string rest;
  try {
    rest = one.client.ReadToEnd();
  } catch (const Failure&) {
  }
  EXPECT_EQ(rest, "");
  proxy_.AwaitMetric("sluice_backend_failures_total{reason=\"bad_answer\"}", 1);
}

TEST_F(HttpTest, UntilCloseContentIsChunkedForTheClient) {
  Exchange one = Begin(kGet);
  one.peer.Send("HTTP/1.1 200 OK\r\n\r\nuntil ");
  EXPECT_EQ(one.client.ReadHead().Field("Transfer-Encoding"), "chunked");
  EXPECT_EQ(one.client.ReadChunk(), "until ");
  one.peer.Send("the end");
  EXPECT_EQ(one.client.ReadChunk(), "the end");
  one.peer.Close();
  EXPECT_EQ(one.client.ReadChunk(), "") << "the end is the last chunk";
  one.client.Send(kGet);
  EXPECT_EQ(backend_.Accept().ReadRequest().target, "/x?y=z") << "and the connection goes on";
}

TEST_F(HttpTest, UntilCloseContentThatIsResetIsACut) {
  Exchange one = Begin(kGet);
  one.peer.Send("HTTP/1.1 200 OK\r\n\r\nuntil ");
  EXPECT_EQ(one.client.ReadHead().status, 200);
  EXPECT_EQ(one.client.ReadChunk(), "until ");
  one.peer.Reset();
  std::string rest;
  try {
    rest = one.client.ReadToEnd();
  } catch (const Failure&) {
  }
  EXPECT_EQ(rest, "");
}

TEST_F(HttpTest, BytesBehindTheAnnouncedContentGoNowhere) {
  Exchange one = Begin(kGet);
  one.peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\nsmuggled");
  EXPECT_EQ(one.client.ReadResponse().body, "ok");
  one.client.Send("GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  Stream next = backend_.Accept();
  static_cast<void>(next.ReadRequest());
  next.Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext");
  EXPECT_EQ(one.client.ReadToEnd().find("smuggled"), std::string::npos);
}

TEST_F(HttpTest, BackendThatNeverAnswersIs504) {
  RawBackend silent;
  ProxyProcess proxy(
      Config{.backends = {silent.port()}, .route = "response_timeout = \"200ms\"\n"});
  RawClient client(proxy.port());
  client.Send(kGet);
  Stream peer = silent.Accept();
  EXPECT_EQ(client.ReadResponse().status, 504);
  peer.AwaitEnd();
}

TEST_F(HttpTest, PostIsNotSentToASecondBackend) {
  RawBackend a;
  RawBackend b;
  ProxyProcess proxy(Config{.backends = {a.port(), b.port()}});
  RawClient client(proxy.port());
  client.Send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
  RawBackend& first = AwaitAny({&a, &b}) == 0 ? a : b;
  RawBackend& second = &first == &a ? b : a;
  Stream peer = first.Accept();
  static_cast<void>(peer.ReadRequest());
  peer.Reset();
  EXPECT_EQ(client.ReadResponse().status, 502);
  EXPECT_FALSE(second.HasConnection(Millis(0)));
}

TEST_F(HttpTest, GetThatGotNoAnswerIsSentToTheNextBackend) {
  RawBackend a;
  RawBackend b;
  ProxyProcess proxy(Config{.backends = {a.port(), b.port()}});
  RawClient client(proxy.port());
  client.Send(kGet);
  RawBackend& first = AwaitAny({&a, &b}) == 0 ? a : b;
  Stream failing = first.Accept();
  static_cast<void>(failing.ReadRequest());
  failing.Close();
  Stream peer = (&first == &a ? b : a).Accept();
  EXPECT_EQ(peer.ReadRequest().target, "/x?y=z");
  peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  EXPECT_EQ(client.ReadResponse().body, "ok");
}

// Targets.

TEST_F(HttpTest, OptionsAsteriskIsForwarded) {
  Exchange one = Begin("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(one.request.start_line, "OPTIONS * HTTP/1.1");
  one.peer.Send("HTTP/1.1 200 OK\r\nAllow: GET\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(one.client.ReadResponse().Field("Allow"), "GET");
}

TEST_F(HttpTest, AbsoluteFormIsForwardedInOriginForm) {
  Exchange one = Begin("GET http://a.example:80/p?q HTTP/1.1\r\nHost: a.example:80\r\n\r\n");
  EXPECT_EQ(one.request.start_line, "GET /p?q HTTP/1.1");
  EXPECT_EQ(one.request.Field("Host"), "a.example:80");
}

// A path is never taken for an address, whatever it looks like.
TEST_F(HttpTest, TargetsThatLookLikeAddressesAreRoutedByConfigAlone) {
  for (const std::string target : {"//169.254.169.254/latest", "/http://127.0.0.1:1/",
                                   "/a%0d%0aHost:%20b", "/@127.0.0.1:1/"}) {
    Exchange one = Begin("GET " + target + " HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(one.request.target, target);
    EXPECT_EQ(one.request.Count("Host"), 1U);
    EXPECT_EQ(one.request.Field("Host"), "a");
  }
}

TEST(HttpMethods, TraceAndConnectAre405) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  for (const char* line : {"TRACE / HTTP/1.1", "CONNECT a:80 HTTP/1.1"}) {
    RawClient client(proxy.port());
    client.Send(std::string(line) + "\r\nHost: a:80\r\n\r\n");
    const HttpMessage answer = client.ReadResponse();
    EXPECT_EQ(answer.status, 405) << line;
    EXPECT_TRUE(answer.Has("Allow")) << line;
  }
  EXPECT_EQ(backend.accepts(), 0U);
}

// Request smuggling: two parsers must never see two different messages.

struct SmugglingCase {
  const char* name;
  std::string request;
  int status = 400;
};

void PrintTo(const SmugglingCase& one, std::ostream* out) {
  *out << one.name;
}

std::string Post(std::string_view fields, std::string_view rest = "") {
  return "POST / HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "\r\n" + std::string(rest);
}

constexpr std::string_view kHidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";

class Smuggling : public testing::TestWithParam<SmugglingCase> {};

TEST_P(Smuggling, IsRefusedWhole) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RawClient client(proxy.port());
  client.Send(GetParam().request + std::string(kHidden));
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.status, GetParam().status) << answer.body;
  EXPECT_EQ(answer.Field("Connection"), "close");
  EXPECT_GT(answer.body.size(), 10U);
  client.FinishWrite();
  client.ExpectEnd();
  EXPECT_EQ(proxy.Metric("sluice_picks_total"), 0);
  EXPECT_EQ(backend.accepts(), 0U);
  EXPECT_EQ(backend.bytes(), 0U);
  proxy.AwaitMetric("sluice_http_parse_errors_total", 1);
}

INSTANTIATE_TEST_SUITE_P(
    Corpus, Smuggling,
    testing::Values(
        SmugglingCase{"LengthThenEncoding",
                      Post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nG")},
        SmugglingCase{"EncodingThenLength",
                      Post("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", "0\r\n\r\nG")},
        SmugglingCase{"TwoLengths", Post("Content-Length: 0\r\nContent-Length: 5\r\n", "hello")},
        SmugglingCase{"TwoEqualLengths",
                      Post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")},
        SmugglingCase{"LengthList", Post("Content-Length: 5, 5\r\n", "hello")},
        SmugglingCase{"LengthSigned", Post("Content-Length: +5\r\n", "hello")},
        SmugglingCase{"LengthHex", Post("Content-Length: 0x5\r\n", "hello")},
        SmugglingCase{"LengthWithSpace", Post("Content-Length: 5 5\r\n", "hello")},
        SmugglingCase{"LengthEmpty", Post("Content-Length: \r\n")},
        SmugglingCase{"LengthOverflow", Post("Content-Length: 18446744073709551621\r\n", "hello")},
        SmugglingCase{"EncodingIdentity", Post("Transfer-Encoding: identity\r\n")},
        SmugglingCase{"EncodingChunkedTwice",
                      Post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n")},
        SmugglingCase{"EncodingGzipChunked",
                      Post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")},
        SmugglingCase{
            "TwoEncodings",
            Post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n")},
        SmugglingCase{"EncodingQuoted", Post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n")},
        SmugglingCase{"EncodingVerticalTab", Post("Transfer-Encoding: \vchunked\r\n", "0\r\n\r\n")},
        SmugglingCase{"EncodingEmpty", Post("Transfer-Encoding:\r\n")},
        SmugglingCase{"EncodingInHttp10",
                      "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
        SmugglingCase{"SpaceBeforeColon", Post("Content-Length : 5\r\n", "hello")},
        SmugglingCase{"TabBeforeColon", Post("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n")},
        SmugglingCase{"ObsFold", Post("X: a\r\n Transfer-Encoding: chunked\r\n")},
        SmugglingCase{"LeadingFold", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"},
        SmugglingCase{"BareLf", "GET / HTTP/1.1\nHost: a\n\n"},
        SmugglingCase{"BareCr", Post("X: a\rTransfer-Encoding: chunked\r\n")},
        SmugglingCase{"BareLfInValue", Post("X: a\nTransfer-Encoding: chunked\r\n")},
        SmugglingCase{"Nul", Post(std::string_view("X: a\0b\r\n", 8))},
        // CVE-2023-25725: an empty name ended HAProxy's list of fields
        SmugglingCase{"EmptyName", Post(": a\r\nContent-Length: 5\r\n", "hello")},
        SmugglingCase{"NoColon", Post("Transfer-Encoding chunked\r\n")},
        SmugglingCase{"NonTokenName", Post("Transfer-Encoding[]: chunked\r\n")},
        SmugglingCase{"HighByteInName", Post("Transfer-Encod\xC4\xB1ng: chunked\r\n")},
        // CVE-2021-40346: a name longer than 255 bytes wrapped HAProxy's length
        SmugglingCase{"HugeName",
                      Post(std::string(40'000, 'a') + ": b\r\nContent-Length: 5\r\n", "hello"),
                      431},
        SmugglingCase{"TwoHosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
        SmugglingCase{"HostWithPath", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"},
        SmugglingCase{"HostWithUser", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"},
        SmugglingCase{"HostDiffersFromTarget", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"},
        SmugglingCase{"NoHost", "GET / HTTP/1.1\r\n\r\n"},
        SmugglingCase{"TwoSpaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"},
        SmugglingCase{"TabInLine", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"},
        SmugglingCase{"NoVersion", "GET /\r\nHost: a\r\n\r\n"},
        SmugglingCase{"Version20", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"},
        SmugglingCase{"Version12", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"},
        SmugglingCase{"VersionLowerCase", "GET / http/1.1\r\nHost: a\r\n\r\n"},
        SmugglingCase{"Preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
        SmugglingCase{"Fragment", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n"},
        SmugglingCase{"AsteriskOfGet", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"},
        SmugglingCase{"TlsToPlainPort", std::string("\x16\x03\x01\x00\xA5\x01", 6) + "\r\n\r\n"}),
    [](const auto& row) { return std::string(row.param.name); });

// A field name of 300 bytes is only long: it passes, and hides nothing.
TEST_F(HttpTest, LongFieldNamePassesWhole) {
  const std::string name(300, 'n');
  Exchange one =
      Begin("POST / HTTP/1.1\r\nHost: a\r\n" + name + ": v\r\nContent-Length: 5\r\n\r\nhello");
  EXPECT_EQ(one.request.Field(name), "v");
  EXPECT_EQ(one.request.body, "hello");
}

// What a backend says badly is never passed on.
TEST_F(HttpTest, MalformedResponseIs502) {
  for (const char* response :
       {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "HTTP/1.1 200 OK\nX: a\n\n",
        "HTTP/1.1 20 OK\r\n\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.1 200 OK\r\n: x\r\n\r\n"}) {
    Exchange one = Begin(kGet);
    one.peer.Send(response);
    EXPECT_EQ(one.client.ReadResponse().status, 502) << response;
    one.peer.AwaitEnd();
  }
}

}  // namespace
}  // namespace sluice::test
