// Proves where a listener sends its clients to https, and that it sends nobody anywhere else.
#include "proxy/session/redirect.h"

#include <gtest/gtest.h>

#include "proxy/http/parser.h"

namespace sluice::session {
namespace {

class RedirectTest : public testing::Test {
 protected:
  RedirectTest() {
    config_.listeners.push_back({});
    config::Pool pool;
    pool.name = "p";
    pool.backends.push_back({"b1", "127.0.0.1", 1, 1.0});
    config_.pools.push_back(pool);
    AddRoute("", "/any");
    AddRoute("chat.test", "/");
    AddRoute("[2001:db8::1]", "/");
  }

  // `text` is a whole head but for its empty line.
  Admission Ask(const std::string& text, config::Redirect redirect = {}) {
    auto snapshot = Snapshot::Make(config_);
    EXPECT_TRUE(snapshot.has_value());
    text_ = text + "\r\n";
    parser_.Reset();
    EXPECT_EQ(parser_.Parse(text_), ParseStatus::kDone) << text_;
    Admission admission = AdmitToRedirect(parser_.head(), **snapshot, redirect, location_);
    EXPECT_TRUE(admission.refusal.has_value());
    return admission;
  }

  // The URL that the request is sent to, or its status when it is sent nowhere.
  std::string Url(const std::string& text, config::Redirect redirect = {}) {
    const Admission admission = Ask(text, redirect);
    if (admission.refusal->extra.empty()) {
      return std::to_string(admission.refusal->status);
    }
    EXPECT_EQ(admission.refusal->status, redirect.status);
    EXPECT_TRUE(admission.route.has_value());
    const std::string_view field = admission.refusal->extra;
    EXPECT_TRUE(field.starts_with("Location: ") && field.ends_with("\r\n")) << field;
    return std::string(field.substr(10, field.size() - 12));
  }

 private:
  void AddRoute(const std::string& host, const std::string& path) {
    config::Route route;
    route.name = host + path;
    route.host = host;
    route.path = path;
    route.pool = "p";
    config_.routes.push_back(route);
  }

  config::Config config_;
  std::string text_;
  std::string location_;
  http::RequestParser parser_;
};

TEST_F(RedirectTest, KeepsHostPathAndQueryAsTheyWereSent) {
  for (const std::string target :
       {"/", "/a/b", "/a?", "/?x=1&y=%20", "/a%2Fb;c?d=/../e?f", "//evil.test/a", "/\\evil.test"}) {
    EXPECT_EQ(Url("GET " + target + " HTTP/1.1\r\nHost: Chat.test\r\n"),
              "https://Chat.test" + target);
  }
}

TEST_F(RedirectTest, PutsThePortOfHttpsInPlaceOfItsOwn) {
  for (const std::string port : {"", ":80", ":8080"}) {
    const std::string fields = " HTTP/1.1\r\nHost: chat.test" + port + "\r\n";
    EXPECT_EQ(Url("GET /a" + fields), "https://chat.test/a");
    EXPECT_EQ(Url("GET /a" + fields, {.port = 8443}), "https://chat.test:8443/a");
    const std::string v6 = " HTTP/1.1\r\nHost: [2001:db8::1]" + port + "\r\n";
    EXPECT_EQ(Url("GET /a" + v6), "https://[2001:db8::1]/a");
    EXPECT_EQ(Url("GET /a" + v6, {.port = 8443}), "https://[2001:db8::1]:8443/a");
  }
}

TEST_F(RedirectTest, TakesAbsoluteTargets) {
  EXPECT_EQ(Url("GET http://chat.test:80/a?b HTTP/1.1\r\nHost: chat.test:80\r\n"),
            "https://chat.test/a?b");
  EXPECT_EQ(Url("GET http://chat.test?b HTTP/1.1\r\nHost: chat.test\r\n"), "https://chat.test/?b");
  EXPECT_EQ(Url("GET http://chat.test HTTP/1.0\r\n"), "https://chat.test/");
}

TEST_F(RedirectTest, SendsNobodyToWhatNoRouteServes) {
  EXPECT_EQ(Url("GET / HTTP/1.1\r\nHost: evil.test\r\n"), "404");
  EXPECT_EQ(Url("GET /any/x HTTP/1.1\r\nHost: other.test\r\n"), "https://other.test/any/x");
  EXPECT_EQ(Url("GET /a/../b HTTP/1.1\r\nHost: chat.test\r\n"), "404") << "ambiguous";
  EXPECT_EQ(Url("OPTIONS * HTTP/1.1\r\nHost: chat.test\r\n"), "404") << "no part of a URL";
  EXPECT_EQ(Ask("TRACE / HTTP/1.1\r\nHost: chat.test\r\n").refusal->status, 405);
}

TEST_F(RedirectTest, NeedsAHost) {
  EXPECT_EQ(Ask("GET /any HTTP/1.0\r\n").refusal->label, "missing_host");
  EXPECT_EQ(Url("GET /any HTTP/1.0\r\n"), "400");
  EXPECT_EQ(Url("GET /any HTTP/1.0\r\nHost: a.test\r\n"), "https://a.test/any");
}

TEST_F(RedirectTest, SendsUpgradesToo) {
  EXPECT_EQ(Url("GET /ws HTTP/1.1\r\nHost: chat.test\r\nConnection: Upgrade\r\n"
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
                {.status = 301}),
            "https://chat.test/ws");
}

}  // namespace
}  // namespace sluice::session
