// How much one client sends, against what its route lets it send: messages, bytes and control
// frames a second. Made for a session with the first thing that has to be counted, so that one
// whose route has no such limit, or whose client sends no control frames, has none. Owned by Relay.
#pragma once

#include <cstdint>

#include "proxy/base/token_bucket.h"
#include "proxy/config/config.h"
#include "proxy/net/event.h"

namespace sluice::session {

class ClientRates {
 public:
  // Of messages or bytes that have come, whatever that leads to.
  void NoteMessages(const config::RouteLimits& limits, Instant now, std::uint64_t count) noexcept {
    if (Note(messages_, limits.messages_per_second, now, count)) {
      over_by_bytes_ = false;
    }
  }
  void NoteBytes(const config::RouteLimits& limits, Instant now, std::uint64_t count) noexcept {
    if (Note(bytes_, static_cast<double>(limits.bytes_per_second), now, count)) {
      over_by_bytes_ = true;
    }
  }

  // False: one ping or pong too many.
  [[nodiscard]] bool TakeControlFrame(const config::RouteLimits& limits, Instant now) noexcept {
    return limits.control_frames_per_second == 0 ||
           control_.Take(RateOf(limits.control_frames_per_second), now);
  }

  // When messages and bytes are within their limits again; in the past: they are.
  [[nodiscard]] Instant within_at() const noexcept { return within_at_; }
  // Which of the two decides about that.
  [[nodiscard]] bool is_over_by_bytes() const noexcept { return over_by_bytes_; }

  // So much is read at once that one read does not bring more than about a second's worth.
  // `payload_left`: of the frame that is on its way.
  [[nodiscard]] static std::size_t ReadMost(const config::RouteLimits& limits,
                                            std::uint64_t payload_left) noexcept;

  // For whoever reads the client no faster.
  net::Timer resume;

 private:
  // Ten control frames may always come together: what a client sends as it wakes up, say.
  static constexpr double kLeastBurst = 10;

  [[nodiscard]] static TokenRate RateOf(double per_second) noexcept {
    return {per_second, per_second > kLeastBurst ? per_second : kLeastBurst};
  }

  // True when this bucket is the one that is longest in debt.
  [[nodiscard]] bool Note(TokenBucket& bucket, double per_second, Instant now,
                          std::uint64_t count) noexcept;

  TokenBucket messages_;
  TokenBucket bytes_;
  TokenBucket control_;
  Instant within_at_{};
  bool over_by_bytes_ = false;
};

}  // namespace sluice::session
