// Reads when something expires, as the answer of an auth server says it. Pure.
#pragma once

#include <chrono>
#include <optional>
#include <string_view>

namespace sluice::http {

// Of the wall clock.
using WallTime = std::chrono::sys_time<std::chrono::milliseconds>;

// Unix time in seconds, "1767225600" or "1767225600.25", or an IMF-fixdate,
// "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 section 5.6.7), up to the end of the year 9999: what is
// meant in milliseconds is beyond that, and so is nothing. A part of a millisecond is dropped. A
// date whose day of the week is another one is nothing, either.
[[nodiscard]] std::optional<WallTime> ParseExpiry(std::string_view text) noexcept;

}  // namespace sluice::http
