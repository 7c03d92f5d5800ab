// Proves that the configuration in effect is told whole, key by key as the file has them, and that
// no secret is in it.
#include "proxy/server/config_json.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "proxy/config/keys.h"
#include "proxy/config/load.h"

namespace sluice::server {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kToken = "a-secret-of-24-characters";

// Every key that may be left out is there, so that it has to be told.
constexpr std::string_view kEverything = R"(
[server]
workers = 3
header_timeout = "11s"
tls_timeout = "12s"
keep_alive_timeout = "13s"
keep_alive_requests = 15
close_timeout = "14s"
trusted_proxies = ["10.0.0.0/8"]
takeover_socket = "t.sock"
[limits]
max_connections = 1000
connections_per_ip = 17
upgrades_per_ip = 2.5
upgrades_per_ip_burst = 18
max_handshakes = 19
max_head_bytes = "16KiB"
max_head_fields = 50
max_request_line = "4KiB"
early_data = "8KiB"
out_buffer = "128KiB"
max_buffered = "2GiB"
max_connection_age = "3h"
[[listener]]
name = "secure"
address = "127.0.0.1:8443"
tls.certificates = [{ chain = "a.pem", key = "a.key" }]
tls.min_version = "1.3"
tls.client_ca = "ca.pem"
proxy_protocol = true
[[listener]]
address = "127.0.0.1:8081"
redirect = { port = 8443, status = 307 }
[[route]]
name = "chat"
host = "chat.test"
path = "/chat"
pool = "app"
upgrades = false
affinity = ["cookie:a", "header:X-B", "query:c", "path:2", "ip"]
affinity_cookie = "a"
origins = ["https://chat.test"]
require_origin = true
learn = { json = "sid", from = "/socket.io/", max_entries = 28, ttl = "29s" }
limits.max_message_bytes = "1MiB"
limits.max_frame_bytes = "64KiB"
limits.max_frames_per_message = 9
limits.max_connections = 24
limits.messages_per_second = 0.5
limits.bytes_per_second = "5KiB"
limits.control_frames_per_second = 25
limits.on_limit = "close"
limits.max_connection_age = "2h"
retries = 3
handshake_timeout = "21s"
response_timeout = "22s"
response_idle_timeout = "23s"
close_code = 1001
refragment = "32KiB"
heartbeat.interval = "23s"
heartbeat.timeout = "9s"
heartbeat.client.interval = "26s"
heartbeat.backend.timeout = "8s"
idle_timeout = "27s"
on_slow = "close"
slow_timeout = "7s"
error_pages = { 503 = "a.pem", 502 = "a.key" }
hsts = { max_age = "400d", include_subdomains = true, preload = true }
request_headers = { add = { "Authorization" = "a-secret-for-backends" }, remove = ["X-A"] }
response_headers = { add = { "X-B" = "b", "X-A" = "a" }, remove = ["X-A", "Server"] }
auth = { url = "http://Auth.local/check?a=b", forward = ["Authorization", "cookie", "COOKIE"], copy = "X-User", timeout = "1s", on = "upgrades" }
auth_expires_header = "X-Expires"
auth_expires_code = 4001
[pool.app]
balance = "round_robin"
bounded_load = 1.5
connect_timeout = "4s"
slow_start = "31s"
proxy_protocol = "v1"
keep_alive.max_idle = 16
keep_alive.idle_timeout = "6s"
group_threshold = 0.25
panic = "refuse"
handshake_rate = 7.5
handshake_burst = 9
tls.ca = "ca.pem"
tls.server_name = "b.test"
tls.certificate = { chain = "a.pem", key = "a.key" }
tls.verify = false
tls.min_version = "1.3"
health.type = "http"
health.path = "/live"
health.host = "chat.test"
health.status = 204
health.interval = "4s"
health.timeout = "3s"
health.rise = 4
health.fall = 5
health.ping = true
on_down = "drain"
outlier.failures = 6
outlier.ejection_time = "11s"
outlier.max_ejection_time = "12s"
outlier.max_ejected = 0.25
backends = [
  { name = "one", address = "127.0.0.1:9001", weight = 2.5, group = 2, max_connections = 70, server_name = "c.test" },
]
[drain]
window = "41s"
grace = "42s"
ready_delay = "3s"
message_grace = "4s"
rate = 45
event_retry = "1s"
close_code = 1001
reason = "going away"
[admin]
address = "0.0.0.0:9900"
token_file = "token"
tls.certificates = [{ chain = "a.pem", key = "a.key" }]
tls.min_version = "1.3"
[log]
level = "debug"
access = "text"
query = true
queue = 99
)";

// What is told as the value that each side has.
const std::set<std::pair<std::string_view, std::string_view>> kToldPerSide{
    {"route.heartbeat", "interval"}, {"route.heartbeat", "timeout"}};

