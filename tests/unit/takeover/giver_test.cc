// Proves that nothing a peer does disturbs the old process: strangers, silence, garbage, and ends
// at every step are refused or forgotten, and the next successor is served; and what is done with
// the file of the takeover socket.
#include "proxy/takeover/giver.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/takeover/channel.h"
#include "proxy/takeover/taker.h"
#include "proxy/takeover/unix_socket.h"

#include "tests/support/split.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/takeover/old_process.h"
#include "tests/unit/takeover/sockets.h"

namespace sluice::takeover {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr uid_t kNobody = 65534;

class GiverTest : public DescriptorsTest {
 protected:
  static Instant Soon() { return Now() + test::kPatience; }

  UniqueFd Connect() {
    auto fd = ConnectTo(path_);
    if (!fd) {
      throw test::Failure(fd.error().message);
    }
    return std::move(*fd);
  }

  static void Send(const UniqueFd& fd, std::string_view bytes) {
    // The other end may have refused before the last piece.
    static_cast<void>(::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL));
  }

  static void Send(const Channel& channel, std::string_view bytes) {
    static_cast<void>(::send(channel.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL));
  }

  static std::string Hello() { return Encode(ToMessage(takeover::Hello{"1", ::getpid()})); }

  // Reads one message.
  static Message Read(Channel& channel) {
    const test::Deadline deadline;
    while (!deadline.passed()) {
      auto received = channel.Receive();
      if (!received) {
        throw test::Failure(received.error().message);
      }
      if (*received) {
        return std::move(**received);
      }
      static_cast<void>(BecomesReadable(channel.fd()));
    }
    throw test::Failure("no message came");
  }

  void ExpectServesTheNext(OldProcess& old) {
    old.AwaitIdle();
    auto taker = Taker::Connect(path_);
    ASSERT_TRUE(taker.has_value() && taker->has_value());
    const auto offer = (*taker)->Receive("1", Soon());
    ASSERT_TRUE(offer.has_value()) << offer.error().message;
    EXPECT_TRUE((*taker)->SayReady(Soon()).has_value());
  }

  // The same, where the process may not even have seen the last one come.
  void ExpectServesOnceTheLastIsSeenToLeave() {
    const test::Deadline deadline;
    for (;;) {
      auto taker = Taker::Connect(path_);
      ASSERT_TRUE(taker.has_value() && taker->has_value());
      const auto offer = (*taker)->Receive("1", Soon());
      if (offer.has_value()) {
        EXPECT_TRUE((*taker)->SayReady(Soon()).has_value());
        return;
      }
      ASSERT_THAT(offer.error().message, HasSubstr("another process"));
      ASSERT_FALSE(deadline.passed());
    }
  }

  test::TempDir dir_;
  std::string path_ = dir_.path() + "/takeover.sock";
};

TEST_F(GiverTest, WhoLeavesDuringItsHelloIsForgotten) {
  const std::string hello = Hello();
  for (std::size_t bytes = 0; bytes < hello.size(); ++bytes) {
    OldProcess old;
    ASSERT_TRUE(old.Listen(path_).has_value());
    {
      const UniqueFd peer = Connect();
      Send(peer, std::string_view(hello).substr(0, bytes));
    }
    ExpectServesOnceTheLastIsSeenToLeave();
    for (const std::string& event : old.events()) {
      EXPECT_THAT(event, Not(StartsWith("failed"))) << bytes;
      EXPECT_TRUE(!event.starts_with("refused") || event.ends_with("right now")) << event;
    }
  }
}

TEST_F(GiverTest, WhoSaysNothingIsRefusedInTime) {
  OldProcess old({.hello = Millis(20), .ready = test::kPatience});
  ASSERT_TRUE(old.Listen(path_).has_value());
  const UniqueFd silent = Connect();
  EXPECT_THAT(ReadAll(silent.get()), HasSubstr("not heard of within 0.020 s"));
  EXPECT_THAT(old.AwaitEvent(1), StartsWith("refused"));
  const UniqueFd slow = Connect();
  Send(slow, std::string_view(Hello()).substr(0, 20));
  EXPECT_THAT(ReadAll(slow.get()), HasSubstr("not heard of within 0.020 s"));
  old.AwaitEvent(2);
}

TEST_F(GiverTest, GarbageInsteadOfAHelloIsRefused) {
  OldProcess old;
  ASSERT_TRUE(old.Listen(path_).has_value());
  std::size_t refused = 0;
  for (const std::string& garbage :
       {std::string("GET / HTTP/1.1\r\n\r\n"), std::string(40, '\0'), std::string("SLTO\2garbage"),
        Encode(ReadyMessage(1)), Encode({MessageType::kHello, "no json", {}})}) {
    test::ForEachSplit(garbage,
                       [&](const std::vector<std::string_view>& pieces, const std::string& label) {
                         const UniqueFd peer = Connect();
                         for (const std::string_view piece : pieces) {
                           Send(peer, piece);
                         }
                         EXPECT_THAT(ReadAll(peer.get()), HasSubstr("reason")) << label;
                         EXPECT_THAT(old.AwaitEvent(++refused), StartsWith("refused")) << label;
                         old.AwaitIdle();
                       });
  }
  ExpectServesTheNext(old);
}

