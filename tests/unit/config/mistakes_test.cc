// Proves that each kind of mistake is found, at its line, under its key, with a text that says what
// is wrong and what is allowed; and that all of them are reported at once.
#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/config/load.h"

#include "tests/unit/config/files.h"

namespace sluice::config {
namespace {

// What makes a file complete; it follows the snippet of a case, so that lines count from there.
constexpr std::string_view kRest = R"(
[[listener]]
address = "127.0.0.1:8099"
[[route]]
host = "rest.example"
pool = "rest"
[pool.rest]
backends = [{ address = "127.0.0.1:9099" }]
)";

// The same for a snippet that begins the pool.
constexpr std::string_view kRestOfPool = R"(
backends = [{ address = "127.0.0.1:9099" }]
[[listener]]
address = "127.0.0.1:8099"
[[route]]
host = "rest.example"
pool = "rest"
)";

struct Case {
  const char* name;
  std::string_view text;
  // How each message goes on after "t.toml:": "line: key: beginning of the text".
  std::vector<std::string> want;
  std::string_view rest = kRest;
};

std::string CaseName(const testing::TestParamInfo<Case>& info) {
  return info.param.name;
}

class Mistakes : public testing::TestWithParam<Case> {};

void ExpectMessages(const std::vector<Mistake>& mistakes, const std::vector<std::string>& want) {
  const std::vector<std::string> got = Texts(mistakes);
  for (std::size_t i = 0; i < std::max(got.size(), want.size()); ++i) {
    const std::string prefix = i < want.size() ? "t.toml:" + want[i] : "(nothing more)";
    const std::string text = i < got.size() ? got[i] : "(nothing more)";
    EXPECT_EQ(text.substr(0, prefix.size()), prefix) << "message " << i << " is: " << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  }
}

TEST_P(Mistakes, AreReportedWithLineAndKey) {
  const TempDir dir;
  dir.Write("a.pem", "");
  dir.Write("a.key", "");
  dir.Write("a.token", "0123456789abcdef\n");
  dir.Write("large.html", std::string((64U << 10U) + 1, 'x'));
  const std::string text = std::string(GetParam().text) + std::string(GetParam().rest);
  ExpectMessages(LoadText(text, "t.toml", dir.path()).mistakes, GetParam().want);
}

INSTANTIATE_TEST_SUITE_P(
    Syntax, Mistakes,
    testing::Values(
        Case{"MissingBracket", "\n[server\n", {"2: not valid TOML: "}},
        Case{"MissingValue", "[server]\nworkers =\n", {"2: not valid TOML: "}},
        Case{"KeyTwice",
             "[server]\nworkers = 1\nworkers = 2\n",
             {"3: not valid TOML: Error while parsing key-value pair: cannot redefine existing "
              "integer 'workers'"}},
        Case{"PoolTwice", "[pool.a]\n[pool.b]\n[pool.a]\n", {"3: not valid TOML: "}},
        Case{"NotUtf8", "[server]\n# \xFF\n", {"2: not valid TOML: "}}),
    CaseName);

INSTANTIATE_TEST_SUITE_P(
    Keys, Mistakes,
    testing::Values(
        Case{"UnknownTable",
             "[sever]\n",
             {"1: sever: unknown key; did you mean \"server\"? allowed here: server, limits, "
              "listener, route, pool, drain, admin, log"}},
        Case{
            "UnknownKeyNear",
            "[server]\nwokers = 3\n",
            {"2: server.wokers: unknown key; did you mean \"workers\"? allowed here: workers, "
             "header_timeout, tls_timeout, keep_alive_timeout, keep_alive_requests, close_timeout, "
             "trusted_proxies, takeover_socket"}},
        Case{"UnknownKeyFar",
             "[log]\nzzz = 1\n",
             {"2: log.zzz: unknown key; allowed here: level, access, query, queue"}},
        Case{"UnknownKeyThatIsAtHomeElsewhere",
             "[server]\nmax_head_bytes = 10\n",
             {"2: server.max_head_bytes: unknown key; it belongs to \"limits\"; allowed here: "}},
        Case{"UnknownKeyThatIsAtHomeInside",
             "[pool.a]\nidle_timeout = \"4s\"\nbackends = [{ address = \"127.0.0.1:1\" }]\n",
             {"2: pool.a.idle_timeout: unknown key; it belongs to \"pool.*.keep_alive\"; allowed "
              "here: "}},
        Case{"UnknownKeyThatNeedsQuotes",
             "[log]\n\"a\\nb\" = 1\n",
             {"2: log.\"a\\x0ab\": unknown key; allowed here: "}},
        Case{"UnknownKeysInEveryCorner",
             "[[listener]]\naddress = \"127.0.0.1:1\"\nport = 1\n"
             "tls.certificates = [{ chain = \"a.pem\", key = \"a.key\", ca = \"a\" }]\n"
             "tls.ciphers = \"x\"\n"
             "[[route]]\npool = \"rest\"\nlimits.bytes = 1\nheartbeat.every = \"1s\"\n"
             "heartbeat.client.every = \"1s\"\nheartbeat.backend = { timeuot = \"1s\" }\n"
             "[pool.a]\nbackend = 1\nbackends = [{ address = \"a:1\", wieght = 1 }]\n",
             {"3: listener[0].port: unknown key",
              "4: listener[0].tls.certificates[0].ca: unknown key",
              "5: listener[0].tls.ciphers: unknown key", "8: route[0].limits.bytes: unknown key",
              "9: route[0].heartbeat.every: unknown key",
              "10: route[0].heartbeat.client.every: unknown key; allowed here: interval, timeout",
              "11: route[0].heartbeat.backend.timeuot: unknown key; did you mean \"timeout\"? ",
              "13: pool.a.backend: unknown key; did you mean \"backends\"? ",
              "14: pool.a.backends[0].wieght: unknown key; did you mean \"weight\"? "}}),
    CaseName);

INSTANTIATE_TEST_SUITE_P(
    Types, Mistakes,
    testing::Values(
        Case{
            "Integer",
            "[server]\nworkers = \"3\"\n[limits]\nmax_head_fields = 1.5\n",
            {"2: server.workers: must be an integer, not a string; allowed: 0 to 1024",
             "4: limits.max_head_fields: must be an integer, not a floating-point number; allowed: "
             "10 to 1000"}},
        Case{"Number",
             "[drain]\nrate = \"5\"\n[pool.a]\nbounded_load = nan\n"
             "backends = [{ address = \"a:1\", weight = true }]\n",
             {"2: drain.rate: must be a finite number, not a string; allowed: 0 (no cap) or 0.01 "
              "to 1000000",
              "4: pool.a.bounded_load: must be a finite number, not a floating-point number",
              "5: pool.a.backends[0].weight: must be a finite number, not a boolean"}},
        Case{"Boolean",
             "[log]\nquery = \"yes\"\n[[route]]\npool = \"rest\"\nupgrades = 1\n",
             {"2: log.query: must be true or false, not a string",
              "5: route[0].upgrades: must be true or false, not an integer"}},
        Case{"String",
             "[log]\nlevel = 1\n[admin]\naddress = 9900\n[drain]\nreason = []\n",
             {"2: log.level: must be a string, not an integer; allowed: debug, info, warn, error",
              "4: admin.address: must be a string, not an integer",
              "6: drain.reason: must be a string, not an array"}},
        Case{"Strings",
             "[server]\ntrusted_proxies = 1\n[[route]]\npool = \"rest\"\n"
             "affinity = { ip = true }\norigins = [\n  1,\n  1979-05-27,\n]\n",
             {"2: server.trusted_proxies: must be an array of strings, not an integer",
              "5: route[0].affinity: must be an array of strings, not a table",
              "7: route[0].origins[0]: must be a string, not an integer",
              "8: route[0].origins[1]: must be a string, not a date or time"}},
        Case{"TableForArray",
             "[listener]\naddress = \"127.0.0.1:1\"\n[route]\npool = \"a\"\n[pool.a]\n"
             "backends = [{ address = \"a:1\" }]\n",
             {"1: listener: must be an array of tables, each written [[listener]], not a table",
              "3: route: must be an array of tables, each written [[route]], not a table"},
             ""},
        Case{"ArrayForTable",
             "[[server]]\n[[drain]]\n",
             {"1: server: must be one table, written [server], not an array",
              "2: drain: must be one table, written [drain], not an array"}},
        Case{"HeartbeatOfOneSideAsString",
             "[[route]]\npool = \"rest\"\nheartbeat.client = \"30s\"\n",
             {"3: route[0].heartbeat.client: must be a table, not a string"}},
        Case{"PoolWithoutAName",
             "[[listener]]\naddress = \"127.0.0.1:1\"\n[[route]]\npool = \"a\"\n[pool]\n"
             "backends = []\n",
             {"6: pool.backends: must be a table, written [pool.NAME], not an array"},
             ""},
        Case{"PoolAsArray",
             "[[listener]]\naddress = \"127.0.0.1:1\"\n[[route]]\npool = \"a\"\n[[pool]]\n"
             "name = \"a\"\n",
             {"5: pool: must be a table, written [pool.NAME], not an array"},
             ""},
        Case{"ElementsThatAreNoTables",
             "[pool.a]\nbackends = [\"10.0.0.1:80\"]\n[pool.b]\nbackends = \"10.0.0.1:80\"\n",
             {"2: pool.a.backends[0]: must be a table, not a string",
              "4: pool.b.backends: must be an array of tables, such as [{ name = "}},
        Case{"TlsAsString",
             "[[listener]]\naddress = \"127.0.0.1:1\"\ntls = \"a.pem\"\n",
             {"3: listener[0].tls: must be a table, not a string"}}),
    CaseName);

