// Proves what a good file comes to: every key reaches its field, defaults fill the rest, paths are
// joined with the folder of the file, order is kept.
#include "proxy/config/load.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/config/files.h"

namespace sluice::config {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::string_view kSmallest = R"([[listener]]
address = "127.0.0.1:0"
[[route]]
pool = "a"
[pool.a]
backends = [{ address = "127.0.0.1:9001" }]
)";

TEST(LoadText, FillsInEveryDefault) {
  const LoadResult result = LoadText(kSmallest, "t.toml", "");
  ASSERT_THAT(Texts(result.mistakes), IsEmpty());
  ASSERT_THAT(Texts(result.warnings), IsEmpty());
  Config want;
  want.listeners = {{"127.0.0.1:0", "127.0.0.1", 0, {}}};
  Route route;
  route.name = "*/";
  route.pool = "a";
  route.affinity = {{AffinitySource::kIp, "", 0}};
  want.routes = {route};
  Pool pool;
  pool.name = "a";
  pool.backends = {{"127.0.0.1:9001", "127.0.0.1", 9001, 1.0}};
  want.pools = {pool};
  EXPECT_EQ(result.config, want);
}

TEST(LoadText, TakesEveryKey) {
  const TempDir dir;
  dir.Write("certs/a.pem", "");
  dir.Write("certs/a.key", "");
  dir.Write("certs/admin.token", "0123456789abcdef\n");
  dir.Write("ca.pem", "");
  const LoadResult result = LoadText(R"(
[server]
workers = 3
header_timeout = "1s"
tls_timeout = "2s"
keep_alive_timeout = "3s"
keep_alive_requests = 5
close_timeout = "4s"
trusted_proxies = ["10.0.0.0/8", "fd00::/8"]
takeover_socket = "certs/../take.sock"
[limits]
max_connections = 1000
connections_per_ip = 10
upgrades_per_ip = 0.5
upgrades_per_ip_burst = 20
max_handshakes = 30
max_head_bytes = "20KiB"
max_head_fields = 50
max_request_line = "4KiB"
early_data = "2KiB"
out_buffer = "128KiB"
max_buffered = "2MiB"
max_connection_age = "720h"
[[listener]]
name = "front"
address = "[::]:8443"
tls.certificates = [{ chain = "certs/a.pem", key = "./certs/../certs/a.key" }]
tls.min_version = "1.3"
tls.client_ca = "ca.pem"
proxy_protocol = true
[[route]]
name = "talk"
host = "*.Example.com"
path = "/socket/"
pool = "b"
upgrades = false
affinity = ["query:token", "path:2", "header:X-User"]
affinity_cookie = "stick"
origins = ["https://Chat.example.com"]
require_origin = true
limits.max_message_bytes = "1MiB"
limits.max_frame_bytes = "64KiB"
limits.max_frames_per_message = 7
limits.max_connections = 40
limits.messages_per_second = 2.5
limits.bytes_per_second = "3KiB"
limits.control_frames_per_second = 0
limits.on_limit = "close"
limits.max_connection_age = "0s"
retries = 0
handshake_timeout = "5s"
response_timeout = "6s"
response_idle_timeout = "7s"
close_code = 1001
refragment = "16KiB"
heartbeat.interval = "0s"
heartbeat.timeout = "50ms"
heartbeat.client = { interval = "1s", timeout = "2s" }
heartbeat.backend = { interval = "3s", timeout = "4s" }
idle_timeout = "500ms"
on_slow = "close"
slow_timeout = "100ms"
request_headers.add = { "X-B" = "b c", "X-A" = "a" }
request_headers.remove = "X-D"
response_headers = { add = { "Server" = "s" }, remove = ["server", "X-P"] }
hsts = { max_age = "730d", include_subdomains = true, preload = true }
auth = { url = "http://Auth.local/check?a=b", forward = ["Authorization", "cookie", "COOKIE"], copy = "X-User", timeout = "1s", on = "upgrades" }
auth_expires_header = "X-Expires"
auth_expires_code = 4001
learn = { json = "sid", from = "/socket.io/", max_entries = 1, ttl = "1s" }
[[route]]
pool = "a"
affinity = "cookie:sid"
learn.json = "connectionToken"
learn.from = "/negotiate"
[pool.b]
balance = "least_connections"
bounded_load = 0
connect_timeout = "100ms"
slow_start = "0s"
proxy_protocol = "v2"
keep_alive.max_idle = 7
keep_alive.idle_timeout = "8s"
group_threshold = 0.75
panic = "refuse"
handshake_rate = 12.5
handshake_burst = 30
tls.ca = "ca.pem"
tls.server_name = "Backends.example.com"
tls.certificate = { chain = "certs/a.pem", key = "certs/a.key" }
tls.verify = true
tls.min_version = "1.3"
health.type = "http"
health.path = "/live?x=1"
health.host = "db:9"
health.status = 204
health.interval = "100ms"
health.timeout = "50ms"
health.rise = 1
health.fall = 100
health.ping = true
on_down = "drain"
outlier.failures = 0
outlier.ejection_time = "1s"
outlier.max_ejection_time = "1s"
outlier.max_ejected = 1
backends = [
  { name = "b2", address = "db.local:9002", weight = 2, group = 3, max_connections = 500, server_name = "::0001" },
  { name = "b1", address = "[::1]:9001", weight = 0.5 },
]
[pool.a]
backends = [{ address = "127.0.0.1:9003" }]
[drain]
window = "5s"
grace = "1s"
ready_delay = "2s"
message_grace = "500ms"
rate = 2.5
event_retry = "900ms"
close_code = 1001
reason = "back soon"
[admin]
address = "[::1]:0"
token_file = "certs/admin.token"
tls.certificates = [{ chain = "certs/a.pem", key = "certs/a.key" }]
tls.min_version = "1.3"
[log]
level = "debug"
access = "text"
query = true
queue = 100
)",
                                     "t.toml", dir.path());
  ASSERT_THAT(Texts(result.mistakes), IsEmpty());
  ASSERT_THAT(Texts(result.warnings), IsEmpty());
  Config want;
  want.server = {3,
                 Millis(1000),
                 Millis(2000),
                 Millis(3000),
                 5,
                 Millis(4000),
                 {"10.0.0.0/8", "fd00::/8"},
                 dir.path() + "/take.sock"};
  want.limits = {1000,      10, 0.5,      20,       30,         2U << 20,
                 20U << 10, 50, 4U << 10, 2U << 10, 128U << 10, std::chrono::hours(720)};
  want.drain = {Millis(5000), Millis(1000), Millis(2000), Millis(500),
                2.5,          Millis(900),  1001,         "back soon"};
  want.admin.host = "::1";
  want.admin.port = 0;
  want.admin.token_file = dir.path() + "/certs/admin.token";
  want.admin.token = "0123456789abcdef";
  want.admin.tls.certificates = {{dir.path() + "/certs/a.pem", dir.path() + "/certs/a.key"}};
  want.admin.tls.min_version = TlsVersion::k13;
  want.log = {LogLevel::kDebug, AccessFormat::kText, true, 100};
  want.listeners = {{"front",
                     "::",
                     8443,
                     {{{dir.path() + "/certs/a.pem", dir.path() + "/certs/a.key"}},
                      TlsVersion::k13,
                      dir.path() + "/ca.pem"},
                     true}};
  Route talk;
  talk.name = "talk";
  talk.host = "*.example.com";
  talk.path = "/socket";
  talk.pool = "b";
  talk.upgrades = false;
  talk.affinity = {{AffinitySource::kCookie, "stick", 0},
                   {AffinitySource::kQuery, "token", 0},
                   {AffinitySource::kPath, "", 2},
                   {AffinitySource::kHeader, "X-User", 0}};
  talk.affinity_cookie = "stick";
  talk.origins = {"https://chat.example.com"};
  talk.require_origin = true;
  talk.limits = {1U << 20, 64U << 10, 7, 40, 2.5, 3U << 10, 0, OnLimit::kClose, Millis(0)};
  talk.retries = 0;
  talk.handshake_timeout = Millis(5000);
  talk.response_timeout = Millis(6000);
  talk.response_idle_timeout = Millis(7000);
  talk.close_code = 1001;
  talk.refragment = 16U << 10;
  talk.heartbeat = {{Millis(1000), Millis(2000)}, {Millis(3000), Millis(4000)}};
  talk.idle_timeout = Millis(500);
  talk.on_slow = OnSlow::kClose;
  talk.slow_timeout = Millis(100);
  talk.request_headers = {{{"X-B", "b c"}, {"X-A", "a"}}, {"X-D"}};
  talk.hsts = {std::chrono::days(730), true, true};
  talk.response_headers = {{{"Server", "s"}}, {"server", "X-P"}};
  talk.auth =
      Auth{"auth.local", 80,           "Auth.local",     "/check?a=b", {"authorization", "cookie"},
           {"x-user"},   Millis(1000), AuthOn::kUpgrades};
  talk.auth_expires_header = "x-expires";
  talk.auth_expires_code = 4001;
  talk.learn = {"sid", "/socket.io/", 1, Millis(1000)};
  Route rest;
  rest.name = "*/";
  rest.pool = "a";
  rest.affinity = {{AffinitySource::kCookie, "sid", 0}};
  rest.learn = {"connectionToken", "/negotiate", 65536, Millis(600'000)};
  want.routes = {talk, rest};
  Pool b;
  b.name = "b";
  b.balance = Balance::kLeastConnections;
  b.bounded_load = 0;
  b.connect_timeout = Millis(100);
  b.slow_start = Millis(0);
  b.proxy_protocol = ProxyProtocol::kV2;
  b.keep_alive = {7, Millis(8000)};
  b.group_threshold = 0.75;
  b.panic = Panic::kRefuse;
  b.handshake_rate = 12.5;
  b.handshake_burst = 30;
  b.health = {HealthType::kHttp, "/live?x=1", "db:9", 204, 204,
              Millis(100),       Millis(50),  1,      100, true};
  b.on_down = OnDown::kDrain;
  b.outlier = {0, Millis(1000), Millis(1000), 1.0};
  b.backends = {{"b2", "db.local", 9002, 2.0, 3, 500, "::1"}, {"b1", "::1", 9001, 0.5, 0, 0, ""}};
  b.tls.emplace();
  b.tls->ca = dir.path() + "/ca.pem";
  b.tls->server_name = "backends.example.com";
  b.tls->certificate = {dir.path() + "/certs/a.pem", dir.path() + "/certs/a.key"};
  b.tls->min_version = TlsVersion::k13;
  Pool a;
  a.name = "a";
  a.backends = {{"127.0.0.1:9003", "127.0.0.1", 9003, 1.0, 0, 0, ""}};
  want.pools = {b, a};
  // Section by section first: a difference in one is easier to find.
  EXPECT_EQ(result.config.server, want.server);
  EXPECT_EQ(result.config.limits, want.limits);
  EXPECT_EQ(result.config.drain, want.drain);
  EXPECT_EQ(result.config.admin, want.admin);
  EXPECT_EQ(result.config.log, want.log);
  EXPECT_EQ(result.config.listeners, want.listeners);
  EXPECT_EQ(result.config.routes, want.routes);
  EXPECT_EQ(result.config.pools, want.pools);
  EXPECT_EQ(result.config, want);
}

TEST(LoadText, ReadsTheFormsOfARedirect) {
  const auto redirect = [](const std::string& line) {
    const LoadResult result = LoadText("[[listener]]\naddress = \"127.0.0.1:80\"\n" + line +
                                           "\n[[route]]\npool = \"a\"\n[pool.a]\n"
                                           "backends = [{ address = \"127.0.0.1:1\" }]\n",
                                       "t.toml", "");
    EXPECT_THAT(Texts(result.mistakes), IsEmpty()) << line;
    return result.config.listeners.at(0).redirect;
  };
  EXPECT_EQ(redirect(""), std::nullopt);
  EXPECT_EQ(redirect("redirect = \"https\""), (Redirect{443, 308}));
  EXPECT_EQ(redirect("redirect = {}"), (Redirect{443, 308}));
  EXPECT_EQ(redirect("redirect.port = 8443"), (Redirect{8443, 308}));
  EXPECT_EQ(redirect("redirect = { port = 1, status = 301 }"), (Redirect{1, 301}));
}

TEST(LoadText, WhoLearnsTokensLooksForThemWhereTheUsualClientsSendThem) {
  const auto affinity = [](const std::string& lines) {
    const LoadResult result =
        LoadText("[[listener]]\naddress = \"127.0.0.1:80\"\n[[route]]\npool = \"a\"\n" + lines +
                     "\n[pool.a]\nbackends = [{ address = \"127.0.0.1:1\" }]\n",
                 "t.toml", ".");
    EXPECT_THAT(Texts(result.mistakes), IsEmpty()) << lines;
    return result.config.routes.at(0).affinity;
  };
  const std::string learn = "learn = { json = \"connectionToken\", from = \"/negotiate\" }";
  const AffinityRule ip{AffinitySource::kIp, "", 0};
  const AffinityRule id{AffinitySource::kQuery, "id", 0};
  const AffinityRule sid{AffinitySource::kQuery, "sid", 0};
  const AffinityRule own{AffinitySource::kCookie, "own", 0};
  using Rules = std::vector<AffinityRule>;
  EXPECT_EQ(affinity(""), Rules{ip});
  EXPECT_EQ(affinity(learn), (Rules{ip, id, sid}));
  EXPECT_EQ(affinity("affinity_cookie = \"own\"\n" + learn), (Rules{own, ip, id, sid}));
  EXPECT_EQ(affinity("affinity = \"query:id\"\n" + learn), Rules{id});
}

TEST(LoadText, ReadsErrorPagesFromTheFolderOfTheFile) {
  const TempDir dir;
  const std::string most(64U << 10U, 'x');
  dir.Write("errors/502.html", "<p>502</p>");
  dir.Write("errors/503.json", "");
  dir.Write("a.txt", most);
  dir.Write("b.xml", "x");
  dir.Write("c.HTM", "h");
  const std::string text =
      "[[listener]]\naddress = \"127.0.0.1:80\"\n[[route]]\npool = \"a\"\n[route.error_pages]\n"
      "503 = \"errors/503.json\"\n502 = \"./errors/../errors/502.html\"\n400 = \"a.txt\"\n"
      "\"404\" = \"b.xml\"\n599 = \"" +
      dir.path() + "/c.HTM\"\n[pool.a]\nbackends = [{ address = \"127.0.0.1:1\" }]\n";
  const LoadResult result = LoadText(text, "t.toml", dir.path());
  ASSERT_THAT(Texts(result.mistakes), IsEmpty());
  const std::vector<ErrorPage> want{
      {503, dir.path() + "/errors/503.json", "application/json", ""},
      {502, dir.path() + "/errors/502.html", "text/html; charset=utf-8", "<p>502</p>"},
      {400, dir.path() + "/a.txt", "text/plain; charset=utf-8", most},
      {404, dir.path() + "/b.xml", "application/xml", "x"},
      {599, dir.path() + "/c.HTM", "text/html; charset=utf-8", "h"}};
  EXPECT_EQ(result.config.routes.at(0).error_pages, want);
  // What a file holds is a part of the configuration: a reload sees that it has changed.
  dir.Write("b.xml", "y");
  EXPECT_NE(LoadText(text, "t.toml", dir.path()).config, result.config);
}

TEST(LoadText, WarnsOfACookieThatBrowsersDoNotTakeFromEveryListener) {
  const auto warnings = [](const std::string& cookie, const std::string& listener) {
    return Texts(LoadText("[[listener]]\nname = \"front\"\naddress = \"127.0.0.1:80\"\n" +
                              listener + "\n[[route]]\npool = \"a\"\naffinity_cookie = \"" +
                              cookie + "\"\n[pool.a]\nbackends = [{ address = \"127.0.0.1:1\" }]\n",
                          "t.toml", "")
                     .warnings);
  };
  for (const char* cookie : {"__Host-sid", "__secure-sid"}) {
    EXPECT_THAT(
        warnings(cookie, ""),
        ElementsAre("t.toml:7: route[0].affinity_cookie: browsers take a cookie of this name "
                    "over TLS only, and listener \"front\" has none: there they are not kept "
                    "on a backend"))
        << cookie;
    EXPECT_THAT(warnings(cookie, "redirect = \"https\""), IsEmpty()) << cookie;
  }
  EXPECT_THAT(warnings("__Hostess", ""), IsEmpty());
}

TEST(LoadText, WarnsOfStrictTransportSecurityWithoutTls) {
  const LoadResult result = LoadText(
      "[[listener]]\naddress = \"127.0.0.1:80\"\n[[route]]\npool = \"a\"\n"
      "response_headers.add = { \"strict-transport-Security\" = \"max-age=1\" }\n[pool.a]\n"
      "backends = [{ address = \"127.0.0.1:1\" }]\n",
      "t.toml", "");
  EXPECT_THAT(Texts(result.mistakes), IsEmpty());
  EXPECT_THAT(
      Texts(result.warnings),
      ElementsAre("t.toml:5: route[0].response_headers: adds Strict-Transport-Security to "
                  "what goes out without TLS too, where nobody may believe it; hsts sends it "
                  "over TLS alone"));
}

TEST(LoadText, WarnsOfStrictTransportSecurityThatIsNeverSent) {
  const LoadResult result = LoadText(
      "[[listener]]\naddress = \"127.0.0.1:80\"\n[[route]]\npool = \"a\"\nhsts = {}\n[pool.a]\n"
      "backends = [{ address = \"127.0.0.1:1\" }]\n",
      "t.toml", "");
  EXPECT_THAT(Texts(result.mistakes), IsEmpty());
  EXPECT_THAT(Texts(result.warnings),
              ElementsAre("t.toml:5: route[0].hsts: no listener has tls, so "
                          "Strict-Transport-Security is never sent"));
}

// What is set for one side alone holds for it alone, wherever it stands in the file; the rest is as
// for both, and what is set for neither has its default.
TEST(LoadText, TakesHeartbeatsForBothSidesOrForOne) {
  const LoadResult result = LoadText(R"([[listener]]
address = "127.0.0.1:0"
[[route]]
path = "/both"
pool = "a"
heartbeat.interval = "1s"
heartbeat.timeout = "2s"
[[route]]
path = "/client"
pool = "a"
heartbeat.client.interval = "0s"
heartbeat.interval = "1s"
[[route]]
path = "/backend"
pool = "a"
heartbeat = { timeout = "2s", backend = { timeout = "3s" } }
[[route]]
path = "/each"
pool = "a"
heartbeat = { client = { interval = "4s" }, backend = { interval = "0s", timeout = "5s" } }
[pool.a]
backends = [{ address = "127.0.0.1:9001" }]
)",
                                     "t.toml", "");
  ASSERT_THAT(Texts(result.mistakes), IsEmpty());
  const Heartbeat standard;
  const std::vector<Route>& routes = result.config.routes;
  ASSERT_EQ(routes.size(), 4U);
  EXPECT_EQ(routes[0].heartbeat,
            (Heartbeats{{Millis(1000), Millis(2000)}, {Millis(1000), Millis(2000)}}));
  EXPECT_EQ(routes[1].heartbeat,
            (Heartbeats{{Millis(0), standard.timeout}, {Millis(1000), standard.timeout}}));
  EXPECT_EQ(routes[2].heartbeat,
            (Heartbeats{{standard.interval, Millis(2000)}, {standard.interval, Millis(3000)}}));
  EXPECT_EQ(routes[3].heartbeat,
            (Heartbeats{{Millis(4000), standard.timeout}, {Millis(0), Millis(5000)}}));
}

