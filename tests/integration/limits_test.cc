// Proves the limits of clients, routes and the process: each is answered as documented, counted by
// its reason, and harms nobody but who went beyond it.
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"
#include "tests/support/echo_backend.h"

namespace sluice::test {
namespace {

using std::chrono::steady_clock;

std::string Limited(std::string_view reason) {
  return "sluice_rate_limited_total{reason=\"" + std::string(reason) + "\"}";
}

double RetryAfterOf(const HttpMessage& answer) {
  return std::stod(answer.Field("Retry-After"));
}

// Upgrades.

TEST(UpgradesPerIp, BeyondTheRateIs429WithRetryAfter) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .limits = "upgrades_per_ip = 0.1\nupgrades_per_ip_burst = 3\n"});
  for (int i = 0; i < 3; ++i) {
    ConnectWebSocket(proxy.port());
  }
  RawClient fourth(proxy.port());
  const HttpMessage answer = fourth.Upgrade();
  EXPECT_EQ(answer.status, 429);
  EXPECT_GE(RetryAfterOf(answer), 9);   // one in ten seconds
  EXPECT_LE(RetryAfterOf(answer), 15);  // and up to four of jitter
  EXPECT_EQ(backend.accepts(), 3U);
  RawClient other(proxy.port(), ClientOptions{.source = "127.0.0.2"});
  EXPECT_EQ(other.Upgrade().status, 101) << "another address is not concerned";
  proxy.AwaitMetric(Limited("upgrades_per_ip"), 1);
  proxy.AwaitMetric("sluice_upgrades_total{outcome=\"limit\"}", 1);
}

TEST(UpgradesPerIp, PlainRequestsAreNotCounted) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .limits = "upgrades_per_ip = 0.1\nupgrades_per_ip_burst = 1\n"});
  ConnectWebSocket(proxy.port());
  RawClient client(proxy.port());
  client.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 200);
}

TEST(UpgradesPerIp, BehindATrustedProxyTheForwardedAddressCounts) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .server = "trusted_proxies = [\"127.0.0.1/32\"]",
                            .limits = "upgrades_per_ip = 0.1\nupgrades_per_ip_burst = 1\n"
                                      "connections_per_ip = 1\n"});
  const auto upgrade = [&](const std::string& client) {
    RawClient one(proxy.port());
    return one.Upgrade("/", "X-Forwarded-For: " + client + "\r\n").status;
  };
  EXPECT_EQ(upgrade("203.0.113.1"), 101);
  EXPECT_EQ(upgrade("203.0.113.1"), 429);
  EXPECT_EQ(upgrade("203.0.113.2"), 101);
  EXPECT_EQ(upgrade("2001:db8::1"), 101);
  EXPECT_EQ(upgrade("2001:db8::ffff:1"), 429) << "the same /64";
  EXPECT_EQ(upgrade("2001:db8:0:1::1"), 101);
}

TEST(ConnectionsPerIp, OfATrustedProxyAreNotLimited) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .server = "trusted_proxies = [\"127.0.0.1/32\"]",
                            .limits = "connections_per_ip = 1\n"});
  std::vector<RawClient> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(ConnectWebSocket(proxy.port()));
  }
  EXPECT_EQ(proxy.Metric(Limited("connections_per_ip")), 0);
}

TEST(MaxHandshakes, BeyondItIs503UntilOneIsAnswered) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .limits = "max_handshakes = 2\n"});
  RawClient one(proxy.port());
  RawClient two(proxy.port());
  one.Send(UpgradeRequest("/"));
  Stream leg_of_one = backend.Accept();
  const HttpMessage request = leg_of_one.ReadRequest();
  two.Send(UpgradeRequest("/"));
  Stream leg_of_two = backend.Accept();
  static_cast<void>(leg_of_two.ReadRequest());
  RawClient three(proxy.port());
  const HttpMessage answer = three.Upgrade();
  EXPECT_EQ(answer.status, 503);
  EXPECT_GE(RetryAfterOf(answer), 1);
  proxy.AwaitMetric(Limited("handshakes"), 1);
  // One is answered, the other is given up: both make room.
  leg_of_one.Send(SwitchingProtocols(request.Field("Sec-WebSocket-Key")));
  EXPECT_EQ(one.ReadHead().status, 101);
  two.Reset();
  static_cast<void>(leg_of_two.AwaitEnd());
  for (int i = 0; i < 2; ++i) {
    RelayedSession again = OpenSession(proxy, backend);
    again.client.SendFrame(kText, "in");
    EXPECT_EQ(again.backend.ReadFrame().payload, "in");
  }
}

