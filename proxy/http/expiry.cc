#include "proxy/http/expiry.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>

namespace sluice::http {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Digits alone: no sign, no blank.
std::optional<std::int64_t> ParseDigits(std::string_view text) noexcept {
  const bool digits = !text.empty() && std::all_of(text.begin(), text.end(),
                                                   [](char c) { return c >= '0' && c <= '9'; });
  std::int64_t value = 0;
  if (!digits || std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc()) {
    return std::nullopt;
  }
  return value;
}

std::optional<WallTime> ParseUnixTime(std::string_view text) noexcept {
  constexpr std::int64_t kEndOf9999 = 253'402'300'799;
  const std::size_t point = text.find('.');
  const auto whole = ParseDigits(text.substr(0, point));
  if (!whole || *whole > kEndOf9999) {
    return std::nullopt;
  }
  WallTime at{seconds(*whole)};
  if (point != std::string_view::npos) {
    const std::string_view fraction = text.substr(point + 1);
    if (fraction.size() > 18 || !ParseDigits(fraction)) {
      return std::nullopt;
    }
    milliseconds unit(100);
    for (const char digit : fraction.substr(0, 3)) {
      at += unit * (digit - '0');
      unit /= 10;
    }
  }
  return at;
}

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

constexpr auto kShortDays =
    std::to_array<std::string_view>({"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"});

// What the three forms of an HTTP-date (RFC 9110 section 5.6.7) are made of.
struct DateParts {
  std::optional<unsigned> weekday;  // from Sunday on
  std::string_view day;
  std::string_view month;
  std::optional<std::int64_t> year;
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
  static constexpr auto kMonths = std::to_array<std::string_view>(
      {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"});
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
  const int this_year = static_cast<int>(today.year());
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

std::optional<WallTime> ParseExpiry(std::string_view text, WallTime now) noexcept {
  if (!text.empty() && text.front() >= '0' && text.front() <= '9') {
    return ParseUnixTime(text);
  }
  auto at = ParseFixdate(text);
  if (!at) {
    at = ParseRfc850Date(text, now);
  }
  return at ? at : ParseAsctimeDate(text);
}

}  // namespace sluice::http
