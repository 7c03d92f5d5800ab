// One thread of a deploy tool: epoll, and a timer wheel that thousands of sessions wind on with
// every message, each at the cost of two pointers.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <memory>

#include "proxy/base/unique_fd.h"

#include "tests/bench/socket.h"

namespace sluice::deploy {

using Nanoseconds = std::int64_t;  // of the steady clock, which all processes of a machine share

inline constexpr Nanoseconds kMillisecond = 1'000'000;
inline constexpr Nanoseconds kSecond = 1'000'000'000;

inline Nanoseconds Now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Something with one descriptor at a time and one timer.
class Participant {
 public:
  Participant() = default;
  virtual ~Participant() = default;
  Participant(const Participant&) = delete;
  Participant& operator=(const Participant&) = delete;

  // Neither may destroy a participant: others of this turn may still be on their way to it.
  virtual void OnEvent(std::uint32_t events) = 0;
  virtual void OnTimer() = 0;

 private:
  friend class TimerWheel;
  Participant* next_ = nullptr;  // in its slot of the wheel; null: the timer is not set
  Participant* previous_ = nullptr;
  Nanoseconds due_ = 0;
};

class TimerWheel {
 public:
  TimerWheel() : done_(Now() / kTick) {
    for (Head& slot : slots_) {
      Clear(slot);
    }
  }

  // Fires at `due`, up to two ticks late; replaces what was set before.
  void Set(Participant& one, Nanoseconds due) {
    Cancel(one);
    one.due_ = due;
    Append(slots_[SlotOf(std::max(due / kTick + 1, done_ + 1))], one);
    ++set_;
  }

  void Cancel(Participant& one) {
    if (one.next_ != nullptr) {
      one.previous_->next_ = one.next_;
      one.next_->previous_ = one.previous_;
      one.next_ = nullptr;
      --set_;
    }
  }

  void Run(Nanoseconds now) {
    const std::int64_t last = now / kTick;
    // After a stall of more than a turn of the wheel each slot is looked at once.
    done_ = std::max(done_, last - kSlots);
    while (done_ < last) {
      ++done_;
      Head due;
      Clear(due);
      Head& slot = slots_[SlotOf(done_)];
      while (slot.next_ != &slot) {
        Participant& one = *slot.next_;
        Cancel(one);
        Append(due, one);
        ++set_;
      }
      while (due.next_ != &due) {
        Participant& one = *due.next_;
        Cancel(one);
        if (one.due_ <= now) {
          one.OnTimer();
        } else {
          Append(slot, one);  // of a later turn of the wheel
          ++set_;
        }
      }
    }
  }

  // Milliseconds until something may be due, at most `most`.
  [[nodiscard]] int Wait(int most) const {
    if (set_ == 0) {
      return most;
    }
    for (int i = 0; i < most; ++i) {
      const Head& slot = slots_[SlotOf(done_ + 1 + i)];
      if (slot.next_ != &slot) {
        return i + 1;
      }
    }
    return most;
  }

 private:
  // The border of a list; never fires.
  class Head : public Participant {
   public:
    void OnEvent(std::uint32_t /*events*/) override {}
    void OnTimer() override {}
  };

  static constexpr Nanoseconds kTick = kMillisecond;
  static constexpr std::int64_t kSlots = 4096;

  static std::size_t SlotOf(std::int64_t tick) { return static_cast<std::size_t>(tick % kSlots); }

  static void Clear(Head& head) {
    head.next_ = &head;
    head.previous_ = &head;
  }

  static void Append(Head& head, Participant& one) {
    one.previous_ = head.previous_;
    one.next_ = &head;
    head.previous_->next_ = &one;
    head.previous_ = &one;
  }

  std::array<Head, kSlots> slots_;
  std::int64_t done_;  // the last tick that was run
  std::size_t set_ = 0;
};

class EventLoop {
 public:
  EventLoop() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    if (!epoll_.valid()) {
      bench::DieErrno("epoll_create1");
    }
  }

  void Add(int fd, std::uint32_t events, Participant& one) {
    bench::Watch(epoll_.get(), EPOLL_CTL_ADD, fd, events, &one);
  }

  void Change(int fd, std::uint32_t events, Participant& one) {
    bench::Watch(epoll_.get(), EPOLL_CTL_MOD, fd, events, &one);
  }

  [[nodiscard]] TimerWheel& wheel() { return wheel_; }
  // Of this turn's begin, or later.
  [[nodiscard]] Nanoseconds now() const { return now_; }

  // One turn: waits, calls what has something to do. After it no event of a participant whose
  // descriptor was closed in it is left, so it may be destroyed.
  void Turn() {
    constexpr int kLongest = 100;
    const int count = ::epoll_wait(epoll_.get(), events_.data(), static_cast<int>(events_.size()),
                                   wheel_.Wait(kLongest));
    if (count < 0 && errno != EINTR) {
      bench::DieErrno("epoll_wait");
    }
    now_ = Now();
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events_[static_cast<std::size_t>(i)];
      static_cast<Participant*>(event.data.ptr)->OnEvent(event.events);
    }
    now_ = Now();
    wheel_.Run(now_);
  }

 private:
  UniqueFd epoll_;
  TimerWheel wheel_;
  Nanoseconds now_ = Now();
  std::array<epoll_event, 512> events_{};
};

}  // namespace sluice::deploy
