// Proves that a reload changes what the file says and nothing else: open sessions keep what they
// have, what is new works, what is gone is closed in order, and a file with mistakes, or one that
// cannot be put into effect, leaves everything as it was.
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <openssl/bio.h>
#include <openssl/x509v3.h>

#include "tests/integration/relayed_session.h"
#include "tests/integration/resumption.h"
#include "tests/support/certificates.h"
#include "tests/support/echo_backend.h"

namespace sluice::test {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;

constexpr const char* kInTurn = "balance = \"round_robin\"\nslow_start = \"0s\"";

// Fails the test unless the answer is 200; returns it.
json Reload(const ProxyProcess& proxy, const std::string& text) {
  proxy.Configure(text);
  const HttpMessage answer = proxy.Ask("POST", "/reload");
  EXPECT_EQ(answer.status, 200) << answer.body;
  return json::parse(answer.body);
}

json Reload(const ProxyProcess& proxy, const Config& config) {
  return Reload(proxy, config.Text());
}

// Fails the test unless the answer is 422; returns its mistakes.
std::vector<std::string> FailToReload(const ProxyProcess& proxy) {
  const HttpMessage answer = proxy.Ask("POST", "/reload");
  EXPECT_EQ(answer.status, 422) << answer.body;
  EXPECT_EQ(answer.Field("Content-Type"), "application/problem+json");
  return json::parse(answer.body)["mistakes"].get<std::vector<std::string>>();
}

std::vector<std::string> FailToReload(const ProxyProcess& proxy, const std::string& text) {
  proxy.Configure(text);
  return FailToReload(proxy);
}

// Workers hear of a reload a moment after it was answered.
void Eventually(const std::function<bool()>& condition) {
  const Deadline deadline;
  while (!condition()) {
    if (deadline.passed()) {
      throw Failure("what was reloaded did not come into effect");
    }
  }
}

HttpMessage Get(std::uint16_t port, const std::string& target) {
  RawClient client(port);
  client.Send("GET " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  return client.ReadResponse();
}

void ExpectEcho(RawClient& client, const std::string& text = "still here") {
  client.SendFrame(kText, text);
  EXPECT_EQ(client.ReadFrame().payload, text);
}

// The port of a listener that a reload has added: the log names it.
std::uint16_t AddedPort(ProxyProcess& proxy, const std::string& name) {
  const std::string mark = "listening name=" + name + " address=127.0.0.1:";
  if (!proxy.AwaitErr(mark)) {
    throw Failure("no listener " + name + " in " + proxy.err());
  }
  const std::string text = proxy.err();
  return static_cast<std::uint16_t>(std::stoi(text.substr(text.rfind(mark) + mark.size())));
}

std::string Listener(const std::string& name, const std::string& address = "127.0.0.1:0",
                     const std::string& more = {}) {
  return "[[listener]]\nname = \"" + name + "\"\naddress = \"" + address + "\"\n" + more + "\n";
}

std::string Pair(const CertificateFiles& files) {
  return "{ chain = \"" + files.chain + "\", key = \"" + files.key + "\" }";
}

bool IsRefused(std::uint16_t port) {
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0;
}

// Free a moment ago.
std::uint16_t FreePort() {
  return ClosedPort().port();
}

// The common name of the certificate that a client is shown.
std::string ShownName(SSL* ssl) {
  X509* shown = SSL_get1_peer_certificate(ssl);
  std::array<char, 256> name{};
  X509_NAME_get_text_by_NID(X509_get_subject_name(shown), NID_commonName, name.data(),
                            static_cast<int>(name.size()));
  X509_free(shown);
  return name.data();
}

std::string ShownName(std::uint16_t port, const std::string& sni) {
  RawClient client(port, TlsClientOptions{.sni = sni});
  return ShownName(client.ssl());
}

// Routes, pools, limits.

TEST(Reload, SessionsAndAKeptAliveConnectionLiveOnAndTheLatterSeesNewRoutes) {
  EchoBackend b0("b0");
  EchoBackend other("other");
  Config config{.backends = {b0.port()}};
  ProxyProcess proxy(config);
  RawClient session = ConnectWebSocket(proxy.port());
  RawClient kept(proxy.port());
  const std::string request = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
  const auto asked = [&] {
    kept.Send(request);
    return kept.ReadResponse();
  };
  EXPECT_EQ(asked().body, "b0 GET /a\n");

  config.more =
      "[[route]]\nname = \"a\"\npath = \"/a\"\npool = \"other\"\n"
      "[pool.other]\nbackends = [{ name = \"o\", address = \"127.0.0.1:" +
      std::to_string(other.port()) + "\" }]\n";
  EXPECT_EQ(Reload(proxy, config)["warnings"], json::array());
  Eventually([&] { return asked().body == "other GET /a\n"; });
  EXPECT_EQ(Get(proxy.port(), "/b").body, "b0 GET /b\n");

  // By the signal; the route is gone again.
  config.more.clear();
  proxy.Configure(config);
  proxy.Signal(SIGHUP);
  proxy.AwaitMetric("sluice_reloads_total{result=\"success\"}", 2);
  Eventually([&] { return asked().body == "b0 GET /a\n"; });
  ExpectEcho(session);
  EXPECT_EQ(proxy.Metric("sluice_sessions_open"), 1);
  EXPECT_EQ(proxy.Metric("sluice_config_last_reload_successful"), 1);
}

TEST(Reload, ARouteThatIsGoneAnswers404AndItsSessionsLiveOn) {
  EchoBackend b0("b0");
  Config config{.backends = {b0.port()}, .route = "path = \"/chat\""};
  ProxyProcess proxy(config);
  RawClient session = ConnectWebSocket(proxy.port(), "/chat");
  config.route = "path = \"/talk\"";
  Reload(proxy, config);
  Eventually([&] { return Get(proxy.port(), "/chat").status == 404; });
  EXPECT_EQ(Get(proxy.port(), "/talk").status, 200);
  ExpectEcho(session);
  EXPECT_EQ(proxy.AskJson("GET", "/sessions")["sessions"][0]["route"], "main");
}

TEST(Reload, WeightsMoveNewSessionsOnly) {
  EchoBackend b0;
  EchoBackend b1;
  Config config{.backends = {b0.port(), b1.port()}, .route = "affinity = [\"query:u\"]"};
  ProxyProcess proxy(config);
  std::vector<RawClient> clients;
  for (int i = 0; i < 40; ++i) {
    clients.push_back(ConnectWebSocket(proxy.port(), "/?u=" + std::to_string(i)));
  }
  const std::size_t before = b0.open();
  EXPECT_GE(before, 8U);
  EXPECT_LE(before, 32U);
  std::string text = config.Text();
  const std::string mark = "name = \"b1\", ";
  text.insert(text.find(mark) + mark.size(), "weight = 1000, ");
  Reload(proxy, text);
  EXPECT_EQ(proxy.Metric("sluice_backend_weight{backend=\"b1\"}"), 1000);
  // Of so many keys not one in a thousand is at home on b0 now.
  Eventually([&] {
    const std::size_t accepts = b0.accepts();
    for (int i = 0; i < 40; ++i) {
      clients.push_back(ConnectWebSocket(proxy.port(), "/?u=" + std::to_string(i)));
    }
    return b0.accepts() <= accepts + 1;
  });
  for (int i = 0; i < 40; ++i) {
    ExpectEcho(clients[static_cast<std::size_t>(i)]);
  }
}

TEST(Reload, MessageLimitsAreForNewSessions) {
  EchoBackend backend;
  Config config{.backends = {backend.port()}};
  ProxyProcess proxy(config);
  RawClient before = ConnectWebSocket(proxy.port());
  config.route = "limits.max_message_bytes = \"1KiB\"";
  Reload(proxy, config);
  const std::string large(4096, 'x');
  Eventually([&] {
    RawClient after = ConnectWebSocket(proxy.port());
    after.SendFrame(kText, large);
    return after.ReadFrame().close_code() == 1009;
  });
  ExpectEcho(before, large);
}

TEST(Reload, ConnectionLimitsTakeEffect) {
  EchoBackend backend;
  Config config{.backends = {backend.port()}};
  ProxyProcess proxy(config);
  RawClient session = ConnectWebSocket(proxy.port());

  config.limits = "connections_per_ip = 2";
  Reload(proxy, config);
  const ClientOptions elsewhere{.source = "127.0.0.9"};
  Eventually([&] {
    std::vector<RawClient> clients;
    int status = 0;
    for (int i = 0; i < 3; ++i) {
      clients.emplace_back(proxy.port(), elsewhere);
      status = clients.back().Upgrade().status;
    }
    for (RawClient& client : clients) {
      client.Reset();
    }
    return status == 429;
  });

  config.limits = "max_connections = 2";
  Reload(proxy, config);
  EXPECT_EQ(proxy.Metric("sluice_max_connections"), 2);
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 1);
  RawClient second = ConnectWebSocket(proxy.port());
  RawClient third(proxy.port());
  EXPECT_EQ(third.Upgrade().status, 503);

  config.limits = "";
  Reload(proxy, config);
  EXPECT_GT(proxy.Metric("sluice_max_connections"), 2);
  third = RawClient(proxy.port());
  EXPECT_EQ(third.Upgrade().status, 101);
  ExpectEcho(session);
}

TEST(Reload, HeadLimitsAreForRequestsThatComeLater) {
  EchoBackend backend;
  Config config{.backends = {backend.port()}};
  ProxyProcess proxy(config);
  RawClient kept(proxy.port());
  const std::string long_line = "GET /" + std::string(600, 'a') + " HTTP/1.1\r\nHost: x\r\n\r\n";
  kept.Send(long_line);
  EXPECT_EQ(kept.ReadResponse().status, 200);
  config.limits = "max_request_line = \"256B\"\nmax_head_fields = 10";
  Reload(proxy, config);
  Eventually([&] { return Get(proxy.port(), "/" + std::string(600, 'a')).status == 414; });
  kept.Send(long_line);
  EXPECT_EQ(kept.ReadResponse().status, 414);
  std::string fields;
  for (int i = 0; i < 12; ++i) {
    fields += "X-" + std::to_string(i) + ": 1\r\n";
  }
  RawClient many(proxy.port());
  many.Send("GET / HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n");
  EXPECT_EQ(many.ReadResponse().status, 431);
}

// Backends and pools.

TEST(Reload, AnAddedBackendGetsSessions) {
  EchoBackend b0;
  EchoBackend b1;
  Config config{.backends = {b0.port()}, .pool = kInTurn};
  ProxyProcess proxy(config);
  RawClient session = ConnectWebSocket(proxy.port());
  config.backends.push_back(b1.port());
  Reload(proxy, config);
  std::vector<RawClient> clients;
  Eventually([&] {
    clients.push_back(ConnectWebSocket(proxy.port()));
    return b1.accepts() > 0;
  });
  ExpectEcho(session);
  EXPECT_EQ(proxy.AskJson("GET", "/backends/app")["backends"].size(), 2U);
}

TEST(Reload, AnAddedBackendStartsSlowly) {
  EchoBackend b0;
  EchoBackend b1;
  Config config{.backends = {b0.port()},
                .pool = "balance = \"least_connections\"\nslow_start = \"10m\""};
  ProxyProcess proxy(config);
  std::vector<RawClient> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(ConnectWebSocket(proxy.port()));
  }
  config.backends.push_back(b1.port());
  Reload(proxy, config);
  EXPECT_EQ(proxy.AskJson("GET", "/backends/app")["backends"].size(), 2U);
  for (int i = 0; i < 20; ++i) {
    clients.push_back(ConnectWebSocket(proxy.port()));
  }
  // An empty one at full weight would get all 20 of them.
  EXPECT_LE(b1.accepts(), 10U);
}

