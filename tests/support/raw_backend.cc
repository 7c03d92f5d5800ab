#include "tests/support/raw_backend.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <utility>

namespace sluice::test {
namespace {

UniqueFd Bind(std::uint16_t& port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw Failure("cannot bind a loopback port");
  }
  port = ntohs(address.sin_port);
  return fd;
}

}  // namespace

RawBackend::RawBackend(bool small_buffers) : fd_(Bind(port_)) {
  if (small_buffers) {
    const int size = 4096;  // inherited by what is accepted
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
  }
  if (::listen(fd_.get(), SOMAXCONN) != 0) {
    throw Failure("cannot listen");
  }
}

Stream RawBackend::Accept(Deadline deadline) {
  for (;;) {
    UniqueFd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (fd.valid()) {
      return {std::move(fd), "backend"};
    }
    pollfd one{fd_.get(), POLLIN, 0};
    if (::poll(&one, 1, deadline.poll_ms()) == 0) {
      throw Failure("backend: waited in vain for a connection");
    }
  }
}

Stream RawBackend::AcceptWebSocket(std::string_view more, HttpMessage* request) {
  Stream peer = Accept();
  HttpMessage head = peer.ReadHead();
  peer.Send(SwitchingProtocols(head.Field("Sec-WebSocket-Key"), more));
  if (request != nullptr) {
    *request = std::move(head);
  }
  return peer;
}

bool RawBackend::HasConnection(Millis patience) const {
  pollfd one{fd_.get(), POLLIN, 0};
  return ::poll(&one, 1, Deadline(patience).poll_ms()) > 0;
}

void RawBackend::StopListening() {
  fd_.Reset();
}

std::size_t AwaitAny(const std::vector<const RawBackend*>& backends, Deadline deadline) {
  std::vector<pollfd> polled;
  for (const RawBackend* backend : backends) {
    polled.push_back({backend->fd(), POLLIN, 0});
  }
  if (::poll(polled.data(), polled.size(), deadline.poll_ms()) == 0) {
    throw Failure("waited in vain for a connection to any backend");
  }
  for (std::size_t i = 0; i < polled.size(); ++i) {
    if (polled[i].revents != 0) {
      return i;
    }
  }
  throw Failure("poll failed");
}

ClosedPort::ClosedPort() : fd_(Bind(port_)) {}

SilentPort::SilentPort() : fd_(Bind(port_)) {
  if (::listen(fd_.get(), 0) != 0) {
    throw Failure("cannot listen");
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port_);
  constexpr int kEnough = 4;  // a backlog of 0 leaves room for one
  for (int i = 0; i < kEnough; ++i) {
    fill_.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    ::connect(fill_.back().get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
}

}  // namespace sluice::test
