// Proves the small questions that are asked of a parsed head: names, lists, cookies, queries.
#include "proxy/http/head.h"

#include <cctype>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sluice::http {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> Elements(const Fields& fields, FieldId id) {
  std::vector<std::string> out;
  ForEachListElement(fields, id, [&](std::string_view element) { out.emplace_back(element); });
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

// RFC 3875 section 4.1.18 makes one variable of them; some who followed take more for the same.
TEST(Head, KnowsWhichNamesMayBeTakenForOneAnother) {
  for (const std::string_view name : {"X-User-1", "x_uSER_1", "X.User!1", "x`user^1"}) {
    EXPECT_TRUE(MayBeTakenFor(name, "X-User-1")) << name;
    EXPECT_TRUE(MayBeTakenFor("X-User-1", name)) << name;
  }
  for (const std::string_view name :
       {"X-User-2", "X-User1", "XaUser-1", "X-User-", "X--User-1", "X-User_-"}) {
    EXPECT_FALSE(MayBeTakenFor(name, "X-User-1")) << name;
    EXPECT_FALSE(MayBeTakenFor("X-User-1", name)) << name;
  }
  EXPECT_FALSE(MayBeTakenFor("a@b", "aab"));
  EXPECT_FALSE(MayBeTakenFor("a0b", "a`b"));
}

TEST(Head, RecognisesEveryNameWithoutCase) {
  const std::pair<std::string_view, FieldId> names[] = {
      {"Accept", FieldId::kAccept},
      {"Authorization", FieldId::kAuthorization},
      {"Connection", FieldId::kConnection},
      {"Content-Length", FieldId::kContentLength},
      {"Content-Type", FieldId::kContentType},
      {"Cookie", FieldId::kCookie},
      {"Date", FieldId::kDate},
      {"Expect", FieldId::kExpect},
      {"Forwarded", FieldId::kForwarded},
      {"Host", FieldId::kHost},
      {"HTTP2-Settings", FieldId::kHttp2Settings},
      {"Keep-Alive", FieldId::kKeepAlive},
      {"Origin", FieldId::kOrigin},
      {"Proxy-Connection", FieldId::kProxyConnection},
      {"Sec-WebSocket-Accept", FieldId::kSecWebSocketAccept},
      {"Sec-WebSocket-Extensions", FieldId::kSecWebSocketExtensions},
      {"Sec-WebSocket-Key", FieldId::kSecWebSocketKey},
      {"Sec-WebSocket-Protocol", FieldId::kSecWebSocketProtocol},
      {"Sec-WebSocket-Version", FieldId::kSecWebSocketVersion},
      {"Set-Cookie", FieldId::kSetCookie},
      {"TE", FieldId::kTe},
      {"Trailer", FieldId::kTrailer},
      {"Transfer-Encoding", FieldId::kTransferEncoding},
      {"Upgrade", FieldId::kUpgrade},
      {"User-Agent", FieldId::kUserAgent},
      {"X-Forwarded-For", FieldId::kXForwardedFor},
      {"X-Forwarded-Host", FieldId::kXForwardedHost},
      {"X-Forwarded-Proto", FieldId::kXForwardedProto},
      {"X-Request-Id", FieldId::kXRequestId},
  };
  std::set<FieldId> seen;
  for (const auto& [name, id] : names) {
    std::string text(name);
    EXPECT_EQ(IdOf(text), id) << text;
    for (char& c : text) {
      c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    }
    EXPECT_EQ(IdOf(text), id) << text;
    for (char& c : text) {
      c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    EXPECT_EQ(IdOf(text), id) << text;
    EXPECT_EQ(Field(text, "").id, id) << text;
    EXPECT_EQ(IdOf(text + "s"), FieldId::kOther) << text;
    EXPECT_EQ(IdOf(text.substr(1)), FieldId::kOther) << text;
    text.back() = '_';
    EXPECT_EQ(IdOf(text), FieldId::kOther) << text;
    seen.insert(id);
  }
  EXPECT_EQ(seen.size(), static_cast<std::size_t>(FieldId::kXRequestId)) << "one is missing here";
  EXPECT_EQ(IdOf(""), FieldId::kOther);
  EXPECT_EQ(IdOf(std::string(1000, 'h')), FieldId::kOther);
}

TEST(Head, FindsTheFirstAndCountsAll) {
  const Fields fields = {{"Cookie", "1"}, {"Origin", "2"}, {"cookie", "3"}};
  ASSERT_NE(Find(fields, FieldId::kCookie), nullptr);
  EXPECT_EQ(Find(fields, FieldId::kCookie)->value, "1");
  EXPECT_EQ(Find(fields, FieldId::kOrigin)->value, "2");
  EXPECT_EQ(Find(fields, FieldId::kHost), nullptr);
  EXPECT_EQ(Count(fields, FieldId::kCookie), 2U);
  EXPECT_EQ(Count(fields, FieldId::kHost), 0U);
}

// RFC 9110 section 5.6.1: fields of one name make up one list; empty elements are skipped.
TEST(Head, JoinsTheListOfAllFieldsOfAName) {
  const Fields fields = {
      {"Upgrade", "websocket,\t h2c ,, "}, {"Connection", "x"}, {"UPGRADE", ","}, {"upgrade", "b"}};
  EXPECT_THAT(Elements(fields, FieldId::kUpgrade), ElementsAre("websocket", "h2c", "b"));
  EXPECT_THAT(Elements(fields, FieldId::kTrailer), IsEmpty());
  EXPECT_TRUE(HasToken(fields, FieldId::kUpgrade, "H2C"));
  EXPECT_TRUE(HasToken(fields, FieldId::kUpgrade, "B"));
  EXPECT_FALSE(HasToken(fields, FieldId::kUpgrade, "web"));
  EXPECT_FALSE(HasToken(fields, FieldId::kUpgrade, ""));
}

// RFC 9110 section 7.6.1
TEST(Head, KnowsWhatBelongsToOneConnection) {
  for (const std::string_view name :
       {"connection", "http2-settings", "Keep-Alive", "PROXY-CONNECTION", "te", "Trailer",
        "transfer-encoding", "Upgrade"}) {
    EXPECT_TRUE(IsHopByHop(IdOf(name))) << name;
  }
  for (const std::string_view name :
       {"Host", "Content-Length", "Connections", "T", "Trailers", "Sec-WebSocket-Key", ""}) {
    EXPECT_FALSE(IsHopByHop(IdOf(name))) << name;
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
