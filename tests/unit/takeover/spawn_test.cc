// Proves what a process that is started as successor inherits and what not, that it can take over,
// and that the path to start is the one that was started, whatever has become of it.
#include "proxy/takeover/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"
#include "tests/unit/takeover/old_process.h"
#include "tests/unit/takeover/sockets.h"

namespace sluice::takeover {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;

int StatusOf(pid_t pid) {
  int status = 0;
  if (::waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) {
    return -1;
  }
  return WEXITSTATUS(status);
}

class SpawnTest : public DescriptorsTest {
 protected:
  // What the shell prints to its end of the connection.
  static std::string Shell(const std::string& script) {
    auto spawned = SpawnSuccessor("/bin/sh", {"sluice", "-c", script});
    if (!spawned) {
      throw test::Failure(spawned.error().message);
    }
    std::string text = ReadAll(spawned->connection.get());
    EXPECT_EQ(StatusOf(spawned->pid), 0);
    return text;
  }
};

TEST_F(SpawnTest, PassesTheConnectionAndNoOtherDescriptor) {
  const UniqueFd leaky(::open("/dev/null", O_RDONLY));  // as a library may open one
  ASSERT_FALSE(IsCloseOnExec(leaky.get()));
  ASSERT_LT(leaky.get(), 100);
  EXPECT_EQ(Shell("for fd in $(seq 0 200); do"
                  "  if [ -e /proc/$$/fd/$fd ]; then echo $fd >&3; fi;"
                  "done"),
            "0\n1\n2\n3\n");
  EXPECT_EQ(Shell("echo $0 $SLUICE_TAKEOVER_FD >&3"), "sluice 3\n");
}

TEST_F(SpawnTest, PassesTheConnectionWhicheverNumberIsFree) {
  std::array<UniqueFd, 3> free;  // the ends of the socketpair come to lie around the one it becomes
  for (UniqueFd& fd : free) {
    fd = UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    EXPECT_EQ(Shell("echo here >&3"), "here\n");
  }
}

TEST_F(SpawnTest, LeavesOutWhatSystemdMeantForThisProcess) {
  ::setenv("LISTEN_FDS", "2", 1);
  ::setenv("LISTEN_PID", "1", 1);
  ::setenv("LISTEN_FDNAMES", "a:b", 1);
  ::setenv("WATCHDOG_PID", "1", 1);
  ::setenv("WATCHDOG_USEC", "1000000", 1);
  ::setenv("NOTIFY_SOCKET", "/run/systemd/notify", 1);
  ::setenv(kTakeoverVariable, "77", 1);
  const std::string environment = Shell("env >&3");
  for (const char* name : {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID",
                           "WATCHDOG_USEC", "NOTIFY_SOCKET", kTakeoverVariable}) {
    ::unsetenv(name);
  }
  EXPECT_THAT(environment, Not(HasSubstr("LISTEN_")));
  EXPECT_THAT(environment, Not(HasSubstr("WATCHDOG_PID")));
  EXPECT_THAT(environment, HasSubstr("WATCHDOG_USEC=1000000\n"));
  EXPECT_THAT(environment, HasSubstr("NOTIFY_SOCKET=/run/systemd/notify\n"));
  EXPECT_THAT(environment, HasSubstr("SLUICE_TAKEOVER_FD=3\n"));
  EXPECT_THAT(environment, Not(HasSubstr("=77")));
}

TEST_F(SpawnTest, StartsWithSignalsAsAProcessHasThem) {
  // Whoever runs the tests may ignore some, as a shell does for what runs in its background.
  std::map<int, sighandler_t> usual;
  for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGTERM}) {
    usual[signal] = ::signal(signal, SIG_DFL);
  }
  const auto pipe_before = ::signal(SIGPIPE, SIG_IGN);
  const auto usr1_before = ::signal(SIGUSR1, [](int) {});
  sigset_t blocked;
  sigset_t before;
  ::sigfillset(&blocked);
  ::pthread_sigmask(SIG_BLOCK, &blocked, &before);
  const std::string status = Shell("cat /proc/self/status >&3");
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::signal(SIGUSR1, usr1_before);
  ::signal(SIGPIPE, pipe_before);
  for (const auto& [signal, handler] : usual) {
    ::signal(signal, handler);
  }
  EXPECT_THAT(status, HasSubstr("SigBlk:\t0000000000000000\n"));
  // posix_spawn of glibc leaves its two internal signals, 32 and 33, ignored.
  EXPECT_THAT(status, ContainsRegex("SigIgn:\t0000000[01][08]0000000\n"));
  EXPECT_THAT(status, HasSubstr("SigCgt:\t0000000000000000\n"));
}