TEST(Reload, ARemovedBackendIsDrainedWithinTheWindowAndOthersAreNot) {
  constexpr std::size_t kEach = 20;
  EchoBackend b0;
  EchoBackend b1;
  // The delay is for load balancers in front, which have nothing to learn here.
  Config config{.backends = {b0.port(), b1.port()},
                .pool = kInTurn,
                .drain = "ready_delay = \"60s\"\nwindow = \"1s\"\ngrace = \"5s\""};
  ProxyProcess proxy(config);
  std::vector<RawClient> clients;
  for (std::size_t i = 0; i < 2 * kEach; ++i) {
    clients.push_back(ConnectWebSocket(proxy.port()));
  }
  ASSERT_TRUE(b1.AwaitOpen(kEach));
  config.backends.pop_back();
  const auto began = steady_clock::now();
  Reload(proxy, config);
  ASSERT_TRUE(proxy.AwaitErr("draining backend pool=app backend=b1"));
  EXPECT_EQ(proxy.Ask("GET", "/backends/app/b1").status, 404);
  EXPECT_EQ(proxy.Metric("sluice_drain_active{what=\"backend\"}"), 1);
  const std::size_t accepts = b1.accepts();
  std::size_t closed = 0;
  std::size_t early = 0;
  const Deadline deadline;
  while (closed < kEach && !deadline.passed()) {
    for (RawClient& client : clients) {
      if (client.open() && client.HasInput(Millis(0))) {
        EXPECT_EQ(client.ReadFrame().close_code(), 1012);
        client.Send(ClientClose(1012));
        client.Close();
        ++closed;
        early += steady_clock::now() - began < Millis(400) ? 1 : 0;
      }
    }
  }
  ASSERT_EQ(closed, kEach);
  EXPECT_LE(early, kEach * 3 / 4) << "paced, not at once";
  EXPECT_LT(steady_clock::now() - began, Millis(5000));
  ASSERT_TRUE(proxy.AwaitErr("drained backend pool=app backend=b1 sessions=20 clean=20 forced=0"));
  proxy.AwaitMetric("sluice_drain_active{what=\"backend\"}", 0);
  EXPECT_EQ(b1.closes(), std::vector<std::uint16_t>(kEach, 1001));
  EXPECT_EQ(b1.accepts(), accepts);
  EXPECT_EQ(b0.open(), kEach);
  for (RawClient& client : clients) {
    if (client.open()) {
      ExpectEcho(client);
    }
  }
}

