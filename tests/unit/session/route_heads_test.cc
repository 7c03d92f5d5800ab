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
  EXPECT_THAT(heads.response().removed, IsEmpty());
  EXPECT_EQ(heads.response().added, "");
  EXPECT_EQ(heads.own_answer(), "");
}

TEST(RouteHeads, AreNamesAndWholeLines) {
  config::Route route;
  route.request_headers = {{{"X-B", "b c"}, {"X-A", "a"}}, {"X-D", "X-E"}};
  route.response_headers = {{{"Server", "s"}}, {"server"}};
  const RouteHeads heads(route);
  EXPECT_THAT(heads.request().removed, ElementsAre("X-D", "X-E"));
  EXPECT_EQ(heads.request().added, "X-B: b c\r\nX-A: a\r\n");
  EXPECT_THAT(heads.response().removed, ElementsAre("server"));
  EXPECT_EQ(heads.response().added, "Server: s\r\n");
  EXPECT_EQ(heads.own_answer(), "Server: s\r\n");
}

TEST(RouteHeads, LeaveWhatSluicesOwnAnswersHaveAlready) {
  config::Route route;
  route.response_headers.add = {{"cache-control", "public"}, {"X-A", "a"},
                                {"Content-Type", "b"},       {"Retry-After", "9"},
                                {"Location", "/"},           {"Allow", "GET"}};
  const RouteHeads heads(route);
  EXPECT_EQ(heads.own_answer(), "X-A: a\r\n");
  EXPECT_EQ(heads.response().added,
            "cache-control: public\r\nX-A: a\r\nContent-Type: b\r\nRetry-After: 9\r\n"
            "Location: /\r\nAllow: GET\r\n");
}

}  // namespace
}  // namespace sluice::session
