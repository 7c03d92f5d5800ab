// An auth server in a thread of its own: keeps connections alive, answers as the test says, and
// remembers what it was asked. May die and come back on its port.
#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "proxy/base/unique_fd.h"

#include "tests/support/deadline.h"
#include "tests/support/http_message.h"

namespace sluice::test {

class AuthServer {
 public:
  // Called in the server's thread; returns all that is sent.
  using Answer = std::function<std::string(const HttpMessage& request)>;

  explicit AuthServer(Answer answer) : answer_(std::move(answer)) { Start(); }
  ~AuthServer() { Kill(); }

  AuthServer(const AuthServer&) = delete;
  AuthServer& operator=(const AuthServer&) = delete;

  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }

  // What it saw since it was made. Any thread.
  [[nodiscard]] std::size_t connections() const {
    const std::lock_guard lock(mutex_);
    return connections_;
  }
  [[nodiscard]] std::vector<HttpMessage> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

  // Resets all connections and listens no more.
  void Kill() {
    if (thread_.joinable()) {
      const std::uint64_t one = 1;
      [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
      thread_.join();
    }
  }

  void Start() {
    wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
    listener_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    ::setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port_);
    socklen_t size = sizeof(address);
    auto* raw = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener_.get(), raw, size) != 0 || ::listen(listener_.get(), SOMAXCONN) != 0 ||
        ::getsockname(listener_.get(), raw, &size) != 0) {
      throw Failure("the auth server cannot listen");
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Run(); });
  }

 private:
  void Run() {
    std::map<int, std::pair<UniqueFd, std::string>> peers;
    for (;;) {
      std::vector<pollfd> polled{{wake_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
      for (const auto& [fd, peer] : peers) {
        polled.push_back({fd, POLLIN, 0});
      }
      ::poll(polled.data(), polled.size(), -1);
      if (polled[0].revents != 0) {
        break;
      }
      for (std::size_t i = 2; i < polled.size(); ++i) {
        if (polled[i].revents != 0 && !Serve(polled[i].fd, peers[polled[i].fd].second)) {
          peers.erase(polled[i].fd);
        }
      }
      if (polled[1].revents != 0) {
        UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        const int key = fd.get();
        peers[key].first = std::move(fd);
        const std::lock_guard lock(mutex_);
        ++connections_;
      }
    }
    listener_.Reset();
    const linger at_once{1, 0};
    for (const auto& [fd, peer] : peers) {
      ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    }
  }

  bool Serve(int fd, std::string& in) {
    std::array<char, 16384> chunk{};
    const ssize_t got = ::recv(fd, chunk.data(), chunk.size(), 0);
    if (got <= 0) {
      return false;
    }
    in.append(chunk.data(), static_cast<std::size_t>(got));
    for (std::size_t end = in.find("\r\n\r\n"); end != std::string::npos;
         end = in.find("\r\n\r\n")) {
      const HttpMessage request = ParseHead(in.substr(0, end + 4));
      in.erase(0, end + 4);
      const std::string out = answer_(request);
      {
        const std::lock_guard lock(mutex_);
        requests_.push_back(request);
      }
      if (::send(fd, out.data(), out.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(out.size())) {
        return false;
      }
    }
    return true;
  }

  Answer answer_;
  std::uint16_t port_ = 0;
  UniqueFd wake_;
  UniqueFd listener_;
  std::thread thread_;

  mutable std::mutex mutex_;
  std::size_t connections_ = 0;
  std::vector<HttpMessage> requests_;
};

}  // namespace sluice::test
