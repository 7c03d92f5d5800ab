#include "proxy/net/pipe.h"

#include <fcntl.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <utility>

namespace sluice::net {
namespace {

// As much as an ordinary user may ask for (pipe(7), pipe-max-size). With 256 KiB, or with
// the 64 KiB that a pipe has by itself, messages of 1 MiB both ways cost a fifth to a third more.
// Beyond pipe-user-pages-soft a pipe has two pages, and copying is cheaper.
constexpr int kCapacity = 1024 * 1024;
constexpr int kLeastCapacity = 64 * 1024;

// So many borrowers are turned away, and copy, before it is tried again to make a pipe.
constexpr unsigned kRest = 1000;

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
  // make_unique cannot reach the private constructor.
  std::unique_ptr<Pipe> pipe(new Pipe(UniqueFd(ends[0]), UniqueFd(ends[1])));
  if (::fcntl(ends[1], F_SETPIPE_SZ, kCapacity) < 0 &&
      ::fcntl(ends[1], F_GETPIPE_SZ) < kLeastCapacity) {
    return nullptr;
  }
  return pipe;
}

std::optional<IoResult> Pipe::Fill(int socket, std::size_t most) noexcept {
  const IoResult moved = Splice(socket, write_end_.get(), most);
  if (moved.status == IoStatus::kError &&
      (errno == EINVAL || errno == ENOSYS || errno == EPERM || errno == ENOMEM)) {
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
  if (idle_.empty() && resting_ > 0) {
    --resting_;
    return nullptr;
  }
  std::unique_ptr<Pipe> pipe;
  if (idle_.empty()) {
    pipe = Pipe::Make();
    resting_ = pipe ? 0 : kRest;
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
