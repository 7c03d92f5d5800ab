// One event loop: a libevent base without locks, a queue for calls from other threads, and the
// graveyard in which dead objects wait for the end of the turn.
//
// Everything but Post() belongs to the thread that calls Run().
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "proxy/base/clock.h"
#include "proxy/base/unique_fd.h"
#include "proxy/net/event.h"
#include "proxy/net/pipe.h"

namespace sluice::net {

// What may be buried: freed when no callback of this turn can reach it any more.
class Mortal {
 public:
  Mortal() = default;
  virtual ~Mortal() = default;
  Mortal(const Mortal&) = delete;
  Mortal& operator=(const Mortal&) = delete;
};

class Loop {
 public:
  // Throws std::runtime_error when the kernel has no epoll or eventfd left: start-up only.
  Loop();
  ~Loop();

  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Runs until Stop(), and what was posted before that. Ends with an empty graveyard.
  void Run();

  // Takes turns until `done` says so after one of them, or `limit` has passed. Before Run() only.
  void RunUntil(const std::function<bool()>& done, Millis limit);

  // Lets Run() return at the end of this turn. Own thread only; others Post it.
  void Stop() noexcept { stopping_ = true; }

  // Runs `call` in the loop's thread soon. Any thread; the one way into a loop from outside. False:
  // the loop has ended, and the call is dropped. Every call for which it was true is run.
  bool Post(std::function<void()> call);

  // Frees `dead` at the end of this turn.
  void Bury(std::unique_ptr<Mortal> dead) { graveyard_.push_back(std::move(dead)); }

  [[nodiscard]] event_base* base() const noexcept { return base_.get(); }

  // Which turn of the loop this is.
  [[nodiscard]] std::uint64_t turn() const noexcept { return turn_; }

  // Bytes that are held in memory for the peers of this loop: what their kernels refused, and what
  // came before it could be used.
  void AddBuffered(std::int64_t change) noexcept {
    buffered_ += change;
    if (shared_buffered_ != nullptr && std::abs(buffered_ - told_buffered_) >= kToldStep) {
      TellBuffered();
    }
  }
  [[nodiscard]] std::int64_t buffered() const noexcept { return buffered_; }

  // From now on adds what is buffered here to `sum` as well, to within 64 KiB: a number that loops
  // share must not be written with each byte. `sum` outlives the loop.
  void ShareBuffered(std::atomic<std::int64_t>& sum) noexcept { shared_buffered_ = &sum; }

  // Lent to the conns of this loop.
  [[nodiscard]] PipePool& pipes() noexcept { return pipes_; }

  // The time, read at most once a turn: good for deadlines, not for measuring inside a turn.
  [[nodiscard]] Instant now() noexcept {
    if (!now_known_) {
      now_ = Now();
      now_known_ = true;
    }
    return now_;
  }

 private:
  static constexpr std::int64_t kToldStep = 64 * 1024;

  void TakeTurn();
  void OnPosted(short what) noexcept;
  void OnLimit(short) noexcept {}  // ends a wait
  void FreeTheDead();
  void TellBuffered() noexcept {
    shared_buffered_->fetch_add(buffered_ - told_buffered_, std::memory_order_relaxed);
    told_buffered_ = buffered_;
  }

  EventBasePtr base_;
  UniqueFd wake_fd_;
  Event wake_event_;
  PipePool pipes_;  // before graveyard_: the dead give theirs back
  std::vector<std::unique_ptr<Mortal>> graveyard_;
  Instant now_{};
  bool now_known_ = false;
  std::int64_t buffered_ = 0;
  std::int64_t told_buffered_ = 0;  // what shared_buffered_ has of it
  std::atomic<std::int64_t>* shared_buffered_ = nullptr;
  std::uint64_t turn_ = 0;
  bool stopping_ = false;

  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;  // guarded by mutex_
  bool ended_ = false;                         // guarded by mutex_
};

// Bytes that are kept outside of a Conn, counted in their loop for as long as this lives.
class Buffered {
 public:
  explicit Buffered(Loop& loop) noexcept : loop_(loop) {}
  ~Buffered() { Set(0); }
  Buffered(const Buffered&) = delete;
  Buffered& operator=(const Buffered&) = delete;

  void Set(std::size_t bytes) noexcept {
    loop_.AddBuffered(static_cast<std::int64_t>(bytes) - static_cast<std::int64_t>(bytes_));
    bytes_ = bytes;
  }

 private:
  Loop& loop_;
  std::size_t bytes_ = 0;
};

}  // namespace sluice::net
