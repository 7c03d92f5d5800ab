#include "proxy/net/loop.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>
#include <stdexcept>
#include <utility>

namespace sluice::net {
namespace {

EventBasePtr MakeBase() {
  event_config* config = event_config_new();
  if (config == nullptr) {
    throw std::runtime_error("out of memory for an event loop");
  }
  event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
  EventBasePtr base(event_base_new_with_config(config));
  event_config_free(config);
  if (!base) {
    throw std::runtime_error("cannot make an event loop: no epoll instance to be had");
  }
  return base;
}

}  // namespace

Loop::Loop() : base_(MakeBase()), wake_fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (!wake_fd_.valid()) {
    throw std::runtime_error("cannot make an event loop: no eventfd to be had");
  }
  wake_event_.Add<&Loop::OnPosted>(base(), wake_fd_.get(), EV_READ | EV_PERSIST, this);
}

Loop::~Loop() = default;

void Loop::Run() {
  while (!stopping_) {
    TakeTurn();
  }
  // What was promised to be run, and what that posts.
  for (;;) {
    std::vector<std::function<void()>> calls;
    {
      const std::lock_guard lock(mutex_);
      calls.swap(posted_);
      ended_ = calls.empty();
      if (ended_) {
        break;
      }
    }
    for (const auto& call : calls) {
      call();
    }
    FreeTheDead();
  }
}

void Loop::RunUntil(const std::function<bool()>& done, Millis limit) {
  const Instant end = Now() + limit;
  Timer timer;
  while (!done()) {
    const auto left = std::chrono::ceil<Millis>(end - Now());
    if (left.count() <= 0) {
      return;
    }
    timer.Arm<&Loop::OnLimit>(base(), left, this);
    TakeTurn();
  }
}

// libevent 2.1 has no hook for the end of a turn, so the turns are counted out here.
void Loop::TakeTurn() {
  event_base_loop(base_.get(), EVLOOP_ONCE);
  now_known_ = false;
  ++turn_;
  FreeTheDead();
}

void Loop::FreeTheDead() {
  // A destructor may bury something else; go on until the yard is empty.
  while (!graveyard_.empty()) {
    std::vector<std::unique_ptr<Mortal>> dead;
    dead.swap(graveyard_);
  }
}

bool Loop::Post(std::function<void()> call) {
  {
    const std::lock_guard lock(mutex_);
    if (ended_) {
      return false;
    }
    posted_.push_back(std::move(call));
  }
  const std::uint64_t one = 1;
  // The counter cannot overflow in practice, and a full one is readable anyway.
  [[maybe_unused]] const ssize_t written = ::write(wake_fd_.get(), &one, sizeof(one));
  return true;
}

void Loop::OnPosted(short) noexcept {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(wake_fd_.get(), &count, sizeof(count));
  std::vector<std::function<void()>> calls;
  {
    const std::lock_guard lock(mutex_);
    calls.swap(posted_);
  }
  for (const auto& call : calls) {
    call();
  }
}

}  // namespace sluice::net