TEST_F(GiverTest, GarbageInsteadOfAReadyIsAFailure) {
  OldProcess old;
  ASSERT_TRUE(old.Listen(path_).has_value());
  std::size_t events = 0;
  for (const std::string& garbage :
       {std::string("GET / HTTP/1.1\r\n\r\n"), Hello(), Encode(DoneMessage()),
        Encode(ReadyMessage(::getpid() + 1)), Encode({MessageType::kReady, "{}", {}})}) {
    test::ForEachSplit(garbage,
                       [&](const std::vector<std::string_view>& pieces, const std::string& label) {
                         Channel peer(Connect());
                         Send(peer, Hello());
                         EXPECT_EQ(Read(peer).type, MessageType::kOffer) << label;
                         for (const std::string_view piece : pieces) {
                           Send(peer, piece);
                         }
                         EXPECT_EQ(Read(peer).type, MessageType::kRefused) << label;
                         events += 2;
                         EXPECT_THAT(old.AwaitEvent(events), StartsWith("failed")) << label;
                         old.AwaitIdle();
                       });
  }
  ExpectServesTheNext(old);
}

TEST_F(GiverTest, WhoEndsBeforeItsReadyIsWholeIsAFailure) {
  OldProcess old;
  ASSERT_TRUE(old.Listen(path_).has_value());
  const std::string ready = Encode(ReadyMessage(::getpid()));
  std::size_t events = 0;
  for (std::size_t bytes = 0; bytes < ready.size(); ++bytes) {
    {
      Channel peer(Connect());
      Send(peer, Hello());
      EXPECT_EQ(Read(peer).type, MessageType::kOffer);
      Send(peer, std::string_view(ready).substr(0, bytes));
    }
    events += 2;
    EXPECT_THAT(old.AwaitEvent(events), HasSubstr("ended before it was ready")) << bytes;
    old.AwaitIdle();
  }
  ExpectServesTheNext(old);
}

TEST_F(GiverTest, WhoSaysReadyAndEndsDoesNotStopTheOldProcess) {
  OldProcess old;
  old.sockets.push_back(ListenerSocket("web"));
  ASSERT_TRUE(old.Listen(path_).has_value());
  Channel peer(Connect());
  Send(peer, Hello());
  EXPECT_EQ(Read(peer).type, MessageType::kOffer);
  old.Do([&](Giver&) {  // while its loop does not look
    Send(peer, Encode(ReadyMessage(::getpid())));
    peer.Close();
    return true;
  });
  EXPECT_THAT(old.AwaitEvent(2), StartsWith("failed"));
  ExpectServesTheNext(old);
}

TEST_F(GiverTest, WhoSaysMoreThanReadyIsAFailure) {
  OldProcess old;
  ASSERT_TRUE(old.Listen(path_).has_value());
  Channel peer(Connect());
  Send(peer, Hello());
  EXPECT_EQ(Read(peer).type, MessageType::kOffer);
  Send(peer, Encode(ReadyMessage(::getpid())) + Encode(ReadyMessage(::getpid())));
  EXPECT_THAT(old.AwaitEvent(2), HasSubstr("more than ready"));
}

TEST_F(GiverTest, WhoSaysReadyWithoutReadingTheOfferIsAFailure) {
  OldProcess old;
  const UniqueFd one = ListeningSocket();
  for (int i = 0; i < 8'000; ++i) {  // more than a socket holds: the offer waits
    old.sockets.push_back({"listener", std::string(100, 'n'), "127.0.0.1:1", Duplicate(one)});
  }
  ASSERT_TRUE(old.Listen(path_).has_value());
  Channel peer(Connect());
  Send(peer, Hello());
  ASSERT_TRUE(BecomesReadable(peer.fd()));
  Send(peer, Encode(ReadyMessage(::getpid())));
  EXPECT_THAT(old.AwaitEvent(2), HasSubstr("has not read the offer"));
}

TEST_F(GiverTest, AStartedProcessThatEndsWithoutAHelloIsAFailure) {
  OldProcess old;
  Pair pair = ConnectedPair();
  ASSERT_TRUE(old.Do([&](Giver& giver) { return giver.AdoptConnection(std::move(pair.one), 4711); })
                  .has_value());
  pair.other.Reset();
  EXPECT_EQ(old.AwaitEvent(1), "failed 4711: it ended before it was ready");
}

