// A token bucket: so much a second, and so much at once after a pause. Kept as the instant at which
// it will be full again (the generic cell rate algorithm, ITU-T I.371), so that it is one number
// and nothing has to be refilled. One thread; the time is an argument, and so is the rate, which
// may change in between.
#pragma once

#include <algorithm>
#include <chrono>

#include "proxy/base/clock.h"

namespace sluice {

struct TokenRate {
  double per_second = 0;  // > 0 where a bucket is asked
  double burst = 1;       // at once, >= 1
};

class TokenBucket {
 public:
  // Takes `count` tokens if they are there.
  [[nodiscard]] bool Take(const TokenRate& rate, Instant now, double count = 1) noexcept {
    const Instant full_at = std::max(full_at_, now) + Time(rate, count);
    if (full_at - now > Time(rate, rate.burst)) {
      return false;
    }
    full_at_ = full_at;
    return true;
  }

  // Takes `count` tokens whether they are there or not, and returns for how long the bucket is in
  // debt: zero or less when it is not.
  Instant::duration Spend(const TokenRate& rate, Instant now, double count) noexcept {
    full_at_ = std::max(full_at_, now) + Time(rate, count);
    return full_at_ - now - Time(rate, rate.burst);
  }

  // How long until Take() of one token gets it.
  [[nodiscard]] Instant::duration Wait(const TokenRate& rate, Instant now) const noexcept {
    return std::max(full_at_, now) + Time(rate, 1) - now - Time(rate, rate.burst);
  }

  // Nothing is known of what was taken: it might as well be a new one.
  [[nodiscard]] bool IsFull(Instant now) const noexcept { return full_at_ <= now; }

 private:
  // A debt of more than a year is none that anybody waits for, and does not overflow.
  [[nodiscard]] static Instant::duration Time(const TokenRate& rate, double count) noexcept {
    constexpr double kMost = 366.0 * 24 * 3600;
    return std::chrono::duration_cast<Instant::duration>(
        std::chrono::duration<double>(std::min(count / rate.per_second, kMost)));
  }

  Instant full_at_{};
};

}  // namespace sluice
