// Connections to backends are kept for further plain requests, and only where nobody can lose or
// mix up anything by it; connections of clients are kept within limits, and a client that has left
// takes its request with it.
#include <poll.h>

#include <future>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/base/clock.h"

#include "tests/support/proxy_process.h"
#include "tests/support/raw_backend.h"
#include "tests/support/raw_client.h"

namespace sluice::test {
namespace {

constexpr std::string_view kGet = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
constexpr const char* kReused = "sluice_backend_reused_total{backend=\"b0\",pool=\"app\"}";
constexpr const char* kStale = "sluice_backend_stale_total{backend=\"b0\",pool=\"app\"}";
constexpr const char* kIdle = "sluice_backend_idle_connections{backend=\"b0\",pool=\"app\"}";

// One worker: what one has left, another one does not find.
Config OneWorker(const RawBackend& backend,
                 std::string pool = "keep_alive.idle_timeout = \"30s\"") {
  return {.backends = {backend.port()}, .workers = 1, .pool = std::move(pool)};
}

std::string Gets(int count) {
  std::string all;
  for (int i = 0; i < count; ++i) {
    all += kGet;
  }
  return all;
}

std::string OkOf(std::size_t size) {
  return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(size) + "\r\n\r\n" +
         std::string(size, 'x');
}

HttpMessage Serve(RawClient& client, Stream& peer, std::string_view request = kGet,
                  std::string_view answer = kOk) {
  client.Send(request);
  static_cast<void>(peer.ReadRequest());
  peer.Send(answer);
  return client.ReadResponse();
}

// A first request, with what `behind` it comes in the same packet, is answered. Returns the
// backend's end.
Stream ServeFirst(RawClient& client, RawBackend& backend, const std::string& behind = {}) {
  client.Send(std::string(kGet) + behind);
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  peer.Send(kOk);
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, "ok");
  EXPECT_FALSE(answer.Has("Connection"));
  return peer;
}

class KeepAliveTest : public testing::Test {
 protected:
  // A first request has been answered, and its connection was left.
  KeepAliveTest() {
    client_.Send(kGet);
    peer_ = backend_.Accept();
    const HttpMessage request = peer_.ReadRequest();
    EXPECT_FALSE(request.Has("Connection")) << request.head;
    peer_.Send(kOk);
    EXPECT_EQ(client_.ReadResponse().body, "ok");
    proxy_.AwaitMetric(kIdle, 1);
  }

