// The affinity key of a request: the bytes whose hash decides which backend a client is sent to.
// Pure; allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "proxy/http/head.h"

namespace sluice::routing {

struct AffinityRule {
  enum class Source : std::uint8_t { kCookie, kHeader, kQuery, kPath, kIp };

  Source source = Source::kIp;
  std::string name;         // of the cookie, header or query parameter
  std::size_t segment = 0;  // for kPath: 1 is the first path segment
};

// The value that the first rule finds in the request, or `client_ip` when none finds any. An
// empty value counts as absent. Values are taken as they were sent: nothing is decoded, so one
// value in two spellings is two keys. The view is into `head`'s bytes or `client_ip`.
[[nodiscard]] std::string_view AffinityKey(std::span<const AffinityRule> rules,
                                           const http::RequestHead& head,
                                           std::string_view client_ip) noexcept;

// `value` with its percent-encoding taken off (RFC 3986 section 2.1), for comparing it with what a
// backend has handed out. A sign without two hexadecimal digits stands for itself, and so does "+".
// The view is into `value` where nothing is encoded, and else into `space`.
[[nodiscard]] std::string_view DecodePercent(std::string_view value, std::string& space);

}  // namespace sluice::routing