TEST_F(SpawnTest, TellsThatAProgramCannotBeStarted) {
  const auto spawned = SpawnSuccessor("/nonexistent/sluice", {"sluice"});
  ASSERT_FALSE(spawned.has_value());
  EXPECT_EQ(spawned.error().sys_errno, ENOENT);
  EXPECT_THAT(spawned.error().message, HasSubstr("/nonexistent/sluice"));
}

TEST_F(SpawnTest, TheStartedProcessTakesOver) {
  OldProcess old;
  old.sockets.push_back(ListenerSocket("web"));
  const net::Address address = net::Address::OfSocket(old.sockets[0].fd.get());
  old.on_ready = [&] { old.sockets.clear(); };
  auto spawned = SpawnSuccessor(SLUICE_SUCCESSOR, {"successor"});
  ASSERT_TRUE(spawned.has_value()) << spawned.error().message;
  ASSERT_TRUE(old.Do([&](Giver& giver) {
                   return giver.AdoptConnection(std::move(spawned->connection), spawned->pid);
                 })
                  .has_value());
  EXPECT_EQ(old.AwaitEvent(2), "ready " + std::to_string(spawned->pid));
  EXPECT_EQ(old.asked_version, "new");
  const UniqueFd client = net::StartConnect(address).value();
  EXPECT_EQ(ReadAll(client.get()), "new");
  old.End();
  EXPECT_EQ(StatusOf(spawned->pid), 0);
}

TEST_F(SpawnTest, AStartedProcessThatDoesNotComeUpIsAFailure) {
  OldProcess old;
  auto spawned = SpawnSuccessor("/bin/false", {"false"});
  ASSERT_TRUE(spawned.has_value()) << spawned.error().message;
  ASSERT_TRUE(old.Do([&](Giver& giver) {
                   return giver.AdoptConnection(std::move(spawned->connection), spawned->pid);
                 })
                  .has_value());
  EXPECT_EQ(old.AwaitEvent(1),
            "failed " + std::to_string(spawned->pid) + ": it ended before it was ready");
  EXPECT_EQ(StatusOf(spawned->pid), 1);
}

std::string OutputOf(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "re"), ::pclose);
  std::string text;
  std::array<char, 256> some;
  for (std::size_t got = 1; got > 0; text.append(some.data(), got)) {
    got = std::fread(some.data(), 1, some.size(), pipe.get());
  }
  return text;
}

TEST(ExecutablePath, IsAbsoluteAndKeepsSymbolicLinks) {
  const test::TempDir dir;
  const std::string link = dir.path() + "/current";
  std::filesystem::create_symlink(SLUICE_SUCCESSOR, link);
  EXPECT_EQ(OutputOf(link + " --path"), link);
  EXPECT_EQ(OutputOf("cd " + dir.path() + " && ./current --path"), dir.path() + "/./current");
  EXPECT_EQ(OutputOf("PATH=" + dir.path() + ":$PATH current --path"), link);
}

TEST(ExecutablePath, IsWhereTheFileWas) {
  const test::TempDir dir;
  const std::string copy = dir.path() + "/sluice";
  std::filesystem::copy_file(SLUICE_SUCCESSOR, copy);
  EXPECT_EQ(OutputOf(copy + " --path-when-removed " + copy), copy);
  EXPECT_FALSE(std::filesystem::exists(copy));
}

}  // namespace
}  // namespace sluice::takeover
