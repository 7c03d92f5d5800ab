#include "proxy/session/client_rates.h"

#include <algorithm>
#include <limits>

namespace sluice::session {

bool ClientRates::Note(TokenBucket& bucket, double per_second, Instant now,
                       std::uint64_t count) noexcept {
  if (per_second == 0) {
    return false;
  }
  const TokenRate rate{per_second, std::max(per_second, 1.0)};
  const Instant within_at = now + bucket.Spend(rate, now, static_cast<double>(count));
  if (within_at <= within_at_) {
    return false;
  }
  within_at_ = within_at;
  return true;
}

std::size_t ClientRates::ReadMost(const config::RouteLimits& limits,
                                  std::uint64_t payload_left) noexcept {
  constexpr double kSmallestMessage = 6;  // a masked frame without payload (RFC 6455 section 5.2)
  constexpr double kLeast = 64;  // reading less than a few headers at a time is not worth it
  double most = std::numeric_limits<std::uint32_t>::max();
  if (limits.messages_per_second > 0) {
    most = static_cast<double>(payload_left) +
           std::max(kLeast, limits.messages_per_second * kSmallestMessage);
  }
  if (limits.bytes_per_second > 0) {
    most = std::min(most, std::max(kLeast, static_cast<double>(limits.bytes_per_second)));
  }
  return static_cast<std::size_t>(
      std::min(most, static_cast<double>(std::numeric_limits<std::uint32_t>::max())));
}

}  // namespace sluice::session