TEST(Reload, ABackendThatComesBackWhileItDrainsIsANewOne) {
  EchoBackend b0;
  EchoBackend b1;
  Config config{.backends = {b0.port(), b1.port()},
                .pool = kInTurn,
                .drain = "window = \"2s\"\ngrace = \"5s\""};
  ProxyProcess proxy(config);
  std::vector<RawClient> old;
  for (int i = 0; i < 20; ++i) {
    old.push_back(ConnectWebSocket(proxy.port()));
  }
  Config without = config;
  without.backends.pop_back();
  Reload(proxy, without);
  ASSERT_TRUE(proxy.AwaitErr("draining backend pool=app backend=b1"));
  Reload(proxy, config);
  EXPECT_EQ(proxy.AskJson("GET", "/backends/app/b1")["draining"], false);
  std::vector<RawClient> newcomers;
  const std::size_t accepts = b1.accepts();
  Eventually([&] {
    newcomers.push_back(ConnectWebSocket(proxy.port()));
    return b1.accepts() >= accepts + 3;
  });
  // The old sessions leave as planned, the new ones do not.
  std::size_t closed = 0;
  const Deadline deadline;
  while (closed < 10 && !deadline.passed()) {
    for (RawClient& client : old) {
      if (client.open() && client.HasInput(Millis(0))) {
        EXPECT_EQ(client.ReadFrame().close_code(), 1012);
        client.Send(ClientClose(1012));
        client.Close();
        ++closed;
      }
    }
  }
  EXPECT_EQ(closed, 10U);
  ASSERT_TRUE(proxy.AwaitErr("drained backend pool=app backend=b1"));
  for (RawClient& client : newcomers) {
    ExpectEcho(client);
  }
}

