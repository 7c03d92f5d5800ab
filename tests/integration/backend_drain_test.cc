// Proves the drain of one backend over the admin API: what is open there is closed, paced, within
// the window; nothing new goes there; what else is open stays; and the way back.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"
#include "tests/support/echo_backend.h"

namespace sluice::test {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;

// Sessions alternate between the backends, also right after one has come back.
constexpr const char* kInTurn = "balance = \"round_robin\"\nslow_start = \"0s\"";

constexpr const char* kB0 = "/backends/app/b0";
constexpr const char* kDrainB0 = "/backends/app/b0/drain";

double SecondsSince(steady_clock::time_point began) {
  return std::chrono::duration<double>(steady_clock::now() - began).count();
}

std::vector<RawClient> OpenSessions(const ProxyProcess& proxy, std::size_t count) {
  std::vector<RawClient> clients;
  for (std::size_t i = 0; i < count; ++i) {
    clients.push_back(ConnectWebSocket(proxy.port()));
  }
  return clients;
}

// Answers CLOSE frames as they come until `count` have; returns when each did, in seconds since
// `began`. The sessions that got one are closed.
std::vector<double> AnswerCloses(std::vector<RawClient>& clients, std::size_t count,
                                 steady_clock::time_point began) {
  std::vector<double> seconds;
  const Deadline deadline;
  while (seconds.size() < count) {
    if (deadline.passed()) {
      throw Failure("only " + std::to_string(seconds.size()) + " sessions were closed");
    }
    for (RawClient& client : clients) {
      if (client.open() && client.HasInput(Millis(0))) {
        EXPECT_EQ(client.ReadFrame().close_code(), 1012);
        seconds.push_back(SecondsSince(began));
        client.Send(ClientClose(1012));
        client.Close();
      }
    }
  }
  return seconds;
}

bool AnyHasInput(std::vector<RawClient>& clients, Millis patience) {
  const Deadline deadline(patience);
  while (!deadline.passed()) {
    for (RawClient& client : clients) {
      if (client.open() && client.HasInput(Millis(1))) {
        return true;
      }
    }
  }
  return false;
}

json AwaitDrainState(const ProxyProcess& proxy, const std::string& state) {
  const Deadline deadline;
  for (;;) {
    json backend = proxy.AskJson("GET", kB0);
    if (!backend["drain"].is_null() && backend["drain"]["state"] == state) {
      return backend;
    }
    if (deadline.passed()) {
      throw Failure("the drain is not " + state + ": " + backend.dump());
    }
  }
}

TEST(BackendDrain, SpreadsTheClosesAndLeavesOtherBackendsAlone) {
  constexpr std::size_t kEach = 100;
  EchoBackend b0;
  EchoBackend b1;
  ProxyProcess proxy(Config{.backends = {b0.port(), b1.port()},
                            .pool = kInTurn,
                            .drain = "window = \"60s\"\ngrace = \"5s\""});
  std::vector<RawClient> clients = OpenSessions(proxy, 2 * kEach);
  ASSERT_TRUE(b0.AwaitOpen(kEach));
  ASSERT_TRUE(b1.AwaitOpen(kEach));
  proxy.AwaitMetric("sluice_sessions_open", 2 * kEach);

  const auto began = steady_clock::now();
  const json answer = proxy.AskJson("POST", std::string(kDrainB0) + "?window=2s", 202);
  EXPECT_EQ(answer["draining"], true);
  EXPECT_EQ(answer["drain"]["state"], "draining");
  EXPECT_EQ(answer["drain"]["window_seconds"], 2);
  EXPECT_EQ(answer["drain"]["total"], kEach) << "before the workers have been to it, too";
  EXPECT_EQ(answer["drain"]["remaining"], kEach);
  EXPECT_EQ(proxy.Metric("sluice_backend_draining{backend=\"b0\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_backend_draining{backend=\"b1\"}"), 0);
  EXPECT_EQ(proxy.Metric("sluice_drain_active{what=\"backend\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_drain_active{what=\"process\"}"), 0);

  // Newcomers go to the other one from the answer on.
  const std::size_t accepts = b0.accepts();
  std::vector<RawClient> newcomers = OpenSessions(proxy, 10);
  EXPECT_EQ(b0.accepts(), accepts);
  ASSERT_TRUE(b1.AwaitAccepts(kEach + 10));

  const std::vector<double> seconds = AnswerCloses(clients, kEach, began);
  // In the first tenth of the window the rate rises from nothing: about 5 of 100 are due there,
  // half of what an even pace would close.
  EXPECT_LE(std::count_if(seconds.begin(), seconds.end(), [](double at) { return at < 0.2; }), 12);
  for (int quarter = 0; quarter < 4; ++quarter) {
    const auto count = std::count_if(seconds.begin(), seconds.end(), [&](double at) {
      return static_cast<int>(std::min(at, 1.99) / 0.5) == quarter;
    });
    EXPECT_GE(count, 10) << quarter;
    EXPECT_LE(count, 45) << quarter;
  }

  const json drained = AwaitDrainState(proxy, "drained");
  EXPECT_EQ(drained["draining"], true) << "until somebody takes it back";
  EXPECT_EQ(drained["open"], 0);
  EXPECT_EQ(drained["drain"]["total"], kEach);
  EXPECT_EQ(drained["drain"]["clean"], kEach);
  EXPECT_EQ(drained["drain"]["forced"], 0);
  EXPECT_EQ(drained["drain"]["remaining"], 0);
  EXPECT_EQ(proxy.Metric("sluice_drain_active{what=\"backend\"}"), 0);
  EXPECT_EQ(proxy.Metric("sluice_backend_draining{backend=\"b0\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_drain_closed_total{how=\"clean\"}"), kEach);
  EXPECT_EQ(proxy.Metric("sluice_drain_closed_total{how=\"forced\"}"), 0);
  proxy.AwaitMetric("sluice_drain_sessions_remaining", 0);
  EXPECT_EQ(b0.closes(), std::vector<std::uint16_t>(kEach, 1001));
  EXPECT_TRUE(proxy.AwaitErr("draining backend pool=app backend=b0 open=100 window_ms=2000"));
  EXPECT_TRUE(
      proxy.AwaitErr("drained backend pool=app backend=b0 sessions=100 clean=100 forced=0"));

  EXPECT_FALSE(AnyHasInput(clients, Millis(1)));
  EXPECT_TRUE(b1.closes().empty());
  for (RawClient& client : clients) {
    if (client.open()) {
      client.SendFrame(kText, "still here");
      EXPECT_EQ(client.ReadFrame().payload, "still here");
    }
  }
}

TEST(BackendDrain, RateIsForAllWorkersTogether) {
  constexpr std::size_t kEach = 30;
  EchoBackend b0;
  EchoBackend b1;
  ProxyProcess proxy(Config{.backends = {b0.port(), b1.port()},
                            .pool = kInTurn,
                            .drain = "window = \"60s\"\ngrace = \"10s\""});
  std::vector<RawClient> clients = OpenSessions(proxy, 2 * kEach);
  const auto began = steady_clock::now();
  static_cast<void>(proxy.AskJson("POST", std::string(kDrainB0) + "?window=0s&rate=20", 202));
  const std::vector<double> seconds = AnswerCloses(clients, kEach, began);
  // The worker that has the most of them has at least its share, and closes its part of 20 a
  // second.
  EXPECT_GE(seconds.back(), 0.9 * (static_cast<double>(kEach) / 2 - 1) / 10);
  for (const double from : seconds) {
    const auto count = std::count_if(seconds.begin(), seconds.end(),
                                     [&](double at) { return at >= from && at < from + 0.5; });
    EXPECT_LE(count, 16) << "10 in half a second, and what a busy machine delays";
  }
  EXPECT_EQ(AwaitDrainState(proxy, "drained")["drain"]["clean"], kEach);
}

TEST(BackendDrain, TellsItsProgress) {
  constexpr std::size_t kEach = 40;
  EchoBackend b0;
  EchoBackend b1;
  ProxyProcess proxy(Config{.backends = {b0.port(), b1.port()},
                            .pool = kInTurn,
                            .drain = "window = \"1s\"\ngrace = \"5s\""});
  std::vector<RawClient> clients = OpenSessions(proxy, 2 * kEach);
  EXPECT_TRUE(proxy.AskJson("GET", kB0)["drain"].is_null());
  proxy.AwaitMetric("sluice_sessions_open{backend=\"b0\"}", kEach);
  static_cast<void>(proxy.AskJson("POST", kDrainB0, 202));
  proxy.AwaitMetric("sluice_drain_sessions_remaining", kEach);
  std::size_t remaining = kEach;
  double elapsed = 0;
  bool halfway = false;
  const Deadline deadline;
  for (;;) {
    const json drain = proxy.AskJson("GET", kB0)["drain"];
    ASSERT_EQ(drain["total"], kEach) << drain;
    ASSERT_LE(drain["remaining"], remaining) << drain;
    ASSERT_GE(drain["elapsed_seconds"], elapsed) << drain;
    EXPECT_EQ(drain["remaining"].get<std::size_t>() + drain["clean"].get<std::size_t>(), kEach);
    EXPECT_EQ(drain["window_seconds"], 1);
    remaining = drain["remaining"];
    elapsed = drain["elapsed_seconds"];
    if (drain["state"] == "drained") {
      EXPECT_EQ(drain["eta_seconds"], 0);
      break;
    }
    EXPECT_LE(drain["eta_seconds"], 1);
    halfway = halfway || (remaining > 0 && remaining < kEach && drain["rate_per_second"] > 0);
    ASSERT_FALSE(deadline.passed()) << drain;
    for (RawClient& client : clients) {
      if (client.open() && client.HasInput(Millis(0))) {
        client.Send(ClientClose(1012));
        client.Close();
      }
    }
  }
  EXPECT_EQ(remaining, 0U);
  EXPECT_TRUE(halfway);
  EXPECT_GE(elapsed, 0.5);
}

TEST(BackendDrain, ClosesASessionWhoseUpgradeWasInFlight) {
  RawBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .drain = "window = \"0s\"\ngrace = \"10s\""});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  Stream leg = backend.Accept();
  static_cast<void>(leg.ReadHead());
  static_cast<void>(proxy.AskJson("POST", std::string(kDrainB0) + "?force=true", 202));
  EXPECT_TRUE(proxy.AwaitErr("draining backend pool=app backend=b0 open=1"));
  leg.Send(SwitchingProtocols(kKey));
  EXPECT_EQ(client.ReadResponse().status, 101);
  EXPECT_EQ(leg.ReadFrame().close_code(), 1001);
  leg.Send(BackendClose(1001));
  EXPECT_EQ(client.ReadFrame().close_code(), 1012);
  client.Send(ClientClose(1012));
  client.ExpectEnd();
  client.Close();
  leg.Close();
  const json drained = AwaitDrainState(proxy, "drained");
  EXPECT_EQ(drained["drain"]["total"], 1);
  EXPECT_EQ(drained["drain"]["clean"], 1);
}

