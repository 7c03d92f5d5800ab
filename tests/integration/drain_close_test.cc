// Proves how one session is closed when the process ends (SIGTERM): the backend is told first, what
// it still says is delivered, the client is told at the end of a message, nobody is waited for
// without end, and the process exits with 0.
#include <signal.h>

#include <chrono>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"

namespace sluice::test {
namespace {

using std::chrono::steady_clock;

class DrainTest : public testing::Test {
 protected:
  explicit DrainTest(std::string route = {})
      : proxy(Config{.backends = {backend.port()},
                     .server = "close_timeout = \"400ms\"",
                     .route = std::move(route),
                     .drain = "window = \"0s\"\ngrace = \"8s\"\nmessage_grace = \"400ms\""}) {}

  void ExpectExit() { EXPECT_EQ(proxy.Wait(), 0) << proxy.err(); }

  RawBackend backend;
  ProxyProcess proxy;
};

TEST_F(DrainTest, TellsTheBackendFirstAndTheClientAfterItsLastWords) {
  RelayedSession s = OpenSession(proxy, backend);
  proxy.Signal(SIGTERM);
  const Frame to_backend = s.backend.ReadFrame();
  EXPECT_EQ(to_backend.opcode, kClose);
  EXPECT_EQ(to_backend.close_code(), 1001);
  EXPECT_TRUE(to_backend.masked);
  EXPECT_FALSE(s.client.HasInput(Millis(30))) << "the client was told before the backend answered";
  s.backend.Send(BackendFrame(kText, "one") + BackendFrame(kText, "two") + BackendClose(1001) +
                 BackendFrame(kText, "never"));
  s.backend.ExpectEnd();
  EXPECT_EQ(s.client.ReadFrame().payload, "one");
  EXPECT_EQ(s.client.ReadFrame().payload, "two");
  const Frame to_client = s.client.ReadFrame();
  EXPECT_EQ(to_client.opcode, kClose);
  EXPECT_EQ(to_client.close_code(), 1012);
  EXPECT_EQ(to_client.close_reason(), "service restart");
  EXPECT_FALSE(to_client.masked);
  s.client.Send(BuildFrame(kText, "discarded") + ClientClose(1012));
  s.client.ExpectEnd();
  s.client.Close();
  s.backend.Close();
  ExpectExit();
  const auto log = proxy.AccessLog();
  ASSERT_EQ(log.size(), 1U);
  EXPECT_EQ(log[0]["closed_by"], "sluice");
  EXPECT_EQ(log[0]["reason"], "drain");
  EXPECT_EQ(log[0]["close_code_client"], 1012);
  EXPECT_EQ(log[0]["close_code_backend"], 1001);
}

TEST_F(DrainTest, SigintDoesTheSame) {
  RelayedSession s = OpenSession(proxy, backend);
  proxy.Signal(SIGINT);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  s.backend.Send(BackendClose(1001));
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  s.client.Send(ClientClose(1012));
  s.client.ExpectEnd();
  s.client.Close();
  s.backend.Close();
  ExpectExit();
}

TEST_F(DrainTest, LetsTheClientFinishItsMessage) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string begin = BuildFrame(kText, "first half, ", {.fin = false});
  s.client.Send(begin);
  EXPECT_EQ(s.backend.ReadExactly(begin.size()), begin);
  proxy.Signal(SIGTERM);
  proxy.AwaitMetric("sluice_drain_sessions_remaining", 1);
  const std::string end = BuildFrame(kContinuation, "second half");
  s.client.Send(end + BuildFrame(kText, "a new message"));
  EXPECT_EQ(s.backend.ReadExactly(end.size()), end);
  const Frame close = s.backend.ReadFrame();
  EXPECT_EQ(close.close_code(), 1001) << "a message was begun during the drain";
  s.backend.Send(BackendClose(1001));
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  s.client.Send(ClientClose(1012));
  s.client.Close();
  s.backend.Close();
  ExpectExit();
}

TEST_F(DrainTest, TakesTheNextFrameBorderOfAMessageThatDoesNotEnd) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string begin = BuildFrame(kText, "first half, ", {.fin = false});
  s.client.Send(begin);
  EXPECT_EQ(s.backend.ReadExactly(begin.size()), begin);
  const auto began = steady_clock::now();
  proxy.Signal(SIGTERM);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  EXPECT_GE(steady_clock::now() - began, Millis(400) - kGrain);
  s.backend.Send(BackendClose(1001));
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  s.client.Close();
  s.backend.Close();
  ExpectExit();
}

TEST_F(DrainTest, CutsTheBackendOffAFrameThatNeverEnds) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string half = BuildFrame(kBinary, Pattern(1000)).substr(0, 500);
  s.client.Send(half);
  EXPECT_TRUE(s.backend.ReadExactly(half.size()) == half);
  proxy.Signal(SIGTERM);
  s.backend.ExpectEnd();  // no CLOSE fits there
  s.backend.Close();
  // The client is at a border of its own and gets its CLOSE.
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  s.client.Close();
  ExpectExit();
}

TEST_F(DrainTest, DoesNotWaitForeverForTheBackendsAnswer) {
  RelayedSession s = OpenSession(proxy, backend);
  const auto began = steady_clock::now();
  proxy.Signal(SIGTERM);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  EXPECT_GE(steady_clock::now() - began, Millis(400) - kGrain);
  s.client.Send(ClientClose(1012));
  s.client.Close();
  ExpectExit();
  EXPECT_LT(steady_clock::now() - began, Millis(5000));
}