TEST(Reload, ADrainOfABackendGoesOnAndEndsSoonerWhenItIsRemoved) {
  EchoBackend b0;
  EchoBackend b1;
  Config config{.backends = {b0.port(), b1.port()},
                .pool = kInTurn,
                .drain = "window = \"0s\"\ngrace = \"5s\""};
  ProxyProcess proxy(config);
  std::vector<RawClient> clients;
  for (int i = 0; i < 10; ++i) {
    clients.push_back(ConnectWebSocket(proxy.port()));
  }
  static_cast<void>(proxy.AskJson("POST", "/backends/app/b1/drain?window=300s", 202));
  proxy.AwaitMetric("sluice_drain_sessions_remaining", 5);
  config.route = "limits.max_message_bytes = \"1KiB\"";
  Reload(proxy, config);
  const json drain = proxy.AskJson("GET", "/backends/app/b1")["drain"];
  EXPECT_EQ(drain["state"], "draining");
  EXPECT_EQ(drain["window_seconds"], 300);
  EXPECT_EQ(drain["total"], 5);
  const std::size_t accepts = b1.accepts();
  for (int i = 0; i < 4; ++i) {
    static_cast<void>(ConnectWebSocket(proxy.port()));
  }
  EXPECT_EQ(b1.accepts(), accepts);
  config.backends.pop_back();
  Reload(proxy, config);
  ASSERT_TRUE(b1.AwaitCloses(5));
  EXPECT_EQ(proxy.Metric("sluice_backend_draining{backend=\"b0\"}"), 0);
  for (RawClient& client : clients) {
    if (client.HasInput(Millis(0))) {
      EXPECT_EQ(client.ReadFrame().close_code(), 1012);
      client.Send(ClientClose(1012));
      client.Close();
    }
  }
  EXPECT_TRUE(proxy.AwaitErr("drained backend pool=app backend=b1"));
}

TEST(Reload, ARemovedPoolIsDrained) {
  EchoBackend b0("b0");
  EchoBackend other("other");
  Config config{.backends = {b0.port()}, .drain = "window = \"0s\"\ngrace = \"5s\""};
  const Config without = config;
  config.more =
      "[[route]]\nname = \"o\"\npath = \"/o\"\npool = \"other\"\n"
      "[pool.other]\nbackends = [{ name = \"o\", address = \"127.0.0.1:" +
      std::to_string(other.port()) + "\" }]\n";
  ProxyProcess proxy(config);
  RawClient stays = ConnectWebSocket(proxy.port());
  RawClient goes = ConnectWebSocket(proxy.port(), "/o");
  ASSERT_TRUE(other.AwaitOpen(1));
  Reload(proxy, without);
  EXPECT_EQ(goes.ReadFrame().close_code(), 1012);
  goes.Send(ClientClose(1012));
  goes.ExpectEnd();
  EXPECT_EQ(proxy.Ask("GET", "/backends/other").status, 404);
  Eventually([&] { return Get(proxy.port(), "/o").body == "b0 GET /o\n"; });
  ExpectEcho(stays);
}

// Listeners.

TEST(Reload, ListenersComeAndGo) {
  EchoBackend backend;
  const Config config{.backends = {backend.port()}};
  ProxyProcess proxy(config);
  RawClient on_first = ConnectWebSocket(proxy.port());
  Reload(proxy, config.Text() + Listener("second"));
  const std::uint16_t port = AddedPort(proxy, "second");
  RawClient on_second = ConnectWebSocket(port);
  EXPECT_EQ(proxy.Metric("sluice_accepts_total{listener=\"second\"}"), 1);
  EXPECT_EQ(proxy.AskJson("GET", "/sessions")["matching"], 2);

  Reload(proxy, config);
  ASSERT_TRUE(proxy.AwaitErr("no longer listening name=second"));
  Eventually([&] { return IsRefused(port); });
  ExpectEcho(on_second);
  ExpectEcho(on_first);
  ExpectEcho(on_second);
  static_cast<void>(ConnectWebSocket(proxy.port()));
}

