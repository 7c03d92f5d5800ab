// Proves that frames so large that they are spliced past the proxy are relayed as exactly as small
// ones: whole, in order, bounded while nobody reads them, ended in order, and never into another
// session.
#include <signal.h>

#include <filesystem>
#include <set>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"

namespace sluice::test {
namespace {

constexpr std::size_t kLarge = 3'000'000;

// The pipes that the process has open, each once.
std::set<std::string> PipesOf(const ProxyProcess& proxy) {
  std::set<std::string> pipes;
  std::error_code ignored;  // a descriptor may be closed meanwhile
  for (const auto& fd :
       std::filesystem::directory_iterator("/proc/" + std::to_string(proxy.pid()) + "/fd")) {
    const std::string target = std::filesystem::read_symlink(fd.path(), ignored).string();
    if (target.starts_with("pipe:")) {
      pipes.insert(target);
    }
  }
  return pipes;
}

class SpliceTest : public testing::Test {
 protected:
  // A side that writes without waiting for the one that reads.
  static std::jthread Writing(Stream& stream, const std::string& bytes) {
    return std::jthread([&] {
      try {
        stream.Send(bytes);
      } catch (const Failure& failure) {
        ADD_FAILURE() << failure.what();
      }
    });
  }

  // Sends until nothing more is taken for a while; how much that was.
  std::size_t SendUntilFull(Stream& stream, std::string_view bytes) {
    std::size_t sent = 0;
    while (sent < bytes.size() && stream.HasRoom(Millis(300))) {
      sent += stream.SendSome(bytes.substr(sent));
    }
    return sent;
  }

