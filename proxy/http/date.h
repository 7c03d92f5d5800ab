// Dates of the wall clock as HTTP writes them (RFC 9110 section 5.6.7).
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "proxy/base/clock.h"

namespace sluice::http {

// Of the wall clock.
using WallTime = std::chrono::sys_time<std::chrono::milliseconds>;

// An HTTP-date in any of its forms: "Sun, 06 Nov 1994 08:49:37 GMT", and the obsolete "Sunday,
// 06-Nov-94 08:49:37 GMT", whose century follows from `now`, and "Sun Nov  6 08:49:37 1994". A date
// whose day of the week is another one is nothing.
[[nodiscard]] std::optional<WallTime> ParseDate(std::string_view text, WallTime now) noexcept;

// In the first of these forms; a part of a second is dropped. REQUIRES: the year is 0 to 9999.
[[nodiscard]] std::string FormatDate(WallTime at);

// Of now.
[[nodiscard]] std::string CurrentDate();

// The date of now for one message after the other: written anew once a second. Single-threaded.
class DateClock {
 public:
  // `now` does not run backwards. The view lives until the next call.
  [[nodiscard]] std::string_view Text(Instant now);

 private:
  std::string text_;
  Instant until_ = Instant::min();  // text_ holds until then
};

}  // namespace sluice::http