TEST(Reload, ARenamedListenerKeepsItsSockets) {
  EchoBackend backend;
  const Config config{.backends = {backend.port()}};
  const std::string address = "127.0.0.1:" + std::to_string(FreePort());
  ProxyProcess proxy(config.Text() + Listener("before", address));
  const std::uint16_t port = proxy.port("before");
  RawClient session = ConnectWebSocket(port);
  Reload(proxy, config.Text() + Listener("after", address));
  Eventually([&] {
    static_cast<void>(ConnectWebSocket(port));  // never refused
    return proxy.Metric("sluice_accepts_total{listener=\"after\"}") >= 1;
  });
  EXPECT_EQ(proxy.err().find("no longer listening"), std::string::npos);
  ExpectEcho(session);
}

TEST(Reload, AnAddressTurnsToTlsAndBack) {
  TestCerts certs;
  const CertificateFiles files = certs.Issue({"chat.test"});
  const std::string tls = "tls.certificates = [" + Pair(files) + "]";
  EchoBackend backend;
  Config config{.backends = {backend.port()}};
  ProxyProcess proxy(config);
  RawClient plain = ConnectWebSocket(proxy.port());
  config.listener = tls;
  Reload(proxy, config);
  Eventually([&] {
    try {
      RawClient client(proxy.port(), TlsClientOptions{.sni = "chat.test", .trust = certs.ca()});
      return client.Upgrade().status == 101;
    } catch (const Failure&) {
      return false;  // a worker that has not heard of it yet
    }
  });
  RawClient secure(proxy.port(), TlsClientOptions{.sni = "chat.test", .trust = certs.ca()});
  EXPECT_EQ(secure.Upgrade().status, 101);
  config.listener.clear();
  Reload(proxy, config);
  Eventually([&] {
    RawClient client(proxy.port());
    client.Send(UpgradeRequest());
    return client.ReadSome().starts_with("HTTP/1.1 101");
  });
  ExpectEcho(plain);
  ExpectEcho(secure);
}

TEST(Reload, ATakenPortChangesNothingAtAll) {
  EchoBackend backend;
  RawBackend taken;
  Config config{.backends = {backend.port()}, .route = "path = \"/old\""};
  ProxyProcess proxy(config);
  RawClient session = ConnectWebSocket(proxy.port(), "/old");
  const std::size_t fds = proxy.OpenFds();
  config.route = "path = \"/new\"";
  config.limits = "max_connections = 7";
  const std::vector<std::string> mistakes =
      FailToReload(proxy, config.Text() + Listener("fine") +
                              Listener("taken", "127.0.0.1:" + std::to_string(taken.port())));
  ASSERT_EQ(mistakes.size(), 1U);
  EXPECT_NE(mistakes[0].find(std::to_string(taken.port())), std::string::npos) << mistakes[0];
  EXPECT_EQ(proxy.err().find("listening name=fine"), std::string::npos);
  EXPECT_NE(proxy.Metric("sluice_max_connections"), 7);
  EXPECT_EQ(Get(proxy.port(), "/old").status, 200);
  EXPECT_EQ(Get(proxy.port(), "/new").status, 404);
  EXPECT_EQ(proxy.Metric("sluice_config_last_reload_successful"), 0);
  ExpectEcho(session);
  Eventually([&] { return proxy.OpenFds() <= fds; });
}

// Certificates.

class ReloadTls : public testing::Test {
 protected:
  ReloadTls() {
    Install(certs.Issue({"first.test"}));
    config.listener = "tls.certificates = [" + Pair(installed) + "]";
  }

  // In the place of what is there.
  void Install(const CertificateFiles& files) const {
    for (const auto& [from, to] :
         {std::pair(files.chain, installed.chain), std::pair(files.key, installed.key)}) {
      std::filesystem::copy_file(from, to + ".new");
      std::filesystem::rename(to + ".new", to);
    }
  }

  TestCerts certs;
  TempDir dir;
  CertificateFiles installed{dir.path() + "/served.pem", dir.path() + "/served.key"};
  EchoBackend backend;
  Config config{.backends = {backend.port()}};
};