TEST(RouteMaxConnections, BeyondItIs503UntilOneHasLeft) {
  EchoBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .route = "limits.max_connections = 2"});
  RawClient one = ConnectWebSocket(proxy.port());
  RawClient two = ConnectWebSocket(proxy.port());
  RawClient three(proxy.port());
  const HttpMessage answer = three.Upgrade();
  EXPECT_EQ(answer.status, 503);
  EXPECT_GE(RetryAfterOf(answer), 1);
  EXPECT_EQ(backend.accepts(), 2U);
  proxy.AwaitMetric(Limited("route_connections"), 1);
  // A plain request is none of the route's sessions.
  RawClient plain(proxy.port());
  plain.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(plain.ReadResponse().status, 200);
  two.Reset();
  proxy.AwaitMetric("sluice_sessions_open", 1);
  RawClient four = ConnectWebSocket(proxy.port());
  one.SendFrame(kText, "undisturbed");
  EXPECT_EQ(one.ReadFrame().payload, "undisturbed");
}

TEST(RouteMaxConnections, AnUpgradeThatFailsLeavesNothingBehind) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .route = "limits.max_connections = 1"});
  for (int i = 0; i < 3; ++i) {
    RawClient client(proxy.port());
    client.Send(UpgradeRequest("/"));
    Stream leg = backend.Accept();
    static_cast<void>(leg.ReadRequest());
    leg.Send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    EXPECT_EQ(client.ReadHead().status, 401);
  }
  EXPECT_EQ(proxy.Metric(Limited("route_connections")), 0);
}

TEST(RouteMaxConnections, IsKeptAcrossAReload) {
  EchoBackend backend;
  Config config{.backends = {backend.port()}, .route = "limits.max_connections = 2"};
  ProxyProcess proxy(config);
  RawClient one = ConnectWebSocket(proxy.port());
  RawClient two = ConnectWebSocket(proxy.port());
  config.route += "\nretries = 1";
  proxy.Configure(config.Text());
  EXPECT_EQ(proxy.Ask("POST", "/reload").status, 200);
  RawClient three(proxy.port());
  EXPECT_EQ(three.Upgrade().status, 503);
}

// What a client may send.

class RatesTest : public testing::Test {
 protected:
  void Start(const std::string& limits) {
    proxy.emplace(Config{.backends = {backend.port()}, .route = limits});
  }

  RawBackend backend;
  std::optional<ProxyProcess> proxy;
};

TEST_F(RatesTest, MoreMessagesWaitAndNoneIsLost) {
  Start("limits.messages_per_second = 100");
  RelayedSession s = OpenSession(*proxy, backend);
  RelayedSession other = OpenSession(*proxy, backend);
  std::string all;
  for (int i = 0; i < 200; ++i) {
    all += BuildFrame(kText, "message " + std::to_string(i));
  }
  const auto began = steady_clock::now();
  s.client.Send(all);
  EXPECT_TRUE(s.backend.ReadExactly(all.size()) == all);
  // A second's worth comes at once, then the read that went beyond it is paid for.
  EXPECT_GE(steady_clock::now() - began, Millis(300));
  proxy->AwaitMetricAtLeast(Limited("messages"), 1);
  other.client.SendFrame(kText, "not mine");
  EXPECT_EQ(other.backend.ReadFrame().payload, "not mine");
}

