// Proves the order of the drain: which stage at which instant, what a second signal changes from
// each stage, and that closes are paced evenly inside their window and under their rate.
#include "proxy/drain/drain_plan.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include <gtest/gtest.h>

namespace sluice::drain {
namespace {

using std::chrono::nanoseconds;

constexpr Instant kStart{std::chrono::hours(1000)};
constexpr nanoseconds kInstantBefore{-1};

// 2 s Refusing, 5 s window, 3 s grace: Closing from 2 s, Killing from 10 s.
constexpr DrainOptions kOptions{Millis(2000), Millis(5000), Millis(3000), 0};

Instant At(Millis since_start) {
  return kStart + since_start;
}

std::vector<Instant> CloseAll(DrainPlan& plan, std::size_t count, std::uint64_t seed = 1) {
  Random random(seed);
  std::vector<Instant> closes;
  for (std::size_t i = 0; i < count; ++i) {
    closes.push_back(plan.CloseAt(i, count, random));
  }
  return closes;
}

TEST(DrainPlan, ServesUntilToldToStart) {
  const DrainPlan plan(kOptions);
  EXPECT_EQ(plan.StageAt(kStart), Stage::kServing);
  EXPECT_EQ(plan.StageAt(Instant::max()), Stage::kServing);
  EXPECT_EQ(plan.NextChange(kStart), Instant::max());
}

TEST(DrainPlan, GoesThroughItsStagesAtExactInstants) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  struct Case {
    const char* name;
    Instant now;
    Stage stage;
    Instant next;
  };

