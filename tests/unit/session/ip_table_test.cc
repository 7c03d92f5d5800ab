// Proves that connections and upgrades are counted by client network, from several threads too, and
// that nobody is remembered for longer than it matters.
#include "proxy/session/ip_table.h"

#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace sluice::session {
namespace {

constexpr TokenRate kOne{1, 3};

net::Address Ip(const std::string& text) {
  return net::Address::FromNumeric(text, 1234).value();
}

TEST(IpTable, CountsEachAddressAlone) {
  IpTable table;
  EXPECT_EQ(table.AddConnection(Ip("10.0.0.1")), 1U);
  EXPECT_EQ(table.AddConnection(Ip("10.0.0.1")), 2U);
  EXPECT_EQ(table.AddConnection(Ip("10.0.0.2")), 1U);
  table.RemoveConnection(Ip("10.0.0.1"));
  EXPECT_EQ(table.AddConnection(Ip("10.0.0.1")), 2U);
}

// RFC 4291 section 2.5.4: the last 64 bits are for the host to choose.
TEST(IpTable, CountsIPv6ByItsNetwork) {
  IpTable table;
  EXPECT_EQ(table.AddConnection(Ip("2001:db8:0:1::1")), 1U);
  EXPECT_EQ(table.AddConnection(Ip("2001:db8:0:1:ffff::2")), 2U);
  EXPECT_EQ(table.AddConnection(Ip("2001:db8:0:2::1")), 1U);
}

TEST(IpTable, AMappedAddressIsTheIPv4One) {
  IpTable table;
  EXPECT_EQ(table.AddConnection(Ip("::ffff:10.0.0.1")), 1U);
  EXPECT_EQ(table.AddConnection(Ip("10.0.0.1")), 2U);
  EXPECT_EQ(table.AddConnection(Ip("::ffff:10.0.0.2")), 1U);
}

TEST(IpTable, ForgetsAnAddressWithoutConnections) {
  IpTable table;
  EXPECT_EQ(table.AddConnection(Ip("::1")), 1U);
  table.RemoveConnection(Ip("::1"));
  EXPECT_EQ(table.size(), 0U);
  EXPECT_EQ(table.AddConnection(Ip("::1")), 1U);
}

TEST(IpTable, GivesUpgradesByTheRateOfEach) {
  IpTable table;
  const Instant now = Now();
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(table.TakeUpgrade(Ip("10.0.0.1"), kOne, now)) << i;
  }
  const auto wait = table.TakeUpgrade(Ip("10.0.0.1"), kOne, now);
  ASSERT_TRUE(wait);
  EXPECT_EQ(*wait, std::chrono::seconds(1));
  EXPECT_FALSE(table.TakeUpgrade(Ip("10.0.0.2"), kOne, now));
  EXPECT_FALSE(table.TakeUpgrade(Ip("10.0.0.1"), kOne, now + std::chrono::seconds(1)));
}

TEST(IpTable, RemembersUpgradesBeyondTheConnection) {
  IpTable table;
  const Instant now = Now();
  for (int i = 0; i < 3; ++i) {
    static_cast<void>(table.AddConnection(Ip("10.0.0.1")));
    EXPECT_FALSE(table.TakeUpgrade(Ip("10.0.0.1"), kOne, now));
    table.RemoveConnection(Ip("10.0.0.1"));
  }
  EXPECT_TRUE(table.TakeUpgrade(Ip("10.0.0.1"), kOne, now));
}

// A flood from ever new networks leaves behind what the last seconds have brought, no more.
TEST(IpTable, StaysSmallUnderAFloodOfAddresses) {
  IpTable table;
  const TokenRate quick{1000, 1};
  Instant now = Now();
  std::size_t most = 0;
  for (std::uint32_t i = 0; i < 200'000; ++i) {
    now += std::chrono::microseconds(10);
    const std::string ip = "10." + std::to_string(i >> 16U) + "." + std::to_string(i >> 8U & 255U) +
                           "." + std::to_string(i & 255U);
    EXPECT_FALSE(table.TakeUpgrade(Ip(ip), quick, now));
    most = i % 4096 == 0 ? std::max(most, table.size()) : most;
  }
  EXPECT_LE(most, 16U * 1024U);
}

TEST(IpTable, LosesNothingBetweenThreads) {
  IpTable table;
  constexpr int kEach = 10'000;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const net::Address client = Ip("10.0.0.1");
      for (int n = 0; n < kEach; ++n) {
        static_cast<void>(table.AddConnection(client));
        if (n % 2 == 0) {
          table.RemoveConnection(client);
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(table.AddConnection(Ip("10.0.0.1")), 4U * kEach / 2 + 1);
}

}  // namespace
}  // namespace sluice::session
