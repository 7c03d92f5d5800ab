// Proves which rule a request falls under: precedence of hosts and paths, the spellings of one
// host, prefixes on segment borders, and that no spelling of a path slips past its rule.
#include "proxy/routing/route_table.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace sluice::routing {
namespace {

// The rule taken, as "host path", or "none".
std::string Taken(const std::vector<RouteRule>& rules, std::string_view host,
                  std::string_view path) {
  const std::optional<std::size_t> index = RouteTable(rules).Match(host, path);
  if (!index.has_value()) {
    return "none";
  }
  const RouteRule& rule = rules.at(*index);
  return (rule.host.empty() ? "any" : rule.host) + " " + rule.path;
}

struct Case {
  std::string_view host;
  std::string_view path;
  std::string_view want;
};

void ExpectAll(const std::vector<RouteRule>& rules, const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    EXPECT_EQ(Taken(rules, c.host, c.path), c.want) << c.host << " " << c.path;
  }
  // Precedence is by what the rules say, never by where they stand.
  const std::vector<RouteRule> reversed(rules.rbegin(), rules.rend());
  for (const Case& c : cases) {
    EXPECT_EQ(Taken(reversed, c.host, c.path), c.want) << c.host << " " << c.path << ", reversed";
  }
}

TEST(RouteTable, PrefersTheMoreExactHostThenTheLongerPath) {
  ExpectAll(
      {
          {"", "/"},
          {"", "/socket"},
          {"*.example.com", "/"},
          {"*.example.com", "/socket"},
          {"*.eu.example.com", "/socket"},
          {"chat.example.com", "/socket"},
          {"chat.example.com", "/socket/v2"},
      },
      {
          {"chat.example.com", "/socket", "chat.example.com /socket"},
          {"chat.example.com", "/socket/v2", "chat.example.com /socket/v2"},
          {"chat.example.com", "/socket/v2/x", "chat.example.com /socket/v2"},
          {"chat.example.com", "/socket/v3", "chat.example.com /socket"},
          // No rule of the exact host takes the path.
          {"chat.example.com", "/other", "*.example.com /"},
          {"www.example.com", "/socket", "*.example.com /socket"},
          {"a.eu.example.com", "/socket", "*.eu.example.com /socket"},
          {"a.eu.example.com", "/other", "*.example.com /"},
          {"eu.example.com", "/socket", "*.example.com /socket"},
          {"example.com", "/socket", "any /socket"},
          {"elsewhere.org", "/socket/1", "any /socket"},
          {"elsewhere.org", "/", "any /"},
          {"", "/socket", "any /socket"},
      });
}

TEST(RouteTable, ALongerPathDoesNotBeatAMoreExactHost) {
  ExpectAll({{"", "/a/b/c"}, {"*.x.org", "/a/b"}, {"w.x.org", "/"}},
            {{"w.x.org", "/a/b/c", "w.x.org /"},
             {"v.x.org", "/a/b/c", "*.x.org /a/b"},
             {"x.org", "/a/b/c", "any /a/b/c"}});
}

TEST(RouteTable, OfTwoEqualRulesTheFirstWins) {
  const std::vector<RouteRule> rules = {{"", "/a"}, {"", "/a/"}, {"", "/a"}};
  EXPECT_EQ(RouteTable(rules).Match("x", "/a"), 0U);
}

TEST(RouteTable, WithoutARuleMatchesNothing) {
  EXPECT_EQ(RouteTable({}).Match("chat.example.com", "/"), std::nullopt);
}

TEST(RouteTable, TakesEverySpellingOfAHost) {
  ExpectAll(
      {{"chat.example.com", "/"}, {"*.wild.org", "/"}, {"[2001:db8::1]", "/"}, {"10.0.0.1", "/"}},
      {
          {"chat.example.com", "/", "chat.example.com /"},
          {"CHAT.Example.COM", "/", "chat.example.com /"},
          {"chat.example.com:8443", "/", "chat.example.com /"},
          {"chat.example.com.", "/", "chat.example.com /"},
          {"Chat.example.com.:443", "/", "chat.example.com /"},
          {"chat.example.com..", "/", "none"},
          {"chat.example.comm", "/", "none"},
          {"xchat.example.com", "/", "none"},
          {"chat.example", "/", "none"},
          {"A.WILD.org:1", "/", "*.wild.org /"},
          {"a.b.wild.org", "/", "*.wild.org /"},
          {"wild.org", "/", "none"},
          {".wild.org", "/", "none"},
          {"awild.org", "/", "none"},
          {"a.wild.org.evil.com", "/", "none"},
          {"[2001:db8::1]", "/", "[2001:db8::1] /"},
          {"[2001:DB8::1]:8443", "/", "[2001:db8::1] /"},
          {"[2001:db8::2]", "/", "none"},
          {"[2001:db8::1", "/", "none"},
          {"10.0.0.1:80", "/", "10.0.0.1 /"},
          {"10.0.0.10", "/", "none"},
          {"", "/", "none"},
      });
}

