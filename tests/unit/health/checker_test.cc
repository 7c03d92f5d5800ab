// Proves that a backend is checked again and again, one check at a time, and that the verdict
// follows the results.
#include "proxy/health/checker.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/raw_backend.h"

namespace sluice::health {
namespace {

class CheckerTest : public testing::Test, private CheckerSink {
 protected:
  // Checks 127.0.0.1:port until `stop_after` results are there.
  void Run(std::uint16_t port, bool up, std::size_t stop_after) {
    Check check;
    check.type = CheckType::kTcp;
    check.interval = Millis(10);
    check.timeout = Millis(5'000);
    const auto address = net::Address::FromNumeric("127.0.0.1", port);
    stop_after_ = stop_after;
    Checker checker(loop_, random_, check, {}, *address, up, *this);
    checker.Start();
    loop_.Run();
  }

  std::string verdicts_;  // a letter for each result: U and d, or lower u and D where it changed

 private:
  void OnChecked(Checker& checker, const CheckResult& result, bool changed) noexcept override {
    verdicts_ += checker.up() ? (changed ? 'U' : 'u') : (changed ? 'D' : 'd');
    EXPECT_EQ(result.passed, result.error.empty());
    if (verdicts_.size() == stop_after_) {
      loop_.Stop();
    }
  }

  net::Loop loop_;
  Random random_{1};
  std::size_t stop_after_ = 0;
};

TEST_F(CheckerTest, FindsABackendDownAfterThreeFailures) {
  const test::ClosedPort port;
  Run(port.port(), true, 5);
  EXPECT_EQ(verdicts_, "uuDdd");
}

TEST_F(CheckerTest, FindsABackendUpAfterTwoSuccesses) {
  const test::RawBackend backend;
  Run(backend.port(), false, 4);
  EXPECT_EQ(verdicts_, "dUuu");
}

TEST(Jittered, IsWithinATenthOfTheInterval) {
  EXPECT_EQ(Jittered(Millis(1000), 0), Millis(900));
  EXPECT_EQ(Jittered(Millis(1000), 0.5), Millis(1000));
  EXPECT_EQ(Jittered(Millis(1000), 0.9999), Millis(1099));
}

}  // namespace
}  // namespace sluice::health
