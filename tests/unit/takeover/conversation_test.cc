// Proves whole takeovers between a giver and a taker: the sockets can be used afterwards, no
// connection that waited is lost, the file of the takeover socket never disappears, and the end of
// the old process is seen.
#include <sys/stat.h>

#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/takeover/giver.h"
#include "proxy/takeover/taker.h"

#include "tests/support/temp_dir.h"
#include "tests/unit/takeover/old_process.h"
#include "tests/unit/takeover/sockets.h"

namespace sluice::takeover {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class TakeoverTest : public DescriptorsTest {
 protected:
  static Instant Soon() { return Now() + test::kPatience; }

  static Taker Connect(const std::string& path) {
    auto taker = Taker::Connect(path);
    if (!taker || !*taker) {
      throw test::Failure(taker ? "nobody listens at " + path : taker.error().message);
    }
    return std::move(**taker);
  }

  static std::string Ready(pid_t pid = ::getpid()) { return "ready " + std::to_string(pid); }

  test::TempDir dir_;
  std::string path_ = dir_.path() + "/takeover.sock";
};

TEST_F(TakeoverTest, HandsOverWhatIsQueuedAndStopsOnlyThen) {
  OldProcess old;
  old.sockets.push_back(ListenerSocket("web"));
  const net::Address address = net::Address::OfSocket(old.sockets[0].fd.get());
  bool stopped = false;
  old.on_ready = [&] {
    old.sockets.clear();  // as the old process closes its listeners
    stopped = true;
  };
  ASSERT_TRUE(old.Listen(path_).has_value());
  const UniqueFd before = net::StartConnect(address).value();
  ASSERT_EQ(::send(before.get(), "early", 5, 0), 5);

  Taker taker = Connect(path_);
  auto offer = taker.Receive("9.8.7", Soon());
  ASSERT_TRUE(offer.has_value()) << offer.error().message;
  EXPECT_EQ(offer->pid, ::getpid());
  ASSERT_EQ(offer->sockets.size(), 2U);
  EXPECT_EQ(offer->sockets[0].name, "web");
  EXPECT_EQ(offer->sockets[0].address, address.Text());
  EXPECT_EQ(offer->sockets[1].kind, "takeover");
  EXPECT_TRUE(IsCloseOnExec(offer->sockets[0].fd.get()));
  EXPECT_THAT(old.events(), ElementsAre("offer")) << "it must not stop before the ready";

  const auto said = taker.SayReady(Soon());
  ASSERT_TRUE(said.has_value()) << said.error().message;
  EXPECT_TRUE(stopped) << "done was said before it had stopped";
  EXPECT_THAT(old.events(), ElementsAre("offer", Ready()));
  EXPECT_EQ(old.asked_pid, ::getpid());
  EXPECT_EQ(old.asked_version, "9.8.7");

  const int listening = offer->sockets[0].fd.get();
  ASSERT_TRUE(BecomesReadable(listening));
  const UniqueFd accepted(::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(accepted.valid());
  std::string text(5, '\0');
  ASSERT_EQ(::recv(accepted.get(), text.data(), text.size(), MSG_WAITALL), 5);
  EXPECT_EQ(text, "early");
  const UniqueFd late = net::StartConnect(address).value();
  EXPECT_TRUE(BecomesReadable(listening)) << "the socket is closed for those who come later";
}

TEST_F(TakeoverTest, TheConnectionEndsWithTheOldProcess) {
  OldProcess old;
  ASSERT_TRUE(old.Listen(path_).has_value());
  Taker taker = Connect(path_);
  ASSERT_TRUE(taker.Receive("1", Soon()).has_value());
  ASSERT_TRUE(taker.SayReady(Soon()).has_value());
  const UniqueFd connection = taker.TakeConnection();
  EXPECT_TRUE(IsCloseOnExec(connection.get()));
  EXPECT_TRUE(old.Do([](Giver& giver) { return giver.handed_over(); }));
  EXPECT_FALSE(BecomesReadable(connection.get(), test::Millis(0)));
  old.End();
  EXPECT_EQ(ReadAll(connection.get()), "");
}

TEST_F(TakeoverTest, HandsOverHundredsOfSockets) {
  OldProcess old;
  constexpr std::size_t kSockets = 300;
  while (old.sockets.size() < kSockets) {
    old.sockets.push_back(ListenerSocket("web" + std::to_string(old.sockets.size())));
  }
  ASSERT_TRUE(old.Listen(path_).has_value());
  Taker taker = Connect(path_);
  const auto offer = taker.Receive("1", Soon());
  ASSERT_TRUE(offer.has_value()) << offer.error().message;
  ASSERT_EQ(offer->sockets.size(), kSockets + 1);
  for (std::size_t i = 0; i < kSockets; ++i) {
    const Socket& socket = offer->sockets[i];
    EXPECT_EQ(socket.name, "web" + std::to_string(i));
    EXPECT_EQ(net::Address::OfSocket(socket.fd.get()).Text(), socket.address);
  }
  ASSERT_TRUE(taker.SayReady(Soon()).has_value());
}

TEST_F(TakeoverTest, OverASocketpair) {
  OldProcess old;
  old.sockets.push_back(ListenerSocket("web"));
  Pair pair = ConnectedPair();
  ASSERT_TRUE(
      old.Do([&](Giver& giver) { return giver.AdoptConnection(std::move(pair.one), ::getpid()); })
          .has_value());
  EXPECT_TRUE(old.Do([](Giver& giver) { return giver.busy(); }));
  Pair another = ConnectedPair();
  const auto busy =
      old.Do([&](Giver& giver) { return giver.AdoptConnection(std::move(another.one), 1); });
  ASSERT_FALSE(busy.has_value());
  EXPECT_THAT(busy.error().message, HasSubstr("another process is taking over"));

  auto taker = Taker::Adopt(std::move(pair.other));
  ASSERT_TRUE(taker.has_value()) << taker.error().message;
  const auto offer = taker->Receive("1", Soon());
  ASSERT_TRUE(offer.has_value()) << offer.error().message;
  EXPECT_EQ(offer->sockets.size(), 1U);
  ASSERT_TRUE(taker->SayReady(Soon()).has_value());
  EXPECT_FALSE(old.Do([](Giver& giver) { return giver.busy(); }));

  Pair third = ConnectedPair();
  const auto over =
      old.Do([&](Giver& giver) { return giver.AdoptConnection(std::move(third.one), 1); });
  ASSERT_FALSE(over.has_value());
  EXPECT_THAT(over.error().message, HasSubstr("taken over already"));
}

TEST_F(TakeoverTest, ThePathIsThereThroughAllGenerations) {
  auto first = std::make_unique<OldProcess>();
  ASSERT_TRUE(first->Listen(path_).has_value());
  struct stat file {};
  ASSERT_EQ(::lstat(path_.c_str(), &file), 0);

  Taker taker = Connect(path_);
  auto offer = taker.Receive("1", Soon());
  ASSERT_TRUE(offer.has_value()) << offer.error().message;
  OldProcess second;
  ASSERT_TRUE(
      second
          .Do([&](Giver& giver) { return giver.AdoptListener(std::move(offer->sockets.at(0).fd)); })
          .has_value());
  EXPECT_EQ(second.Do([](Giver& giver) { return giver.path(); }), path_);
  ASSERT_TRUE(taker.SayReady(Soon()).has_value());
  second.Do([](Giver& giver) {
    giver.TakeFile();
    return true;
  });
  EXPECT_EQ(first->Do([](Giver& giver) { return giver.path(); }), "");

  // The first still drains. Who comes now is answered by the second, which has a say in it.
  second.refusal = "its predecessor still drains";
  Taker too_early = Connect(path_);
  const auto refused = too_early.Receive("1", Soon());
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message, HasSubstr("its predecessor still drains"));
  EXPECT_EQ(refused.error().sys_errno, 0);
  EXPECT_THAT(first->events(), ElementsAre("offer", Ready()));

  const UniqueFd connection = taker.TakeConnection();
  first.reset();
  EXPECT_EQ(ReadAll(connection.get()), "");
  struct stat now {};
  ASSERT_EQ(::lstat(path_.c_str(), &now), 0) << "the first process removed the path of the second";
  EXPECT_EQ(now.st_ino, file.st_ino);

  second.refusal.reset();
  Taker next = Connect(path_);
  EXPECT_TRUE(next.Receive("1", Soon()).has_value());
  second.End();
  EXPECT_NE(::lstat(path_.c_str(), &now), 0) << "nobody listens there any more";
}

TEST_F(TakeoverTest, ASuccessorThatDoesNotGetReadyLeavesThePath) {
  OldProcess first;
  ASSERT_TRUE(first.Listen(path_).has_value());
  {
    Taker taker = Connect(path_);
    auto offer = taker.Receive("1", Soon());
    ASSERT_TRUE(offer.has_value()) << offer.error().message;
    OldProcess second;
    ASSERT_TRUE(second
                    .Do([&](Giver& giver) {
                      return giver.AdoptListener(std::move(offer->sockets.at(0).fd));
                    })
                    .has_value());
    second.End();
  }
  struct stat file {};
  EXPECT_EQ(::lstat(path_.c_str(), &file), 0) << "the first process still listens there";
  static_cast<void>(Connect(path_));
}

TEST_F(TakeoverTest, ASecondSuccessorIsRefusedAndTheFirstNotDisturbed) {
  OldProcess old;
  ASSERT_TRUE(old.Listen(path_).has_value());
  Taker first = Connect(path_);
  ASSERT_TRUE(first.Receive("1", Soon()).has_value());
  Taker second = Connect(path_);
  const auto refused = second.Receive("1", Soon());
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message, HasSubstr("another process is taking over right now"));
  EXPECT_TRUE(first.SayReady(Soon()).has_value());
}

