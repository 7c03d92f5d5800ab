// Proves the closing handshake through the relay (RFC 6455 section 7): a CLOSE passes unchanged in
// either direction, is recorded once with who began it, and a side that does not do its part is not
// waited for longer than close_timeout.
#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <string>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"

namespace sluice::test {
namespace {

using std::chrono::steady_clock;

constexpr Millis kCloseTimeout{300};

Config QuickConfig(std::uint16_t port) {
  return Config{.backends = {port}, .server = "close_timeout = \"300ms\""};
}

class CloseTest : public testing::Test {
 protected:
  // The one session is over and has left nothing behind.
  void ExpectNothingLeft() {
    proxy.AwaitMetric("sluice_sessions_open", 0);
    proxy.AwaitMetric("sluice_connections_open", 0);
    const Deadline deadline;
    while (proxy.OpenFds() > fds && !deadline.passed()) {
    }
    EXPECT_LE(proxy.OpenFds(), fds);
  }

  RawBackend backend;
  ProxyProcess proxy{QuickConfig(backend.port())};
  std::size_t fds = proxy.OpenFds();
};

TEST_F(CloseTest, EveryLegalCodePassesFromTheClient) {
  std::size_t line = 0;
  for (const std::uint16_t code :
       std::initializer_list<std::uint16_t>{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011,
                                            1012, 1013, 1014, 3000, 3999, 4000, 4999}) {
    SCOPED_TRACE(code);
    RelayedSession s = OpenSession(proxy, backend);
    const std::string close = ClientClose(code, "why \xE2\x82\xAC");
    s.client.Send(close);
    EXPECT_EQ(s.backend.ReadExactly(close.size()), close);
    const std::string answer = BackendClose(code);
    s.backend.Send(answer);
    EXPECT_EQ(s.client.ReadExactly(answer.size()), answer);
    s.client.ExpectEnd();
    s.backend.ExpectEnd();
    s.client.Close();
    s.backend.Close();
    const auto log = proxy.AwaitAccessLog(++line).back();
    EXPECT_EQ(log["closed_by"], "client");
    EXPECT_EQ(log["close_code_client"], code);
    EXPECT_EQ(log["close_code_backend"], code);
  }
  EXPECT_EQ(proxy.Metric("sluice_closes_total{by=\"client\"}"), 16);
  EXPECT_EQ(proxy.Metric("sluice_closes_total"), 16);
  EXPECT_EQ(proxy.Metric("sluice_closes_total{code=\"4xxx\",by=\"client\"}"), 2);
  EXPECT_EQ(proxy.Metric("sluice_closes_total{code=\"1012\",by=\"client\"}"), 1);
  ExpectNothingLeft();
}

TEST_F(CloseTest, EveryLegalCodePassesFromTheBackend) {
  std::size_t line = 0;
  for (const std::uint16_t code :
       std::initializer_list<std::uint16_t>{1000, 1001, 1011, 1012, 1013, 3000, 4999}) {
    SCOPED_TRACE(code);
    RelayedSession s = OpenSession(proxy, backend);
    const std::string close = BackendClose(code, "reason");
    s.backend.Send(close);
    EXPECT_EQ(s.client.ReadExactly(close.size()), close);
    const std::string answer = ClientClose(code);
    s.client.Send(answer);
    EXPECT_EQ(s.backend.ReadExactly(answer.size()), answer);
    s.backend.ExpectEnd();
    s.client.ExpectEnd();
    s.client.Close();
    s.backend.Close();
    const auto log = proxy.AwaitAccessLog(++line).back();
    EXPECT_EQ(log["closed_by"], "backend");
    EXPECT_EQ(log["close_code_client"], code);
    EXPECT_EQ(log["close_code_backend"], code);
  }
  EXPECT_EQ(proxy.Metric("sluice_closes_total{by=\"backend\"}"), 7);
  ExpectNothingLeft();
}

TEST_F(CloseTest, ACloseWithoutACodeIsRecordedAs1005) {
  RelayedSession s = OpenSession(proxy, backend);
  s.client.Send(BuildFrame(kClose, ""));
  EXPECT_EQ(s.backend.ReadFrame().payload, "");
  s.backend.Send(BackendFrame(kClose, ""));
  EXPECT_EQ(s.client.ReadFrame().payload, "");
  s.client.Close();
  s.backend.Close();
  EXPECT_EQ(proxy.AwaitAccessLog(1)[0]["close_code_client"], 1005);
  EXPECT_EQ(proxy.Metric("sluice_closes_total{code=\"1005\",by=\"client\"}"), 1);
}

TEST_F(CloseTest, ClosesThatCrossAreBothDeliveredAndCountedOnce) {
  RelayedSession s = OpenSession(proxy, backend);
  s.client.Send(ClientClose(4001));
  s.backend.Send(BackendClose(4002));
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 4001);
  EXPECT_EQ(s.client.ReadFrame().close_code(), 4002);
  s.client.ExpectEnd();
  s.backend.ExpectEnd();
  s.client.Close();
  s.backend.Close();
  ExpectNothingLeft();
  EXPECT_EQ(proxy.Metric("sluice_closes_total"), 1);
  EXPECT_EQ(proxy.AwaitAccessLog(1).size(), 1U);
}

TEST_F(CloseTest, ACloseInManyPiecesIsForwardedWhole) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string close = ClientClose(1000, std::string(123, 'r'));
  s.client.SendDribble(close.substr(0, close.size() - 1));
  EXPECT_FALSE(s.backend.HasInput(Millis(50))) << "part of a CLOSE was forwarded";
  s.client.Send(close.substr(close.size() - 1));
  EXPECT_EQ(s.backend.ReadExactly(close.size()), close);
}

