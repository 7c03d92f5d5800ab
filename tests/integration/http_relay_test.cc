// What RFC 9110 and RFC 9112 ask of a proxy for plain HTTP beyond passing content on: who may be
// told what by which version, which fields go no further than one hop, and what an answer means
// that comes before its request has ended. http_test.cc has the content itself, http_abuse_test.cc
// what clients try.
#include <signal.h>

#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "tests/support/proxy_process.h"
#include "tests/support/raw_backend.h"
#include "tests/support/raw_client.h"

namespace sluice::test {
namespace {

class HttpRelay : public testing::Test {
 protected:
  // The backend's side of a request that has reached it.
  Stream Serve(std::string_view answer, HttpMessage* request = nullptr) {
    Stream peer = backend_.Accept();
    HttpMessage got = peer.ReadRequest();
    if (request != nullptr) {
      *request = got;
    }
    peer.Send(answer);
    return peer;
  }

  void ExpectNextRequestIsServed(RawClient& client) {
    client.Send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    HttpMessage request;
    const Stream peer = Serve("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext", &request);
    EXPECT_EQ(request.target, "/next");
    EXPECT_EQ(client.ReadResponse().body, "next");
  }

  RawBackend backend_;
  // Each request on a connection of its own.
  ProxyProcess proxy_{Config{.backends = {backend_.port()}, .pool = "keep_alive.max_idle = 0\n"}};
};

constexpr std::string_view kGet = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

// RFC 9110 section 8.6: a 204 has no Content-Length; section 15.4.5: that of a 304 announces
// nothing.
TEST_F(HttpRelay, LengthOfAnAnswerWithoutContentIsNotWaitedFor) {
  RawClient client(proxy_.port());
  client.Send(kGet);
  const Stream no_content = Serve("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n");
  EXPECT_FALSE(client.ReadResponse().Has("Content-Length"));
  client.Send(kGet);
  const Stream not_modified = Serve("HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().Field("Content-Length"), "1000");
  client.Send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n");
  const Stream head = Serve("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
  EXPECT_EQ(client.ReadResponse("HEAD").status, 200);
  ExpectNextRequestIsServed(client);
}

// Content where none may be is somebody else's answer to whoever believes it.
TEST_F(HttpRelay, ContentOfAnAnswerWithoutContentGoesNowhere) {
  constexpr std::string_view kStray = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
  RawClient client(proxy_.port());
  for (const char* head : {"HTTP/1.1 204 No Content\r\n\r\n",
                           "HTTP/1.1 304 Not Modified\r\nContent-Length: 45\r\n\r\n",
                           "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}) {
    client.Send(kGet);
    Stream peer = Serve(head + std::string(kStray));
    EXPECT_EQ(client.ReadResponse().body, "") << head;
    static_cast<void>(peer.AwaitEnd());
  }
  client.Send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n");
  Stream peer = Serve("HTTP/1.1 200 OK\r\nContent-Length: 45\r\n\r\n" + std::string(kStray));
  EXPECT_EQ(client.ReadResponse("HEAD").status, 200);
  static_cast<void>(peer.AwaitEnd());
  ExpectNextRequestIsServed(client);
}

// RFC 9110 section 15.6.3: it was reached, however often the request may be sent.
// RFC 9110 section 6.6.1.
TEST_F(HttpRelay, EveryAnswerHasADate) {
  RawClient client(proxy_.port());
  client.Send(kGet);
  const Stream peer = Serve("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().Field("Date").size(), 29U);
  client.Send(kGet);
  const Stream dated = Serve("HTTP/1.1 200 OK\r\nDate: today\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().Field("Date"), "today");
  client.Send("GARBAGE\r\n\r\n");  // Sluice's own
  EXPECT_EQ(client.ReadResponse().Field("Date").size(), 29U);
  EXPECT_EQ(proxy_.Ask("GET", "/healthz").Field("Date").size(), 29U);
}

// It has to be told from an answer that came whole, also when nothing of it had gone out yet.
TEST_F(HttpRelay, AnAnswerThatIsMalformedInItsFirstPieceIsA502) {
  RawClient client(proxy_.port());
  client.Send(kGet);
  const Stream peer =
      Serve("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nnonsense\r\n");
  EXPECT_EQ(client.ReadResponse().status, 502);
  client.ExpectEnd();
}

// Whatever becomes of the next one: one has had the request.
TEST(HttpRetry, IsA502WhereOneBackendClosedAndTheOtherRefuses) {
  RawBackend closes;
  RawBackend refuses;
  const ProxyProcess proxy(
      Config{.backends = {closes.port(), refuses.port()}, .pool = "balance = \"round_robin\""});
  refuses.StopListening();
  for (int i = 0; i < 2; ++i) {  // each is the first once
    RawClient client(proxy.port());
    client.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    {
      Stream peer = closes.Accept();
      static_cast<void>(peer.ReadRequest());
    }
    EXPECT_EQ(client.ReadResponse().status, 502);
  }
}

TEST_F(HttpRelay, ABackendThatClosesWithoutAnAnswerIsA502) {
  for (const std::string method : {"GET", "POST"}) {
    RawClient client(proxy_.port());
    client.Send(method + " /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    static_cast<void>(Serve("HTTP/1.1 2"));
    const HttpMessage answer = client.ReadResponse();
    EXPECT_EQ(answer.status, 502) << method;
    EXPECT_FALSE(answer.Has("Retry-After"));
  }
}

// HTTP/1.0 (RFC 9110 sections 6.2, 15.2; RFC 9112 sections 6.1, 9.3).

TEST_F(HttpRelay, Http10ClientIsToldOfNothingInterim) {
  RawClient client(proxy_.port());
  client.Send(
      "POST /old HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi");
  const Stream peer = Serve(
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  EXPECT_EQ(client.ReadResponse().body, "ok");
  client.ExpectEnd();
}

// Without chunks and without a length the end of the connection is the end of the content.
TEST_F(HttpRelay, Http10ClientLearnsOfACutByAReset) {
  for (const char* rest : {"", "5\r\nwo", "nonsense\r\n"}) {
    RawClient client(proxy_.port());
    client.Send("GET /old HTTP/1.0\r\nHost: a\r\n\r\n");
    Stream peer = Serve("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    static_cast<void>(client.ReadUntil("hello"));
    peer.Send(rest);
    peer.Close();
    client.ExpectReset();
  }
}

// The backend resets the connection while its answer comes and the request goes on. The process
// stands still until both wait for it, so that it is often writing that is told of the reset.
TEST_F(HttpRelay, Http10ClientLearnsOfACutThatItsRequestRanInto) {
  RawClient client(proxy_.port());
  client.Send("POST /old HTTP/1.0\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf");
  Stream peer = backend_.Accept();
  static_cast<void>(peer.ReadHead());
  static_cast<void>(peer.ReadExactly(4));
  peer.Send("HTTP/1.1 200 OK\r\n\r\nhello");
  static_cast<void>(client.ReadUntil("hello"));
  proxy_.Signal(SIGSTOP);
  client.Send("rest");
  peer.Reset();
  proxy_.Signal(SIGCONT);
  client.ExpectReset();
}

TEST(HttpRelayDrain, Http10ClientLearnsOfACutAtTheDeadlineByAReset) {
  RawBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .drain = "window = \"0s\"\ngrace = \"300ms\""});
  RawClient client(proxy.port());
  client.Send("GET /old HTTP/1.0\r\nHost: a\r\n\r\n");
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  peer.Send("HTTP/1.1 200 OK\r\n\r\nhello");
  static_cast<void>(client.ReadUntil("hello"));
  proxy.Signal(SIGTERM);
  client.ExpectReset();
  EXPECT_EQ(proxy.Wait(), 0) << proxy.err();
}

TEST_F(HttpRelay, Http10ConnectionEndsBehindOurOwnAnswerToo) {
  RawClient client(proxy_.port());
  client.Send("GET /old HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
  const Stream peer = Serve("nonsense\r\n\r\n");
  EXPECT_EQ(client.ReadToEnd().substr(0, 12), "HTTP/1.1 502");
}

// Fields of one hop (RFC 9110 section 7.6.1).

TEST_F(HttpRelay, FieldsThatConnectionNamesAreDroppedBothWays) {
  RawClient client(proxy_.port());
  client.Send(
      "GET /x HTTP/1.1\r\nHost: a\r\nConnection: x-hop ,, X-Other,keep-alive\r\nX-Hop: 1\r\n"
      "x-other: 2\r\nX-Stays: 3\r\nKeep-Alive: timeout=9\r\nProxy-Connection: keep-alive\r\n\r\n");
  HttpMessage request;
  const Stream peer = Serve(
      "HTTP/1.1 200 OK\r\nConnection: X-Back\r\nX-Back: 1\r\nX-Stays: 4\r\n"
      "Keep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok",
      &request);
  for (const char* name : {"X-Hop", "X-Other", "Keep-Alive", "Proxy-Connection"}) {
    EXPECT_FALSE(request.Has(name)) << request.head;
  }
  EXPECT_EQ(request.Field("X-Stays"), "3");
  const HttpMessage answer = client.ReadResponse();
  for (const char* name : {"X-Back", "Keep-Alive", "Connection"}) {
    EXPECT_FALSE(answer.Has(name)) << answer.head;
  }
  EXPECT_EQ(answer.Field("X-Stays"), "4");
}

// RFC 9110 section 6.5.1: what a trailer says about framing, routing or identity is not believed,
// and so nobody behind Sluice gets the chance.
TEST_F(HttpRelay, TrailersAreDroppedBothWays) {
  RawClient client(proxy_.port());
  client.Send(
      "POST /x HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum, Host\r\nTransfer-Encoding: chunked\r\n\r\n"
      "2\r\nhi\r\n0\r\nX-Sum: 1\r\nHost: other\r\nContent-Length: 7\r\n\r\n");
  Stream peer = backend_.Accept();
  const HttpMessage request = peer.ReadHead();
  EXPECT_FALSE(request.Has("Trailer"));
  EXPECT_EQ(request.Field("Host"), "a");
  constexpr std::string_view kChunks = "2\r\nhi\r\n0\r\n\r\n";
  EXPECT_EQ(peer.ReadExactly(kChunks.size()), kChunks);
  peer.Send(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
      "2\r\nok\r\n0\r\nX-Sum: 1\r\nContent-Length: 7\r\n\r\n");
  EXPECT_FALSE(client.ReadHead().Has("Trailer"));
  constexpr std::string_view kBack = "2\r\nok\r\n0\r\n\r\n";
  EXPECT_EQ(client.ReadExactly(kBack.size()), kBack);
  ExpectNextRequestIsServed(client);
}

// Content-Length of a request is written from what was read, leading zeros and all.
TEST_F(HttpRelay, LengthsGoOnAsTheNumbersThatTheyAre) {
  RawClient client(proxy_.port());
  client.Send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0002\r\n\r\nhi");
  HttpMessage request;
  const Stream peer = Serve("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", &request);
  EXPECT_EQ(request.Field("Content-Length"), "2");
  EXPECT_EQ(request.body, "hi");
  EXPECT_EQ(client.ReadResponse().body, "ok");
}

// Connections to backends that are kept (RFC 9112 section 9.2): what nobody has asked for is no
// answer, and whoever is given the connection next must not take it for one.

TEST(HttpRelayKept, BytesThatNobodyAskedForAreNobodysAnswer) {
  constexpr std::string_view kStray = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
  for (const bool stray_first : {true, false}) {
    SCOPED_TRACE(stray_first);
    RawBackend backend;
    ProxyProcess proxy(Config{.backends = {backend.port()}, .workers = 1});
    RawClient client(proxy.port());
    client.Send(kGet);
    Stream peer = backend.Accept();
    static_cast<void>(peer.ReadRequest());
    peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none");
    EXPECT_EQ(client.ReadResponse().body, "one");
    // Both are there when the loop looks next; it deals with the first one first.
    proxy.Stop();
    if (stray_first) {
      peer.Send(kStray);
    }
    client.Send(kGet);
    if (!stray_first) {
      peer.Send(kStray);
    }
    proxy.Continue();
    ASSERT_TRUE(backend.HasConnection(Millis(5000))) << "the old connection was used again";
    Stream next = backend.Accept();
    static_cast<void>(next.ReadRequest());
    next.Send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo");
    EXPECT_EQ(client.ReadResponse().body, "two");
  }
}

TEST(HttpRelayKept, AConnectionWithBytesBehindItsAnswerServesNobodyElse) {
  for (const char* answer :
       {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\noneHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n0\r\n\r\n"}) {
    SCOPED_TRACE(answer);
    RawBackend backend;
    ProxyProcess proxy(Config{.backends = {backend.port()}, .workers = 1});
    RawClient client(proxy.port());
    client.Send(std::string(kGet) + std::string(kGet));
    Stream peer = backend.Accept();
    static_cast<void>(peer.ReadRequest());
    peer.Send(answer);
    EXPECT_EQ(client.ReadResponse().status / 100, 2);
    Stream next = backend.Accept();
    static_cast<void>(next.ReadRequest());
    static_cast<void>(peer.AwaitEnd());
    next.Send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo");
    EXPECT_EQ(client.ReadResponse().body, "two");
  }
}

// Expect (RFC 9110 section 10.1.1).

TEST_F(HttpRelay, ContentThatIsNotWaitedForNeedsNoContinue) {
  RawClient client(proxy_.port());
  client.Send(
      "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
  HttpMessage request;
  const Stream peer = Serve("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", &request);
  EXPECT_EQ(request.body, "hello");
  EXPECT_EQ(client.ReadResponse().status, 200);
  ExpectNextRequestIsServed(client);
}

TEST_F(HttpRelay, ARefusalInPlaceOfContinueEndsTheConnection) {
  RawClient client(proxy_.port());
  client.Send("POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 45\r\n\r\n");
  Stream peer = backend_.Accept();
  static_cast<void>(peer.ReadHead());
  peer.Send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno");
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.status, 417);
  EXPECT_EQ(answer.Field("Connection"), "close") << "nobody can tell whether the content will come";
  // If it comes all the same it is no request.
  client.Send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n..........");
  client.ExpectEnd();
  EXPECT_EQ(peer.ReadToEnd(), "");
  EXPECT_FALSE(backend_.HasConnection(Millis(0)));
}

// An answer before the end of its request (RFC 9112 section 9.5).

TEST_F(HttpRelay, AnAnswerBeforeTheEndOfItsRequestArrivesAndIsTheLast) {
  for (const bool chunked : {false, true}) {
    RawClient client(proxy_.port());
    client.Send(std::string("POST /x HTTP/1.1\r\nHost: a\r\n") +
                (chunked ? "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
                         : "Content-Length: 1000\r\n\r\nhello"));
    Stream peer = backend_.Accept();
    static_cast<void>(peer.ReadHead());
    peer.Send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmore");
    const HttpMessage answer = client.ReadResponse();
    EXPECT_EQ(answer.status, 413);
    EXPECT_EQ(answer.body, "more");
    EXPECT_EQ(answer.Field("Connection"), "close");
    // What the rest of the content looks like makes no difference.
    client.Send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    client.ExpectEnd();
    static_cast<void>(peer.AwaitEnd());
    EXPECT_FALSE(backend_.HasConnection(Millis(0)));
  }
}

TEST_F(HttpRelay, AnAnswerThatStreamsWhileItsRequestDoesIsWhole) {
  RawClient client(proxy_.port());
  client.Send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nping\r\n");
  Stream peer = backend_.Accept();
  static_cast<void>(peer.ReadHead());
  EXPECT_EQ(peer.ReadChunk(), "ping");
  peer.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npong\r\n");
  EXPECT_EQ(client.ReadHead().status, 200);
  EXPECT_EQ(client.ReadChunk(), "pong");
  client.Send("4\r\nping\r\n0\r\n\r\n");
  EXPECT_EQ(peer.ReadChunk(), "ping");
  EXPECT_EQ(peer.ReadChunk(), "");
  peer.Send("4\r\npong\r\n0\r\n\r\n");
  EXPECT_EQ(client.ReadChunk(), "pong");
  EXPECT_EQ(client.ReadChunk(), "");
}

}  // namespace
}  // namespace sluice::test
