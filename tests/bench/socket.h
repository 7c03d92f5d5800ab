// What the benchmark's tools share: loopback sockets, epoll, and the accept key of RFC 6455.
// Failures end the program with one sentence on stderr: a benchmark that limps on measures nothing.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "proxy/base/unique_fd.h"

namespace sluice::bench {

[[noreturn]] inline void Die(std::string_view what) {
  std::fprintf(stderr, "%s: %.*s\n", program_invocation_short_name, static_cast<int>(what.size()),
               what.data());
  std::exit(1);
}

[[noreturn]] inline void DieErrno(const std::string& what) {
  Die(what + ": " + std::strerror(errno));
}

// A whole decimal number, or the program ends.
inline std::uint64_t Number(const std::string& text) {
  char* end = nullptr;
  errno = 0;
  const unsigned long long value = std::strtoull(text.c_str(), &end, 10);
  if (text.empty() || text.front() == '-' || *end != '\0' || errno != 0) {
    Die("not a number: '" + text + "'");
  }
  return value;
}

inline std::uint16_t PortNumber(const std::string& text) {
  const std::uint64_t port = Number(text);
  if (port > 65535) {
    Die("not a port: '" + text + "'");
  }
  return static_cast<std::uint16_t>(port);
}

// As many descriptors as the hard limit allows.
inline void RaiseFdLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
}

inline sockaddr_in Loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

inline void SetNoDelay(int fd) {
  const int one = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

inline void SetNonBlocking(int fd) {
  if (::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK) != 0) {
    DieErrno("fcntl");
  }
}

// Blocks until connected. The socket stays blocking.
inline UniqueFd Connect(std::uint16_t port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) {
    DieErrno("socket");
  }
  const sockaddr_in address = Loopback(port);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    DieErrno("connect to port " + std::to_string(port));
  }
  SetNoDelay(fd.get());
  return fd;
}

// A non-blocking listener on a free port of loopback, which is printed as one line: the signal that
// connections are taken.
inline UniqueFd ListenAndTell() {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  if (!fd.valid() ||
      ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(fd.get(), 4096) != 0 ||
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    DieErrno("listen");
  }
  std::printf("%u\n", static_cast<unsigned>(ntohs(address.sin_port)));
  std::fflush(stdout);
  return fd;
}

// Invalid when nobody waits to be accepted.
inline UniqueFd Accept(int listener) {
  UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (fd.valid()) {
    SetNoDelay(fd.get());
  } else if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
    DieErrno("accept");
  }
  return fd;
}

inline void Watch(int epoll, int operation, int fd, std::uint32_t events, void* data) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = data;
  if (::epoll_ctl(epoll, operation, fd, &event) != 0) {
    DieErrno("epoll_ctl");
  }
}

}  // namespace sluice::bench
