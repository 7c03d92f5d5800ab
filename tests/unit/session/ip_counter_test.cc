// Proves that connections are counted per address, from several threads too.
#include "proxy/session/ip_counter.h"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace sluice::session {
namespace {

TEST(IpCounter, CountsEachAddressAlone) {
  IpCounter counter;
  EXPECT_EQ(counter.Add("10.0.0.1"), 1U);
  EXPECT_EQ(counter.Add("10.0.0.1"), 2U);
  EXPECT_EQ(counter.Add("10.0.0.2"), 1U);
  counter.Remove("10.0.0.1");
  EXPECT_EQ(counter.Add("10.0.0.1"), 2U);
}

TEST(IpCounter, ForgetsAnAddressWithoutConnections) {
  IpCounter counter;
  EXPECT_EQ(counter.Add("::1"), 1U);
  counter.Remove("::1");
  EXPECT_EQ(counter.Add("::1"), 1U);
}

TEST(IpCounter, LosesNothingBetweenThreads) {
  IpCounter counter;
  constexpr int kEach = 10'000;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < kEach; ++n) {
        static_cast<void>(counter.Add("10.0.0.1"));
        if (n % 2 == 0) {
          counter.Remove("10.0.0.1");
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(counter.Add("10.0.0.1"), 4U * kEach / 2 + 1);
}

}  // namespace
}  // namespace sluice::session