INSTANTIATE_TEST_SUITE_P(
    Units, Mistakes,
    testing::Values(
        Case{"DurationWithoutUnit",
             "[server]\nheader_timeout = 30\ntls_timeout = 0.5\nclose_timeout = \"5\"\n",
             {"2: server.header_timeout: 30 has no unit; write it as a string with ms, s, m, h or "
              "d, "
              "such as \"30s\"",
              "3: server.tls_timeout: 0.5 has no unit; write it as a string with ms, s, m, h or d, "
              "such as \"500ms\"",
              "4: server.close_timeout: \"5\" has no unit; allowed: a whole number with ms, s, m, "
              "h or d, such as \"30s\""}},
        Case{"DurationOfAnotherType",
             "[drain]\nwindow = true\n",
             {"2: drain.window: must be a string, not a boolean; allowed: 0s to 24h"}},
        Case{"SizeOfAnotherType",
             "[limits]\nout_buffer = true\n",
             {"2: limits.out_buffer: must be a string, not a boolean; allowed: 4KiB to 16MiB"}},
        Case{"DurationOutOfRange",
             "[server]\nheader_timeout = \"0s\"\nkeep_alive_timeout = \"25h\"\n",
             {"2: server.header_timeout: \"0s\" is out of range; allowed: 10ms to 1h",
              "3: server.keep_alive_timeout: \"25h\" is out of range; allowed: 10ms to 24h"}},
        Case{"SizeWithoutUnit",
             "[limits]\nout_buffer = 65536\nearly_data = \"4096\"\nmax_head_bytes = \"1 MiB\"\n",
             {"2: limits.out_buffer: 65536 has no unit; write it as a string with B, KB, KiB, MB, "
              "MiB, GB or GiB, such as \"65536B\"",
              "3: limits.early_data: \"4096\" has no unit; allowed: a whole number with B, ",
              "4: limits.max_head_bytes: \"1 MiB\" is not a size; allowed: a whole number"}},
        Case{
            "RatesWithTheWrongKindOfValue",
            "[limits]\nupgrades_per_ip = \"5/s\"\nmax_buffered = 1073741824\n[[route]]\n"
            "pool = \"rest\"\nlimits.messages_per_second = \"10\"\n"
            "limits.bytes_per_second = 1000\nidle_timeout = 60\nlimits.on_limit = true\n",
            {"2: limits.upgrades_per_ip: must be a finite number, not a string",
             "3: limits.max_buffered: 1073741824 has no unit; write it as a string with B, ",
             "6: route[0].limits.messages_per_second: must be a finite number, not a string",
             "7: route[0].limits.bytes_per_second: 1000 has no unit; write it as a string with B, ",
             "8: route[0].idle_timeout: 60 has no unit; write it as a string with ms, s, m, h or d",
             "9: route[0].limits.on_limit: must be a string, not a boolean"}},
        Case{"SizeOutOfRange",
             "[limits]\nout_buffer = \"1KiB\"\nearly_data = \"99999999999GiB\"\n",
             {"2: limits.out_buffer: \"1KiB\" is out of range; allowed: 4KiB to 16MiB",
              "3: limits.early_data: \"99999999999GiB\" is too large"}}),
    CaseName);