  RawBackend backend;
  ProxyProcess proxy{Config{.backends = {backend.port()},
                            .server = "close_timeout = \"2s\"",
                            .drain = "window = \"0s\"\ngrace = \"20s\"\nmessage_grace = \"10s\""}};
};

TEST_F(SpliceTest, LargeAndSmallFramesTakeTurnsBothWaysAtOnce) {
  const std::size_t pipes = PipesOf(proxy).size();
  RelayedSession s = OpenSession(proxy, backend);
  const auto stream = [](bool masked) {
    std::string bytes;
    for (unsigned i = 0; i < 4; ++i) {
      const auto frame = [&](std::uint8_t opcode, std::string_view payload, bool fin = true) {
        return BuildFrame(opcode, payload, {.fin = fin, .masked = masked});
      };
      bytes += frame(kBinary, Pattern(kLarge, i), false);
      bytes += frame(kPing, "between");
      bytes += frame(kContinuation, Pattern(70'000, i + 10));
      bytes += frame(kText, "small");
      bytes += frame(kBinary, Pattern(65'536 + i, i + 20));
    }
    return bytes;
  };
  const std::string up = stream(true);
  const std::string down = stream(false);
  std::jthread client_writes = Writing(s.client, up);
  std::jthread backend_writes = Writing(s.backend, down);
  std::jthread backend_reads([&] { EXPECT_TRUE(s.backend.ReadExactly(up.size()) == up); });
  EXPECT_TRUE(s.client.ReadExactly(down.size()) == down);
  client_writes.join();
  backend_writes.join();
  backend_reads.join();
  EXPECT_EQ(proxy.Metric("sluice_bytes_total{from=\"client\"}"), static_cast<double>(up.size()));
  EXPECT_EQ(proxy.Metric("sluice_bytes_total{from=\"backend\"}"), static_cast<double>(down.size()));
  EXPECT_EQ(proxy.Metric("sluice_messages_total{from=\"client\",opcode=\"binary\"}"), 8);
  EXPECT_EQ(proxy.Metric("sluice_messages_total{from=\"backend\",opcode=\"ping\"}"), 4);
  EXPECT_GT(PipesOf(proxy).size(), pipes) << "nothing of this was spliced";
}

TEST_F(SpliceTest, OneByteAtATimeAfterABurst) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string frame = BackendFrame(kBinary, Pattern(kLarge));
  const std::size_t burst = frame.size() - 2'000;
  std::jthread writer([&] {
    s.backend.Send(frame.substr(0, burst));
    s.backend.SendDribble(frame.substr(burst));
  });
  EXPECT_TRUE(s.client.ReadExactly(frame.size()) == frame);
  writer.join();
}

TEST_F(SpliceTest, ASlowReaderCostsABoundedNumberOfPipes) {
  // More sessions than pipes may be lent: the others are copied, and nobody notices.
  constexpr std::size_t kSessions = 80;
  const std::string frame = BackendFrame(kBinary, Pattern(8'000'000));
  std::vector<RelayedSession> sessions;
  std::vector<std::size_t> sent;
  const std::size_t pipes = PipesOf(proxy).size();
  for (std::size_t i = 0; i < kSessions; ++i) {
    sessions.push_back(OpenSession(proxy, backend, {.small_buffers = true}));
    sent.push_back(sessions.back().backend.SendSome(frame));
  }
  for (std::size_t i = 0; i < kSessions; ++i) {
    while (sent[i] < frame.size() && sessions[i].backend.HasRoom(Millis(5))) {
      sent[i] += sessions[i].backend.SendSome(std::string_view(frame).substr(sent[i]));
    }
  }
  proxy.AwaitMetricAtLeast("sluice_backpressure_pauses_total{side=\"backend\"}", kSessions);
  EXPECT_LE(PipesOf(proxy).size() - pipes, 16U * TestWorkers());
  for (std::size_t i = 0; i < kSessions; i += 13) {
    const std::string rest = frame.substr(sent[i]);
    std::jthread writer = Writing(sessions[i].backend, rest);
    EXPECT_TRUE(sessions[i].client.ReadExactly(frame.size()) == frame) << i;
    writer.join();
  }
}

TEST_F(SpliceTest, WhatALostClientDidNotReadReachesNobodyElse) {
  const std::string secret = BackendFrame(kBinary, std::string(8'000'000, 'S'));
  const std::string mine = BackendFrame(kBinary, Pattern(kLarge));
  const std::size_t pipes = PipesOf(proxy).size();
  for (int round = 0; round < 4; ++round) {
    {
      RelayedSession lost = OpenSession(proxy, backend, {.small_buffers = true});
      SendUntilFull(lost.backend, secret);
      EXPECT_GT(PipesOf(proxy).size(), pipes) << "nothing of this was spliced";
      lost.client.Reset();
      static_cast<void>(lost.backend.AwaitEnd());  // throws when it does not end
    }
    RelayedSession s = OpenSession(proxy, backend);
    std::jthread writer = Writing(s.backend, mine);
    EXPECT_TRUE(s.client.ReadExactly(mine.size()) == mine) << round;
    writer.join();
  }
}

TEST_F(SpliceTest, ABackendLostInsideAFrameIsTornAfterItsLastByte) {
  RelayedSession s = OpenSession(proxy, backend, {.small_buffers = true});
  const std::string frame = BackendFrame(kBinary, Pattern(kLarge));
  const std::string part = frame.substr(0, frame.size() / 2);
  std::jthread writer([&] {
    s.backend.Send(part);
    s.backend.FinishWrite();
  });
  EXPECT_TRUE(s.client.ReadToEnd() == part) << "bytes of the frame are missing";
  writer.join();
  s.client.Close();
  s.backend.Close();
  proxy.AwaitMetric("sluice_torn_total{reason=\"backend_lost\"}", 1);
}

TEST_F(SpliceTest, ADrainFinishesTheMessageBeforeItsClose) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string down = BackendFrame(kBinary, Pattern(kLarge));
  const std::string up = BuildFrame(kBinary, Pattern(kLarge, 2));
  // Both directions are inside a frame when the drain begins.
  s.backend.Send(down.substr(0, 200'000));
  s.client.Send(up.substr(0, 200'000));
  EXPECT_TRUE(s.client.ReadExactly(200'000) == down.substr(0, 200'000));
  EXPECT_TRUE(s.backend.ReadExactly(200'000) == up.substr(0, 200'000));
  proxy.Signal(SIGTERM);
  ASSERT_TRUE(proxy.AwaitErr("drain"));
  const std::string up_rest = up.substr(200'000);
  const std::string down_rest = down.substr(200'000);
  std::jthread client_writes = Writing(s.client, up_rest);
  EXPECT_TRUE(s.backend.ReadExactly(up_rest.size()) == up_rest);
  client_writes.join();
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  std::jthread backend_writes([&] { s.backend.Send(down_rest + BackendClose(1001)); });
  EXPECT_TRUE(s.client.ReadExactly(down_rest.size()) == down_rest);
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  backend_writes.join();
  s.client.Send(ClientClose(1012));
  s.client.ExpectEnd();
  s.client.Close();
  s.backend.Close();
  EXPECT_EQ(proxy.Wait(), 0);
}

TEST_F(SpliceTest, GivesItsDescriptorsBack) {
  const std::size_t before = proxy.OpenFds();
  {
    std::vector<RelayedSession> sessions;
    const std::string frame = BackendFrame(kBinary, Pattern(8'000'000));
    for (int i = 0; i < 20; ++i) {
      sessions.push_back(OpenSession(proxy, backend, {.small_buffers = true}));
      SendUntilFull(sessions.back().backend, std::string_view(frame).substr(0, 4'000'000));
    }
    for (RelayedSession& s : sessions) {
      s.client.Reset();
    }
  }
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 0);
  proxy.AwaitMetric("sluice_connections_open{side=\"backend\"}", 0);
  // A few empty pipes are kept for the next large frame.
  EXPECT_LE(proxy.OpenFds(), before + 8U * TestWorkers());
}

}  // namespace
}  // namespace sluice::test
