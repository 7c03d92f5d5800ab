// One drain of one backend: what the control thread, which begins and watches it, and the workers,
// which close the sessions, share. Ordered by admin call, or by a reload that has dropped the
// backend; see backend_drains.h.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>

#include "proxy/balance/backend_set.h"
#include "proxy/drain/drain_plan.h"

namespace sluice::server {

struct BackendDrain {
  std::string pool;
  std::string backend;
  std::shared_ptr<balance::BackendState> state;  // draining, for as long as this goes on
  drain::DrainOptions options;                   // of each worker

  // Written by workers. Sessions that last: WebSocket sessions and streams of events.
  std::atomic<std::size_t> total{0};   // that were or came to be on the backend
  std::atomic<std::size_t> clean{0};   // of those: ended, by themselves or in order
  std::atomic<std::size_t> forced{0};  // of those: ended by a deadline
  std::atomic<std::size_t> workers_begun{0};

  [[nodiscard]] std::size_t remaining() const noexcept {
    const std::size_t ended =
        clean.load(std::memory_order_relaxed) + forced.load(std::memory_order_relaxed);
    const std::size_t all = total.load(std::memory_order_relaxed);
    return all > ended ? all - ended : 0;
  }
};

}  // namespace sluice::server
