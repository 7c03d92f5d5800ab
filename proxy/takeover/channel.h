// One end of a takeover connection: messages out and in over a unix stream socket, without
// blocking. Used by both processes; belongs to one thread.
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "proxy/base/result.h"
#include "proxy/base/unique_fd.h"
#include "proxy/net/io_result.h"
#include "proxy/takeover/message.h"

namespace sluice::takeover {

class Channel {
 public:
  // `fd` is connected; it becomes non-blocking and close-on-exec.
  explicit Channel(UniqueFd fd) noexcept;

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  // Keeps a message, and its descriptors, until Flush() has sent it.
  void Queue(Message message);

  // Sends what is queued. kOk: all of it; kWouldBlock: call again when the socket is writable;
  // kError: the other end is gone, and what was queued is dropped. There may still be something to
  // receive then: why it has gone.
  [[nodiscard]] net::IoStatus Flush();

  [[nodiscard]] bool has_pending() const noexcept { return !pending_.empty(); }

  // The next message; nothing when the socket has no whole one. An error when there can be no
  // further one: with ECONNRESET when the other end has closed, without errno when it sent what is
  // no message.
  [[nodiscard]] Result<std::optional<Message>> Receive();

  // Gives the connection up. REQUIRES: nothing is pending.
  [[nodiscard]] UniqueFd TakeFd() noexcept { return std::move(fd_); }

  // Closes the connection, and what has not been sent with it.
  void Close() noexcept {
    pending_.clear();
    fd_.Reset();
  }

 private:
  struct Outgoing {
    std::string bytes;
    std::vector<UniqueFd> fds;
    std::size_t sent = 0;
  };

  UniqueFd fd_;
  std::deque<Outgoing> pending_;
  MessageDecoder decoder_;
};

}  // namespace sluice::takeover