TEST_F(RatesTest, MoreBytesWaitAndNoneIsLost) {
  Start("limits.bytes_per_second = \"100KB\"");
  RelayedSession s = OpenSession(*proxy, backend);
  const std::string frame = BuildFrame(kBinary, Pattern(260'000));
  const auto began = steady_clock::now();
  s.client.Send(frame);
  EXPECT_TRUE(s.backend.ReadExactly(frame.size()) == frame);
  EXPECT_GE(steady_clock::now() - began, Millis(300));
  proxy->AwaitMetricAtLeast(Limited("bytes"), 1);
  EXPECT_EQ(proxy->Metric(Limited("messages")), 0);
}

TEST_F(RatesTest, AtTheRateNothingWaits) {
  Start("limits.messages_per_second = 1000\nlimits.bytes_per_second = \"1MB\"");
  RelayedSession s = OpenSession(*proxy, backend);
  for (int i = 0; i < 500; ++i) {
    s.client.SendFrame(kText, "ping-pong");
    ASSERT_EQ(s.backend.ReadFrame().payload, "ping-pong");
  }
  EXPECT_EQ(proxy->Metric(Limited("messages")), 0);
  EXPECT_EQ(proxy->Metric(Limited("bytes")), 0);
}

// A backend may send as much as it likes: it is the client that is not trusted.
TEST_F(RatesTest, ConcernTheClientAlone) {
  Start("limits.messages_per_second = 1\nlimits.control_frames_per_second = 1");
  RelayedSession s = OpenSession(*proxy, backend);
  std::string all;
  for (int i = 0; i < 500; ++i) {
    all += BackendFrame(i % 2 == 0 ? kText : kPing, "message");
  }
  s.backend.Send(all);
  EXPECT_TRUE(s.client.ReadExactly(all.size()) == all);
}

TEST_F(RatesTest, OnLimitCloseEndsTheSessionWith1008) {
  for (const std::string_view limit :
       {"limits.messages_per_second = 10", "limits.bytes_per_second = \"100B\""}) {
    SCOPED_TRACE(limit);
    Start(std::string(limit) + "\nlimits.on_limit = \"close\"");
    RelayedSession s = OpenSession(*proxy, backend);
    std::string all;
    for (int i = 0; i < 100; ++i) {
      all += BuildFrame(kText, "message");
    }
    s.client.Send(all);
    Frame frame = s.backend.ReadFrame();
    while (frame.opcode == kText) {
      frame = s.backend.ReadFrame();
    }
    EXPECT_EQ(frame.close_code(), 1001);
    s.backend.Send(BackendClose(1001));
    EXPECT_EQ(s.client.ReadFrame().close_code(), 1008);
    s.client.Send(ClientClose(1008));
    s.client.ExpectEnd();
    s.client.Close();
    s.backend.Close();
    proxy->AwaitMetric("sluice_own_closes_total{cause=\"rate\"}", 1);
    EXPECT_EQ(proxy->AwaitAccessLog(1)[0]["reason"], "rate");
  }
}

TEST_F(RatesTest, AFloodOfPingsEndsWith1008) {
  Start("limits.control_frames_per_second = 50");
  RelayedSession s = OpenSession(*proxy, backend);
  RelayedSession other = OpenSession(*proxy, backend);
  std::string flood;
  for (int i = 0; i < 1000; ++i) {
    flood += BuildFrame(i % 2 == 0 ? kPing : kPong, "x");
  }
  s.client.Send(flood);
  int passed = 0;
  Frame frame = s.backend.ReadFrame();
  for (; frame.opcode != kClose; frame = s.backend.ReadFrame()) {
    ++passed;
  }
  EXPECT_GE(passed, 50);
  EXPECT_LT(passed, 100);
  EXPECT_EQ(frame.close_code(), 1001);
  s.backend.Send(BackendClose(1001));
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1008);
  s.client.Send(ClientClose(1008));
  s.client.ExpectEnd();
  proxy->AwaitMetric(Limited("control_frames"), 1);
  EXPECT_EQ(proxy->Metric("sluice_torn_total"), 0);
  other.client.SendFrame(kPing, "one is fine");
  EXPECT_EQ(other.backend.ReadFrame().payload, "one is fine");
}

// The answer to our CLOSE comes behind the rest of the flood, which is walked as it comes.
TEST_F(RatesTest, TheEndOfAFloodIsSeen) {
  Start("limits.control_frames_per_second = 50");
  RelayedSession s = OpenSession(*proxy, backend);
  std::string flood;
  for (int i = 0; i < 20'000; ++i) {
    flood += BuildFrame(kPing, std::string(static_cast<std::size_t>(i) % 100, 'x'));
  }
  s.client.Send(flood);
  Frame frame = s.backend.ReadFrame();
  while (frame.opcode == kPing) {
    frame = s.backend.ReadFrame();
  }
  EXPECT_EQ(frame.close_code(), 1001);
  s.backend.Send(BackendClose(1001));
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1008);
  s.client.Send(ClientClose(1008));
  s.client.ExpectEnd();
  s.client.Close();
  s.backend.Close();
  proxy->AwaitMetric("sluice_sessions_open", 0);
  EXPECT_EQ(proxy->Metric("sluice_protocol_errors_total"), 0);
  EXPECT_EQ(proxy->AwaitAccessLog(1)[0]["close_code_client"], 1008);
}