TEST(LoadText, LeavesTheAffinityCookieWhereItIsListed) {
  const LoadResult result = LoadText(R"([[listener]]
address = "127.0.0.1:0"
[[route]]
pool = "a"
affinity = ["query:id", "cookie:stick", "ip"]
affinity_cookie = "stick"
[[route]]
path = "/b"
pool = "a"
affinity_cookie = "stick"
[pool.a]
backends = [{ address = "127.0.0.1:9001" }]
)",
                                     "t.toml", "");
  ASSERT_THAT(Texts(result.mistakes), IsEmpty());
  EXPECT_THAT(result.config.routes[0].affinity,
              ElementsAre(AffinityRule{AffinitySource::kQuery, "id", 0},
                          AffinityRule{AffinitySource::kCookie, "stick", 0},
                          AffinityRule{AffinitySource::kIp, "", 0}));
  EXPECT_THAT(result.config.routes[1].affinity,
              ElementsAre(AffinityRule{AffinitySource::kCookie, "stick", 0},
                          AffinityRule{AffinitySource::kIp, "", 0}));
}

TEST(LoadText, TurnsTheAdminInterfaceOff) {
  const LoadResult result =
      LoadText(std::string(kSmallest) + "[admin]\naddress = \"off\"\n", "t.toml", "");
  ASSERT_THAT(Texts(result.mistakes), IsEmpty());
  EXPECT_FALSE(result.config.admin.enabled);
}

