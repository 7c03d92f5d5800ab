// The command line and bad input: one clear sentence, the right exit status, nothing half started.
#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/certificates.h"
#include "tests/support/echo_backend.h"
#include "tests/support/proxy_process.h"
#include "tests/support/raw_backend.h"
#include "tests/support/raw_client.h"

namespace sluice::test {
namespace {

constexpr int kUsage = 2;
constexpr int kBadConfig = 78;

struct Outcome {
  int status = -1;
  std::string out;
  std::string err;
};

Outcome RunToEnd(const std::vector<std::string>& args) {
  ProxyProcess process(args);
  Outcome outcome;
  outcome.status = process.Wait().value_or(-1);
  outcome.out = process.out();
  outcome.err = process.err();
  return outcome;
}

std::size_t Lines(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

// Command line.

TEST(CommandLine, UnknownFlagIsUsage) {
  const Outcome outcome = RunToEnd({"run", "--frobnicate"});
  EXPECT_EQ(outcome.status, kUsage);
  EXPECT_NE(outcome.err.find("--frobnicate"), std::string::npos) << outcome.err;
  EXPECT_EQ(outcome.out, "");
}

TEST(CommandLine, UnknownSubcommandIsUsage) {
  const Outcome outcome = RunToEnd({"frobnicate"});
  EXPECT_EQ(outcome.status, kUsage);
  EXPECT_NE(outcome.err.find("frobnicate"), std::string::npos) << outcome.err;
}

TEST(CommandLine, NothingAtAllIsUsage) {
  const Outcome outcome = RunToEnd({});
  EXPECT_EQ(outcome.status, kUsage);
  EXPECT_NE(outcome.err, "");
}

TEST(CommandLine, FlagWithoutItsValueIsUsage) {
  EXPECT_EQ(RunToEnd({"run", "-c"}).status, kUsage);
}

TEST(CommandLine, VersionAndHelpSucceed) {
  const Outcome version = RunToEnd({"version"});
  EXPECT_EQ(version.status, 0);
  EXPECT_EQ(version.out.rfind("sluice ", 0), 0U) << version.out;
  const Outcome help = RunToEnd({"--help"});
  EXPECT_EQ(help.status, 0);
  for (const char* subcommand : {"run", "check", "demo", "healthcheck"}) {
    EXPECT_NE(help.out.find(subcommand), std::string::npos) << subcommand;
  }
}

// Files.

class BadConfig : public testing::Test {
 protected:
  // `run` and `check` must say the same and end the same.
  void ExpectRefused(const std::string& text, const std::vector<std::string>& said) {
    const std::string file = dir_.Write("bad.toml", text);
    for (const char* command : {"check", "run"}) {
      const Outcome outcome = RunToEnd({command, "-c", file});
      EXPECT_EQ(outcome.status, kBadConfig) << command << "\n" << outcome.err;
      EXPECT_EQ(outcome.out, "") << command;
      for (const std::string& part : said) {
        EXPECT_NE(outcome.err.find(part), std::string::npos)
            << command << ": \"" << part << "\" is not in:\n"
            << outcome.err;
      }
    }
  }

  TempDir dir_;
};

TEST_F(BadConfig, MissingFileIsNamed) {
  for (const char* command : {"check", "run"}) {
    const Outcome outcome = RunToEnd({command, "-c", dir_.path() + "/absent.toml"});
    EXPECT_EQ(outcome.status, kBadConfig);
    EXPECT_NE(outcome.err.find("absent.toml"), std::string::npos) << outcome.err;
    EXPECT_NE(outcome.err.find("No such file"), std::string::npos) << outcome.err;
    EXPECT_EQ(Lines(outcome.err), 1U) << outcome.err;
  }
}

TEST_F(BadConfig, UnreadableFileIsNamed) {
  // A folder cannot be read as a file, not even by root.
  const Outcome outcome = RunToEnd({"run", "-c", dir_.path()});
  EXPECT_EQ(outcome.status, kBadConfig);
  EXPECT_NE(outcome.err.find(dir_.path()), std::string::npos) << outcome.err;
  EXPECT_EQ(Lines(outcome.err), 1U) << outcome.err;
}

TEST_F(BadConfig, BrokenSyntaxIsGivenWithItsLine) {
  ExpectRefused("[server]\nworkers = = 1\n", {"bad.toml:2"});
}

TEST_F(BadConfig, AllMistakesAreToldAtOnce) {
  ExpectRefused(
      "[server]\nworkerz = 1\n[[listener]]\naddress = \"nowhere\"\n[[route]]\npool = \"app\"\n"
      "retries = \"many\"\n[pool.app]\nbackends = [{ address = \"127.0.0.1:1\" }]\n",
      {"bad.toml:2", "workerz", "bad.toml:4", "nowhere", "bad.toml:7", "retries"});
}

TEST_F(BadConfig, UnknownPoolIsNamed) {
  ExpectRefused(
      "[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\npool = \"nope\"\n[pool.app]\n"
      "backends = [{ address = \"127.0.0.1:1\" }]\n",
      {"bad.toml:4", "nope"});
}

TEST_F(BadConfig, DuplicateNamesAreNamed) {
  ExpectRefused(
      "[[listener]]\nname = \"l\"\naddress = \"127.0.0.1:0\"\n"
      "[[listener]]\nname = \"l\"\naddress = \"127.0.0.2:0\"\n"
      "[[route]]\nname = \"r\"\npath = \"/a\"\npool = \"app\"\n"
      "[[route]]\nname = \"r\"\npath = \"/b\"\npool = \"app\"\n"
      "[pool.app]\nbackends = [\n{ name = \"b\", address = \"127.0.0.1:1\" },\n"
      "{ name = \"b\", address = \"127.0.0.1:2\" }]\n",
      {"\"l\"", "\"r\"", "\"b\""});
}

TEST_F(BadConfig, PoolWithoutBackendsIsAMistakeAtCheckTime) {
  ExpectRefused(
      "[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\npool = \"app\"\n[pool.app]\n"
      "backends = []\n",
      {"bad.toml:", "backends"});
}

TEST_F(BadConfig, KeyThatDoesNotFitItsCertificateIsGivenWithItsLine) {
  TestCerts certs;
  const CertificateFiles one = certs.Issue({"one.test"});
  const CertificateFiles two = certs.Issue({"two.test"});
  ExpectRefused("[[listener]]\naddress = \"127.0.0.1:0\"\ntls.certificates = [{ chain = \"" +
                    one.chain + "\", key = \"" + two.key +
                    "\" }]\n[[route]]\npool = \"app\"\n[pool.app]\n"
                    "backends = [{ address = \"127.0.0.1:1\" }]\n",
                {"bad.toml:3", two.key});
}

TEST_F(BadConfig, CertificateThatIsNoneIsNamed) {
  const std::string rubbish = dir_.Write("rubbish.pem", "not a certificate\n");
  ExpectRefused("[[listener]]\naddress = \"127.0.0.1:0\"\ntls.certificates = [{ chain = \"" +
                    rubbish + "\", key = \"" + rubbish +
                    "\" }]\n[[route]]\npool = \"app\"\n[pool.app]\n"
                    "backends = [{ address = \"127.0.0.1:1\" }]\n",
                {"bad.toml:3", "rubbish.pem"});
}

TEST_F(BadConfig, MissingCertificateFileIsNamed) {
  ExpectRefused(
      "[[listener]]\naddress = \"127.0.0.1:0\"\ntls.certificates = [{ chain = \"absent.pem\", "
      "key = \"absent.key\" }]\n[[route]]\npool = \"app\"\n[pool.app]\n"
      "backends = [{ address = \"127.0.0.1:1\" }]\n",
      {"bad.toml:3", "absent.pem"});
}

// An address that is taken: no listener of the file may serve, not even for a moment.
TEST_F(BadConfig, PortInUseStartsNothing) {
  RawBackend holder;
  RawBackend backend;
  const std::string taken = "127.0.0.1:" + std::to_string(holder.port());
  const std::string file =
      dir_.Write("taken.toml",
                 "[admin]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = "
                 "\"127.0.0.1:0\"\n[[listener]]\naddress = \"" +
                     taken +
                     "\"\n[[route]]\npool = \"app\"\n[pool.app]\nbackends = [{ address "
                     "= \"127.0.0.1:" +
                     std::to_string(backend.port()) + "\" }]\n");
  const Outcome outcome = RunToEnd({"run", "-c", file});
  EXPECT_EQ(outcome.status, kBadConfig);
  EXPECT_NE(outcome.err.find(taken), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("in use"), std::string::npos) << outcome.err;
  EXPECT_EQ(Lines(outcome.err), 1U) << outcome.err;
  EXPECT_EQ(outcome.err.find("listening"), std::string::npos) << outcome.err;
  EXPECT_FALSE(holder.HasConnection(Millis(0)));
  // Checking binds nothing, so it does not mind.
  EXPECT_EQ(RunToEnd({"check", "-c", file}).status, 0);
}

// Two processes with SO_REUSEPORT would share the port and each lose half of the clients.
TEST_F(BadConfig, SecondProcessOnTheSamePortIsRefused) {
  EchoBackend backend;
  ProxyProcess first(Config{.backends = {backend.port()}});
  const std::string file = dir_.Write(
      "same.toml", "[admin]\naddress = \"off\"\n[[listener]]\naddress = \"127.0.0.1:" +
                       std::to_string(first.port()) +
                       "\"\n[[route]]\npool = \"app\"\n[pool.app]\nbackends = [{ address = "
                       "\"127.0.0.1:" +
                       std::to_string(backend.port()) + "\" }]\n");
  const Outcome outcome = RunToEnd({"run", "-c", file});
  EXPECT_EQ(outcome.status, kBadConfig) << outcome.err;
  for (int i = 0; i < 8; ++i) {
    RawClient client = ConnectWebSocket(first.port());
    client.SendFrame(kText, "still here");
    EXPECT_EQ(client.ReadFrame().payload, "still here");
  }
}

TEST_F(BadConfig, AdminPortInUseIsNamed) {
  RawBackend holder;
  const std::string file = dir_.Write(
      "admin.toml", "[admin]\naddress = \"127.0.0.1:" + std::to_string(holder.port()) +
                        "\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\npool = \"app\"\n"
                        "[pool.app]\nbackends = [{ address = \"127.0.0.1:1\" }]\n");
  const Outcome outcome = RunToEnd({"run", "-c", file});
  EXPECT_EQ(outcome.status, kBadConfig);
  EXPECT_NE(outcome.err.find("admin"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("in use"), std::string::npos) << outcome.err;
}

// What works.

TEST(Check, EverySampleIsGood) {
  std::size_t samples = 0;
  for (const auto& entry : std::filesystem::directory_iterator(SLUICE_CONFIG_DIR)) {
    if (entry.path().extension() == ".toml") {
      ++samples;
      const Outcome outcome = RunToEnd({"check", "-c", entry.path()});
      EXPECT_EQ(outcome.status, 0) << entry.path() << "\n" << outcome.err;
    }
  }
  EXPECT_GE(samples, 4U);
}

TEST(HealthCheck, TellsReadyFromNotReady) {
  EchoBackend backend;
  std::string admin;
  {
    ProxyProcess proxy(Config{.backends = {backend.port()}});
    admin = "127.0.0.1:" + std::to_string(proxy.admin_port());
    const Outcome ready = RunToEnd({"healthcheck", "--admin", admin});
    EXPECT_EQ(ready.status, 0);
    EXPECT_EQ(ready.out, "ready\n");
  }
  const Outcome gone = RunToEnd({"healthcheck", "--admin", admin});
  EXPECT_EQ(gone.status, 1);
  EXPECT_EQ(Lines(gone.err), 1U) << gone.err;
  EXPECT_EQ(RunToEnd({"healthcheck", "--admin", "nonsense"}).status, kUsage);
}

TEST(Workers, EveryWorkerServes) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  std::vector<RawClient> clients;
  for (int i = 0; i < 64; ++i) {
    clients.push_back(ConnectWebSocket(proxy.port()));
  }
  for (RawClient& client : clients) {
    client.SendFrame(kText, "x");
    EXPECT_EQ(client.ReadFrame().payload, "x");
  }
  proxy.AwaitMetric("sluice_accepts_total", 64);
  proxy.AwaitMetric("sluice_sessions_open", 64);
}

// Sessions that come and go leave nothing behind.
TEST(Workers, ChurnReturnsDescriptors) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  ConnectWebSocket(proxy.port()).Reset();
  proxy.AwaitMetric("sluice_connections_open", 0);
  const std::size_t before = proxy.OpenFds();
  for (int round = 0; round < 5; ++round) {
    std::vector<RawClient> clients;
    for (int i = 0; i < 100; ++i) {
      clients.push_back(ConnectWebSocket(proxy.port()));
    }
    for (std::size_t i = 0; i < clients.size(); ++i) {
      if (i % 2 == 0) {
        clients[i].Reset();
      } else {
        static_cast<void>(clients[i].CloseAndAwait());
        clients[i].Close();
      }
    }
    proxy.AwaitMetric("sluice_connections_open", 0);
  }
  // The admin connection of the last scrape may not be gone yet.
  EXPECT_LE(proxy.OpenFds(), before + 1);
  EXPECT_TRUE(backend.AwaitOpen(0));
}

}  // namespace
}  // namespace sluice::test
