// Reads when something expires, as the answer of an auth server says it. Pure.
#pragma once

#include <chrono>
#include <optional>
#include <string_view>

namespace sluice::http {

// Of the wall clock.
using WallTime = std::chrono::sys_time<std::chrono::milliseconds>;

// Unix time in seconds, "1767225600" or "1767225600.25", or an HTTP-date in any of its forms (RFC
// 9110 section 5.6.7): "Sun, 06 Nov 1994 08:49:37 GMT", and the obsolete "Sunday, 06-Nov-94
// 08:49:37 GMT", whose century follows from `now`, and "Sun Nov  6 08:49:37 1994". Up to the end of
// the year 9999: what is meant in milliseconds is beyond that, and so is nothing. A part of a
// millisecond is dropped. A date whose day of the week is another one is nothing, either.
[[nodiscard]] std::optional<WallTime> ParseExpiry(std::string_view text, WallTime now) noexcept;

}  // namespace sluice::http