TEST(RouteTable, TakesAPrefixOnSegmentBorders) {
  for (const std::string path : {"/socket", "/socket/"}) {
    const std::string taken = "any " + path;
    ExpectAll({{"", path}}, {
                                {"x", "/socket", taken},
                                {"x", "/socket/", taken},
                                {"x", "/socket/x", taken},
                                {"x", "/socket/x/y", taken},
                                {"x", "/socketx", "none"},
                                {"x", "/socke", "none"},
                                {"x", "/Socket", "none"},
                                {"x", "/", "none"},
                                {"x", "/x/socket", "none"},
                            });
  }
}

TEST(RouteTable, TheRootTakesEveryPath) {
  ExpectAll({{"", "/"}}, {{"x", "/", "any /"},
                          {"x", "/a", "any /"},
                          {"x", "/a/b/", "any /"},
                          {"x", "*", "any /"},
                          {"x", "", "none"},
                          {"x", "a", "none"},
                          {"x", "**", "none"},
                          {"x", "example.com:443", "none"}});
}

TEST(RouteTable, TheServerAsAWholeBelongsToTheRoot) {
  ExpectAll({{"", "/a"}}, {{"x", "*", "none"}});
  ExpectAll({{"h", "/a"}, {"", "/"}}, {{"h", "*", "any /"}});
}

TEST(RouteTable, NoSpellingSlipsPastARule) {
  // Were any of these taken by "/", a backend that reads it as /admin would serve it under the
  // wrong rule.
  const std::vector<RouteRule> rules = {{"", "/"}, {"", "/admin/users"}};
  for (const std::string_view path : {
           "/admin/users",
           "/%61dmin/users",
           "/%61%64%6D%69%6e/users",
           "//admin/users",
           "/admin//users",
           "/admin///users//x",
           "/admin%2Fusers",
           "/admin%2fusers%2fx",
           "/admin\\users",
           "/admin%5cusers",
           "/%2fadmin/users",
           "/admin;v=1/users",
           "/admin/users;jsessionid=1",
           "/admin;a=b;c=d/;/users/x",
           "/;x/admin/users",
           "/admin%3bv=1/users",
       }) {
    EXPECT_EQ(Taken(rules, "x", path), "any /admin/users") << path;
  }
}

TEST(RouteTable, DecodesOnceOnly) {
  const std::vector<RouteRule> rules = {{"", "/"}, {"", "/admin"}, {"", "/100%"}, {"", "/%25x"}};
  ExpectAll(rules, {
                       {"x", "/%2561dmin", "any /"},
                       {"x", "/%252e%252e/admin", "any /"},
                       // A sign without two digits stands for itself.
                       {"x", "/100%", "any /100%"},
                       {"x", "/100%25", "any /100%"},
                       {"x", "/100%2", "any /"},
                       {"x", "/100%zz", "any /"},
                       {"x", "/%25x", "any /%25x"},
                   });
}

TEST(RouteTable, ComparesEncodedRulesDecoded) {
  ExpectAll({{"", "/caf%C3%A9"}}, {{"x", "/caf%c3%a9", "any /caf%C3%A9"},
                                   {"x", "/%63af%C3%A9/x", "any /caf%C3%A9"},
                                   {"x", "/cafe", "none"}});
}

TEST(RouteTable, RefusesDotSegments) {
  const std::vector<RouteRule> rules = {{"", "/"}, {"", "/socket"}};
  for (const std::string_view path : {
           "/..",
           "/.",
           "/../",
           "/socket/..",
           "/socket/../admin",
           "/socket/./admin",
           "/socket/.",
           "/./socket",
           "/socket/%2e%2e/admin",
           "/socket/%2E./admin",
           "/socket/.%2e",
           "/socket/%2e",
           "/socket/..%2fadmin",
           "/socket%2f..%2fadmin",
           "/socket/..\\admin",
           "/socket\\..\\admin",
           "/socket/..%5cadmin",
           "/socket/..;/admin",
           "/socket/..;x=1/admin",
           "/socket/..%3b/admin",
           "/socket/.;/admin",
           "/socket;%2f../admin",
           "/socket;/../admin",
           "/socket/%00",
           "/socket%00/x",
       }) {
    EXPECT_EQ(Taken(rules, "x", path), "none") << path;
  }
}

TEST(RouteTable, TakesDotsThatAreNotSegments) {
  const std::vector<RouteRule> rules = {{"", "/"}, {"", "/socket.io"}};
  ExpectAll(rules, {
                       {"x", "/socket.io/", "any /socket.io"},
                       {"x", "/socket%2eio/1", "any /socket.io"},
                       {"x", "/...", "any /"},
                       {"x", "/..a", "any /"},
                       {"x", "/a..", "any /"},
                       {"x", "/.well-known/x", "any /"},
                       {"x", "/a;..", "any /"},
                       {"x", "/x.", "any /"},
                   });
}

}  // namespace
}  // namespace sluice::routing
