// Proves that a backend that says nothing is asked whether it still lives: what a ping of Sluice
// looks like and where it may stand, that its pong goes no further while all others pass, what a
// client is told when the backend hangs, and that nobody is blamed for a pause of our own.
#include <signal.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"
#include "tests/support/split.h"

namespace sluice::test {
namespace {

using std::chrono::steady_clock;

constexpr const char* kAnswered = "sluice_pings_total{side=\"backend\",result=\"answered\"}";
constexpr const char* kUnanswered = "sluice_pings_total{side=\"backend\",result=\"timeout\"}";

class HeartbeatTest : public testing::Test {
 protected:
  // By default pings come soon, and there is plenty of time to answer them.
  explicit HeartbeatTest(std::string interval = "200ms", std::string timeout = "20s",
                         std::string route = {})
      : proxy(Config{.backends = {backend.port()},
                     .server = "close_timeout = \"400ms\"",
                     .route = "heartbeat.client.interval = \"0s\"\nheartbeat.interval = \"" +
                              interval + "\"\nheartbeat.timeout = \"" + timeout + "\"\n" +
                              std::move(route)}) {}

  // Until the proxy has taken what was sent to it and waits again.
  void AwaitIdle() const {
    proxy.Stop();
    proxy.Continue();
  }

  RawBackend backend;
  ProxyProcess proxy;
};

// The next frame of the proxy is a ping of its own; returns what it carries.
std::string AwaitPing(Stream& backend) {
  const Frame ping = backend.ReadFrame();
  EXPECT_EQ(ping.opcode, kPing);
  EXPECT_TRUE(ping.fin);
  EXPECT_EQ(ping.rsv, 0);
  EXPECT_TRUE(ping.masked);
  EXPECT_EQ(ping.payload.size(), 16U);
  return ping.payload;
}

TEST_F(HeartbeatTest, PingsASilentBackendAndKeepsItsPong) {
  RelayedSession s = OpenSession(proxy, backend);
  std::set<std::string> masks;
  for (int i = 1; i <= 4; ++i) {
    const Frame ping = s.backend.ReadFrame();
    ASSERT_EQ(ping.opcode, kPing);
    EXPECT_EQ(ping.payload.size(), 16U);
    EXPECT_TRUE(ping.masked);
    masks.insert(ping.mask);
    s.backend.Send(BackendFrame(kPong, ping.payload));
    proxy.AwaitMetric(kAnswered, i);
  }
  EXPECT_EQ(masks.size(), 4U) << "masks of ours can be guessed";
  const std::string last = BackendFrame(kText, "after all that");
  s.backend.Send(last);
  EXPECT_EQ(s.client.ReadExactly(last.size()), last);
  EXPECT_EQ(proxy.Metric(kUnanswered), 0);
  EXPECT_EQ(proxy.Metric("sluice_messages_total{from=\"backend\",opcode=\"pong\"}"), 0);
  EXPECT_EQ(proxy.Metric("sluice_messages_total{from=\"client\",opcode=\"ping\"}"), 0);
}

TEST_F(HeartbeatTest, PingsOfTwoSessionsDiffer) {
  RelayedSession one = OpenSession(proxy, backend);
  RelayedSession two = OpenSession(proxy, backend);
  EXPECT_NE(AwaitPing(one.backend), AwaitPing(two.backend));
}

TEST_F(HeartbeatTest, KeepsThePongHoweverItIsCut) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string pong = BackendFrame(kPong, AwaitPing(s.backend));
  const std::string before = BackendFrame(kText, "before");
  const std::string after = BackendFrame(kBinary, "after");
  const std::string begin = BackendFrame(kText, "be", false);
  const std::string end = BackendFrame(kContinuation, "gin");
  const std::pair<std::string, std::string> streams[] = {
      // What the backend sends, and what of it is for the client.
      {pong, ""},
      {before + pong + after, before + after},
      {begin + pong + end, begin + end},
      {before + pong + pong + BackendFrame(kPong, "") + after,
       before + BackendFrame(kPong, "") + after},
  };
  for (const auto& [sent, wanted] : streams) {
    ForEachSplit(sent, [&, &wanted = wanted](const auto& pieces, const std::string& label) {
      SCOPED_TRACE(label);
      for (const std::string_view piece : pieces) {
        s.backend.Send(piece);
        AwaitIdle();
      }
      const std::string mark = BackendFrame(kText, "mark");
      s.backend.Send(mark);
      ASSERT_EQ(s.client.ReadExactly(wanted.size() + mark.size()), wanted + mark);
    });
  }
}

// Nobody is there to be sent anything, so nothing of a frame is held back either.
TEST_F(HeartbeatTest, ItsPongInPiecesBehindALostClientIsReadAndDropped) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string pong = BackendFrame(kPong, AwaitPing(s.backend));
  s.client.Reset();
  s.backend.ExpectEnd();
  for (const std::size_t cut : {std::size_t{1}, std::size_t{5}, pong.size() - 1}) {
    s.backend.Send(pong.substr(0, cut));
    AwaitIdle();
    s.backend.Send(pong.substr(cut));
    AwaitIdle();
  }
  s.backend.Close();
  proxy.AwaitMetric("sluice_sessions_open", 0);
  EXPECT_TRUE(proxy.running());
}

