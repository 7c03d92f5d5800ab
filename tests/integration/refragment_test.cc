// Proves what `refragment` does to large frames of a backend: the client gets the same messages in
// small fragments, so that it stands between frames all the time, and a CLOSE has a place whatever
// becomes of the backend. Everything else passes as it came.
#include <signal.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"
#include "tests/support/certificates.h"

namespace sluice::test {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kLimit = 1024;
constexpr std::uint8_t kRsv1 = 4;
constexpr std::string_view kDeflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
constexpr std::string_view kUnknown = "Sec-WebSocket-Extensions: foo\r\n";

enum class Wire { kPlain, kTls };

class RefragmentTest : public testing::TestWithParam<Wire> {
 protected:
  RelayedSession Open(std::string_view fields = {}, const ClientOptions& options = {}) {
    RelayedSession session;
    session.client = GetParam() == Wire::kTls
                         ? RawClient(proxy.port("tls"), TlsClientOptions{}, options)
                         : RawClient(proxy.port(), options);
    session.client.Send(UpgradeRequest("/", fields));
    session.backend = backend.AcceptWebSocket(fields);
    EXPECT_EQ(session.client.ReadHead().status, 101);
    return session;
  }

  // Reads the fragments of one message and returns its payload.
  static std::string ReadMessage(Stream& client, std::uint8_t opcode, std::uint8_t rsv = 0) {
    std::string payload;
    for (bool first = true;; first = false) {
      const Frame frame = client.ReadFrame();
      EXPECT_EQ(frame.opcode, first ? opcode : kContinuation);
      EXPECT_EQ(frame.rsv, first ? rsv : 0);
      EXPECT_FALSE(frame.masked);
      EXPECT_LE(frame.payload.size(), kLimit);
      payload += frame.payload;
      if (frame.fin) {
        return payload;
      }
      EXPECT_GT(frame.payload.size(), 0U);
      if (testing::Test::HasFailure()) {
        throw Failure("not the fragments of a message");
      }
    }
  }

  // Reads fragments of a message that `payload` begins until a CLOSE comes, which it returns.
  static Frame ReadToClose(Stream& client, std::string_view payload) {
    std::string got;
    for (;;) {
      Frame frame = client.ReadFrame();
      if (frame.opcode == kClose) {
        EXPECT_TRUE(payload.starts_with(got));
        return frame;
      }
      EXPECT_EQ(frame.opcode, got.empty() ? kBinary : kContinuation);
      EXPECT_FALSE(frame.fin) << "the message has not ended";
      EXPECT_LE(frame.payload.size(), kLimit);
      got += frame.payload;
    }
  }

