// Proves what is made of a route's rules when the configuration is loaded.
#include "proxy/session/route_heads.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sluice::session {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(RouteHeads, AreEmptyWithoutRules) {
  const RouteHeads heads{config::Route()};
  EXPECT_THAT(heads.request().removed, IsEmpty());
  EXPECT_EQ(heads.request().added, "");
  EXPECT_THAT(heads.response(false).removed, IsEmpty());
  EXPECT_EQ(heads.response(false).added, "");
  EXPECT_EQ(heads.own_answer(false), "");
}

TEST(RouteHeads, AreNamesAndWholeLines) {
  config::Route route;
  route.request_headers = {{{"X-B", "b c"}, {"X-A", "a"}}, {"X-D", "X-E"}};
  route.response_headers = {{{"Server", "s"}}, {"server"}};
  const RouteHeads heads(route);
  EXPECT_THAT(heads.request().removed, ElementsAre("X-D", "X-E"));
  EXPECT_EQ(heads.request().added, "X-B: b c\r\nX-A: a\r\n");
  EXPECT_THAT(heads.response(false).removed, ElementsAre("server"));
  EXPECT_EQ(heads.response(false).added, "Server: s\r\n");
  EXPECT_EQ(heads.own_answer(false), "Server: s\r\n");
}

TEST(RouteHeads, LeaveWhatSluicesOwnAnswersHaveAlready) {
  config::Route route;
  route.response_headers.add = {
      {"cache-control", "public"}, {"X-A", "a"},     {"Content-Type", "b"},    {"Retry-After", "9"},
      {"Location", "/"},           {"Allow", "GET"}, {"www-authenticate", "c"}};
  const RouteHeads heads(route);
  EXPECT_EQ(heads.own_answer(false), "X-A: a\r\n");
  EXPECT_EQ(heads.response(false).added,
            "cache-control: public\r\nX-A: a\r\nContent-Type: b\r\nRetry-After: 9\r\n"
            "Location: /\r\nAllow: GET\r\nwww-authenticate: c\r\n");
}

TEST(RouteHeads, HaveStrictTransportSecurityOverTlsOnly) {
  config::Route route;
  route.response_headers = {{{"X-A", "a"}}, {"X-B"}};
  route.hsts.emplace();
  const RouteHeads heads(route);
  EXPECT_EQ(heads.response(false).added, "X-A: a\r\n");
  EXPECT_EQ(heads.own_answer(false), "X-A: a\r\n");
  const std::string_view want = "X-A: a\r\nStrict-Transport-Security: max-age=31536000\r\n";
  EXPECT_EQ(heads.response(true).added, want);
  EXPECT_EQ(heads.own_answer(true), want);
  EXPECT_THAT(heads.response(true).removed, ElementsAre("X-B", "Strict-Transport-Security"));
  EXPECT_THAT(heads.response(false).removed, ElementsAre("X-B", "Strict-Transport-Security"));
}

TEST(RouteHeads, WriteTheDirectivesOfStrictTransportSecurity) {
  const auto line = [](config::Hsts hsts) {
    config::Route route;
    route.hsts = hsts;
    return std::string(RouteHeads(route).own_answer(true));
  };
  EXPECT_EQ(line({.max_age = Millis(0)}), "Strict-Transport-Security: max-age=0\r\n");
  EXPECT_EQ(line({.max_age = Millis(1999)}), "Strict-Transport-Security: max-age=1\r\n");
  EXPECT_EQ(line({.include_subdomains = true, .preload = true}),
            "Strict-Transport-Security: max-age=31536000; includeSubDomains; preload\r\n");
}

}  // namespace
}  // namespace sluice::session
