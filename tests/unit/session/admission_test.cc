// Proves what is decided from a request head alone: route, upgrade, origin, drain, affinity.
#include "proxy/session/admission.h"

#include <map>
#include <set>

#include <gtest/gtest.h>

#include "proxy/http/parser.h"

namespace sluice::session {
namespace {

constexpr const char* kUpgradeFields =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

class AdmissionTest : public testing::Test {
 protected:
  AdmissionTest() {
    config_.listeners.push_back({});
    config::Pool pool;
    pool.name = "p";
    pool.backends.push_back({"b1", "127.0.0.1", 1, 1.0});
    config_.pools.push_back(pool);
    config::Route route;
    route.name = "chat";
    route.path = "/chat";
    route.pool = "p";
    config_.routes.push_back(route);
  }

  config::Route& route() { return config_.routes.front(); }

  Admission AdmitRequest(const std::string& line, const std::string& fields,
                         Intake intake = Intake::kOpen) {
    auto snapshot = Snapshot::Make(config_);
    EXPECT_TRUE(snapshot.has_value());
    text_ = line + " HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n";
    parser_.Reset();
    EXPECT_EQ(parser_.Parse(text_), ParseStatus::kDone) << text_;
    return Admit(parser_.head(), **snapshot, intake, "192.0.2.7");
  }

  config::Config config_;

