// Proves that the relay changes nothing: every frame size, fragments with control frames between,
// any segmentation, data that comes early, and a peer that reads slowly.
#include <sys/socket.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"

namespace sluice::test {
namespace {

class RelayTest : public testing::Test {
 protected:
  RawBackend backend;
  ProxyProcess proxy{Config{.backends = {backend.port()}}};
};

// One peer writes from a thread of its own, so that neither waits for the other.
std::string Pass(Stream& from, Stream& to, const std::string& bytes) {
  std::thread writer([&] { from.Send(bytes); });
  std::string got;
  try {
    got = to.ReadExactly(bytes.size());
  } catch (const Failure& failure) {
    ADD_FAILURE() << failure.what();
  }
  writer.join();
  return got;
}

TEST_F(RelayTest, ForwardsEveryFrameSizeUnchangedBothWays) {
  RelayedSession s = OpenSession(proxy, backend);
  for (const std::size_t size : {0U, 1U, 125U, 126U, 127U, 65535U, 65536U, 1U << 20U}) {
    const std::string payload = Pattern(size);
    const std::string up = BuildFrame(kBinary, payload);
    EXPECT_TRUE(Pass(s.client, s.backend, up) == up) << size;
    const std::string down = BackendFrame(kBinary, payload);
    EXPECT_TRUE(Pass(s.backend, s.client, down) == down) << size;
  }
  EXPECT_EQ(proxy.Metric("sluice_messages_total{from=\"client\",opcode=\"binary\"}"), 8);
  EXPECT_EQ(proxy.Metric("sluice_messages_total{from=\"backend\",opcode=\"binary\"}"), 8);
}

TEST_F(RelayTest, ForwardsFragmentsWithControlFramesBetween) {
  RelayedSession s = OpenSession(proxy, backend);
  for (const bool masked : {true, false}) {
    const auto frame = [&](std::uint8_t opcode, std::string_view payload, bool fin) {
      return BuildFrame(opcode, payload, {.fin = fin, .masked = masked});
    };
    const std::string bytes = frame(kText, "one ", false) + frame(kPing, "mid", true) +
                              frame(kContinuation, "", false) + frame(kPong, "", true) +
                              frame(kContinuation, Pattern(300), false) +
                              frame(kContinuation, "end", true) + frame(kText, "next", true);
    Stream& from = masked ? static_cast<Stream&>(s.client) : s.backend;
    Stream& to = masked ? s.backend : static_cast<Stream&>(s.client);
    EXPECT_TRUE(Pass(from, to, bytes) == bytes) << masked;
  }
  EXPECT_EQ(proxy.Metric("sluice_messages_total{from=\"client\",opcode=\"text\"}"), 2);
  EXPECT_EQ(proxy.Metric("sluice_messages_total{from=\"client\",opcode=\"ping\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_messages_total{from=\"backend\",opcode=\"pong\"}"), 1);
}

TEST_F(RelayTest, ForwardsOneByteAtATimeBothWays) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string up = BuildFrame(kText, Pattern(200)) + BuildFrame(kPing, "p") +
                         BuildFrame(kText, "") + BuildFrame(kText, "x");
  s.client.SendDribble(up);
  EXPECT_TRUE(s.backend.ReadExactly(up.size()) == up);
  const std::string down =
      BackendFrame(kText, Pattern(200)) + BackendFrame(kPing, "") + BackendFrame(kBinary, "y");
  s.backend.SendDribble(down);
  EXPECT_TRUE(s.client.ReadExactly(down.size()) == down);
}

TEST_F(RelayTest, HoldsBackAFrameUntilItsHeaderIsWhole) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string first = BuildFrame(kText, "first");
  const std::string second = BuildFrame(kBinary, Pattern(300));
  s.client.Send(first + second.substr(0, 5));  // cut inside the second header
  EXPECT_EQ(s.backend.ReadExactly(first.size()), first);
  EXPECT_FALSE(s.backend.HasInput(Millis(50)));
  s.client.Send(second.substr(5, 5));  // header whole, two bytes of payload
  EXPECT_EQ(s.backend.ReadExactly(10), second.substr(0, 10));
  s.client.Send(second.substr(10));
  EXPECT_EQ(s.backend.ReadExactly(second.size() - 10), second.substr(10));
}

