// What is known of the request being served, from its head to its access-log line. A session keeps
// this for all its life, so it is small: the texts, which only the access log shows, are one block,
// and there is none while the log is off.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "proxy/base/clock.h"

namespace sluice::session {

enum class FactText : std::uint8_t {
  kMethod,
  kHost,
  kPath,
  kQuery,
  kOrigin,
  kUserAgent,
  kForwardedFor,  // X-Forwarded-For as it came
  kRequestId,
  kClientIp,     // as forwarded: behind a trusted proxy it is not the peer
  kAffinity,     // where the affinity key came from
  kSubprotocol,  // agreed
  kExtensions,   // agreed
  kCount,
};

// One text for each FactText, all in one allocation.
class FactTexts {
 public:
  using Views = std::array<std::string_view, static_cast<std::size_t>(FactText::kCount)>;

  // Replaces all of them. The views may be of this object.
  void Store(const Views& views);

  // Empty for what was not stored. The views live until the next Store.
  [[nodiscard]] std::string_view Get(FactText which) const noexcept;
  [[nodiscard]] Views All() const noexcept;

  [[nodiscard]] bool stored() const noexcept { return block_ != nullptr; }

 private:
  // Where each text ends, and behind that the texts.
  std::unique_ptr<std::uint32_t[]> block_;
};

struct RequestFacts {
  // 24 days in half the size of Millis.
  using ShortMillis = std::chrono::duration<std::int32_t, std::milli>;

  FactTexts texts;
  Instant began{};
  ShortMillis handshake{-1};
  ShortMillis backend_connect{-1};
  std::uint32_t route = 0;    // into the snapshot's routes; meaningful if has_route
  std::uint32_t backend = 0;  // into the pool's backends; meaningful if has_backend
  std::uint16_t status = 0;   // what the client was answered
  std::uint8_t attempts = 0;  // at most 17: limits.retries is at most 16
  bool has_route : 1 = false;
  bool has_backend : 1 = false;
  std::uint32_t number = 0;  // of the request on its connection, from 1
};

}  // namespace sluice::session
