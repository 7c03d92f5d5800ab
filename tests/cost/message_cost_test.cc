// Proves what a message costs when both sides keep up: one recv and one send, and no epoll_ctl, no
// allocation and no lock; that many small frames, and many TLS records, that came in one read leave
// in one write; and that the clock is read for a turn of the loop, not for a message.
//
// The calls of the whole process are counted (call_counter.cc), so the bounds leave room for what
// it does once a second.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/cost/call_counts.h"
#include "tests/support/certificates.h"
#include "tests/support/proxy_process.h"
#include "tests/support/raw_backend.h"
#include "tests/support/raw_client.h"
#include "tests/support/temp_dir.h"

namespace sluice::test {
namespace {

// The counts of a process that is started while this lives.
class CountedCalls {
 public:
  CountedCalls() : path_(dir_.path() + "/calls") {
    std::ofstream(path_) << std::string(sizeof(CallCounts), '\0');
    const int fd = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
    void* mapped = ::mmap(nullptr, sizeof(CallCounts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ::close(fd);
    if (mapped == MAP_FAILED) {
      throw Failure("cannot map the file of the counts");
    }
    counts_ = static_cast<CallCounts*>(mapped);
    ::setenv(kCallCountsVariable, path_.c_str(), 1);
    ::setenv("LD_PRELOAD", SLUICE_CALL_COUNTER, 1);
  }
  ~CountedCalls() {
    ::unsetenv("LD_PRELOAD");
    ::munmap(counts_, sizeof(CallCounts));
  }
  CountedCalls(const CountedCalls&) = delete;
  CountedCalls& operator=(const CountedCalls&) = delete;

  // What is counted from here on.
  void Begin() {
    for (std::size_t i = 0; i < before_.size(); ++i) {
      before_[i] = counts_->calls[i].load();
    }
  }
  [[nodiscard]] std::uint64_t Since(Call call) const {
    const auto i = static_cast<std::size_t>(call);
    return counts_->calls[i].load() - before_[i];
  }

 private:
  TempDir dir_;
  std::string path_;
  CallCounts* counts_ = nullptr;
  std::array<std::uint64_t, static_cast<std::size_t>(Call::kCount)> before_{};
};

struct Session {
  RawClient client;
  Stream backend;
};

class MessageCost : public testing::Test {
 protected:
  explicit MessageCost(std::string listener = {})
      : proxy(Config{.backends = {backend.port()}, .listener = std::move(listener)}) {}

  Session Open() { return Upgrade(RawClient(proxy.port())); }

  Session Upgrade(RawClient client) {
    Session session{std::move(client), Stream()};
    session.client.Send(UpgradeRequest("/"));
    session.backend = backend.AcceptWebSocket();
    if (session.client.ReadHead().status != 101) {
      throw Failure("the upgrade was refused");
    }
    return session;
  }

  // There and back, `count` times.
  static void Echo(Session& session, int count) {
    const std::string up = BuildFrame(kText, std::string(64, 'u'));
    const std::string down = BuildFrame(kText, std::string(64, 'd'), {.masked = false});
    for (int i = 0; i < count; ++i) {
      session.client.Send(up);
      ASSERT_EQ(session.backend.ReadExactly(up.size()), up);
      session.backend.Send(down);
      ASSERT_EQ(session.client.ReadExactly(down.size()), down);
    }
  }

  // All of `pieces` is there when the proxy looks: it is read at once and leaves at once.
  void ExpectOneRecvAndOneSend(Stream& from, const std::vector<std::string>& pieces, Stream& to) {
    std::string all;
    calls.Begin();
    proxy.Stop();
    for (const std::string& piece : pieces) {
      from.Send(piece);
      all += piece;
    }
    proxy.Continue();
    EXPECT_EQ(to.ReadExactly(all.size()), all);
    EXPECT_EQ(calls.Since(Call::kRecv), 1U);
    EXPECT_EQ(calls.Since(Call::kSend), 1U);
  }

  CountedCalls calls;
  RawBackend backend;
  ProxyProcess proxy;
};

class TlsMessageCost : public MessageCost {
 protected:
  TlsMessageCost() : MessageCost(Listener(certs.Issue({"chat.test"}))) {}

  Session Open() { return Upgrade(RawClient(proxy.port(), TlsClientOptions{.sni = "chat.test"})); }

 private:
  static std::string Listener(const CertificateFiles& files) {
    return "tls.certificates = [{ chain = \"" + files.chain + "\", key = \"" + files.key + "\" }]";
  }

  static inline TestCerts certs;
};

constexpr int kMessages = 1000;
// Of what a process does once a second, for as long as a test may take.
constexpr std::uint64_t kHousekeeping = 60;

TEST_F(MessageCost, OneRecvAndOneSend) {
  Session session = Open();
  Echo(session, 20);
  calls.Begin();
  Echo(session, kMessages);
  EXPECT_GE(calls.Since(Call::kRecv), 2U * kMessages);  // the counter counts
  EXPECT_LE(calls.Since(Call::kRecv), 2U * kMessages + kHousekeeping);
  EXPECT_GE(calls.Since(Call::kSend), 2U * kMessages);
  EXPECT_LE(calls.Since(Call::kSend), 2U * kMessages + kHousekeeping);
  EXPECT_EQ(calls.Since(Call::kSplice), 0U);
  EXPECT_LE(calls.Since(Call::kEpollCtl), kHousekeeping);
  EXPECT_LE(calls.Since(Call::kMemory), kHousekeeping);
  // Nothing that two workers could meet at.
  EXPECT_LE(calls.Since(Call::kLock), kHousekeeping);
}

TEST_F(MessageCost, ManySmallFramesOfOneReadLeaveInOneWrite) {
  Session session = Open();
  Echo(session, 20);
  std::string frames;
  for (int i = 0; i < 500; ++i) {
    frames += BuildFrame(kText, "frame " + std::to_string(i));
  }
  ExpectOneRecvAndOneSend(session.client, {frames}, session.backend);
}

TEST_F(MessageCost, TheClockIsReadForATurnAndNotForAMessage) {
  constexpr std::size_t kSessions = 64;
  std::vector<Session> sessions;
  for (std::size_t i = 0; i < kSessions; ++i) {
    sessions.push_back(Open());
  }
  const std::string frame = BuildFrame(kText, "hello");
  const auto round = [&] {
    proxy.Stop();
    for (Session& session : sessions) {
      session.client.Send(frame);
    }
    proxy.Continue();
    for (Session& session : sessions) {
      EXPECT_EQ(session.backend.ReadExactly(frame.size()), frame);
    }
  };
  round();
  calls.Begin();
  constexpr std::uint64_t kRounds = 20;
  for (std::uint64_t i = 0; i < kRounds; ++i) {
    round();
  }
  EXPECT_GE(calls.Since(Call::kRecv), kRounds * kSessions);
  EXPECT_LE(calls.Since(Call::kClock), kRounds * kSessions / 2 + kHousekeeping);
  EXPECT_LE(calls.Since(Call::kEpollWait), kRounds * kSessions / 2 + kHousekeeping);
}

TEST_F(TlsMessageCost, OneRecvFeedsManyRecords) {
  Session session = Open();
  Echo(session, 20);
  // Each a record and a segment of its own: no more than the first window holds.
  const std::vector<std::string> records(8, BuildFrame(kText, std::string(64, 'u')));
  ExpectOneRecvAndOneSend(session.client, records, session.backend);
}

TEST_F(TlsMessageCost, ManyRecordsLeaveInOneSend) {
  Session session = Open();
  Echo(session, 20);
  // More than two records, less than the kernel's buffers.
  const std::string frame = BuildFrame(kBinary, std::string(40'000, 'd'), {.masked = false});
  ExpectOneRecvAndOneSend(session.backend, {frame}, session.client);
}

}  // namespace
}  // namespace sluice::test