TEST(LoadText, WarnsAboutATokenThatCrossesTheNetworkInPlainText) {
  const TempDir dir;
  dir.Write("a.token", "0123456789abcdef");
  dir.Write("a.pem", "");
  const std::string text =
      std::string(kSmallest) + "[admin]\naddress = \"0.0.0.0:9900\"\ntoken_file = \"a.token\"\n";
  const LoadResult plain = LoadText(text, "t.toml", dir.path());
  ASSERT_THAT(Texts(plain.mistakes), IsEmpty());
  EXPECT_EQ(plain.config.admin.host, "0.0.0.0");
  EXPECT_THAT(Texts(plain.warnings),
              ElementsAre("t.toml:8: admin.address: without tls.certificates the token crosses "
                          "the network as plain text"));
  const LoadResult tls = LoadText(
      text + "tls.certificates = [{ chain = \"a.pem\", key = \"a.pem\" }]\n", "t.toml", dir.path());
  EXPECT_THAT(Texts(tls.mistakes), IsEmpty());
  EXPECT_THAT(Texts(tls.warnings), IsEmpty());
}

TEST(LoadText, TakesAnEmptyTableForTlsWithDefaults) {
  const auto load = [](const std::string& tls) {
    return LoadText(std::string(kSmallest) + tls + "\n", "t.toml", "");
  };
  EXPECT_FALSE(load("").config.pools[0].tls.has_value());
  for (const char* written : {"tls = {}", "tls.verify = true", "tls.ca = \"\""}) {
    const LoadResult result = load(written);
    ASSERT_THAT(Texts(result.mistakes), IsEmpty()) << written;
    EXPECT_EQ(result.config.pools[0].tls, PoolTls()) << written;
  }
}

