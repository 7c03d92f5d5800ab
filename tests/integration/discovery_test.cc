// Proves that a pool follows DNS and a file while it serves: who stays is not touched, who is gone
// is closed in order, a failure changes nothing, and a start, a reload and a takeover have no empty
// moment.
#include <signal.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"
#include "tests/support/dns_server.h"
#include "tests/support/echo_backend.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kInTurn = "balance = \"round_robin\"\nslow_start = \"0s\"\n";

// Everything but the pool.
std::string Around(const std::string& pool, const std::string& more = {}) {
  return "[server]\nworkers = " + std::to_string(TestWorkers()) +
         "\n[admin]\naddress = \"127.0.0.1:0\"\n[drain]\nwindow = \"0s\"\n"
         "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n"
         "[[route]]\nname = \"main\"\npool = \"app\"\n[pool.app]\n" +
         std::string(kInTurn) + pool + more;
}

std::string Dns(const DnsServer& server, const std::string& rest, const std::string& more = {}) {
  return Around("discover = { servers = [\"" + server.address() +
                    "\"], min_ttl = \"100ms\", timeout = \"400ms\", " + rest + " }\n",
                more);
}

// "chat.test" at `port`, asked for ten times a second whatever its TTL.
std::string Chat(const DnsServer& server, std::uint16_t port, const std::string& more = {}) {
  return Dns(server, "dns = \"chat.test\", max_ttl = \"100ms\", port = " + std::to_string(port),
             more);
}

std::vector<DnsServer::Host> ChatAt(const std::vector<std::string>& addresses) {
  std::vector<DnsServer::Host> hosts;
  for (const std::string& address : addresses) {
    hosts.push_back({"chat.test", address});
  }
  return hosts;
}

// Two backends at one port of two addresses.
struct Pair {
  std::unique_ptr<EchoBackend> one;
  std::unique_ptr<EchoBackend> two;

  Pair() {
    for (int attempt = 0; attempt < 20 && !two; ++attempt) {
      one = std::make_unique<EchoBackend>("one", nullptr, "127.0.1.1");
      try {
        two = std::make_unique<EchoBackend>("two", nullptr, "127.0.1.2", one->port());
      } catch (const Failure&) {
        // Somebody has that port there.
      }
    }
    if (!two) {
      throw Failure("no port that is free at both addresses");
    }
  }
  [[nodiscard]] std::uint16_t port() const { return one->port(); }
  [[nodiscard]] std::string NameOf(int number) const {
    return "127.0.1." + std::to_string(number) + ":" + std::to_string(port());
  }
};

std::vector<std::string> Names(const ProxyProcess& proxy) {
  std::vector<std::string> names;
  const json answer = proxy.AskJson("GET", "/backends");
  for (const json& one : answer.at("backends")) {
    if (one["pool"] == "app") {
      names.push_back(one["name"].get<std::string>());
    }
  }
  return names;
}

void AwaitNames(const ProxyProcess& proxy, const std::vector<std::string>& want) {
  const Deadline deadline;
  while (Names(proxy) != want) {
    if (deadline.passed()) {
      throw Failure("the backends are " + json(Names(proxy)).dump());
    }
  }
}

void AwaitNoSeries(const ProxyProcess& proxy, const std::string& series) {
  const Deadline deadline;
  while (!std::isnan(proxy.Metric(series))) {
    if (deadline.passed()) {
      throw Failure("there is still " + series);
    }
  }
}

void ExpectEcho(RawClient& client, const std::string& text = "still here") {
  client.SendFrame(kText, text);
  EXPECT_EQ(client.ReadFrame().payload, text);
}

void ExpectClosed(RawClient& client) {
  EXPECT_EQ(client.ReadFrame().close_code(), 1012);
  client.Send(ClientClose(1012));
  client.Close();
}

int StatusOfUpgrade(const ProxyProcess& proxy) {
  RawClient client(proxy.port());
  return client.Upgrade().status;
}

