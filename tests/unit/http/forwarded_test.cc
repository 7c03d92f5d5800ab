// Proves which hops are read out of Forwarded (RFC 7239) and X-Forwarded-For, and that what breaks
// the grammar is not guessed at.
#include "proxy/http/forwarded.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sluice::http {
namespace {

using Nodes = std::optional<std::vector<std::string>>;

struct Case {
  const char* name;
  std::vector<std::string> lines;
  Nodes want;
};

void PrintTo(const Case& one, std::ostream* out) {
  *out << one.name;
}

class ForwardedFields : public testing::TestWithParam<Case> {};

TEST_P(ForwardedFields, GiveTheirNodes) {
  Fields fields;
  for (const std::string& line : GetParam().lines) {
    fields.emplace_back("forwarded", line);
    fields.emplace_back("X-Other", "for=6.6.6.6");
  }
  EXPECT_EQ(ForwardedNodes(fields), GetParam().want);
}

const Case kCases[] = {
    {"NoField", {}, {{}}},
    {"OneHop", {"for=192.0.2.43"}, {{"192.0.2.43"}}},
    {"AllParameters", {"for=192.0.2.60;proto=http;by=203.0.113.43"}, {{"192.0.2.60"}}},
    {"ForIsNotFirst", {"proto=http;By=\"_x\";FOR=192.0.2.60"}, {{"192.0.2.60"}}},
    {"TwoHops", {"for=192.0.2.43, for=198.51.100.17"}, {{"192.0.2.43", "198.51.100.17"}}},
    {"TwoLines", {"for=1.1.1.1", "for=2.2.2.2,for=3.3.3.3"}, {{"1.1.1.1", "2.2.2.2", "3.3.3.3"}}},
    {"WithoutSpaces", {"for=1.1.1.1,for=2.2.2.2"}, {{"1.1.1.1", "2.2.2.2"}}},
    {"SpacesAboutSemicolons", {"for=1.1.1.1 ; proto=https"}, {{"1.1.1.1"}}},
    {"Ipv6", {"for=\"[2001:db8:cafe::17]:4711\""}, {{"[2001:db8:cafe::17]:4711"}}},
    {"Unknown", {"for=unknown, for=_hidden"}, {{"unknown", "_hidden"}}},
    {"NoFor", {"proto=https, for=1.1.1.1"}, {{"", "1.1.1.1"}}},
    {"EmptyElements", {",, for=1.1.1.1,"}, {{"1.1.1.1"}}},
    {"EmptyField", {""}, {{}}},
    {"EmptyPairs", {";for=1.1.1.1;;proto=http;"}, {{"1.1.1.1"}}},
    {"QuotedPair", {"for=\"1.1.1\\.1\""}, {{"1.1.1.1"}}},
    {"CommaInQuotes", {"for=\"a, for=6.6.6.6\";by=x"}, {{"a, for=6.6.6.6"}}},
    {"QuoteInQuotes", {"for=\"a\\\"b\""}, {{"a\"b"}}},

    {"OpenQuote", {"for=\"1.1.1.1"}, {}},
    {"OpenQuoteBeforeAnotherLine", {"for=\"1.1.1.1", "for=\"2.2.2.2\""}, {}},
    {"BackslashAtTheEnd", {"for=\"1.1.1.1\\"}, {}},
    {"JunkBehindQuote", {"for=\"1.1.1.1\"x"}, {}},
    {"NoValue", {"for="}, {}},
    {"NoName", {"=1.1.1.1"}, {}},
    {"NoEquals", {"1.1.1.1"}, {}},
    {"SpaceBeforeEquals", {"for =1.1.1.1"}, {}},
    {"SpaceBehindEquals", {"for= 1.1.1.1"}, {}},
    {"PortWithoutQuotes", {"for=1.1.1.1:80"}, {}},
    {"Ipv6WithoutQuotes", {"for=[::1]"}, {}},
    {"ForTwice", {"for=1.1.1.1;for=6.6.6.6"}, {}},
    {"TwoValues", {"for=1.1.1.1 for=6.6.6.6"}, {}},
    {"GoodThenBad", {"for=1.1.1.1, \"x"}, {}},
    {"BadSecondLine", {"for=1.1.1.1", "@"}, {}},
};
INSTANTIATE_TEST_SUITE_P(Table, ForwardedFields, testing::ValuesIn(kCases),
                         [](const auto& one) { return std::string(one.param.name); });

TEST(AddressOfNode, IsWithoutPortAndBrackets) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"192.0.2.43", "192.0.2.43"},
      {"192.0.2.43:80", "192.0.2.43"},
      {"192.0.2.43:_obf", "192.0.2.43"},
      {"[2001:db8::17]", "2001:db8::17"},
      {"[2001:DB8::17]:4711", "2001:DB8::17"},
      {"2001:db8::17", "2001:db8::17"},
      {"::ffff:10.0.0.1", "::ffff:10.0.0.1"},
      // None.
      {"", ""},
      {"unknown", ""},
      {"_hidden", ""},
      {"_SEVKISEK:80", ""},
      {"192.0.2.43:", ""},
      {"192.0.2.43:123456", ""},
      {"192.0.2.43:8x", ""},
      {"[2001:db8::17", ""},
      {"[2001:db8::17]x", ""},
      {"[2001:db8::17]:", ""},
      {"[192.0.2.43]", ""},
      {"[]", ""},
      {"10.0.0.1 ", ""},
      {"fe80::1%eth0", ""},
      {std::string_view("10.0.0.1\0", 9), ""},
  };
  for (const auto& [node, address] : cases) {
    EXPECT_EQ(AddressOfNode(node), address) << node;
  }
}

}  // namespace
}  // namespace sluice::http
