// Proves that the new process believes nothing of what answers it, never waits beyond its deadline,
// and tells a refusal from the end of the old process.
#include "proxy/takeover/taker.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/takeover/spawn.h"
#include "proxy/takeover/unix_socket.h"

#include "tests/support/split.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/takeover/sockets.h"

namespace sluice::takeover {
namespace {

using testing::HasSubstr;

class TakerTest : public DescriptorsTest {
 protected:
  static Instant Soon() { return Now() + test::kPatience; }
  static Instant AtOnce() { return Now() + Millis(20); }

  // A taker, and what the old process has written to it before.
  static Taker After(Pair& pair, std::string_view bytes) {
    if (::send(pair.one.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(bytes.size())) {
      throw test::Failure("cannot send");
    }
    return Taker::Adopt(std::move(pair.other)).value();
  }

  static std::string EmptyOffer() {
    Offer offer;
    offer.pid = 1;
    return Encode(ToMessages(std::move(offer)).value().front());
  }
};

TEST_F(TakerTest, FindsNobody) {
  const test::TempDir dir;
  const auto absent = Taker::Connect(dir.path() + "/takeover.sock");
  ASSERT_TRUE(absent.has_value()) << absent.error().message;
  EXPECT_FALSE(absent->has_value());
  const std::string stale = dir.path() + "/stale.sock";
  ListenOn(stale).value().Reset();
  const auto dead = Taker::Connect(stale);
  ASSERT_TRUE(dead.has_value()) << dead.error().message;
  EXPECT_FALSE(dead->has_value());
  const auto impossible = Taker::Connect(std::string(200, 'x'));
  ASSERT_FALSE(impossible.has_value());
  EXPECT_THAT(impossible.error().message, HasSubstr("too long"));
}

TEST_F(TakerTest, WaitsForAnOfferNoLongerThanItsDeadline) {
  Pair pair = ConnectedPair();
  Taker taker = After(pair, "");
  const Instant deadline = AtOnce();
  const auto offer = taker.Receive("1", deadline);
  ASSERT_FALSE(offer.has_value());
  EXPECT_EQ(offer.error().sys_errno, ETIMEDOUT);
  EXPECT_GE(Now(), deadline);
}

TEST_F(TakerTest, WaitsForTheRestOfAnOfferNoLongerThanItsDeadline) {
  const std::string bytes = EmptyOffer();
  for (const std::size_t cut : {std::size_t{1}, kHeadSize, bytes.size() - 1}) {
    Pair pair = ConnectedPair();
    Taker taker = After(pair, std::string_view(bytes).substr(0, cut));
    const auto offer = taker.Receive("1", AtOnce());
    ASSERT_FALSE(offer.has_value());
    EXPECT_EQ(offer.error().sys_errno, ETIMEDOUT) << cut;
  }
}

TEST_F(TakerTest, WaitsForTheDoneNoLongerThanItsDeadline) {
  Pair pair = ConnectedPair();
  Taker taker = After(pair, EmptyOffer());
  ASSERT_TRUE(taker.Receive("1", Soon()).has_value());
  const auto said = taker.SayReady(AtOnce());
  ASSERT_FALSE(said.has_value());
  EXPECT_EQ(said.error().sys_errno, ETIMEDOUT);
}

TEST_F(TakerTest, TellsTheEndOfTheOldProcessAtEveryByte) {
  const std::string bytes = EmptyOffer();
  for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
    Pair pair = ConnectedPair();
    Taker taker = After(pair, std::string_view(bytes).substr(0, cut));
    pair.one.Reset();
    const auto offer = taker.Receive("1", Soon());
    ASSERT_FALSE(offer.has_value());
    EXPECT_EQ(offer.error().sys_errno, ECONNRESET) << cut;
  }
  const std::string done = Encode(DoneMessage());
  for (std::size_t cut = 0; cut < done.size(); ++cut) {
    Pair pair = ConnectedPair();
    Taker taker = After(pair, bytes);
    ASSERT_TRUE(taker.Receive("1", Soon()).has_value());
    ASSERT_EQ(::send(pair.one.get(), done.data(), cut, 0), static_cast<ssize_t>(cut));
    pair.one.Reset();
    const auto said = taker.SayReady(Soon());
    ASSERT_FALSE(said.has_value());
    EXPECT_EQ(said.error().sys_errno, ECONNRESET) << cut;
  }
}

TEST_F(TakerTest, TellsARefusalAlsoOfAnOldProcessThatHasClosed) {
  for (const bool closed : {false, true}) {
    Pair pair = ConnectedPair();
    Taker taker = After(pair, Encode(RefusedMessage("not today")));
    if (closed) {
      pair.one.Reset();
    }
    const auto offer = taker.Receive("1", Soon());
    ASSERT_FALSE(offer.has_value());
    EXPECT_EQ(offer.error().message, "the running process refuses: not today");
    EXPECT_EQ(offer.error().sys_errno, 0);
  }
}

TEST_F(TakerTest, TellsGarbageInsteadOfAnOffer) {
  for (const std::string& garbage :
       {std::string("HTTP/1.1 400 Bad Request\r\n\r\n"), std::string(40, '\0'),
        Encode(DoneMessage()), Encode({MessageType::kOffer, "{}", {}}),
        Encode({MessageType::kRefused, "{}", {}})}) {
    test::ForEachSplit(
        garbage, [&](const std::vector<std::string_view>& pieces, const std::string& label) {
          Pair pair = ConnectedPair();
          Taker taker = After(pair, "");
          for (const std::string_view piece : pieces) {
            ASSERT_EQ(::send(pair.one.get(), piece.data(), piece.size(), MSG_NOSIGNAL),
                      static_cast<ssize_t>(piece.size()));
          }
          const auto offer = taker.Receive("1", Soon());
          ASSERT_FALSE(offer.has_value()) << label;
          EXPECT_EQ(offer.error().sys_errno, 0) << label << ": " << offer.error().message;
        });
  }
}

TEST_F(TakerTest, TellsGarbageInsteadOfDone) {
  Pair pair = ConnectedPair();
  Taker taker = After(pair, EmptyOffer() + Encode(ReadyMessage(1)));
  ASSERT_TRUE(taker.Receive("1", Soon()).has_value());
  const auto said = taker.SayReady(Soon());
  ASSERT_FALSE(said.has_value());
  EXPECT_THAT(said.error().message, HasSubstr("\"ready\" came instead of \"done\""));
}

TEST_F(TakerTest, AdoptsWhatTheEnvironmentNames) {
  Pair pair = ConnectedPair();
  ASSERT_EQ(::fcntl(pair.other.get(), F_SETFD, 0), 0);
  const int number = pair.other.Take();
  ::setenv(kTakeoverVariable, std::to_string(number).c_str(), 1);
  auto taker = Taker::FromEnvironment();
  ASSERT_TRUE(taker.has_value()) << taker.error().message;
  ASSERT_TRUE(taker->has_value());
  EXPECT_TRUE(IsCloseOnExec(number)) << "a process that this one starts would keep it open";
  EXPECT_EQ(std::getenv(kTakeoverVariable), nullptr);
  const auto again = Taker::FromEnvironment();
  ASSERT_TRUE(again.has_value());
  EXPECT_FALSE(again->has_value());
}

TEST_F(TakerTest, DoesNotAdoptWhatIsNoConnection) {
  const UniqueFd listening = ListeningSocket();
  for (const std::string& value :
       {std::string(""), std::string("x"), std::string("3x"), std::string("-1"), std::string("1"),
        std::string("99999999999"), std::string("9999"), std::to_string(listening.get())}) {
    ::setenv(kTakeoverVariable, value.c_str(), 1);
    const auto taker = Taker::FromEnvironment();
    ASSERT_FALSE(taker.has_value()) << value;
    EXPECT_THAT(taker.error().message, HasSubstr(kTakeoverVariable)) << value;
  }
  EXPECT_GE(::fcntl(listening.get(), F_GETFD), 0) << "it closed what is not its own";
}

}  // namespace
}  // namespace sluice::takeover