TEST_F(CloseTest, NothingFollowsAClose) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string close = ClientClose(1000);
  s.client.Send(close + BuildFrame(kText, "after") + "not even a frame");
  EXPECT_EQ(s.backend.ReadExactly(close.size()), close);
  s.client.Send(BuildFrame(kText, "later"));
  s.backend.Send(BackendFrame(kText, "before the answer") + BackendClose(1000) +
                 BackendFrame(kText, "after"));
  EXPECT_EQ(s.client.ReadFrame().payload, "before the answer");
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1000);
  s.client.ExpectEnd();
  s.backend.ExpectEnd();
}

TEST_F(CloseTest, ABackendThatDoesNotAnswerIsAnsweredFor) {
  RelayedSession s = OpenSession(proxy, backend);
  const auto began = steady_clock::now();
  s.client.Send(ClientClose(4005));
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 4005);
  EXPECT_EQ(s.client.ReadFrame().close_code(), 4005);
  EXPECT_GE(steady_clock::now() - began, kCloseTimeout - kGrain);
  s.client.ExpectEnd();
  s.backend.ExpectEnd();
  // Neither closes its socket: they are closed by then.
  ExpectNothingLeft();
}

TEST_F(CloseTest, AnAnswerThatNoBoundaryComesForIsCountedAsTorn) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string half = BackendFrame(kText, "a frame that never ends").substr(0, 10);
  s.backend.Send(half);
  EXPECT_EQ(s.client.ReadExactly(half.size()), half);
  s.client.Send(ClientClose(1000));
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1000);
  s.client.ExpectEnd();
  s.backend.ExpectEnd();
  ExpectNothingLeft();
  EXPECT_EQ(proxy.Metric("sluice_torn_total{reason=\"deadline\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_torn_total"), 1);
}

TEST_F(CloseTest, AClientThatDoesNotAnswerIsAnsweredFor) {
  RelayedSession s = OpenSession(proxy, backend);
  s.backend.Send(BackendClose(1001));
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1001);
  const Frame answer = s.backend.ReadFrame();
  EXPECT_EQ(answer.close_code(), 1001);
  EXPECT_TRUE(answer.masked);
  s.backend.ExpectEnd();
  s.client.ExpectEnd();
  ExpectNothingLeft();
}

TEST_F(CloseTest, ABackendThatEndsInsteadOfAnsweringIsAnsweredFor) {
  RelayedSession s = OpenSession(proxy, backend);
  s.client.Send(ClientClose(1000));
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1000);
  s.backend.Close();
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1000);
  s.client.ExpectEnd();
  s.client.Close();
  ExpectNothingLeft();
  EXPECT_EQ(proxy.Metric("sluice_closes_total{code=\"1000\",by=\"client\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_torn_total"), 0);
}

TEST_F(CloseTest, AClientThatNeverClosesItsSocketIsCutAfterTheTimeout) {
  RelayedSession s = OpenSession(proxy, backend);
  s.client.Send(ClientClose(1000));
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1000);
  s.backend.Send(BackendClose(1000));
  s.backend.Close();
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1000);
  s.client.ExpectEnd();
  const auto began = steady_clock::now();
  ExpectNothingLeft();
  EXPECT_LT(steady_clock::now() - began, 10 * kCloseTimeout);
}

TEST_F(CloseTest, WhatIsStillSentWhileLingeringDoesNotReset) {
  RelayedSession s = OpenSession(proxy, backend);
  s.client.Send(ClientClose(1000));
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1000);
  s.client.Send(std::string(500'000, 'x'));
  s.backend.Send(BackendClose(1000));
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1000);
  s.client.ExpectEnd();  // FIN, not RST
}

}  // namespace
}  // namespace sluice::test
