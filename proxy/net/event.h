// A libevent event that cannot fire after its owner is gone, and a one-shot timer made of it.
// Embedded in its owner, never allocated alone. Belongs to the thread of its event_base.
#pragma once

#include <event2/event.h>
#include <event2/event_struct.h>

#include <cassert>
#include <chrono>
#include <memory>

#include "proxy/base/clock.h"

namespace sluice::net {

// A stateless deleter for C handles: std::unique_ptr stays one pointer wide.
template <auto Free>
struct FreeWith {
  template <class T>
  void operator()(T* handle) const noexcept {
    Free(handle);
  }
};

using EventBasePtr = std::unique_ptr<event_base, FreeWith<event_base_free>>;

// Turns a member function into the C callback that libevent wants. An exception that escapes is
// std::terminate, not undefined behaviour in C frames.
template <auto Method>
struct Trampoline;

template <class T, void (T::*Method)(short) noexcept>
struct Trampoline<Method> {
  static void Run(evutil_socket_t, short what, void* self) noexcept {
    (static_cast<T*>(self)->*Method)(what);
  }
};

class Event {
 public:
  Event() = default;
  ~Event() { Remove(); }

  Event(const Event&) = delete;  // libevent keeps our address
  Event& operator=(const Event&) = delete;

  // Registers for `what` (EV_READ, EV_WRITE, EV_PERSIST ...). An earlier registration is removed.
  template <auto Method, class T>
  void Add(event_base* base, int fd, short what, T* self) noexcept {
    Remove();
    event_assign(&event_, base, fd, what, &Trampoline<Method>::Run, self);
    added_ = event_add(&event_, nullptr) == 0;
    assert(added_);
  }

  void Remove() noexcept {
    if (added_) {
      event_del(&event_);
      added_ = false;
    }
  }

  [[nodiscard]] bool added() const noexcept { return added_; }

  // Makes the callback run in this turn of the loop or the next, as if `what` had happened.
  // REQUIRES: added().
  void Activate(short what) noexcept { event_active(&event_, what, 0); }

 private:
  event event_{};
  bool added_ = false;
};

// Fires once, `delay` after the last Arm. Holds memory only between Arm and Cancel: an idle session
// has timers, but none that runs.
class Timer {
 public:
  Timer() = default;
  ~Timer() { Cancel(); }

  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  template <auto Method, class T>
  void Arm(event_base* base, Millis delay, T* self) noexcept {
    if (event_) {
      event_del(event_.get());
    } else {
      event_ = std::make_unique<event>();
    }
    event_assign(event_.get(), base, -1, 0, &Trampoline<Method>::Run, self);
    const auto count = delay.count() < 0 ? 0 : delay.count();
    timeval tv{};
    tv.tv_sec = static_cast<decltype(tv.tv_sec)>(count / 1000);
    tv.tv_usec = static_cast<decltype(tv.tv_usec)>(count % 1000 * 1000);
    [[maybe_unused]] const bool added = event_add(event_.get(), &tv) == 0;
    assert(added);
  }

  // Also from within the callback: libevent does not touch the event after a one-shot fired.
  void Cancel() noexcept {
    if (event_) {
      event_del(event_.get());
      event_.reset();
    }
  }

 private:
  std::unique_ptr<event> event_;  // libevent keeps its address
};

}  // namespace sluice::net