TEST_F(RelayTest, DeliversWhatTheClientSentBehindItsRequest) {
  RawClient client(proxy.port());
  const std::string early = BuildFrame(kText, "early") + BuildFrame(kBinary, Pattern(5000));
  client.Send(UpgradeRequest() + early + BuildFrame(kText, "half").substr(0, 3));
  Stream peer = backend.AcceptWebSocket();
  EXPECT_EQ(client.ReadHead().status, 101);
  EXPECT_TRUE(peer.ReadExactly(early.size()) == early);
  client.Send(BuildFrame(kText, "half").substr(3));
  EXPECT_EQ(peer.ReadFrame().payload, "half");
}

TEST_F(RelayTest, DeliversWhatTheBackendSentBehindIts101) {
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  Stream peer = backend.Accept();
  const HttpMessage request = peer.ReadHead();
  const std::string early = BackendFrame(kText, "hello") + BackendFrame(kText, "again");
  peer.Send(SwitchingProtocols(request.Field("Sec-WebSocket-Key")) + early);
  EXPECT_EQ(client.ReadHead().status, 101);
  EXPECT_EQ(client.ReadExactly(early.size()), early);
}

TEST_F(RelayTest, RelaysACloseThatCameGluedToThe101) {
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  Stream peer = backend.Accept();
  const HttpMessage request = peer.ReadHead();
  peer.Send(SwitchingProtocols(request.Field("Sec-WebSocket-Key")) + BackendClose(1008, "no"));
  peer.FinishWrite();
  EXPECT_EQ(client.ReadHead().status, 101);
  const Frame close = client.ReadFrame();
  EXPECT_EQ(close.close_code(), 1008);
  EXPECT_EQ(close.close_reason(), "no");
}

TEST(Relay, LosesNothingOfAFrameBeforeThePongThatItKeeps) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .route = "heartbeat.client.interval = \"0s\"\n"
                                     "heartbeat.interval = \"100ms\"\n"
                                     "heartbeat.timeout = \"10s\""});
  RelayedSession s = OpenSession(proxy, backend);
  const Frame ping = s.backend.ReadFrame();
  ASSERT_EQ(ping.opcode, kPing);
  // The text is there, so the start of the frame behind it has been read, and is held back.
  const std::string held = BackendFrame(kPong, "of the application");
  s.backend.Send(BackendFrame(kText, "first") + held.substr(0, 7));
  EXPECT_EQ(s.client.ReadFrame().payload, "first");
  s.backend.Send(held.substr(7) + BackendFrame(kPong, ping.payload) + BackendFrame(kText, "last"));
  const Frame pong = s.client.ReadFrame();
  EXPECT_EQ(pong.opcode, kPong);
  EXPECT_EQ(pong.payload, "of the application");
  EXPECT_EQ(s.client.ReadFrame().payload, "last");
}

TEST_F(RelayTest, PassesDeflatedFramesOnceTheBackendAgreed) {
  constexpr std::string_view kExtension = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
  RelayedSession s = OpenSession(proxy, backend, {}, kExtension, kExtension);
  const std::string up = BuildFrame(kText, "compressed", {.rsv = 4});
  s.client.Send(up);
  EXPECT_EQ(s.backend.ReadExactly(up.size()), up);
  const std::string down = BuildFrame(kText, "compressed", {.masked = false, .rsv = 4});
  s.backend.Send(down);
  EXPECT_EQ(s.client.ReadExactly(down.size()), down);
}

// Backpressure.

struct SlowCase {
  const char* name;
  bool client_reads_slowly;
};

class SlowReader : public testing::TestWithParam<SlowCase> {};

TEST_P(SlowReader, IsWaitedForWithoutStoringWhatItDoesNotRead) {
  RawBackend backend(!GetParam().client_reads_slowly);
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RelayedSession s = OpenSession(proxy, backend, {.small_buffers = GetParam().client_reads_slowly});
  Stream& reader = GetParam().client_reads_slowly ? static_cast<Stream&>(s.client) : s.backend;
  Stream& writer = GetParam().client_reads_slowly ? s.backend : static_cast<Stream&>(s.client);
  const bool masked = !GetParam().client_reads_slowly;
  const std::size_t before = proxy.ResidentBytes();

  constexpr std::size_t kMessage = 100'000;
  constexpr std::size_t kCount = 400;  // 40 MB: more than kernel buffers hold
  std::string stream;
  for (std::size_t i = 0; i < kCount; ++i) {
    stream += BuildFrame(kBinary, Pattern(kMessage, static_cast<unsigned>(i)), {.masked = masked});
  }
  std::thread thread([&] {
    try {
      writer.Send(stream);
    } catch (const Failure& failure) {
      ADD_FAILURE() << failure.what();
    }
  });
  const std::string side = masked ? "client" : "backend";
  proxy.AwaitMetricAtLeast("sluice_backpressure_pauses_total{side=\"" + side + "\"}", 1);
  // Nothing is read meanwhile, and the other direction still flows.
  for (int i = 0; i < 20; ++i) {
    reader.Send(BuildFrame(kPing, "still", {.masked = !masked}));
    EXPECT_EQ(writer.ReadFrame().payload, "still");
  }
  EXPECT_LT(proxy.ResidentBytes(), before + AllowedGrowth(proxy));
  EXPECT_TRUE(reader.ReadExactly(stream.size()) == stream) << "changed on the way";
  thread.join();
  EXPECT_LT(proxy.ResidentBytes(), before + AllowedGrowth(proxy));
}

