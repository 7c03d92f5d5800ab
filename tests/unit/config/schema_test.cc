// Proves that config/sluice.schema.json and the loader agree: the same keys, the same defaults, the
// same words, the same bounds.
#include <cstddef>
#include <cstdint>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "proxy/config/keys.h"
#include "proxy/config/load.h"

#include "tests/unit/config/files.h"

namespace sluice::config {
namespace {

using nlohmann::json;
using testing::IsEmpty;

const json& Schema() {
  static const json schema = json::parse(ReadText(SamplePath("sluice.schema.json")));
  return schema;
}

std::string Under(const std::string& path, const std::string& key) {
  return path.empty() ? key : path + "." + key;
}

// Calls `visit(path, table)` for every closed object of the schema, with the path of keys.h.
template <class Visit>
void VisitTables(const json& node, const std::string& path, Visit& visit) {
  if (node.value("type", "") == "array") {
    VisitTables(node.at("items"), path, visit);
  } else if (node.contains("properties")) {
    visit(path, node);
    for (const auto& [key, child] : node.at("properties").items()) {
      VisitTables(child, Under(path, key), visit);
    }
  } else if (node.contains("additionalProperties") && node.at("additionalProperties").is_object()) {
    VisitTables(node.at("additionalProperties"), path + ".*", visit);
  }
}

// Calls `visit(path, key, property)` for every key that is not a table itself.
template <class Visit>
void VisitValues(Visit&& visit) {
  const auto each_table = [&](const std::string& path, const json& table) {
    for (const auto& [key, property] : table.at("properties").items()) {
      const json& inner = property.contains("items") ? property.at("items") : property;
      if (inner.value("type", "") != "object") {
        visit(path, key, property);
      }
    }
  };
  VisitTables(Schema(), "", each_table);
}

// A complete file that has `key = value` in the table at `path`, and otherwise as little
// as can be.
std::string FileWith(const std::string& path, const std::string& key, const std::string& value) {
  const auto in = [&](std::string_view table, std::string_view prefix = "") {
    return path == table ? std::string(prefix) + key + " = " + value + "\n" : std::string();
  };
  const auto unless = [&](std::string_view table, std::string_view name, std::string_view line) {
    return path == table && key == name ? std::string() : std::string(line) + "\n";
  };
  std::string out;
  for (const std::string_view table : {"server", "limits", "drain", "admin", "log"}) {
    out += "[" + std::string(table) + "]\n" + in(table);
    if (table == "admin" && path.starts_with("admin.tls")) {
      out += "tls.certificates = [{ chain = \"a.pem\", key = \"a.key\" }]\n";
      out += in("admin.tls", "tls.");
    }
    if (path == "admin" && table == "admin" && key == "address") {
      out += "token_file = \"a.token\"\n";
    }
  }
  out += "[[listener]]\n" + unless("listener", "address", "address = \"127.0.0.1:8080\"");
  out += in("listener");
  if (path == "listener.redirect") {  // what is off without any of its keys
    out += key == "port" ? "redirect.status = 308\n" : "redirect.port = 443\n";
    out += in("listener.redirect", "redirect.");
  }
  if (path.starts_with("listener.tls")) {
    out += "tls.certificates = [{ chain = \"a.pem\", key = \"a.key\" }]\n";
    out += in("listener.tls", "tls.");
  }
  out += "[[route]]\n" + unless("route", "pool", "pool = \"a\"") + in("route");
  if (key == "require_origin" || key == "origins") {
    out += unless("route", "origins", "origins = [\"https://a.example\"]");
  }
  if (path == "route.hsts") {  // the same
    out += key == "max_age" ? "hsts.preload = false\n" : "hsts.max_age = \"365d\"\n";
    out += in("route.hsts", "hsts.");
  }
  out += in("route.request_headers", "request_headers.");
  out += in("route.response_headers", "response_headers.");
  if (path == "route.auth") {
    out += unless("route.auth", "url", "auth.url = \"http://127.0.0.1:1\"") + in(path, "auth.");
  }
  if (path == "route.learn") {
    out += "affinity = \"query:id\"\n" + in("route.learn", "learn.");
    out += unless("route.learn", "json", "learn.json = \"sid\"");
    out += unless("route.learn", "from", "learn.from = \"/a\"");
  }
  out += in("route.limits", "limits.") + in("route.heartbeat", "heartbeat.");
  out += in("route.heartbeat.client", "heartbeat.client.");
  out += in("route.heartbeat.backend", "heartbeat.backend.");
  const bool in_backend = path == "pool.*.backends";
  if (path == "pool.*.discover") {
    out += "[pool.a]\n" + in("pool.*.discover", "discover.");
    if (key != "file") {
      out += unless("pool.*.discover", "dns", "discover.dns = \"a.test\"");
      out += value == "\"SRV\"" ? "" : unless("pool.*.discover", "port", "discover.port = 1");
    }
    return out;
  }
  out += "[pool.a]\n" + in("pool.*");
  if (path.starts_with("pool.*.tls") || (in_backend && key == "server_name")) {
    out += "tls.certificate.chain = \"a.pem\"\ntls.certificate.key = \"a.key\"\n";
    out += in("pool.*.tls", "tls.");
  }
  out += "backends = [{ ";
  out += in_backend && key == "address" ? "name = \"a\"" : "address = \"127.0.0.1:9001\"";
  out += in_backend ? ", " + key + " = " + value + " }]\n" : " }]\n";
  if (path == "pool.*.health" && key != "type") {
    out += "health.type = \"http\"\n";
  }
  out += in("pool.*.keep_alive", "keep_alive.") + in("pool.*.health", "health.") +
         in("pool.*.outlier", "outlier.");
  return out;
}

std::vector<std::string> MistakesWith(const std::string& path, const std::string& key,
                                      const std::string& value) {
  static const TempDir dir;
  dir.Write("a.pem", "");
  dir.Write("a.key", "");
  dir.Write("a.token", "0123456789abcdef");
  return Texts(LoadText(FileWith(path, key, value), "t.toml", dir.path()).mistakes);
}

TEST(Schema, HasExactlyTheKeysOfTheLoader) {
  std::map<std::string, std::set<std::string>> in_schema;
  const auto collect = [&](const std::string& path, const json& table) {
    for (const auto& [key, property] : table.at("properties").items()) {
      in_schema[path].insert(key);
    }
  };
  VisitTables(Schema(), "", collect);
  std::map<std::string, std::set<std::string>> in_loader;
  for (const KeyTable& table : AllKeyTables()) {
    for (const std::string_view key : table.keys) {
      in_loader[std::string(table.path)].emplace(key);
    }
  }
  EXPECT_EQ(in_schema, in_loader);
}

TEST(Schema, IsClosedAndDescribesEverything) {
  const auto check = [](const std::string& path, const json& table) {
    EXPECT_EQ(table.value("additionalProperties", json()), json(false)) << path;
    for (const auto& [key, property] : table.at("properties").items()) {
      EXPECT_FALSE(property.value("description", "").empty()) << path << " " << key;
    }
  };
  VisitTables(Schema(), "", check);
}

TEST(Schema, GivesTheDefaultsOfTheLoader) {
  const TempDir dir;
  dir.Write("a.pem", "");
  dir.Write("a.key", "");
  dir.Write("a.token", "0123456789abcdef");
  std::size_t defaults = 0;
  VisitValues([&](const std::string& path, const std::string& key, const json& property) {
    if (!property.contains("default")) {
      return;
    }
    ++defaults;
    // A JSON scalar or array of scalars reads the same in TOML.
    const LoadResult with =
        LoadText(FileWith(path, key, property.at("default").dump()), "t.toml", dir.path());
    EXPECT_THAT(Texts(with.mistakes), IsEmpty()) << path << " " << key;
    // The same file without the key.
    std::string text = FileWith(path, key, property.at("default").dump());
    const std::string line = key + " = " + property.at("default").dump();
    const std::size_t place = text.find(line);
    ASSERT_NE(place, std::string::npos) << path << " " << key;
    const bool inline_table = path == "pool.*.backends";
    const std::size_t start = inline_table ? place - 2 : text.rfind('\n', place) + 1;
    text.erase(start, place + line.size() - start);
    const LoadResult without = LoadText(text, "t.toml", dir.path());
    if (key == "origins") {
      return;  // the file has other origins without it
    }
    EXPECT_THAT(Texts(without.mistakes), IsEmpty()) << path << " " << key;
    EXPECT_EQ(with.config, without.config) << path << " " << key;
  });
  EXPECT_GT(defaults, 50U);
}

TEST(Schema, ListsTheWordsOfTheLoader) {
  std::size_t words = 0;
  VisitValues([&](const std::string& path, const std::string& key, const json& property) {
    if (!property.contains("enum")) {
      return;
    }
    std::string listed;
    for (const json& word : property.at("enum")) {
      ++words;
      EXPECT_THAT(MistakesWith(path, key, word.dump()), IsEmpty()) << path << " " << key;
      listed += (listed.empty() ? "" : ", ") + (word.is_string() ? word.get<std::string>() : "");
    }
    if (property.value("type", "") == "string") {
      // The loader's own list, as its message gives it.
      const auto mistakes = MistakesWith(path, key, "\"\"");
      ASSERT_EQ(mistakes.size(), 1U) << path << " " << key;
      EXPECT_THAT(mistakes[0], testing::EndsWith("allowed: " + listed));
    }
  });
  EXPECT_GT(words, 15U);
}

TEST(Schema, HasTheBoundsOfTheLoader) {
  std::size_t bounds = 0;
  VisitValues([&](const std::string& path, const std::string& key, const json& property) {
    if (property.value("type", "") != "integer" || !property.contains("minimum")) {
      return;
    }
    ++bounds;
    const auto least = property.at("minimum").get<std::int64_t>();
    const auto most = property.at("maximum").get<std::int64_t>();
    EXPECT_THAT(MistakesWith(path, key, std::to_string(least)), IsEmpty()) << path << " " << key;
    EXPECT_THAT(MistakesWith(path, key, std::to_string(most)), IsEmpty()) << path << " " << key;
    EXPECT_EQ(MistakesWith(path, key, std::to_string(least - 1)).size(), 1U) << path << " " << key;
    EXPECT_EQ(MistakesWith(path, key, std::to_string(most + 1)).size(), 1U) << path << " " << key;
  });
  EXPECT_GE(bounds, 9U);
}

// Of numbers, too: their range, and the 0 beside it where it has a meaning of its own.
TEST(Schema, HasTheBoundsOfTheLoaderForNumbers) {
  std::size_t bounds = 0;
  VisitValues([&](const std::string& path, const std::string& key, const json& property) {
    if (property.value("type", "") != "number") {
      return;
    }
    ++bounds;
    const bool zero = property.contains("anyOf");
    const json& range = zero ? property.at("anyOf").at(1) : property;
    const auto least = range.at("minimum").get<double>();
    const auto most = range.at("maximum").get<double>();
    const auto mistakes = [&](double number) {
      return MistakesWith(path, key, json(number).dump()).size();
    };
    EXPECT_EQ(mistakes(least), 0U) << path << " " << key;
    EXPECT_EQ(mistakes(most), 0U) << path << " " << key;
    EXPECT_EQ(mistakes(least == 0 ? -0.01 : least * 0.99), 1U) << path << " " << key;
    EXPECT_EQ(mistakes(most * 1.01), 1U) << path << " " << key;
    EXPECT_EQ(mistakes(0), zero || least == 0 ? 0U : 1U) << path << " " << key;
    EXPECT_EQ(mistakes(-most), 1U) << path << " " << key;
  });
  EXPECT_GE(bounds, 6U);
}

TEST(Schema, GivesTheDefaultsOfTheReferencePage) {
  const std::string page = ReadText(SamplePath("../docs/CONFIGURATION.md"));
  ASSERT_FALSE(page.empty());
  VisitValues([&](const std::string& path, const std::string& key, const json& property) {
    if (path.empty() || path.ends_with("tls.certificates") || path.ends_with("tls.certificate")) {
      return;  // headings, and a pair of keys in one row
    }
    // A row reads "| `key` | type | default | meaning |".
    const std::regex row("\\| [^|]*" + key + "`[^|]*\\| [^|]* \\| ?([^|]*)[|\n]");
    bool found = false;
    for (std::sregex_iterator it(page.begin(), page.end(), row), end; it != end; ++it) {
      const std::string want =
          property.contains("default") ? "`" + property.at("default").dump() + "`" : "";
      found = found || (*it)[1].str().find(want) != std::string::npos;
    }
    EXPECT_TRUE(found) << path << " " << key;
  });
}

// What an editor marks as wrong must be wrong: a pattern may be wider than the loader, never
// narrower.
TEST(Schema, HasNoPatternThatIsNarrowerThanTheLoader) {
  const std::map<std::string, std::vector<std::string>> good = {
      {"server.header_timeout", {"500ms", "30s", "2m", "1h"}},
      {"server.keep_alive_timeout", {"1d", "24h"}},
      {"server.takeover_socket", {"a.sock", "./a.sock"}},
      {"limits.max_connection_age", {"0s", "0ms", "1s", "1000ms", "720h"}},
      {"route.limits.max_connection_age", {"0s", "720h"}},
      {"route.learn.json", {"a", "connectionToken", "\u00e9"}},
      {"route.learn.from", {"/", "/negotiate", "/socket.io/", "/%20;x"}},
      {"route.learn.ttl", {"1s", "1000ms", "24h"}},
      {"route.refragment", {"0B", "1KiB", "1024B", "1GiB"}},
      {"route.heartbeat.interval", {"0s", "100ms", "1h"}},
      {"route.heartbeat.timeout", {"50ms", "1h"}},
      {"route.heartbeat.client.interval", {"0s", "100ms", "1h"}},
      {"route.heartbeat.client.timeout", {"50ms", "1h"}},
      {"route.heartbeat.backend.interval", {"0s", "100ms", "1h"}},
      {"route.heartbeat.backend.timeout", {"50ms", "1h"}},
      {"route.idle_timeout", {"0s", "500ms", "720h"}},
      {"route.slow_timeout", {"100ms", "1h"}},
      {"route.auth.url",
       {"http://a", "http://127.0.0.1:9001/check?a=b&c", "http://[::1]:80?x",
        "http://A.local/%20~"}},
      {"route.auth.forward", {"Authorization", "sec-websocket-protocol", "X_Y"}},
      {"route.auth.copy", {"X-User", "cookie"}},
      {"route.auth.timeout", {"10ms", "1h"}},
      {"route.limits.max_frame_bytes", {"0B", "1B", "1GiB"}},
      {"route.limits.bytes_per_second", {"0B", "100B", "64KB", "1024GiB"}},
      {"limits.max_buffered", {"0B", "1MiB", "1024GiB"}},
      {"pool.*.slow_start", {"0s", "1ms", "1h"}},
      {"pool.*.keep_alive.idle_timeout", {"10ms", "1h"}},
      {"drain.event_retry", {"0s", "100ms", "1h"}},
      {"pool.*.health.path", {"/", "/a?b=c&d", "/%20;x"}},
      {"pool.*.health.host", {"", "a_b.test", "[::1]:80", "10.0.0.1"}},
      {"pool.*.health.status", {"200", "204-204", "200-599"}},
      {"pool.*.health.interval", {"100ms", "1h"}},
      {"pool.*.health.timeout", {"50ms", "1h"}},
      {"pool.*.outlier.ejection_time", {"100ms", "5m"}},
      {"pool.*.outlier.max_ejection_time", {"10s", "24h"}},
      {"limits.max_head_bytes", {"20000B", "16KB", "64KiB", "1MB", "1MiB"}},
      {"listener.name", {"front", "[::1]:80", "a_b.c-d"}},
      {"listener.address", {"0.0.0.0:80", "[::]:80", "127.0.0.1:0", "[::ffff:1.2.3.4]:1"}},
      {"listener.redirect", {"https"}},
      {"route.name", {"*/", "chat.example.com/socket"}},
      {"route.host", {"", "a", "Chat.Example.com", "*.example.com", "127.0.0.1", "[::1]", "a_b"}},
      {"route.request_headers.remove", {"X-A", "a", "!#$%&'*+-.^_`|~"}},
      {"route.response_headers.remove", {"Server"}},
      {"route.hsts.max_age", {"0s", "1s", "365d", "3650d"}},
      {"route.path", {"/", "/a/b", "/a/", "/a%20b", "/a*b"}},
      {"route.affinity", {"ip", "cookie:a!b", "header:X-A", "query:a:b[]", "path:1", "path:32"}},
      {"route.affinity_cookie", {"", "a", "__Host-a"}},
      {"pool.*.backends.name", {"b-1", "10.0.0.1:80"}},
      {"pool.*.backends.server_name", {"b.test", "10.0.0.1", "::1", "my_db.local"}},
      {"pool.*.tls.server_name", {"", "b.test", "10.0.0.1", "2001:db8::1.2.3.4"}},
      {"pool.*.backends.address", {"a:1", "10.0.0.1:65535", "[::1]:80", "my_db.local:1"}},
      {"pool.*.discover.dns", {"a", "chat.internal", "_ws._tcp.Chat.internal."}},
      {"pool.*.discover.servers",
       {"10.0.0.53", "10.0.0.53:5353", "fd00::53", "::1", "[fd00::53]:53", "::ffff:1.2.3.4"}},
      {"pool.*.discover.timeout", {"100ms", "1m"}},
      {"pool.*.discover.min_ttl", {"100ms", "5m"}},
      {"pool.*.discover.max_ttl", {"1s", "24h"}},
      {"pool.*.discover.file", {"backends.toml", "/etc/sluice/backends.toml"}},
      {"drain.reason", {"", "service restart"}},
      {"admin.address",
       {"off", "127.0.0.1:9900", "127.1.2.3:0", "[::1]:1", "[0:0:0:0:0:0:0:1]:1", "0.0.0.0:9900",
        "[::]:9900", "10.0.0.1:9900", "[2001:DB8::1.2.3.4]:1"}},
  };
  std::set<std::string> seen;
  VisitValues([&](const std::string& path, const std::string& key, const json& property) {
    const auto entry = good.find(Under(path, key));
    if (entry == good.end()) {
      return;
    }
    seen.insert(entry->first);
    const json& one = property.contains("items") ? property.at("items") : property;
    const json& string = one.contains("anyOf") ? one.at("anyOf").at(0) : one;
    const std::regex pattern(string.value("pattern", ".*"), std::regex::ECMAScript);
    for (const std::string& value : entry->second) {
      const std::string quoted = json(value).dump();
      EXPECT_THAT(MistakesWith(path, key, quoted), IsEmpty()) << entry->first << " " << value;
      EXPECT_TRUE(std::regex_search(value, pattern)) << entry->first << " " << value;
    }
  });
  EXPECT_EQ(seen.size(), good.size());
}

}  // namespace
}  // namespace sluice::config
