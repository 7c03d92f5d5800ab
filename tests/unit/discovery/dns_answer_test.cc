// Proves what is read out of DNS messages, and that no message, however broken, is more than a
// sentence about it.
#include "proxy/discovery/dns_answer.h"

#include <sys/socket.h>

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/base/random.h"

#include "tests/unit/discovery/dns_message.h"

namespace sluice::discovery {
namespace {

std::vector<std::string> Ips(const Result<AddressAnswer>& answer) {
  std::vector<std::string> out;
  if (!answer) {
    return {answer.error().message};
  }
  for (const net::Address& address : answer->addresses) {
    out.push_back(address.Ip());
  }
  return out;
}

using Texts = std::vector<std::string>;

TEST(DnsAnswer, HasAllAddressesAndTheLeastTtl) {
  const std::string message =
      Message().AddA("a.test", 60, 0x0A000001).AddA("a.test", 20, 0x0A000002).Bytes();
  const auto answer = ParseAddresses(AsBytes(message), AF_INET);
  EXPECT_EQ(Ips(answer), (Texts{"10.0.0.1", "10.0.0.2"}));
  EXPECT_EQ(answer->ttl, Millis(20'000));
}

TEST(DnsAnswer, FollowsAnAliasAndItsTtl) {
  const std::string message = Message()
                                  .Add("a.test", kTypeCname, 5, WireName("b.test"))
                                  .AddA("b.test", 60, 0x0A000001)
                                  .Bytes();
  const auto answer = ParseAddresses(AsBytes(message), AF_INET);
  EXPECT_EQ(Ips(answer), (Texts{"10.0.0.1"}));
  EXPECT_EQ(answer->ttl, Millis(5000));
}

TEST(DnsAnswer, HasAddressesOfVersion6) {
  Message message;
  message.type = kTypeAaaa;
  message.Add("a.test", kTypeAaaa, 30, std::string("\xFD\x00", 2) + std::string(13, '\0') + '\x07');
  const auto answer = ParseAddresses(AsBytes(message.Bytes()), AF_INET6);
  EXPECT_EQ(Ips(answer), (Texts{"fd00::7"}));
  EXPECT_EQ(answer->ttl, Millis(30'000));
}

TEST(DnsAnswer, WithoutRecordsIsNone) {
  EXPECT_EQ(Ips(ParseAddresses(AsBytes(Message().Bytes()), AF_INET)),
            (Texts{"there is no such record"}));
  Message srv;
  srv.type = kTypeSrv;
  EXPECT_EQ(ParseSrv(AsBytes(srv.Bytes())).error().message, "there is no such record");
}

TEST(DnsAnswer, ATtlWithItsHighestBitIsNone) {
  const std::string message = Message().AddA("a.test", 0x80000001, 0x0A000001).Bytes();
  EXPECT_EQ(ParseAddresses(AsBytes(message), AF_INET)->ttl, Millis(0));
}

TEST(DnsAnswer, RanksSrvRecordsByTheirPriority) {
  Message message;
  message.type = kTypeSrv;
  message.AddSrv("a.test", 60, 20, 1, 9000, "later.test")
      .AddSrv("a.test", 50, 10, 5, 9001, "One.Test")
      .AddSrv("a.test", 40, 10, 0, 9002, "two.test")
      .AddSrv("a.test", 30, 30, 7, 9003, "last.test");
  const auto answer = ParseSrv(AsBytes(message.Bytes()));
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->ttl, Millis(30'000));
  std::map<std::string, std::tuple<unsigned, int, int>> seen;  // group, port, weight
  for (const SrvRecord& record : answer->records) {
    seen[record.target] = {record.group, record.port, record.weight};
  }
  EXPECT_EQ(seen, (decltype(seen){{"one.test", {0, 9001, 5}},
                                  {"two.test", {0, 9002, 0}},
                                  {"later.test", {1, 9000, 1}},
                                  {"last.test", {2, 9003, 7}}}));
}

TEST(DnsAnswer, PutsTheSrvRecordsOfVeryManyPrioritiesIntoTheLastGroup) {
  Message message;
  message.type = kTypeSrv;
  for (std::uint16_t i = 0; i < 40; ++i) {
    message.AddSrv("a.test", 60, static_cast<std::uint16_t>(i * 3), 1,
                   static_cast<std::uint16_t>(9000 + i), "t.test");
  }
  const auto answer = ParseSrv(AsBytes(message.Bytes()));
  ASSERT_TRUE(answer.has_value());
  ASSERT_EQ(answer->records.size(), 40U);
  for (std::size_t i = 0; i < answer->records.size(); ++i) {
    EXPECT_EQ(answer->records[i].port, 9000 + i);
    EXPECT_EQ(answer->records[i].group, std::min<std::size_t>(i, kLastGroup));
  }
}

TEST(DnsAnswer, LeavesOutSrvRecordsThatNameNothing) {
  Message message;
  message.type = kTypeSrv;
  message.AddSrv("a.test", 60, 0, 1, 9000, "").AddSrv("a.test", 60, 0, 1, 0, "no-port.test");
  EXPECT_EQ(ParseSrv(AsBytes(message.Bytes())).error().message, "there is no such record");
  message.AddSrv("a.test", 60, 0, 1, 9000, "good.test");
  const auto answer = ParseSrv(AsBytes(message.Bytes()));
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->records.size(), 1U);
}

// A name becomes a label of metrics, a part of URLs and of the log.
TEST(DnsAnswer, TakesNoTargetThatIsNoHostName) {
  Message message;
  message.type = kTypeSrv;
  message.AddSrv("a.test", 60, 0, 1, 9000, "a\"b\n.test");
  EXPECT_FALSE(ParseSrv(AsBytes(message.Bytes())).has_value());
}

TEST(DnsAnswer, CutAnywhereIsAnErrorOrAShorterAnswer) {
  Message message;
  message.type = kTypeSrv;
  message.AddSrv("a.test", 60, 0, 1, 9000, "b.test").AddSrv("a.test", 60, 0, 1, 9001, "c.test");
  const std::string srv = message.Bytes();
  const std::string a =
      Message().AddA("a.test", 60, 0x0A000001).AddA("a.test", 60, 0x0A000002).Bytes();
  for (std::size_t size = 0; size < srv.size(); ++size) {
    EXPECT_FALSE(ParseSrv(AsBytes(std::string(srv, 0, size))).has_value()) << size;
  }
  for (std::size_t size = 0; size < a.size(); ++size) {
    EXPECT_FALSE(ParseAddresses(AsBytes(std::string(a, 0, size)), AF_INET).has_value()) << size;
  }
}

TEST(DnsAnswer, SurvivesWhateverComes) {
  Random random(20260401);
  Message good;
  good.type = kTypeSrv;
  good.AddSrv("a.test", 60, 0, 1, 9000, "b.test").AddA("a.test", 60, 0x0A000001);
  std::size_t taken = 0;
  for (int round = 0; round < 6'000; ++round) {
    std::string bytes = good.Bytes();
    if (round % 4 == 0) {
      bytes.resize(random.Next() % 600);
      for (char& c : bytes) {
        c = static_cast<char>(random.Next());
      }
    }
    // Counts, lengths, pointers to names that point to themselves.
    for (std::uint64_t i = 0; i < random.Next() % 6 && !bytes.empty(); ++i) {
      bytes[random.Next() % bytes.size()] =
          static_cast<char>(random.Next() % 3 == 0 ? 0xC0 : random.Next());
    }
    const auto srv = ParseSrv(AsBytes(bytes));
    const auto v4 = ParseAddresses(AsBytes(bytes), AF_INET);
    const auto v6 = ParseAddresses(AsBytes(bytes), AF_INET6);
    taken += srv ? srv->records.size() : 0;
    EXPECT_TRUE(!v4 || !v4->addresses.empty());
    EXPECT_TRUE(!v6 || !v6->addresses.empty());
    EXPECT_TRUE(!srv || !srv->records.empty());
  }
  EXPECT_GT(taken, 100U);  // not everything was broken
}

}  // namespace
}  // namespace sluice::discovery
