#include "proxy/net/socket.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace sluice::net {
namespace {

// The kernel cuts it to net.core.somaxconn. A reconnect storm fills a short queue at once.
constexpr int kBacklog = 4096;

// A peer that vanished without a word is found by the kernel within about two minutes even when
// no heartbeat runs: 60 s idle, then 4 probes 15 s apart.
constexpr int kKeepIdle = 60;
constexpr int kKeepInterval = 15;
constexpr int kKeepCount = 4;

void SetInt(int fd, int level, int name, int value) noexcept {
  ::setsockopt(fd, level, name, &value, sizeof(value));
}

void SetStreamOptions(int fd) noexcept {
  SetInt(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  SetInt(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  SetInt(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepIdle);
  SetInt(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepInterval);
  SetInt(fd, IPPROTO_TCP, TCP_KEEPCNT, kKeepCount);
}

Result<UniqueFd> Bind(const Address& address, bool reuse_port) {
  UniqueFd fd(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) {
    return SysErr("cannot make a socket for " + address.Text(), errno);
  }
  SetInt(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (reuse_port) {
    SetInt(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1);
  }
  if (address.family() == AF_INET6) {
    SetInt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);  // "[::]" and "0.0.0.0" are two listeners
  }
  SetStreamOptions(fd.get());
  if (::bind(fd.get(), address.raw(), address.raw_size()) != 0 ||
      ::listen(fd.get(), kBacklog) != 0) {
    return SysErr("cannot listen on " + address.Text(), errno);
  }
  return fd;
}

// This and Send are half of what a small message costs in user space. The wrappers recv(2) and
// send(2) of glibc are cancellation points (pthreads(7)), which no thread here makes use of: the
// bookkeeping for it was a fifth of that time.
IoResult ReceiveWith(int flags, int fd, std::span<std::byte> into) noexcept {
  for (;;) {
    const ssize_t got =
        ::syscall(SYS_recvfrom, fd, into.data(), into.size(), flags, nullptr, nullptr);
    if (got > 0) {
      return {IoStatus::kOk, static_cast<std::size_t>(got)};
    }
    if (got == 0) {
      return {IoStatus::kEof, 0};
    }
    if (errno == EINTR) {
      continue;
    }
    return {errno == EAGAIN ? IoStatus::kWouldBlock : IoStatus::kError, 0};
  }
}

}  // namespace

IoResult Receive(int fd, std::span<std::byte> into) noexcept {
  return ReceiveWith(0, fd, into);
}

IoResult Peek(int fd, std::span<std::byte> into) noexcept {
  return ReceiveWith(MSG_PEEK, fd, into);
}

std::size_t Readable(int fd) noexcept {
  int bytes = 0;
  return ::ioctl(fd, FIONREAD, &bytes) == 0 ? static_cast<std::size_t>(bytes) : 0;
}

void WakeFrom(int fd, std::size_t bytes) noexcept {
  const int least = static_cast<int>(bytes);
  ::setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least));
}

IoResult Send(int fd, Bytes bytes) noexcept {
  for (;;) {
    const ssize_t sent =
        ::syscall(SYS_sendto, fd, bytes.data(), bytes.size(), MSG_NOSIGNAL, nullptr, 0);
    if (sent >= 0) {
      return {IoStatus::kOk, static_cast<std::size_t>(sent)};
    }
    if (errno == EINTR) {
      continue;
    }
    return {errno == EAGAIN ? IoStatus::kWouldBlock : IoStatus::kError, 0};
  }
}

Result<UniqueFd> Listen(const Address& address) {
  return Bind(address, true);
}

Result<void> CheckFree(const Address& address) {
  if (auto probe = Bind(address, false); !probe) {
    return tl::unexpected(probe.error());
  }
  return {};
}

Result<UniqueFd> Duplicate(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) {
    return SysErr("cannot duplicate a socket", errno);
  }
  return copy;
}

Result<UniqueFd> StartConnect(const Address& address) {
  UniqueFd fd(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) {
    return SysErr("cannot make a socket for " + address.Text(), errno);
  }
  SetStreamOptions(fd.get());
  if (::connect(fd.get(), address.raw(), address.raw_size()) != 0 && errno != EINPROGRESS) {
    return SysErr("cannot connect to " + address.Text(), errno);
  }
  return fd;
}

bool IsConnected(int fd) noexcept {
  Address peer;
  socklen_t size = Address::kMaxSize;
  return ::getpeername(fd, peer.raw(), &size) == 0;  // ENOTCONN before and after
}

bool IsOwnShortage(int sys_errno) noexcept {
  switch (sys_errno) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case EADDRNOTAVAIL:
    case EAGAIN:
      return true;
    default:
      return false;
  }
}

int ConnectError(int fd) noexcept {
  int error = 0;
  socklen_t size = sizeof(error);
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
    return errno;
  }
  return error;
}

bool Await(int fd, short events, Instant deadline) noexcept {
  for (;;) {
    const auto left = std::chrono::ceil<Millis>(deadline - Now()).count();
    if (left <= 0) {
      return false;
    }
    pollfd one{fd, events, 0};
    const int ready = ::poll(&one, 1, static_cast<int>(std::min<Millis::rep>(left, 1'000'000)));
    if (ready > 0) {
      return true;
    }
    if (ready == -1 && errno != EINTR) {
      return false;
    }
  }
}

}  // namespace sluice::net
