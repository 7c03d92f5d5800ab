// A token bucket in one atomic, for all workers: the generic cell rate algorithm (ITU-T I.371).
// What is kept is the instant at which the bucket is full again, so that nothing has to be refilled
// and no lock is needed. In any span of time t it gives at most its burst and t / interval tokens,
// however many threads take them. Time is an argument.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "proxy/base/clock.h"

namespace sluice::balance {

// Nanoseconds of an Instant, which is how atomics hold one.
[[nodiscard]] inline std::int64_t NanosOf(Instant instant) noexcept {
  return std::chrono::nanoseconds(instant.time_since_epoch()).count();
}

class SharedTokenBucket {
 public:
  struct Rate {
    std::int64_t interval = 0;   // nanoseconds from one token to the next; > 0
    std::int64_t tolerance = 0;  // (burst - 1) * interval: so far may the bucket be ahead

    // REQUIRES: per_second > 0, burst >= 1. Rounded so that it is never more than asked for.
    [[nodiscard]] static Rate Of(double per_second, std::uint64_t burst) noexcept {
      const auto interval = static_cast<std::int64_t>(1e9 / per_second) + 1;
      return {interval, static_cast<std::int64_t>(burst - 1) * interval};
    }
  };

  [[nodiscard]] bool HasToken(const Rate& rate, std::int64_t now) const noexcept {
    return full_at_.load(std::memory_order_relaxed) - rate.tolerance <= now;
  }

  // Takes a token, or returns false and takes nothing.
  [[nodiscard]] bool Take(const Rate& rate, std::int64_t now) noexcept {
    std::int64_t full_at = full_at_.load(std::memory_order_relaxed);
    do {
      if (full_at - rate.tolerance > now) {
        return false;
      }
    } while (!full_at_.compare_exchange_weak(full_at, std::max(full_at, now) + rate.interval,
                                             std::memory_order_relaxed));
    return true;
  }

 private:
  std::atomic<std::int64_t> full_at_{0};
};

// Tells those who found a bucket empty when to come again: each one token later than the one
// before, so that the returns take as long as the bucket needs for them. For all workers.
class ComebackQueue {
 public:
  static constexpr std::int64_t kLongest = 30'000'000'000;  // nanoseconds

  // Nanoseconds from now to the place of one more, at most kLongest: who finds the queue that long
  // does not lengthen it.
  [[nodiscard]] std::int64_t Enter(const SharedTokenBucket::Rate& rate, std::int64_t now) noexcept {
    std::int64_t end = end_.load(std::memory_order_relaxed);
    std::int64_t place = 0;
    do {
      place = std::max(end, now) + rate.interval;
      if (place - now >= kLongest) {
        return kLongest;
      }
    } while (!end_.compare_exchange_weak(end, place, std::memory_order_relaxed));
    return place - now;
  }

  // When the last one in it is to come.
  [[nodiscard]] std::int64_t end() const noexcept { return end_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> end_{0};
};

}  // namespace sluice::balance