 private:
  std::string text_;
  http::RequestParser parser_;
};

TEST_F(AdmissionTest, PlainRequestOnARouteIsAdmitted) {
  const Admission admission = AdmitRequest("GET /chat/x", "");
  EXPECT_FALSE(admission.refusal);
  EXPECT_FALSE(admission.upgrade);
  EXPECT_EQ(admission.route, 0U);
  EXPECT_EQ(admission.key_hash, balance::HashKey("192.0.2.7")) << "without rules the address";
}

TEST_F(AdmissionTest, UnknownPathIs404) {
  const Admission admission = AdmitRequest("GET /other", kUpgradeFields);
  ASSERT_TRUE(admission.refusal);
  EXPECT_EQ(admission.refusal->status, 404);
  EXPECT_FALSE(admission.refusal->outcome) << "there is no route to count it for";
}

TEST_F(AdmissionTest, TraceIs405) {
  ASSERT_TRUE(AdmitRequest("TRACE /chat", "").refusal);
  EXPECT_EQ(AdmitRequest("TRACE /chat", "").refusal->status, 405);
}

TEST_F(AdmissionTest, RouteWithoutUpgradesIs403) {
  route().upgrades = false;
  const Admission admission = AdmitRequest("GET /chat", kUpgradeFields);
  ASSERT_TRUE(admission.refusal);
  EXPECT_EQ(admission.refusal->status, 403);
  EXPECT_EQ(admission.refusal->outcome, metrics::UpgradeOutcome::kNotAllowed);
  EXPECT_FALSE(AdmitRequest("GET /chat", "").refusal) << "plain HTTP still passes";
}

TEST_F(AdmissionTest, OriginListIsEnforcedOnUpgrades) {
  route().origins = {"https://good.example"};
  const std::string fields = kUpgradeFields;
  EXPECT_FALSE(AdmitRequest("GET /chat", fields + "Origin: https://GOOD.example\r\n").refusal);
  const Admission bad = AdmitRequest("GET /chat", fields + "Origin: https://evil.example\r\n");
  ASSERT_TRUE(bad.refusal);
  EXPECT_EQ(bad.refusal->status, 403);
  EXPECT_EQ(bad.refusal->outcome, metrics::UpgradeOutcome::kOriginDenied);
  EXPECT_TRUE(AdmitRequest("GET /chat", fields + "Origin: https://good.example\r\n"
                                                 "Origin: https://evil.example\r\n")
                  .refusal)
      << "two of them";
  EXPECT_FALSE(AdmitRequest("GET /chat", fields).refusal) << "not a browser";
  route().require_origin = true;
  EXPECT_TRUE(AdmitRequest("GET /chat", fields).refusal);
}

TEST_F(AdmissionTest, DrainingRefusesUpgradesOnly) {
  const Admission upgrade = AdmitRequest("GET /chat", kUpgradeFields, Intake::kRefuseUpgrades);
  ASSERT_TRUE(upgrade.refusal);
  EXPECT_EQ(upgrade.refusal->status, 503);
  EXPECT_TRUE(upgrade.refusal->retry_after);
  EXPECT_FALSE(AdmitRequest("GET /chat", "", Intake::kRefuseUpgrades).refusal);
}

TEST_F(AdmissionTest, AbsentCookieIsIssuedAndAPresentOneSticks) {
  route().affinity_cookie = "sid";
  const Admission first = AdmitRequest("GET /chat", "");
  EXPECT_TRUE(first.issue_cookie);
  EXPECT_FALSE(first.sticky) << "the first request may go where there is room";
  EXPECT_NE(first.key_hash, AdmitRequest("GET /chat", "").key_hash)
      << "two new clients of one address start anywhere";
  const Admission second = AdmitRequest("GET /chat", "Cookie: sid=abc\r\n");
  EXPECT_FALSE(second.issue_cookie);
  EXPECT_TRUE(second.sticky);
  EXPECT_EQ(second.key_source, "cookie");
  EXPECT_EQ(second.key_hash, balance::HashKey("abc"));
}

TEST_F(AdmissionTest, ACookieOfTheApplicationIsHashedButNotSticky) {
  route().affinity = {{config::AffinitySource::kCookie, "JSESSIONID", 0}};
  const Admission admission = AdmitRequest("GET /chat", "Cookie: JSESSIONID=x\r\n");
  EXPECT_EQ(admission.key_hash, balance::HashKey("x"));
  EXPECT_FALSE(admission.sticky);
  EXPECT_FALSE(admission.issue_cookie);
}

TEST_F(AdmissionTest, ARuleBeforeTheCookieWins) {
  route().affinity_cookie = "sid";
  route().affinity = {{config::AffinitySource::kQuery, "room", 0},
                      {config::AffinitySource::kCookie, "sid", 0}};
  const Admission admission = AdmitRequest("GET /chat?room=7", "Cookie: sid=abc\r\n");
  EXPECT_EQ(admission.key_hash, balance::HashKey("7"));
  EXPECT_EQ(admission.key_source, "query");
  EXPECT_FALSE(admission.sticky);
}

TEST_F(AdmissionTest, RetryAfterIsSpread) {
  Random random(7);
  std::set<std::string> seen;
  for (int i = 0; i < 200; ++i) {
    seen.insert(RetryAfter(random));
  }
  EXPECT_EQ(seen,
            (std::set<std::string>{"Retry-After: 1\r\n", "Retry-After: 2\r\n", "Retry-After: 3\r\n",
                                   "Retry-After: 4\r\n", "Retry-After: 5\r\n"}));
}

TEST_F(AdmissionTest, RetryAfterOfAQueueIsDrawnAroundItsPlace) {
  Random random(7);
  const auto seconds = [&random](std::int64_t millis) {
    const std::string field = RetryAfter(random, Millis(millis));
    EXPECT_EQ(field.rfind("Retry-After: ", 0), 0U);
    EXPECT_EQ(field.substr(field.size() - 2), "\r\n");
    return std::stoi(field.substr(13));
  };
  std::map<int, int> short_wait;
  std::map<int, int> long_wait;
  std::map<int, int> behind_the_end;
  for (int i = 0; i < 3000; ++i) {
    ++short_wait[seconds(50)];
    ++long_wait[seconds(7250)];
    ++behind_the_end[seconds(30'000)];
    EXPECT_EQ(seconds(29'999), 30);
  }
  EXPECT_EQ(short_wait.size(), 2U);
  EXPECT_GT(short_wait[1], 2700) << "1, hardly ever 2";
  EXPECT_EQ(long_wait.size(), 2U);
  EXPECT_NEAR(long_wait[8], 2250, 150) << "three quarters at 8, one at 9";
  EXPECT_NEAR(long_wait[9], 750, 150);
  ASSERT_EQ(behind_the_end.size(), 30U);
  EXPECT_EQ(behind_the_end.begin()->first, 1);
  EXPECT_EQ(behind_the_end.rbegin()->first, 30);
}

}  // namespace
}  // namespace sluice::session
