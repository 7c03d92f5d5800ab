// Proves the health of backends, active and passive: what each kind of check finds out, that a
// backend that is down or ejected gets nothing new, what becomes of its sessions, and that its
// clients come home when it is back.
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"
#include "tests/support/echo_backend.h"

namespace sluice::test {
namespace {

using nlohmann::json;

// `sluice echo` in a process of its own, which can be halted and killed.
class EchoProcess {
 public:
  explicit EchoProcess(const std::string& name)
      : process_({"echo", "--listen", "127.0.0.1:0", "--name", name}) {
    constexpr std::string_view kAddress = "address=127.0.0.1:";
    if (!process_.AwaitErr(kAddress)) {
      throw Failure("the echo backend does not say where it listens");
    }
    const std::string said = process_.err();
    port_ =
        static_cast<std::uint16_t>(std::stoi(said.substr(said.find(kAddress) + kAddress.size())));
  }

  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }
  void Halt() const { process_.Stop(); }
  void GoOn() const { process_.Continue(); }
  void Kill() {
    process_.Signal(SIGKILL);
    EXPECT_TRUE(process_.Wait());
  }

 private:
  ProxyProcess process_;
  std::uint16_t port_ = 0;
};

// Answers each request with what `answer` makes of it; "" leaves it without an answer. Says no more
// after that and leaves the end to the peer.
class AnsweringBackend {
 public:
  using Answer = std::function<std::string(const HttpMessage& request)>;

  explicit AnsweringBackend(Answer answer)
      : answer_(std::move(answer)), thread_([this] { Run(); }) {}
  ~AnsweringBackend() {
    stop_ = true;
    thread_.join();
  }
  AnsweringBackend(const AnsweringBackend&) = delete;
  AnsweringBackend& operator=(const AnsweringBackend&) = delete;

  [[nodiscard]] std::uint16_t port() const noexcept { return raw_.port(); }

 private:
  void Run() {
    std::vector<Stream> held;
    while (!stop_) {
      if (!raw_.HasConnection(Millis(5))) {
        continue;
      }
      held.push_back(raw_.Accept());
      try {
        held.back().Send(answer_(held.back().ReadHead()));
      } catch (const Failure&) {
        held.pop_back();  // the proxy has left
      }
    }
  }