INSTANTIATE_TEST_SUITE_P(
    Ranges, Mistakes,
    testing::Values(
        Case{"Counts",
             "[server]\nworkers = -1\n[limits]\nmax_connections = 99999999\n"
             "max_head_fields = 0\n[log]\nqueue = 1\n",
             {"2: server.workers: -1 is out of range; allowed: 0 to 1024",
              "4: limits.max_connections: 99999999 is out of range; allowed: 0 to 10000000",
              "5: limits.max_head_fields: 0 is out of range; allowed: 10 to 1000",
              "7: log.queue: 1 is out of range; allowed: 64 to 1048576"}},
        Case{"Numbers",
             "[drain]\nrate = -1\n[pool.a]\nbounded_load = 0.5\nbackends = [\n"
             "  { address = \"a:1\", weight = 0 },\n  { address = \"b:1\", weight = 1e9 },\n]\n",
             {"2: drain.rate: -1 is out of range; allowed: 0 (no cap) or 0.01 to 1000000",
              "4: pool.a.bounded_load: 0.5 is out of range; allowed: 0 (off) or 1 to 100",
              "6: pool.a.backends[0].weight: 0 is out of range; allowed: 0.001 to 1000",
              "7: pool.a.backends[1].weight: 1000000000 is out of range; allowed: 0.001 to 1000"}},
        Case{"Words",
             "[log]\nlevel = \"warning\"\naccess = \"xml\"\n[pool.a]\nbalance = \"rondezvous\"\n"
             "backends = [{ address = \"a:1\" }]\n",
             {"2: log.level: \"warning\" is not known; allowed: debug, info, warn, error",
              "3: log.access: \"xml\" is not known; allowed: json, text, off",
              "5: pool.a.balance: \"rondezvous\" is not known; did you mean \"rendezvous\"? "
              "allowed: rendezvous, least_connections, random_two_choices, round_robin"}},
        Case{"RequestLineLargerThanTheHead",
             "[limits]\nmax_request_line = \"64KiB\"\n",
             {"2: limits.max_request_line: max_request_line (64KiB) is a part of the head; "
              "allowed: at most max_head_bytes (32KiB)"}},
        Case{"HeadSmallerThanTheRequestLine",
             "[limits]\nmax_head_bytes = \"4KiB\"\n",
             {"2: limits.max_head_bytes: max_request_line (8KiB) is a part of the head; "}},
        Case{"ConnectionAge",
             "[limits]\nmax_connection_age = \"999ms\"\n[[route]]\npool = \"rest\"\n"
             "limits.max_connection_age = \"721h\"\n",
             {"2: limits.max_connection_age: \"999ms\" is out of range; allowed: 0s (no limit) or "
              "1s to 720h",
              "5: route[0].limits.max_connection_age: \"721h\" is out of range; allowed: 0s (no "
              "limit) or 1s to 720h"}},
        Case{"Heartbeat",
             "[[route]]\npool = \"rest\"\nheartbeat.interval = \"99ms\"\n"
             "heartbeat.timeout = \"0s\"\n[[route]]\npool = \"rest\"\npath = \"/b\"\n"
             "heartbeat.interval = \"61m\"\nheartbeat.timeout = \"2h\"\n",
             {"3: route[0].heartbeat.interval: \"99ms\" is out of range; allowed: 0s (off) or "
              "100ms to 1h",
              "4: route[0].heartbeat.timeout: \"0s\" is out of range; allowed: 50ms to 1h",
              "8: route[1].heartbeat.interval: \"61m\" is out of range; ",
              "9: route[1].heartbeat.timeout: \"2h\" is out of range; "}},
        Case{"HeartbeatOfOneSide",
             "[[route]]\npool = \"rest\"\nheartbeat.client.interval = \"99ms\"\n"
             "heartbeat.client.timeout = \"2h\"\nheartbeat.backend.interval = \"61m\"\n"
             "heartbeat.backend.timeout = \"49ms\"\n",
             {"3: route[0].heartbeat.client.interval: \"99ms\" is out of range; allowed: 0s (off) "
              "or 100ms to 1h",
              "4: route[0].heartbeat.client.timeout: \"2h\" is out of range; allowed: 50ms to 1h",
              "5: route[0].heartbeat.backend.interval: \"61m\" is out of range; ",
              "6: route[0].heartbeat.backend.timeout: \"49ms\" is out of range; "}},
        Case{"ClientsThatComeTooOften",
             "[limits]\nconnections_per_ip = -1\nupgrades_per_ip = 0.009\n"
             "upgrades_per_ip_burst = 0\nmax_handshakes = 10000001\n",
             {"2: limits.connections_per_ip: -1 is out of range; allowed: 0 to 10000000",
              "3: limits.upgrades_per_ip: 0.009 is out of range; allowed: 0 (no limit) or 0.01 to "
              "1000000000",
              "4: limits.upgrades_per_ip_burst: 0 is out of range; allowed: 1 to 1000000",
              "5: limits.max_handshakes: 10000001 is out of range; allowed: 0 to 10000000"}},
        Case{"MaxBuffered",
             "[limits]\nmax_buffered = \"1023KiB\"\n",
             {"2: limits.max_buffered: \"1023KiB\" is out of range; allowed: 0B (no limit) or 1MiB "
              "to 1024GiB"}},
        Case{"MaxBufferedTooLarge",
             "[limits]\nmax_buffered = \"1025GiB\"\n",
             {"2: limits.max_buffered: \"1025GiB\" is out of range; "}},
        Case{"ClientsThatSendTooMuch",
             "[[route]]\npool = \"rest\"\nlimits.messages_per_second = -1\n"
             "limits.bytes_per_second = \"99B\"\nlimits.control_frames_per_second = 1e10\n"
             "limits.max_connections = -1\nlimits.on_limit = \"puase\"\n",
             {"3: route[0].limits.messages_per_second: -1 is out of range; allowed: 0 (no limit) "
              "or 0.01 to 1000000000",
              "4: route[0].limits.bytes_per_second: \"99B\" is out of range; allowed: 0B (no "
              "limit) or 100B to ",
              "5: route[0].limits.control_frames_per_second: 1e+10 is out of range; allowed: 0 (no "
              "limit) or 0.01 to 1000000000",
              "6: route[0].limits.max_connections: -1 is out of range; allowed: 0 to 10000000",
              "7: route[0].limits.on_limit: \"puase\" is not known; did you mean \"pause\"? "
              "allowed: pause, close"}},
        Case{"IdleAndSlowSessions",
             "[[route]]\npool = \"rest\"\nidle_timeout = \"499ms\"\non_slow = \"drop\"\n"
             "slow_timeout = \"0s\"\n[[route]]\npool = \"rest\"\npath = \"/b\"\n"
             "idle_timeout = \"721h\"\nslow_timeout = \"61m\"\n",
             {"3: route[0].idle_timeout: \"499ms\" is out of range; allowed: 0s (no limit) or "
              "500ms to 720h",
              "4: route[0].on_slow: \"drop\" is not known; allowed: pause, close",
              "5: route[0].slow_timeout: \"0s\" is out of range; allowed: 100ms to 1h",
              "9: route[1].idle_timeout: \"721h\" is out of range; ",
              "10: route[1].slow_timeout: \"61m\" is out of range; "}},
        Case{"AuthUrls",
             "[[route]]\npool = \"rest\"\nauth = {}\n"
             "[[route]]\npool = \"rest\"\npath = \"/b\"\nauth.url = \"https://a/\"\n"
             "[[route]]\npool = \"rest\"\npath = \"/c\"\nauth.url = \"http://u:p@a/\"\n"
             "[[route]]\npool = \"rest\"\npath = \"/d\"\nauth.url = \"http://:80/\"\n"
             "[[route]]\npool = \"rest\"\npath = \"/e\"\nauth.url = \"http://a:0/\"\n"
             "[[route]]\npool = \"rest\"\npath = \"/f\"\nauth.url = \"http://a:65536\"\n"
             "[[route]]\npool = \"rest\"\npath = \"/g\"\nauth.url = \"http://a/b c\"\n"
             "[[route]]\npool = \"rest\"\npath = \"/h\"\nauth.url = \"http://a/#b\"\n"
             "[[route]]\npool = \"rest\"\npath = \"/i\"\nauth.url = \"http://::1/\"\n"
             "[[route]]\npool = \"rest\"\npath = \"/j\"\nauth = \"http://a/\"\n",
             {"3: route[0].auth.url: is missing; allowed: the http:// URL of a server to ask",
              "7: route[1].auth.url: \"https://a/\" does not begin with http://; allowed: an "
              "http:// URL, such as \"http://127.0.0.1:9001/check\"",
              "11: route[2].auth.url: \"http://u:p@a/\" holds a user, which nobody is sent; ",
              "15: route[3].auth.url: \"http://:80/\": \":80\" has no host; ",
              "19: route[4].auth.url: \"http://a:0/\": 0 is not a port; allowed: 1 to 65535",
              "23: route[5].auth.url: \"http://a:65536\": \"a:65536\": \"65536\" is not a port; ",
              "27: route[6].auth.url: \"http://a/b c\": \"/b c\" has a character that no request ",
              "31: route[7].auth.url: \"http://a/#b\": \"/#b\" has a character that no request ",
              "35: route[8].auth.url: \"http://::1/\": ",
              "39: route[9].auth: must be a table, such as { url = \"http://127.0.0.1:9001/check\" "
              "}, "
              "not a string"}},
        Case{
            "AuthFields",
            "[[route]]\npool = \"rest\"\n[route.auth]\nurl = \"http://a/\"\nforward = [\n"
            "\"Host\",\n\"content-length\",\n\"X-Forwarded-For\",\n\"Sec-WebSocket-Key\",\n"
            "\"a b\",\n\"Sec-WebSocket-Protocol\",\n]\ncopy = [\n\"Transfer-Encoding\",\n"
            "\"Sec-WebSocket-Protocol\",\n\"upgrade\",\n\"Origin\",\n\"x-request-id\",\n\"\",\n]\n"
            "on = \"plain\"\ntimeout = \"61m\"\n",
            {"6: route[0].auth.forward[0]: \"Host\" says where a message goes or ends, and is of ",
             "7: route[0].auth.forward[1]: \"content-length\" says where a message goes or ends, ",
             "8: route[0].auth.forward[2]: \"X-Forwarded-For\" is set by Sluice in any case; ",
             "9: route[0].auth.forward[3]: \"Sec-WebSocket-Key\" is a part of the upgrade, and ",
             "10: route[0].auth.forward[4]: \"a b\" is not the name of a header field; allowed: ",
             "14: route[0].auth.copy[0]: \"Transfer-Encoding\" says where a message goes or ends, ",
             "15: route[0].auth.copy[1]: \"Sec-WebSocket-Protocol\" is what the request was ",
             "16: route[0].auth.copy[2]: \"upgrade\" says where a message goes or ends, and is of ",
             "17: route[0].auth.copy[3]: \"Origin\" is what the request was checked by; allowed: ",
             "18: route[0].auth.copy[4]: \"x-request-id\" is set by Sluice in any case; ",
             "19: route[0].auth.copy[5]: \"\" is not the name of a header field; allowed: ",
             "21: route[0].auth.on: \"plain\" is not known; allowed: all, upgrades",
             "22: route[0].auth.timeout: \"61m\" is out of range; allowed: 10ms to 1h"}},
        Case{"AuthExpiry",
             "[[route]]\npool = \"rest\"\nauth_expires_header = \"X-Expires\"\n"
             "auth_expires_code = 1012\n[[route]]\npool = \"rest\"\npath = \"/b\"\n"
             "auth.url = \"http://a\"\nauth_expires_header = \"a:b\"\nauth_expires_code = 5000\n",
             {"3: route[0].auth_expires_header: is a field of the answer of auth, and this route "
              "has "
              "none; set auth, or leave this key out",
              "4: route[0].auth_expires_code: 1012 does not tell a client that it needs another "
              "token; allowed: 1008 (policy violation), or 4000 to 4999 ",
              "9: route[1].auth_expires_header: \"a:b\" is not the name of a header field; ",
              "10: route[1].auth_expires_code: 5000 does not tell a client "}},
        Case{"DateIsNotARoutesToSay",
             "[[route]]\npool = \"rest\"\nresponse_headers.add = { Date = \"today\" }\n"
             "response_headers.remove = [\"date\"]\n",
             {"3: route[0].response_headers.add.Date: \"Date\" tells when an answer was given, "
              "which "
              "is its giver's to say; allowed: any other field",
              "4: route[0].response_headers.remove[0]: \"date\" tells when "}},
        Case{"CopiedAndAdded",
             "[[route]]\npool = \"rest\"\nauth = { url = \"http://a\", copy = [\"X-User\"] }\n"
             "request_headers.add = { \"x-USER\" = \"cfg\" }\n",
             {"3: route[0].auth.copy: has \"x-USER\", which request_headers adds too, so that the "
              "backend would get both; allowed: either of them"}},
        Case{"CodeWithoutExpiry",
             "[[route]]\npool = \"rest\"\nauth.url = \"http://a\"\nauth_expires_code = "
             "4001\n[[route]]\n"
             "pool = \"rest\"\npath = \"/b\"\nauth.url = \"http://a\"\nauth_expires_header = \"\"\n"
             "auth_expires_code = 4001\n",
             {"4: route[0].auth_expires_code: is for sessions that end when auth_expires_header "
              "says, "
              "and this route has none; set auth_expires_header, or leave this key out",
              "10: route[1].auth_expires_code: is for sessions that end when "}},
        Case{"CodesOfAnotherType",
             "[[route]]\npool = \"rest\"\nclose_code = \"1012\"\nauth_expires_code = "
             "true\n[[listener]]\n"
             "address = \"127.0.0.1:1\"\nredirect.status = 30.8\n",
             {"3: route[0].close_code: must be an integer, not a string; allowed: 1012 (service "
              "restart) or 1001 (going away)",
              "4: route[0].auth_expires_code: must be an integer, not a boolean; allowed: 1008 (",
              "7: listener[0].redirect.status: must be an integer, not a floating-point number; "
              "allowed: 301, 302, 307, 308"}},
        Case{"Refragment",
             "[[route]]\npool = \"rest\"\nrefragment = \"1023B\"\n[[route]]\npool = \"rest\"\n"
             "path = \"/b\"\nrefragment = \"2GiB\"\n",
             {"3: route[0].refragment: \"1023B\" is out of range; allowed: 0B (off) or 1KiB to "
              "1GiB",
              "7: route[1].refragment: \"2GiB\" is out of range; "}},
        Case{"SlowStart",
             "[pool.a]\nslow_start = \"61m\"\nbackends = [{ address = \"a:1\" }]\n",
             {"2: pool.a.slow_start: \"61m\" is out of range; allowed: 0s to 1h"}},
        Case{
            "WhatABackendGets",
            "[pool.a]\ngroup_threshold = 1.01\npanic = \"panic\"\nhandshake_rate = 0.001\n"
            "handshake_burst = -1\nbackends = [\n  { address = \"a:1\", group = 16 },\n"
            "  { address = \"b:1\", max_connections = 10000001 },\n]\n",
            {"2: pool.a.group_threshold: 1.01 is out of range; allowed: 0 to 1",
             "3: pool.a.panic: \"panic\" is not known; allowed: try_all, refuse",
             "4: pool.a.handshake_rate: 0.001 is out of range; allowed: 0 (off) or 0.01 to 1000000",
             "5: pool.a.handshake_burst: -1 is out of range; allowed: 0 to 1000000",
             "7: pool.a.backends[0].group: 16 is out of range; allowed: 0 to 15",
             "8: pool.a.backends[1].max_connections: 10000001 is out of range; allowed: 0 to "
             "10000000"}},
        Case{
            "Health",
            "[pool.a]\nbackends = [{ address = \"a:1\" }]\n[pool.a.health]\ntype = \"tcp\"\n"
            "path = \"live\"\nhost = \"a b\"\nstatus = 199\ninterval = \"99ms\"\n"
            "timeout = \"49ms\"\nrise = 0\nfall = 101\n",
            {"5: pool.a.health.path: \"live\" does not start with a slash; allowed: a path such as "
             "\"/socket\"",
             "6: pool.a.health.host: \"a b\" is not a host; allowed: a name or an address, with or "
             "without a port, of at most 255 characters",
             "7: pool.a.health.status: 199 is out of range; allowed: 200 to 599",
             "8: pool.a.health.interval: \"99ms\" is out of range; allowed: 100ms to 1h",
             "9: pool.a.health.timeout: \"49ms\" is out of range; allowed: 50ms to 1h",
             "10: pool.a.health.rise: 0 is out of range; allowed: 1 to 100",
             "11: pool.a.health.fall: 101 is out of range; allowed: 1 to 100"}},
        Case{"HealthWithoutType",
             "[pool.a]\nbackends = [{ address = \"a:1\" }]\n[pool.a.health]\nstatus = \"3-2\"\n",
             {"3: pool.a.health.type: is missing; allowed: off, tcp, http, websocket",
              "4: pool.a.health.status: \"3-2\" is not a range of statuses; allowed: one of 200 to "
              "599, or two with the lower first, such as \"200-399\""}},
        Case{"Outlier",
             "[pool.a]\nbackends = [{ address = \"a:1\" }]\n[pool.a.outlier]\nfailures = 1001\n"
             "ejection_time = \"6m\"\nmax_ejected = 0\n",
             {"4: pool.a.outlier.failures: 1001 is out of range; allowed: 0 to 1000",
              "5: pool.a.outlier.ejection_time: ejection_time (6m) is the first and shortest; "
              "allowed: at most max_ejection_time (5m)",
              "6: pool.a.outlier.max_ejected: 0 is out of range; allowed: 0.01 to 1"}},
        Case{"Retries",
             "[[route]]\npool = \"rest\"\nretries = 17\n",
             {"3: route[0].retries: 17 is out of range; allowed: 0 to 16"}}),
    CaseName);

