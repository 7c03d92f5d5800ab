// Pipes through which splice(2) moves bytes from one socket to another without copying them.
//
// A pipe is lent for as long as bytes of one direction of one session are in it. It goes back empty
// or not at all: bytes of one session can never come out in another.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "proxy/base/unique_fd.h"
#include "proxy/net/io_result.h"

namespace sluice::net {

class Pipe {
 public:
  // Null when the process or the system has no more descriptors, or grants so small a pipe that
  // copying is cheaper (pipe(7), pipe-user-pages-soft).
  [[nodiscard]] static std::unique_ptr<Pipe> Make();

  // Moves at most `most` bytes from the socket into the pipe. kOk with bytes > 0, kEof, kError; and
  // kWouldBlock when the socket has nothing or the pipe has no room, which splice(2) does not tell
  // apart. Nothing at all: the kernel does not splice from this socket.
  [[nodiscard]] std::optional<IoResult> Fill(int socket, std::size_t most) noexcept;

  // Moves what the socket takes now out of the pipe. kOk with bytes > 0, kWouldBlock or kError.
  // REQUIRES: size() > 0; the process ignores SIGPIPE, for splice(2) has no flag against it.
  [[nodiscard]] IoResult Drain(int socket) noexcept;

  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  Pipe(UniqueFd read_end, UniqueFd write_end) noexcept
      : read_end_(std::move(read_end)), write_end_(std::move(write_end)) {}

  UniqueFd read_end_;
  UniqueFd write_end_;
  std::size_t size_ = 0;  // bytes inside
};

// The pipes of one loop. Bounded: a pipe costs two descriptors and what it holds of the kernel's
// memory, and there may be thousands of sessions with a slow side.
class PipePool {
 public:
  static constexpr std::size_t kMostLent = 16;
  static constexpr std::size_t kMostIdle = 4;  // ready for the next large frame; the rest is closed
  static constexpr std::size_t kMostDescriptors = 2 * (kMostLent + kMostIdle);

  // An empty pipe, or null when all are lent or none can be made: the bytes are then copied.
  [[nodiscard]] std::unique_ptr<Pipe> Borrow();

  // Ends a loan. A pipe that still holds bytes is closed.
  void Return(std::unique_ptr<Pipe> pipe) noexcept;

  [[nodiscard]] std::size_t lent() const noexcept { return lent_; }

 private:
  std::vector<std::unique_ptr<Pipe>> idle_;
  std::size_t lent_ = 0;
  unsigned resting_ = 0;  // so often Borrow() does not try again, after none could be made
};

}  // namespace sluice::net