// A pong of ours goes no further, but one that comes again and again is a flood like any other.
TEST_F(RatesTest, AnAnswerThatIsGivenAgainAndAgainIsCounted) {
  Start(
      "heartbeat.client.interval = \"100ms\"\nheartbeat.backend.interval = \"0s\"\n"
      "limits.control_frames_per_second = 50");
  RelayedSession s = OpenSession(*proxy, backend);
  const Frame ping = s.client.ReadFrame();
  ASSERT_EQ(ping.opcode, kPing);
  std::string flood;
  for (int i = 0; i < 200; ++i) {
    flood += BuildFrame(kPong, ping.payload);
  }
  s.client.Send(flood);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  proxy->AwaitMetric(Limited("control_frames"), 1);
}

// By default a hundred a second; data is not counted, nor is what belongs to a message.
TEST_F(RatesTest, ControlFramesBelowTheLimitPassWithTheData) {
  Start("");
  RelayedSession s = OpenSession(*proxy, backend);
  std::string all;
  for (int i = 0; i < 100; ++i) {
    all += BuildFrame(kText, "da", {.fin = false}) + BuildFrame(kPing, "in between") +
           BuildFrame(kContinuation, "ta");
  }
  s.client.Send(all);
  EXPECT_TRUE(s.backend.ReadExactly(all.size()) == all);
}

TEST_F(RatesTest, ADrainOfASessionThatIsHeldBackEndsInOrder) {
  Start("limits.messages_per_second = 1\nlimits.on_limit = \"pause\"");
  RelayedSession s = OpenSession(*proxy, backend);
  s.client.Send(BuildFrame(kText, "a") + BuildFrame(kText, "b") + BuildFrame(kText, "c"));
  proxy->AwaitMetric(Limited("messages"), 1);
  proxy->Signal(SIGTERM);
  Frame frame = s.backend.ReadFrame();
  while (frame.opcode == kText) {
    frame = s.backend.ReadFrame();
  }
  EXPECT_EQ(frame.close_code(), 1001);
  s.backend.Send(BackendClose(1001));
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1012);
  s.client.Send(ClientClose(1012));
  s.client.ExpectEnd();
  s.client.Close();
  s.backend.Close();
  EXPECT_EQ(proxy->Wait(), 0);
}

TEST(MaxFrameBytes, BeyondItIs1009BothWays) {
  RawBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .route = "limits.max_frame_bytes = \"1KB\""});
  RelayedSession s = OpenSession(proxy, backend);
  const std::string fits = BuildFrame(kBinary, Pattern(1000));
  s.client.Send(fits);
  EXPECT_TRUE(s.backend.ReadExactly(fits.size()) == fits);
  s.client.Send(BuildFrame(kBinary, Pattern(1001)).substr(0, 8));
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1009);
  s.backend.Send(BackendClose(1009));
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1009);
  proxy.AwaitMetric("sluice_protocol_errors_total{side=\"client\",reason=\"frame_too_big\"}", 1);
  RelayedSession t = OpenSession(proxy, backend);
  t.backend.Send(BackendFrame(kBinary, Pattern(1001)));
  EXPECT_EQ(t.client.ReadFrame().close_code(), 1009);
}

// Time.

TEST(IdleTimeout, EndsASessionInWhichNothingPasses) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .route = "idle_timeout = \"600ms\"\nheartbeat.interval = \"100ms\""});
  RelayedSession s = OpenSession(proxy, backend);
  const auto began = steady_clock::now();
  // The answers to Sluice's own pings are no traffic.
  Frame frame = s.backend.ReadFrame();
  while (frame.opcode == kPing) {
    s.backend.Send(BackendFrame(kPong, frame.payload));
    frame = s.backend.ReadFrame();
  }
  const auto took = steady_clock::now() - began;
  EXPECT_EQ(frame.close_code(), 1001);
  EXPECT_GE(took, Millis(550));
  EXPECT_LT(took, Millis(600 + 75 + 500));
  s.backend.Send(BackendClose(1001));
  Frame at_client = s.client.ReadFrame();
  while (at_client.opcode == kPing) {
    at_client = s.client.ReadFrame();
  }
  EXPECT_EQ(at_client.close_code(), 1001);
  EXPECT_EQ(at_client.close_reason(), "idle timeout");
  s.client.Send(ClientClose(1001));
  proxy.AwaitMetric("sluice_own_closes_total{cause=\"idle\"}", 1);
}

