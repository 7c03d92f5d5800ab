// A backend that does exactly what the test tells it to: accept, read, answer wrongly, vanish.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/stream.h"

namespace sluice::test {

class RawBackend {
 public:
  // Listens on 127.0.0.1, any free port. `small_buffers`: accepted sockets feel backpressure soon.
  explicit RawBackend(bool small_buffers = false);

  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }

  // The next connection.
  [[nodiscard]] Stream Accept(Deadline deadline = Deadline());

  // The next connection, its upgrade request read (into `request` if given) and answered with a
  // correct 101. `more`: further field lines of the 101.
  [[nodiscard]] Stream AcceptWebSocket(std::string_view more = {}, HttpMessage* request = nullptr);

  // True when a connection waits to be accepted within `patience`. For what must not come.
  [[nodiscard]] bool HasConnection(Millis patience) const;

  // Connections are refused from now on.
  void StopListening();

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  std::uint16_t port_ = 0;  // before fd_: making the socket sets it
  UniqueFd fd_;
};

// Index of the first of `backends` that has a connection waiting.
[[nodiscard]] std::size_t AwaitAny(const std::vector<const RawBackend*>& backends,
                                   Deadline deadline = Deadline());

// A port of 127.0.0.1 that refuses connections for as long as this lives: bound, not listening.
class ClosedPort {
 public:
  ClosedPort();
  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }

 private:
  std::uint16_t port_ = 0;  // before fd_: making the socket sets it
  UniqueFd fd_;
};

// A port of 127.0.0.1 that leaves a connect without an answer: its queue is full, so that the
// kernel takes no more.
class SilentPort {
 public:
  SilentPort();
  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }

 private:
  std::uint16_t port_ = 0;  // before fd_: making the socket sets it
  UniqueFd fd_;
  std::vector<UniqueFd> fill_;
};

}  // namespace sluice::test
