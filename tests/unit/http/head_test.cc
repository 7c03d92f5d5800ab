// Proves the small questions that are asked of a parsed head: names, lists, cookies, queries.
#include "proxy/http/head.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sluice::http {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> Elements(const Fields& fields, std::string_view name) {
  std::vector<std::string> out;
  ForEachListElement(fields, name, [&](std::string_view element) { out.emplace_back(element); });
  return out;
}

// RFC 9110 section 5.1: field names are case-insensitive, in ASCII alone.
TEST(Head, ComparesNamesWithoutCase) {
  EXPECT_TRUE(EqualsIgnoreCase("Sec-WebSocket-Key", "sec-websocket-kEY"));
  EXPECT_TRUE(EqualsIgnoreCase("", ""));
  EXPECT_FALSE(EqualsIgnoreCase("Host", "Hosts"));
  EXPECT_FALSE(EqualsIgnoreCase("a@b", "a`b"));  // 0x40 and 0x60 differ by the case bit alone
  EXPECT_FALSE(EqualsIgnoreCase("[", "{"));
  EXPECT_FALSE(EqualsIgnoreCase("\xC4", "\xE4"));
}

TEST(Head, FindsTheFirstAndCountsAll) {
  const Fields fields = {{"A", "1"}, {"b", "2"}, {"a", "3"}};
  ASSERT_NE(Find(fields, "a"), nullptr);
  EXPECT_EQ(Find(fields, "a")->value, "1");
  EXPECT_EQ(Find(fields, "B")->value, "2");
  EXPECT_EQ(Find(fields, "c"), nullptr);
  EXPECT_EQ(Count(fields, "a"), 2U);
  EXPECT_EQ(Count(fields, "c"), 0U);
}

// RFC 9110 section 5.6.1: fields of one name make up one list; empty elements are skipped.
TEST(Head, JoinsTheListOfAllFieldsOfAName) {
  const Fields fields = {
      {"Upgrade", "websocket,\t h2c ,, "}, {"Connection", "x"}, {"UPGRADE", ","}, {"upgrade", "b"}};
  EXPECT_THAT(Elements(fields, "Upgrade"), ElementsAre("websocket", "h2c", "b"));
  EXPECT_THAT(Elements(fields, "Trailer"), IsEmpty());
  EXPECT_TRUE(HasToken(fields, "Upgrade", "H2C"));
  EXPECT_TRUE(HasToken(fields, "upgrade", "B"));
  EXPECT_FALSE(HasToken(fields, "Upgrade", "web"));
  EXPECT_FALSE(HasToken(fields, "Upgrade", ""));
}

// RFC 9110 section 7.6.1
TEST(Head, KnowsWhatBelongsToOneConnection) {
  for (const std::string_view name : {"connection", "Keep-Alive", "PROXY-CONNECTION", "te",
                                      "Trailer", "transfer-encoding", "Upgrade"}) {
    EXPECT_TRUE(IsHopByHop(name)) << name;
  }
  for (const std::string_view name :
       {"Host", "Content-Length", "Connections", "T", "Trailers", "Sec-WebSocket-Key", ""}) {
    EXPECT_FALSE(IsHopByHop(name)) << name;
  }
  const Fields fields = {{"Connection", "Upgrade, X-Secret"}, {"connection", "close"}};
  EXPECT_TRUE(IsNamedByConnection(fields, "x-secret"));
  EXPECT_TRUE(IsNamedByConnection(fields, "Close"));
  EXPECT_FALSE(IsNamedByConnection(fields, "X"));
}

// RFC 6265 section 5.4
TEST(Head, ReadsACookieByItsExactName) {
  const Fields fields = {{"Cookie", "theme=dark; sid=a=b==;sid2=c; empty=;  last=z"},
                         {"cookie", "other=1; empty=2"}};
  EXPECT_EQ(CookieValue(fields, "theme"), "dark");
  EXPECT_EQ(CookieValue(fields, "sid"), "a=b==");
  EXPECT_EQ(CookieValue(fields, "sid2"), "c");
  EXPECT_EQ(CookieValue(fields, "last"), "z");
  EXPECT_EQ(CookieValue(fields, "other"), "1");
  EXPECT_EQ(CookieValue(fields, "SID"), "");
  EXPECT_EQ(CookieValue(fields, "si"), "");
  EXPECT_EQ(CookieValue(fields, "id"), "");
  EXPECT_EQ(CookieValue(fields, "empty"), "2");
  EXPECT_EQ(CookieValue({}, "sid"), "");
}

TEST(Head, ReadsAQueryParameterRaw) {
  const std::string_view query = "EIO=4&transport=polling&&t=a%2Fb+c&flag&t=2&eq==";
  EXPECT_EQ(QueryValue(query, "EIO"), "4");
  EXPECT_EQ(QueryValue(query, "transport"), "polling");
  EXPECT_EQ(QueryValue(query, "t"), "a%2Fb+c");
  EXPECT_EQ(QueryValue(query, "eq"), "=");
  EXPECT_EQ(QueryValue(query, "flag"), "");
  EXPECT_EQ(QueryValue(query, "port"), "");
  EXPECT_EQ(QueryValue("", "a"), "");
}

TEST(Head, TrimsSpacesAndTabsAlone) {
  EXPECT_EQ(Trim(" \t a b\t "), "a b");
  EXPECT_EQ(Trim(" \t "), "");
  EXPECT_EQ(Trim("\r a"), "\r a");
  EXPECT_EQ(Trim(""), "");
}

}  // namespace
}  // namespace sluice::http