TEST_F(DrainTest, DeliversTheBackendsMessageInFlightToItsEnd) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string begin = BackendFrame(kText, "begin ", false);
  s.backend.Send(begin);
  EXPECT_EQ(s.client.ReadExactly(begin.size()), begin);
  proxy.Signal(SIGTERM);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  // It takes its time: longer than close_timeout, within the message's grace.
  EXPECT_FALSE(s.client.HasInput(Millis(500)));
  const std::string end = BackendFrame(kContinuation, "end");
  s.backend.Send(end + BackendFrame(kText, "a new message"));
  EXPECT_EQ(s.client.ReadExactly(end.size()), end);
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  s.client.Send(ClientClose(1012));
  s.client.Close();
  s.backend.Close();
  ExpectExit();
}

TEST_F(DrainTest, CutsAClientInsideAFrameOfTheBackendThatNeverEnds) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string half = BackendFrame(kBinary, Pattern(1000)).substr(0, 500);
  s.backend.Send(half);
  EXPECT_TRUE(s.client.ReadExactly(half.size()) == half);
  proxy.Signal(SIGTERM);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  s.client.ExpectEnd();
  s.client.Close();
  s.backend.Close();
  ExpectExit();
}

TEST_F(DrainTest, DoesNotWaitForeverForTheClientsAnswer) {
  RelayedSession s = OpenSession(proxy, backend);
  proxy.Signal(SIGTERM);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  s.backend.Send(BackendClose(1001));
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  s.client.ExpectEnd();
  ExpectExit();
}

TEST_F(DrainTest, ABackendThatIsGoneIsSkipped) {
  RelayedSession s = OpenSession(proxy, backend);
  proxy.Signal(SIGTERM);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  const auto began = steady_clock::now();
  s.backend.Reset();
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  EXPECT_LT(steady_clock::now() - began, Millis(300));
  s.client.Send(ClientClose(1012));
  s.client.Close();
  ExpectExit();
}

TEST_F(DrainTest, AClientThatLeavesMeanwhileIsNotAnError) {
  RelayedSession s = OpenSession(proxy, backend);
  proxy.Signal(SIGTERM);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  s.client.Reset();
  s.backend.Send(BackendClose(1001));
  s.backend.ExpectEnd();
  s.backend.Close();
  ExpectExit();
}

TEST_F(DrainTest, AClientThatLeavesInsideAFrameMeanwhileIsTornOnce) {
  // A request under way keeps the process, so that it can be asked.
  RawClient slow(proxy.port());
  slow.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  Stream leg = backend.Accept();
  RelayedSession s = OpenSession(proxy, backend);
  const std::string half = BuildFrame(kText, "a frame that never ends").substr(0, 10);
  s.client.Send(half);
  EXPECT_EQ(s.backend.ReadExactly(half.size()), half);
  proxy.Signal(SIGTERM);
  proxy.AwaitMetric("sluice_own_closes_total", 1);
  s.client.Close();
  s.backend.ExpectEnd();
  s.backend.Close();
  proxy.AwaitMetric("sluice_sessions_open", 0);
  EXPECT_EQ(proxy.Metric("sluice_torn_total{reason=\"client_lost\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_torn_total"), 1);
  leg.Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(slow.ReadHead().status, 200);
  slow.Close();
  ExpectExit();
}

TEST_F(DrainTest, ClosesThatCrossTheDrainEndInOrder) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string begin = BuildFrame(kText, "open", {.fin = false});
  s.client.Send(begin);
  EXPECT_EQ(s.backend.ReadExactly(begin.size()), begin);
  proxy.Signal(SIGTERM);
  proxy.AwaitMetric("sluice_drain_sessions_remaining", 1);
  s.client.Send(ClientClose(1000));
  const Frame to_backend = s.backend.ReadFrame();
  EXPECT_EQ(to_backend.opcode, kClose);
  s.backend.Send(BackendClose(1000));
  EXPECT_EQ(s.client.ReadFrame().opcode, kClose);
  s.client.ExpectEnd();
  s.client.Close();
  s.backend.Close();
  ExpectExit();
}

TEST_F(DrainTest, DeliversWhatIsBufferedForASlowClient) {
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
  proxy.Signal(SIGTERM);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  std::thread writer([&] { s.backend.Send(stream.substr(sent) + BackendClose(1001)); });
  EXPECT_TRUE(s.client.ReadExactly(stream.size()) == stream);
  writer.join();
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  s.client.Send(ClientClose(1012));
  s.client.Close();
  s.backend.Close();
  ExpectExit();
}

TEST_F(DrainTest, AClientThatReadsNothingIsCutInTheEnd) {
  RelayedSession s = OpenSession(proxy, backend, {.small_buffers = true});
  const std::string stream = BackendFrame(kBinary, Pattern(12'000'000));
  std::size_t sent = 0;
  const Deadline deadline;
  while (!(proxy.Metric("sluice_backpressure_pauses_total{side=\"backend\"}") >= 1)) {
    ASSERT_FALSE(deadline.passed());
    sent += s.backend.SendSome(std::string_view(stream).substr(sent));
  }
  proxy.Signal(SIGTERM);
  ExpectExit();
}

class DrainCodeTest : public DrainTest {
 protected:
  DrainCodeTest() : DrainTest("close_code = 1001") {}
};

TEST_F(DrainCodeTest, TheRoutesCodeIsUsed) {
  RelayedSession s = OpenSession(proxy, backend);
  proxy.Signal(SIGTERM);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  s.backend.Send(BackendClose(1001));
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1001);
  s.client.Close();
  s.backend.Close();
  ExpectExit();
}

}  // namespace
}  // namespace sluice::test
