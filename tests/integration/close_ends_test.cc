// Proves what happens when a side ends its TCP stream without a CLOSE, in the middle of anything:
// what was on its way still arrives, the other side learns it as well as it can, and nothing is
// left behind.
#include <chrono>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"

namespace sluice::test {
namespace {

using std::chrono::steady_clock;

class EndsTest : public testing::Test {
 protected:
  explicit EndsTest(bool small_backend = false)
      : backend(small_backend),
        proxy(Config{.backends = {backend.port()}, .server = "close_timeout = \"300ms\""}),
        fds(proxy.OpenFds()) {}

  void ExpectNothingLeft() {
    proxy.AwaitMetric("sluice_sessions_open", 0);
    proxy.AwaitMetric("sluice_connections_open", 0);
    const Deadline deadline;
    while (proxy.OpenFds() > fds && !deadline.passed()) {
    }
    EXPECT_LE(proxy.OpenFds(), fds);
  }

  RawBackend backend;
  ProxyProcess proxy;
  std::size_t fds;
};

// A backend that is gone.

TEST_F(EndsTest, LostBackendIsToldAs1012AtOnce) {
  RelayedSession s = OpenSession(proxy, backend);
  s.backend.Send(BackendFrame(kText, "last words"));
  const auto began = steady_clock::now();
  s.backend.Close();
  EXPECT_EQ(s.client.ReadFrame().payload, "last words");
  const Frame close = s.client.ReadFrame();
  EXPECT_EQ(close.close_code(), 1012);
  EXPECT_EQ(close.close_reason(), "service restart");
  EXPECT_LT(steady_clock::now() - began, Millis(100));
  s.client.Send(ClientClose(1012));
  s.client.ExpectEnd();
  s.client.Close();
  ExpectNothingLeft();
  EXPECT_EQ(proxy.Metric("sluice_closes_total{code=\"1012\",by=\"backend\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_backend_failures_total{reason=\"lost\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_torn_total"), 0);
  EXPECT_EQ(proxy.AwaitAccessLog(1)[0]["reason"], "backend_lost");
}

TEST_F(EndsTest, ResetOfTheBackendIsToldAs1012AtOnce) {
  RelayedSession s = OpenSession(proxy, backend);
  s.backend.Send(BackendFrame(kText, "last words"));
  const auto began = steady_clock::now();
  s.backend.Reset();
  EXPECT_EQ(s.client.ReadFrame().payload, "last words");
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  EXPECT_LT(steady_clock::now() - began, Millis(100));
  s.client.Send(ClientClose(1012));
  s.client.ExpectEnd();
  s.client.Close();
  ExpectNothingLeft();
  EXPECT_EQ(proxy.Metric("sluice_closes_total{code=\"1012\",by=\"backend\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_backend_failures_total{reason=\"lost\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_torn_total"), 0);
  EXPECT_EQ(proxy.AwaitAccessLog(1)[0]["reason"], "backend_lost");
}

TEST_F(EndsTest, BackendLostBetweenFragmentsIsToldAs1012) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string fragment = BackendFrame(kText, "first half", false);
  s.backend.Send(fragment + BackendFrame(kContinuation, "never whole").substr(0, 1));
  s.backend.Close();
  EXPECT_EQ(s.client.ReadExactly(fragment.size()), fragment);
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
}

TEST_F(EndsTest, BackendLostInsideAFrameTearsTheClient) {
  for (const bool reset : {false, true}) {
    SCOPED_TRACE(reset);
    RelayedSession s = OpenSession(proxy, backend);
    const std::string half = BackendFrame(kText, "a frame that never ends").substr(0, 10);
    s.backend.Send(half);
    EXPECT_EQ(s.client.ReadExactly(half.size()), half);
    const auto began = steady_clock::now();
    if (reset) {
      s.backend.Reset();
    } else {
      s.backend.Close();
    }
    s.client.ExpectEnd();  // no CLOSE fits inside a frame
    EXPECT_LT(steady_clock::now() - began, Millis(100));
    s.client.Close();
    ExpectNothingLeft();
  }
  EXPECT_EQ(proxy.Metric("sluice_torn_total{reason=\"backend_lost\"}"), 2);
  EXPECT_EQ(proxy.Metric("sluice_closes_total{code=\"none\",by=\"backend\"}"), 2);
  for (const auto& line : proxy.AwaitAccessLog(2)) {
    EXPECT_EQ(line["reason"], "backend_lost_in_frame");
  }
}

TEST_F(EndsTest, BackendThatOnlyFinishedStillGetsWhatTheClientSends) {
  RelayedSession s = OpenSession(proxy, backend);
  s.backend.FinishWrite();
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  const std::string rest = BuildFrame(kBinary, Pattern(100'000)) + ClientClose(1012);
  s.client.Send(rest);
  EXPECT_TRUE(s.backend.ReadExactly(rest.size()) == rest);
  s.backend.ExpectEnd();
  s.client.ExpectEnd();
  s.client.Close();
  s.backend.Close();
  ExpectNothingLeft();
}

// A client that is gone.

TEST_F(EndsTest, EndOfTheClientIsPassedOnBehindItsData) {
  RelayedSession s = OpenSession(proxy, backend);
  s.client.Send(BuildFrame(kText, "last words"));
  s.client.FinishWrite();
  EXPECT_EQ(s.backend.ReadFrame().payload, "last words");
  s.backend.ExpectEnd();
  // It only finished its own direction: what comes for it is delivered.
  const std::string rest = BackendFrame(kBinary, Pattern(100'000));
  s.backend.Send(rest);
  EXPECT_TRUE(s.client.ReadExactly(rest.size()) == rest);
  s.backend.Close();
  EXPECT_NO_THROW(static_cast<void>(s.client.AwaitEnd()));
  s.client.Close();
  ExpectNothingLeft();
  EXPECT_EQ(proxy.Metric("sluice_closes_total{code=\"none\",by=\"client\"}"), 1);
  EXPECT_EQ(proxy.AwaitAccessLog(1)[0]["closed_by"], "client");
}

TEST_F(EndsTest, ResetOfTheClientEndsTheBackend) {
  RelayedSession s = OpenSession(proxy, backend);
  s.client.Send(BuildFrame(kText, "last words"));
  s.client.Reset();
  EXPECT_EQ(s.backend.ReadFrame().payload, "last words");
  s.backend.ExpectEnd();
  s.backend.Close();
  ExpectNothingLeft();
  EXPECT_EQ(proxy.Metric("sluice_torn_total"), 0);
}

TEST_F(EndsTest, ClientLostInsideAFrameIsCountedAsTorn) {
  for (const bool reset : {false, true}) {
    SCOPED_TRACE(reset);
    RelayedSession s = OpenSession(proxy, backend);
    const std::string half = BuildFrame(kText, "a frame that never ends").substr(0, 10);
    s.client.Send(half);
    EXPECT_EQ(s.backend.ReadExactly(half.size()), half);
    if (reset) {
      s.client.Reset();
    } else {
      s.client.Close();
    }
    s.backend.ExpectEnd();
    s.backend.Close();
    ExpectNothingLeft();
  }
  EXPECT_EQ(proxy.Metric("sluice_torn_total{reason=\"client_lost\"}"), 2);
}

TEST_F(EndsTest, HeldBackStartOfAFrameIsNotTorn) {
  RelayedSession s = OpenSession(proxy, backend);
  s.client.Send(BuildFrame(kText, "x").substr(0, 1));
  s.client.Close();
  s.backend.ExpectEnd();
  s.backend.Close();
  ExpectNothingLeft();
  EXPECT_EQ(proxy.Metric("sluice_torn_total"), 0);
}

TEST_F(EndsTest, StreamToAClientThatFinishedGoesOnPastTheTimeout) {
  RelayedSession s = OpenSession(proxy, backend);
  s.client.FinishWrite();
  s.backend.ExpectEnd();
  // Longer than close_timeout, and something always moves.
  const auto until = steady_clock::now() + Millis(1000);
  const std::string frame = BackendFrame(kText, "still");
  while (steady_clock::now() < until) {
    s.backend.Send(frame);
    ASSERT_EQ(s.client.ReadFrame().payload, "still");
  }
  s.backend.Close();
  EXPECT_EQ(s.client.AwaitEnd(), StreamEnd::kFin);
}

TEST_F(EndsTest, StreamToAClientThatFinishedAndThenVanishedEnds) {
  RelayedSession s = OpenSession(proxy, backend);
  s.client.FinishWrite();
  s.backend.ExpectEnd();
  const std::string frame = BackendFrame(kText, "still");
  s.backend.Send(frame);
  EXPECT_EQ(s.client.ReadFrame().payload, "still");
  s.client.Reset();
  // The backend never stops by itself.
  const Deadline deadline;
  try {
    while (!deadline.passed()) {
      s.backend.Send(frame);
    }
    ADD_FAILURE() << "the backend still talks to nobody";
  } catch (const Failure&) {
    // Cut: its socket was closed.
  }
  ExpectNothingLeft();
}

// Ends behind a slow reader.

TEST_F(EndsTest, LostBackendsDataReachesASlowClient) {
  RelayedSession s = OpenSession(proxy, backend, {.small_buffers = true});
  std::string stream;
  for (unsigned i = 0; i < 120; ++i) {
    stream += BackendFrame(kBinary, Pattern(100'000, i));
  }
  std::thread writer([&] {
    s.backend.Send(stream);
    s.backend.Close();
  });
  proxy.AwaitMetricAtLeast("sluice_backpressure_pauses_total{side=\"backend\"}", 1);
  EXPECT_TRUE(s.client.ReadExactly(stream.size()) == stream);
  writer.join();
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
}

// It looks as if the client took nothing for longer than it is waited for: the kernel tells of room
// in steps of much more than it reads in that time.
TEST(SlowClient, GetsALostBackendsData) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .server = "close_timeout = \"200ms\"",
                            .limits = "out_buffer = \"16MiB\""});
  RelayedSession s = OpenSession(proxy, backend, {.small_buffers = true});
  const std::string stream = BackendFrame(kBinary, Pattern(9'000'000));
  s.backend.Send(stream);
  s.backend.Close();
  std::string got = s.client.ReadSlowly();
  got += s.client.ReadExactly(stream.size() - got.size());
  EXPECT_TRUE(got == stream);
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
}

class SlowBackendTest : public EndsTest {
 protected:
  SlowBackendTest() : EndsTest(true) {}
};

TEST_F(SlowBackendTest, LostClientsDataReachesIt) {
  RelayedSession s = OpenSession(proxy, backend);
  std::string stream;
  for (unsigned i = 0; i < 120; ++i) {
    stream += BuildFrame(kBinary, Pattern(100'000, i));
  }
  std::thread writer([&] {
    s.client.Send(stream);
    s.client.FinishWrite();
  });
  proxy.AwaitMetricAtLeast("sluice_backpressure_pauses_total{side=\"client\"}", 1);
  EXPECT_TRUE(s.backend.ReadExactly(stream.size()) == stream);
  writer.join();
  s.backend.ExpectEnd();
}

TEST_F(EndsTest, ClientThatVanishesWhileFullFreesTheSession) {
  RelayedSession s = OpenSession(proxy, backend, {.small_buffers = true});
  const std::string stream = BackendFrame(kBinary, Pattern(12'000'000));
  std::size_t sent = 0;
  const Deadline deadline;
  while (!(proxy.Metric("sluice_backpressure_pauses_total{side=\"backend\"}") >= 1)) {
    ASSERT_FALSE(deadline.passed());
    sent += s.backend.SendSome(std::string_view(stream).substr(sent));
  }
  s.client.Reset();
  static_cast<void>(s.backend.AwaitEnd());
  s.backend.Close();
  ExpectNothingLeft();
}

}  // namespace
}  // namespace sluice::test