TEST_F(GiverTest, AStartedProcessHasTheLongerTimeForItsHello) {
  OldProcess old({.hello = Millis(1), .ready = Millis(60)});
  Pair pair = ConnectedPair();
  const Instant began = Now();
  ASSERT_TRUE(old.Do([&](Giver& giver) { return giver.AdoptConnection(std::move(pair.one), 4711); })
                  .has_value());
  EXPECT_EQ(old.AwaitEvent(1), "failed 4711: it was not ready within 0.060 s");
  // The clock of a loop runs in steps, of at most 10 ms.
  EXPECT_GE(Now() - began, Millis(50));
}

TEST_F(GiverTest, TellsWhyItIsNotToBeTakenOver) {
  OldProcess old;
  old.refusal = "process 17, its predecessor, still drains";
  ASSERT_TRUE(old.Listen(path_).has_value());
  auto taker = Taker::Connect(path_);
  ASSERT_TRUE(taker.has_value() && taker->has_value());
  const auto offer = (*taker)->Receive("1", Soon());
  ASSERT_FALSE(offer.has_value());
  EXPECT_THAT(offer.error().message, HasSubstr(*old.refusal));
  EXPECT_EQ(old.AwaitEvent(1), "refused " + std::to_string(::geteuid()) + ": " + *old.refusal);
}

TEST_F(GiverTest, TellsWhenItCannotMakeAnOffer) {
  OldProcess old;
  old.offer_error = "out of descriptors";
  ASSERT_TRUE(old.Listen(path_).has_value());
  auto taker = Taker::Connect(path_);
  ASSERT_TRUE(taker.has_value() && taker->has_value());
  const auto offer = (*taker)->Receive("1", Soon());
  ASSERT_FALSE(offer.has_value());
  EXPECT_THAT(offer.error().message, HasSubstr("out of descriptors"));
  EXPECT_THAT(old.AwaitEvent(2), HasSubstr("out of descriptors"));
}

// In a process of its own, as `user`: what `run` returns is its exit status.
int InAProcessOf(uid_t user, const std::function<int()>& run) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    ::_exit(::setresuid(user, user, user) == 0 ? run() : 99);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(GiverTest, AnotherUserIsRefused) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root can become another user";
  }
  OldProcess old;
  ASSERT_TRUE(old.Listen(path_).has_value());
  ::chmod(dir_.path().c_str(), 0755);
  EXPECT_EQ(InAProcessOf(kNobody, [&] { return ConnectTo(path_) ? 1 : 0; }), 0)
      << "the mode of the file lets others in";
  ::chmod(path_.c_str(), 0666);
  EXPECT_EQ(InAProcessOf(kNobody,
                         [&] {
                           const auto fd = ConnectTo(path_);
                           return fd && ReadAll(fd->get()).find("may not take over") !=
                                              std::string::npos
                                      ? 0
                                      : 1;
                         }),
            0);
  EXPECT_EQ(old.AwaitEvent(1), "refused 65534: user 65534 may not take over a process of user 0");
  EXPECT_EQ(InAProcessOf(kNobody,
                         [&] {  // and the other way: nobody takes from a stranger
                           const auto taker = Taker::Connect(path_);
                           return !taker && taker.error().message.find("belongs to user 0") !=
                                                std::string::npos
                                      ? 0
                                      : 1;
                         }),
            0);
}

