// Proves which answers teach a token, that it is known before the bytes that end it are written,
// and that each answer which teaches nothing is counted once and by its reason.
#include "proxy/session/token_lesson.h"

#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/http/parser.h"

#include "tests/support/split.h"

namespace sluice::session {
namespace {

constexpr Instant kNow{std::chrono::hours(1)};

class TokenLessonTest : public testing::Test {
 protected:
  TokenLessonTest() {
    config::Pool pool;
    pool.name = "p";
    pool.backends = {{"one", "127.0.0.1", 1, 1.0}, {"two", "127.0.0.1", 2, 1.0}};
    config::Route route;
    route.pool = "p";
    route.affinity = {{config::AffinitySource::kQuery, "id", 0}};
    route.learn = {"sid", "/negotiate"};
    config::Config config;
    config.pools = {pool};
    config.routes = {route};
    snapshot_ = *Snapshot::Make(config);
  }

  [[nodiscard]] const Route& route() const { return snapshot_->routes[0]; }
  [[nodiscard]] const std::vector<balance::Backend>& backends() const {
    return snapshot_->pools[0]->backends.backends();
  }

  // Of an answer with this status and these fields; null where it teaches nothing.
  std::unique_ptr<TokenLesson> Begin(const std::string& status = "200",
                                     const std::string& fields = "") {
    const std::string text = "HTTP/1.1 " + status + " X\r\n" + fields + "\r\n";
    http::ResponseParser parser;
    EXPECT_EQ(parser.Parse(text, false), ParseStatus::kDone) << text;
    return TokenLesson::Begin(parser.head(), route(), backends()[1].state, block_);
  }

  std::optional<std::size_t> Find(std::string_view token) {
    const auto found = route().learned->Find(balance::HashKey(token), backends(), kNow);
    return found ? std::optional(found->index) : std::nullopt;
  }

  bool MayTeachAt(const std::string& method, const std::string& path) {
    http::RequestHead head;
    head.method = method;
    head.path = path;
    return MayTeach(head, route());
  }

  [[nodiscard]] std::vector<std::uint64_t> Counts() const {
    return {block_.learned.value(), block_.unreadable[metrics::Unreadable::kEncoded].value(),
            block_.unreadable[metrics::Unreadable::kNoToken].value(),
            block_.learned_evicted.value()};
  }
  using Numbers = std::vector<std::uint64_t>;

  std::shared_ptr<const Snapshot> snapshot_;
  metrics::RouteBlock block_;
};

TEST_F(TokenLessonTest, TakesPathsThatEndSoOnASegmentBorder) {
  EXPECT_TRUE(MayTeachAt("POST", "/negotiate"));
  EXPECT_TRUE(MayTeachAt("GET", "/a/chat/negotiate"));
  for (const char* other : {"/", "", "/renegotiate", "/negotiate/", "/negotiate/x", "/Negotiate",
                            "/negotiat", "negotiate", "*"}) {
    EXPECT_FALSE(MayTeachAt("POST", other)) << other;
  }
  EXPECT_FALSE(MayTeachAt("HEAD", "/negotiate")) << "its answer has no content";
  EXPECT_FALSE(MayTeachAt("OPTIONS", "/negotiate")) << "a browser asks before it asks";
}

TEST_F(TokenLessonTest, LearnsFromContentInAnyPieces) {
  int number = 0;
  test::ForEachSplit("0{\"upgrades\":[],\"sid\":\"lv\\u005FVI\"}", [&](const auto& pieces,
                                                                       const std::string& label) {
    auto lesson = Begin();
    ASSERT_NE(lesson, nullptr);
    for (const std::string_view piece : pieces) {
      lesson->Take(AsBytes(piece), kNow);
    }
    lesson->End();
    EXPECT_EQ(Find("lv_VI"), 1U) << label;
    EXPECT_EQ(Counts(), (Numbers{static_cast<std::uint64_t>(++number), 0, 0, 0})) << label;
  });
}

TEST_F(TokenLessonTest, KnowsTheTokenBeforeItsLastByteIsWritten) {
  auto lesson = Begin();
  lesson->Take(AsBytes("{\"sid\":\"abc"), kNow);
  EXPECT_FALSE(Find("abc"));
  lesson->Take(AsBytes("\""), kNow);  // now the caller writes it
  EXPECT_EQ(Find("abc"), 1U);
  lesson->Take(AsBytes(",\"sid\":\"other\"}{\"sid\":\"third\"}"), kNow);
  lesson->End();
  EXPECT_FALSE(Find("other")) << "there is one token to an answer";
  EXPECT_EQ(Counts(), (Numbers{1, 0, 0, 0}));
}

TEST_F(TokenLessonTest, AnswersWithoutATokenAreCountedOnce) {
  const std::string long_token(routing::JsonMember::kMostValue + 1, 'x');
  std::uint64_t count = 0;
  for (const std::string& content :
       {std::string(), std::string("ok"), std::string("{}"), std::string("{\"sid\":"),
        std::string("<html>There is no such page.</html>"), std::string("{\"sid\":5}"),
        "{\"sid\":\"" + long_token + "\"}", "{\"a\":\"" + std::string(20'000, 'x') + "\"}"}) {
    auto lesson = Begin();
    lesson->Take(AsBytes(content), kNow);
    lesson->Take(AsBytes("}}}"), kNow);
    lesson->End();
    EXPECT_EQ(Counts(), (Numbers{0, 0, ++count, 0})) << content;
  }
  EXPECT_EQ(route().learned->Count(kNow), 0U);
}

TEST_F(TokenLessonTest, EncodedAnswersTeachNothing) {
  EXPECT_EQ(Begin("200", "content-encoding: gzip\r\n"), nullptr);
  EXPECT_EQ(Counts(), (Numbers{0, 1, 0, 0}));
  EXPECT_EQ(Begin("200", "Content-Encoding: identity\r\nContent-Encoding: br\r\n"), nullptr);
  EXPECT_EQ(Counts(), (Numbers{0, 2, 0, 0}));
  EXPECT_NE(Begin("200", "Content-Encoding: identity\r\n"), nullptr);
}

TEST_F(TokenLessonTest, OnlySuccessTeaches) {
  EXPECT_NE(Begin("200"), nullptr);
  EXPECT_NE(Begin("299"), nullptr);
  for (const char* status : {"300", "304", "400", "404", "500", "503"}) {
    EXPECT_EQ(Begin(status), nullptr) << status;
    EXPECT_EQ(Begin(status, "Content-Encoding: gzip\r\n"), nullptr) << status;
  }
  EXPECT_EQ(Counts(), (Numbers{0, 0, 0, 0}));
}

TEST_F(TokenLessonTest, CountsWhatIsForgottenForIt) {
  config::Config config = snapshot_->config;
  config.routes[0].learn->max_entries = 1;
  snapshot_ = *Snapshot::Make(config);
  for (const char* content : {"{\"sid\":\"a\"}", "{\"sid\":\"b\"}", "{\"sid\":\"b\"}"}) {
    Begin()->Take(AsBytes(content), kNow);
  }
  EXPECT_EQ(Counts(), (Numbers{3, 0, 0, 1}));
  EXPECT_EQ(Find("b"), 1U);
  EXPECT_FALSE(Find("a"));
}

}  // namespace
}  // namespace sluice::session
