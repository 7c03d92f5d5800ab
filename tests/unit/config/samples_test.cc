// Proves that the files in config/ are right: all of them load, and the reference names every key
// with the default that the code really has.
#include <cctype>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/config/keys.h"
#include "proxy/config/load.h"

#include "tests/unit/config/files.h"

namespace sluice::config {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::StartsWith;

std::vector<std::string> Lines(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return lines;
}

// The reference with every key that is behind a bare # taken in.
std::string ReferenceWithAllKeys() {
  std::string out;
  for (const std::string& line : Lines(ReadText(SamplePath("sluice.toml")))) {
    const bool off = line.size() > 1 && line[0] == '#' && std::islower(line[1]) != 0;
    out += off ? line.substr(1) : line;
  }
  return out;
}

class Sample : public testing::TestWithParam<const char*> {};

TEST_P(Sample, LoadsWithoutMistakeOrWarning) {
  const LoadResult result = LoadFile(SamplePath(GetParam()));
  EXPECT_THAT(Texts(result.mistakes), IsEmpty());
  EXPECT_THAT(Texts(result.warnings), IsEmpty());
}

TEST_P(Sample, NamesItsSchemaInTheFirstLine) {
  EXPECT_THAT(ReadText(SamplePath(GetParam())), StartsWith("#:schema ./sluice.schema.json\n"));
}

INSTANTIATE_TEST_SUITE_P(Config, Sample,
                         testing::Values("sluice.toml", "minimal.toml", "socket-io.toml",
                                         "signalr.toml"));

TEST(Reference, SetsEveryKeyToItsDefault) {
  const LoadResult result = LoadFile(SamplePath("sluice.toml"));
  ASSERT_THAT(Texts(result.mistakes), IsEmpty());
  const Config& config = result.config;
  EXPECT_EQ(config.server, Server{});
  EXPECT_EQ(config.limits, Limits{});
  EXPECT_EQ(config.drain, Drain{});
  EXPECT_EQ(config.admin, Admin{});
  EXPECT_EQ(config.log, Log{});
  Listener listener;
  listener.name = "0.0.0.0:8080";
  listener.host = "0.0.0.0";
  listener.port = 8080;
  EXPECT_THAT(config.listeners, ElementsAre(listener));
  Route route;
  route.name = "*/";
  route.pool = "chat";
  route.affinity = {AffinityRule{}};
  EXPECT_THAT(config.routes, ElementsAre(route));
  Pool pool;
  pool.name = "chat";
  pool.backends = {Backend{}, Backend{}};
  pool.backends[0].name = "chat-1";
  pool.backends[1].name = "chat-2";
  pool.backends[0].host = pool.backends[1].host = "127.0.0.1";
  pool.backends[0].port = 9001;
  pool.backends[1].port = 9002;
  EXPECT_THAT(config.pools, ElementsAre(pool));
}

TEST(Reference, ShowsTheDefaultsOfTheKeysThatAreOff) {
  const TempDir dir;
  dir.Write("certs/chat.pem", "");
  dir.Write("certs/chat.key", "");
  dir.Write("certs/admin.pem", "");
  dir.Write("certs/admin.key", "");
  dir.Write("certs/sluice.pem", "");
  dir.Write("certs/sluice.key", "");
  const LoadResult on = LoadText(ReferenceWithAllKeys(), "sluice.toml", dir.path());
  ASSERT_THAT(Texts(on.mistakes), IsEmpty());
  Config want = LoadFile(SamplePath("sluice.toml")).config;
  want.listeners[0].tls.certificates = {
      {dir.path() + "/certs/chat.pem", dir.path() + "/certs/chat.key"}};
  want.admin.tls.certificates = {
      {dir.path() + "/certs/admin.pem", dir.path() + "/certs/admin.key"}};
  want.pools[0].tls.emplace().certificate = {dir.path() + "/certs/sluice.pem",
                                             dir.path() + "/certs/sluice.key"};
  want.routes[0].close_code = want.drain.close_code;
  Auth& auth = want.routes[0].auth.emplace();
  auth.host = "127.0.0.1";
  auth.port = 9001;
  auth.authority = "127.0.0.1:9001";
  auth.target = "/check";
  want.routes[0].limits.max_connection_age = want.limits.max_connection_age;
  want.routes[0].hsts.emplace();
  want.server.takeover_socket = dir.path() + "/takeover.sock";
  EXPECT_EQ(on.config, want);
  EXPECT_THAT(Texts(on.warnings), IsEmpty());
}

TEST(Reference, NamesEveryKey) {
  const std::string text = ReferenceWithAllKeys();
  for (const KeyTable& table : AllKeyTables()) {
    for (const std::string_view key : table.keys) {
      const std::string name(key);
      const bool named = text.find(name + " = ") != std::string::npos ||
                         text.find("[" + name + "]") != std::string::npos ||
                         text.find("[" + name + ".") != std::string::npos ||
                         text.find("\n" + name + ".") != std::string::npos;
      EXPECT_TRUE(named) << table.path << " " << key;
    }
  }
}

// Not a proof of much, but cheap: nothing that a broken editor or a full disk leaves behind may
// bring the loader down, and what it says stays one line each.
void ExpectSaneMessages(const std::string& text) {
  const LoadResult result = LoadText(text, "t.toml", "");
  for (const std::vector<Mistake>* list : {&result.mistakes, &result.warnings}) {
    for (const Mistake& mistake : *list) {
      ASSERT_THAT(mistake.where, StartsWith("t.toml:"));
      ASSERT_FALSE(mistake.what.empty());
      ASSERT_EQ(mistake.Text().find('\n'), std::string::npos) << mistake.Text();
    }
  }
}

TEST(Reference, MayBeCutAnywhere) {
  const std::string text = ReferenceWithAllKeys();
  for (std::size_t size = 0; size < text.size(); ++size) {
    ASSERT_NO_FATAL_FAILURE(ExpectSaneMessages(text.substr(0, size))) << "cut at " << size;
  }
}

TEST(Reference, MayLackAnyLine) {
  const std::vector<std::string> lines = Lines(ReferenceWithAllKeys());
  for (std::size_t left_out = 0; left_out < lines.size(); ++left_out) {
    std::string text;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      text += i == left_out ? "" : lines[i];
    }
    ASSERT_NO_FATAL_FAILURE(ExpectSaneMessages(text)) << "without line " << left_out + 1;
  }
}

