// The quantiles that the benchmark reports: right to a 64th, for any duration.
#include "tests/bench/load/histogram.h"

#include <gtest/gtest.h>

namespace sluice::bench {
namespace {

using std::chrono::nanoseconds;

TEST(Histogram, IsZeroWhenEmpty) {
  const Histogram histogram;
  EXPECT_EQ(histogram.total(), 0U);
  EXPECT_EQ(histogram.Quantile(0.5), 0.0);
  EXPECT_EQ(histogram.Quantile(1), 0.0);
}

TEST(Histogram, GivesBackAnyDurationToASixtyFourth) {
  for (std::int64_t value = 1; value < std::int64_t{1} << 55; value = value * 7 / 3 + 1) {
    Histogram histogram;
    histogram.Add(nanoseconds(value));
    const double exact = static_cast<double>(value) / 1000.0;
    EXPECT_GE(histogram.Quantile(0.5), exact);
    EXPECT_LE(histogram.Quantile(0.5), exact * (1 + 1.0 / 64) + 0.001) << value;
  }
}

TEST(Histogram, SplitsAtTheShareAsked) {
  Histogram histogram;
  for (int i = 1; i <= 1000; ++i) {
    histogram.Add(std::chrono::microseconds(i));
  }
  EXPECT_EQ(histogram.total(), 1000U);
  EXPECT_NEAR(histogram.Quantile(0), 1, 0.02);
  EXPECT_NEAR(histogram.Quantile(0.5), 501, 8);
  EXPECT_NEAR(histogram.Quantile(0.99), 991, 16);
  EXPECT_NEAR(histogram.Quantile(0.999), 1000, 16);
  EXPECT_NEAR(histogram.Quantile(1), 1000, 16);
}

TEST(Histogram, OneInAThousandShowsInTheLastQuantileOnly) {
  Histogram histogram;
  for (int i = 0; i < 999; ++i) {
    histogram.Add(std::chrono::microseconds(100));
  }
  histogram.Add(std::chrono::milliseconds(100));
  EXPECT_NEAR(histogram.Quantile(0.99), 100, 2);
  EXPECT_NEAR(histogram.Quantile(0.999), 100'000, 2000);
}

TEST(Histogram, TakesANegativeDurationForNone) {
  Histogram histogram;
  histogram.Add(nanoseconds(-5));
  EXPECT_EQ(histogram.total(), 1U);
  EXPECT_EQ(histogram.Quantile(0.5), 0.0);
}

}  // namespace
}  // namespace sluice::bench