TEST(BackendDrain, APlainRequestInFlightIsFinishedAndTheNextGoesElsewhere) {
  RawBackend backend;
  EchoBackend other("other");
  ProxyProcess proxy(Config{.backends = {backend.port(), other.port()},
                            .pool = kInTurn,
                            .drain = "window = \"0s\"\ngrace = \"10s\""});
  RawClient client(proxy.port());
  const std::string request = "GET /x HTTP/1.1\r\nHost: x\r\n\r\n";
  client.Send(request);
  if (!backend.HasConnection(Millis(500))) {
    EXPECT_EQ(client.ReadResponse().status, 200);  // it was the turn of the other one
    client.Send(request);
  }
  Stream leg = backend.Accept();
  static_cast<void>(leg.ReadHead());
  leg.Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
  EXPECT_EQ(client.ReadHead().status, 200);
  static_cast<void>(proxy.AskJson("POST", kDrainB0, 202));
  EXPECT_TRUE(proxy.AwaitErr("draining backend pool=app backend=b0 open=1"));
  EXPECT_EQ(proxy.AskJson("GET", kB0)["drain"]["state"], "draining") << "it holds a leg";
  leg.Send("world");
  EXPECT_EQ(client.ReadExactly(10), "helloworld");
  leg.Close();
  EXPECT_EQ(AwaitDrainState(proxy, "drained")["drain"]["total"], 0);
  for (int i = 0; i < 3; ++i) {
    client.Send(request);
    EXPECT_EQ(client.ReadResponse().body, "other GET /x\n");
  }
}