TEST(Reference, MayHoldAnyOtherValueAtAnyKey) {
  const std::vector<std::string> lines = Lines(ReferenceWithAllKeys());
  for (const std::string_view value : {"0",
                                       "-9223372036854775808",
                                       "9223372036854775807",
                                       "1e308",
                                       "-inf",
                                       "nan",
                                       "true",
                                       "''",
                                       "'\xC3\xA4'",
                                       R"("\u0000\n\u001B")",
                                       "'::'",
                                       "'[::1]:0'",
                                       "'1s'",
                                       "'0B'",
                                       "[]",
                                       "[[]]",
                                       "[{}]",
                                       "['', 1, {}]",
                                       "{}",
                                       "{ a = {} }",
                                       "1979-05-27",
                                       "07:32:00"}) {
    for (std::size_t changed = 0; changed < lines.size(); ++changed) {
      const std::size_t equals = lines[changed].find(" = ");
      if (equals == std::string::npos || lines[changed][0] == '#' || lines[changed][0] == ' ') {
        continue;
      }
      std::string text;
      for (std::size_t i = 0; i < lines.size(); ++i) {
        text +=
            i == changed ? lines[i].substr(0, equals + 3) + std::string(value) + "\n" : lines[i];
      }
      ASSERT_NO_FATAL_FAILURE(ExpectSaneMessages(text))
          << "line " << changed + 1 << " with " << value;
    }
  }
}

}  // namespace
}  // namespace sluice::config
