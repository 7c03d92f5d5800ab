// Reads when something expires, as the answer of an auth server says it. Pure.
#pragma once

#include <optional>
#include <string_view>

#include "proxy/http/date.h"

namespace sluice::http {

// Unix time in seconds, "1767225600" or "1767225600.25", or a date (ParseDate), up to the end of
// the year 9999: what is meant in milliseconds is beyond that, and so is nothing. A part of a
// millisecond is dropped.
[[nodiscard]] std::optional<WallTime> ParseExpiry(std::string_view text, WallTime now) noexcept;

}  // namespace sluice::http