TEST(LoadText, WarnsAboutBackendsThatAreNotVerified) {
  const LoadResult result = LoadText(std::string(kSmallest) + "tls.verify = false\n", "t.toml", "");
  ASSERT_THAT(Texts(result.mistakes), IsEmpty());
  EXPECT_FALSE(result.config.pools[0].tls->verify);
  EXPECT_THAT(Texts(result.warnings),
              ElementsAre("t.toml:7: pool.a.tls.verify: certificates of these backends are not "
                          "checked, so anybody on the way to them can read and change what is "
                          "said"));
}

TEST(LoadToken, TakesWhiteSpaceOffTheEnd) {
  const TempDir dir;
  for (const char* end : {"", "\n", "\r\n", " \t\n"}) {
    EXPECT_EQ(LoadToken(dir.Write("t", "0123456789abcdef" + std::string(end))), "0123456789abcdef");
  }
  const std::string longest(4096, 't');
  EXPECT_EQ(LoadToken(dir.Write("t", longest + "\n")), longest);
}

TEST(LoadToken, RefusesWhatIsNoToken) {
  const TempDir dir;
  for (const std::string& text :
       {std::string(), std::string("\n"), std::string("0123456789abcde"), std::string(4097, 't'),
        std::string(1 << 20, 't'), std::string("0123456789 abcdef"),
        std::string("0123456789abcdef\nx"), std::string(" 0123456789abcdef"),
        std::string("0123456789abcdef\xc3\xbc"), std::string("0123456789abcdef\0", 17),
        std::string("\x7f"
                    "123456789abcdef0")}) {
    const auto token = LoadToken(dir.Write("secret", text));
    ASSERT_FALSE(token.has_value()) << text;
    EXPECT_EQ(token.error().message.find("0123"), std::string::npos);
    EXPECT_EQ(token.error().message.find("ttt"), std::string::npos);
  }
  EXPECT_FALSE(LoadToken(dir.path() + "/none").has_value());
  EXPECT_FALSE(LoadToken(dir.path()).has_value());
}

