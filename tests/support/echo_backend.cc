#include "tests/support/echo_backend.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include <openssl/err.h>

#include "tests/support/websocket.h"

namespace sluice::test {
namespace {

// More than this unsent, and a connection is not read until it has gone.
constexpr std::size_t kMostUnsent = 1 << 20;

}  // namespace

EchoBackend::EchoBackend(std::string name, const TlsServer* tls, const std::string& host,
                         std::uint16_t port)
    : name_(std::move(name)),
      tls_(tls),
      listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  const int reuse = 1;  // a fixed port may have been one of a connection a moment ago
  static_cast<void>(::setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse)));
  socklen_t size = sizeof(address);
  if (::inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1 ||
      ::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      ::listen(listener_.get(), SOMAXCONN) != 0 ||
      ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw Failure("echo backend: cannot listen");
  }
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { Run(); });
}

EchoBackend::~EchoBackend() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  static_cast<void>(::eventfd_write(wake_.get(), 1));
  thread_.join();
  for (const auto& [fd, peer] : peers_) {
    ::close(fd);
  }
}

template <class Condition>
bool EchoBackend::Await(Deadline deadline, Condition&& condition) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline.at(), condition);
}

std::size_t EchoBackend::accepts() const {
  const std::lock_guard lock(mutex_);
  return accepts_;
}

std::uint64_t EchoBackend::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

std::size_t EchoBackend::open() const {
  const std::lock_guard lock(mutex_);
  return open_;
}

std::vector<HttpMessage> EchoBackend::heads() const {
  const std::lock_guard lock(mutex_);
  return heads_;
}

std::vector<std::uint16_t> EchoBackend::closes() const {
  const std::lock_guard lock(mutex_);
  return closes_;
}

std::vector<TlsFacts> EchoBackend::handshakes() const {
  const std::lock_guard lock(mutex_);
  return handshakes_;
}

bool EchoBackend::AwaitAccepts(std::size_t count, Deadline deadline) {
  return Await(deadline, [&] { return accepts_ >= count; });
}

bool EchoBackend::AwaitCloses(std::size_t count, Deadline deadline) {
  return Await(deadline, [&] { return closes_.size() >= count; });
}

bool EchoBackend::AwaitOpen(std::size_t count, Deadline deadline) {
  return Await(deadline, [&] { return open_ == count; });
}

void EchoBackend::Broadcast(std::string bytes) {
  {
    const std::lock_guard lock(mutex_);
    broadcast_ += bytes;
  }
  static_cast<void>(::eventfd_write(wake_.get(), 1));
}

void EchoBackend::Run() {
  std::vector<pollfd> polled;
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (stop_) {
        return;
      }
      for (auto& [fd, peer] : peers_) {
        if (!broadcast_.empty() && peer.upgraded && !peer.closing) {
          peer.out += broadcast_;
        }
      }
      broadcast_.clear();
    }
    polled.clear();
    polled.push_back({wake_.get(), POLLIN, 0});
    polled.push_back({listener_.get(), POLLIN, 0});
    for (const auto& [fd, peer] : peers_) {
      const bool read = peer.out.size() < kMostUnsent;
      polled.push_back(
          {fd, static_cast<short>((read ? POLLIN : 0) | (peer.out.empty() ? 0 : POLLOUT)), 0});
    }
    if (::poll(polled.data(), polled.size(), -1) < 0) {
      continue;
    }
    if (polled[0].revents != 0) {
      eventfd_t ignored = 0;
      static_cast<void>(::eventfd_read(wake_.get(), &ignored));
    }
    for (std::size_t i = 2; i < polled.size(); ++i) {
      const auto found = peers_.find(polled[i].fd);
      if (polled[i].revents != 0 && !Serve(polled[i].fd, found->second, polled[i].revents)) {
        ::close(polled[i].fd);
        peers_.erase(found);
        const std::lock_guard lock(mutex_);
        --open_;
        changed_.notify_all();
      }
    }
    if (polled[1].revents != 0) {
      AcceptAll();
    }
  }
}

void EchoBackend::AcceptAll() {
  for (;;) {
    const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
      return;
    }
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    Peer peer;
    if (tls_ != nullptr) {
      peer.ssl.reset(SSL_new(tls_->context()));
      SSL_set_fd(peer.ssl.get(), fd);
      SSL_set_accept_state(peer.ssl.get());
    }
    peers_.emplace(fd, std::move(peer));
    const std::lock_guard lock(mutex_);
    ++accepts_;
    ++open_;
    changed_.notify_all();
  }
}