  const std::vector<Case> cases = {
      {"at the signal", At(Millis(0)), Stage::kRefusing, At(Millis(2000))},
      {"the last of Refusing", At(Millis(2000)) + kInstantBefore, Stage::kRefusing,
       At(Millis(2000))},
      {"the first of Closing", At(Millis(2000)), Stage::kClosing, At(Millis(10'000))},
      {"the end of the window", At(Millis(7000)), Stage::kClosing, At(Millis(10'000))},
      {"the last of Closing", At(Millis(10'000)) + kInstantBefore, Stage::kClosing,
       At(Millis(10'000))},
      {"the first of Killing", At(Millis(10'000)), Stage::kKilling, Instant::max()},
      {"long after", At(Millis(1'000'000)), Stage::kKilling, Instant::max()},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(plan.StageAt(c.now), c.stage) << c.name;
    EXPECT_EQ(plan.NextChange(c.now), c.next) << c.name;
  }
  EXPECT_EQ(plan.kill_at(), At(Millis(10'000)));
}

TEST(DrainPlan, SkipsRefusingWithoutReadyDelay) {
  DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 0});
  plan.Start(kStart);
  EXPECT_EQ(plan.StageAt(kStart), Stage::kClosing);
  EXPECT_EQ(plan.NextChange(kStart), At(Millis(8000)));
}

TEST(DrainPlan, KillsAtOnceWithoutWindowAndGrace) {
  DrainPlan plan({Millis(0), Millis(0), Millis(0), 0});
  plan.Start(kStart);
  EXPECT_EQ(plan.StageAt(kStart), Stage::kKilling);
  EXPECT_EQ(plan.kill_at(), kStart);
  for (const Instant close : CloseAll(plan, 10)) {
    EXPECT_EQ(close, kStart);
  }
}

TEST(DrainPlan, StartsOnce) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  plan.Start(At(Millis(1000)));
  plan.Start(At(Millis(5000)));
  EXPECT_EQ(plan.kill_at(), At(Millis(10'000)));
  EXPECT_EQ(plan.NextChange(kStart), At(Millis(2000)));
}

TEST(DrainPlanHurry, FromServingClosesAtOnce) {
  DrainPlan plan(kOptions);
  plan.Hurry(kStart, Millis(2000));
  EXPECT_EQ(plan.StageAt(kStart), Stage::kClosing);
  EXPECT_EQ(plan.NextChange(kStart), At(Millis(2000)));
  EXPECT_EQ(plan.StageAt(At(Millis(2000))), Stage::kKilling);
  for (const Instant close : CloseAll(plan, 100)) {
    EXPECT_EQ(close, kStart);
  }
  plan.Start(At(Millis(100)));
  EXPECT_EQ(plan.kill_at(), At(Millis(2000))) << "a start after it changes nothing";
}

TEST(DrainPlanHurry, FromRefusingSkipsTheRestOfIt) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  plan.Hurry(At(Millis(500)), Millis(2000));
  EXPECT_EQ(plan.StageAt(At(Millis(500))), Stage::kClosing);
  EXPECT_EQ(plan.kill_at(), At(Millis(2500)));
  for (const Instant close : CloseAll(plan, 100)) {
    EXPECT_EQ(close, At(Millis(500)));
  }
}

TEST(DrainPlanHurry, FromClosingEndsTheWindow) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  plan.Hurry(At(Millis(3000)), Millis(2000));
  EXPECT_EQ(plan.StageAt(At(Millis(2500))), Stage::kClosing) << "what was stays as it was";
  EXPECT_EQ(plan.StageAt(At(Millis(3000))), Stage::kClosing);
  EXPECT_EQ(plan.kill_at(), At(Millis(5000)));
  for (const Instant close : CloseAll(plan, 100)) {
    EXPECT_EQ(close, At(Millis(3000)));
  }
}

TEST(DrainPlanHurry, NeverProlongs) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  plan.Hurry(At(Millis(9500)), Millis(2000));
  EXPECT_EQ(plan.kill_at(), At(Millis(10'000)));
}

TEST(DrainPlanHurry, ComesTooLateInKilling) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  plan.Hurry(At(Millis(10'000)), Millis(2000));
  EXPECT_EQ(plan.StageAt(At(Millis(10'000))), Stage::kKilling);
  EXPECT_EQ(plan.NextChange(At(Millis(10'000))), Instant::max());
  EXPECT_EQ(plan.kill_at(), At(Millis(10'000)));
  EXPECT_EQ(plan.StageAt(At(Millis(5000))), Stage::kClosing) << "what was stays as it was";
}

TEST(DrainPlanHurry, AgainCanOnlyBeSooner) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  plan.Hurry(At(Millis(3000)), Millis(2000));
  plan.Hurry(At(Millis(4000)), Millis(2000));
  EXPECT_EQ(plan.kill_at(), At(Millis(5000)));
  EXPECT_EQ(CloseAll(plan, 1).front(), At(Millis(3000)));
  plan.Hurry(At(Millis(4000)), Millis(100));
  EXPECT_EQ(plan.kill_at(), At(Millis(4100)));
}

TEST(DrainPlanHurry, OverridesTheRateCap) {
  DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 10});
  plan.Start(kStart);
  (void)CloseAll(plan, 20);
  plan.Hurry(At(Millis(1000)), Millis(2000));
  for (const Instant close : CloseAll(plan, 100)) {
    EXPECT_EQ(close, At(Millis(1000)));
  }
}

TEST(DrainPlanHurry, WithoutALimitKillsAtOnce) {
  DrainPlan plan(kOptions);
  plan.Start(kStart);
  plan.Hurry(At(Millis(2500)), Millis(0));
  EXPECT_EQ(plan.StageAt(At(Millis(2500))), Stage::kKilling);
}

TEST(DrainPlanPacing, FillsEveryTenthOfASecondAlike) {
  // 2,000 sessions over 5 s: 40 in each bin of 100 ms on average, and never more than 3 times that.
  // The slices keep it far closer: a bin can only differ by the two sessions at its ends.
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 0});
    plan.Start(kStart);
    std::vector<int> bins(50, 0);
    for (const Instant close : CloseAll(plan, 2000, seed)) {
      const auto bin = (close - kStart) / Millis(100);
      ASSERT_GE(bin, 0);
      ASSERT_LT(bin, 50) << "outside of the window";
      ++bins[static_cast<std::size_t>(bin)];
    }
    EXPECT_LE(*std::max_element(bins.begin(), bins.end()), 42) << "seed " << seed;
    EXPECT_GE(*std::min_element(bins.begin(), bins.end()), 38) << "seed " << seed;
  }
}

TEST(DrainPlanPacing, StaysEvenAcrossWorkers) {
  // Workers pace on their own; their sum must hold the promise too, also with odd counts.
  std::vector<int> bins(50, 0);
  int total = 0;
  for (const std::size_t count : {313U, 1U, 512U, 7U, 667U, 500U}) {
    DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 0});
    plan.Start(kStart);
    for (const Instant close : CloseAll(plan, count, count)) {
      ++bins[static_cast<std::size_t>((close - kStart) / Millis(100))];
      ++total;
    }
  }
  EXPECT_EQ(total, 2000);
  EXPECT_LE(*std::max_element(bins.begin(), bins.end()), 120);
}

TEST(DrainPlanPacing, JittersInsideEachSlice) {
  DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 0});
  plan.Start(kStart);
  const std::vector<Instant> closes = CloseAll(plan, 1000);
  double sum = 0;
  std::size_t early = 0;
  for (std::size_t i = 0; i < closes.size(); ++i) {
    const Instant slice = kStart + static_cast<int>(i) * Millis(5);
    ASSERT_GE(closes[i], slice);
    ASSERT_LT(closes[i], slice + Millis(5));
    const double part = std::chrono::duration<double, std::milli>(closes[i] - slice).count() / 5;
    sum += part;
    early += part < 0.1 ? 1 : 0;
  }
  EXPECT_NEAR(sum / 1000, 0.5, 0.05);  // five standard deviations of a uniform mean
  EXPECT_NEAR(static_cast<double>(early), 100, 48);
}

TEST(DrainPlanPacing, SpreadsASingleSessionOverTheWholeWindow) {
  // One session on each of many machines: all draws together must fill the window.
  Random random(1);
  std::vector<int> tenths(10, 0);
  for (int i = 0; i < 10'000; ++i) {
    DrainPlan plan({Millis(1000), Millis(5000), Millis(3000), 0});
    plan.Start(kStart);
    const Instant close = plan.CloseAt(0, 1, random);
    ++tenths[static_cast<std::size_t>((close - At(Millis(1000))) / Millis(500))];
  }
  for (const int tenth : tenths) {
    EXPECT_NEAR(tenth, 1000, 150);  // five standard deviations
  }
}

TEST(DrainPlanRate, SpacesCloses) {
  // 50 in 5 s are 10 a second on average; the jitter alone would bring two close together.
  DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 12});
  plan.Start(kStart);
  const std::vector<Instant> closes = CloseAll(plan, 50);
  for (std::size_t i = 1; i < closes.size(); ++i) {
    EXPECT_GE(std::chrono::duration<double>(closes[i] - closes[i - 1]).count(), 1.0 / 12) << i;
  }
  EXPECT_LT(closes.back(), At(Millis(5200))) << "the cap is not what decides here";
}

TEST(DrainPlanRate, GoesBeyondTheWindowWhenItMust) {
  DrainPlan plan({Millis(0), Millis(5000), Millis(10'000), 10});
  plan.Start(kStart);
  const std::vector<Instant> closes = CloseAll(plan, 100);  // 10 s worth of slots
  for (std::size_t i = 1; i < closes.size(); ++i) {
    EXPECT_GE(closes[i] - closes[i - 1], Millis(100)) << i;
  }
  EXPECT_GT(closes.back(), At(Millis(9800)));
  EXPECT_LT(closes.back(), At(Millis(10'100)));
}

TEST(DrainPlanRate, NeverGoesBeyondTheKill) {
  DrainPlan plan({Millis(0), Millis(5000), Millis(3000), 10});
  plan.Start(kStart);
  const std::vector<Instant> closes = CloseAll(plan, 1000);
  EXPECT_TRUE(std::is_sorted(closes.begin(), closes.end()));
  EXPECT_EQ(closes.back(), plan.kill_at());
  EXPECT_EQ(std::count_if(closes.begin(), closes.end(),
                          [&](Instant close) { return close < plan.kill_at(); }),
            80);  // 8 s at 10 a second
}

TEST(DrainPlanRate, SurvivesExtremes) {
  for (const double rate : {1e-300, 1e-9, 1e300}) {
    DrainPlan plan({Millis(0), Millis(5000), Millis(3000), rate});
    plan.Start(kStart);
    for (const Instant close : CloseAll(plan, 100)) {
      EXPECT_GE(close, kStart) << rate;
      EXPECT_LE(close, plan.kill_at()) << rate;
    }
  }
}

}  // namespace
}  // namespace sluice::drain