TEST(BackendDrain, DeadlineCutsWhoDoesNotAnswerAndCountsIt) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .server = "close_timeout = \"60s\"",
                            .drain = "window = \"60s\"\ngrace = \"1500ms\""});
  RelayedSession silent_client = OpenSession(proxy, backend);
  RelayedSession silent_backend = OpenSession(proxy, backend);
  RelayedSession quick = OpenSession(proxy, backend);
  RawClient waiting(proxy.port());
  waiting.Send("GET /never HTTP/1.1\r\nHost: x\r\n\r\n");
  Stream leg = backend.Accept();
  static_cast<void>(leg.ReadHead());
  const auto began = steady_clock::now();
  static_cast<void>(proxy.AskJson("POST", std::string(kDrainB0) + "?window=0s&force=true", 202));
  for (RelayedSession* s : {&silent_client, &quick}) {
    EXPECT_EQ(s->backend.ReadFrame().close_code(), 1001);
    s->backend.Send(BackendClose(1001));
    EXPECT_EQ(s->client.ReadFrame().close_code(), 1012);
  }
  quick.client.Send(ClientClose(1012));
  quick.client.Close();
  quick.backend.Close();
  EXPECT_EQ(silent_backend.backend.ReadFrame().close_code(), 1001);
  EXPECT_EQ(silent_backend.client.ReadFrame().close_code(), 1012);  // when it is cut
  EXPECT_GE(SecondsSince(began), 1.4);
  static_cast<void>(silent_backend.client.AwaitEnd());
  static_cast<void>(silent_client.client.AwaitEnd());
  static_cast<void>(leg.AwaitEnd());
  const json drained = AwaitDrainState(proxy, "drained");
  EXPECT_LT(SecondsSince(began), 6);
  EXPECT_EQ(drained["drain"]["total"], 3);
  EXPECT_EQ(drained["drain"]["clean"], 1);
  EXPECT_EQ(drained["drain"]["forced"], 2);
  EXPECT_EQ(drained["open"], 0);
  EXPECT_EQ(proxy.Metric("sluice_drain_closed_total{how=\"clean\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_drain_closed_total{how=\"forced\"}"), 2);
  EXPECT_TRUE(proxy.AwaitErr("drained backend pool=app backend=b0 sessions=3 clean=1 forced=2"));
}

