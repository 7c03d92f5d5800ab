// When DNS is asked again: when the TTL of the answer has passed, or, after failures, with growing
// distance. Pure: the randomness is an argument.
#pragma once

#include "proxy/base/clock.h"
#include "proxy/base/random.h"

namespace sluice::discovery {

class RefreshSchedule {
 public:
  struct Bounds {
    Millis least{1'000};
    Millis most{300'000};
  };

  // REQUIRES: 0 < least <= most.
  explicit RefreshSchedule(Bounds bounds) noexcept : bounds_(bounds) {}

  // How long to wait after an answer that holds for `ttl`: that long, within the bounds, and up to
  // a tenth more, so that many proxies do not ask together and none asks before its time.
  [[nodiscard]] Millis AfterAnswer(Millis ttl, Random& random) noexcept;

  // The same after a failure: `least` at first, then twice as long each time, up to half a minute
  // or `most`, whichever is less. An answer begins it anew.
  [[nodiscard]] Millis AfterFailure(Random& random) noexcept;

 private:
  Bounds bounds_;
  Millis retry_{0};  // of the last failure; 0: there was none since the last answer
};

}  // namespace sluice::discovery
