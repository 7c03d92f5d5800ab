// Proves that a client that says nothing is asked whether it still lives, that its answer goes no
// further while all its other pongs pass, and that one that does not answer is cut and its backend
// told so, in order.
#include <signal.h>

#include <chrono>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"
#include "tests/support/split.h"

namespace sluice::test {
namespace {

using std::chrono::steady_clock;

constexpr const char* kAnswered = "sluice_pings_total{side=\"client\",result=\"answered\"}";
constexpr const char* kUnanswered = "sluice_pings_total{side=\"client\",result=\"timeout\"}";

class ClientHeartbeatTest : public testing::Test {
 protected:
  explicit ClientHeartbeatTest(const std::string& interval = "200ms",
                               const std::string& timeout = "20s")
      : proxy(Config{.backends = {backend.port()},
                     .server = "close_timeout = \"400ms\"",
                     .route = "heartbeat.backend.interval = \"0s\"\n"
                              "heartbeat.client = { interval = \"" +
                              interval + "\", timeout = \"" + timeout + "\" }"}) {}

  void AwaitIdle() const {
    proxy.Stop();
    proxy.Continue();
  }

  RawBackend backend;
  ProxyProcess proxy;
};

// The next frame of the proxy is a ping of its own; returns what it carries.
std::string AwaitPing(Stream& client) {
  const Frame ping = client.ReadFrame();
  EXPECT_EQ(ping.opcode, kPing);
  EXPECT_TRUE(ping.fin);
  EXPECT_FALSE(ping.masked) << "RFC 6455 section 5.1: a server masks nothing";
  EXPECT_EQ(ping.payload.size(), 16U);
  return ping.payload;
}

TEST_F(ClientHeartbeatTest, PingsASilentClientAndKeepsItsPong) {
  RelayedSession s = OpenSession(proxy, backend);
  std::set<std::string> payloads;
  for (int i = 1; i <= 3; ++i) {
    payloads.insert(AwaitPing(s.client));
    s.client.SendFrame(kPong, *payloads.rbegin());
    if (payloads.size() < static_cast<std::size_t>(i)) {
      ADD_FAILURE() << "a payload came twice";
    }
    proxy.AwaitMetric(kAnswered, i);
  }
  const std::string last = BuildFrame(kText, "after all that");
  s.client.Send(last);
  EXPECT_EQ(s.backend.ReadExactly(last.size()), last);
  EXPECT_EQ(proxy.Metric(kUnanswered), 0);
  EXPECT_EQ(proxy.Metric("sluice_messages_total{from=\"client\",opcode=\"pong\"}"), 0);
  EXPECT_EQ(proxy.Metric("sluice_client_rtt_seconds_count"), 3);
  EXPECT_LT(proxy.Metric("sluice_client_rtt_seconds_sum"), 3.0);
  EXPECT_EQ(proxy.Metric("sluice_backend_rtt_seconds_count"), 0);
}

TEST_F(ClientHeartbeatTest, KeepsThePongHoweverItIsCut) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string pong = BuildFrame(kPong, AwaitPing(s.client));
  const std::string before = BuildFrame(kText, "before");
  const std::string begin = BuildFrame(kText, "be", {.fin = false});
  const std::string end = BuildFrame(kContinuation, "gin");
  const std::pair<std::string, std::string> streams[] = {
      {before + pong + before, before + before},
      {begin + pong + end, begin + end},
  };
  for (const auto& [sent, wanted] : streams) {
    ForEachSplit(sent, [&, &wanted = wanted](const auto& pieces, const std::string& label) {
      SCOPED_TRACE(label);
      for (const std::string_view piece : pieces) {
        s.client.Send(piece);
        AwaitIdle();
      }
      const std::string mark = BuildFrame(kText, "mark");
      s.client.Send(mark);
      ASSERT_EQ(s.backend.ReadExactly(wanted.size() + mark.size()), wanted + mark);
    });
  }
}

TEST_F(ClientHeartbeatTest, PassesEveryOtherPong) {
  RelayedSession s = OpenSession(proxy, backend);
  std::string other = AwaitPing(s.client);
  other.back() = static_cast<char>(other.back() ^ 1);
  for (const std::string& payload : {std::string(), std::string("unasked"), other}) {
    const std::string pong = BuildFrame(kPong, payload);
    s.client.Send(pong);
    EXPECT_EQ(s.backend.ReadExactly(pong.size()), pong);
  }
}

// What one session was asked is no answer in another one.
TEST_F(ClientHeartbeatTest, APongOfAnotherSessionIsNoneOfOurs) {
  RelayedSession one = OpenSession(proxy, backend);
  RelayedSession two = OpenSession(proxy, backend);
  const std::string pong = BuildFrame(kPong, AwaitPing(one.client));
  two.client.Send(pong);
  EXPECT_EQ(two.backend.ReadExactly(pong.size()), pong);
}

TEST_F(ClientHeartbeatTest, ComesOnlyBetweenFramesOfTheBackend) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string frame = BackendFrame(kBinary, Pattern(1000));
  s.backend.Send(frame.substr(0, 500));
  EXPECT_TRUE(s.client.ReadExactly(500) == frame.substr(0, 500));
  EXPECT_FALSE(s.client.HasInput(Millis(500))) << "written into a frame of the backend";
  s.backend.Send(frame.substr(500));
  EXPECT_TRUE(s.client.ReadExactly(frame.size() - 500) == frame.substr(500));
  static_cast<void>(AwaitPing(s.client));
}

constexpr Millis kInterval{400};
constexpr Millis kTimeout{300};