  RawBackend raw_;
  Answer answer_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

std::string WrongAccept(const HttpMessage&) {
  return SwitchingProtocols("another key");
}

// Quick checks that a loaded machine does not fail. Back means back at once.
std::string Checks(std::string_view type) {
  return "slow_start = \"0s\"\nhealth = { type = \"" + std::string(type) +
         "\", path = \"/whoami\", interval = \"100ms\", timeout = \"300ms\", rise = 1, fall = 2 "
         "}\n";
}

std::string Of(std::string_view name, int backend) {
  return "sluice_" + std::string(name) + "{backend=\"b" + std::to_string(backend) + "\"}";
}

json HealthOf(const ProxyProcess& proxy, int backend) {
  return proxy.AskJson("GET", "/backends/app/b" + std::to_string(backend))["health"];
}

// Active checks.

TEST(BackendCheck, FindsOutWhatIsWrongWithEachBackend) {
  EchoBackend good;
  const ClosedPort closed;
  AnsweringBackend bad([](const HttpMessage& request) -> std::string {
    const std::string key = request.Field("Sec-WebSocket-Key");
    if (request.target == "/500") {
      return "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n";
    }
    if (request.target == "/200") {
      return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    }
    if (request.target == "/wrong") {
      return WrongAccept(request);
    }
    if (request.target == "/mute") {
      return SwitchingProtocols(key);
    }
    return request.target == "/hang" ? ""
                                     : SwitchingProtocols(key, "Sec-WebSocket-Protocol: x\r\n");
  });
  struct Case {
    std::string_view pool;
    std::uint16_t port;
    std::string_view check;
    std::string_view error;  // empty: it is up
  };
  const Case cases[] = {
      {"tcp-good", good.port(), "type = \"tcp\"", ""},
      {"http-good", good.port(), "type = \"http\", status = 200", ""},
      {"ws-good", good.port(), "type = \"websocket\"", ""},
      {"ws-ping-good", good.port(), "type = \"websocket\", ping = true", ""},
      {"refused", closed.port(), "type = \"tcp\"", "connect: Connection refused"},
      {"http-500", bad.port(), "type = \"http\", path = \"/500\"", "answered 500"},
      {"http-hang", bad.port(), "type = \"http\", path = \"/hang\"", "no answer in time"},
      {"ws-200", bad.port(), "type = \"websocket\", path = \"/200\"", "answered 200 to an upgrade"},
      {"ws-wrong", bad.port(), "type = \"websocket\", path = \"/wrong\"",
       "the backend's Sec-WebSocket-Accept does not match the key"},
      {"ws-unasked", bad.port(), "type = \"websocket\", path = \"/unasked\"",
       "the backend chose a subprotocol that was not offered"},
      {"ws-mute", bad.port(), "type = \"websocket\", path = \"/mute\"",
       "no answer to CLOSE in time"},
      {"ws-no-pong", bad.port(), "type = \"websocket\", path = \"/mute\", ping = true",
       "no pong in time"},
  };
  std::string pools;
  for (const Case& one : cases) {
    pools += "[pool." + std::string(one.pool) + "]\nbackends = [{ name = \"b\", address = " +
             "\"127.0.0.1:" + std::to_string(one.port) + "\" }]\nhealth = { " +
             std::string(one.check) + ", host = \"check.test\", interval = \"100ms\", timeout = " +
             (one.error.empty() ? "\"5s\"" : "\"150ms\"") + ", fall = 2 }\n";
  }
  ProxyProcess proxy(Config{.backends = {good.port()}, .more = pools});
  for (const Case& one : cases) {
    const std::string pool(one.pool);
    const std::string labels = "{pool=\"" + pool + "\"}";
    const std::string checks = "sluice_health_checks_total{pool=\"" + pool + "\",result=\"";
    if (one.error.empty()) {
      proxy.AwaitMetricAtLeast(checks + "ok\"}", 2);
      EXPECT_EQ(proxy.Metric(checks + "failed\"}"), 0) << pool;
      EXPECT_EQ(proxy.Metric("sluice_backend_up" + labels), 1) << pool;
      const json health = proxy.AskJson("GET", "/backends/" + pool + "/b")["health"];
      EXPECT_EQ(health["state"], "up") << pool;
      EXPECT_TRUE(health["last_error"].is_null()) << pool << health;
    } else {
      proxy.AwaitMetric("sluice_backend_up" + labels, 0);
      EXPECT_GE(proxy.Metric(checks + "failed\"}"), 2) << pool;
      EXPECT_EQ(proxy.Metric(checks + "ok\"}"), 0) << pool;
      const json health = proxy.AskJson("GET", "/backends/" + pool + "/b")["health"];
      EXPECT_EQ(health["state"], "down") << pool;
      EXPECT_EQ(health["last_error"], one.error) << pool;
      EXPECT_TRUE(proxy.AwaitErr("backend down pool=" + pool + " backend=b reason=\"" +
                                 std::string(one.error) + "\""))
          << pool;
    }
  }
  // As it was asked for, and closed in order each time.
  EXPECT_TRUE(good.AwaitCloses(2));
  for (const HttpMessage& head : good.heads()) {
    EXPECT_EQ(head.Field("Host"), "check.test");
    EXPECT_EQ(head.target, "/");
  }
  for (const std::uint16_t code : good.closes()) {
    EXPECT_EQ(code, 1000);
  }
}

// Two echo processes behind affinity by a header.
class HomeTest : public testing::Test {
 protected:
  explicit HomeTest(std::string_view on_down = "keep")
      : proxy(Config{.backends = {b0.port(), b1.port()},
                     .server = "close_timeout = \"200ms\"",
                     .route = "affinity = \"header:X-Key\"",
                     .pool = Checks("websocket") + "bounded_load = 0\non_down = \"" +
                             std::string(on_down) + "\""}) {}

  static std::string KeyField(int key) { return "X-Key: " + std::to_string(key) + "\r\n"; }

  // Which backend answers each of 20 keys.
  std::vector<std::string> Homes() const {
    std::vector<std::string> homes;
    RawClient client(proxy.port());
    for (int key = 0; key < 20; ++key) {
      client.Send("GET /whoami HTTP/1.1\r\nHost: x\r\n" + KeyField(key) + "\r\n");
      const HttpMessage answer = client.ReadResponse();
      EXPECT_EQ(answer.status, 200);
      homes.push_back(answer.body.find("one") != std::string::npos ? "one" : "two");
    }
    return homes;
  }

  // A session of a key whose home is `backend`.
  RawClient ClientOf(const std::string& backend) const {
    const std::vector<std::string> homes = Homes();
    for (int key = 0; key < 20; ++key) {
      if (homes[static_cast<std::size_t>(key)] == backend) {
        return ConnectWebSocket(proxy.port(), "/", KeyField(key));
      }
    }
    throw Failure("no key has its home at " + backend);
  }