  TestCerts certs;
  CertificateFiles files = certs.Issue({"chat.test"});
  RawBackend backend;
  ProxyProcess proxy{Config{
      .backends = {backend.port()},
      .server = "close_timeout = \"400ms\"",
      .route = "refragment = \"1KiB\"\nlimits.max_message_bytes = \"0B\"",
      .drain = "window = \"0s\"\ngrace = \"8s\"\nmessage_grace = \"400ms\"",
      .more =
          "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\ntls.certificates = [{ chain "
          "= \"" +
          files.chain + "\", key = \"" + files.key + "\" }]"}};
};

INSTANTIATE_TEST_SUITE_P(Wire, RefragmentTest, testing::Values(Wire::kPlain, Wire::kTls),
                         [](const auto& one) {
                           return std::string(one.param == Wire::kTls ? "Tls" : "Plain");
                         });

TEST_P(RefragmentTest, ALargeMessageArrivesInFragments) {
  RelayedSession s = Open();
  const std::string payload = Pattern(100'000);
  s.backend.Send(BackendFrame(kBinary, payload));
  EXPECT_TRUE(ReadMessage(s.client, kBinary) == payload);
  s.backend.Send(BackendFrame(kText, std::string(kLimit + 1, 'x')));
  EXPECT_EQ(ReadMessage(s.client, kText), std::string(kLimit + 1, 'x'));
  EXPECT_EQ(proxy.Metric("sluice_messages_total{from=\"backend\",opcode=\"binary\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_messages_total{from=\"backend\",opcode=\"text\"}"), 1);
}

TEST_P(RefragmentTest, FragmentsDoNotWaitForTheEndOfTheFrame) {
  RelayedSession s = Open();
  const std::string frame = BackendFrame(kBinary, Pattern(100'000));
  s.backend.Send(frame.substr(0, 60'000));
  const Frame first = s.client.ReadFrame();
  EXPECT_EQ(first.opcode, kBinary);
  EXPECT_FALSE(first.fin);
  s.backend.Send(frame.substr(60'000));
  std::string payload = first.payload;
  for (Frame next = first; !next.fin;) {
    next = s.client.ReadFrame();
    EXPECT_EQ(next.opcode, kContinuation);
    payload += next.payload;
  }
  EXPECT_TRUE(payload == Pattern(100'000));
}

TEST_P(RefragmentTest, ACompressedMessageIsMarkedOnItsFirstFragmentOnly) {
  RelayedSession s = Open(kDeflate);
  const std::string payload = Pattern(100'000);
  s.backend.Send(BuildFrame(kBinary, payload, {.masked = false, .rsv = kRsv1}));
  EXPECT_TRUE(ReadMessage(s.client, kBinary, kRsv1) == payload);
  s.backend.Send(BackendFrame(kBinary, payload));  // agreed, and not used for this one
  EXPECT_TRUE(ReadMessage(s.client, kBinary, 0) == payload);
}

TEST_P(RefragmentTest, SmallFramesAndControlFramesPassUnchanged) {
  RelayedSession s = Open();
  const std::string bytes =
      BackendFrame(kText, "") + BackendFrame(kText, "x") + BackendFrame(kBinary, Pattern(125)) +
      BackendFrame(kBinary, Pattern(126)) + BackendFrame(kBinary, Pattern(kLimit)) +
      BackendFrame(kPing, Pattern(125)) + BackendFrame(kText, "one ", false) +
      BackendFrame(kPong, "") + BackendFrame(kContinuation, Pattern(kLimit), false) +
      BackendFrame(kContinuation, "") + BackendFrame(kText, "next");
  s.backend.Send(bytes);
  EXPECT_TRUE(s.client.ReadExactly(bytes.size()) == bytes);
  s.backend.SendDribble(bytes);
  EXPECT_TRUE(s.client.ReadExactly(bytes.size()) == bytes);
}

TEST_P(RefragmentTest, LargeFragmentsOfOneMessageStayOneMessage) {
  RelayedSession s = Open();
  const std::string one = Pattern(5000, 1);
  const std::string two = Pattern(5000, 2);
  s.backend.Send(BackendFrame(kBinary, one, false) + BackendFrame(kPing, "between") +
                 BackendFrame(kContinuation, two) + BackendFrame(kText, "next"));
  std::string payload;
  bool pinged = false;
  for (Frame frame = s.client.ReadFrame();; frame = s.client.ReadFrame()) {
    if (frame.opcode == kPing) {
      EXPECT_EQ(frame.payload, "between");
      EXPECT_TRUE(payload == one) << "it stood between the two fragments";
      pinged = true;
      continue;
    }
    EXPECT_EQ(frame.opcode, payload.empty() ? kBinary : kContinuation);
    EXPECT_LE(frame.payload.size(), kLimit);
    payload += frame.payload;
    if (frame.fin) {
      break;
    }
  }
  EXPECT_TRUE(pinged);
  EXPECT_TRUE(payload == one + two);
  EXPECT_EQ(s.client.ReadFrame().payload, "next");
}

// What an unknown extension makes of a frame may depend on where it ends.
TEST_P(RefragmentTest, WithAnUnknownExtensionFramesPassUnchanged) {
  RelayedSession s = Open(kUnknown);
  const std::string frame = BackendFrame(kBinary, Pattern(100'000));
  s.backend.Send(frame);
  EXPECT_TRUE(s.client.ReadExactly(frame.size()) == frame);
}

TEST_P(RefragmentTest, WhatTheClientSendsPassesUnchanged) {
  RelayedSession s = Open();
  const std::string frames = BuildFrame(kBinary, Pattern(100'000)) + BuildFrame(kText, "small");
  std::thread writer([&] { s.client.Send(frames); });
  EXPECT_TRUE(s.backend.ReadExactly(frames.size()) == frames);
  writer.join();
}

TEST_P(RefragmentTest, ABackendLostInsideALargeFrameIsToldAs1012) {
  for (const bool reset : {false, true}) {
    SCOPED_TRACE(reset);
    RelayedSession s = Open();
    const std::string payload = Pattern(100'000);
    s.backend.Send(BackendFrame(kBinary, payload).substr(0, 50'000));
    // It is in the middle of it when it goes: something has come through.
    const Frame first = s.client.ReadFrame();
    EXPECT_EQ(first.opcode, kBinary);
    EXPECT_FALSE(first.fin);
    const auto began = steady_clock::now();
    if (reset) {
      s.backend.Reset();
    } else {
      s.backend.Close();
    }
    Frame close = s.client.ReadFrame();
    while (close.opcode == kContinuation) {
      EXPECT_FALSE(close.fin);
      close = s.client.ReadFrame();
    }
    EXPECT_LT(steady_clock::now() - began, Millis(100));
    EXPECT_EQ(close.opcode, kClose);
    EXPECT_EQ(close.close_code(), 1012);
    s.client.Send(ClientClose(1012));
    s.client.ExpectEnd();
    s.client.Close();
  }
  proxy.AwaitMetric("sluice_sessions_open", 0);
  EXPECT_EQ(proxy.Metric("sluice_torn_total"), 0);
  EXPECT_EQ(proxy.Metric("sluice_closes_total{code=\"1012\",by=\"backend\"}"), 2);
  EXPECT_EQ(proxy.AwaitAccessLog(2)[1]["reason"], "backend_lost");
}

// A frame that stays below the limit is not cut, and has no place for a CLOSE.
TEST_P(RefragmentTest, ABackendLostInsideASmallFrameTearsTheClient) {
  RelayedSession s = Open();
  const std::string half = BackendFrame(kBinary, Pattern(kLimit)).substr(0, 500);
  s.backend.Send(half);
  EXPECT_TRUE(s.client.ReadExactly(half.size()) == half);
  s.backend.Close();
  s.client.ExpectEnd();
  EXPECT_EQ(proxy.Metric("sluice_torn_total{reason=\"backend_lost\"}"), 1);
}

TEST_P(RefragmentTest, ADrainDoesNotWaitForTheEndOfAnEndlessFrame) {
  RelayedSession s = Open();
  const std::string payload = Pattern(400'000);
  s.backend.Send(BuildHeader(0x82, false, 1ULL << 40U, 8) + payload.substr(0, 100'000));
  std::string got = s.client.ReadFrame().payload;
  const auto began = steady_clock::now();
  proxy.Signal(SIGTERM);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  // It goes on with its frame, as it must.
  s.backend.Send(payload.substr(100'000, 100'000));
  for (Frame frame = s.client.ReadFrame();; frame = s.client.ReadFrame()) {
    if (frame.opcode == kClose) {
      EXPECT_EQ(frame.close_code(), 1012);
      break;
    }
    EXPECT_EQ(frame.opcode, kContinuation);
    EXPECT_FALSE(frame.fin);
    got += frame.payload;
  }
  const auto took = steady_clock::now() - began;
  EXPECT_GE(took, Millis(400) - kGrain) << "its message had a grace";
  EXPECT_LT(took, Millis(3000));
  EXPECT_GE(got.size(), 200'000U - 4096);
  EXPECT_TRUE(payload.starts_with(got));
  s.client.Send(ClientClose(1012));
  s.client.ExpectEnd();
  s.client.Close();
  s.backend.Close();
  EXPECT_EQ(proxy.Wait(), 0) << proxy.err();
  EXPECT_EQ(proxy.AccessLog()[0]["reason"], "drain");
}

// A message of which nothing has gone out yet has begun all the same, and is finished.
TEST_P(RefragmentTest, ADrainDeliversTheMessageInFlightToItsEnd) {
  RelayedSession s = Open();
  const std::string payload = Pattern(3000);
  const std::string frame = BackendFrame(kBinary, payload);
  s.backend.Send(frame.substr(0, 600));  // less than what a fragment is sent from
  proxy.AwaitMetric("sluice_sessions_open", 1);
  EXPECT_FALSE(s.client.HasInput(Millis(50)));
  proxy.Signal(SIGTERM);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  s.backend.Send(frame.substr(600) + BackendClose(1001));
  EXPECT_TRUE(ReadMessage(s.client, kBinary) == payload);
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  s.client.Send(ClientClose(1012));
  s.client.Close();
  s.backend.Close();
  EXPECT_EQ(proxy.Wait(), 0) << proxy.err();
}

TEST_P(RefragmentTest, ASlowClientGetsAllOfIt) {
  RelayedSession s = Open({}, {.small_buffers = true});
  constexpr unsigned kMessages = 120;
  std::thread writer([&] {
    try {
      for (unsigned i = 0; i < kMessages; ++i) {
        s.backend.Send(BackendFrame(kBinary, Pattern(100'000, i)));
      }
    } catch (const Failure&) {
      // The client has found a fault and is gone.
    }
    s.backend.Close();
  });
  const std::size_t before = proxy.ResidentBytes();
  proxy.AwaitMetricAtLeast("sluice_backpressure_pauses_total{side=\"backend\"}", 1);
  EXPECT_LT(proxy.ResidentBytes(), before + AllowedGrowth(proxy));
  std::string fault;
  try {
    for (unsigned i = 0; i < kMessages && fault.empty(); ++i) {
      if (ReadMessage(s.client, kBinary) != Pattern(100'000, i)) {
        fault = "message " + std::to_string(i) + " differs";
      }
    }
  } catch (const Failure& failure) {
    fault = failure.what();
  }
  if (!fault.empty()) {
    s.client.Reset();  // so that the writer ends
  }
  writer.join();
  ASSERT_EQ(fault, "");
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
}

TEST_P(RefragmentTest, ADrainWithAFullBufferEndsAtAFrameBoundary) {
  RelayedSession s = Open({}, {.small_buffers = true});
  const std::string payload = Pattern(14'000'000);
  const std::string stream = BuildHeader(0x82, false, 1ULL << 40U, 8) + payload;
  std::size_t sent = 0;
  const Deadline deadline;
  while (!(proxy.Metric("sluice_backpressure_pauses_total{side=\"backend\"}") >= 1)) {
    ASSERT_FALSE(deadline.passed());
    sent += s.backend.SendSome(std::string_view(stream).substr(sent));
  }
  proxy.Signal(SIGTERM);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  EXPECT_EQ(ReadToClose(s.client, payload).close_code(), 1012);
  s.client.Send(ClientClose(1012));
  s.client.Close();
  s.backend.Close();
  EXPECT_EQ(proxy.Wait(), 0) << proxy.err();
}

}  // namespace
}  // namespace sluice::test