double Updates(const ProxyProcess& proxy, const std::string& result) {
  return proxy.Metric("sluice_discovery_updates_total{pool=\"app\",result=\"" + result + "\"}");
}

void AwaitMore(const ProxyProcess& proxy, const std::string& result, double more = 1) {
  const std::string series =
      "sluice_discovery_updates_total{pool=\"app\",result=\"" + result + "\"}";
  proxy.AwaitMetricAtLeast(series, proxy.Metric(series) + more);
}

std::size_t Count(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

TEST(DiscoveryByDns, BackendsComeAndGo) {
  Pair backends;
  DnsServer dns(ChatAt({"127.0.1.1"}));
  ProxyProcess proxy(Chat(dns, backends.port()));
  // From the first moment on.
  RawClient client = ConnectWebSocket(proxy.port());
  EXPECT_EQ(backends.one->accepts(), 1U);
  EXPECT_EQ(Names(proxy), (std::vector{backends.NameOf(1)}));

  dns.SetHosts(ChatAt({"127.0.1.2", "127.0.1.1"}));
  AwaitNames(proxy, {backends.NameOf(1), backends.NameOf(2)});
  EXPECT_EQ(proxy.Metric("sluice_discovery_backends"), 2);
  std::vector<RawClient> more;
  while (backends.two->accepts() == 0) {  // the workers hear of it one after the other
    more.push_back(ConnectWebSocket(proxy.port()));
  }
  ExpectEcho(client);

  dns.SetHosts(ChatAt({"127.0.1.2"}));
  ExpectClosed(client);
  AwaitNames(proxy, {backends.NameOf(2)});
  ExpectEcho(more.back());
  EXPECT_EQ(Updates(proxy, "changed"), 3);
  EXPECT_EQ(proxy.AskJson("GET", "/config")["pool"]["app"]["backends"].size(), 1U);
  for (RawClient& one : more) {
    one.Close();
  }
  // The series of the one that is gone go with it, and what the pool has counted stays.
  const double picks = proxy.Metric("sluice_picks_total{pool=\"app\"}");
  AwaitNoSeries(proxy, "sluice_backend_retries_total{backend=\"" + backends.NameOf(1) + "\"}");
  EXPECT_TRUE(
      std::isnan(proxy.Metric("sluice_sessions_open{backend=\"" + backends.NameOf(1) + "\"}")));
  EXPECT_EQ(proxy.Metric("sluice_picks_total{pool=\"app\"}"), picks);
  EXPECT_EQ(picks, static_cast<double>(backends.one->accepts() + backends.two->accepts()));
}

TEST(DiscoveryByDns, AHundredAddressesInAnyOrderAreOneList) {
  std::vector<std::string> addresses;
  std::vector<std::string> names;
  for (int i = 1; i <= 100; ++i) {
    addresses.push_back("127.0.1." + std::to_string(i));
    names.push_back(addresses.back() + ":9");
  }
  std::sort(names.begin(), names.end());
  DnsServer dns(ChatAt(addresses));  // turns them with each answer, over TCP
  ProxyProcess proxy(Chat(dns, 9));
  EXPECT_EQ(Names(proxy), names);
  AwaitMore(proxy, "unchanged", 3);
  EXPECT_EQ(Updates(proxy, "changed"), 1);
  EXPECT_EQ(Updates(proxy, "failed"), 0);
}

TEST(DiscoveryByDns, AFailureChangesNothing) {
  Pair backends;
  DnsServer dns(ChatAt({"127.0.1.1"}));
  ProxyProcess proxy(Chat(dns, backends.port()));
  RawClient client = ConnectWebSocket(proxy.port());
  EXPECT_EQ(proxy.Metric("sluice_discovery_up"), 1);
  const double success = proxy.Metric("sluice_discovery_last_success_timestamp_seconds");
  EXPECT_GT(success, 1.6e9);

  dns.Stop();  // no answer
  AwaitMore(proxy, "failed", 2);
  EXPECT_EQ(proxy.Metric("sluice_discovery_up"), 0);
  EXPECT_EQ(StatusOfUpgrade(proxy), 101);
  dns.Continue();
  proxy.AwaitMetric("sluice_discovery_up", 1);
  EXPECT_GT(proxy.Metric("sluice_discovery_last_success_timestamp_seconds"), success);

  dns.SetHosts({});  // no such name
  AwaitMore(proxy, "failed", 2);
  EXPECT_EQ(proxy.Metric("sluice_discovery_up"), 0);
  EXPECT_EQ(StatusOfUpgrade(proxy), 101);
  EXPECT_EQ(Names(proxy), (std::vector{backends.NameOf(1)}));
  // Told once, however often it fails.
  EXPECT_EQ(Count(proxy.err(), "\"chat.test\" A: there is no such name"), 1U);

  dns.Kill();  // no server
  AwaitMore(proxy, "failed", 2);
  ExpectEcho(client);
  dns.SetHosts(ChatAt({"127.0.1.1", "127.0.1.2"}));
  dns.Start();
  AwaitNames(proxy, {backends.NameOf(1), backends.NameOf(2)});
  EXPECT_EQ(proxy.Metric("sluice_discovery_up"), 1);
  ExpectEcho(client);
}

TEST(DiscoveryByDns, SrvRecordsTellPortsWeightsAndGroups) {
  EchoBackend one("one", nullptr, "127.0.1.1");
  EchoBackend two("two", nullptr, "127.0.1.2");
  const std::string name = "_ws._tcp.chat.test";
  const DnsServer::Service first{name, "one.test", one.port(), 1, 3};
  const DnsServer::Service second{name, "two.test", two.port(), 1, 0};
  const DnsServer::Service later{name, "z.test", 9, 2, 5};
  DnsServer dns({{"one.test", "127.0.1.1"}, {"two.test", "127.0.1.2"}, {"z.test", "127.0.1.3"}},
                {first, second, later});
  ProxyProcess proxy(Dns(dns, "dns = \"" + name + "\", type = \"SRV\", max_ttl = \"100ms\""));
  const std::string one_name = "one.test:" + std::to_string(one.port());
  const std::string two_name = "two.test:" + std::to_string(two.port());
  EXPECT_EQ(Names(proxy), (std::vector<std::string>{one_name, two_name, "z.test:9"}));
  const auto config = proxy.AskJson("GET", "/config");
  for (const auto& backend : config.at("pool").at("app").at("backends")) {
    EXPECT_EQ(backend["group"], backend["name"] == "z.test:9" ? 1 : 0);
  }
  EXPECT_EQ(proxy.Metric("sluice_backend_weight{backend=\"" + one_name + "\"}"), 3);
  EXPECT_EQ(proxy.Metric("sluice_backend_weight{backend=\"" + two_name + "\"}"), 0.1);
  RawClient client = ConnectWebSocket(proxy.port());
  ASSERT_TRUE(one.AwaitOpen(1));

  dns.Kill();
  dns.Start({second});
  ExpectClosed(client);
  AwaitNames(proxy, {two_name});
  EXPECT_EQ(StatusOfUpgrade(proxy), 101);
}

TEST(DiscoveryByDns, AStartWithoutAnswerServes503UntilThereIsOne) {
  Pair backends;
  DnsServer dns(ChatAt({"127.0.1.1"}));
  dns.Stop();
  ProxyProcess proxy(Chat(dns, backends.port()));
  EXPECT_EQ(StatusOfUpgrade(proxy), 503);
  EXPECT_EQ(proxy.Metric("sluice_discovery_backends"), 0);
  EXPECT_EQ(proxy.Metric("sluice_discovery_last_success_timestamp_seconds"), 0);
  EXPECT_TRUE(Names(proxy).empty());
  dns.Continue();
  const Deadline deadline;
  while (StatusOfUpgrade(proxy) != 101 && !deadline.passed()) {
  }
  EXPECT_EQ(StatusOfUpgrade(proxy), 101);
}

TEST(DiscoveryByDns, AReloadAndATakeoverKeepWhatIsKnown) {
  Pair backends;
  DnsServer dns(ChatAt({"127.0.1.1"}));
  ProxyProcess proxy(Chat(dns, backends.port()));
  RawClient client = ConnectWebSocket(proxy.port());
  const auto reload = [&](const std::string& text) {
    proxy.Configure(text);
    EXPECT_EQ(proxy.Ask("POST", "/reload").status, 200);
    EXPECT_EQ(Names(proxy), (std::vector{backends.NameOf(1)}));
    EXPECT_EQ(StatusOfUpgrade(proxy), 101);
    ExpectEcho(client);
  };
  dns.Stop();  // from here on nobody could be asked
  reload(Chat(dns, backends.port(), "[pool.spare]\nbackends = [{ address = \"127.0.0.1:9\" }]\n"));
  EXPECT_EQ(Updates(proxy, "changed"), 1);
  // Another setting: what was known by the old one stays until there is an answer.
  reload(Dns(
      dns, "dns = \"chat.test\", max_ttl = \"200ms\", port = " + std::to_string(backends.port())));
  // And so with a list in the file, to and fro.
  reload(Around("backends = [{ address = \"" + backends.NameOf(1) + "\" }]\n"));
  EXPECT_TRUE(std::isnan(proxy.Metric("sluice_discovery_up")));
  reload(Chat(dns, backends.port()));
  EXPECT_EQ(proxy.Metric("sluice_discovery_up"), 0);
  dns.Continue();
  proxy.AwaitMetric("sluice_discovery_up", 1);
  ExpectEcho(client);

  Predecessor before = proxy.TakeOver();
  EXPECT_EQ(Names(proxy), (std::vector{backends.NameOf(1)}));
  EXPECT_EQ(StatusOfUpgrade(proxy), 101);
  ExpectClosed(client);
  EXPECT_EQ(before.Wait(), 0);
}

// Files.

class DiscoveryByFile : public testing::Test {
 protected:
  // `{ name, port }` each.
  using List = std::vector<std::pair<std::string, std::uint16_t>>;

  static std::string Text(const List& backends) {
    std::string text = "backends = [\n";
    for (const auto& [name, port] : backends) {
      text +=
          "  { name = \"" + name + "\", address = \"127.0.0.1:" + std::to_string(port) + "\" },\n";
    }
    return text + "]\n";
  }

  // As an orchestrator should.
  void Replace(const std::string& text) const {
    dir_.Write("b.toml.new", text);
    fs::rename(dir_.path() + "/b.toml.new", path());
  }

  [[nodiscard]] std::string path() const { return dir_.path() + "/b.toml"; }
  [[nodiscard]] std::string ConfigText() const {
    return Around("discover = { file = \"" + path() + "\" }\n");
  }

  TempDir dir_;
  EchoBackend one_{"one"};
  EchoBackend two_{"two"};
};

TEST_F(DiscoveryByFile, IsFollowed) {
  dir_.Write("b.toml", Text({{"one", one_.port()}}));
  ProxyProcess proxy(ConfigText());
  RawClient client = ConnectWebSocket(proxy.port());
  EXPECT_EQ(one_.accepts(), 1U);

  Replace(Text({{"one", one_.port()}, {"two", two_.port()}}));
  AwaitNames(proxy, {"one", "two"});
  ExpectEcho(client);

  dir_.Write("b.toml", Text({{"two", two_.port()}}));  // in place
  ExpectClosed(client);
  AwaitNames(proxy, {"two"});
  RawClient other = ConnectWebSocket(proxy.port());

  // Mistakes, all of them told; then it is gone; then as it was.
  Replace("backends = [\n  { name = \"two\" },\n  { adress = \"127.0.0.1:1\" },\n]\n");
  proxy.AwaitMetric("sluice_discovery_up", 0);
  EXPECT_TRUE(proxy.AwaitErr(path() + ":2: backends[0].address: is missing; "));
  EXPECT_TRUE(
      proxy.AwaitErr(path() + ":3: backends[1].adress: unknown key; did you mean \"address\"?"));
  EXPECT_EQ(Updates(proxy, "failed"), 1);
  fs::remove(path());
  proxy.AwaitMetric("sluice_discovery_updates_total{result=\"failed\"}", 2);
  EXPECT_EQ(Names(proxy), (std::vector<std::string>{"two"}));
  ExpectEcho(other);
  Replace(Text({{"two", two_.port()}}));
  proxy.AwaitMetric("sluice_discovery_up", 1);
  EXPECT_EQ(Updates(proxy, "unchanged"), 1);
  EXPECT_EQ(Updates(proxy, "changed"), 3);
  ExpectEcho(other);
}

TEST_F(DiscoveryByFile, IsFollowedThroughTheLinksOfAConfigMap) {
  for (const char* version : {"..1", "..2"}) {
    fs::create_directory(dir_.path() + "/" + version);
  }
  dir_.Write("..1/b.toml", Text({{"one", one_.port()}}));
  dir_.Write("..2/b.toml", Text({{"two", two_.port()}}));
  fs::create_directory_symlink("..1", dir_.path() + "/..data");
  fs::create_symlink("..data/b.toml", path());
  ProxyProcess proxy(ConfigText());
  RawClient client = ConnectWebSocket(proxy.port());
  fs::create_directory_symlink("..2", dir_.path() + "/..data_tmp");
  fs::rename(dir_.path() + "/..data_tmp", dir_.path() + "/..data");
  ExpectClosed(client);
  AwaitNames(proxy, {"two"});
}

TEST_F(DiscoveryByFile, MayComeLaterThanTheStart) {
  ProxyProcess proxy(ConfigText());
  EXPECT_NE(proxy.err().find("warning: cannot read \"" + path()), std::string::npos) << proxy.err();
  EXPECT_EQ(StatusOfUpgrade(proxy), 503);
  Replace(Text({{"one", one_.port()}}));
  AwaitNames(proxy, {"one"});
  const Deadline deadline;
  while (StatusOfUpgrade(proxy) != 101 && !deadline.passed()) {
  }
  EXPECT_EQ(StatusOfUpgrade(proxy), 101);
}

TEST_F(DiscoveryByFile, ManyThatComeAndGoLeaveNothingBehind) {
  dir_.Write("b.toml", Text({{"stays", one_.port()}}));
  ProxyProcess proxy(ConfigText());
  RawClient client = ConnectWebSocket(proxy.port());
  for (int round = 0; round < 10; ++round) {
    List backends{{"stays", one_.port()}};
    for (int i = 0; i < 20; ++i) {
      backends.emplace_back("r" + std::to_string(round) + "-" + std::to_string(i), 9);
    }
    Replace(Text(backends));
    proxy.AwaitMetric("sluice_discovery_updates_total{result=\"changed\"}", round + 2);
  }
  Replace(Text({{"stays", one_.port()}}));
  proxy.AwaitMetric("sluice_discovery_backends", 1);
  proxy.AwaitMetric("sluice_drain_active{what=\"backend\"}", 0);
  const std::string page = proxy.Admin("/metrics");
  EXPECT_EQ(Count(page, "sluice_backend_retries_total{"), 1U) << page;
  EXPECT_EQ(Count(page, "sluice_sessions_open{"), 1U);
  EXPECT_EQ(Count(page, "backend=\"r"), 0U);
  ExpectEcho(client);
}

}  // namespace
}  // namespace sluice::test