TEST(IdleTimeout, SparesASessionThatSaysSomething) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .server = "close_timeout = \"300ms\"",
                            .route = "idle_timeout = \"500ms\"\nheartbeat.interval = \"0s\""});
  RelayedSession s = OpenSession(proxy, backend);
  const auto until = steady_clock::now() + Millis(1500);
  while (steady_clock::now() < until) {
    s.backend.Send(BackendFrame(kText, "tick"));
    ASSERT_EQ(s.client.ReadFrame().payload, "tick");
    ASSERT_FALSE(s.client.HasInput(Millis(100)));
  }
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1001);
}

TEST(OnSlow, CloseEndsAClientThatDoesNotKeepUp) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .server = "close_timeout = \"400ms\"",
                            .route = "on_slow = \"close\"\nslow_timeout = \"500ms\"\n"
                                     "heartbeat.interval = \"0s\"",
                            .drain = "window = \"0s\"\nmessage_grace = \"200ms\""});
  RelayedSession s = OpenSession(proxy, backend, {.small_buffers = true});
  RelayedSession other = OpenSession(proxy, backend);
  const std::string stream = BackendFrame(kBinary, Pattern(8'000'000));
  std::size_t sent = 0;
  const Deadline deadline;
  while (proxy.Metric("sluice_own_closes_total{cause=\"slow\"}") == 0) {
    ASSERT_FALSE(deadline.passed());
    sent += s.backend.SendSome(std::string_view(stream).substr(sent));
  }
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  proxy.AwaitMetric("sluice_sessions_open", 1);  // cut: it does not even take the CLOSE
  other.backend.Send(BackendFrame(kText, "undisturbed"));
  EXPECT_EQ(other.client.ReadFrame().payload, "undisturbed");
}

TEST(OnSlow, CloseSparesAClientThatCatchesUp) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .route = "on_slow = \"close\"\nslow_timeout = \"2s\"\n"
                                     "heartbeat.interval = \"0s\""});
  RelayedSession s = OpenSession(proxy, backend, {.small_buffers = true});
  std::string stream;
  for (unsigned i = 0; i < 60; ++i) {
    stream += BackendFrame(kBinary, Pattern(100'000, i));
  }
  std::size_t sent = 0;
  std::size_t got = 0;
  const Deadline deadline;
  while (got < stream.size()) {
    ASSERT_FALSE(deadline.passed());
    sent += s.backend.SendSome(std::string_view(stream).substr(sent));
    if (proxy.Metric("sluice_backpressure_pauses_total{side=\"backend\"}") >= 1 ||
        sent == stream.size()) {
      const std::size_t some = std::min<std::size_t>(sent - got, 500'000);
      ASSERT_TRUE(s.client.ReadExactly(some) == stream.substr(got, some));
      got += some;
    }
  }
  EXPECT_EQ(proxy.Metric("sluice_own_closes_total{cause=\"slow\"}"), 0);
}

// Memory.

TEST(MaxBuffered, RefusesUpgradesWhileItIsExceededAndServesWhoIsThere) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .workers = 1,
                            .limits = "max_buffered = \"1MiB\"\nout_buffer = \"8MiB\"\n",
                            .route = "heartbeat.interval = \"0s\""});
  RelayedSession slow = OpenSession(proxy, backend, {.small_buffers = true});
  RelayedSession quick = OpenSession(proxy, backend);
  // Small frames: large ones would wait in the kernel.
  std::string stream;
  for (unsigned i = 0; i < 8000; ++i) {
    stream += BackendFrame(kBinary, Pattern(1000, i));
  }
  std::size_t sent = 0;
  const Deadline deadline;
  while (proxy.Metric("sluice_backpressure_pauses_total{side=\"backend\"}") == 0) {
    ASSERT_FALSE(deadline.passed());
    sent += slow.backend.SendSome(std::string_view(stream).substr(sent));
  }
  RawClient next(proxy.port());
  const HttpMessage answer = next.Upgrade();
  EXPECT_EQ(answer.status, 503);
  EXPECT_GE(RetryAfterOf(answer), 1);
  EXPECT_GE(proxy.Metric(Limited("memory")), 1);
  const std::string frame = BackendFrame(kBinary, Pattern(300'000));
  quick.backend.Send(frame);
  EXPECT_TRUE(quick.client.ReadExactly(frame.size()) == frame);
  // What was accepted is not lost, and with it gone there is room again.
  EXPECT_TRUE(slow.client.ReadExactly(sent) == stream.substr(0, sent));
  RelayedSession late = OpenSession(proxy, backend);
  late.client.SendFrame(kText, "in");
  EXPECT_EQ(late.backend.ReadFrame().payload, "in");
}

// Descriptors.

bool HasUbsan(const ProxyProcess& proxy) {
  std::ifstream file("/proc/" + std::to_string(proxy.pid()) + "/maps");
  const std::string maps{std::istreambuf_iterator<char>(file), {}};
  return maps.find("libubsan") != std::string::npos;
}

TEST(OutOfDescriptors, WhoIsThereGoesOnAndTheAdminAddressAnswers) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}, .limits = "max_connections = 10000\n"});
  RelayedSession s = OpenSession(proxy, backend);
  if (HasUbsan(proxy)) {
    // It makes a pipe to look at an object, and takes that it cannot for a broken object.
    EXPECT_TRUE(proxy.running());
    return;
  }
  const rlimit low{static_cast<rlim_t>(proxy.OpenFds()) + 4, 20'000};
  ASSERT_EQ(::prlimit(proxy.pid(), RLIMIT_NOFILE, &low, nullptr), 0);
  std::vector<RawClient> clients;
  for (int i = 0; i < 100; ++i) {
    clients.emplace_back(proxy.port());
  }
  // Asked through a connection of its own each time.
  proxy.AwaitMetricAtLeast("sluice_accept_paused_total{reason=\"emfile\"}", 1);
  EXPECT_GE(proxy.Metric("process_open_fds"), static_cast<double>(low.rlim_cur) - 4);
  s.client.SendFrame(kText, "undisturbed");
  EXPECT_EQ(s.backend.ReadFrame().payload, "undisturbed");
  clients.clear();
  const rlimit high{10'000, 20'000};
  ASSERT_EQ(::prlimit(proxy.pid(), RLIMIT_NOFILE, &high, nullptr), 0);
  const auto freed = steady_clock::now();
  RelayedSession late = OpenSession(proxy, backend);
  EXPECT_LT(steady_clock::now() - freed, Millis(500));
}

