#include "proxy/net/pipe.h"

#include <fcntl.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <utility>

namespace sluice::net {
namespace {

// 64 pages, each of which may hold up to 32 KiB of a socket's data: more than is asked for at a
// time. The kernel may grant less (pipe(7), pipe-user-pages-soft); any size works.
constexpr int kCapacity = 1024 * 1024;

// Enough that bulk traffic finds one ready; the rest is given back.
constexpr std::size_t kMostIdle = 4;

IoResult Splice(int from, int to, std::size_t most) noexcept {
  for (;;) {
    const ssize_t moved =
        ::splice(from, nullptr, to, nullptr, most, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (moved > 0) {
      return {IoStatus::kOk, static_cast<std::size_t>(moved)};
    }
    if (moved == 0) {
      return {IoStatus::kEof, 0};
    }
    if (errno != EINTR) {
      return {errno == EAGAIN ? IoStatus::kWouldBlock : IoStatus::kError, 0};
    }
  }
}

}  // namespace

std::unique_ptr<Pipe> Pipe::Make() {
  int ends[2];
  if (::pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) {
    return nullptr;
  }
  ::fcntl(ends[1], F_SETPIPE_SZ, kCapacity);
  // make_unique cannot reach the private constructor.
  return std::unique_ptr<Pipe>(new Pipe(UniqueFd(ends[0]), UniqueFd(ends[1])));
}

std::optional<IoResult> Pipe::Fill(int socket, std::size_t most) noexcept {
  const IoResult moved = Splice(socket, write_end_.get(), most);
  if (moved.status == IoStatus::kError && (errno == EINVAL || errno == ENOSYS || errno == EPERM)) {
    return std::nullopt;  // about splice(2), not about the connection
  }
  size_ += moved.bytes;
  return moved;
}

IoResult Pipe::Drain(int socket) noexcept {
  assert(size_ > 0);
  const IoResult moved = Splice(read_end_.get(), socket, size_);
  size_ -= moved.bytes;
  // The pipe is known to hold bytes: an end of it would mean that they are lost.
  return moved.status == IoStatus::kEof ? IoResult{IoStatus::kError, 0} : moved;
}

std::unique_ptr<Pipe> PipePool::Borrow() {
  if (lent_ == kMostLent) {
    return nullptr;
  }
  std::unique_ptr<Pipe> pipe;
  if (idle_.empty()) {
    pipe = Pipe::Make();
  } else {
    pipe = std::move(idle_.back());
    idle_.pop_back();
  }
  lent_ += pipe ? 1 : 0;
  return pipe;
}

void PipePool::Return(std::unique_ptr<Pipe> pipe) noexcept {
  assert(lent_ > 0);
  --lent_;
  if (pipe->size() == 0 && idle_.size() < kMostIdle) {
    idle_.push_back(std::move(pipe));
  }
}

}  // namespace sluice::net
