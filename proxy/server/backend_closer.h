// One worker's part of a BackendDrain: closes the worker's sessions on that backend, each at its
// own instant, and at the deadline has the rest cut.
//
// Owned by its Worker, used in its thread only.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "proxy/base/random.h"
#include "proxy/drain/drain_plan.h"
#include "proxy/net/event.h"
#include "proxy/net/loop.h"
#include "proxy/server/backend_drain.h"
#include "proxy/server/close_schedule.h"

namespace sluice::server {

class BackendCloser final : public net::Mortal {
 public:
  // `cut` ends whatever of the worker still has a leg to the backend. `loop` and `random` outlive
  // this.
  BackendCloser(net::Loop& loop, Random& random, std::shared_ptr<BackendDrain> drain,
                std::function<void()> cut);

  // Begins with the lasting sessions on the backend; see Session::lasting.
  void Begin(std::span<session::Session* const> sessions);

  // A session has come to last. One with a leg to the backend that it got before the drain is
  // closed as well.
  void OnLasting(session::Session& session);

  // A session has ended, or lasts no longer. True: it was one of those that are closed here.
  bool OnOver(const session::Session& session) noexcept;

  // Closes no further one.
  void Stop() noexcept { timer_.Cancel(); }

  [[nodiscard]] const std::shared_ptr<BackendDrain>& drain() const noexcept { return drain_; }
  [[nodiscard]] std::size_t remaining() const noexcept { return schedule_.size(); }

 private:
  void OnTimer(short what) noexcept;
  void Step() noexcept;
  void Arm() noexcept;

  net::Loop& loop_;
  Random& random_;
  std::shared_ptr<BackendDrain> drain_;
  std::function<void()> cut_;
  drain::DrainPlan plan_;
  CloseSchedule schedule_;
  net::Timer timer_;
};

}  // namespace sluice::server