TEST_F(HeartbeatTest, PassesEveryOtherPong) {
  RelayedSession s = OpenSession(proxy, backend);
  std::string other = AwaitPing(s.backend);
  other.back() = static_cast<char>(other.back() ^ 1);
  for (const std::string& payload :
       {std::string(), std::string("unasked"), other, other + other, std::string(125, 'x')}) {
    const std::string pong = BackendFrame(kPong, payload);
    s.backend.Send(pong);
    EXPECT_EQ(s.client.ReadExactly(pong.size()), pong);
  }
}

TEST_F(HeartbeatTest, PingsOfTheClientAndTheirPongsPass) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string own = AwaitPing(s.backend);
  s.backend.Send(BackendFrame(kPong, own));
  for (const std::string& payload : {std::string("12345678"), std::string()}) {
    const std::string ping = BuildFrame(kPing, payload);
    s.client.Send(ping);
    Frame seen = s.backend.ReadFrame();
    while (seen.payload.size() == own.size()) {
      s.backend.Send(BackendFrame(kPong, seen.payload));
      seen = s.backend.ReadFrame();
    }
    EXPECT_EQ(seen.opcode, kPing);
    EXPECT_EQ(seen.payload, payload);
    const std::string pong = BackendFrame(kPong, payload);
    s.backend.Send(pong);
    EXPECT_EQ(s.client.ReadExactly(pong.size()), pong);
  }
}

TEST_F(HeartbeatTest, WaitsForTheEndOfAClientsFrame) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string own = AwaitPing(s.backend);
  s.backend.Send(BackendFrame(kPong, own));
  proxy.AwaitMetric(kAnswered, 1);
  const std::string frame = BuildFrame(kBinary, Pattern(1000));
  s.client.Send(frame.substr(0, 500));
  EXPECT_TRUE(s.backend.ReadExactly(500) == frame.substr(0, 500));
  EXPECT_FALSE(s.backend.HasInput(Millis(800))) << "written into a frame of the client";
  s.client.Send(frame.substr(500));
  EXPECT_TRUE(s.backend.ReadExactly(frame.size() - 500) == frame.substr(500));
  EXPECT_NE(AwaitPing(s.backend), own);
}

TEST_F(HeartbeatTest, ComesBetweenTheFragmentsOfAClientsMessage) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string begin = BuildFrame(kText, "first half, ", {.fin = false});
  const std::string end = BuildFrame(kContinuation, "second half");
  s.client.Send(begin + end.substr(0, 3));  // of the second nothing goes on yet
  EXPECT_EQ(s.backend.ReadExactly(begin.size()), begin);
  static_cast<void>(AwaitPing(s.backend));
  s.client.Send(end.substr(3));
  EXPECT_EQ(s.backend.ReadExactly(end.size()), end);
}

class SlowHeartbeatTest : public HeartbeatTest {
 protected:
  SlowHeartbeatTest() : HeartbeatTest("1s", "20s") {}
};

TEST_F(SlowHeartbeatTest, ABackendThatTalksIsNotPinged) {
  RelayedSession s = OpenSession(proxy, backend);
  const auto until = steady_clock::now() + Millis(2500);
  while (steady_clock::now() < until) {
    s.backend.Send(BackendFrame(kText, "tick"));
    ASSERT_EQ(s.client.ReadFrame().payload, "tick");
    ASSERT_FALSE(s.backend.HasInput(Millis(50)));
  }
}