class ConfigJsonTest : public testing::Test {
 protected:
  ConfigJsonTest() {
    path_ = (std::filesystem::temp_directory_path() / "sluice-server-XXXXXX").string();
    EXPECT_NE(::mkdtemp(path_.data()), nullptr);
    for (const char* name : {"a.pem", "a.key", "ca.pem"}) {
      std::ofstream(path_ + "/" + name) << "";
    }
    std::ofstream(path_ + "/token") << kToken << "\n";
  }
  ~ConfigJsonTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  config::Config Load(std::string_view text) const {
    const config::LoadResult loaded = config::LoadText(text, "t.toml", path_);
    for (const config::Mistake& mistake : loaded.mistakes) {
      ADD_FAILURE() << mistake.Text();
    }
    return loaded.config;
  }

  std::string path_;
};

// The element of `document` that a path of config::KeyTable leads to; of an array its first.
const json& At(const json& document, std::string_view path) {
  const json* at = &document;
  while (!path.empty()) {
    const std::string_view step = path.substr(0, path.find('.'));
    path.remove_prefix(std::min(path.size(), step.size() + 1));
    at = step == "*" ? &at->begin().value() : &at->at(std::string(step));
    if (at->is_array()) {
      at = &at->at(0);
    }
  }
  return *at;
}

TEST_F(ConfigJsonTest, HasEveryKeyOfEveryTableAndNoOther) {
  config::Config config = Load(kEverything);
  // More than a file may say at once.
  config.listeners[0].redirect.emplace();
  config.pools[0].discover = config::Discovery{.file = "b.toml", .dns = "a.test", .port = 9000};
  const json document = json::parse(ConfigJson(config));
  for (const config::KeyTable& table : config::AllKeyTables()) {
    const json& object = At(document, table.path);
    std::set<std::string> wanted;
    for (const std::string_view key : table.keys) {
      if (!kToldPerSide.contains({table.path, key})) {
        wanted.emplace(key);
      }
    }
    std::set<std::string> told;
    for (const auto& [key, value] : object.items()) {
      told.insert(key);
    }
    EXPECT_EQ(told, wanted) << table.path;
  }
}

TEST_F(ConfigJsonTest, ValuesAreThoseOfTheFile) {
  const json document = json::parse(ConfigJson(Load(kEverything)));
  const std::pair<const char*, json> cases[] = {
      {"/server/workers", 3},
      {"/server/header_timeout", "11s"},
      {"/server/takeover_socket", path_ + "/t.sock"},
      {"/limits/max_connections", 1000},
      {"/limits/connections_per_ip", 17},
      {"/limits/upgrades_per_ip", 2.5},
      {"/limits/upgrades_per_ip_burst", 18},
      {"/limits/max_handshakes", 19},
      {"/limits/max_request_line", "4KiB"},
      {"/limits/out_buffer", "128KiB"},
      {"/limits/max_buffered", "2GiB"},
      {"/limits/max_connection_age", "3h"},
      {"/listener/0/address", "127.0.0.1:8443"},
      {"/listener/0/tls/min_version", "1.3"},
      {"/listener/0/tls/certificates/0/key", path_ + "/a.key"},
      {"/route/0/affinity", {"cookie:a", "header:X-B", "query:c", "path:2", "ip"}},
      {"/route/0/learn",
       {{"json", "sid"}, {"from", "/socket.io/"}, {"max_entries", 28}, {"ttl", "29s"}}},
      {"/route/0/limits/max_message_bytes", "1MiB"},
      {"/route/0/limits/max_frame_bytes", "64KiB"},
      {"/route/0/limits/max_frames_per_message", 9},
      {"/route/0/limits/max_connections", 24},
      {"/route/0/limits/messages_per_second", 0.5},
      {"/route/0/limits/bytes_per_second", "5KiB"},
      {"/route/0/limits/control_frames_per_second", 25},
      {"/route/0/limits/on_limit", "close"},
      {"/route/0/limits/max_connection_age", "2h"},
      {"/route/0/close_code", 1001},
      {"/route/0/heartbeat/client/interval", "26s"},
      {"/route/0/heartbeat/client/timeout", "9s"},
      {"/route/0/heartbeat/backend/interval", "23s"},
      {"/route/0/heartbeat/backend/timeout", "8s"},
      {"/route/0/idle_timeout", "27s"},
      {"/route/0/on_slow", "close"},
      {"/route/0/slow_timeout", "7s"},
      {"/route/0/error_pages", {{"503", path_ + "/a.pem"}, {"502", path_ + "/a.key"}}},
      {"/route/0/hsts/max_age", "400d"},
      {"/route/0/hsts/include_subdomains", true},
      {"/route/0/hsts/preload", true},
      {"/route/0/request_headers/remove", {"X-A"}},
      {"/route/0/response_headers/add", {{"X-B", "b"}, {"X-A", "a"}}},
      {"/route/0/response_headers/remove", {"X-A", "Server"}},
      {"/route/0/auth/url", "http://Auth.local/check?..."},
      {"/route/0/auth/forward", {"authorization", "cookie"}},
      {"/route/0/auth/timeout", "1s"},
      {"/route/0/auth/on", "upgrades"},
      {"/route/0/auth_expires_header", "x-expires"},
      {"/route/0/auth_expires_code", 4001},
      {"/pool/app/balance", "round_robin"},
      {"/listener/0/proxy_protocol", true},
      {"/listener/1/redirect/port", 8443},
      {"/listener/1/redirect/status", 307},
      {"/pool/app/bounded_load", 1.5},
      {"/pool/app/proxy_protocol", "v1"},
      {"/pool/app/group_threshold", 0.25},
      {"/pool/app/panic", "refuse"},
      {"/pool/app/handshake_rate", 7.5},
      {"/pool/app/handshake_burst", 9},
      {"/pool/app/backends/0/weight", 2.5},
      {"/pool/app/backends/0/group", 2},
      {"/pool/app/backends/0/max_connections", 70},
      {"/pool/app/backends/0/server_name", "c.test"},
      {"/pool/app/tls/ca", path_ + "/ca.pem"},
      {"/pool/app/tls/verify", false},
      {"/pool/app/tls/certificate/key", path_ + "/a.key"},
      {"/drain/rate", 45},
      {"/drain/reason", "going away"},
      {"/admin/address", "0.0.0.0:9900"},
      {"/log/level", "debug"},
  };
  for (const auto& [pointer, value] : cases) {
    EXPECT_EQ(document.at(json::json_pointer(pointer)), value) << pointer;
  }
}