TEST(LoadText, LetsSeveralListenersTakeAnyFreePort) {
  const LoadResult result = LoadText(
      "[[listener]]\nname = \"second\"\naddress = \"127.0.0.1:0\"\n" + std::string(kSmallest),
      "t.toml", "");
  ASSERT_THAT(Texts(result.mistakes), IsEmpty());
  EXPECT_EQ(result.config.listeners[0].name, "second");
  EXPECT_EQ(result.config.listeners[1].name, "127.0.0.1:0");
}

TEST(LoadText, WarnsOfAPoolThatNoRouteUses) {
  const LoadResult result = LoadText(
      std::string(kSmallest) + "[pool.spare]\nbackends = [{ address = \"a:1\" }]\n", "t.toml", "");
  EXPECT_TRUE(result.ok());
  EXPECT_THAT(Texts(result.warnings),
              ElementsAre("t.toml:7: pool.spare: no route uses this pool, so it gets no traffic"));
}

// A file written for a later version: what it asks for beyond this one is named, and nothing else.
TEST(LoadText, AcceptsKeysOfLaterVersionsWithAWarning) {
  const TempDir dir;
  dir.Write("certs/chat.pem", "");
  dir.Write("certs/chat.key", "");
  const LoadResult result = LoadText(R"([server]
workers = 0                     # 0: one per core
takeover_socket = "takeover.sock"

[[listener]]
address = "0.0.0.0:8443"
proxy_protocol = false
tls.certificates = [{ chain = "certs/chat.pem", key = "certs/chat.key" }]   # chosen by SNI
tls.min_version = "1.2"
tls.client_ca = ""              # set: mutual TLS

[[route]]
host = "chat.example.com"       # exact, *.suffix, or absent = any
path = "/socket"                # prefix on segment borders
pool = "chat"
affinity = ["cookie:sid", "query:token", "ip"]
origins = ["https://chat.example.com"]
limits.max_message_bytes = "1MiB"
heartbeat.interval = "30s"

[pool.chat]
balance = "rendezvous"
bounded_load = 1.25
backends = [
  { name = "chat-1", address = "10.0.0.11:9000" },
  { name = "chat-2", address = "10.0.0.12:9000", weight = 2 },
]
health.type = "websocket"
health.path = "/socket"
health.interval = "5s"
health.rise = 2
health.fall = 3

[drain]
window = "30s"
close_code = 1012

[admin]
address = "127.0.0.1:9900"

[log]
level = "info"
access = "json"                 # json | text | off
)",
                                     "t.toml", dir.path());
  EXPECT_THAT(Texts(result.mistakes), IsEmpty());
  EXPECT_THAT(Texts(result.warnings), IsEmpty());
  const Health& health = result.config.pools[0].health;
  EXPECT_EQ(health.type, HealthType::kWebSocket);
  EXPECT_EQ(health.path, "/socket");
  EXPECT_EQ(result.config.routes[0].name, "chat.example.com/socket");
}