class NoHeartbeatTest : public HeartbeatTest {
 protected:
  NoHeartbeatTest() : HeartbeatTest("0s", "50ms") {}
};

TEST_F(NoHeartbeatTest, NobodyIsPinged) {
  RelayedSession s = OpenSession(proxy, backend);
  EXPECT_FALSE(s.backend.HasInput(Millis(1000)));
  s.client.Send(BuildFrame(kText, "lives"));
  EXPECT_EQ(s.backend.ReadFrame().payload, "lives");
  EXPECT_EQ(proxy.Metric(kAnswered), 0);
  EXPECT_EQ(proxy.Metric(kUnanswered), 0);
}

// The timeout is longer than the interval: a beat comes while a ping waits for its answer.
class PatientHeartbeatTest : public HeartbeatTest {
 protected:
  PatientHeartbeatTest() : HeartbeatTest("100ms", "1s") {}
};

TEST_F(PatientHeartbeatTest, DataCountsAsAnAnswer) {
  RelayedSession s = OpenSession(proxy, backend);
  for (int i = 1; i <= 2; ++i) {
    static_cast<void>(AwaitPing(s.backend));
    s.backend.Send(BackendFrame(kText, "I live"));
    EXPECT_EQ(s.client.ReadFrame().payload, "I live");
    proxy.AwaitMetric(kAnswered, i);
  }
  EXPECT_EQ(proxy.Metric(kUnanswered), 0);
  EXPECT_FALSE(s.client.HasInput(Millis(0)));
}

TEST_F(PatientHeartbeatTest, OnePingIsOnItsWayAtATime) {
  RelayedSession s = OpenSession(proxy, backend);
  static_cast<void>(AwaitPing(s.backend));
  EXPECT_FALSE(s.backend.HasInput(Millis(500)));
}

// Backends that hang.

constexpr Millis kTimeout{300};

class HungBackendTest : public HeartbeatTest {
 protected:
  explicit HungBackendTest(std::string route = {})
      : HeartbeatTest("300ms", "300ms", std::move(route)) {}
};

TEST_F(HungBackendTest, ItsClientIsToldAs1012AsSoonAsTheTimeIsOver) {
  RelayedSession s = OpenSession(proxy, backend);
  static_cast<void>(AwaitPing(s.backend));
  const auto asked = steady_clock::now();
  const Frame close = s.client.ReadFrame();
  const auto took = steady_clock::now() - asked;
  EXPECT_EQ(close.opcode, kClose);
  EXPECT_EQ(close.close_code(), 1012);
  EXPECT_EQ(close.close_reason(), "service restart");
  EXPECT_GE(took, kTimeout - kGrain);
  EXPECT_LT(took, kTimeout + Millis(100));
  s.client.Send(ClientClose(1012));
  s.client.ExpectEnd();
  s.client.Close();
  static_cast<void>(s.backend.AwaitEnd());  // whatever it is: the socket is not kept
  proxy.AwaitMetric("sluice_connections_open", 0);
  EXPECT_EQ(proxy.Metric(kUnanswered), 1);
  EXPECT_EQ(proxy.Metric("sluice_backend_failures_total{reason=\"hung\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_backend_failures_total{reason=\"lost\"}"), 0);
  EXPECT_EQ(proxy.Metric("sluice_closes_total{code=\"1012\",by=\"backend\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_torn_total"), 0);
  const auto line = proxy.AwaitAccessLog(1)[0];
  EXPECT_EQ(line["reason"], "ping_timeout");
  EXPECT_EQ(line["closed_by"], "backend");
  EXPECT_EQ(line["close_code_client"], 1012);
}

TEST_F(HungBackendTest, ThatStillReadsIsNoneTheLess) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string own = AwaitPing(s.backend);
  // The client talks all the time, and the backend takes it until it is cut off.
  const std::jthread reader([&s] { static_cast<void>(s.backend.AwaitEnd()); });
  const Deadline deadline;
  while (!s.client.HasInput(Millis(20)) && !deadline.passed()) {
    s.client.Send(BuildFrame(kText, "anybody there?"));
  }
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
}