TEST(BackendDrain, UndrainKeepsTheRestAndAnotherDrainPlansAnew) {
  constexpr std::size_t kEach = 20;
  EchoBackend b0;
  EchoBackend b1;
  ProxyProcess proxy(Config{.backends = {b0.port(), b1.port()},
                            .pool = kInTurn,
                            .drain = "window = \"60s\"\ngrace = \"60s\""});
  std::vector<RawClient> clients = OpenSessions(proxy, 2 * kEach);
  static_cast<void>(proxy.AskJson("POST", std::string(kDrainB0) + "?window=0s&rate=4", 202));
  static_cast<void>(AnswerCloses(clients, 2, steady_clock::now()));
  const json stopped = proxy.AskJson("POST", std::string(kB0) + "/undrain");
  EXPECT_EQ(stopped["draining"], false);
  EXPECT_EQ(stopped["drain"]["state"], "cancelled");
  EXPECT_TRUE(proxy.AwaitErr("backend takes sessions again pool=app backend=b0 drain=cancelled"));
  EXPECT_EQ(proxy.Metric("sluice_drain_active{what=\"backend\"}"), 0);
  EXPECT_EQ(proxy.Metric("sluice_backend_draining{backend=\"b0\"}"), 0);
  proxy.AwaitMetric("sluice_drain_sessions_remaining", 0);
  // A close that was due while undrain came may still be on its way; no further one is.
  while (AnyHasInput(clients, Millis(300))) {
    static_cast<void>(AnswerCloses(clients, 1, steady_clock::now()));
  }
  const std::size_t left = b0.open();
  EXPECT_GE(left, kEach - 6);

  // Undrain of one that takes sessions is no mistake.
  EXPECT_EQ(proxy.AskJson("DELETE", kDrainB0)["draining"], false);

  std::vector<RawClient> newcomers = OpenSessions(proxy, 10);
  ASSERT_TRUE(b0.AwaitOpen(left + 5));

  // Again, at first slowly and then, replanned, at once.
  static_cast<void>(proxy.AskJson("POST", kDrainB0, 202));
  EXPECT_EQ(AwaitDrainState(proxy, "draining")["drain"]["window_seconds"], 60);
  static_cast<void>(proxy.AskJson("POST", std::string(kDrainB0) + "?window=0s", 202));
  const auto again = steady_clock::now();
  std::move(newcomers.begin(), newcomers.end(), std::back_inserter(clients));
  static_cast<void>(AnswerCloses(clients, left + 5, again));
  EXPECT_LT(SecondsSince(again), 5);
  const json drained = AwaitDrainState(proxy, "drained");
  EXPECT_EQ(drained["drain"]["total"], left + 5);
  EXPECT_EQ(drained["drain"]["window_seconds"], 0);
  ASSERT_TRUE(b0.AwaitOpen(0));

  // A drained one comes back too.
  EXPECT_EQ(proxy.AskJson("POST", std::string(kB0) + "/undrain")["drain"]["state"], "drained");
  const std::vector<RawClient> back = OpenSessions(proxy, 4);
  EXPECT_TRUE(b0.AwaitOpen(2));
}

