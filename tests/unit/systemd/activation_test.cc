// Proves that sockets of systemd are taken by number and name, once, and only if they are listening
// TCP sockets. systemd counts from descriptor 3, so each case is a process of its own.
#include "proxy/systemd/activation.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/deadline.h"

namespace sluice::systemd {
namespace {

using testing::HasSubstr;

constexpr int kFirst = 3;

int MakeSocket(int family, int type, bool listening) {
  const int fd = ::socket(family, type, 0);
  if (listening) {
    ::listen(fd, 1);  // an unbound one gets a port
  }
  return fd;
}

int Listening(int family) {
  return MakeSocket(family, SOCK_STREAM, true);
}

// Becomes what systemd starts: `sockets` from descriptor 3 on, and its variables. Returns what
// `look` says in that process.
std::string Activated(const std::vector<int>& sockets, const char* names,
                      const std::function<std::string()>& look, bool for_us = true) {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) {
    throw test::Failure("no pipe");
  }
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    // Out of the way first: the places may be taken by what has to go there.
    std::vector<int> moved;
    const int base = kFirst + 16;
    for (const int fd : sockets) {
      moved.push_back(::fcntl(fd, F_DUPFD, base));
    }
    const int out = ::fcntl(ends[1], F_DUPFD, base);
    int place = kFirst;
    for (const int fd : moved) {
      ::dup2(fd, place++);
    }
    ::setenv("LISTEN_FDS", std::to_string(sockets.size()).c_str(), 1);
    ::setenv("LISTEN_PID", std::to_string(for_us ? ::getpid() : 1).c_str(), 1);
    if (names != nullptr) {
      ::setenv("LISTEN_FDNAMES", names, 1);
    }
    const std::string said = look();
    ::_exit(::write(out, said.data(), said.size()) == static_cast<ssize_t>(said.size()) ? 0 : 1);
  }
  ::close(ends[1]);
  std::string said;
  std::array<char, 512> some;
  for (ssize_t got = 1; got > 0;) {
    got = ::read(ends[0], some.data(), some.size());
    said.append(some.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
  }
  ::close(ends[0]);
  for (const int fd : sockets) {
    ::close(fd);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  return said;
}

std::string VariablesLeft() {
  std::string left;
  for (const char* name : {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}) {
    if (std::getenv(name) != nullptr) {
      left += std::string(" ") + name;
    }
  }
  return left;
}

// What was taken, as text.
std::string Take() {
  const auto taken = TakeActivatedSockets();
  if (!taken) {
    return "error: " + taken.error().message + VariablesLeft();
  }
  std::string text = "taken:";
  for (const ActivatedSocket& socket : *taken) {
    const int fd = socket.fd.get();
    text += " " + socket.name + "=" + std::to_string(fd);
    text += (::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0 ? ",cloexec" : "";
    text += (::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0 ? ",nonblock" : "";
  }
  return text + VariablesLeft();
}

TEST(Activation, TakesSocketsWithTheirNames) {
  EXPECT_EQ(Activated({Listening(AF_INET), Listening(AF_INET6)}, "web:admin", Take),
            "taken: web=3,cloexec,nonblock admin=4,cloexec,nonblock");
}

TEST(Activation, TakesSocketsWithoutNames) {
  EXPECT_EQ(Activated({Listening(AF_INET)}, nullptr, Take), "taken: unknown=3,cloexec,nonblock");
}

TEST(Activation, TakesThemOnce) {
  EXPECT_EQ(Activated({Listening(AF_INET)}, "web",
                      [] {
                        std::string said = Take();
                        said += ", " + Take();
                        return said;
                      }),
            "taken: web=3,cloexec,nonblock, taken:");
}

TEST(Activation, TakesNothingOfAnotherProcess) {
  EXPECT_EQ(Activated({Listening(AF_INET)}, "web", Take, /*for_us=*/false), "taken:");
}

TEST(Activation, TakesNothingWithoutSystemd) {
  EXPECT_EQ(Take(), "taken:");
}

TEST(Activation, RefusesWhatIsNoListeningTcpSocket) {
  const std::vector<int> wrong{MakeSocket(AF_INET, SOCK_STREAM, false),
                               MakeSocket(AF_INET, SOCK_DGRAM, false), Listening(AF_UNIX),
                               ::open("/dev/null", O_RDONLY)};
  for (const int fd : wrong) {
    EXPECT_EQ(Activated({Listening(AF_INET), fd}, "web:odd",
                        [] {
                          const std::string said = Take();
                          const bool open =
                              ::fcntl(kFirst, F_GETFD) >= 0 || ::fcntl(kFirst + 1, F_GETFD) >= 0;
                          return said + (open ? ", still open" : "");
                        }),
              "error: socket \"odd\" of systemd (descriptor 4) is no listening TCP socket");
  }
}

TEST(Activation, RefusesVariablesThatDoNotFit) {
  EXPECT_THAT(Activated({Listening(AF_INET)}, "one:two", Take), HasSubstr("error: cannot use"));
  EXPECT_THAT(Activated({Listening(AF_INET)}, "web",
                        [] {
                          ::setenv("LISTEN_FDS", "many", 1);
                          return Take();
                        }),
              HasSubstr("error: cannot use"));
  EXPECT_THAT(Activated({Listening(AF_INET)}, "web:gone",
                        [] {
                          ::setenv("LISTEN_FDS", "2", 1);
                          ::close(kFirst + 1);
                          return Take();
                        }),
              HasSubstr("Bad file descriptor"));
}

}  // namespace
}  // namespace sluice::systemd
