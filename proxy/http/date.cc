#include "proxy/http/date.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "proxy/http/head.h"

namespace sluice::http {
namespace {

using std::chrono::seconds;

// Where `text` stands in `names`, or nothing.
template <std::size_t N>
std::optional<unsigned> IndexOf(std::string_view text,
                                const std::array<std::string_view, N>& names) noexcept {
  const auto found = std::find(names.begin(), names.end(), text);
  if (found == names.end()) {
    return std::nullopt;
  }
  return static_cast<unsigned>(found - names.begin());
}

constexpr auto kDays = std::to_array<std::string_view>(
    {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"});

constexpr auto kMonths = std::to_array<std::string_view>(
    {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"});

constexpr auto kShortDays =
    std::to_array<std::string_view>({"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"});

// What the three forms of an HTTP-date (RFC 9110 section 5.6.7) are made of.
struct DateParts {
  std::optional<unsigned> weekday;  // from Sunday on
  std::string_view day;
  std::string_view month;
  std::optional<std::uint64_t> year;
  std::string_view time;
};

// "08:49:37". A second of 60 is a leap second.
std::optional<seconds> ParseTimeOfDay(std::string_view text) noexcept {
  if (text.size() != 8 || text[2] != ':' || text[5] != ':') {
    return std::nullopt;
  }
  const auto hour = ParseDigits(text.substr(0, 2));
  const auto minute = ParseDigits(text.substr(3, 2));
  const auto second = ParseDigits(text.substr(6, 2));
  if (!hour || !minute || !second || *hour > 23 || *minute > 59 || *second > 60) {
    return std::nullopt;
  }
  return std::chrono::hours(*hour) + std::chrono::minutes(*minute) + seconds(*second);
}

std::optional<WallTime> TimeOf(const DateParts& parts) noexcept {
  const auto day = ParseDigits(parts.day);
  const auto month = IndexOf(parts.month, kMonths);
  const auto time = ParseTimeOfDay(parts.time);
  if (!parts.weekday || !day || !month || !parts.year || !time) {
    return std::nullopt;
  }
  const std::chrono::year_month_day date(std::chrono::year(static_cast<int>(*parts.year)),
                                         std::chrono::month(*month + 1),
                                         std::chrono::day(static_cast<unsigned>(*day)));
  if (!date.ok() || std::chrono::weekday(date).c_encoding() != *parts.weekday) {
    return std::nullopt;
  }
  return WallTime(std::chrono::sys_days(date)) + *time;
}

// "Sun, 06 Nov 1994 08:49:37 GMT".
std::optional<WallTime> ParseFixdate(std::string_view text) noexcept {
  if (text.size() != 29 || text.substr(3, 2) != ", " || text[7] != ' ' || text[11] != ' ' ||
      text[16] != ' ' || text.substr(25) != " GMT") {
    return std::nullopt;
  }
  return TimeOf({IndexOf(text.substr(0, 3), kShortDays), text.substr(5, 2), text.substr(8, 3),
                 ParseDigits(text.substr(12, 4)), text.substr(17, 8)});
}

// "Sunday, 06-Nov-94 08:49:37 GMT". A year that would be more than 50 years ahead of `now` is the
// last one that ended so.
std::optional<WallTime> ParseRfc850Date(std::string_view text, WallTime now) noexcept {
  const std::size_t comma = text.find(',');
  const std::string_view rest = comma == std::string_view::npos ? "" : text.substr(comma);
  if (rest.size() != 24 || rest[1] != ' ' || rest[4] != '-' || rest[8] != '-' || rest[11] != ' ' ||
      rest.substr(20) != " GMT") {
    return std::nullopt;
  }
  const auto digits = ParseDigits(rest.substr(9, 2));
  if (!digits) {
    return std::nullopt;
  }
  DateParts parts{IndexOf(text.substr(0, comma), kDays),
                  rest.substr(2, 2),
                  rest.substr(5, 3),
                  {},
                  rest.substr(12, 8)};
  const std::chrono::year_month_day today(std::chrono::floor<std::chrono::days>(now));
  const auto this_year = static_cast<std::uint64_t>(static_cast<int>(today.year()));
  parts.year = this_year - this_year % 100 + 100 + *digits;
  while (*parts.year > this_year + 50) {
    *parts.year -= 100;
  }
  return TimeOf(parts);
}

// "Sun Nov  6 08:49:37 1994".
std::optional<WallTime> ParseAsctimeDate(std::string_view text) noexcept {
  if (text.size() != 24 || text[3] != ' ' || text[7] != ' ' || text[10] != ' ' || text[19] != ' ') {
    return std::nullopt;
  }
  const std::string_view day = text.substr(text[8] == ' ' ? 9 : 8, text[8] == ' ' ? 1 : 2);
  return TimeOf({IndexOf(text.substr(0, 3), kShortDays), day, text.substr(4, 3),
                 ParseDigits(text.substr(20)), text.substr(11, 8)});
}

}  // namespace

std::optional<WallTime> ParseDate(std::string_view text, WallTime now) noexcept {
  auto at = ParseFixdate(text);
  if (!at) {
    at = ParseRfc850Date(text, now);
  }
  return at ? at : ParseAsctimeDate(text);
}

std::string FormatDate(WallTime at) {
  const auto days = std::chrono::floor<std::chrono::days>(at);
  const std::chrono::year_month_day date(days);
  const std::chrono::hh_mm_ss time(std::chrono::floor<seconds>(at - days));
  std::array<char, 48> text{};
  const int size = std::snprintf(
      text.data(), text.size(), "%s, %02u %s %04d %02d:%02d:%02d GMT",
      kShortDays[std::chrono::weekday(days).c_encoding()].data(), static_cast<unsigned>(date.day()),
      kMonths[static_cast<unsigned>(date.month()) - 1].data(), static_cast<int>(date.year()),
      static_cast<int>(time.hours().count()), static_cast<int>(time.minutes().count()),
      static_cast<int>(time.seconds().count()));
  return {text.data(), static_cast<std::size_t>(size)};
}

std::string CurrentDate() {
  return FormatDate(
      std::chrono::floor<std::chrono::milliseconds>(std::chrono::system_clock::now()));
}

std::string_view DateClock::Text(Instant now) {
  if (now >= until_) {
    const auto wall = std::chrono::system_clock::now();
    const auto second = std::chrono::floor<seconds>(wall);
    text_ = FormatDate(second);
    until_ = now + std::chrono::duration_cast<Instant::duration>(second + seconds(1) - wall);
  }
  return text_;
}

}  // namespace sluice::http