TEST(BackendDrain, RefusesWhatIsNotThere) {
  EchoBackend b0;
  EchoBackend b1;
  ProxyProcess proxy(Config{.backends = {b0.port(), b1.port()}});
  for (const char* path : {"/backends/app/b7", "/backends/nowhere/b0"}) {
    for (const char* what : {"/drain", "/undrain"}) {
      const json problem = proxy.AskJson("POST", std::string(path) + what, 404);
      EXPECT_NE(problem["detail"].get<std::string>().find(path[10] == 'a' ? "b7" : "nowhere"),
                std::string::npos)
          << problem;
    }
  }
  for (const char* query :
       {"?window=x", "?window=25h", "?rate=0", "?rate=-1", "?force=perhaps", "?windo=1s"}) {
    EXPECT_EQ(proxy.Ask("POST", std::string(kDrainB0) + query).status, 400) << query;
  }
  EXPECT_EQ(proxy.AskJson("GET", kB0)["draining"], false);
}

TEST(BackendDrain, TheLastOneIsDrainedOnlyWhenForced) {
  EchoBackend b0;
  EchoBackend b1;
  ProxyProcess proxy(
      Config{.backends = {b0.port(), b1.port()}, .drain = "window = \"0s\"\ngrace = \"5s\""});
  static_cast<void>(proxy.AskJson("POST", "/backends/app/b1/drain", 202));
  RawClient client = ConnectWebSocket(proxy.port());
  ASSERT_TRUE(b0.AwaitOpen(1));
  const json problem = proxy.AskJson("POST", kDrainB0, 409);
  EXPECT_NE(problem["detail"].get<std::string>().find("No other backend"), std::string::npos);
  EXPECT_EQ(proxy.AskJson("GET", kB0)["draining"], false);
  client.SendFrame(kText, "untouched");
  EXPECT_EQ(client.ReadFrame().payload, "untouched");

  static_cast<void>(proxy.AskJson("POST", std::string(kDrainB0) + "?force=true", 202));
  EXPECT_EQ(client.ReadFrame().close_code(), 1012);
  client.Send(ClientClose(1012));
  client.ExpectEnd();
  RawClient late(proxy.port());
  EXPECT_EQ(late.Upgrade().status, 503);
  EXPECT_EQ(proxy.AskJson("POST", std::string(kB0) + "/undrain")["draining"], false);
  static_cast<void>(ConnectWebSocket(proxy.port()));
}