INSTANTIATE_TEST_SUITE_P(
    Listeners, Mistakes,
    testing::Values(
        Case{"None",
             "\n[[route]]\npool = \"a\"\n[pool.a]\nbackends = [{ address = \"a:1\" }]\n",
             {"1: listener: there is no listener; write [[listener]] and an address"},
             ""},
        Case{"EmptyArray",
             "\nlistener = []\n[[route]]\npool = \"a\"\n[pool.a]\n"
             "backends = [{ address = \"a:1\" }]\n",
             {"2: listener: there is no listener; write [[listener]] and an address"},
             ""},
        Case{"NoAddress",
             "[[listener]]\nname = \"a\"\n",
             {"1: listener[0].address: is missing; allowed: a numeric address and a port"}},
        Case{"BadAddresses",
             "[[listener]]\naddress = \"localhost:80\"\n[[listener]]\naddress = \":80\"\n"
             "[[listener]]\naddress = \"::1:80\"\n[[listener]]\naddress = \"[::1]:65536\"\n"
             "[[listener]]\naddress = \"80\"\n[[listener]]\naddress = \"10.0.0.256:80\"\n",
             {"2: listener[0].address: \"localhost:80\" is not numeric; allowed: a numeric address",
              "4: listener[1].address: \":80\" has no host; allowed: HOST:PORT",
              "6: listener[2].address: \"::1:80\": an IPv6 address needs brackets, such as "
              "[::1]:8080",
              "8: listener[3].address: \"[::1]:65536\": \"65536\" is not a port; allowed: 1 to "
              "65535",
              "10: listener[4].address: \"80\" has no port; allowed: HOST:PORT",
              "12: listener[5].address: \"10.0.0.256:80\": \"10.0.0.256\" is not an IPv4 address"}},
        Case{"SameAddressInTwoSpellings",
             "[[listener]]\naddress = \"[::1]:80\"\n[[listener]]\naddress = \"[0::0:1]:80\"\n",
             {"4: listener[1].address: the address \"[::1]:80\" is taken by listener[0].address in "
              "line 2; each must be different"}},
        Case{"SameName",
             "[[listener]]\nname = \"x\"\naddress = \"127.0.0.1:1\"\n[[listener]]\nname = \"x\"\n"
             "address = \"127.0.0.1:2\"\n",
             {"5: listener[1].name: the listener name \"x\" is taken by listener[0].name in line "
              "2; each must be different"}},
        Case{"NameOfAnotherListenersAddress",
             "[[listener]]\nname = \"127.0.0.1:2\"\naddress = \"127.0.0.1:1\"\n[[listener]]\n"
             "address = \"127.0.0.1:2\"\n",
             {"4: listener[1].name: the listener name \"127.0.0.1:2\" is taken by "}},
        Case{"TwoFreePortsWithoutNames",
             "[[listener]]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n",
             {"3: listener[1].name: the listener name \"127.0.0.1:0\" is taken by "}},
        Case{"BadName",
             "[[listener]]\nname = \"a b\"\naddress = \"127.0.0.1:1\"\n",
             {"2: listener[0].name: \"a b\" is not a name; allowed: 1 to 128 letters, digits "}},
        Case{"ProxyProtocol",
             "[[listener]]\naddress = \"127.0.0.1:1\"\nproxy_protocol = true\n",
             {"3: listener[0].proxy_protocol: true lets nobody in while server.trusted_proxies "
              "names no proxy that may say who its clients are; allowed: false, or true together "
              "with trusted_proxies"}},
        Case{"ProxyProtocolVersion",
             "[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\n[[listener]]\n"
             "address = \"127.0.0.1:1\"\nproxy_protocol = \"v2\"\n",
             {"5: listener[0].proxy_protocol: must be"}},
        Case{"RedirectWord",
             "[[listener]]\naddress = \"127.0.0.1:1\"\nredirect = \"http\"\n",
             {"3: listener[0].redirect: \"http\" is not known; allowed: \"https\" or a table, such "
              "as { port = 443, status = 308 }"}},
        Case{"RedirectType",
             "[[listener]]\naddress = \"127.0.0.1:1\"\nredirect = true\n",
             {"3: listener[0].redirect: must be \"https\" or a table, such as { port = 443, status "
              "= 308 }, not a boolean"}},
        Case{"RedirectKeys",
             "[[listener]]\naddress = \"127.0.0.1:1\"\nredirect.to = \"a\"\n",
             {"3: listener[0].redirect.to: unknown key; allowed here: port, status"}},
        Case{"RedirectValues",
             "[[listener]]\naddress = \"127.0.0.1:1\"\nredirect.port = 0\n"
             "redirect.status = 303\n",
             {"3: listener[0].redirect.port: 0 is out of range; allowed: 1 to 65535",
              "4: listener[0].redirect.status: 303 is no status that sends clients to another URL; "
              "allowed: 301, 302, 307, 308"}},
        Case{"RedirectBesideTls",
             "[[listener]]\naddress = \"127.0.0.1:1\"\n"
             "tls.certificates = [{ chain = \"a.pem\", key = \"a.key\" }]\nredirect = \"https\"\n",
             {"4: listener[0].redirect: sends clients to https, and this listener has tls itself; "
              "allowed: either redirect or tls"}},
        Case{"ProxyProtocolToBackends",
             "[pool.a]\nproxy_protocol = \"v3\"\nbackends = [{ address = \"a:1\" }]\n",
             {"2: pool.a.proxy_protocol: "}},
        Case{"AdminPortOnEveryAddress",
             "[[listener]]\naddress = \"10.0.0.1:9900\"\n[admin]\naddress = \"0.0.0.0:9900\"\n"
             "token_file = \"a.token\"\n",
             {"2: listener[0].address: takes the port of the admin interface (0.0.0.0:9900); "}},
        Case{"AdminPort",
             "[[listener]]\naddress = \"0.0.0.0:9900\"\n",
             {"2: listener[0].address: takes the port of the admin interface (127.0.0.1:9900); "
              "choose another port, or set address in [admin]"}}),
    CaseName);

