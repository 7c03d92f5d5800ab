// What these tests are made of: sockets to hand over, and a way to see that no descriptor leaks.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <filesystem>
#include <iterator>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "proxy/base/unique_fd.h"
#include "proxy/net/address.h"
#include "proxy/net/socket.h"
#include "proxy/takeover/offer.h"

#include "tests/support/deadline.h"

namespace sluice::takeover {

inline std::size_t OpenDescriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

// Fails the test when fewer or more descriptors are open at its end than at its beginning.
class DescriptorsTest : public testing::Test {
 protected:
  ~DescriptorsTest() override { EXPECT_EQ(OpenDescriptors(), before_) << "descriptors leak"; }

 private:
  std::size_t before_ = OpenDescriptors();
};

struct Pair {
  UniqueFd one;
  UniqueFd other;
};

inline Pair ConnectedPair() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw test::Failure("no socketpair");
  }
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

inline UniqueFd ListeningSocket() {
  return net::Listen(net::Address::FromNumeric("127.0.0.1", 0).value()).value();
}

inline Socket ListenerSocket(const std::string& name) {
  Socket socket{"listener", name, "", ListeningSocket()};
  socket.address = net::Address::OfSocket(socket.fd.get()).Text();
  return socket;
}

inline UniqueFd Duplicate(const UniqueFd& fd) {
  return UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
}

inline bool IsCloseOnExec(int fd) {
  return (::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}

inline bool BecomesReadable(int fd, test::Millis patience = test::kPatience) {
  pollfd one{fd, POLLIN, 0};
  return ::poll(&one, 1, static_cast<int>(patience.count())) == 1;
}

// Reads to the end of the stream, also when it ends with a reset.
inline std::string ReadAll(int fd) {
  std::string all;
  std::array<char, 4096> some;
  while (BecomesReadable(fd)) {
    const ssize_t got = ::recv(fd, some.data(), some.size(), 0);
    if (got <= 0) {
      return all;
    }
    all.append(some.data(), static_cast<std::size_t>(got));
  }
  throw test::Failure("the stream does not end");
}

}  // namespace sluice::takeover