TEST_F(TakeoverTest, AfterASuccessorThatDiedTheNextOneGetsTheSame) {
  OldProcess old;
  old.sockets.push_back(ListenerSocket("web"));
  ASSERT_TRUE(old.Listen(path_).has_value());
  {
    Taker dies = Connect(path_);
    ASSERT_TRUE(dies.Receive("1", Soon()).has_value());
  }
  EXPECT_THAT(old.AwaitEvent(2), HasSubstr("ended before it was ready"));
  Taker taker = Connect(path_);
  const auto offer = taker.Receive("1", Soon());
  ASSERT_TRUE(offer.has_value()) << offer.error().message;
  EXPECT_EQ(offer->sockets.size(), 2U);
  EXPECT_TRUE(taker.SayReady(Soon()).has_value());
}

TEST_F(TakeoverTest, ASuccessorThatIsNotReadyInTimeIsTold) {
  OldProcess old({.hello = test::kPatience, .ready = Millis(30)});
  ASSERT_TRUE(old.Listen(path_).has_value());
  Taker taker = Connect(path_);
  ASSERT_TRUE(taker.Receive("1", Soon()).has_value());
  EXPECT_THAT(old.AwaitEvent(2), HasSubstr("not ready within 0.030 s"));
  const auto late = taker.SayReady(Soon());
  ASSERT_FALSE(late.has_value());
  EXPECT_EQ(late.error().sys_errno, 0) << "the old process goes on: no sign that it has ended";
  EXPECT_THAT(late.error().message, HasSubstr("not ready within"));
}

TEST_F(TakeoverTest, TheEndOfTheOldProcessBeforeDoneIsTold) {
  OldProcess old;
  ASSERT_TRUE(old.Listen(path_).has_value());
  Taker taker = Connect(path_);
  ASSERT_TRUE(taker.Receive("1", Soon()).has_value());
  old.End();
  const auto said = taker.SayReady(Soon());
  ASSERT_FALSE(said.has_value());
  EXPECT_EQ(said.error().sys_errno, ECONNRESET);
}

}  // namespace
}  // namespace sluice::takeover
