// As what the request of a session counts at its route while it is served, so that it counts once:
// a request in flight, or the endless event stream that it has become. A WebSocket upgrade is
// neither, until it is answered with anything but 101.
#pragma once

#include <cstdint>

#include "proxy/metrics/blocks.h"

namespace sluice::session {

// Each method gets the block of the request's route, the same one until End.
class HttpCount {
 public:
  void Begin(metrics::RouteBlock& block) noexcept;
  // REQUIRES: it has begun.
  void BecomeEventStream(metrics::RouteBlock& block) noexcept;
  // The answer has ended with this status, 0 for none, so long after the head. Also for a request
  // that was answered at once and never began.
  void End(metrics::RouteBlock& block, unsigned status, double seconds) noexcept;

  [[nodiscard]] bool is_event_stream() const noexcept { return as_ == As::kEventStream; }

 private:
  enum class As : std::uint8_t { kNothing, kRequest, kEventStream };

  As as_ = As::kNothing;
};

}  // namespace sluice::session