TEST_F(ConfigJsonTest, TellsWhereBackendsAreLearnedAndWhatIsKnown) {
  config::Config config = Load(kEverything);
  config.pools[0].discover = config::Discovery{.dns = "_ws._tcp.chat.test",
                                               .type = config::DnsType::kSrv,
                                               .servers = {"127.0.0.53:53"},
                                               .max_ttl = Millis(30'000)};
  const json pool = json::parse(ConfigJson(config))["pool"]["app"];
  EXPECT_EQ(pool["discover"], json({{"dns", "_ws._tcp.chat.test"},
                                    {"type", "SRV"},
                                    {"servers", {"127.0.0.53:53"}},
                                    {"timeout", "5s"},
                                    {"min_ttl", "1s"},
                                    {"max_ttl", "30s"}}));
  EXPECT_EQ(pool["backends"].size(), 1U);
}

TEST_F(ConfigJsonTest, NeverTellsTheToken) {
  const config::Config config = Load(kEverything);
  ASSERT_EQ(config.admin.token, kToken);
  const std::string text = ConfigJson(config);
  EXPECT_THAT(text, Not(HasSubstr(kToken)));
  EXPECT_EQ(json::parse(text)["admin"]["token_file"], path_ + "/token");
}

TEST_F(ConfigJsonTest, NeverTellsWhatIsSentToBackendsAlone) {
  const std::string text = ConfigJson(Load(kEverything));
  EXPECT_THAT(text, Not(HasSubstr("a-secret-for-backends")));
  EXPECT_TRUE(json::parse(text)["route"][0]["request_headers"]["add"].contains("Authorization"));
}

TEST_F(ConfigJsonTest, WhatIsOffOrNotSetIsToldAsInTheFile) {
  const json document = json::parse(ConfigJson(Load(R"(
[admin]
address = "off"
[[listener]]
address = "[::1]:0"
[[route]]
pool = "a"
[pool.a]
backends = [{ address = "127.0.0.1:9001" }]
)")));
  EXPECT_EQ(document["admin"], (json{{"address", "off"}}));
  EXPECT_EQ(document["listener"][0]["address"], "[::1]:0");
  EXPECT_FALSE(document["listener"][0].contains("tls"));
  EXPECT_FALSE(document["route"][0].contains("close_code"));
  EXPECT_FALSE(document["route"][0].contains("hsts"));
  EXPECT_FALSE(document["route"][0]["limits"].contains("max_connection_age"));
  EXPECT_EQ(document["route"][0]["limits"]["on_limit"], "pause");
  EXPECT_EQ(document["route"][0]["limits"]["bytes_per_second"], "0B");
  EXPECT_EQ(document["route"][0]["on_slow"], "pause");
  EXPECT_EQ(document["route"][0]["idle_timeout"], "0s");
}

// What is told can be written into a file again: the names of choices are those that it takes.
TEST_F(ConfigJsonTest, ChoicesHaveTheNamesOfTheFile) {
  for (const char* balance :
       {"rendezvous", "least_connections", "random_two_choices", "round_robin"}) {
    for (const auto& [level, access] :
         {std::pair("info", "json"), std::pair("warn", "off"), std::pair("error", "text")}) {
      const std::string text = "[log]\nlevel = \"" + std::string(level) + "\"\naccess = \"" +
                               access + "\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n" +
                               "[[route]]\npool = \"a\"\n[pool.a]\nbalance = \"" + balance +
                               "\"\nbackends = [{ address = \"127.0.0.1:9001\" }]\n";
      const json document = json::parse(ConfigJson(Load(text)));
      EXPECT_EQ(document["pool"]["a"]["balance"], balance);
      EXPECT_EQ(document["log"]["level"], level);
      EXPECT_EQ(document["log"]["access"], access);
    }
  }
}

}  // namespace
}  // namespace sluice::server
