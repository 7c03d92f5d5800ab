// What sessions see going wrong with one backend, counted until somebody has to look at it: two
// rows, one of attempts at something new, one of sessions that were lost. All workers write it,
// with relaxed atomics; the control thread, which decides what comes of a full row, begins both
// anew. While a backend answers, a session reads one word that nobody writes.
#pragma once

#include <atomic>
#include <cstdint>

#include "proxy/base/clock.h"

namespace sluice::balance {

class FailureCount {
 public:
  // Sessions that are lost within so long of each other are one event: a process that ends takes
  // all of its sessions with it, and that is no reason to keep away from the next one.
  static constexpr Millis kOneLoss{1'000};
  // A loss after so long without one begins the row anew: a session in an hour is the network.
  static constexpr Millis kLossMemory{60'000};

  // An attempt has failed: a connect, or a request that got no answer that holds. True with every
  // `most`-th in a row. `most` 0: never.
  [[nodiscard]] bool AddFailure(std::uint32_t most) noexcept {
    return most != 0 && (failures_.fetch_add(1, std::memory_order_relaxed) + 1) % most == 0;
  }

  // An attempt has succeeded.
  void EndFailures() noexcept {
    if (failures_.load(std::memory_order_relaxed) != 0) {
      failures_.store(0, std::memory_order_relaxed);
    }
  }

  // A session ended without the backend's CLOSE. True with every `most`-th in a row that counts.
  // `most` 0: never.
  [[nodiscard]] bool AddLoss(std::uint32_t most, Instant now) noexcept {
    std::int64_t last = lost_at_.load(std::memory_order_relaxed);
    const std::int64_t at = std::chrono::nanoseconds(now.time_since_epoch()).count();
    const auto since = std::chrono::nanoseconds(at - last);
    if (most == 0 || (last != 0 && since < kOneLoss) ||
        !lost_at_.compare_exchange_strong(last, at, std::memory_order_relaxed)) {
      return false;  // when another worker came first, this is the event that it has counted
    }
    if (since > kLossMemory) {
      losses_.store(0, std::memory_order_relaxed);
    }
    return (losses_.fetch_add(1, std::memory_order_relaxed) + 1) % most == 0;
  }

  // A session ended with the backend's CLOSE.
  void EndLosses() noexcept {
    if (losses_.load(std::memory_order_relaxed) != 0) {
      losses_.store(0, std::memory_order_relaxed);
    }
  }

  void Reset() noexcept {
    failures_.store(0, std::memory_order_relaxed);
    losses_.store(0, std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint32_t> failures_{0};
  std::atomic<std::uint32_t> losses_{0};
  std::atomic<std::int64_t> lost_at_{0};  // of the last that counted, in ns of Instant; 0: none
};

}  // namespace sluice::balance
