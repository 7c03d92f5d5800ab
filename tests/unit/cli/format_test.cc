// Proves how numbers, tables and progress read.
#include "proxy/cli/format.h"

#include <cmath>
#include <limits>
#include <utility>

#include <gtest/gtest.h>

namespace sluice::cli {
namespace {

TEST(FormatSeconds, ShowsTheTwoLargestUnits) {
  const std::pair<double, const char*> cases[] = {
      {0, "0s"},      {0.4, "0s"},        {0.6, "1s"},    {59, "59s"},   {59.6, "1m"},
      {61, "1m 1s"},  {3'599, "59m 59s"}, {3'600, "1h"},  {3'601, "1h"}, {7'860, "2h 11m"},
      {86'400, "1d"}, {90'000, "1d 1h"},  {86'460, "1d"}, {-5, "0s"},
  };
  for (const auto& [seconds, want] : cases) {
    EXPECT_EQ(FormatSeconds(seconds), want) << seconds;
  }
  EXPECT_EQ(FormatSeconds(std::nan("")), "0s");
  EXPECT_EQ(FormatSeconds(std::numeric_limits<double>::infinity()), "0s");
  EXPECT_EQ(FormatSeconds(1e300), FormatSeconds(3.2e9));
}

TEST(FormatBytes, ShowsTwoOrThreeDigits) {
  const std::pair<std::uint64_t, const char*> cases[] = {
      {0, "0 B"},
      {1'023, "1023 B"},
      {1'024, "1.0 KiB"},
      {1'536, "1.5 KiB"},
      {10'188, "9.9 KiB"},
      {10'200, "10 KiB"},
      {1'048'000, "1023 KiB"},
      {1'048'575, "1.0 MiB"},
      {std::numeric_limits<std::uint64_t>::max(), "16 EiB"},
  };
  for (const auto& [bytes, want] : cases) {
    EXPECT_EQ(FormatBytes(bytes), want) << bytes;
  }
}

TEST(Printable, LetsNothingSteerTheTerminal) {
  EXPECT_EQ(Printable("a\x1b[2Jb\nc\td\x7f"), "a?[2Jb?c?d?");
  EXPECT_EQ(Printable("caf\xc3\xa9 \xc2\xa0"), "caf\xc3\xa9 \xc2\xa0");
  EXPECT_EQ(Printable("\xc2\x9b"
                      "31m"),
            "?31m");
  EXPECT_EQ(Printable("\xc2"), "\xc2");
}

TEST(FormatTable, AlignsColumns) {
  EXPECT_EQ(FormatTable({{"NAME"}, {"OPEN", true}, {"STATE"}},
                        {{"a", "12345", "up"}, {"chat-12", "7", ""}}),
            "NAME      OPEN  STATE\n"
            "a        12345  up\n"
            "chat-12      7\n");
}

TEST(FormatTable, ShowsTitlesWithoutRows) {
  EXPECT_EQ(FormatTable({{"A"}, {"B", true}}, {}), "A  B\n");
}

TEST(ProgressText, SaysWhatIsKnown) {
  EXPECT_EQ(ProgressText({200, 76, 0, 4.06, 18.2}),
            "62 % 124 of 200 closed, 4.1/s, about 19s left");
  EXPECT_EQ(ProgressText({200, 200, 0, 0, std::nullopt}), "0 % 0 of 200 closed, 0.0/s");
  EXPECT_EQ(ProgressText({200, 0, 3, 10, 0}), "100 % 200 of 200 closed (3 cut)");
  EXPECT_EQ(ProgressText({0, 0, 0, 0, std::nullopt}), "100 % 0 of 0 closed");
}

TEST(ProgressText, IsNotFinishedBeforeTheLastOne) {
  EXPECT_EQ(ProgressText({1'000, 1, 0, 1, std::nullopt}), "99 % 999 of 1000 closed, 1.0/s");
}

TEST(ProgressText, StaysSaneWhenMoreRemainThanThereWere) {
  EXPECT_EQ(ProgressText({5, 9, 0, 0, std::nullopt}), "0 % 0 of 5 closed, 0.0/s");
}

TEST(ProgressBar, FillsTheLineUpToItsMost) {
  const Progress half{10, 5, 0, 1, std::nullopt};
  const std::string text = ProgressText(half);
  EXPECT_EQ(ProgressBar(half, text.size() + 13), "[#####-----] " + text);
  EXPECT_EQ(ProgressBar(half, 1'000),
            "[" + std::string(20, '#') + std::string(20, '-') + "] " + text);
  EXPECT_EQ(ProgressBar({10, 0, 0, 1, std::nullopt}, 1'000).substr(0, 42),
            "[" + std::string(40, '#') + "]");
}

TEST(ProgressBar, LeavesTheBarOutWhereThereIsNoRoom) {
  const Progress half{10, 5, 0, 1, std::nullopt};
  const std::string text = ProgressText(half);
  EXPECT_EQ(ProgressBar(half, text.size() + 12), text);
  EXPECT_EQ(ProgressBar(half, 6), text.substr(0, 6));
  EXPECT_EQ(ProgressBar(half, 0), "");
}

}  // namespace
}  // namespace sluice::cli