  void HaltFirst() {
    b0.Halt();
    proxy.AwaitMetric(Of("backend_up", 0), 0);
  }
  void FirstGoesOn() {
    b0.GoOn();
    proxy.AwaitMetric(Of("backend_up", 0), 1);
  }

  EchoProcess b0{"one"};
  EchoProcess b1{"two"};
  ProxyProcess proxy;
};

class HomeDrainTest : public HomeTest {
 protected:
  HomeDrainTest() : HomeTest("drain") {}
};

TEST_F(HomeTest, ABackendThatHangsGetsNothingNewAndItsClientsComeHomeAfterwards) {
  const std::vector<std::string> homes = Homes();
  EXPECT_NE(std::count(homes.begin(), homes.end(), "one"), 0);
  EXPECT_NE(std::count(homes.begin(), homes.end(), "two"), 0);
  RawClient stays = ClientOf("one");

  for (int round = 0; round < 2; ++round) {
    HaltFirst();
    EXPECT_EQ(Homes(), std::vector<std::string>(20, "two"));
    EXPECT_EQ(HealthOf(proxy, 0)["last_error"], "no answer in time");
    EXPECT_EQ(proxy.Metric(Of("backend_draining", 0)), 0);
    FirstGoesOn();
    EXPECT_EQ(Homes(), homes);
    EXPECT_EQ(HealthOf(proxy, 0)["state"], "up");
  }
  // Its sessions have waited.
  stays.SendFrame(kText, "still there");
  EXPECT_EQ(stays.ReadFrame().payload, "still there");
  EXPECT_TRUE(proxy.AwaitErr("backend up pool=app backend=b0"));
}

TEST_F(HomeDrainTest, MayBeEmptiedWhileItIsDown) {
  const std::vector<std::string> homes = Homes();
  RawClient moves = ClientOf("one");
  HaltFirst();
  EXPECT_EQ(proxy.Metric(Of("backend_draining", 0)), 1);
  EXPECT_EQ(moves.ReadFrame().close_code(), 1012);
  // Another process finds out by itself, and does not take this for a drain that somebody ordered.
  const Predecessor before = proxy.TakeOver();
  proxy.AwaitMetric(Of("backend_draining", 0), 1);
  FirstGoesOn();
  EXPECT_EQ(proxy.Metric(Of("backend_draining", 0)), 0);
  EXPECT_EQ(Homes(), homes);
}

TEST_F(HomeDrainTest, LeavesADrainThatSomebodyOrderedAlone) {
  static_cast<void>(proxy.AskJson("POST", "/backends/app/b0/drain", 202));
  HaltFirst();
  FirstGoesOn();
  EXPECT_EQ(proxy.Metric(Of("backend_draining", 0)), 1);
  EXPECT_EQ(Homes(), std::vector<std::string>(20, "two"));
}

// Checks that are wrong about one backend are wrong about all.
constexpr std::string_view kWrongChecks =
    "slow_start = \"0s\"\nhealth = { type = \"http\", status = 204, interval = \"100ms\", rise = "
    "1, "
    "fall = 1 }\n";

TEST(Panic, ChecksThatFailEverywhereKeepNobodyOut) {
  EchoBackend one("one");
  EchoBackend two("two");
  ProxyProcess proxy(Config{.backends = {one.port(), two.port()},
                            .pool = std::string(kWrongChecks) + "on_down = \"drain\""});
  RawClient early = ConnectWebSocket(proxy.port());
  proxy.AwaitMetric("sluice_backend_up", 0);
  RawClient late = ConnectWebSocket(proxy.port());
  late.SendFrame(kText, "served");
  EXPECT_EQ(late.ReadFrame().payload, "served");
  EXPECT_GE(proxy.Metric("sluice_picks_total{how=\"panic\"}"), 1);
  EXPECT_LE(proxy.Metric("sluice_backend_draining"), 1) << "the last one is not emptied";
}

TEST(Panic, MayBeToRefuse) {
  EchoBackend one("one");
  EchoBackend two("two");
  ProxyProcess proxy(Config{.backends = {one.port(), two.port()},
                            .pool = std::string(kWrongChecks) + "panic = \"refuse\""});
  proxy.AwaitMetric("sluice_backend_up", 0);
  RawClient client(proxy.port());
  const HttpMessage answer = client.Upgrade();
  EXPECT_EQ(answer.status, 503);
  EXPECT_TRUE(answer.Has("Retry-After"));
  EXPECT_EQ(proxy.Metric("sluice_picks_total{how=\"panic\"}"), 0);
}

TEST(BackendCheck, AReloadWithoutChecksTakesTheVerdictBack) {
  EchoBackend good;
  const ClosedPort closed;
  Config config{.backends = {closed.port(), good.port()}, .pool = Checks("tcp")};
  ProxyProcess proxy(config);
  proxy.AwaitMetric(Of("backend_up", 0), 0);

  // Other checks begin with the verdict that holds.
  config.pool = Checks("http");
  proxy.Configure(config);
  static_cast<void>(proxy.AskJson("POST", "/reload"));
  EXPECT_EQ(proxy.Metric(Of("backend_up", 0)), 0);
  const std::size_t before = good.accepts();
  ASSERT_TRUE(good.AwaitAccepts(before + 1));

  config.pool.clear();
  proxy.Configure(config);
  static_cast<void>(proxy.AskJson("POST", "/reload"));
  EXPECT_EQ(proxy.Metric(Of("backend_up", 0)), 1);
  EXPECT_TRUE(HealthOf(proxy, 0)["last_error"].is_null());
}

// Ejection.

// Answers of upgrades until `done`; throws when that does not come.
std::map<int, int> UpgradeUntil(const ProxyProcess& proxy, const std::function<bool()>& done) {
  std::map<int, int> answers;
  const Deadline deadline;
  while (!done()) {
    if (deadline.passed()) {
      throw Failure("upgrades go on and nothing changes");
    }
    ++answers[RawClient(proxy.port()).Upgrade().status];
  }
  return answers;
}

std::string Ejecting(std::string_view outlier) {
  return "balance = \"round_robin\"\nslow_start = \"0s\"\noutlier = { " + std::string(outlier) +
         " }\n";
}

TEST(Ejection, KeepsNewSessionsAwayAfterBadAnswersInARow) {
  AnsweringBackend bad(WrongAccept);
  EchoBackend good;
  ProxyProcess proxy(Config{.backends = {bad.port(), good.port()},
                            .pool = Ejecting("failures = 3, ejection_time = \"1m\"")});
  EXPECT_EQ(proxy.Metric(Of("backend_ejected", 0)), 0);
  EXPECT_EQ(proxy.Metric(Of("backend_ejections_total", 0)), 0);
  const auto answers =
      UpgradeUntil(proxy, [&] { return proxy.Metric(Of("backend_ejected", 0)) == 1; });
  EXPECT_EQ(answers.at(502), 3);
  EXPECT_EQ(proxy.Metric(Of("backend_up", 0)), 0);
  EXPECT_EQ(proxy.Metric(Of("backend_ejections_total", 0)), 1);
  const json health = HealthOf(proxy, 0);
  EXPECT_EQ(health["state"], "ejected");
  EXPECT_EQ(health["last_error"], "3 failures in a row, the last one: bad_answer");
  EXPECT_TRUE(proxy.AwaitErr("backend ejected pool=app backend=b0 reason=bad_answer"));
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(RawClient(proxy.port()).Upgrade().status, 101);
  }