class LostClientTest : public ClientHeartbeatTest {
 protected:
  LostClientTest() : ClientHeartbeatTest("400ms", "300ms") {}
};

TEST_F(LostClientTest, IsCutAndItsBackendGets1001) {
  RelayedSession s = OpenSession(proxy, backend);
  const auto opened = steady_clock::now();
  static_cast<void>(AwaitPing(s.client));
  const Frame close = s.backend.ReadFrame();
  const auto took = steady_clock::now() - opened;
  EXPECT_EQ(close.opcode, kClose);
  EXPECT_TRUE(close.masked);
  EXPECT_EQ(close.close_code(), 1001);
  EXPECT_LT(took, 2 * kInterval) << "more than two intervals of silence";
  EXPECT_GE(took, kTimeout);
  s.client.ExpectReset();
  s.backend.Send(BackendClose(1001));
  s.backend.ExpectEnd();
  s.backend.Close();
  proxy.AwaitMetric("sluice_connections_open", 0);
  EXPECT_EQ(proxy.Metric(kUnanswered), 1);
  EXPECT_EQ(proxy.Metric("sluice_torn_total"), 0);
  EXPECT_EQ(proxy.Metric("sluice_closes_total{code=\"none\",by=\"client\"}"), 1);
  const auto line = proxy.AwaitAccessLog(1)[0];
  EXPECT_EQ(line["reason"], "ping_timeout");
  EXPECT_EQ(line["closed_by"], "client");
  EXPECT_EQ(line["close_code_backend"], 1001);
}

TEST_F(LostClientTest, ABackendThatOwesItsAnswerIsNotWaitedForEver) {
  RelayedSession s = OpenSession(proxy, backend);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  proxy.AwaitMetric("sluice_sessions_open", 0);
  static_cast<void>(s.backend.AwaitEnd());
}

TEST_F(LostClientTest, InsideAFrameEndsTheStreamOfTheBackend) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string half = BuildFrame(kBinary, Pattern(1000)).substr(0, 500);
  s.client.Send(half);
  EXPECT_TRUE(s.backend.ReadExactly(half.size()) == half);
  s.backend.ExpectEnd();  // a CLOSE has no place inside the frame
  s.backend.Close();
  proxy.AwaitMetric("sluice_sessions_open", 0);
  EXPECT_EQ(proxy.Metric("sluice_torn_total{reason=\"client_lost\"}"), 1);
}

TEST_F(LostClientTest, AClientThatTalksIsNotAsked) {
  RelayedSession s = OpenSession(proxy, backend);
  const auto until = steady_clock::now() + 3 * kInterval;
  while (steady_clock::now() < until) {
    s.client.SendFrame(kText, "tick");
    ASSERT_EQ(s.backend.ReadFrame().payload, "tick");
    ASSERT_FALSE(s.client.HasInput(Millis(30)));
  }
}

// Reading is a sign of life where there is something to read.
TEST_F(LostClientTest, OneThatReadsSlowlyLives) {
  RelayedSession s = OpenSession(proxy, backend, {.small_buffers = true});
  std::string stream;
  for (unsigned i = 0; i < 80; ++i) {
    stream += BackendFrame(kBinary, Pattern(100'000, i));
  }
  std::size_t sent = 0;
  const Deadline deadline;
  while (!(proxy.Metric("sluice_backpressure_pauses_total{side=\"backend\"}") >= 1)) {
    ASSERT_FALSE(deadline.passed());
    sent += s.backend.SendSome(std::string_view(stream).substr(sent));
  }
  const auto until = steady_clock::now() + 6 * kTimeout;
  int messages = 0;
  while (steady_clock::now() < until) {
    sent += s.backend.SendSome(std::string_view(stream).substr(sent));
    if (s.client.HasInput(Millis(0))) {
      const Frame frame = s.client.ReadFrame();
      if (frame.opcode == kPing) {  // far behind the time when it was sent
        s.client.SendFrame(kPong, frame.payload);
      } else {
        EXPECT_EQ(frame.opcode, kBinary);
        ++messages;
      }
    }
    static_cast<void>(s.backend.HasInput(Millis(80)));  // nothing comes there: it is a pause
    ASSERT_EQ(proxy.Metric(kUnanswered), 0);
  }
  EXPECT_GE(messages, 3);
}

TEST_F(LostClientTest, AfterALongPauseOfOursItGetsAnotherChance) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string own = AwaitPing(s.client);
  proxy.Stop();
  EXPECT_FALSE(s.backend.HasInput(Millis(2500)));
  proxy.Continue();
  const std::string again = AwaitPing(s.client);
  EXPECT_NE(again, own);
  s.client.SendFrame(kPong, again);
  s.client.SendFrame(kText, "late");
  EXPECT_EQ(s.backend.ReadFrame().payload, "late");
  EXPECT_EQ(proxy.Metric(kUnanswered), 0);
}

TEST(HeartbeatOfBothSides, IsOnByOneSetting) {
  RawBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .route = "heartbeat.interval = \"200ms\""});
  RelayedSession s = OpenSession(proxy, backend);
  const std::string to_client = AwaitPing(s.client);
  const Frame to_backend = s.backend.ReadFrame();
  EXPECT_EQ(to_backend.opcode, kPing);
  EXPECT_NE(to_backend.payload, to_client);
  s.client.SendFrame(kPong, to_client);
  s.backend.Send(BackendFrame(kPong, to_backend.payload));
  proxy.AwaitMetric("sluice_pings_total{result=\"answered\"}", 2);
}

}  // namespace
}  // namespace sluice::test
