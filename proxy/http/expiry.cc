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

std::optional<WallTime> ParseFixdate(std::string_view text) noexcept {
  static constexpr auto kDays =
      std::to_array<std::string_view>({"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"});
  static constexpr auto kMonths = std::to_array<std::string_view>(
      {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"});
  constexpr std::string_view kShape = "Sun, 06 Nov 1994 08:49:37 GMT";
  if (text.size() != kShape.size() || text.substr(3, 2) != ", " || text[7] != ' ' ||
      text[11] != ' ' || text[16] != ' ' || text[19] != ':' || text[22] != ':' ||
      text.substr(25) != " GMT") {
    return std::nullopt;
  }
  const auto weekday = IndexOf(text.substr(0, 3), kDays);
  const auto day = ParseDigits(text.substr(5, 2));
  const auto month = IndexOf(text.substr(8, 3), kMonths);
  const auto year = ParseDigits(text.substr(12, 4));
  const auto hour = ParseDigits(text.substr(17, 2));
  const auto minute = ParseDigits(text.substr(20, 2));
  const auto second = ParseDigits(text.substr(23, 2));
  // A second of 60 is a leap second (RFC 9110 section 5.6.7).
  if (!weekday || !day || !month || !year || !hour || !minute || !second || *hour > 23 ||
      *minute > 59 || *second > 60) {
    return std::nullopt;
  }
  const std::chrono::year_month_day date(std::chrono::year(static_cast<int>(*year)),
                                         std::chrono::month(*month + 1),
                                         std::chrono::day(static_cast<unsigned>(*day)));
  if (!date.ok() || std::chrono::weekday(date).c_encoding() != *weekday) {
    return std::nullopt;
  }
  return WallTime(std::chrono::sys_days(date)) + std::chrono::hours(*hour) +
         std::chrono::minutes(*minute) + seconds(*second);
}

}  // namespace

std::optional<WallTime> ParseExpiry(std::string_view text) noexcept {
  const bool is_number = !text.empty() && text.front() >= '0' && text.front() <= '9';
  return is_number ? ParseUnixTime(text) : ParseFixdate(text);
}

}  // namespace sluice::http