INSTANTIATE_TEST_SUITE_P(
    Tls, Mistakes,
    testing::Values(
        Case{"WithoutCertificates",
             "[[listener]]\naddress = \"127.0.0.1:1\"\ntls.min_version = \"1.3\"\n",
             {"3: listener[0].tls.certificates: is missing, and without it the listener is plain; "
              "allowed: an array of tables, such as [{ chain = \"chain.pem\", key = \"key.pem\" "
              "}], or no tls at all"}},
        Case{"EmptyCertificates",
             "[[listener]]\naddress = \"127.0.0.1:1\"\ntls.certificates = []\n",
             {"3: listener[0].tls.certificates: must not be empty; leave tls out altogether for a "
              "plain listener"}},
        Case{"UnreadableFiles",
             "[[listener]]\naddress = \"127.0.0.1:1\"\ntls.certificates = [\n"
             "  { chain = \"none.pem\", key = \".\" },\n"
             "  { chain = \"a.pem/x\" },\n  { key = \"\", chain = 5 },\n]\n"
             "tls.client_ca = \"/nonexistent/ca.pem\"\n",
             {"4: listener[0].tls.certificates[0].chain: cannot read \"",
              "4: listener[0].tls.certificates[0].key: cannot read \"",
              "5: listener[0].tls.certificates[1].chain: cannot read \"",
              "5: listener[0].tls.certificates[1].key: is missing; allowed: the path of a PEM file",
              "6: listener[0].tls.certificates[2].chain: must be a string, not an integer",
              "6: listener[0].tls.certificates[2].key: \"\" is not a path; allowed: the path of a "
              "PEM file",
              "8: listener[0].tls.client_ca: cannot read \"/nonexistent/ca.pem\": No such file or "
              "directory"}},
        Case{"SameCertificateTwice",
             "[[listener]]\naddress = \"127.0.0.1:1\"\ntls.certificates = [\n"
             "  { chain = \"a.pem\", key = \"a.key\" },\n"
             "  { chain = \"./a.pem\", key = \"a.key\" },\n]\n",
             {"5: listener[0].tls.certificates[1].chain: the certificate chain \""}},
        Case{"Version",
             "[[listener]]\naddress = \"127.0.0.1:1\"\n"
             "tls.certificates = [{ chain = \"a.pem\", key = \"a.key\" }]\n"
             "tls.min_version = \"1.1\"\n",
             {"4: listener[0].tls.min_version: \"1.1\" is not known; allowed: 1.2, 1.3"}}),
    CaseName);