INSTANTIATE_TEST_SUITE_P(Both, SlowReader,
                         testing::Values(SlowCase{"Client", true}, SlowCase{"Backend", false}),
                         [](const auto& one) { return std::string(one.param.name); });

// A firehose of large frames, of small ones: neither keeps the worker from its other sessions.
class Firehose : public testing::TestWithParam<std::size_t> {};

TEST_P(Firehose, DoesNotKeepTheLoopFromOthers) {
  RawBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .workers = 1, .server = "close_timeout = \"100ms\""});
  RelayedSession loud = OpenSession(proxy, backend);
  RelayedSession quiet = OpenSession(proxy, backend);
  std::string piece;
  while (piece.size() < 1'000'000) {
    piece += BackendFrame(kBinary, Pattern(GetParam()));
  }
  std::atomic<bool> over = false;
  std::atomic<std::size_t> pieces = 0;
  const auto until_over = [&](const auto& step) {
    try {
      while (!over) {
        step();
      }
    } catch (const Failure& failure) {
      if (!over) {
        ADD_FAILURE() << failure.what();
      }
    }
  };
  std::jthread writer([&] { until_over([&] { loud.backend.Send(piece); }); });
  std::jthread reader([&] {
    until_over([&] {
      static_cast<void>(loud.client.ReadSome());
      ++pieces;
    });
  });
  // Also when a step below fails: shuts the sockets down, so that neither waits for the other.
  const auto end = std::unique_ptr<void, std::function<void(void*)>>(&over, [&](void*) {
    over = true;
    ::shutdown(loud.client.fd(), SHUT_RDWR);
    ::shutdown(loud.backend.fd(), SHUT_RDWR);
  });
  // As many round trips as a chat has in minutes; each has to wait for its turn only.
  for (int i = 0; i < 200; ++i) {
    quiet.client.SendFrame(kText, "ping");
    EXPECT_EQ(quiet.backend.ReadFrame(Deadline(Millis(5'000))).payload, "ping");
    quiet.backend.Send(BackendFrame(kText, "pong"));
    EXPECT_EQ(quiet.client.ReadFrame(Deadline(Millis(5'000))).payload, "pong");
  }
  EXPECT_GT(pieces, 0U) << "nothing else was going on";
}

INSTANTIATE_TEST_SUITE_P(FrameSizes, Firehose, testing::Values(100U, 1'000'000U),
                         testing::PrintToStringParamName());

TEST(Relay, BothSidesMayBeFullAtOnce) {
  RawBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .route = "limits.max_message_bytes = \"0B\""});
  RelayedSession s = OpenSession(proxy, backend);
  constexpr std::size_t kMuch = 24'000'000;  // more than the kernel holds on the way
  const std::string up = BuildFrame(kBinary, Pattern(kMuch, 1));
  const std::string down = BackendFrame(kBinary, Pattern(kMuch, 2));
  // Each writes until nothing is taken any more, and only then reads.
  std::size_t up_sent = 0;
  std::size_t down_sent = 0;
  const Deadline deadline;
  while (!(proxy.Metric("sluice_backpressure_pauses_total{side=\"client\"}") >= 1 &&
           proxy.Metric("sluice_backpressure_pauses_total{side=\"backend\"}") >= 1)) {
    ASSERT_FALSE(deadline.passed());
    up_sent += s.client.SendSome(std::string_view(up).substr(up_sent));
    down_sent += s.backend.SendSome(std::string_view(down).substr(down_sent));
  }
  std::thread up_rest([&] { s.client.Send(std::string_view(up).substr(up_sent)); });
  EXPECT_TRUE(s.backend.ReadExactly(up.size()) == up);
  up_rest.join();
  std::thread down_rest([&] { s.backend.Send(std::string_view(down).substr(down_sent)); });
  EXPECT_TRUE(s.client.ReadExactly(down.size()) == down);
  down_rest.join();
}

}  // namespace
}  // namespace sluice::test