TEST_F(HungBackendTest, InsideAFrameTearsItsClient) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string half = BackendFrame(kBinary, Pattern(1000)).substr(0, 500);
  s.backend.Send(half);
  EXPECT_TRUE(s.client.ReadExactly(half.size()) == half);
  s.client.ExpectEnd();
  s.client.Close();
  proxy.AwaitMetric("sluice_sessions_open", 0);
  EXPECT_EQ(proxy.Metric("sluice_torn_total{reason=\"backend_lost\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_backend_failures_total{reason=\"hung\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_closes_total{code=\"none\",by=\"backend\"}"), 1);
}

TEST_F(HungBackendTest, DataAfterThePingSavesIt) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string own = AwaitPing(s.backend);
  const auto until = steady_clock::now() + 5 * kTimeout;
  while (steady_clock::now() < until) {
    s.backend.Send(BackendFrame(kText, "busy"));
    const Frame frame = s.client.ReadFrame();
    ASSERT_EQ(frame.payload, "busy");
    static_cast<void>(s.backend.HasInput(Millis(30)));
  }
  EXPECT_EQ(proxy.Metric(kUnanswered), 0);
}

// A client that reads nothing keeps its backend from being read. That is not the backend's fault.
TEST_F(HungBackendTest, ABackendThatIsNotReadIsNotBlamed) {
  RelayedSession s = OpenSession(proxy, backend, {.small_buffers = true});
  std::string stream;
  for (unsigned i = 0; i < 120; ++i) {
    stream += BackendFrame(kBinary, Pattern(100'000, i));
  }
  std::size_t sent = 0;
  const Deadline deadline;
  while (!(proxy.Metric("sluice_backpressure_pauses_total{side=\"backend\"}") >= 1)) {
    ASSERT_FALSE(deadline.passed());
    sent += s.backend.SendSome(std::string_view(stream).substr(sent));
  }
  // It says what it can, for much longer than it has to answer a ping.
  const auto until = steady_clock::now() + 6 * kTimeout;
  while (steady_clock::now() < until) {
    sent += s.backend.SendSome(std::string_view(stream).substr(sent));
    ASSERT_EQ(proxy.Metric(kUnanswered), 0);
  }
  std::string got = s.client.ReadExactly(sent);
  EXPECT_TRUE(got == stream.substr(0, sent));
  s.backend.Send(stream.substr(sent, 1000));
  EXPECT_TRUE(s.client.ReadExactly(1000) == stream.substr(sent, 1000));
}

TEST_F(HungBackendTest, AProcessThatIsStoppedIsFoundOut) {
  ProxyProcess echo(std::vector<std::string>{"echo", "--listen", "127.0.0.1:0"});
  const std::string mark = "address=127.0.0.1:";
  ASSERT_TRUE(echo.AwaitErr(mark));
  const std::string said = echo.err();
  const auto port =
      static_cast<std::uint16_t>(std::atoi(said.c_str() + said.find(mark) + mark.size()));
  ProxyProcess front(Config{.backends = {port},
                            .route = "heartbeat.client.interval = \"0s\"\n"
                                     "heartbeat.interval = \"300ms\"\n"
                                     "heartbeat.timeout = \"300ms\""});
  RawClient client = ConnectWebSocket(front.port());
  front.AwaitMetricAtLeast(kAnswered, 2);  // until then it answers
  echo.Stop();
  const auto stopped = steady_clock::now();
  const Frame close = client.ReadFrame();
  const auto took = steady_clock::now() - stopped;
  echo.Continue();
  EXPECT_EQ(close.close_code(), 1012);
  // Silent for the rest of one interval and for another, each with the grain of beats; then asked.
  EXPECT_LT(took, 2 * Millis(300 + 50) + kTimeout + Millis(100));
  client.Send(ClientClose(1012));
  client.ExpectEnd();
  client.Close();
  front.AwaitMetric("sluice_sessions_open", 0);
  EXPECT_EQ(front.Metric("sluice_backend_failures_total{reason=\"hung\"}"), 1);
}

class RefragmentedHungBackendTest : public HungBackendTest {
 protected:
  RefragmentedHungBackendTest() : HungBackendTest("refragment = \"1KiB\"") {}
};

TEST_F(RefragmentedHungBackendTest, InsideALargeFrameIsToldAs1012) {
  RelayedSession s = OpenSession(proxy, backend);
  s.backend.Send(BackendFrame(kBinary, Pattern(100'000)).substr(0, 50'000));
  Frame frame = s.client.ReadFrame();
  EXPECT_EQ(frame.opcode, kBinary);
  while (frame.opcode != kClose) {
    EXPECT_FALSE(frame.fin);
    frame = s.client.ReadFrame();
  }
  EXPECT_EQ(frame.close_code(), 1012);
  EXPECT_EQ(proxy.Metric("sluice_torn_total"), 0);
}

TEST_F(HungBackendTest, ADrainMeanwhileEndsInOrder) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string own = AwaitPing(s.backend);
  proxy.Signal(SIGTERM);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  s.backend.Send(BackendFrame(kPong, own) + BackendFrame(kText, "last") + BackendClose(1001));
  EXPECT_EQ(s.client.ReadFrame().payload, "last");
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  s.client.Send(ClientClose(1012));
  s.client.ExpectEnd();
  s.client.Close();
  s.backend.Close();
  EXPECT_EQ(proxy.Wait(), 0) << proxy.err();
  EXPECT_EQ(proxy.AccessLog()[0]["reason"], "drain");
}

// A proxy that stood still itself.

// Halts the proxy for `time`.
void StandStill(const ProxyProcess& proxy, Stream& silent, Millis time) {
  proxy.Stop();
  EXPECT_FALSE(silent.HasInput(time));
  proxy.Continue();
}

TEST_F(HungBackendTest, APongThatCameDuringAPauseOfOursCounts) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string own = AwaitPing(s.backend);
  proxy.Stop();
  s.backend.Send(BackendFrame(kPong, own));
  EXPECT_FALSE(s.client.HasInput(3 * kTimeout));
  proxy.Continue();
  const std::string next = AwaitPing(s.backend);  // it was not given up
  EXPECT_NE(next, own);
  s.backend.Send(BackendFrame(kPong, next) + BackendFrame(kText, "lives"));
  EXPECT_EQ(s.client.ReadFrame().payload, "lives");
  EXPECT_EQ(proxy.Metric(kUnanswered), 0);
}

TEST_F(HungBackendTest, AfterALongPauseOfOursABackendGetsAnotherChance) {
  for (int i = 0; i < 3; ++i) {  // wherever in its second the once-a-second timer stands
    SCOPED_TRACE(i);
    RelayedSession s = OpenSession(proxy, backend);
    const std::string own = AwaitPing(s.backend);
    StandStill(proxy, s.client, Millis(2500));
    const std::string again = AwaitPing(s.backend);
    EXPECT_NE(again, own);
    s.backend.Send(BackendFrame(kPong, again) + BackendFrame(kText, "late"));
    EXPECT_EQ(s.client.ReadFrame().payload, "late");
    EXPECT_EQ(proxy.Metric(kUnanswered), 0);
    s.client.Reset();
  }
}

TEST_F(HungBackendTest, AnotherChanceWaitsForTheEndOfAClientsFrame) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string own = AwaitPing(s.backend);
  const std::string frame = BuildFrame(kBinary, Pattern(1000));
  s.client.Send(frame.substr(0, 500));
  EXPECT_TRUE(s.backend.ReadExactly(500) == frame.substr(0, 500));
  StandStill(proxy, s.client, Millis(2500));
  s.client.Send(frame.substr(500));
  EXPECT_TRUE(s.backend.ReadExactly(frame.size() - 500) == frame.substr(500));
  const std::string again = AwaitPing(s.backend);
  EXPECT_NE(again, own);
  s.backend.Send(BackendFrame(kPong, again) + BackendFrame(kText, "late"));
  EXPECT_EQ(s.client.ReadFrame().payload, "late");
  EXPECT_EQ(proxy.Metric(kUnanswered), 0);
}

TEST_F(HungBackendTest, AnotherChanceIsNotForEver) {
  RelayedSession s = OpenSession(proxy, backend);
  static_cast<void>(AwaitPing(s.backend));
  StandStill(proxy, s.client, Millis(2500));
  static_cast<void>(AwaitPing(s.backend));
  const auto asked = steady_clock::now();
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  EXPECT_LT(steady_clock::now() - asked, Millis(5000));
}

}  // namespace
}  // namespace sluice::test