// The handshake is made by the first read.
ssize_t EchoBackend::Receive(int fd, Peer& peer, char* into, std::size_t size) {
  if (!peer.ssl) {
    return ::recv(fd, into, size, 0);
  }
  ERR_clear_error();
  const int got = SSL_read(peer.ssl.get(), into, static_cast<int>(size));
  if (got > 0) {
    return got;
  }
  const int error = SSL_get_error(peer.ssl.get(), got);
  errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : EIO;
  return error == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

ssize_t EchoBackend::Send(int fd, Peer& peer) {
  if (!peer.ssl) {
    return ::send(fd, peer.out.data(), peer.out.size(), MSG_NOSIGNAL);
  }
  // A record at a time: taken off `out` by the caller in one piece.
  std::size_t total = 0;
  while (total < peer.out.size()) {
    ERR_clear_error();
    const int sent = SSL_write(peer.ssl.get(), peer.out.data() + total,
                               static_cast<int>(peer.out.size() - total));
    if (sent <= 0) {
      const int error = SSL_get_error(peer.ssl.get(), sent);
      errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : EIO;
      return total > 0 ? static_cast<ssize_t>(total) : -1;
    }
    total += static_cast<std::size_t>(sent);
  }
  return static_cast<ssize_t>(total);
}

bool EchoBackend::Serve(int fd, Peer& peer, short events) {
  // What is inside OpenSSL already poll(2) would not see.
  for (bool read = (events & (POLLIN | POLLHUP | POLLERR)) != 0; read;
       read = peer.ssl && SSL_pending(peer.ssl.get()) > 0) {
    std::array<char, 64 * 1024> scratch;
    const ssize_t got = Receive(fd, peer, scratch.data(), scratch.size());
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
      return false;
    }
    if (got > 0) {
      {
        const std::lock_guard lock(mutex_);
        bytes_ += static_cast<std::uint64_t>(got);
        changed_.notify_all();
      }
      if (!peer.closing) {
        peer.in.append(scratch.data(), static_cast<std::size_t>(got));
        Take(peer);
      }
    }
  }
  if (!peer.out.empty()) {
    const ssize_t sent = Send(fd, peer);
    if (sent < 0 && errno != EAGAIN) {
      return false;
    }
    peer.out.erase(0, sent > 0 ? static_cast<std::size_t>(sent) : 0);
  }
  if (peer.closing && peer.out.empty() && !peer.finished) {
    peer.finished = true;
    if (peer.ssl) {
      SSL_shutdown(peer.ssl.get());
    }
    ::shutdown(fd, SHUT_WR);
  }
  return true;
}

void EchoBackend::Take(Peer& peer) {
  while (!peer.upgraded) {
    const std::size_t end = peer.in.find("\r\n\r\n");
    if (end == std::string::npos) {
      return;
    }
    HttpMessage head = ParseHead(peer.in.substr(0, end + 4));
    std::size_t whole = end + 4;
    if (head.Field("Transfer-Encoding") == "chunked") {
      const std::size_t last = peer.in.find("0\r\n\r\n", end + 4);
      if (last == std::string::npos) {
        return;
      }
      whole = last + 5;
    } else {
      whole += std::strtoull(head.Field("Content-Length").c_str(), nullptr, 10);
    }
    if (peer.in.size() < whole) {
      return;
    }
    head.body = peer.in.substr(end + 4, whole - end - 4);
    peer.in.erase(0, whole);
    if (head.Has("Sec-WebSocket-Key")) {
      peer.out +=
          SwitchingProtocols(head.Field("Sec-WebSocket-Key"), "X-Backend: " + name_ + "\r\n");
      peer.upgraded = true;
    } else {
      const std::string body = name_ + " " + head.method + " " + head.target + "\n";
      peer.out += "HTTP/1.1 200 OK\r\nX-Backend: " + name_ +
                  "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n";
      peer.out += head.method == "HEAD" ? "" : body;
      peer.closing = head.Field("Connection") == "close";
    }
    const std::lock_guard lock(mutex_);
    heads_.push_back(std::move(head));
    if (peer.ssl) {
      handshakes_.push_back(TlsServer::FactsOf(peer.ssl.get()));
    }
    changed_.notify_all();
  }
  while (!peer.closing) {
    const auto frame = TakeFrame(peer.in);
    if (!frame) {
      return;
    }
    const std::uint8_t answer = frame->opcode == kPing ? kPong : frame->opcode;
    if (frame->opcode != kPong) {
      peer.out += BuildFrame(answer, frame->payload, {frame->fin, false, frame->rsv});
    }
    if (frame->opcode == kClose) {
      peer.closing = true;
      const std::lock_guard lock(mutex_);
      closes_.push_back(frame->close_code());
      changed_.notify_all();
    }
  }
}

}  // namespace sluice::test