INSTANTIATE_TEST_SUITE_P(
    Routes, Mistakes,
    testing::Values(
        Case{"None",
             "[[listener]]\naddress = \"127.0.0.1:1\"\n[pool.a]\n"
             "backends = [{ address = \"a:1\" }]\n",
             {"1: route: there is no route; write [[route]] and its pool"},
             ""},
        Case{"NoPool",
             "[[route]]\npath = \"/a\"\n",
             {"1: route[0].pool: is missing; allowed: the name of a pool"}},
        Case{"FieldNames",
             "[[route]]\npool = \"rest\"\n"
             "request_headers.add = { \"a b\" = \"1\", \"Host\" = \"a\", \"via\" = \"1\" }\n"
             "request_headers.remove = [\"Connection\", \"Content-Length\", \"\"]\n"
             "response_headers.add = { \"Sec-WebSocket-Accept\" = \"x\" }\n"
             "response_headers.remove = [\"X-Forwarded-Anything\", \"x-request-id\"]\n",
             {"3: route[0].request_headers.add.\"a b\": \"a b\" is not the name of a field; "
              "allowed: letters, digits and !#$%&'*+-.^_`|~",
              "3: route[0].request_headers.add.Host: \"Host\" is what routes are chosen by, and "
              "backends have to see the same; allowed: any other field",
              "3: route[0].request_headers.add.via: \"via\" tells which proxies a message has "
              "passed, and Sluice writes it itself; allowed: any other field",
              "4: route[0].request_headers.remove[0]: \"Connection\" is about one connection, "
              "which Sluice looks after itself; allowed: any other field",
              "4: route[0].request_headers.remove[1]: \"Content-Length\" tells where content ends",
              "4: route[0].request_headers.remove[2]: \"\" is not the name of a field",
              "5: route[0].response_headers.add.Sec-WebSocket-Accept: \"Sec-WebSocket-Accept\" is "
              "a part of the WebSocket handshake, which Sluice checks; allowed: any other field",
              "6: route[0].response_headers.remove[0]: \"X-Forwarded-Anything\" tells who the "
              "client is, which Sluice writes itself; allowed: any other field",
              "6: route[0].response_headers.remove[1]: \"x-request-id\" is what a request is found "
              "by in logs, and Sluice writes it itself; allowed: any other field"}},
        Case{"FieldValues",
             "[[route]]\npool = \"rest\"\n[route.request_headers.add]\nX-A = \"a\\r\\nX-B: b\"\n"
             "X-C = 1\nX-D = \"\"\nX-E = \"e\"\nx-e = \"f\"\n",
             {"4: route[0].request_headers.add.X-A: \"a\\x0d\\x0aX-B: b\" is not the value of a "
              "field; allowed: visible ASCII characters, with blanks between them",
              "5: route[0].request_headers.add.X-C: must be a string, not an integer",
              "6: route[0].request_headers.add.X-D: \"\" is not the value of a field",
              "8: route[0].request_headers.add.x-e: the field \"x-e\" is taken by "
              "route[0].request_headers.add.X-E in line 7; each must be different"}},
        Case{
            "FieldRulesOfOtherTypes",
            "[[route]]\npool = \"rest\"\nrequest_headers = []\nresponse_headers.add = \"X-A: 1\"\n"
            "response_headers.set = {}\n",
            {"3: route[0].request_headers: must be a table, such as { add = { \"X-Env\" = \"prod\" "
             "}",
             "4: route[0].response_headers.add: must be a table, such as { \"X-Env\" = \"prod\" }, "
             "not a string",
             "5: route[0].response_headers.set: unknown key; allowed here: add, remove"}},
        Case{"Hsts",
             "[[route]]\npool = \"rest\"\nhsts.max_age = 31536000\nhsts.preload = \"yes\"\n"
             "hsts.subdomains = true\n",
             {"3: route[0].hsts.max_age: 31536000 has no unit; write it as a string with ms, s, m, "
              "h "
              "or d",
              "4: route[0].hsts.preload: must be true or false, not a string",
              "5: route[0].hsts.subdomains: unknown key; "}},
        Case{"HstsRange",
             "[[route]]\npool = \"rest\"\nhsts.max_age = \"999ms\"\n"
             "[[route]]\npath = \"/b\"\npool = \"rest\"\nhsts.max_age = \"3651d\"\n",
             {"3: route[0].hsts.max_age: \"999ms\" is out of range; allowed: 0s (browsers forget "
              "it) "
              "or 1s to 3650d",
              "7: route[1].hsts.max_age: \"3651d\" is out of range"}},
        Case{"HstsPreload",
             "[[route]]\npool = \"rest\"\nhsts.preload = true\n"
             "[[route]]\npath = \"/b\"\npool = \"rest\"\n"
             "hsts = { max_age = \"364d\", include_subdomains = true, preload = true }\n",
             {"3: route[0].hsts.preload: asks for a place on the lists of browsers, which take no "
              "such site; allowed: false, or true together with include_subdomains = true and a "
              "max_age of at least 365d",
              "7: route[1].hsts.preload: asks for "}},
        Case{"HstsAndAnotherRule",
             "[[route]]\npool = \"rest\"\nhsts = {}\n"
             "response_headers.remove = [\"strict-Transport-security\"]\n",
             {"3: route[0].hsts: sets Strict-Transport-Security, which response_headers names too; "
              "allowed: either of them"}},
        Case{"ErrorPageStatuses",
             "[[route]]\npool = \"rest\"\n[route.error_pages]\n399 = \"a.pem\"\n600 = \"a.pem\"\n"
             "0500 = \"a.pem\"\n\"5xx\" = \"a.pem\"\n500 = 1\n",
             {"4: route[0].error_pages.399: \"399\" is not the status of an error; allowed: 400 to "
              "599",
              "5: route[0].error_pages.600: \"600\" is not ",
              "6: route[0].error_pages.0500: \"0500\"",
              "7: route[0].error_pages.5xx: \"5xx\" is not ",
              "8: route[0].error_pages.500: must be a string, not an integer"}},
        Case{"ErrorPageFiles",
             "[[route]]\npool = \"rest\"\nerror_pages = { 500 = \"none.html\", 501 = \"\", "
             "502 = \"large.html\", 503 = \".\" }\n",
             {"3: route[0].error_pages.500: cannot read \"",
              "3: route[0].error_pages.501: \"\" is not a path; allowed: the path of a file",
              "3: route[0].error_pages.502: \"", "3: route[0].error_pages.503: cannot read \""}},
        Case{"ErrorPagesType",
             "[[route]]\npool = \"rest\"\nerror_pages = \"a.html\"\n",
             {"3: route[0].error_pages: must be a table, such as { 502 = \"errors/502.html\" }, "
              "not a "
              "string"}},
        Case{"UnknownPool",
             "[[route]]\npath = \"/a\"\npool = \"caht\"\n[pool.chat]\n"
             "backends = [{ address = \"a:1\" }]\n",
             {"3: route[0].pool: there is no pool named \"caht\"; did you mean \"chat\"? pools "
              "here: chat, rest"}},
        Case{"Host",
             "[[route]]\npool = \"rest\"\nhost = \"*\"\n[[route]]\npool = \"rest\"\n"
             "host = \"a:80\"\n[[route]]\npool = \"rest\"\nhost = \"b.*\"\n",
             {"3: route[0].host: \"*\" is not a host; leave the key out to take any host",
              "6: route[1].host: \"a:80\" carries a port; a host matches on every port, write "
              "\"a\"",
              "9: route[2].host: \"b.*\": a star may only stand for the whole first label"}},
        Case{
            "Path",
            "[[route]]\npool = \"rest\"\npath = \"socket\"\n",
            {"3: route[0].path: \"socket\" does not start with a slash; allowed: a path such as "}},
        Case{"SameHostAndPath",
             "[[route]]\npool = \"rest\"\nhost = \"A.example\"\npath = \"/a\"\n[[route]]\n"
             "pool = \"rest\"\nhost = \"a.example\"\npath = \"/a/\"\n",
             {"5: route[1]: the host and path \"a.example/a\" is taken by route[0] in line 1; each "
              "must be different"}},
        Case{"SamePathBesideARefusedOne",
             "[[route]]\npool = \"rest\"\npath = \"a\"\n[[route]]\npool = \"rest\"\n",
             {"3: route[0].path: \"a\" does not start with a slash"}},
        Case{"SameName",
             "[[route]]\npool = \"rest\"\nname = \"x\"\npath = \"/a\"\n[[route]]\n"
             "pool = \"rest\"\nname = \"x\"\npath = \"/b\"\n",
             {"7: route[1].name: the route name \"x\" is taken by route[0].name in line 3; each "
              "must be different"}},
        Case{"NameOfAnotherRoutesHostAndPath",
             "[[route]]\npool = \"rest\"\nname = \"*/b\"\npath = \"/a\"\n[[route]]\n"
             "pool = \"rest\"\npath = \"/b\"\n",
             {"5: route[1].name: the route name \"*/b\" is taken by route[0].name in line 3"}},
        Case{"Affinity",
             "[[route]]\npool = \"rest\"\naffinity = [\n  \"sid\",\n  \"cookie:\",\n"
             "  \"header:a b\",\n  \"query:a=b\",\n  \"path:0\",\n]\naffinity_cookie = \"a;b\"\n",
             {"4: route[0].affinity[0]: \"sid\" is not an affinity rule; allowed: cookie:NAME, "
              "header:NAME, query:NAME, path:N, ip",
              "5: route[0].affinity[1]: \"cookie:\" does not name a cookie; allowed in a name: ",
              "6: route[0].affinity[2]: \"header:a b\" does not name a header; allowed in a name: ",
              "7: route[0].affinity[3]: \"query:a=b\" does not name a query parameter; ",
              "8: route[0].affinity[4]: \"path:0\" does not name a path segment; allowed: path:1 "
              "to path:32",
              "10: route[0].affinity_cookie: \"a;b\" is not a cookie name; allowed: letters, "}},
        Case{"Learn",
             "[[route]]\npool = \"rest\"\naffinity = \"query:id\"\n[route.learn]\njson = \"\"\n"
             "from = \"negotiate\"\nmax_entries = 0\nttl = \"999ms\"\n",
             {"5: route[0].learn.json: \"\" is not the name of a member; allowed: 1 to 64 bytes",
              "6: route[0].learn.from: \"negotiate\" does not start with a slash; allowed: the end "
              "of a path, such as \"/negotiate\"",
              "7: route[0].learn.max_entries: 0 is out of range; allowed: 1 to 10000000",
              "8: route[0].learn.ttl: \"999ms\" is out of range; allowed: 1s to 24h"}},
        Case{"LearnOfTooLongAMemberAndMore",
             "[[route]]\npool = \"rest\"\naffinity = \"header:X-Id\"\n[route.learn]\njson = "
             "\"xxxxxxxxxxxxxxxxxxxxxxxx"
             "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
             "\"\nfrom = \"/a?b\"\nttl = \"25h\"\ntokens = 1\n",
             {"5: route[0].learn.json: \"xxxx",
              "6: route[0].learn.from: \"/a?b\" is not the end of a "
              "path; write it as it is sent, without ? # or spaces",
              "7: route[0].learn.ttl: \"25h\" is out of range",
              "8: route[0].learn.tokens: unknown key; allowed here: json, from, max_entries, ttl"}},
        Case{"LearnWithoutItsKeys",
             "[[route]]\npool = \"rest\"\naffinity = \"path:1\"\nlearn = {}\n",
             {"4: route[0].learn.json: is missing; allowed: the name of the member that holds the "
              "token",
              "4: route[0].learn.from: is missing; allowed: the end of a path"}},
        Case{"LearnThatNoRuleFinds",
             "[[route]]\npool = \"rest\"\naffinity = [\"cookie:own\", \"ip\"]\n"
             "affinity_cookie = \"own\"\nlearn = { json = \"sid\", from = \"/a\" }\n[[route]]\n"
             "pool = \"rest\"\npath = \"/b\"\naffinity = \"ip\"\nlearn = { json = \"sid\", from = "
             "\"/a\" }\n",
             {"5: route[0].learn: has no affinity rule that could find a token in a request; add "
              "the "
              "one that clients send it in: query:NAME, header:NAME, path:N or cookie:NAME",
              "10: route[1].learn: has no affinity rule that could find a token in a request"}},
        Case{"Origins",
             "[[route]]\npool = \"rest\"\norigins = [\n  \"chat.example.com\",\n"
             "  \"https://chat.example.com/\",\n  \"https://chat.example.com:443\",\n  \"*\",\n]\n",
             {"4: route[0].origins[0]: \"chat.example.com\" has no scheme; allowed: scheme://host",
              "5: route[0].origins[1]: \"https://chat.example.com/\" has more than scheme, host "
              "and port; allowed: scheme://host",
              "6: route[0].origins[2]: \"https://chat.example.com:443\": browsers leave out the "
              "default port; write \"https://chat.example.com\"",
              "7: route[0].origins[3]: \"*\" is not an origin; leave the key out to allow any "
              "origin"}},
        Case{"RequireOriginWithoutOrigins",
             "[[route]]\npool = \"rest\"\nrequire_origin = true\n",
             {"3: route[0].require_origin: has nothing to require without origins; list them, or "
              "leave this key out"}},
        Case{"CloseCode",
             "[[route]]\npool = \"rest\"\nclose_code = 1000\n",
             {"3: route[0].close_code: 1000 would make some clients give up instead of "
              "reconnecting; allowed: 1012 (service restart) or 1001 (going away)"}},
        Case{"Heartbeat",
             "[[route]]\npool = \"rest\"\nheartbeat.interval = 30\n",
             {"3: route[0].heartbeat.interval: 30 has no unit; write it as a string"}}),
    CaseName);

INSTANTIATE_TEST_SUITE_P(
    Pools, Mistakes,
    testing::Values(
        Case{"None",
             "[[listener]]\naddress = \"127.0.0.1:1\"\n[[route]]\npool = \"a\"\n",
             {"1: pool: there is no pool; write [pool.NAME] and its backends"},
             ""},
        Case{"NoBackends",
             "[pool.a]\nbackends = []\n[pool.b]\nbalance = \"round_robin\"\n",
             {"2: pool.a.backends: must not be empty; allowed: an array of tables, such as [{ ",
              "3: pool.b.backends: must not be empty; allowed: an array of tables, such as [{ "}},
        Case{"BadName",
             "[pool.\"a b\"]\nbackends = [{ address = \"a:1\" }]\n",
             {"1: pool.\"a b\": \"a b\" is not a name; allowed: 1 to 128 letters, digits and "}},
        Case{"BackendAddresses",
             "[pool.a]\nbackends = [\n  { name = \"a\" },\n  { address = \"a\" },\n"
             "  { address = \"a:0\" },\n  { address = \"http://a:1\" },\n"
             "  { address = \"a_b-.c:1\" },\n  { address = \"unix:/run/a.sock\" },\n]\n",
             {"3: pool.a.backends[0].address: is missing; allowed: HOST:PORT, such as ",
              "4: pool.a.backends[1].address: \"a\" has no port; allowed: HOST:PORT",
              "5: pool.a.backends[2].address: \"a:0\": 0 is not a port; allowed: 1 to 65535",
              "6: pool.a.backends[3].address: \"http://a:1\" is a URL; write HOST:PORT only",
              "7: pool.a.backends[4].address: \"a_b-.c:1\": \"a_b-.c\" is neither an address nor a "
              "host name",
              "8: pool.a.backends[5].address: \"unix:/run/a.sock\": \"/run/a.sock\" is not a port; "
              "allowed: 1 to 65535"}},
        Case{"SameBackendName",
             "[pool.a]\nbackends = [\n  { name = \"x\", address = \"a:1\" },\n"
             "  { name = \"x\", address = \"b:1\" },\n  { address = \"c:1\" },\n"
             "  { address = \"c:1\" },\n]\n",
             {"4: pool.a.backends[1].name: the backend name \"x\" is taken by "
              "pool.a.backends[0].name in line 3; each must be different",
              "6: pool.a.backends[3].address: the backend name \"c:1\" is taken by "
              "pool.a.backends[2].address in line 5; each must be different"}}),
    CaseName);

