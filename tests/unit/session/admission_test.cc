// Proves what is decided from a request head alone: route, upgrade, origin, drain, affinity.
#include "proxy/session/admission.h"

#include <map>
#include <set>

#include <gtest/gtest.h>

#include "proxy/http/parser.h"
#include "proxy/routing/json_member.h"

namespace sluice::session {
namespace {

constexpr const char* kUpgradeFields =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

constexpr Instant kNow{std::chrono::hours(1)};

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
    auto snapshot = Snapshot::Make(config_, snapshot_.get());
    EXPECT_TRUE(snapshot.has_value());
    snapshot_ = *snapshot;
    text_ = line + " HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n";
    parser_.Reset();
    EXPECT_EQ(parser_.Parse(text_), ParseStatus::kDone) << text_;
    return Admit(parser_.head(), **snapshot, intake, "192.0.2.7", kNow);
  }

  [[nodiscard]] const http::RequestHead& head() const { return parser_.head(); }  // the same

  config::Config config_;
  std::shared_ptr<const Snapshot> snapshot_;  // of the last request

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

TEST_F(AdmissionTest, OptionsThatMayGoNoFurtherAreAnsweredHere) {
  const Admission admission = AdmitRequest("OPTIONS /chat", "Max-Forwards: 0\r\n");
  ASSERT_TRUE(admission.refusal);
  EXPECT_EQ(admission.refusal->status, 200);
  EXPECT_EQ(admission.refusal->extra, "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n");
  EXPECT_FALSE(AdmitRequest("OPTIONS /chat", "Max-Forwards: 1\r\n").refusal);
  EXPECT_FALSE(AdmitRequest("GET /chat", "Max-Forwards: 0\r\n").refusal);
  EXPECT_EQ(AdmitRequest("OPTIONS /other", "Max-Forwards: 0\r\n").refusal->status, 404);
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

// As for a request whose fields an auth server has changed.
TEST_F(AdmissionTest, AKeyChosenAnewForgetsTheOneBefore) {
  route().affinity_cookie = "sid";
  route().affinity = {{config::AffinitySource::kHeader, "X-User", 0},
                      {config::AffinitySource::kCookie, "sid", 0}};
  Admission admission = AdmitRequest("GET /chat", "Cookie: sid=abc\r\n");
  EXPECT_TRUE(admission.sticky);
  const Admission wanted = AdmitRequest("GET /chat", "Cookie: sid=abc\r\nX-User: alice\r\n");
  ChooseKey(head(), *snapshot_, "192.0.2.7", kNow, admission);
  EXPECT_EQ(admission.key_hash, balance::HashKey("alice"));
  EXPECT_EQ(admission.key_hash, wanted.key_hash);
  EXPECT_EQ(admission.key_source, "header");
  EXPECT_FALSE(admission.sticky);
  EXPECT_FALSE(admission.issue_cookie);
  EXPECT_EQ(admission.route, wanted.route);
}

// A route with `learn`, and a token that its second backend has handed out.
class LearnedAdmissionTest : public AdmissionTest {
 protected:
  LearnedAdmissionTest() {
    config_.pools[0].backends.push_back({"b2", "127.0.0.1", 2, 1.0});
    route().affinity = {{config::AffinitySource::kQuery, "id", 0}};
    route().learn = {"connectionToken", "/negotiate"};
    static_cast<void>(AdmitRequest("GET /chat", ""));
  }

  void Learn(std::string_view token) {
    snapshot_->routes[0].learned->Learn(balance::HashKey(token),
                                        snapshot_->pools[0]->backends.backends()[1].state, kNow);
  }
};

TEST_F(LearnedAdmissionTest, ALearnedTokenDecides) {
  Learn("t1");
  const Admission known = AdmitRequest("GET /chat?id=t1", kUpgradeFields);
  EXPECT_EQ(known.learned, 1U);
  EXPECT_EQ(known.key_source, "learned");
  EXPECT_EQ(known.key_hash, balance::HashKey("t1")) << "where to when that backend is gone";
  EXPECT_FALSE(known.sticky);
  const Admission unknown = AdmitRequest("GET /chat?id=t2", kUpgradeFields);
  EXPECT_FALSE(unknown.learned);
  EXPECT_EQ(unknown.key_source, "query");
  EXPECT_EQ(unknown.key_hash, balance::HashKey("t2"));
  EXPECT_EQ(AdmitRequest("GET /chat", "").key_source, "ip");
}

TEST_F(LearnedAdmissionTest, TheTokenIsFoundHoweverItIsEncoded) {
  Learn("a+b/c==");
  for (const char* sent : {"a%2Bb%2Fc%3D%3D", "a%2bb%2fc==", "a+b/c=="}) {
    const Admission admission = AdmitRequest("GET /chat?id=" + std::string(sent), "");
    EXPECT_EQ(admission.learned, 1U) << sent;
    EXPECT_EQ(admission.key_hash, balance::HashKey(sent)) << "the key is what was sent";
  }
  EXPECT_FALSE(AdmitRequest("GET /chat?id=a%2525", "").learned);
}

TEST_F(LearnedAdmissionTest, TheLongestTokenIsFoundWithEachByteEncoded) {
  const std::string most(routing::JsonMember::kMostValue, '/');
  Learn(most);
  Learn(most + "/");
  std::string sent;
  for (std::size_t i = 0; i < most.size(); ++i) {
    sent += "%2F";
  }
  EXPECT_EQ(AdmitRequest("GET /chat?id=" + sent, "").learned, 1U);
  EXPECT_FALSE(AdmitRequest("GET /chat?id=" + sent + "/", "").learned) << "none is so long";
}

TEST_F(LearnedAdmissionTest, ATokenThatIsGoneWhenTheKeyIsChosenAnewDecidesNoMore) {
  Learn("t1");
  Admission admission = AdmitRequest("GET /chat?id=t1", "");
  EXPECT_EQ(admission.learned, 1U);
  static_cast<void>(AdmitRequest("GET /chat?id=t2", ""));
  ChooseKey(head(), *snapshot_, "192.0.2.7", kNow, admission);
  EXPECT_FALSE(admission.learned);
  EXPECT_EQ(admission.key_hash, balance::HashKey("t2"));
}

TEST_F(LearnedAdmissionTest, RulesAreAskedInTheirOrder) {
  route().affinity = {{config::AffinitySource::kHeader, "X-Room", 0},
                      {config::AffinitySource::kQuery, "id", 0},
                      {config::AffinitySource::kCookie, "tok", 0},
                      {config::AffinitySource::kPath, "", 2}};
  Learn("t1");
  // The first that is known, though others are present before it.
  const Admission later = AdmitRequest("GET /chat?id=t1", "X-Room: 7\r\n");
  EXPECT_EQ(later.learned, 1U);
  EXPECT_EQ(later.key_hash, balance::HashKey("7")) << "the first that is present, for the fallback";
  EXPECT_EQ(AdmitRequest("GET /chat", "X-Room: 7\r\nCookie: tok=t1\r\n").learned, 1U);
  EXPECT_EQ(AdmitRequest("GET /chat/t1", "X-Room: 7\r\nCookie: tok=x\r\n").learned, 1U);
  EXPECT_EQ(AdmitRequest("GET /chat", "X-Room: t1\r\n").learned, 1U);
  EXPECT_FALSE(AdmitRequest("GET /chat/x?id=y", "X-Room: 7\r\nCookie: tok=z\r\n").learned);
}

TEST_F(LearnedAdmissionTest, BehindTheAddressARuleFindsKnownTokensOnly) {
  route().affinity = {{config::AffinitySource::kIp, "", 0},
                      {config::AffinitySource::kQuery, "id", 0}};
  Learn("t1");
  EXPECT_EQ(AdmitRequest("GET /chat?id=t1", "").learned, 1U);
  const Admission unknown = AdmitRequest("GET /chat?id=t2", "");
  EXPECT_EQ(unknown.key_source, "ip");
  EXPECT_EQ(unknown.key_hash, balance::HashKey("192.0.2.7"));
}

TEST_F(LearnedAdmissionTest, ACookieOfOursComesBeforeWhatIsBehindIt) {
  route().affinity_cookie = "own";
  Learn("t1");
  const Admission both = AdmitRequest("GET /chat?id=t1", "Cookie: own=abc\r\n");
  EXPECT_FALSE(both.learned);
  EXPECT_TRUE(both.sticky);
  EXPECT_EQ(both.key_source, "cookie");
  const Admission without = AdmitRequest("GET /chat?id=t1", "");
  EXPECT_EQ(without.learned, 1U);
  EXPECT_TRUE(without.issue_cookie);
  route().affinity = {{config::AffinitySource::kQuery, "id", 0},
                      {config::AffinitySource::kCookie, "own", 0}};
  EXPECT_EQ(AdmitRequest("GET /chat?id=t1", "Cookie: own=abc\r\n").learned, 1U);
}

TEST_F(LearnedAdmissionTest, PlainRequestsToThatPathMayTeach) {
  EXPECT_TRUE(AdmitRequest("POST /chat/negotiate", "").may_teach);
  EXPECT_TRUE(AdmitRequest("POST /chat/negotiate?id=t1", "").may_teach) << "t1 is not known";
  EXPECT_FALSE(AdmitRequest("GET /chat", "").may_teach);
  EXPECT_FALSE(AdmitRequest("GET /chat/negotiate", kUpgradeFields).may_teach);
  Learn("t1");
  EXPECT_FALSE(AdmitRequest("GET /chat/negotiate?id=t1", "").may_teach)
      << "who brings a token gets none";
  route().learn.reset();
  EXPECT_FALSE(AdmitRequest("POST /chat/negotiate", "").may_teach);
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