TEST(LoadFile, TakesRelativePathsFromTheFolderOfTheFile) {
  const TempDir dir;
  dir.Write("etc/a.pem", "");
  dir.Write("etc/a.key", "");
  const std::string file = dir.Write(
      "etc/s.toml", std::string(kSmallest) + "[[listener]]\naddress = \"127.0.0.1:8443\"\n" +
                        "tls.certificates = [{ chain = \"a.pem\", key = \"a.key\" }]\n");
  const LoadResult result = LoadFile(file);
  ASSERT_THAT(Texts(result.mistakes), IsEmpty());
  EXPECT_EQ(result.config.listeners[1].tls.certificates[0].chain, dir.path() + "/etc/a.pem");
}

TEST(LoadFile, SaysInOneSentenceWhyAFileCannotBeRead) {
  const TempDir dir;
  const LoadResult missing = LoadFile(dir.path() + "/none.toml");
  EXPECT_THAT(Texts(missing.mistakes), ElementsAre("cannot read \"" + dir.path() +
                                                   "/none.toml\": No such file or directory"));
  const LoadResult folder = LoadFile(dir.path());
  EXPECT_THAT(Texts(folder.mistakes),
              ElementsAre("cannot read \"" + dir.path() + "\": not a regular file"));
  const LoadResult huge = LoadFile(dir.Write("huge.toml", std::string(17U << 20, '#')));
  EXPECT_THAT(Texts(huge.mistakes),
              ElementsAre("\"" + dir.path() +
                          "/huge.toml\" is larger than 16MiB, so it is not a configuration"));
}