INSTANTIATE_TEST_SUITE_P(
    PoolTls, Mistakes,
    testing::Values(
        Case{"NoTable",
             "[pool.rest]\ntls = true\n",
             {"2: pool.rest.tls: must be a table; {} for the defaults, not a boolean"},
             kRestOfPool},
        Case{"EveryKey",
             "[pool.rest]\ntls.ca = \"/nonexistent/ca.pem\"\ntls.server_name = \"b.test:443\"\n"
             "tls.certificate = { chain = \"a.pem\" }\ntls.verify = 1\n"
             "tls.min_version = \"1.1\"\ntls.ciphers = \"x\"\n",
             {"2: pool.rest.tls.ca: cannot read \"/nonexistent/ca.pem\": ",
              "3: pool.rest.tls.server_name: \"b.test:443\" is not a name of a server; allowed: ",
              "4: pool.rest.tls.certificate.key: is missing; allowed: the path of a PEM file",
              "5: pool.rest.tls.verify: must be true or false, not an integer",
              "6: pool.rest.tls.min_version: \"1.1\" is not known; allowed: 1.2, 1.3",
              "7: pool.rest.tls.ciphers: unknown key"},
             kRestOfPool},
        Case{"ServerNameWithoutTls",
             "[pool.a]\nbackends = [{ address = \"127.0.0.1:1\", server_name = \"b.test\" }]\n",
             {"2: pool.a.backends[0].server_name: is the name in a certificate, and this pool has "
              "no tls; "}},
        Case{"ServerNames",
             "[pool.a]\ntls = {}\nbackends = [\n"
             "  { address = \"127.0.0.1:1\", server_name = \"\" },\n"
             "  { address = \"127.0.0.1:2\", server_name = \"*.b.test\" },\n"
             "  { address = \"127.0.0.1:3\", server_name = \"1.2.3\" },\n"
             "  { address = \"127.0.0.1:4\", server_name = \"[::1]\" },\n]\n",
             {"4: pool.a.backends[0].server_name: \"\" is not a name",
              "5: pool.a.backends[1].server_name: \"*.b.test\" is not a name",
              "6: pool.a.backends[2].server_name: \"1.2.3\" is not a name",
              "7: pool.a.backends[3].server_name: \"[::1]\" is not a name"}}),
    CaseName);

INSTANTIATE_TEST_SUITE_P(
    Discovery, Mistakes,
    testing::Values(
        Case{"BackendsToo",
             "[pool.a]\nbackends = [{ address = \"a:1\" }]\ndiscover = { file = \"b.toml\" }\n",
             {"3: pool.a.discover: the pool lists backends too; allowed: either backends or "
              "discover"}},
        Case{"NoTable",
             "[pool.a]\ndiscover = \"chat.internal\"\n",
             {"2: pool.a.discover: must be a table, such as { dns = "}},
        Case{"DnsAndFile",
             "[pool.a]\ndiscover = { dns = \"a\", port = 1, file = \"b.toml\" }\n",
             {"2: pool.a.discover: has both dns and file; allowed: a table, such as { dns = "}},
        Case{"NeitherDnsNorFile",
             "[pool.a]\ndiscover = { port = 1 }\n",
             {"2: pool.a.discover: has neither dns nor file; allowed: a table, such as { dns = "}},
        Case{"UnknownKey",
             "[pool.a]\ndiscover = { dsn = \"a\", file = \"b.toml\" }\n",
             {"2: pool.a.discover.dsn: unknown key; allowed here: dns, port, type, servers, "
              "timeout, min_ttl, max_ttl, file"}},
        Case{"FileWithKeysOfDns",
             "[pool.a.discover]\nfile = \"b.toml\"\nport = 1\nmin_ttl = \"1s\"\n",
             {"3: pool.a.discover.port: has no meaning for a file; allowed: only with dns",
              "4: pool.a.discover.min_ttl: has no meaning for a file; allowed: only with dns"}},
        Case{"NoPath",
             "[pool.a.discover]\nfile = \"\"\n",
             {"2: pool.a.discover.file: \"\" is not a path; allowed: the path of a file that lists "
              "backends"}},
        Case{"NoName",
             "[pool.a.discover]\ndns = \"10.0.0.1\"\nport = 1\n[pool.b.discover]\n"
             "dns = \"a b\"\nport = 1\n[pool.c.discover]\ndns = \".\"\nport = 1\n",
             {"2: pool.a.discover.dns: \"10.0.0.1\" is not a name to ask DNS for; allowed: labels ",
              "5: pool.b.discover.dns: \"a b\" is not a name to ask DNS for; ",
              "8: pool.c.discover.dns: \".\" is not a name to ask DNS for; "}},
        Case{"PortMissing",
             "[pool.a]\ndiscover = { dns = \"a\" }\n",
             {"2: pool.a.discover.port: is missing; allowed: the port of all backends, 1 to "
              "65535"}},
        Case{"PortOfSrv",
             "[pool.a]\ndiscover = { dns = \"a\", type = \"SRV\", port = 1 }\n",
             {"2: pool.a.discover.port: is told by SRV records themselves; allowed: only with type "
              "A or AAAA"}},
        Case{"Type",
             "[pool.a]\ndiscover = { dns = \"a\", type = \"MX\", port = 1 }\n",
             {"2: pool.a.discover.type: \"MX\" is not known; allowed: A, AAAA, SRV"}},
        Case{"Servers",
             "[pool.a.discover]\ndns = \"a\"\nport = 1\nservers = [\n  \"ns.test\",\n"
             "  \"10.0.0.1:0\",\n  \"[::1\",\n  \"\",\n]\n",
             {"5: pool.a.discover.servers[0]: \"ns.test\" is not the address of a DNS server; "
              "allowed: a numeric address, with a port or without, such as ",
              "6: pool.a.discover.servers[1]: \"10.0.0.1:0\" is not the address of a DNS server; ",
              "7: pool.a.discover.servers[2]: \"[::1\" is not the address of a DNS server; ",
              "8: pool.a.discover.servers[3]: \"\" is not the address of a DNS server; "}},
        Case{"Ttl",
             "[pool.a.discover]\ndns = \"a\"\nport = 1\nmin_ttl = \"10s\"\nmax_ttl = \"9s\"\n"
             "[pool.b.discover]\ndns = \"a\"\nport = 1\nmax_ttl = \"500ms\"\n",
             {"4: pool.a.discover.min_ttl: min_ttl (10s) is above max_ttl (9s); allowed: at most "
              "max_ttl",
              "9: pool.b.discover.max_ttl: min_ttl (1s) is above max_ttl (500ms); "}}),
    CaseName);

