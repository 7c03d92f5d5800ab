// Proves how dates are written; tests of expiry prove how they are read.
#include "proxy/http/date.h"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace sluice::http {
namespace {

using std::chrono::milliseconds;
using std::chrono::system_clock;

TEST(FormatDate, WritesAFixdate) {
  struct Case {
    std::int64_t millis;
    std::string_view text;
  };
  for (const Case& one : {
           Case{784'111'777'000, "Sun, 06 Nov 1994 08:49:37 GMT"},
           Case{784'111'777'999, "Sun, 06 Nov 1994 08:49:37 GMT"},
           Case{0, "Thu, 01 Jan 1970 00:00:00 GMT"},
           Case{-1, "Wed, 31 Dec 1969 23:59:59 GMT"},
           Case{1'709'208'000'000, "Thu, 29 Feb 2024 12:00:00 GMT"},
           Case{253'402'300'799'000, "Fri, 31 Dec 9999 23:59:59 GMT"},
       }) {
    EXPECT_EQ(FormatDate(WallTime(milliseconds(one.millis))), one.text);
  }
}

TEST(FormatDate, IsReadAsItWasWritten) {
  constexpr std::int64_t kStep = 99'999'999;  // seconds, so that all parts of a date change
  for (std::int64_t at = -1'000'000'000; at < 250'000'000'000; at += kStep) {
    const WallTime time{std::chrono::seconds(at)};
    EXPECT_EQ(ParseDate(FormatDate(time), time), time) << FormatDate(time);
  }
}

TEST(DateClock, TellsTheSecondThatItIs) {
  DateClock clock;
  const auto before = std::chrono::floor<std::chrono::seconds>(system_clock::now());
  const std::string text(clock.Text(Now()));
  const auto after = std::chrono::floor<milliseconds>(system_clock::now());
  const auto at = ParseDate(text, after);
  ASSERT_TRUE(at) << text;
  EXPECT_GE(*at, before);
  EXPECT_LE(*at, after);
}

TEST(DateClock, ChangesWithTheSecondAndNotBefore) {
  DateClock clock;
  const Instant from = Now();
  const std::string first(clock.Text(from));
  while (clock.Text(Now()) == first) {
    ASSERT_LT(Now() - from, std::chrono::seconds(3));
  }
  EXPECT_LE(Now() - from, std::chrono::milliseconds(1500));
  const std::string second(clock.Text(Now()));
  EXPECT_EQ(clock.Text(from), second) << "the clock is asked when the second is over, not before";
}

}  // namespace
}  // namespace sluice::http