TEST_F(ReloadTls, ReplacedFilesAreForNewHandshakes) {
  ProxyProcess proxy(config);
  RawClient session(proxy.port(), TlsClientOptions{.sni = "x.test"});
  EXPECT_EQ(session.Upgrade().status, 101);
  EXPECT_EQ(ShownName(session.ssl()), "first.test");
  Install(certs.Issue({"second.test"}));
  EXPECT_EQ(ShownName(proxy.port(), "x.test"), "first.test") << "nobody was told yet";
  Reload(proxy, config);
  Eventually([&] { return ShownName(proxy.port(), "x.test") == "second.test"; });
  ExpectEcho(session);
  EXPECT_FALSE(std::isnan(proxy.Metric(
      "sluice_tls_certificate_expiry_timestamp_seconds{listener=\"plain\",name=\"second.test\"}")));
  EXPECT_TRUE(std::isnan(proxy.Metric(
      "sluice_tls_certificate_expiry_timestamp_seconds{listener=\"plain\",name=\"first.test\"}")));
}

TEST_F(ReloadTls, TicketsFromBeforeStillResume) {
  ProxyProcess proxy(config);
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const SslContext context = MakeClientContext(version);
    SslSession session;
    EXPECT_FALSE(Resume(proxy.port(), context.get(), session));
    const std::string name = "v" + std::to_string(version) + ".test";
    Install(certs.Issue({name}));
    Reload(proxy, config);
    Eventually([&] { return ShownName(proxy.port(), "x.test") == name; });
    for (int i = 0; i < 6; ++i) {
      EXPECT_TRUE(Resume(proxy.port(), context.get(), session)) << version << " " << i;
    }
  }
}

TEST_F(ReloadTls, AFurtherNameIsServed) {
  ProxyProcess proxy(config);
  EXPECT_EQ(ShownName(proxy.port(), "more.test"), "first.test");
  config.listener =
      "tls.certificates = [" + Pair(installed) + ", " + Pair(certs.Issue({"more.test"})) + "]";
  Reload(proxy, config);
  Eventually([&] { return ShownName(proxy.port(), "more.test") == "more.test"; });
  EXPECT_EQ(ShownName(proxy.port(), "first.test"), "first.test");
}

TEST_F(ReloadTls, ABrokenPairIsRefusedAndTheOldOneServes) {
  ProxyProcess proxy(config);
  const CertificateFiles other = certs.Issue({"other.test"});
  std::filesystem::copy_file(other.key, installed.key,
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_EQ(FailToReload(proxy).size(), 1U);
  EXPECT_EQ(ShownName(proxy.port(), "x.test"), "first.test");
  Install(other);
  Reload(proxy, config);
  Eventually([&] { return ShownName(proxy.port(), "x.test") == "other.test"; });
}

TEST_F(ReloadTls, InTheMiddleOfAHandshake) {
  ProxyProcess proxy(config);
  RawClient tcp(proxy.port());
  const SslContext context = MakeClientContext(TLS1_3_VERSION);
  const std::unique_ptr<SSL, SslFree> ssl(SSL_new(context.get()));
  SSL_set_connect_state(ssl.get());
  BIO* hello = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), BIO_new(BIO_s_mem()), hello);
  ASSERT_NE(SSL_do_handshake(ssl.get()), 1);
  char* bytes = nullptr;
  const auto size = static_cast<std::size_t>(BIO_get_mem_data(hello, &bytes));
  ASSERT_GT(size, 100U);
  const std::string text(bytes, size);
  tcp.Send(text.substr(0, 100));
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 1);
  Install(certs.Issue({"second.test"}));
  Reload(proxy, config);
  Eventually([&] { return ShownName(proxy.port(), "x.test") == "second.test"; });
  tcp.Send(text.substr(100));
  SSL_set_fd(ssl.get(), tcp.fd());
  const Deadline deadline;
  while (SSL_do_handshake(ssl.get()) != 1) {
    ASSERT_FALSE(deadline.passed());
    static_cast<void>(tcp.HasInput(Millis(100)));
  }
  EXPECT_EQ(ShownName(ssl.get()), "first.test");
}

// Mistakes.

TEST(ReloadMistakes, AllAreToldAndNothingChanges) {
  EchoBackend backend;
  const Config config{.backends = {backend.port()}};
  ProxyProcess proxy(config);
  RawClient session = ConnectWebSocket(proxy.port());
  Config wrong = config;
  wrong.server = "header_timeout = \"soon\"";
  wrong.limits = "max_head_fields = 1";
  wrong.route = "pol = \"app\"";
  const std::vector<std::string> mistakes = FailToReload(proxy, wrong.Text());
  EXPECT_EQ(mistakes.size(), 3U);
  for (const char* key : {"header_timeout", "max_head_fields", "pol"}) {
    EXPECT_EQ(std::count_if(mistakes.begin(), mistakes.end(),
                            [key](const std::string& mistake) {
                              return mistake.find(key) != std::string::npos;
                            }),
              1)
        << key;
    EXPECT_TRUE(proxy.AwaitErr(key)) << "the log tells them too";
  }
  EXPECT_EQ(proxy.Metric("sluice_reloads_total{result=\"failure\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_reloads_total{result=\"success\"}"), 0);
  EXPECT_EQ(proxy.Metric("sluice_config_last_reload_successful"), 0);

  EXPECT_GE(FailToReload(proxy, "[nonsense").size(), 1U);
  EXPECT_GE(FailToReload(proxy, "").size(), 1U);
  EXPECT_GE(FailToReload(proxy, std::string("\0\xFF\xFE", 3)).size(), 1U);

  proxy.Configure(wrong);
  proxy.Signal(SIGHUP);
  proxy.AwaitMetric("sluice_reloads_total{result=\"failure\"}", 5);
  EXPECT_EQ(proxy.AskJson("GET", "/config")["route"][0]["pool"], "app");
  ExpectEcho(session);
  static_cast<void>(ConnectWebSocket(proxy.port()));

  Reload(proxy, config);
  EXPECT_EQ(proxy.Metric("sluice_reloads_total{result=\"success\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_config_last_reload_successful"), 1);
}