INSTANTIATE_TEST_SUITE_P(
    TheRest, Mistakes,
    testing::Values(
        Case{"TrustedProxies",
             "[server]\ntrusted_proxies = [\"10.0.0.1\", \"10.0.0.1/8\", \"a/8\"]\n",
             {"2: server.trusted_proxies[0]: \"10.0.0.1\" has no prefix length; for this one "
              "address write \"10.0.0.1/32\"",
              "2: server.trusted_proxies[1]: \"10.0.0.1/8\" has bits set behind its prefix; the "
              "block is \"10.0.0.0/8\"",
              "2: server.trusted_proxies[2]: \"a/8\" is not a block of addresses; allowed: "}},
        Case{
            "TakeoverSocketEmpty",
            "[server]\ntakeover_socket = \"\"\n",
            {"2: server.takeover_socket: \"\" is not the path of a socket; allowed: a path such as "
             "\"/run/sluice/takeover.sock\""}},
        Case{"TakeoverSocketWithNul",
             "[server]\ntakeover_socket = \"a\\u0000b\"\n",
             {"2: server.takeover_socket: \"a\\x00b\" is not the path of a socket; "}},
        Case{"TakeoverSocketThatIsAFolder",
             "[server]\ntakeover_socket = \"./\"\n",
             {"2: server.takeover_socket: \"./\" is not the path of a socket; "}},
        Case{
            "TakeoverSocketTooLong",
            "[server]\ntakeover_socket = \"/0123456789/0123456789/0123456789/0123456789/0123456789/"
            "0123456789/0123456789/0123456789/0123456789/abcdefgh\"\n",
            {"2: server.takeover_socket: \"/0123456789/"}},
        Case{"TakeoverSocketWithoutItsFolder",
             "[server]\ntakeover_socket = \"/nonexistent/takeover.sock\"\n",
             {"2: server.takeover_socket: there is no folder \"/nonexistent\" for the socket"}},
        Case{"TakeoverSocketOfAnotherType",
             "[server]\ntakeover_socket = 1\n",
             {"2: server.takeover_socket: must be a string, not an integer"}},
        Case{"AdminOnAnotherAddress",
             "[admin]\naddress = \"0.0.0.0:9900\"\n",
             {"2: admin.address: \"0.0.0.0:9900\" is reached from other machines, which needs a "
              "token; allowed: 127.0.0.1:PORT, [::1]:PORT, \"off\", or any address together with "
              "token_file"}},
        Case{"AdminOnAnotherAddressWithAnEmptyTokenFile",
             "[admin]\naddress = \"[::]:9900\"\ntoken_file = \"\"\n",
             {"2: admin.address: \"[::]:9900\" is reached from other machines, "}},
        Case{"AdminTokenUnreadable",
             "[admin]\naddress = \"0.0.0.0:9900\"\ntoken_file = \"none.token\"\n",
             {"3: admin.token_file: cannot read \""}},
        Case{"AdminTokenEmpty", "[admin]\ntoken_file = \"a.pem\"\n", {"2: admin.token_file: \""}},
        Case{"AdminTokenFileOfAnotherType",
             "[admin]\naddress = \"0.0.0.0:9900\"\ntoken_file = 5\n",
             {"3: admin.token_file: must be a string, not an integer"}},
        Case{"AdminTlsWithoutCertificates",
             "[admin]\ntls.min_version = \"1.3\"\n",
             {"2: admin.tls.certificates: is missing, and without it the listener is plain; "}},
        Case{"AdminTlsUnreadable",
             "[admin]\ntls.certificates = [{ chain = \"none.pem\", key = \"a.key\" }]\n",
             {"2: admin.tls.certificates[0].chain: cannot read \""}},
        Case{"AdminTlsHasNoClientCa",
             "[admin]\ntls.certificates = [{ chain = \"a.pem\", key = \"a.key\" }]\n"
             "tls.client_ca = \"a.pem\"\n",
             {"3: admin.tls.client_ca: "}},
        Case{"AdminByName",
             "[admin]\naddress = \"localhost:9900\"\n",
             {"2: admin.address: \"localhost:9900\" is not numeric; allowed: a numeric address and "
              "a "
              "port, such as \"127.0.0.1:9900\", or \"off\""}},
        Case{"AdminNonsense",
             "[admin]\naddress = \"no\"\n",
             {"2: admin.address: \"no\" has no port; allowed: HOST:PORT, such as 127.0.0.1:8080 or "
              "[::1]:8080; or \"off\""}},
        Case{"DrainWithoutAnyTime",
             "[drain]\nwindow = \"0s\"\ngrace = \"0s\"\n",
             {"3: drain.grace: window and grace are both zero, so every client would be cut "
              "without a CLOSE; allowed: at least one above zero"}},
        Case{"DrainMessageGrace",
             "[drain]\nwindow = \"1s\"\ngrace = \"1s\"\nmessage_grace = \"3s\"\n",
             {"4: drain.message_grace: 3s is longer than the whole drain; allowed: at most window "
              "+ grace (2s)"}},
        Case{"DrainCloseCode",
             "[drain]\nclose_code = 4000\n",
             {"2: drain.close_code: 4000 would make some clients give up instead of reconnecting; "
              "allowed: 1012 (service restart) or 1001 (going away)"}},
        Case{"DrainReason",
             "[drain]\nreason = \"1012\"\n",
             {"2: drain.reason: \"1012\" looks like a number or JSON, which some clients parse; "
              "allowed: plain words"}},
        Case{"DrainReasonTooLong",
             "[drain]\nreason = \"0123456789 0123456789 0123456789 0123456789 0123456789 "
             "0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 abc\"\n",
             {"2: drain.reason: is 124 bytes long; allowed: at most 123, because a CLOSE frame "
              "holds no more"}}),
    CaseName);

TEST(TakeoverSocket, MayBe107BytesLong) {
  const TempDir dir;
  for (const std::size_t length : {107U, 108U}) {
    const std::string path = dir.path() + "/" + std::string(length - dir.path().size() - 1, 's');
    const LoadResult result =
        LoadText("[server]\ntakeover_socket = \"" + path + "\"" + std::string(kRest), "t.toml", "");
    EXPECT_EQ(result.ok(), length == 107) << length;
    EXPECT_EQ(result.config.server.takeover_socket, length == 107 ? path : "");
    if (length == 108) {
      ASSERT_EQ(result.mistakes.size(), 1U);
      EXPECT_NE(result.mistakes[0].what.find("is 108 bytes long; allowed: at most 107"),
                std::string::npos)
          << result.mistakes[0].what;
    }
  }
}

TEST(BackendsFile, HasTheRulesOfAPool) {
  const TempDir dir;
  const std::string path = dir.Write("b.toml", R"(weight = 1
backends = [
  { name = "x", address = "10.0.0.1" },
  { name = "x", address = "10.0.0.2:1", weight = -1 },
]
)");
  const std::vector<std::string> got = Texts(LoadBackends(path).mistakes);
  ASSERT_EQ(got.size(), 4U);
  EXPECT_TRUE(got[0].starts_with(path + ":1: weight: unknown key; ")) << got[0];
  EXPECT_TRUE(got[0].ends_with("allowed here: backends")) << got[0];
  EXPECT_TRUE(got[1].starts_with(path + ":3: backends[0].address: \"10.0.0.1\" has no port; "))
      << got[1];
  EXPECT_TRUE(got[2].starts_with(path + ":4: backends[1].name: the backend name \"x\" is taken by "
                                        "backends[0].name in line 3; "))
      << got[2];
  EXPECT_TRUE(got[3].starts_with(path + ":4: backends[1].weight: -1 is out of range; ")) << got[3];
}

TEST(BackendsFile, MustBeThereAndHoldBackends) {
  const TempDir dir;
  const auto first = [](const std::string& path) {
    const std::vector<std::string> got = Texts(LoadBackends(path).mistakes);
    return got.size() == 1 ? got[0] : std::to_string(got.size()) + " mistakes";
  };
  EXPECT_TRUE(first(dir.path() + "/none").starts_with("cannot read \"")) << first("/none");
  const std::string cut = dir.Write("cut.toml", "backends = [\n  { address = \"a:1\" },\n");
  EXPECT_TRUE(first(cut).starts_with(cut + ":2: not valid TOML: ")) << first(cut);
  const std::string empty = dir.Write("empty.toml", "backends = []\n");
  EXPECT_TRUE(first(empty).starts_with(empty + ":1: backends: must not be empty; "));
  EXPECT_TRUE(first(dir.Write("nothing.toml", ""))
                  .ends_with("backends: must not be empty; allowed: an array of tables, such as "
                             "[{ name = \"a\", address = \"10.0.0.1:9000\" }]"));
}

TEST(AllMistakes, AreReportedAtOnceInTheOrderOfTheirLines) {
  const std::string text = R"([server]
wokers = 3
header_timeout = 30
trusted_proxies = ["10.0.0.1/8"]

[[listener]]
address = "localhost:80"
proxy_protocol = true

[[route]]
path = "socket"
pool = "chta"
affinity = ["cookie"]
origins = ["https://x/y"]
limits.max_message_bytes = 5
close_code = 1000

[pool.chat]
balance = "random"
backends = []

[drain]
reason = "123"

[admin]
address = "0.0.0.0:9900"

[log]
level = "verbose"
)";
  const LoadResult result = LoadText(text, "t.toml", "");
  EXPECT_FALSE(result.ok());
  ExpectMessages(
      result.mistakes,
      {"2: server.wokers: ", "3: server.header_timeout: ", "4: server.trusted_proxies[0]: ",
       "7: listener[0].address: ", "8: listener[0].proxy_protocol: ", "11: route[0].path: ",
       "12: route[0].pool: ", "13: route[0].affinity[0]: ", "14: route[0].origins[0]: ",
       "15: route[0].limits.max_message_bytes: ", "16: route[0].close_code: ",
       "19: pool.chat.balance: ", "20: pool.chat.backends: ", "23: drain.reason: ",
       "26: admin.address: ", "29: log.level: "});
}

TEST(AllMistakes, OfAnEmptyFileSayWhatItNeeds) {
  ExpectMessages(LoadText("", "t.toml", "").mistakes,
                 {"1: listener: there is no listener; ", "1: pool: there is no pool; ",
                  "1: route: there is no route; "});
}

}  // namespace
}  // namespace sluice::config