  // It is the operator's word that this backend should go on alone.
  EXPECT_EQ(proxy.Ask("POST", "/backends/app/b1/drain").status, 409);
  static_cast<void>(proxy.AskJson("POST", "/backends/app/b1/drain?force=true", 202));
  EXPECT_EQ(proxy.Metric(Of("backend_ejected", 0)), 0) << "the pool has nobody else";
}

// An answer that is malformed from its first piece on is none, however good its head is.
TEST(Ejection, CountsAnswersWhoseContentIsMalformed) {
  AnsweringBackend bad([](const HttpMessage&) {
    return std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nzz\r\n");
  });
  ProxyProcess proxy(Config{.backends = {bad.port(), bad.port()},
                            .pool = Ejecting("failures = 3, ejection_time = \"1m\"")});
  const Deadline deadline;
  while (proxy.Metric("sluice_backend_ejected") == 0 && !deadline.passed()) {
    RawClient client(proxy.port());
    client.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(client.ReadResponse().status, 502);
  }
  EXPECT_EQ(proxy.Metric("sluice_backend_ejected"), 1);
  EXPECT_EQ(proxy.AwaitAccessLog(1).at(0)["bytes_out"], 0) << "of its content nothing went out";
}

TEST(Ejection, LastsLongerEachTimeAndEndsByItself) {
  AnsweringBackend bad(WrongAccept);
  EchoBackend good;
  ProxyProcess proxy(Config{
      .backends = {bad.port(), good.port()},
      .pool = Ejecting("failures = 2, ejection_time = \"100ms\", max_ejection_time = \"200ms\"")});
  UpgradeUntil(proxy, [&] { return proxy.Metric(Of("backend_ejections_total", 0)) == 3; });
  for (const char* length : {"100", "200"}) {
    EXPECT_TRUE(proxy.AwaitErr("backend ejected pool=app backend=b0 reason=bad_answer for_ms=" +
                               std::string(length)))
        << proxy.err();
  }
  EXPECT_TRUE(proxy.AwaitErr("backend back pool=app backend=b0"));
  proxy.AwaitMetric(Of("backend_up", 0), 1);
}

TEST(Ejection, KeepsToItsShareOfThePool) {
  AnsweringBackend bad(WrongAccept);
  EchoBackend good;
  ProxyProcess proxy(Config{.backends = {bad.port(), bad.port(), bad.port(), good.port()},
                            .pool = Ejecting("failures = 2, ejection_time = \"1m\"")});
  UpgradeUntil(proxy, [&] { return proxy.Metric("sluice_backend_ejected") == 2; });
  // The third one fails on, and stays.
  int failed = 0;
  while (failed < 6) {
    failed += RawClient(proxy.port()).Upgrade().status == 502 ? 1 : 0;
  }
  EXPECT_EQ(proxy.Metric("sluice_backend_ejected"), 2);
  EXPECT_EQ(proxy.Metric("sluice_backend_ejections_total"), 2);
}

TEST(Ejection, NeverTakesTheLastBackend) {
  AnsweringBackend bad(WrongAccept);
  ProxyProcess proxy(
      Config{.backends = {bad.port(), bad.port()},
             .pool = Ejecting("failures = 1, ejection_time = \"1m\", max_ejected = 1")});
  UpgradeUntil(proxy, [&] { return proxy.Metric("sluice_backend_ejected") == 1; });
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(RawClient(proxy.port()).Upgrade().status, 502) << "asked, not out of service";
  }
  EXPECT_EQ(proxy.Metric("sluice_backend_ejected"), 1);
}

