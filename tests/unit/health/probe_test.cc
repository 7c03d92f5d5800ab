// Proves a check against real sockets: what it reports of each kind of backend, and that it is over
// by its deadline.
#include "proxy/health/probe.h"

#include <sys/socket.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "tests/support/raw_backend.h"

namespace sluice::health {
namespace {

using test::RawBackend;

class ProbeTest : public testing::Test, protected ProbeSink {
 protected:
  // Runs one check of 127.0.0.1:port to its end.
  CheckResult Run(const Check& check, std::uint16_t port) {
    const auto address = net::Address::FromNumeric("127.0.0.1", port);
    result_.reset();
    auto probe =
        std::make_unique<Probe>(loop_, check, plain_, *address, static_cast<ProbeSink&>(*this));
    loop_.Post([&probe] { probe->Start(); });
    loop_.Run();
    return result_.value_or(CheckResult{false, "none"});
  }

  static Check Of(CheckType type) {
    Check check;
    check.type = type;
    check.host = "x";
    check.timeout = Millis(10'000);
    return check;
  }

 private:
  void OnProbeDone(const CheckResult& result) noexcept override {
    EXPECT_FALSE(result_) << "reported twice";
    result_ = result;
    loop_.Stop();
  }

  const ProbeTls plain_;
  net::Loop loop_;
  std::optional<CheckResult> result_;
};

TEST_F(ProbeTest, TcpPassesWhereSomebodyListens) {
  RawBackend backend;
  EXPECT_TRUE(Run(Of(CheckType::kTcp), backend.port()).passed);
  backend.Accept().ExpectEnd();
}

TEST_F(ProbeTest, SaysThatNobodyListens) {
  const test::ClosedPort port;
  const CheckResult result = Run(Of(CheckType::kTcp), port.port());
  EXPECT_FALSE(result.passed);
  EXPECT_TRUE(result.counts);
  EXPECT_EQ(result.error, "connect: Connection refused");
}

TEST_F(ProbeTest, EndsAtItsDeadlineWhenTheConnectHangs) {
  const test::SilentPort port;
  Check check = Of(CheckType::kTcp);
  check.timeout = Millis(50);
  EXPECT_EQ(Run(check, port.port()).error, "not connected in time");
}

TEST_F(ProbeTest, EndsAtItsDeadlineWhenNoAnswerComes) {
  RawBackend backend;  // the kernel accepts, nobody reads
  Check check = Of(CheckType::kHttp);
  check.timeout = Millis(50);
  EXPECT_EQ(Run(check, backend.port()).error, "no answer in time");
}

TEST_F(ProbeTest, HttpPassesWithAGoodAnswer) {
  RawBackend backend;
  std::thread peer([&backend] {
    test::Stream stream = backend.Accept();
    EXPECT_EQ(stream.ReadRequest().start_line, "GET / HTTP/1.1");
    stream.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    EXPECT_EQ(stream.AwaitEnd(), test::StreamEnd::kFin);
  });
  const CheckResult result = Run(Of(CheckType::kHttp), backend.port());
  peer.join();
  EXPECT_TRUE(result.passed) << result.error;
}

TEST_F(ProbeTest, WebSocketEndsWithACloseInOrder) {
  RawBackend backend;
  Check check = Of(CheckType::kWebSocket);
  check.ping = true;
  std::thread peer([&backend] {
    test::Stream stream = backend.AcceptWebSocket();
    const test::Frame ping = stream.ReadFrame();
    EXPECT_EQ(ping.opcode, test::kPing);
    EXPECT_TRUE(ping.masked);
    stream.SendFrame(test::kPong, ping.payload, {.masked = false});
    const test::Frame close = stream.ReadFrame();
    EXPECT_EQ(close.close_code(), 1000);
    EXPECT_TRUE(close.masked);
    EXPECT_NE(close.mask, ping.mask);
    stream.SendFrame(test::kClose, test::ClosePayload(1000), {.masked = false});
    stream.ExpectEnd();
  });
  const CheckResult result = Run(check, backend.port());
  peer.join();
  EXPECT_TRUE(result.passed) << result.error;
}

TEST_F(ProbeTest, SaysThatTheBackendReset) {
  RawBackend backend;
  std::thread peer([&backend] {
    test::Stream stream = backend.Accept();
    static_cast<void>(stream.ReadRequest());
    stream.Reset();
  });
  const CheckResult result = Run(Of(CheckType::kWebSocket), backend.port());
  peer.join();
  EXPECT_EQ(result.error, "reset without an answer");
}

TEST_F(ProbeTest, EndsQuietlyWhenItsOwnerDoes) {
  RawBackend backend;
  net::Loop loop;
  const Check check = Of(CheckType::kHttp);
  const auto address = net::Address::FromNumeric("127.0.0.1", backend.port());
  const ProbeTls plain;
  auto probe =
      std::make_unique<Probe>(loop, check, plain, *address, static_cast<ProbeSink&>(*this));
  probe->Start();
  probe.reset();
  backend.Accept().ExpectEnd();
}

}  // namespace
}  // namespace sluice::health