// The lowest one that is free.
rlim_t NextDescriptor(const ProxyProcess& proxy) {
  rlim_t next = 0;
  while (std::filesystem::is_symlink("/proc/" + std::to_string(proxy.pid()) + "/fd/" +
                                     std::to_string(next))) {
    ++next;
  }
  return next;
}

// Idle connections to backends go before a request is refused.
TEST(OutOfDescriptors, AnAuthServerIsAskedAllTheSame) {
  constexpr std::string_view kAsk = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  constexpr std::string_view kDeny = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
  RawBackend backend;
  RawBackend auth;
  ProxyProcess proxy(
      Config{.backends = {backend.port()},
             .workers = 1,
             .route = "auth.url = \"http://127.0.0.1:" + std::to_string(auth.port()) + "\""});
  RawClient first(proxy.port());
  RawClient second(proxy.port());
  first.Send(kAsk);
  Stream check = auth.Accept();
  static_cast<void>(check.ReadRequest());
  check.Send("HTTP/1.1 204 No Content\r\n\r\n");
  Stream idle = backend.Accept();
  static_cast<void>(idle.ReadRequest());
  idle.Send("HTTP/1.1 204 No Content\r\n\r\n");
  EXPECT_EQ(first.ReadResponse().status, 204);
  first.Send(kAsk);
  static_cast<void>(check.ReadRequest());  // so this connection is not idle
  if (HasUbsan(proxy)) {
    EXPECT_TRUE(proxy.running());
    return;
  }
  const rlimit low{NextDescriptor(proxy), 20'000};
  ASSERT_EQ(::prlimit(proxy.pid(), RLIMIT_NOFILE, &low, nullptr), 0);
  second.Send(kAsk);
  Stream other = auth.Accept();
  static_cast<void>(other.ReadRequest());
  static_cast<void>(idle.AwaitEnd());
  other.Send(kDeny);
  EXPECT_EQ(second.ReadResponse().status, 403);
  check.Send(kDeny);
  EXPECT_EQ(first.ReadResponse().status, 403);
}

}  // namespace
}  // namespace sluice::test