TEST(ReloadMistakes, AFileThatIsNotThereOrCannotBeRead) {
  EchoBackend backend;
  const Config config{.backends = {backend.port()}};
  ProxyProcess proxy(config);
  std::filesystem::remove(proxy.config_path());
  std::vector<std::string> mistakes = FailToReload(proxy);
  ASSERT_EQ(mistakes.size(), 1U);
  EXPECT_NE(mistakes[0].find("No such file"), std::string::npos) << mistakes[0];
  std::filesystem::create_directory(proxy.config_path());
  mistakes = FailToReload(proxy);
  ASSERT_EQ(mistakes.size(), 1U);
  EXPECT_NE(mistakes[0].find("sluice.toml"), std::string::npos) << mistakes[0];
  static_cast<void>(ConnectWebSocket(proxy.port()));
  std::filesystem::remove(proxy.config_path());
  Reload(proxy, config);
}

TEST(ReloadMistakes, ABackendWithoutAnAddressIsRefused) {
  EchoBackend backend;
  const Config config{.backends = {backend.port()}};
  ProxyProcess proxy(config);
  std::string text = config.Text();
  const std::string mark = "address = \"127.0.0.1:" + std::to_string(backend.port());
  text.replace(text.rfind(mark), mark.size(), "address = \"nowhere.invalid:80");
  const std::vector<std::string> mistakes = FailToReload(proxy, text);
  ASSERT_EQ(mistakes.size(), 1U);
  EXPECT_NE(mistakes[0].find("nowhere.invalid"), std::string::npos) << mistakes[0];
  static_cast<void>(ConnectWebSocket(proxy.port()));
}

TEST(ReloadWarnings, WhatNeedsANewProcessIsNamed) {
  EchoBackend backend;
  Config config{.backends = {backend.port()}, .workers = 2};
  ProxyProcess proxy(config);
  config.workers = 3;
  config.server = "takeover_socket = \"" + proxy.dir().path() + "/t.sock\"";
  config.log = "access = \"text\"\nquery = true\nqueue = 100";
  std::string text = config.Text();
  const std::string admin = "[admin]\naddress = \"127.0.0.1:0\"";
  text.replace(text.find(admin), admin.size(), "[admin]\naddress = \"127.0.0.2:0\"");
  const auto warnings = Reload(proxy, text)["warnings"].get<std::vector<std::string>>();
  EXPECT_EQ(warnings.size(), 6U);
  for (const char* key : {"server.workers", "server.takeover_socket", "admin.address", "log.access",
                          "log.query", "log.queue"}) {
    EXPECT_EQ(std::count_if(warnings.begin(), warnings.end(),
                            [key](const std::string& one) { return one.starts_with(key); }),
              1)
        << key;
    EXPECT_TRUE(proxy.AwaitErr(std::string("reload: ") + key));
  }
  EXPECT_EQ(proxy.Metric("sluice_workers"), 2);
  EXPECT_FALSE(std::filesystem::exists(proxy.dir().path() + "/t.sock"));
  // Told until it is true.
  EXPECT_EQ(Reload(proxy, text)["warnings"].size(), 6U);
}

TEST(ReloadWarnings, IsRefusedWhileTheProcessDrains) {
  EchoBackend backend;
  Config config{.backends = {backend.port()}, .drain = "ready_delay = \"60s\"\nwindow = \"0s\""};
  ProxyProcess proxy(config);
  RawClient session = ConnectWebSocket(proxy.port());
  proxy.Signal(SIGTERM);
  ASSERT_TRUE(proxy.AwaitErr("draining connections="));
  config.route = "path = \"/new\"";
  const std::vector<std::string> mistakes = FailToReload(proxy, config.Text());
  ASSERT_EQ(mistakes.size(), 1U);
  EXPECT_NE(mistakes[0].find("drains"), std::string::npos) << mistakes[0];
  EXPECT_EQ(Get(proxy.port(), "/").status, 200);
  ExpectEcho(session);
  session.Close();
  proxy.Signal(SIGTERM);
  EXPECT_EQ(proxy.Wait(), 0);
}

// Many, and in the middle of something.

