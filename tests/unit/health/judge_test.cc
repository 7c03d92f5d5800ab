// Proves when the verdict on a backend changes: after so many results in a row that speak against
// it, and never by fewer.
#include "proxy/health/judge.h"

#include <string_view>

#include <gtest/gtest.h>

namespace sluice::health {
namespace {

// Feeds '+' and '-' and returns the verdict after each.
std::string Verdicts(Judge& judge, std::string_view results) {
  std::string out;
  for (const char result : results) {
    const bool before = judge.up();
    const bool changed = judge.Take(result == '+');
    EXPECT_EQ(changed, before != judge.up());
    out += judge.up() ? 'U' : 'd';
  }
  return out;
}

TEST(Judge, FallsAfterSoManyFailuresInARow) {
  Judge judge(2, 3, true);
  EXPECT_EQ(Verdicts(judge, "--+--+---"), "UUUUUUUUd");
}

TEST(Judge, RisesAfterSoManySuccessesInARow) {
  Judge judge(2, 3, false);
  EXPECT_EQ(Verdicts(judge, "+-+-++"), "dddddU");
}

TEST(Judge, CountsAnewAfterEachChange) {
  Judge judge(2, 3, true);
  EXPECT_EQ(Verdicts(judge, "---++---++"), "UUddUUUddU");
}

TEST(Judge, MayChangeWithEveryResult) {
  Judge judge(1, 1, true);
  EXPECT_EQ(Verdicts(judge, "+-+-"), "UdUd");
}

}  // namespace
}  // namespace sluice::health
