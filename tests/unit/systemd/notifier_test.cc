// Proves what systemd hears: one datagram for each call, at a path or an abstract name, and nothing
// is said or fails where there is no systemd.
#include "proxy/systemd/notifier.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/base/unique_fd.h"

#include "tests/support/temp_dir.h"

namespace sluice::systemd {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// systemd's end: a datagram socket that NOTIFY_SOCKET names.
class NotifierTest : public testing::TestWithParam<bool> {
 protected:
  NotifierTest() : fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    const bool abstract = GetParam();
    // A name that no other process on the machine has.
    const std::string name = abstract ? "@" + dir_.path() : dir_.path() + "/notify";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    if (abstract) {
      address.sun_path[0] = '\0';
    }
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    if (::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) {
      throw test::Failure("cannot bind " + name);
    }
    ::setenv("NOTIFY_SOCKET", name.c_str(), 1);
  }

  ~NotifierTest() override { ::unsetenv("NOTIFY_SOCKET"); }

  // The next datagram; a unix one is there as soon as it is sent.
  [[nodiscard]] std::string Heard() const {
    std::array<char, 4096> text;
    const ssize_t size = ::recv(fd_.get(), text.data(), text.size(), 0);
    return size < 0 ? "(nothing)" : std::string(text.data(), static_cast<std::size_t>(size));
  }

  test::TempDir dir_;
  UniqueFd fd_;
};

INSTANTIATE_TEST_SUITE_P(Names, NotifierTest, testing::Bool(), [](const auto& tested) {
  return tested.param ? std::string("Abstract") : std::string("Path");
});

TEST_P(NotifierTest, SaysEachThingInADatagram) {
  EXPECT_TRUE(NotifyReady("serving on 2 listeners").has_value());
  EXPECT_EQ(Heard(), "READY=1\nSTATUS=serving on 2 listeners");
  EXPECT_TRUE(NotifyStatus("draining").has_value());
  EXPECT_EQ(Heard(), "STATUS=draining");
  EXPECT_TRUE(NotifyStopping().has_value());
  EXPECT_EQ(Heard(), "STOPPING=1");
  EXPECT_TRUE(NotifyMainPid(4711).has_value());
  EXPECT_EQ(Heard(), "MAINPID=4711");
  EXPECT_TRUE(NotifyWatchdog().has_value());
  EXPECT_EQ(Heard(), "WATCHDOG=1");
  EXPECT_EQ(Heard(), "(nothing)");
}

TEST_P(NotifierTest, SaysWhenAReloadBegan) {
  const auto micros = [] {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1'000'000LL + now.tv_nsec / 1'000;
  };
  const long long before = micros();
  EXPECT_TRUE(NotifyReloading().has_value());
  const long long after = micros();
  const std::string heard = Heard();
  const std::string start = "RELOADING=1\nMONOTONIC_USEC=";
  ASSERT_THAT(heard, StartsWith(start));
  const long long said = std::stoll(heard.substr(start.size()));
  EXPECT_GE(said, before);
  EXPECT_LE(said, after);
}

TEST_P(NotifierTest, ALineBreakInATextIsNoNewAssignment) {
  EXPECT_TRUE(NotifyStatus("a\nMAINPID=1").has_value());
  EXPECT_EQ(Heard(), "STATUS=a MAINPID=1");
}

TEST_P(NotifierTest, TellsThatSystemdDoesNotHear) {
  fd_.Reset();
  const auto said = NotifyReady("");
  ASSERT_FALSE(said.has_value());
  EXPECT_NE(said.error().sys_errno, 0);
  EXPECT_THAT(said.error().message, HasSubstr("systemd"));
}

TEST(Notifier, DoesNothingWithoutSystemd) {
  ::unsetenv("NOTIFY_SOCKET");
  EXPECT_TRUE(NotifyReady("text").has_value());
  EXPECT_TRUE(NotifyReloading().has_value());
  EXPECT_TRUE(NotifyStopping().has_value());
  EXPECT_TRUE(NotifyStatus("text").has_value());
  EXPECT_TRUE(NotifyMainPid(1).has_value());
  EXPECT_TRUE(NotifyWatchdog().has_value());
}

class WatchdogTest : public testing::Test {
 protected:
  ~WatchdogTest() override {
    ::unsetenv("WATCHDOG_USEC");
    ::unsetenv("WATCHDOG_PID");
  }
};

TEST_F(WatchdogTest, IsFedTwiceInItsTime) {
  EXPECT_FALSE(WatchdogPeriod().has_value());
  ::setenv("WATCHDOG_USEC", "30000000", 1);
  EXPECT_EQ(WatchdogPeriod(), Millis(15'000)) << "without a pid, every process is meant";
  ::setenv("WATCHDOG_PID", std::to_string(::getpid()).c_str(), 1);
  EXPECT_EQ(WatchdogPeriod(), Millis(15'000));
  ::setenv("WATCHDOG_USEC", "100", 1);
  EXPECT_EQ(WatchdogPeriod(), Millis(1)) << "a timer of 0 would spin";
}

TEST_F(WatchdogTest, IsNotFedForAnotherProcess) {
  ::setenv("WATCHDOG_USEC", "30000000", 1);
  ::setenv("WATCHDOG_PID", "1", 1);
  EXPECT_FALSE(WatchdogPeriod().has_value());
}

TEST_F(WatchdogTest, IsNotFedWhenItsTimeIsNone) {
  for (const char* value : {"", "0", "-1", "soon", "18446744073709551615"}) {
    ::setenv("WATCHDOG_USEC", value, 1);
    EXPECT_FALSE(WatchdogPeriod().has_value()) << value;
  }
}

}  // namespace
}  // namespace sluice::systemd
