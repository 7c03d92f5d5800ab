// Proves which part of a request is hashed: the first rule that finds something, and the client's
// address when none does.
#include "proxy/routing/affinity.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace sluice::routing {
namespace {

using Source = AffinityRule::Source;

constexpr std::string_view kIp = "203.0.113.9";

http::RequestHead Request() {
  http::RequestHead head;
  head.method = "GET";
  head.path = "/rooms/blue/42";
  head.query = "token=t1&empty=&room=7";
  head.fields = {
      {"Host", "chat.example.com"}, {"X-User", ""},        {"x-user", "alice"},
      {"Cookie", "theme=; a=b"},    {"Cookie", "sid=s99"}, {"X-Empty", ""},
  };
  return head;
}

TEST(AffinityKey, TakesTheFirstRuleThatFindsSomething) {
  struct Case {
    const char* name;
    std::vector<AffinityRule> rules;
    std::string_view want;
  };

  const std::vector<Case> cases = {
      {"no rule", {}, kIp},
      {"ip", {{Source::kIp, "", 0}}, kIp},
      {"cookie", {{Source::kCookie, "a", 0}}, "b"},
      {"cookie in the second field", {{Source::kCookie, "sid", 0}}, "s99"},
      {"cookie names keep their case", {{Source::kCookie, "SID", 0}}, kIp},
      {"empty cookie", {{Source::kCookie, "theme", 0}}, kIp},
      {"absent cookie", {{Source::kCookie, "nope", 0}}, kIp},
      {"header, any case", {{Source::kHeader, "X-USER", 0}}, "alice"},
      {"empty header", {{Source::kHeader, "X-Empty", 0}}, kIp},
      {"absent header", {{Source::kHeader, "X-Nope", 0}}, kIp},
      {"query", {{Source::kQuery, "token", 0}}, "t1"},
      {"last query parameter", {{Source::kQuery, "room", 0}}, "7"},
      {"empty query parameter", {{Source::kQuery, "empty", 0}}, kIp},
      {"absent query parameter", {{Source::kQuery, "tok", 0}}, kIp},
      {"first path segment", {{Source::kPath, "", 1}}, "rooms"},
      {"second path segment", {{Source::kPath, "", 2}}, "blue"},
      {"last path segment", {{Source::kPath, "", 3}}, "42"},
      {"beyond the last segment", {{Source::kPath, "", 4}}, kIp},
      {"segment zero", {{Source::kPath, "", 0}}, kIp},
      {"first present wins", {{Source::kQuery, "token", 0}, {Source::kCookie, "sid", 0}}, "t1"},
      {"absent ones are passed over",
       {{Source::kCookie, "nope", 0}, {Source::kQuery, "empty", 0}, {Source::kHeader, "X-User", 0}},
       "alice"},
      {"ip ends the search", {{Source::kIp, "", 0}, {Source::kQuery, "token", 0}}, kIp},
  };
  const http::RequestHead head = Request();
  for (const Case& c : cases) {
    EXPECT_EQ(AffinityKey(c.rules, head, kIp), c.want) << c.name;
  }
}

TEST(AffinityKey, CountsPathSegmentsAsSent) {
  struct Case {
    std::string_view path;
    std::size_t segment;
    std::string_view want;
  };

  const std::vector<Case> cases = {
      {"/", 1, kIp},        {"/a", 1, "a"},  {"/a", 2, kIp},  {"/a/", 1, "a"},
      {"/a/", 2, kIp},      {"//b", 1, kIp}, {"//b", 2, "b"}, {"/a//c", 2, kIp},
      {"/a//c", 3, "c"},    {"*", 1, kIp},   {"", 1, kIp},    {"/%61/b", 1, "%61"},
      {"/a/b", 1'000, kIp},
  };
  for (const Case& c : cases) {
    http::RequestHead head;
    head.path = c.path;
    const std::vector<AffinityRule> rules = {{Source::kPath, "", c.segment}};
    EXPECT_EQ(AffinityKey(rules, head, kIp), c.want) << c.path << " segment " << c.segment;
  }
}

TEST(AffinityKey, ViewsTheRequestItself) {
  const std::string query = "token=abc";
  http::RequestHead head;
  head.query = query;
  const std::vector<AffinityRule> rules = {{Source::kQuery, "token", 0}};
  EXPECT_EQ(AffinityKey(rules, head, kIp).data(), query.data() + 6);
}

TEST(DecodePercent, TakesTheEncodingOff) {
  struct Case {
    std::string_view encoded;
    std::string_view want;
  };

  const std::vector<Case> cases = {
      {"", ""},
      {"abc", "abc"},
      {"a%2Bb%2fc%3D%3d", "a+b/c=="},
      {"%41", "A"},
      {"%25%34%31", "%41"},  // once only
      {"a+b", "a+b"},
      {"%", "%"},
      {"%4", "%4"},
      {"%4g%g4%%41", "%4g%g4%A"},
      {"x%", "x%"},
  };
  for (const Case& c : cases) {
    std::string space = "before";
    EXPECT_EQ(DecodePercent(c.encoded, space), c.want) << c.encoded;
  }
  std::string space;
  EXPECT_EQ(DecodePercent("%00", space), std::string_view("\0", 1));
  const std::string_view plain = "plain";
  EXPECT_EQ(DecodePercent(plain, space).data(), plain.data()) << "nothing to copy";
}

}  // namespace
}  // namespace sluice::routing