TEST(BackendDrain, EndsAStreamOfEventsBetweenTwoEvents) {
  RawBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .drain = "window = \"0s\"\ngrace = \"10s\""});
  RawClient client(proxy.port());
  client.Send("GET /events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n");
  Stream leg = backend.Accept();
  static_cast<void>(leg.ReadHead());
  leg.Send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\ndata: tw");
  EXPECT_EQ(client.ReadHead().status, 200);
  static_cast<void>(client.ReadUntil("data: tw"));
  static_cast<void>(proxy.AskJson("POST", std::string(kDrainB0) + "?force=true", 202));
  proxy.AwaitMetric("sluice_drain_sessions_remaining", 1);
  leg.Send("o\n\ndata: three\n\n");
  const std::string rest = client.ReadUntil("\r\n0\r\n\r\n");
  EXPECT_NE(rest.find("o\n\n"), std::string::npos) << rest;
  EXPECT_EQ(rest.find("three"), std::string::npos) << rest;
  const json drained = AwaitDrainState(proxy, "drained");
  EXPECT_EQ(drained["drain"]["total"], 1);
  EXPECT_EQ(drained["drain"]["clean"], 1);
  EXPECT_EQ(proxy.AwaitAccessLog(1).at(0)["reason"], "backend_drain");
  // The connection is not the backend's: it comes back to whoever there is.
  client.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 503);
}

// Who is told nothing comes back, and would get the same answer again.
TEST(BackendDrain, TellsAnEventSourceOfABackendThatAnswersBadly) {
  RawBackend good;
  RawBackend bad;
  ProxyProcess proxy(Config{.backends = {good.port(), bad.port()}});
  static_cast<void>(proxy.AskJson("POST", std::string(kDrainB0) + "?window=60s", 202));
  RawClient client(proxy.port());
  client.Send("GET /events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n");
  Stream leg = bad.Accept();
  static_cast<void>(leg.ReadHead());
  leg.Send("HTTP/1.1 nonsense\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 502);
}

TEST(BackendDrain, SigtermMeanwhileClosesEverything) {
  constexpr std::size_t kEach = 20;
  EchoBackend b0;
  EchoBackend b1;
  ProxyProcess proxy(Config{.backends = {b0.port(), b1.port()},
                            .pool = kInTurn,
                            .drain = "window = \"500ms\"\ngrace = \"10s\""});
  std::vector<RawClient> clients = OpenSessions(proxy, 2 * kEach);
  static_cast<void>(proxy.AskJson("POST", std::string(kDrainB0) + "?window=60s", 202));
  proxy.AwaitMetric("sluice_drain_sessions_remaining", kEach);
  proxy.Signal(SIGTERM);
  ASSERT_TRUE(proxy.AwaitErr("draining connections="));
  EXPECT_EQ(proxy.Ask("POST", "/backends/app/b1/drain").status, 409);
  const auto began = steady_clock::now();
  static_cast<void>(AnswerCloses(clients, 2 * kEach, began));
  EXPECT_LT(SecondsSince(began), 8);
  EXPECT_EQ(proxy.Wait(), 0);
}

}  // namespace
}  // namespace sluice::test