TEST(ReloadOften, LeaksNoDescriptorsAndNoMemory) {
  TestCerts certs;
  const CertificateFiles one = certs.Issue({"one.test"});
  const CertificateFiles two = certs.Issue({"two.test"});
  EchoBackend b0;
  EchoBackend b1;
  Config config{.backends = {b0.port()},
                .pool = "slow_start = \"0s\"",
                .drain = "window = \"0s\"\ngrace = \"1s\""};
  const auto text = [&](int round) {
    config.backends.resize(1);
    if (round % 2 == 0) {
      config.backends.push_back(b1.port());
    }
    return config.Text() +
           Listener("secure", "127.0.0.1:0",
                    "tls.certificates = [" + Pair(round % 2 == 0 ? one : two) + "]") +
           (round % 2 == 0 ? Listener("even") : Listener("odd"));
  };
  ProxyProcess proxy(text(0));
  RawClient session = ConnectWebSocket(proxy.port());
  RawClient secure(proxy.port("secure"), TlsClientOptions{.sni = "one.test"});
  EXPECT_EQ(secure.Upgrade().status, 101);
  std::size_t fds = 0;
  std::size_t bytes = 0;
  constexpr int kWarm = 12;
  for (int round = 1; round <= kWarm + 50; ++round) {
    Reload(proxy, text(round));
    EXPECT_NE(ShownName(proxy.port("secure"), ""), "");
    if (round == kWarm) {
      proxy.AwaitMetric("sluice_drain_active{what=\"backend\"}", 0);
      fds = proxy.OpenFds();
      bytes = proxy.ResidentBytes();
    }
  }
  proxy.AwaitMetric("sluice_drain_active{what=\"backend\"}", 0);
  // Workers close what they had a moment later.
  Eventually([&] { return proxy.OpenFds() <= fds; });
  if (!IsSanitized(proxy)) {  // which keeps what is freed, and tells of leaks itself
    EXPECT_LT(proxy.ResidentBytes(), bytes + (3U << 20U))
        << proxy.ResidentBytes() - bytes << " in 50 reloads";
  }
}

TEST(ReloadInBetween, OfAnUpgradeThatIsInFlight) {
  RawBackend backend;
  EchoBackend other;
  Config config{.backends = {backend.port()}, .drain = "window = \"0s\"\ngrace = \"5s\""};
  ProxyProcess proxy(config);
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  Stream leg = backend.Accept();
  static_cast<void>(leg.ReadHead());
  config.route = "path = \"/elsewhere\"\nlimits.max_message_bytes = \"1KiB\"";
  Reload(proxy, config);
  Eventually([&] { return Get(proxy.port(), "/").status == 404; });
  leg.Send(SwitchingProtocols(kKey));
  EXPECT_EQ(client.ReadResponse().status, 101);
  const std::string large(4096, 'x');
  client.SendFrame(kText, large);
  EXPECT_EQ(leg.ReadFrame().payload, large) << "under the limits that it was admitted with";

  // And of one whose backend leaves.
  RawClient second(proxy.port());
  second.Send(UpgradeRequest("/elsewhere"));
  Stream second_leg = backend.Accept();
  static_cast<void>(second_leg.ReadHead());
  std::string text = config.Text();
  const std::string port = std::to_string(backend.port());
  text.replace(text.find(port), port.size(), std::to_string(other.port()));
  const std::string name = "name = \"b0\"";
  text.replace(text.find(name), name.size(), "name = \"c0\"");
  Reload(proxy, text);
  EXPECT_EQ(leg.ReadFrame().close_code(), 1001);
  second_leg.Send(SwitchingProtocols(kKey));
  EXPECT_EQ(second.ReadResponse().status, 101);
  EXPECT_EQ(second_leg.ReadFrame().close_code(), 1001);
  for (Stream* end : {&leg, &second_leg}) {
    end->Send(BackendClose(1001));
  }
  for (RawClient* end : {&client, &second}) {
    EXPECT_EQ(end->ReadFrame().close_code(), 1012);
    end->Send(ClientClose(1012));
    end->ExpectEnd();
  }
}

TEST(ReloadInBetween, OfALargeFrame) {
  RawBackend backend(/*small_buffers=*/true);
  Config config{.backends = {backend.port()}};
  ProxyProcess proxy(config);
  RelayedSession s = OpenSession(proxy, backend);
  const std::string frame = BuildFrame(kBinary, Pattern(8U << 20U));
  std::thread sender([&] { s.client.Send(frame); });
  std::string got = s.backend.ReadSome();
  for (int i = 0; i < 3; ++i) {
    config.route = "limits.max_message_bytes = \"" + std::to_string(i + 1) + "KiB\"";
    Reload(proxy, config);
  }
  while (got.size() < frame.size()) {
    got += s.backend.ReadSome();
  }
  sender.join();
  EXPECT_TRUE(got == frame) << got.size();
  s.backend.Send(BackendFrame(kText, "whole"));
  EXPECT_EQ(s.client.ReadFrame().payload, "whole");
}

}  // namespace
}  // namespace sluice::test