TEST_F(GiverTest, RootIsRefusedByAProcessThatIsNotRoot) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root can try";
  }
  ::chmod(dir_.path().c_str(), 0777);
  Pair sync = ConnectedPair();
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    sync.one.Reset();
    if (::setresuid(kNobody, kNobody, kNobody) != 0) {
      ::_exit(99);
    }
    OldProcess old;
    const bool listens = old.Listen(path_).has_value();
    Send(sync.other, "x");
    const std::string event = listens ? old.AwaitEvent(1) : "";
    ::_exit(event == "refused 0: user 0 may not take over a process of user 65534" ? 0 : 1);
  }
  sync.other.Reset();
  EXPECT_TRUE(BecomesReadable(sync.one.get()));
  const UniqueFd peer = Connect();
  Send(peer, Hello());
  EXPECT_THAT(ReadAll(peer.get()), HasSubstr("may not take over"));
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST_F(GiverTest, ListensWhereOnlyThisUserMayConnect) {
  const mode_t before = ::umask(0);
  OldProcess old;
  EXPECT_TRUE(old.Listen(path_).has_value());
  ::umask(before);
  struct stat file {};
  ASSERT_EQ(::lstat(path_.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 07777, 0600U);
  old.End();
  EXPECT_NE(::lstat(path_.c_str(), &file), 0) << "the file stays behind";
}

TEST_F(GiverTest, ReplacesASocketThatADeadProcessLeftBehind) {
  ListenOn(path_).value().Reset();
  struct stat file {};
  ASSERT_EQ(::lstat(path_.c_str(), &file), 0);
  OldProcess old;
  const auto listening = old.Listen(path_);
  ASSERT_TRUE(listening.has_value()) << listening.error().message;
  ExpectServesTheNext(old);
}

TEST_F(GiverTest, DoesNotTakeThePathOfALiveProcess) {
  OldProcess old;
  ASSERT_TRUE(old.Listen(path_).has_value());
  OldProcess other;
  const auto taken = other.Listen(path_);
  ASSERT_FALSE(taken.has_value());
  EXPECT_THAT(taken.error().message, HasSubstr(path_ + ": another process does already"));
  // It asked by connecting.
  ExpectServesOnceTheLastIsSeenToLeave();
}

TEST_F(GiverTest, DoesNotTakeThePathOfALiveProcessWhoseQueueIsFull) {
  const UniqueFd busy = ListenOn(path_).value();
  std::vector<UniqueFd> queued;
  for (auto fd = ConnectTo(path_); fd.has_value(); fd = ConnectTo(path_)) {
    queued.push_back(std::move(*fd));
    ASSERT_LT(queued.size(), 1'000U);
  }
  OldProcess other;
  const auto taken = other.Listen(path_);
  ASSERT_FALSE(taken.has_value());
  EXPECT_THAT(taken.error().message, HasSubstr("another process does already"));
}

TEST_F(GiverTest, DoesNotReplaceWhatIsNoSocket) {
  const std::string file = dir_.Write("precious", "text");
  OldProcess old;
  const auto regular = old.Listen(file);
  ASSERT_FALSE(regular.has_value());
  EXPECT_THAT(regular.error().message, HasSubstr("exists and is no socket"));
  ASSERT_EQ(::symlink(file.c_str(), path_.c_str()), 0);
  EXPECT_FALSE(old.Listen(path_).has_value());
  struct stat still {};
  ASSERT_EQ(::stat(file.c_str(), &still), 0);
  EXPECT_EQ(still.st_size, 4);
}

TEST_F(GiverTest, TellsThatAPathCannotBe) {
  OldProcess old;
  const auto fault = [&](const std::string& path) {
    const auto listening = old.Listen(path);
    return listening.has_value() ? std::string() : listening.error().message;
  };
  const std::string longest = dir_.path() + "/" + std::string(106 - dir_.path().size(), 'x');
  EXPECT_THAT(fault(longest + "y"), HasSubstr("too long: 108 bytes of at most 107"));
  EXPECT_THAT(fault(""), HasSubstr("no path"));
  EXPECT_THAT(fault(dir_.path() + "/none/takeover.sock"), HasSubstr("No such file"));
  EXPECT_EQ(fault(longest), "");
  EXPECT_EQ(old.Do([](Giver& giver) { return giver.path(); }), longest);
}

TEST_F(GiverTest, LeavesAFileAloneThatIsNotItsOwn) {
  OldProcess old;
  ASSERT_TRUE(old.Listen(path_).has_value());
  ASSERT_EQ(::unlink(path_.c_str()), 0);
  const UniqueFd other = ListenOn(path_).value();
  old.End();
  EXPECT_TRUE(ConnectTo(path_).has_value());
}

TEST_F(GiverTest, AdoptsOnlyASocketThatListensAtAPath) {
  OldProcess old;
  const auto fault = [&](UniqueFd fd) {
    const auto adopted = old.Do([&](Giver& giver) { return giver.AdoptListener(std::move(fd)); });
    return adopted.has_value() ? std::string() : adopted.error().message;
  };
  EXPECT_THAT(fault(ListeningSocket()), HasSubstr("does not listen"));
  EXPECT_THAT(fault(std::move(ConnectedPair().one)), HasSubstr("does not listen"));
  UniqueFd nameless(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un automatic{};
  automatic.sun_family = AF_UNIX;  // autobind: an abstract name, unix(7)
  ASSERT_EQ(::bind(nameless.get(), reinterpret_cast<sockaddr*>(&automatic), sizeof(sa_family_t)),
            0);
  ASSERT_EQ(::listen(nameless.get(), 1), 0);
  EXPECT_THAT(fault(std::move(nameless)), HasSubstr("no path"));
  UniqueFd gone = ListenOn(path_).value();
  ASSERT_EQ(::unlink(path_.c_str()), 0);
  EXPECT_THAT(fault(std::move(gone)), HasSubstr("cannot find"));
}

TEST_F(GiverTest, AdoptsOnlyAConnection) {
  OldProcess old;
  const auto adopted =
      old.Do([&](Giver& giver) { return giver.AdoptConnection(ListeningSocket(), 1); });
  ASSERT_FALSE(adopted.has_value());
  EXPECT_THAT(adopted.error().message, HasSubstr("no connected unix stream socket"));
}

}  // namespace
}  // namespace sluice::takeover
