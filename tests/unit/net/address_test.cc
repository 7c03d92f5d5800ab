// Proves which texts are addresses and blocks, how addresses are written, and what a block holds.
#include "proxy/net/address.h"

#include <string>

#include <gtest/gtest.h>

namespace sluice::net {
namespace {

Address Numeric(const std::string& host, std::uint16_t port = 0) {
  auto address = Address::FromNumeric(host, port);
  EXPECT_TRUE(address.has_value()) << host;
  return address.value_or(Address());
}

TEST(Address, IsUnspecifiedAtFirst) {
  const Address address;
  EXPECT_EQ(address.family(), AF_UNSPEC);
  EXPECT_EQ(address.Ip(), "");
}

TEST(Address, WritesBothFamilies) {
  EXPECT_EQ(Numeric("10.0.0.7", 80).Text(), "10.0.0.7:80");
  EXPECT_EQ(Numeric("10.0.0.7", 80).family(), AF_INET);
  EXPECT_EQ(Numeric("2001:DB8:0::1", 65535).Text(), "[2001:db8::1]:65535");
  EXPECT_EQ(Numeric("::1", 1).port(), 1);
  EXPECT_EQ(Numeric("::1").raw_size(), sizeof(sockaddr_in6));
  EXPECT_EQ(Numeric("127.0.0.1").raw_size(), sizeof(sockaddr_in));
}

TEST(Address, WritesAMappedAddressAsIpv4) {
  EXPECT_EQ(Numeric("::ffff:10.0.0.7", 80).Ip(), "10.0.0.7");
  EXPECT_EQ(Numeric("::ffff:10.0.0.7", 80).Text(), "10.0.0.7:80");
}

TEST(Address, GoesToBytesAndBack) {
  for (const char* ip : {"10.0.0.7", "2001:db8::1", "0.0.0.0", "::"}) {
    const Address address = Numeric(ip, 4711);
    const auto bytes = address.ip_bytes();
    EXPECT_EQ(bytes.size(), address.family() == AF_INET ? 4U : 16U) << ip;
    EXPECT_EQ(Address::FromBytes(bytes, 4712).Text(), Numeric(ip, 4712).Text()) << ip;
  }
  EXPECT_TRUE(Address().ip_bytes().empty());
}

TEST(Address, RefusesWhatIsNotNumeric) {
  for (const char* text : {"", "localhost", "10.0.0", "10.0.0.256", "10.0.0.1 ", "010.0.0.1:80",
                           "[::1]", "::1%lo", ":::", "1.2.3.4.5"}) {
    const auto address = Address::FromNumeric(text, 80);
    ASSERT_FALSE(address.has_value()) << text;
    EXPECT_NE(address.error().message.find("not a numeric"), std::string::npos);
  }
}

TEST(Address, ChangesItsPort) {
  Address v4 = Numeric("10.0.0.7", 80);
  v4.set_port(8080);
  EXPECT_EQ(v4.Text(), "10.0.0.7:8080");
  Address v6 = Numeric("::1", 80);
  v6.set_port(8080);
  EXPECT_EQ(v6.Text(), "[::1]:8080");
}

TEST(Address, OfSomethingThatIsNoSocketIsUnspecified) {
  EXPECT_EQ(Address::OfPeer(-1).family(), AF_UNSPEC);
  EXPECT_EQ(Address::OfSocket(-1).family(), AF_UNSPEC);
}

TEST(Address, ResolvesNumericTextWithoutAskingAnybody) {
  const auto address = Address::Resolve("127.0.0.1", 9);
  ASSERT_TRUE(address.has_value());
  EXPECT_EQ(address->Text(), "127.0.0.1:9");
}

struct CidrCase {
  const char* block;
  const char* address;
  bool inside;
};

class CidrContains : public testing::TestWithParam<CidrCase> {};

TEST_P(CidrContains, As) {
  const auto block = Cidr::Parse(GetParam().block);
  ASSERT_TRUE(block.has_value());
  EXPECT_EQ(block->Contains(Numeric(GetParam().address)), GetParam().inside)
      << GetParam().block << " " << GetParam().address;
}

INSTANTIATE_TEST_SUITE_P(
    Table, CidrContains,
    testing::Values(
        CidrCase{"10.0.0.0/8", "10.255.0.1", true}, CidrCase{"10.0.0.0/8", "11.0.0.0", false},
        CidrCase{"10.0.0.0/9", "10.127.255.255", true}, CidrCase{"10.0.0.0/9", "10.128.0.0", false},
        CidrCase{"10.1.2.3/8", "10.9.9.9", true},  // bits behind the prefix are ignored
        CidrCase{"192.168.1.7", "192.168.1.7", true}, CidrCase{"192.168.1.7", "192.168.1.6", false},
        CidrCase{"192.168.1.6/31", "192.168.1.7", true}, CidrCase{"0.0.0.0/0", "203.0.113.9", true},
        CidrCase{"0.0.0.0/0", "2001:db8::1", false}, CidrCase{"::/0", "10.0.0.1", true},
        CidrCase{"10.0.0.0/8", "::ffff:10.0.0.1", true},
        CidrCase{"2001:db8::/32", "2001:db8:ffff::1", true},
        CidrCase{"2001:db8::/32", "2001:db9::1", false},
        CidrCase{"2001:db8::/33", "2001:db8:8000::", false}, CidrCase{"::1", "::1", true},
        CidrCase{"::1", "::2", false}));

TEST(Cidr, RefusesWhatIsNotABlock) {
  for (const char* text :
       {"", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8x", "10.0.0.0/ 8",
        "10.0.0.0/8/8", "::/129", "example.com/8", "10.0.0.0/99999999999999999999"}) {
    const auto block = Cidr::Parse(text);
    ASSERT_FALSE(block.has_value()) << text;
    EXPECT_FALSE(block.error().message.empty());
  }
}

}  // namespace
}  // namespace sluice::net