TEST(LoadFile, NamesTheFileAsItWasGiven) {
  const TempDir dir;
  const std::string file = dir.Write("s.toml", std::string(kSmallest) + "[log]\nqueue = 0\n");
  EXPECT_THAT(Texts(LoadFile(file).mistakes),
              ElementsAre(file + ":8: log.queue: 0 is out of range; allowed: 64 to 1048576"));
}

TEST(LoadText, TakesWhereBackendsAreDiscovered) {
  const LoadResult result = LoadText(R"(
[[listener]]
address = "127.0.0.1:8080"
[[route]]
pool = "a"
[[route]]
path = "/b"
pool = "b"
[[route]]
path = "/c"
pool = "c"
[pool.a.discover]
dns = "Chat.Internal."
port = 9000
[pool.b.discover]
dns = "_ws._tcp.chat.internal"
type = "SRV"
servers = ["127.0.0.1:5353", "fd00::53"]
timeout = "2s"
min_ttl = "500ms"
max_ttl = "1m"
[pool.c]
discover = { file = "live/c.toml" }
)",
                                     "t.toml", "/etc/sluice");
  ASSERT_THAT(Texts(result.mistakes), IsEmpty());
  ASSERT_THAT(Texts(result.warnings), IsEmpty());
  const std::vector<Pool>& pools = result.config.pools;
  ASSERT_EQ(pools.size(), 3U);
  for (const Pool& pool : pools) {
    EXPECT_THAT(pool.backends, IsEmpty());
  }
  EXPECT_EQ(pools[0].discover, (Discovery{.dns = "chat.internal", .port = 9000}));
  EXPECT_EQ(pools[1].discover, (Discovery{.dns = "_ws._tcp.chat.internal",
                                          .type = DnsType::kSrv,
                                          .servers = {"127.0.0.1:5353", "[fd00::53]:53"},
                                          .timeout = Millis(2000),
                                          .min_ttl = Millis(500),
                                          .max_ttl = Millis(60'000)}));
  EXPECT_EQ(pools[2].discover, (Discovery{.file = "/etc/sluice/live/c.toml"}));
}

TEST(LoadBackends, TakesAFileOfBackends) {
  const TempDir dir;
  const LoadedBackends loaded = LoadBackends(dir.Write("b.toml", R"(
[[backends]]
address = "127.0.0.1:9001"
[[backends]]
name = "two"
address = "db.local:9002"
weight = 2
)"));
  ASSERT_THAT(Texts(loaded.mistakes), IsEmpty());
  EXPECT_EQ(loaded.backends, (std::vector<Backend>{{"127.0.0.1:9001", "127.0.0.1", 9001, 1.0},
                                                   {"two", "db.local", 9002, 2.0}}));
}

}  // namespace
}  // namespace sluice::config