  RawBackend backend_;
  ProxyProcess proxy_{OneWorker(backend_)};
  RawClient client_{proxy_.port()};
  Stream peer_;
};

TEST_F(KeepAliveTest, FurtherRequestsOfAnyClientGoOverTheSameConnection) {
  EXPECT_EQ(Serve(client_, peer_).body, "ok");
  RawClient other(proxy_.port());
  EXPECT_EQ(Serve(other, peer_, "POST /p HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\nabc").body,
            "ok");
  EXPECT_EQ(
      Serve(other, peer_, "HEAD /h HTTP/1.1\r\nHost: b\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n")
          .status,
      204);
  EXPECT_EQ(
      Serve(client_, peer_, kGet,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nT: x\r\n\r\n")
          .body,
      "ok");
  EXPECT_EQ(Serve(client_, peer_).body, "ok");
  proxy_.AwaitMetric(kReused, 5);
  EXPECT_FALSE(backend_.HasConnection(Millis(0)));
}

TEST_F(KeepAliveTest, TwoAtATimeHaveAConnectionEach) {
  client_.Send(kGet);
  static_cast<void>(peer_.ReadRequest());
  RawClient other(proxy_.port());
  other.Send(kGet);
  Stream second = backend_.Accept();
  static_cast<void>(second.ReadRequest());
  second.Send(kOk);
  EXPECT_EQ(other.ReadResponse().body, "ok");
  peer_.Send(kOk);
  EXPECT_EQ(client_.ReadResponse().body, "ok");
  proxy_.AwaitMetric(kIdle, 2);
}

// What must not be a state of the connection in which another client's request is put.
struct LastAnswer {
  const char* name;
  std::string answer;
};

void PrintTo(const LastAnswer& one, std::ostream* out) {
  *out << one.name;
}

class LastAnswerTest : public KeepAliveTest, public testing::WithParamInterface<LastAnswer> {};

TEST_P(LastAnswerTest, IsFollowedByANewConnection) {
  client_.Send(kGet);
  static_cast<void>(peer_.ReadRequest());
  peer_.Send(GetParam().answer);
  EXPECT_EQ(client_.ReadResponse().status, 200);
  peer_.ExpectEnd();
  proxy_.AwaitMetric(kIdle, 0);
  client_.Send(kGet);
  Stream next = backend_.Accept();
  static_cast<void>(next.ReadRequest());
  next.Send(kOk);
  EXPECT_EQ(client_.ReadResponse().body, "ok");
}

INSTANTIATE_TEST_SUITE_P(
    Answers, LastAnswerTest,
    testing::Values(
        LastAnswer{"Close", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"},
        LastAnswer{"Http10", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"},
        LastAnswer{"BytesBehindLength", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP"},
        LastAnswer{"BytesBehindEmpty", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nx"},
        LastAnswer{"SecondAnswer", std::string(kOk) + std::string(kOk)},
        LastAnswer{"BytesBehindChunks",
                   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx"},
        LastAnswer{"AnnouncedShort",
                   "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 0\r\n\r\n"}),
    [](const auto& one) { return std::string(one.param.name); });

// Authentication that holds for a connection: the next one there would be taken for its user.
TEST_F(KeepAliveTest, AnAuthenticatedConnectionIsNobodyElses) {
  for (const char* scheme : {"NTLM TlRMTVNTUAAB", "negotiate YII=", "Negotiate"}) {
    client_.Send("GET /a HTTP/1.1\r\nHost: a\r\nAuthorization: " + std::string(scheme) +
                 "\r\n\r\n");
    Stream own = backend_.Accept();
    EXPECT_EQ(own.ReadRequest().Field("Connection"), "close");
    own.Send(kOk);
    EXPECT_EQ(client_.ReadResponse().body, "ok");
    own.ExpectEnd();
  }
  EXPECT_EQ(
      Serve(client_, peer_, "GET /b HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n\r\n").body,
      "ok");
  client_.Send(kGet);
  static_cast<void>(peer_.ReadRequest());
  peer_.Send(
      "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nWWW-Authenticate: NTLM\r\n"
      "Content-Length: 0\r\n\r\n");
  EXPECT_EQ(client_.ReadResponse().status, 401);
  peer_.ExpectEnd();
}

TEST_F(KeepAliveTest, AnAnswerBeforeTheRequestIsCompleteIsTheLast) {
  client_.Send("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
  static_cast<void>(peer_.ReadHead());
  peer_.Send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(client_.ReadResponse().status, 413);
  static_cast<void>(peer_.AwaitEnd());
  client_.ExpectEnd();
}

TEST_F(KeepAliveTest, AnUpgradeGetsAConnectionOfItsOwnAndLeavesNone) {
  client_.Send(
      "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
  Stream fresh = backend_.Accept();
  static_cast<void>(fresh.ReadRequest());
  fresh.Send("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(client_.ReadResponse().status, 426);
  fresh.ExpectEnd();
  EXPECT_EQ(Serve(client_, peer_).body, "ok");
}

TEST_F(KeepAliveTest, OneThatEndedIsNotedAtOnce) {
  peer_.Close();
  proxy_.AwaitMetric(kIdle, 0);
  client_.Send("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
  Stream next = backend_.Accept();
  EXPECT_EQ(next.ReadRequest().body, "x");
  next.Send(kOk);
  EXPECT_EQ(client_.ReadResponse().body, "ok");
  EXPECT_EQ(proxy_.Metric(kStale), 0);
}

TEST_F(KeepAliveTest, WordsThatNobodyAskedForEndIt) {
  peer_.Send(kOk);
  static_cast<void>(peer_.AwaitEnd());
  proxy_.AwaitMetric(kIdle, 0);
}

// The backend closes in the moment in which the request is on its way: it goes once more, to the
// same backend, when it may be repeated.
TEST_F(KeepAliveTest, AStaleConnectionCostsARepeatableRequestNothing) {
  for (const char* method : {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}) {
    client_.Send(std::string(method) + " /again HTTP/1.1\r\nHost: a\r\n\r\n");
    static_cast<void>(peer_.ReadRequest());
    peer_.Close();
    Stream next = backend_.Accept();
    EXPECT_EQ(next.ReadRequest().method, method);
    next.Send("HTTP/1.1 204 No Content\r\n\r\n");
    EXPECT_EQ(client_.ReadResponse().status, 204);
    proxy_.AwaitMetric(kIdle, 1);
    peer_ = std::move(next);
  }
  proxy_.AwaitMetric(kStale, 5);
  EXPECT_EQ(
      proxy_.Metric("sluice_backend_failures_total{backend=\"b0\",pool=\"app\",reason=\"reset\"}"),
      0)
      << "it is no fault of the backend";
}

// Its content too, as far as it was kept.
TEST_F(KeepAliveTest, AStaleConnectionCostsARepeatableRequestWithContentNothing) {
  const std::string most(16384, 'x');
  const std::string begin = "PUT /again HTTP/1.1\r\nHost: a\r\n";
  for (const auto& [first, second, content] :
       {std::tuple(begin + "Content-Length: 3\r\n\r\nabc", "", "abc"),
        {begin + "Content-Length: 5\r\n\r\nab", "cde", "abcde"},
        {begin + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "3\r\ncde\r\n0\r\n\r\n", "abcde"},
        {begin + "Content-Length: 16384\r\n\r\n" + most, "", most.c_str()}}) {
    client_.Send(first);
    static_cast<void>(peer_.ReadHead());
    const std::size_t at = first.find("\r\n\r\n") + 4;
    static_cast<void>(peer_.ReadExactly(first.size() - at));
    peer_.Close();
    Stream next = backend_.Accept();
    client_.Send(second);
    const HttpMessage again = next.ReadRequest();
    EXPECT_EQ(again.method, "PUT");
    EXPECT_EQ(again.body, content);
    next.Send(kOk);
    EXPECT_EQ(client_.ReadResponse().status, 200);
    proxy_.AwaitMetric(kIdle, 1);
    peer_ = std::move(next);
  }
  proxy_.AwaitMetric(kStale, 4);

  client_.Send(begin + "Content-Length: 16385\r\n\r\n" + most + "x");
  static_cast<void>(peer_.ReadRequest());
  peer_.Close();
  EXPECT_EQ(client_.ReadResponse().status, 502);
  EXPECT_FALSE(backend_.HasConnection(Millis(50)));
}

TEST_F(KeepAliveTest, AStaleConnectionFailsWhatMustNotBeRepeated) {
  client_.Send("POST /pay HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1");
  static_cast<void>(peer_.ReadRequest());
  peer_.Close();
  EXPECT_EQ(client_.ReadResponse().status, 502);
  EXPECT_FALSE(backend_.HasConnection(Millis(50)));
}

TEST_F(KeepAliveTest, OnlyTheReusedConnectionIsForgivenItsEnd) {
  client_.Send("DELETE /d HTTP/1.1\r\nHost: a\r\n\r\n");
  static_cast<void>(peer_.ReadRequest());
  peer_.Close();
  Stream next = backend_.Accept();
  static_cast<void>(next.ReadRequest());
  next.Close();
  EXPECT_EQ(client_.ReadResponse().status, 502);
  EXPECT_FALSE(backend_.HasConnection(Millis(50)));
}

TEST_F(KeepAliveTest, AHalfAnswerIsNotAStaleConnection) {
  client_.Send("DELETE /d HTTP/1.1\r\nHost: a\r\n\r\n");
  static_cast<void>(peer_.ReadRequest());
  peer_.Send("HTTP/1.1 200 O");
  peer_.Close();
  EXPECT_EQ(client_.ReadResponse().status, 502);
  EXPECT_FALSE(backend_.HasConnection(Millis(50)));
}

TEST_F(KeepAliveTest, ADrainOfTheBackendEndsIt) {
  EXPECT_EQ(proxy_.Ask("POST", "/backends/app/b0/drain?window=0s&force=true").status, 202);
  peer_.ExpectEnd();
  proxy_.AwaitMetric(kIdle, 0);
}

TEST_F(KeepAliveTest, AReloadEndsIt) {
  proxy_.Configure(OneWorker(backend_, "keep_alive.max_idle = 3"));
  proxy_.Signal(SIGHUP);
  peer_.ExpectEnd();
  client_.Send(kGet);
  Stream next = backend_.Accept();
  static_cast<void>(next.ReadRequest());
  next.Send(kOk);
  EXPECT_EQ(client_.ReadResponse().body, "ok");
}

// The one that is under way belongs to the configuration before.
TEST_F(KeepAliveTest, AConnectionUnderWayInAReloadIsNotKept) {
  client_.Send(kGet);
  static_cast<void>(peer_.ReadRequest());
  proxy_.Configure(OneWorker(backend_, "keep_alive.max_idle = 3"));
  proxy_.Signal(SIGHUP);
  proxy_.AwaitMetric("sluice_reloads_total{result=\"success\"}", 1);
  RawClient later(proxy_.port());  // the worker has the new one when this one is served by it
  later.Send(kGet);
  Stream fresh = backend_.Accept();
  static_cast<void>(fresh.ReadRequest());
  fresh.Send(kOk);
  EXPECT_EQ(later.ReadResponse().body, "ok");
  peer_.Send(kOk);
  EXPECT_EQ(client_.ReadResponse().body, "ok");
  peer_.ExpectEnd();
}

TEST(KeepAlive, NoMoreAreKeptThanMayBe) {
  RawBackend backend;
  ProxyProcess proxy(OneWorker(backend, "keep_alive = { max_idle = 2, idle_timeout = \"30s\" }"));
  std::vector<RawClient> clients;
  std::vector<Stream> peers;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back(proxy.port());
    clients.back().Send(kGet);
    peers.push_back(backend.Accept());
    static_cast<void>(peers.back().ReadRequest());
  }
  for (std::size_t i = 0; i < 4; ++i) {
    peers[i].Send(kOk);
    EXPECT_EQ(clients[i].ReadResponse().body, "ok");
  }
  peers[2].ExpectEnd();
  peers[3].ExpectEnd();
  proxy.AwaitMetric(kIdle, 2);
}

TEST(KeepAlive, EndsAfterItsIdleTime) {
  RawBackend backend;
  ProxyProcess proxy(OneWorker(backend, "keep_alive.idle_timeout = \"10ms\""));
  RawClient client(proxy.port());
  client.Send(kGet);
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  peer.Send(kOk);
  EXPECT_EQ(client.ReadResponse().body, "ok");
  peer.ExpectEnd();
}

TEST(KeepAlive, OffMeansThatTheBackendIsToldSo) {
  for (const char* pool : {"keep_alive.max_idle = 0", "proxy_protocol = \"v1\""}) {
    RawBackend backend;
    ProxyProcess proxy(OneWorker(backend, pool));
    RawClient client(proxy.port());
    client.Send(kGet);
    Stream peer = backend.Accept();
    if (pool == std::string("proxy_protocol = \"v1\"")) {
      static_cast<void>(peer.ReadUntil("\r\n"));
    }
    EXPECT_EQ(peer.ReadRequest().Field("Connection"), "close") << pool;
    peer.Send(kOk);
    EXPECT_EQ(client.ReadResponse().body, "ok");
    peer.ExpectEnd();
  }
}

// What waits to be served is no head that is not complete.
TEST(KeepAlive, AClientThatReadsSlowlyGetsAllAnswers) {
  constexpr int kRequests = 60;
  constexpr std::size_t kSize = 60'000;
  RawBackend backend;
  Config config = OneWorker(backend);
  config.server = "keep_alive_timeout = \"300ms\"";
  ProxyProcess proxy(config);
  RawClient client(proxy.port(), {.small_buffers = true});
  client.Send(Gets(kRequests));
  Stream peer = backend.Accept();
  const std::string answer = OkOf(kSize);
  const auto writer = std::async(std::launch::async, [&] {
    for (int i = 0; i < kRequests; ++i) {
      static_cast<void>(peer.ReadRequest());
      peer.Send(answer);
    }
  });
  for (int i = 0; i < kRequests; ++i) {
    const HttpMessage got = client.ReadResponse();
    ASSERT_EQ(got.status, 200) << i;
    ASSERT_EQ(got.body.size(), kSize);
    static_cast<void>(::poll(nullptr, 0, 20));  // the pace
  }
}

TEST(KeepAlive, AHeadThatBeganBehindAnotherRequestHasItsOwnTime) {
  RawBackend backend;
  Config config = OneWorker(backend);
  config.server = "header_timeout = \"300ms\"\nkeep_alive_timeout = \"20s\"";
  ProxyProcess proxy(config);
  RawClient client(proxy.port());
  const Stream peer = ServeFirst(client, backend, "GET /half HT");
  const auto from = Now();
  EXPECT_EQ(client.ReadResponse().status, 408);
  EXPECT_LT(Now() - from, Millis(2000));
}

// RFC 9112 section 2.2: an empty line behind a request is not the start of another one.
TEST(KeepAlive, AnEmptyLineIsNoHead) {
  RawBackend backend;
  Config config = OneWorker(backend);
  config.server = "header_timeout = \"100ms\"\nkeep_alive_timeout = \"400ms\"";
  ProxyProcess proxy(config);
  RawClient client(proxy.port());
  const Stream peer = ServeFirst(client, backend, "\r\n");
  client.ExpectEnd();  // idle for too long, and nothing to be said about it
}

// Neither is half of one, and many of them are no way to stay.
TEST(KeepAlive, EmptyLinesByHalvesDoNotKeepAConnection) {
  RawBackend backend;
  Config config = OneWorker(backend);
  config.server = "header_timeout = \"400ms\"\nkeep_alive_timeout = \"400ms\"";
  ProxyProcess proxy(config);
  RawClient client(proxy.port());
  const Stream peer = ServeFirst(client, backend);
  const Deadline deadline(Millis(5000));
  for (bool half = true; !client.HasInput(Millis(100)); half = !half) {
    ASSERT_FALSE(deadline.passed());
    client.Send(half ? "\r" : "\n");
  }
  client.ExpectEnd();
}

TEST(KeepAlive, HalfAnEmptyLineGivesTheFirstHeadNoFurtherTime) {
  RawBackend backend;
  Config config = OneWorker(backend);
  config.server = "header_timeout = \"2s\"";
  ProxyProcess proxy(config);
  const auto from = Now();
  RawClient client(proxy.port());
  client.Send("\r");
  EXPECT_FALSE(client.HasInput(Millis(1500)));
  client.Send("\nG");
  EXPECT_EQ(client.ReadResponse().status, 408);
  EXPECT_LT(Now() - from, Millis(3000));
}

// A backend that an idle connection has led to is not asked again as if its own had been stale.
TEST(KeepAlive, OnlyAConnectionThatWasIdleIsStale) {
  RawBackend first;
  RawBackend second;
  Config config = OneWorker(first);
  config.backends = {first.port(), second.port()};
  config.pool = "balance = \"round_robin\"\nkeep_alive.idle_timeout = \"30s\"\nslow_start = \"0s\"";
  config.route = "retries = 1";
  ProxyProcess proxy(config);
  RawClient client(proxy.port());
  client.Send(kGet);
  const bool is_first = AwaitAny({&first, &second}) == 0;
  RawBackend& other = is_first ? second : first;
  Stream idle = (is_first ? first : second).Accept();
  static_cast<void>(idle.ReadRequest());
  idle.Send(kOk);
  EXPECT_EQ(client.ReadResponse().body, "ok");
  // In turn the other one is next, and then the first again.
  client.Send(kGet);
  {
    Stream peer = other.Accept();
    static_cast<void>(peer.ReadRequest());
    peer.Send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    EXPECT_EQ(client.ReadResponse().body, "ok");
  }
  client.Send(kGet);
  static_cast<void>(idle.ReadRequest());
  idle.Send("HTTP/1.1 200 OK\r\nConte");  // not stale: it has begun to answer
  idle.Close();
  {
    Stream peer = other.Accept();
    static_cast<void>(peer.ReadRequest());
  }
  EXPECT_EQ(client.ReadResponse().status, 502);
  EXPECT_FALSE(other.HasConnection(Millis(50)));
  EXPECT_EQ(proxy.Metric("sluice_backend_stale_total"), 0);
}

TEST(KeepAlive, AClientHasSoManyRequests) {
  RawBackend backend;
  Config config = OneWorker(backend);
  config.server = "keep_alive_requests = 2";
  ProxyProcess proxy(config);
  RawClient client(proxy.port());
  Stream peer = ServeFirst(client, backend);
  const HttpMessage last = Serve(client, peer);
  EXPECT_EQ(last.Field("Connection"), "close");
  client.ExpectEnd();

  RawClient refused(proxy.port());
  for (const char* connection : {"", "close"}) {
    refused.Send("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n");
    const HttpMessage answer = refused.ReadResponse();
    EXPECT_EQ(answer.status, 405);
    EXPECT_EQ(answer.Has("Connection") ? answer.Field("Connection") : "", connection);
  }
  refused.ExpectEnd();
}

// Until nobody on the way takes anything any more.
void SendAllThereIsRoomFor(Stream& client) {
  const std::string piece(65536, 'x');
  while (client.HasRoom(Millis(100))) {
    static_cast<void>(client.SendSome(piece));
  }
}

// Begins an answer, until it stands still for want of a client that reads. Returns the backend's
// end.
Stream AnswerWhatNobodyReads(RawClient& client, RawBackend& backend) {
  client.Send(kGet);
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
  SendAllThereIsRoomFor(peer);
  return peer;
}

// A client that has left.

TEST(ClientGone, TakesItsRequestWithIt) {
  RawBackend backend;
  ProxyProcess proxy(OneWorker(backend));
  for (const char* answer :
       {"", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"}) {
    RawClient client(proxy.port());
    client.Send(kGet);
    Stream peer = backend.Accept();
    static_cast<void>(peer.ReadRequest());
    peer.Send(answer);
    if (*answer != '\0') {
      static_cast<void>(client.ReadHead());
    }
    client.Close();
    const auto from = Now();
    peer.ExpectEnd();
    EXPECT_LT(Now() - from, Millis(1000)) << answer;
  }
}

TEST(ClientGone, OneThatHasFinishedGetsTheAnswersToAllThatItSentBefore) {
  RawBackend backend;
  ProxyProcess proxy(OneWorker(backend));
  RawClient client(proxy.port());
  const std::string half = "GET /half HTTP/1.1\r\nHo";
  client.Send(std::string(kGet) + std::string(kGet) + std::string(kGet) + half);
  client.FinishWrite();
  Stream peer = backend.Accept();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(peer.ReadRequest().target, "/x");
    peer.Send(kOk);
    const HttpMessage answer = client.ReadResponse();
    EXPECT_EQ(answer.body, "ok");
    EXPECT_FALSE(answer.Has("Connection"));
  }
  const auto from = Now();
  client.ExpectEnd();
  EXPECT_LT(Now() - from, Millis(1000));
}

// Also behind an answer that is Sluice's own, and in front of an empty line, which is no head.
TEST(ClientGone, OneThatHasFinishedIsNotKept) {
  RawBackend backend;
  Config config = OneWorker(backend);
  config.route = "path = \"/x\"";
  ProxyProcess proxy(config);
  RawClient client(proxy.port());
  client.Send("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" + std::string(kGet) + "\r\n");
  client.FinishWrite();
  EXPECT_EQ(client.ReadResponse().status, 404);
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  peer.Send(kOk);
  EXPECT_EQ(client.ReadResponse().body, "ok");
  const auto from = Now();
  client.ExpectEnd();
  EXPECT_LT(Now() - from, Millis(1000));
}

// Whatever it was that told of its leaving.
TEST(ClientGone, IsWhatTheLogSaysInTheMiddleOfAStream) {
  RawBackend backend;
  ProxyProcess proxy(OneWorker(backend));
  RawClient client(proxy.port());
  client.Send(kGet);
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  peer.Send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
  static_cast<void>(client.ReadHead());
  client.Close();
  const Deadline deadline;
  while (!peer.HasInput(Millis(5)) && !deadline.passed()) {
    peer.Send("data: 1\n\n");
  }
  static_cast<void>(peer.AwaitEnd());
  EXPECT_EQ(proxy.AwaitAccessLog(1).at(0)["reason"], "client_gone");
}

// Whoever waits for a 100 Continue has not been asked for its content.
TEST(ContentTimeout, IsNotOfAClientThatWasNotAskedForContent) {
  RawBackend backend;
  Config config = OneWorker(backend);
  config.route = "response_timeout = \"300ms\"";
  ProxyProcess proxy(config);
  for (const auto& [expect, status] : {std::pair("", 408), {"Expect: 100-continue\r\n", 504}}) {
    RawClient client(proxy.port());
    client.Send("POST / HTTP/1.1\r\nHost: a\r\n" + std::string(expect) +
                "Content-Length: 5\r\n\r\n");
    EXPECT_EQ(client.ReadResponse().status, status);
  }
}

// The client has sent what there was room for, and is not to blame.
TEST(ContentTimeout, IsNotOfAClientWhoseBackendTakesNothing) {
  RawBackend backend;
  Config config = OneWorker(backend);
  config.route = "response_timeout = \"300ms\"";
  ProxyProcess proxy(config);
  RawClient client(proxy.port());
  client.Send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
  SendAllThereIsRoomFor(client);
  EXPECT_EQ(client.ReadResponse().status, 504);
}

// What it sent last has filled what Sluice holds, so that it is not read any more.
TEST(ClientGone, IsNoticedWhileItIsNotRead) {
  enum class Behind { kContent, kRequests };
  for (const auto& [behind, resets] :
       {std::pair(Behind::kContent, true), {Behind::kRequests, true}, {Behind::kRequests, false}}) {
    RawBackend backend;
    ProxyProcess proxy(OneWorker(backend));
    RawClient client(proxy.port());
    client.Send(behind == Behind::kContent
                    ? "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"
                    : kGet);
    Stream peer = backend.Accept();
    static_cast<void>(peer.ReadHead());
    if (behind == Behind::kContent) {
      SendAllThereIsRoomFor(client);
    } else {
      for (int i = 0; i < 1500; ++i) {
        client.Send(kGet);
      }
    }
    if (resets) {
      client.Reset();
    } else {
      client.Close();
    }
    const auto from = Now();
    EXPECT_EQ(peer.AwaitEnd() == StreamEnd::kReset, behind == Behind::kContent);
    EXPECT_LT(Now() - from, Millis(1000));
    EXPECT_EQ(proxy.AwaitAccessLog(1).at(0)["reason"], "client_gone");
  }
}

TEST(ClientGone, OneThatHasOnlyFinishedItsDirectionGetsWhatComesSoon) {
  RawBackend backend;
  ProxyProcess proxy(OneWorker(backend));
  RawClient client(proxy.port());
  client.Send(kGet);
  client.FinishWrite();
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  peer.Send(kOk);
  EXPECT_EQ(client.ReadResponse().body, "ok");
  client.ExpectEnd();
}

// Neither side's kernel says anything of a peer that takes little by little what is there for it.

TEST(ClientGone, OneThatHasOnlyFinishedWaitsForABackendThatReadsSlowly) {
  RawBackend backend;
  ProxyProcess proxy(OneWorker(backend));
  RawClient client(proxy.port());
  const std::size_t size = 3'000'000;
  client.Send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(size) + "\r\n\r\n");
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadHead());
  client.Send(std::string(size, 'x'));
  client.FinishWrite();
  std::size_t got = peer.ReadSlowly().size();
  while (got < size) {
    got += peer.ReadSome().size();
  }
  peer.Send(kOk);
  EXPECT_EQ(client.ReadResponse().body, "ok");
  client.ExpectEnd();
}

TEST(ClientGone, OneThatHasOnlyFinishedMayReadSlowly) {
  RawBackend backend;
  ProxyProcess proxy(OneWorker(backend));
  RawClient client(proxy.port());
  const std::size_t size = 20'000'000;  // more than the kernels hold
  client.Send(kGet);
  client.FinishWrite();
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  const auto writer = std::async(std::launch::async, [&] { peer.Send(OkOf(size)); });
  EXPECT_EQ(client.ReadHead().status, 200);
  const std::size_t got = client.ReadSlowly().size();
  EXPECT_EQ(client.ReadToEnd().size(), size - got);
}

// Until the last byte, also when the exchange is over and nothing but a full kernel is in its way.
TEST(SlowReader, GetsTheEndOfItsAnswer) {
  RawBackend backend;
  Config config = OneWorker(backend);
  config.server = "close_timeout = \"200ms\"";
  config.limits = "out_buffer = \"16MiB\"";
  ProxyProcess proxy(config);
  RawClient client(proxy.port());
  const std::size_t size = 9'000'000;
  client.Send("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  peer.Send(OkOf(size));
  static_cast<void>(proxy.AwaitAccessLog(1));  // Sluice has all of it
  EXPECT_EQ(client.ReadHead().status, 200);
  const std::size_t got = client.ReadSlowly().size();
  EXPECT_EQ(client.ReadToEnd().size(), size - got);
}

// Of so many requests that a client sends at once the first is answered with `size` bytes, and the
// answer to the second breaks. Then the client sends `later`. All the while it reads nothing, and
// gets all of that in the end.
void ExpectTheFirstWhole(const Config& config, RawBackend& backend, std::size_t size, int requests,
                         std::string_view later = {}) {
  ProxyProcess proxy(config);
  RawClient client(proxy.port(), {.small_buffers = true});
  client.Send(Gets(requests));
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  peer.Send(OkOf(size));
  static_cast<void>(peer.ReadRequest());
  peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbroken");
  peer.Reset();
  proxy.AwaitMetric("sluice_backend_failures_total{reason=\"lost\"}", 1);
  client.Send(later);
  EXPECT_EQ(client.ReadResponse().body.size(), size);
  EXPECT_EQ(client.ReadHead().status, 200);
  EXPECT_EQ(client.ReadToEnd(), "broken");
}

TEST(SlowReader, GetsAnAnswerWholeThoughTheNextOneBreaks) {
  RawBackend backend;
  Config config = OneWorker(backend);
  config.limits = "out_buffer = \"16MiB\"";
  ExpectTheFirstWhole(config, backend, 7'000'000, 2);
}

// All of it is in the kernels' hands, and what the client has sent on is not read any more.
TEST(SlowReader, GetsAnAnswerWholeThoughTheNextOneBreaksInFrontOfOthers) {
  RawBackend backend;
  ExpectTheFirstWhole(OneWorker(backend), backend, 300'000, 2000);
}

// Nor is what it sends when it has seen nothing of that yet.
TEST(SlowReader, GetsAnAnswerWholeThoughItSendsOnBehindABrokenOne) {
  RawBackend backend;
  ExpectTheFirstWhole(OneWorker(backend), backend, 300'000, 2, kGet);
}

// It stands still for longer than it is waited for. What it has sent on is in nobody's way then: a
// reset for it would cost answers that are written.
TEST(SlowReader, ThatStandsStillGetsWhatIsWritten) {
  constexpr std::size_t kSize = 15'000;
  RawBackend backend;
  Config config = OneWorker(backend);
  config.server = "keep_alive_timeout = \"200ms\"";
  ProxyProcess proxy(config);
  RawClient client(proxy.port(), {.small_buffers = true});
  client.Send(Gets(1500));
  Stream peer = backend.Accept();
  const auto writer = std::async(std::launch::async, [&] {
    const std::string answer = OkOf(kSize);
    while (peer.HasInput(Millis(2000)) && !peer.ReadSome().empty()) {
      peer.Send(answer);  // they come one by one
    }
  });
  writer.wait();
  const std::size_t served = proxy.AccessLog().size();
  EXPECT_GT(served, 10U);
  for (std::size_t i = 0; i < served; ++i) {
    ASSERT_EQ(client.ReadResponse().body.size(), kSize) << i << " of " << served;
  }
  client.ExpectEnd();
}

// It goes on with content that nobody wants any more, and reads slowly meanwhile.
TEST(SlowReader, GetsTheWholeOfAnEarlyAnswerWhileItSends) {
  RawBackend backend;
  Config config = OneWorker(backend);
  config.server = "close_timeout = \"200ms\"";
  ProxyProcess proxy(config);
  RawClient client(proxy.port(), {.small_buffers = true});
  const std::size_t size = 300'000;
  client.Send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadHead());
  peer.Send("HTTP/1.1 413 Too Much\r\nContent-Length: " + std::to_string(size) + "\r\n\r\n" +
            std::string(size, 'x'));
  static_cast<void>(proxy.AwaitAccessLog(1));
  std::string got;
  for (int i = 0; i < 700; ++i) {
    got += client.ReadExactly(300);
    static_cast<void>(client.SendSome("x"));
    static_cast<void>(::poll(nullptr, 0, 2));  // the pace
  }
  got += client.ReadToEnd();
  EXPECT_EQ(got.size() - got.find("\r\n\r\n") - 4, size);
}

// Nothing of an earlier answer waits, so there is nothing to wait for.
TEST(SlowReader, IsNotWaitedForWhenItsAnswerBreaks) {
  RawBackend backend;
  Config config = OneWorker(backend);
  config.route = "response_idle_timeout = \"300ms\"";
  ProxyProcess proxy(config);
  RawClient client(proxy.port(), {.small_buffers = true});
  const Stream peer = AnswerWhatNobodyReads(client, backend);
  const auto from = Now();
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 0);
  EXPECT_LT(Now() - from, Millis(5000));
}

// It has announced more than it has sent: the rest does not come any more.
TEST(ClientGone, OneThatEndsInsideItsContentIsNotWaitedFor) {
  RawBackend backend;
  ProxyProcess proxy(OneWorker(backend));
  RawClient client(proxy.port());
  client.Send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadHead());
  while (proxy.Metric("sluice_backpressure_pauses_total{side=\"client\"}") == 0) {
    client.Send(std::string(16384, 'x'));
  }
  client.Close();
  const auto from = Now();
  const auto reader = std::async(std::launch::async, [&] { return peer.ReadSlowly(); });
  EXPECT_EQ(proxy.AwaitAccessLog(1).at(0)["reason"], "client_gone");
  EXPECT_LT(Now() - from, Millis(1000));
}

TEST(ResponseIdleTimeout, CutsAnAnswerThatStandsStillAndNoOther) {
  RawBackend backend;
  Config config = OneWorker(backend);
  config.route = "response_idle_timeout = \"300ms\"\nresponse_timeout = \"20s\"";
  ProxyProcess proxy(config);
  RawClient client(proxy.port());
  client.Send(kGet);
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  // Until the answer begins the other limit holds.
  EXPECT_FALSE(backend.HasConnection(Millis(400)));
  peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
  static_cast<void>(client.ReadHead());
  for (int i = 0; i < 4; ++i) {
    EXPECT_FALSE(backend.HasConnection(Millis(150)));
    peer.Send("x");
    EXPECT_EQ(client.ReadSome(), "x");
  }
  peer.ExpectEnd();
}

// The time counts from when the last byte moved, which only a look into the kernel tells.
TEST(ResponseIdleTimeout, OfAClientThatReadsNothingIsNotTwiceAsLong) {
  RawBackend backend;
  Config config = OneWorker(backend);
  config.route = "response_idle_timeout = \"2s\"";
  ProxyProcess proxy(config);
  RawClient client(proxy.port(), {.small_buffers = true});
  const Stream peer = AnswerWhatNobodyReads(client, backend);
  const auto from = Now();
  EXPECT_EQ(proxy.AwaitAccessLog(1).at(0)["reason"], "response_idle_timeout");
  EXPECT_GE(Now() - from, Millis(1500));
  EXPECT_LT(Now() - from, Millis(3200));
}

}  // namespace
}  // namespace sluice::test
