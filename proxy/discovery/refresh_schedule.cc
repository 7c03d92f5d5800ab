#include "proxy/discovery/refresh_schedule.h"

#include <algorithm>

namespace sluice::discovery {
namespace {

// Whoever repairs a name server waits for its clients no longer than this.
constexpr Millis kMostRetry{30'000};

Millis Spread(Millis delay, Random& random) noexcept {
  const auto tenth = static_cast<double>(delay.count()) / 10;
  return delay + Millis(static_cast<Millis::rep>(tenth * random.Unit()));
}

}  // namespace

Millis RefreshSchedule::AfterAnswer(Millis ttl, Random& random) noexcept {
  retry_ = Millis(0);
  return Spread(std::clamp(ttl, bounds_.least, bounds_.most), random);
}

Millis RefreshSchedule::AfterFailure(Random& random) noexcept {
  const Millis most = std::max(bounds_.least, std::min(bounds_.most, kMostRetry));
  retry_ = std::clamp(retry_ * 2, bounds_.least, most);
  return Spread(retry_, random);
}

}  // namespace sluice::discovery
