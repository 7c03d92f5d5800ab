// A libevent event that cannot fire after its owner is gone, and a one-shot timer made of it.
// Embedded in its owner, never allocated alone. Belongs to the thread of its event_base.
#pragma once

#include <cassert>
#include <chrono>
#include <memory>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "proxy/base/c_handle.h"
#include "proxy/base/clock.h"

namespace sluice::net {

using EventBasePtr = CHandle<event_base, event_base_free>;

template <class Member>
struct OwnerOf;

template <class Owner>
struct OwnerOf<void (Owner::*)(short) noexcept> {
  using Type = Owner;
};

// What libevent calls: passes the event on to `Method` of the object that it was registered for.
// Not letting an exception out keeps it from unwinding through C.
template <auto Method>
void CallOwner(evutil_socket_t, short what, void* owner) noexcept {
  (static_cast<typename OwnerOf<decltype(Method)>::Type*>(owner)->*Method)(what);
}

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
    event_assign(&event_, base, fd, what, &CallOwner<Method>, self);
    [[maybe_unused]] const bool added = event_add(&event_, nullptr) == 0;
    assert(added);
  }

  // Idempotent.
  void Remove() noexcept {
    if (event_initialized(&event_) != 0) {
      event_del(&event_);
    }
  }

  // Makes the callback run in this turn of the loop or the next, as if `what` had happened.
  // REQUIRES: it is registered.
  void Activate(short what) noexcept { event_active(&event_, what, 0); }

 private:
  event event_{};
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
    event_assign(event_.get(), base, -1, 0, &CallOwner<Method>, self);
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