TEST(Ejection, AProcessThatTakesItsSessionsWithItIsOneEvent) {
  EchoProcess b0("one");
  EchoBackend b1;
  ProxyProcess proxy(Config{.backends = {b0.port(), b1.port()},
                            .pool = Ejecting("failures = 3, ejection_time = \"1m\"")});
  std::vector<RawClient> clients;
  for (int i = 0; i < 40; ++i) {
    clients.push_back(ConnectWebSocket(proxy.port()));
  }
  proxy.AwaitMetric("sluice_sessions_open{backend=\"b0\"}", 20);
  b0.Kill();
  proxy.AwaitMetric("sluice_backend_failures_total{backend=\"b0\",reason=\"lost\"}", 20);
  EXPECT_EQ(proxy.Metric("sluice_backend_ejections_total"), 0);
  // While nobody listens there, newcomers go elsewhere; after a few it is not even tried.
  const auto answers =
      UpgradeUntil(proxy, [&] { return proxy.Metric(Of("backend_ejected", 0)) == 1; });
  EXPECT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers.count(101), 1U);
  EXPECT_TRUE(proxy.AwaitErr("backend ejected pool=app backend=b0 reason=refused"));
}

TEST(Ejection, FollowsSessionsThatAreLostAgainAndAgain) {
  RawBackend b0;
  RawBackend b1;
  ProxyProcess proxy(Config{.backends = {b0.port(), b1.port()},
                            .pool = Ejecting("failures = 2, ejection_time = \"1m\"")});
  const Deadline deadline;
  while (proxy.Metric("sluice_backend_ejections_total") == 0) {
    ASSERT_FALSE(deadline.passed());
    RawClient client(proxy.port());
    client.Send(UpgradeRequest());
    RawBackend& chosen = AwaitAny({&b0, &b1}) == 0 ? b0 : b1;
    Stream session = chosen.AcceptWebSocket();
    EXPECT_EQ(client.ReadHead().status, 101);
    session.Reset();
    EXPECT_EQ(client.ReadFrame().close_code(), 1012);
  }
  EXPECT_TRUE(proxy.AwaitErr("reason=lost for_ms=60000"));
}

TEST(Ejection, IsOffWhereNoFailuresCount) {
  AnsweringBackend bad(WrongAccept);
  EchoBackend good;
  ProxyProcess proxy(
      Config{.backends = {bad.port(), good.port()}, .pool = Ejecting("failures = 0")});
  int failed = 0;
  while (failed < 10) {
    failed += RawClient(proxy.port()).Upgrade().status == 502 ? 1 : 0;
  }
  EXPECT_EQ(proxy.Metric("sluice_backend_ejections_total"), 0);
}

}  // namespace
}  // namespace sluice::test
