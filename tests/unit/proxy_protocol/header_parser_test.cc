// Proves which headers are taken, for whom, and that not a byte behind them counts; and that what
// proxy-protocol.txt does not allow is refused, wherever the bytes are cut.
#include "proxy/proxy_protocol/header_parser.h"

#include <array>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/split.h"
#include "tests/unit/proxy_protocol/header_reference.h"

namespace sluice::proxy_protocol {
namespace {

// As a socket gives it: all that has come, after each piece, until there is a verdict.
std::string Feed(const std::vector<std::string_view>& pieces) {
  std::string received;
  for (const std::string_view piece : pieces) {
    received += piece;
    // In memory of its own size, so that the sanitizer sees a look behind the end.
    const std::vector<char> exact(received.begin(), received.end());
    const Parsed parsed = Parse(AsBytes({exact.data(), exact.size()}));
    if (parsed.status != ParseStatus::kNeedMore) {
      return Describe(parsed);
    }
  }
  return "more";
}

struct Case {
  const char* name;
  std::string input;
  std::string want;  // of Describe
};

void PrintTo(const Case& one, std::ostream* out) {
  *out << one.name;
}

constexpr std::string_view kV4Client = "4:c0000201:4660 > 4:c6336402:443";
constexpr std::string_view kV6Client =
    "6:20010db8000000000000000000000001:4660 > 6:20010db8000000000000000000000002:443";

std::string Done(std::string_view header, std::string_view what) {
  return "done " + std::to_string(header.size()) + " " + std::string(what);
}

Case Good(const char* name, const std::string& header, std::string_view what) {
  return {name, header, Done(header, what)};
}

std::string Summed(std::string_view behind = {}) {
  const std::string header =
      V2(0x21, 0x11, V4Addresses() + Tlv(0x03, kSumMarker) + std::string(behind));
  return WithSum(header, 31);
}

class HeaderParser : public testing::TestWithParam<Case> {};

TEST_P(HeaderParser, SaysTheSameHoweverTheBytesCome) {
  const Case& one = GetParam();
  test::ForEachSplit(one.input, [&](const auto& pieces, const std::string& label) {
    EXPECT_EQ(Feed(pieces), one.want) << label;
  });
}

class GoodHeader : public testing::TestWithParam<Case> {};

TEST_P(GoodHeader, EndsWhereItSays) {
  const Case& one = GetParam();
  for (const std::string_view behind :
       {"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00", "\r\n", "PROXY UNKNOWN\r\n"}) {
    EXPECT_EQ(Feed({one.input + std::string(behind)}), one.want);
  }
}

const Case kGood[] = {
    // Section 2.1
    Good("V1Tcp4", "PROXY TCP4 192.0.2.1 198.51.100.2 4660 443\r\n",
         "v1 " + std::string(kV4Client)),
    Good("V1Tcp6", "PROXY TCP6 2001:db8::1 2001:DB8:0:0::2 4660 443\r\n",
         "v1 " + std::string(kV6Client)),
    Good("V1EdgesOfPorts", "PROXY TCP4 192.0.2.1 198.51.100.2 0 65535\r\n",
         "v1 4:c0000201:0 > 4:c6336402:65535"),
    Good("V1Unknown", "PROXY UNKNOWN\r\n", "v1 unknown"),
    Good("V1UnknownWithWhatIsIgnored", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
         "v1 unknown"),
    Good("V1UnknownWithJunk", "PROXY UNKNOWN  \x01 x\n\r\n", "v1 unknown"),
    // The longest of all headers, which section 2.1 counts to 107.
    Good("V1Longest",
         "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
         "v1 unknown"),
    // Section 2.2
    Good("V2Inet", V2(0x21, 0x11, V4Addresses()), "v2 " + std::string(kV4Client)),
    Good("V2Inet6", V2(0x21, 0x21, V6Addresses()), "v2 " + std::string(kV6Client)),
    Good("V2InetDatagram", V2(0x21, 0x12, V4Addresses()), "v2 " + std::string(kV4Client)),
    Good("V2Inet6Datagram", V2(0x21, 0x22, V6Addresses()), "v2 " + std::string(kV6Client)),
    Good("V2Unix", V2(0x21, 0x31, std::string(216, 'a')), "v2 unknown"),
    Good("V2UnixDatagram", V2(0x21, 0x32, std::string(216, 'a')), "v2 unknown"),
    Good("V2Unspecified", V2(0x21, 0x00, ""), "v2 unknown"),
    Good("V2UnspecifiedWithContent", V2(0x21, 0x00, "anything"), "v2 unknown"),
    Good("V2Local", V2(0x20, 0x00, ""), "v2 local"),
    Good("V2LocalWithAddresses", V2(0x20, 0x11, V4Addresses()), "v2 local"),
    Good("V2LocalWithWhatIsIgnored", V2(0x20, 0xFF, "anything"), "v2 local"),
    Good("V2WithFields",
         V2(0x21, 0x11, V4Addresses() + Tlv(0x02, "a.example") + Tlv(0x04, "") + Tlv(0xEA, "x")),
         "v2 " + std::string(kV4Client)),
    Good("V2Inet6WithFields", V2(0x21, 0x21, V6Addresses() + Tlv(0x05, "id")),
         "v2 " + std::string(kV6Client)),
    Good("V2WithChecksum", Summed(), "v2 " + std::string(kV4Client)),
    Good("V2WithChecksumAmongOthers", Summed(Tlv(0x05, "id")), "v2 " + std::string(kV4Client)),
    Good("V2Longest", V2(0x21, 0x11, V4Addresses() + Tlv(0x04, std::string(505, 'n'))),
         "v2 " + std::string(kV4Client)),
};
INSTANTIATE_TEST_SUITE_P(Good, HeaderParser, testing::ValuesIn(kGood),
                         [](const auto& one) { return std::string(one.param.name); });
INSTANTIATE_TEST_SUITE_P(Table, GoodHeader, testing::ValuesIn(kGood),
                         [](const auto& one) { return std::string(one.param.name); });

std::string V1(std::string_view rest) {
  return "PROXY " + std::string(rest) + "\r\n";
}

constexpr const char* kNoHeader = "bad no PROXY header";
constexpr const char* kProtocol = "bad neither TCP4 nor TCP6 nor UNKNOWN";
constexpr const char* kWords = "bad not two addresses and two ports";
constexpr const char* kAddress = "bad an address that is none of its family";
constexpr const char* kPort = "bad a port that is none";
constexpr const char* kLine = "bad a line that is too long";
constexpr const char* kFamily = "bad an unknown family or protocol";
constexpr const char* kHalf = "bad half of family and protocol unspecified";
constexpr const char* kShort = "bad shorter than its addresses";
constexpr const char* kCut = "bad a field that is cut off";
constexpr const char* kBeyond = "bad a field beyond the header";
constexpr const char* kSums = "bad not one checksum of four bytes";
constexpr const char* kSum = "bad a checksum that is wrong";

const Case kBad[] = {
    {"Http", "GET / HTTP/1.1\r\n\r\n", kNoHeader},
    {"ClientHello", "\x16\x03\x01", kNoHeader},
    {"LowerCase", "proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n", kNoHeader},
    {"SpaceInFront", " PROXY UNKNOWN\r\n", kNoHeader},
    {"EmptyLineInFront", "\r\nPROXY UNKNOWN\r\n", kNoHeader},
    {"TabBehindProxy", "PROXY\tUNKNOWN\r\n", kNoHeader},
    {"ProxyAlone", "PROXY\r\n", kNoHeader},
    {"NoProtocol", V1(""), kProtocol},
    {"Udp4", V1("UDP4 192.0.2.1 198.51.100.2 1 2"), kProtocol},
    {"LowerCaseProtocol", V1("tcp4 192.0.2.1 198.51.100.2 1 2"), kProtocol},
    {"UnknownThatGoesOn", V1("UNKNOWNS"), kProtocol},
    {"TwoSpacesInFront", V1(" TCP4 192.0.2.1 198.51.100.2 1 2"), kProtocol},
    {"NoPorts", V1("TCP4 192.0.2.1 198.51.100.2"), kWords},
    {"OnePort", V1("TCP4 192.0.2.1 198.51.100.2 1"), kWords},
    {"ThreePorts", V1("TCP4 192.0.2.1 198.51.100.2 1 2 3"), kWords},
    {"TwoSpaces", V1("TCP4 192.0.2.1  198.51.100.2 1 2"), kWords},
    {"SpaceAtTheEnd", V1("TCP4 192.0.2.1 198.51.100.2 1 2 "), kWords},
    {"TabBetween", V1("TCP4 192.0.2.1\t198.51.100.2 1 2"), kWords},
    {"V6InTcp4", V1("TCP4 2001:db8::1 198.51.100.2 1 2"), kAddress},
    {"V4InTcp6", V1("TCP6 192.0.2.1 2001:db8::2 1 2"), kAddress},
    {"LeadingZero", V1("TCP4 192.0.2.01 198.51.100.2 1 2"), kAddress},
    {"ThreeParts", V1("TCP4 192.0.2 198.51.100.2 1 2"), kAddress},
    {"PartTooLarge", V1("TCP4 192.0.2.256 198.51.100.2 1 2"), kAddress},
    {"HexAddress", V1("TCP4 0xC0000201 198.51.100.2 1 2"), kAddress},
    {"Name", V1("TCP4 localhost 198.51.100.2 1 2"), kAddress},
    {"Zone", V1("TCP6 fe80::1%eth0 2001:db8::2 1 2"), kAddress},
    {"Brackets", V1("TCP6 [2001:db8::1] 2001:db8::2 1 2"), kAddress},
    {"NulInAddress", V1(std::string("TCP4 192.0.2.1\0 198.51.100.2 1 2", 32)), kAddress},
    {"BadDestination", V1("TCP4 192.0.2.1 198.51.100 1 2"), kAddress},
    {"LongAddress", V1("TCP6 " + std::string(60, 'f') + " ::1 1 2"), kAddress},
    {"PortTooLarge", V1("TCP4 192.0.2.1 198.51.100.2 65536 2"), kPort},
    {"DestinationPortTooLarge", V1("TCP4 192.0.2.1 198.51.100.2 1 99999"), kPort},
    {"PortWithZero", V1("TCP4 192.0.2.1 198.51.100.2 01 2"), kPort},
    {"PortWithTwoZeros", V1("TCP4 192.0.2.1 198.51.100.2 00 2"), kPort},
    {"PortWithPlus", V1("TCP4 192.0.2.1 198.51.100.2 +1 2"), kPort},
    {"PortWithMinus", V1("TCP4 192.0.2.1 198.51.100.2 -1 2"), kPort},
    {"PortInHex", V1("TCP4 192.0.2.1 198.51.100.2 1f 2"), kPort},
    {"LfInLine", V1("TCP4 192.0.2.1 198.51.100.2 1 2\n"), kPort},
    {"LfAlone", "PROXY UNKNOWN\n" + std::string(100, 'x'), kLine},
    {"CrAlone", "PROXY UNKNOWN\rX", "bad a CR without its LF"},
    {"LineOf108", "PROXY UNKNOWN " + std::string(92, 'x') + "\r\n", kLine},
    {"LineWithoutEnd", "PROXY TCP4 " + std::string(2000, '1'), kLine},

    {"SignatureBroken", V2(0x21, 0x11, V4Addresses()).replace(11, 1, "\r"), kNoHeader},
    {"Version1", V2(0x11, 0x11, V4Addresses()), "bad an unknown version"},
    {"Version3", V2(0x31, 0x11, V4Addresses()), "bad an unknown version"},
    {"Command2", V2(0x22, 0x11, V4Addresses()), "bad an unknown command"},
    {"CommandF", V2(0x2F, 0x11, V4Addresses()), "bad an unknown command"},
    {"Family4", V2(0x21, 0x41, V4Addresses()), kFamily},
    {"Protocol3", V2(0x21, 0x13, V4Addresses()), kFamily},
    {"FamilyUnspecified", V2(0x21, 0x01, V4Addresses()), kHalf},
    {"ProtocolUnspecified", V2(0x21, 0x10, V4Addresses()), kHalf},
    {"InetWithoutAddresses", V2(0x21, 0x11, ""), kShort},
    {"InetTooShort", V2(0x21, 0x11, V4Addresses().substr(1)), kShort},
    {"Inet6TooShort", V2(0x21, 0x21, V6Addresses().substr(1)), kShort},
    {"UnixTooShort", V2(0x21, 0x31, std::string(215, 'a')), kShort},
    {"FieldOfOneByte", V2(0x21, 0x11, V4Addresses() + "\x04"), kCut},
    {"FieldOfTwoBytes", V2(0x21, 0x11, V4Addresses() + std::string("\x04\0", 2)), kCut},
    {"FieldBeyond", V2(0x21, 0x11, V4Addresses() + std::string("\x04\0\x01", 3)), kBeyond},
    {"FieldFarBeyond", V2(0x21, 0x11, V4Addresses() + "\x04\xFF\xFF" + "x"), kBeyond},
    {"SecondFieldBeyond",
     V2(0x21, 0x11, V4Addresses() + Tlv(0x04, "ab") + std::string("\x05\0\x02z", 4)), kBeyond},
    {"UnixFieldCut", V2(0x21, 0x31, std::string(216, 'a') + "\x04"), kCut},
    {"ChecksumOfThree", V2(0x21, 0x11, V4Addresses() + Tlv(0x03, "abc")), kSums},
    {"ChecksumOfFive", V2(0x21, 0x11, V4Addresses() + Tlv(0x03, "abcde")), kSums},
    {"ChecksumTwice", Summed(Tlv(0x03, "abcd")), kSums},
    {"ChecksumWrong", V2(0x21, 0x11, V4Addresses() + Tlv(0x03, "abcd")), kSum},
    {"ChecksumOfAnotherAddress", Summed().replace(16, 1, "\xC1"), kSum},
    {"ChecksumOfAnotherEnd", Summed(Tlv(0x05, "id")).replace(38, 1, "x"), kSum},
    {"LengthBeyondTheBound", V2(0x21, 0x11, std::string(521, 'a')), "bad too long"},
    {"LocalBeyondTheBound", V2(0x20, 0x00, std::string(521, 'a')), "bad too long"},
};
INSTANTIATE_TEST_SUITE_P(Bad, HeaderParser, testing::ValuesIn(kBad),
                         [](const auto& one) { return std::string(one.param.name); });

// Nothing of a header is an answer before its end, and nobody waits for more than its bound.
TEST(HeaderParserLimits, EveryBeginningOfAGoodHeaderWantsMore) {
  for (const Case& one : kGood) {
    for (std::size_t size = 0; size < one.input.size(); ++size) {
      EXPECT_EQ(Feed({std::string_view(one.input).substr(0, size)}), "more")
          << one.name << " of " << size;
      EXPECT_LT(size, kMostHeader);
    }
  }
}

TEST(HeaderParserLimits, TheBoundIsSaidByTheLengthAlone) {
  const std::string start = V2(0x21, 0x11, std::string(521, 'a')).substr(0, 16);
  EXPECT_EQ(Feed({start}), "bad too long") << "before the content has come";
}

// Each bit of a summed header, turned around, is noticed.
TEST(HeaderParserLimits, AChecksumCoversEveryBit) {
  const std::string header = Summed(Tlv(0x05, "id"));
  for (std::size_t bit = 0; bit < header.size() * 8; ++bit) {
    std::string turned = header;
    turned[bit / 8] = static_cast<char>(turned[bit / 8] ^ static_cast<char>(1U << bit % 8));
    const std::string verdict = Feed({turned});
    const bool is_lost_field = bit / 8 == 28;  // no field of that type any more: nothing to verify
    const bool is_local = bit == 12 * 8;       // then nothing of it counts
    if (!is_lost_field && !is_local) {
      EXPECT_NE(verdict.rfind("done", 0), 0U) << "bit " << bit << ": " << verdict;
    }
  }
}

}  // namespace
}  // namespace sluice::proxy_protocol
