// Proves what counts as a time of expiry, and that nothing else does.
#include "proxy/http/expiry.h"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace sluice::http {
namespace {

constexpr WallTime kNow{std::chrono::seconds(1'795'737'600)};  // 27 November 2026

// In milliseconds since 1970.
std::optional<std::int64_t> MillisOf(std::string_view text) {
  const auto at = ParseExpiry(text, kNow);
  return at ? std::optional(at->time_since_epoch().count()) : std::nullopt;
}

TEST(Expiry, IsUnixTimeOrADate) {
  struct Case {
    std::string_view text;
    std::int64_t millis;
  };
  for (const Case& one : {
           Case{"0", 0},
           Case{"1767225600", 1'767'225'600'000},
           Case{"0001767225600", 1'767'225'600'000},
           Case{"1767225600.5", 1'767'225'600'500},
           Case{"1767225600.05", 1'767'225'600'050},
           Case{"1767225600.25", 1'767'225'600'250},
           Case{"1767225600.123456789", 1'767'225'600'123},
           Case{"1767225600.999999999999999999", 1'767'225'600'999},
           Case{"253402300799", 253'402'300'799'000},
           Case{"Sun, 06 Nov 1994 08:49:37 GMT", 784'111'777'000},
           Case{"Thu, 01 Jan 1970 00:00:00 GMT", 0},
           Case{"Wed, 31 Dec 1969 23:59:59 GMT", -1'000},
           Case{"Thu, 29 Feb 2024 12:00:00 GMT", 1'709'208'000'000},
           Case{"Sat, 31 Dec 2016 23:59:60 GMT", 1'483'228'800'000},  // a leap second
           Case{"Fri, 31 Dec 9999 23:59:59 GMT", 253'402'300'799'000},
           // The obsolete forms; a year of two digits is at most 50 years ahead.
           Case{"Sunday, 06-Nov-94 08:49:37 GMT", 784'111'777'000},
           Case{"Wednesday, 01-Jan-70 00:00:00 GMT", 3'155'760'000'000},
           Case{"Wednesday, 01-Jan-76 00:00:00 GMT", 3'345'062'400'000},
           Case{"Saturday, 01-Jan-77 00:00:00 GMT", 220'924'800'000},
           Case{"Wednesday, 01-Jan-25 00:00:00 GMT", 1'735'689'600'000},
           Case{"Sun Nov  6 08:49:37 1994", 784'111'777'000},
           Case{"Thu Jan  1 00:00:00 1970", 0},
           Case{"Sat Dec 31 23:59:60 2016", 1'483'228'800'000},
       }) {
    EXPECT_EQ(MillisOf(one.text), one.millis) << one.text;
  }
}

TEST(Expiry, IsNothingElse) {
  for (const std::string_view text : {
           "",
           " ",
           "soon",
           "-1",
           "+1",
           "1e9",
           "0x10",
           "1 ",
           "12a",
           "1.",
           "1.5.",
           "1.5s",
           ".5",
           "1.-5",
           "1.0000000000000000000",
           "1767225600000",         // milliseconds
           "253402300800",          // the year 10000
           "99999999999999999999",  // no number of 64 bits
           "1767225600, 1767225601",
           "Sun, 06-Nov-94 08:49:37 GMT",
           "Sunday, 06-Nov-1994 08:49:37 GMT",
           "Sunday, 06 Nov 94 08:49:37 GMT",
           "Sunday, 6-Nov-94 08:49:37 GMT",
           "Sunday,  6-Nov-94 08:49:37 GMT",
           "Sunday, 06-Nov-xx 08:49:37 GMT",
           "Monday, 06-Nov-94 08:49:37 GMT",
           "Sunday, 06-Nov-94 08:49:37",
           "Sunday 06-Nov-94 08:49:37 GMT",
           ", 06-Nov-94 08:49:37 GMT",
           "Sun Nov  6 08:49:37 1994 GMT",
           "Sun Nov 6 08:49:37 1994",
           "Sun Nov  6 08:49:37   94",
           "Sun Nov 31 08:49:37 1994",
           "Mon Nov  6 08:49:37 1994",
           "Sunday Nov  6 08:49:37 1994",
           "Sun Nov    08:49:37 1994",
           "Sun, 06 Nov 1994 08:49:37 UTC",
           "Sun, 06 Nov 1994 08:49:37 +0000",
           "Sun, 06 Nov 1994 08:49:37",
           "Sun, 6 Nov 1994 08:49:37 GMT",
           "sun, 06 Nov 1994 08:49:37 GMT",
           "Sun, 06 nov 1994 08:49:37 GMT",
           "Mon, 06 Nov 1994 08:49:37 GMT",  // it was a Sunday
           "Sun, 00 Nov 1994 08:49:37 GMT",
           "Thu, 31 Nov 1994 08:49:37 GMT",
           "Wed, 29 Feb 2023 12:00:00 GMT",
           "Sun, 06 Nov 1994 24:00:00 GMT",
           "Sun, 06 Nov 1994 08:60:00 GMT",
           "Sun, 06 Nov 1994 08:49:61 GMT",
           "Sun, 06 Nov 1994 08-49-37 GMT",
           "Sun, 06 Nov 1994 08:49: 7 GMT",
           "Sun, 06 Nov 1994 08:49:-7 GMT",
           "Sun; 06 Nov 1994 08:49:37 GMT",
           "Sun, 06_Nov 1994 08:49:37 GMT",
           "Sun, 06 Nov_1994 08:49:37 GMT",
           "Sun, 06 Nov 1994_08:49:37 GMT",
       }) {
    EXPECT_EQ(MillisOf(text), std::nullopt) << text;
  }
  EXPECT_EQ(MillisOf(std::string(10'000, '9')), std::nullopt);
  EXPECT_EQ(MillisOf(std::string_view("1767225600\0", 11)), std::nullopt);
}

}  // namespace
}  // namespace sluice::http
