// For how long a backend is kept away from what is new because of what its sessions saw, and
// whether its pool can do without it. Pure: the time is an argument.
#pragma once

#include <cstddef>

#include "proxy/base/clock.h"

namespace sluice::health {

// The ejections of one backend. Each that grows lasts twice as long as the one before; once the
// backend has been back for the longest time without another, they begin anew.
class Ejection {
 public:
  struct Rule {
    Millis time{10'000};        // the first
    Millis most_time{300'000};  // no one is longer; >= time
  };

  // Begins one and returns how long it is to last. `grows`: it lasts as long as it has come to,
  // and the next one longer; else it lasts `time` and changes nothing for the next one.
  // REQUIRES: none is on.
  [[nodiscard]] Millis Begin(const Rule& rule, bool grows, Instant now) noexcept;

  void End(Instant now) noexcept;

  [[nodiscard]] bool is_on() const noexcept { return on_; }

 private:
  Instant ended_{};         // the last one
  unsigned doublings_ = 0;  // of the next one that grows
  bool on_ = false;
};

// A pool at the moment when one of its backends is to be ejected.
struct PoolShape {
  std::size_t backends = 0;
  std::size_t ejected = 0;  // of those
  std::size_t others = 0;   // that take sessions now, the one to be ejected not counted
};

// True if one more may be ejected: no more than the share `max_ejected` of the pool is at a time,
// but one may always be; and never the last one that takes sessions.
[[nodiscard]] bool MayEject(const PoolShape& pool, double max_ejected) noexcept;

}  // namespace sluice::health
