// Proves that an operator can look at sessions and close them through the admin interface: the ones
// that are meant and no others, with a CLOSE frame that says what was asked for.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/integration/relayed_session.h"
#include "tests/support/echo_backend.h"

namespace sluice::test {
namespace {

using nlohmann::json;

json Call(const ProxyProcess& proxy, const std::string& method, const std::string& path,
          int wanted = 200, const std::string& content = {}) {
  const HttpMessage answer = proxy.Ask(method, path, {}, content);
  EXPECT_EQ(answer.status, wanted) << method << " " << path << ": " << answer.body;
  return json::parse(answer.body);
}

json Sessions(const ProxyProcess& proxy, const std::string& query = {}) {
  return Call(proxy, "GET", "/sessions" + query);
}

// How many were closed.
std::size_t Kick(const ProxyProcess& proxy, const std::string& query) {
  return Call(proxy, "DELETE", "/sessions?" + query)["kicked"].get<std::size_t>();
}

std::string OnlyId(const ProxyProcess& proxy) {
  const json list = Sessions(proxy)["sessions"];
  if (list.size() != 1) {
    throw Failure("not one session: " + list.dump());
  }
  return list[0]["id"].dump();
}

// One session, with both ends in the test's hands.

class KickTest : public testing::Test {
 protected:
  RawBackend backend;
  ProxyProcess proxy{Config{.backends = {backend.port()},
                            .server = "close_timeout = \"2s\"",
                            .route = "affinity = [\"cookie:sid\", \"ip\"]"}};
};

TEST_F(KickTest, SaysWhatWasAskedFor) {
  RelayedSession s = OpenSession(proxy, backend);
  const json answer = Call(proxy, "DELETE", "/sessions/" + OnlyId(proxy) + "?code=4001&reason=bye");
  EXPECT_EQ(answer["kicked"], 1);
  const Frame to_backend = s.backend.ReadFrame();
  EXPECT_EQ(to_backend.opcode, kClose);
  EXPECT_EQ(to_backend.close_code(), 1001);
  EXPECT_TRUE(to_backend.masked);
  EXPECT_EQ(Sessions(proxy)["sessions"][0]["state"], "closing");
  s.backend.Send(BackendFrame(kText, "last words") + BackendClose(1001));
  EXPECT_EQ(s.client.ReadFrame().payload, "last words");
  const Frame to_client = s.client.ReadFrame();
  EXPECT_EQ(to_client.opcode, kClose);
  EXPECT_EQ(to_client.close_code(), 4001);
  EXPECT_EQ(to_client.close_reason(), "bye");
  s.client.Send(ClientClose(4001));
  s.client.ExpectEnd();
  s.client.Close();
  s.backend.Close();
  proxy.AwaitMetric("sluice_sessions_open", 0);
  EXPECT_EQ(Sessions(proxy)["matching"], 0);
  EXPECT_EQ(proxy.Metric("sluice_own_closes_total{cause=\"kick\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_closes_total{code=\"4xxx\",by=\"sluice\"}"), 1);
  const json line = proxy.AwaitAccessLog(1)[0];
  EXPECT_EQ(line["reason"], "kick");
  EXPECT_EQ(line["closed_by"], "sluice");
  EXPECT_EQ(line["close_code_client"], 4001);
  EXPECT_EQ(line["close_code_backend"], 1001);
}

TEST_F(KickTest, SaysWhatADrainSaysUnlessAsked) {
  RelayedSession s = OpenSession(proxy, backend);
  EXPECT_EQ(Call(proxy, "DELETE", "/sessions/" + OnlyId(proxy))["kicked"], 1);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  s.backend.Send(BackendClose(1001));
  const Frame close = s.client.ReadFrame();
  EXPECT_EQ(close.close_code(), 1012);
  EXPECT_EQ(close.close_reason(), "service restart");
}

TEST_F(KickTest, TakesItsParametersAsJsonToo) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string reason(123, 'r');
  Call(proxy, "DELETE", "/sessions/" + OnlyId(proxy), 200,
       R"({"code": 3000, "reason": ")" + reason + R"("})");
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  s.backend.Send(BackendClose(1001));
  const Frame close = s.client.ReadFrame();
  EXPECT_EQ(close.close_code(), 3000);
  EXPECT_EQ(close.close_reason(), reason);
}

TEST_F(KickTest, LetsTheClientFinishItsMessage) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string begin = BuildFrame(kText, "first half, ", {.fin = false});
  s.client.Send(begin);
  EXPECT_EQ(s.backend.ReadExactly(begin.size()), begin);
  Call(proxy, "DELETE", "/sessions/" + OnlyId(proxy) + "?code=4001");
  EXPECT_FALSE(s.backend.HasInput(Millis(100)));
  const std::string end = BuildFrame(kContinuation, "second half");
  s.client.Send(end);
  EXPECT_EQ(s.backend.ReadExactly(end.size()), end);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
}

TEST_F(KickTest, RefusesWhatACloseCannotSay) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string one = "/sessions/" + OnlyId(proxy);
  for (const std::string query :
       {"code=0", "code=999", "code=1004", "code=1005", "code=1006", "code=1015", "code=1016",
        "code=2999", "code=5000", "code=65536", "code=-1", "code=", "code=x", "reason=%FF",
        "reason=%C0%80", "reason=%ED%A0%80", "reason=a%0Ab", "reason=%00", "frame=1"}) {
    EXPECT_TRUE(Call(proxy, "DELETE", one + "?" + query, 400).contains("detail")) << query;
    Call(proxy, "DELETE", "/sessions?route=main&" + query, 400);
  }
  Call(proxy, "DELETE", one + "?reason=" + std::string(124, 'x'), 400);
  Call(proxy, "DELETE", one, 400, R"({"code": "4001"})");
  // Nobody by omission.
  for (const std::string query : {"", "?", "?code=4001", "?backend=", "?client_ip=nowhere"}) {
    Call(proxy, "DELETE", "/sessions" + query, 400);
  }
  s.client.Send(BuildFrame(kText, "lives"));
  EXPECT_EQ(s.backend.ReadFrame().payload, "lives");
  EXPECT_EQ(proxy.Metric("sluice_own_closes_total"), 0);
}

TEST_F(KickTest, TakesEveryCodeThatACloseMaySay) {
  for (const int code : {1000, 1003, 1007, 1014, 3000, 4999}) {
    SCOPED_TRACE(code);
    RelayedSession s = OpenSession(proxy, backend);
    EXPECT_EQ(Kick(proxy, "route=main&code=" + std::to_string(code)), 1U);
    EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
    s.backend.Send(BackendClose(1001));
    EXPECT_EQ(s.client.ReadFrame().close_code(), code);
    s.client.Send(ClientClose(1000));
    s.client.ExpectEnd();
    s.client.Close();
    s.backend.Close();
    proxy.AwaitMetric("sluice_sessions_open", 0);
  }
}

TEST_F(KickTest, AnUnknownSessionIs404) {
  RelayedSession s = OpenSession(proxy, backend);
  for (const std::string id :
       {"0", "123456789", "18446744073709551615", "99999999999999999999", "abc", "1x", "-1"}) {
    Call(proxy, "GET", "/sessions/" + id, 404);
    Call(proxy, "DELETE", "/sessions/" + id, 404);
  }
  EXPECT_EQ(Kick(proxy, "backend=unknown"), 0U);
  EXPECT_EQ(Kick(proxy, "affinity=nobody"), 0U);
  EXPECT_EQ(Sessions(proxy)["matching"], 1);
}

TEST_F(KickTest, ASessionTellsWhatItIs) {
  RelayedSession s = OpenSession(proxy, backend);
  const std::string up = BuildFrame(kText, "hello") + BuildFrame(kBinary, "12");
  const std::string down = BackendFrame(kText, "welcome");
  s.client.Send(up);
  EXPECT_EQ(s.backend.ReadExactly(up.size()), up);
  s.backend.Send(down);
  EXPECT_EQ(s.client.ReadExactly(down.size()), down);
  const std::string id = OnlyId(proxy);
  for (const json& one : {Sessions(proxy)["sessions"][0], Call(proxy, "GET", "/sessions/" + id)}) {
    EXPECT_EQ(one["id"].dump(), id);
    EXPECT_EQ(one["client"], "127.0.0.1:" + std::to_string(s.client.local_port()));
    EXPECT_EQ(one["client_ip"], "127.0.0.1");
    EXPECT_EQ(one["listener"], "plain");
    EXPECT_EQ(one["route"], "main");
    EXPECT_EQ(one["pool"], "app");
    EXPECT_EQ(one["backend"], "b0");
    EXPECT_EQ(one["state"], "open");
    EXPECT_EQ(one["bytes_in"], up.size());
    EXPECT_EQ(one["messages_in"], 2);
    EXPECT_EQ(one["bytes_out"], down.size());
    EXPECT_EQ(one["messages_out"], 1);
    EXPECT_GE(one["age_seconds"], 0.0);
    EXPECT_LT(one["age_seconds"], 60.0);
    EXPECT_TRUE(one["proxy"].is_null());
    EXPECT_EQ(one.size(), 14U);
  }
}

// Requests under way are no sessions.
TEST_F(KickTest, OnlySessionsAreListed) {
  RawClient idle(proxy.port());
  RawClient asking(proxy.port());
  asking.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  EXPECT_EQ(Sessions(proxy)["matching"], 0);
  EXPECT_EQ(Kick(proxy, "backend=b0"), 0U);
  peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  EXPECT_EQ(asking.ReadResponse().body, "ok");
}

class KickCodeTest : public testing::Test {
 protected:
  RawBackend backend;
  ProxyProcess proxy{Config{.backends = {backend.port()}, .route = "close_code = 1001"}};
};

TEST_F(KickCodeTest, TheRoutesCodeIsTheDefault) {
  RelayedSession s = OpenSession(proxy, backend);
  EXPECT_EQ(Kick(proxy, "route=main"), 1U);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  s.backend.Send(BackendClose(1001));
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1001);
}

// Many sessions.

struct Guest {
  RawClient client;
  std::string sid;
  std::string backend;  // that answered
  bool vip = false;     // came by the route "vip"
};

class KickManyTest : public testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 40; ++i) {
      Guest guest;
      guest.client = RawClient(proxy.port());
      guest.sid = "sid" + std::to_string(i % 20);
      guest.vip = i % 4 == 0;
      const HttpMessage answer =
          guest.client.Upgrade(guest.vip ? "/vip" : "/", "Cookie: sid=" + guest.sid + "\r\n");
      ASSERT_EQ(answer.status, 101);
      guest.backend = answer.Field("X-Backend");
      guests.push_back(std::move(guest));
    }
  }

  // Kicks, and checks that just the guests that `is_meant` picks are told.
  template <class IsMeant>
  void ExpectKicked(const std::string& query, IsMeant is_meant) {
    std::size_t meant = 0;
    for (const Guest& guest : guests) {
      meant += is_meant(guest) ? 1 : 0;
    }
    ASSERT_GT(meant, 0U);
    ASSERT_LT(meant, guests.size());
    EXPECT_EQ(Sessions(proxy, "?" + query)["matching"], meant);
    EXPECT_EQ(Kick(proxy, query + "&code=4001&reason=out"), meant);
    for (Guest& guest : guests) {
      if (is_meant(guest)) {
        const Frame close = guest.client.ReadFrame();
        EXPECT_EQ(close.opcode, kClose);
        EXPECT_EQ(close.close_code(), 4001);
        EXPECT_EQ(close.close_reason(), "out");
        guest.client.Send(ClientClose(4001));
        guest.client.ExpectEnd();
        guest.client.Close();
      } else {
        guest.client.Send(BuildFrame(kText, "lives"));
        EXPECT_EQ(guest.client.ReadFrame().payload, "lives");
      }
    }
    proxy.AwaitMetric("sluice_sessions_open", static_cast<double>(guests.size() - meant));
    EXPECT_EQ(proxy.Metric("sluice_own_closes_total{cause=\"kick\"}"), meant);
  }

  EchoBackend a{"a"};
  EchoBackend b{"b"};
  ProxyProcess proxy{Config{.backends = {a.port(), b.port()},
                            .workers = 2,
                            .route = "affinity = [\"cookie:sid\"]",
                            .pool = "bounded_load = 0",
                            .more = "[[route]]\nname = \"vip\"\npath = \"/vip\"\npool = \"app\"\n"
                                    "affinity = [\"cookie:sid\"]"}};
  std::vector<Guest> guests;
};

TEST_F(KickManyTest, ByBackend) {
  ExpectKicked("backend=b1", [](const Guest& guest) { return guest.backend == "b"; });
}

TEST_F(KickManyTest, ByPoolAndBackend) {
  ExpectKicked("backend=app%2Fb0", [](const Guest& guest) { return guest.backend == "a"; });
}

TEST_F(KickManyTest, ByRoute) {
  ExpectKicked("route=vip", [](const Guest& guest) { return guest.vip; });
}

TEST_F(KickManyTest, ByAffinityKey) {
  ExpectKicked("affinity=sid7", [](const Guest& guest) { return guest.sid == "sid7"; });
}

TEST_F(KickManyTest, ByAllThatIsGiven) {
  ExpectKicked("pool=app&route=vip&backend=b0",
               [](const Guest& guest) { return guest.vip && guest.backend == "a"; });
}

TEST_F(KickManyTest, CountsAndListsOverBothWorkers) {
  const json all = Sessions(proxy);
  EXPECT_EQ(all["matching"], 40);
  std::set<std::uint64_t> ids;
  std::set<std::uint64_t> workers;
  for (const json& one : all["sessions"]) {
    const auto id = one["id"].get<std::uint64_t>();
    ids.insert(id);
    workers.insert(id >> 40U);
    EXPECT_LT(id, 1ULL << 53U) << "readers of JSON would round it";
  }
  EXPECT_EQ(ids.size(), 40U);
  EXPECT_EQ(workers.size(), 2U);
  // `limit` bounds the list, not the count.
  for (const std::size_t limit : {1U, 39U, 40U, 41U, 10'000U}) {
    const json some = Sessions(proxy, "?limit=" + std::to_string(limit));
    EXPECT_EQ(some["matching"], 40);
    EXPECT_EQ(some["sessions"].size(), std::min<std::size_t>(limit, 40));
  }
  for (const std::string limit : {"0", "10001", "-1", "x", ""}) {
    Call(proxy, "GET", "/sessions?limit=" + limit, 400);
  }
  EXPECT_EQ(Kick(proxy, "pool=app"), 40U);
  for (Guest& guest : guests) {
    EXPECT_EQ(guest.client.ReadFrame().close_code(), 1012);
    guest.client.Send(ClientClose(1012));
    guest.client.Close();
  }
  proxy.AwaitMetric("sluice_sessions_open", 0);
  EXPECT_EQ(proxy.Metric("sluice_own_closes_total{cause=\"kick\"}"), 40);
}

// By address.

class KickAddressTest : public testing::TestWithParam<const char*> {
 protected:
  EchoBackend backend;
  ProxyProcess proxy{Config{.backends = {backend.port()},
                            .server = "trusted_proxies = [\"127.0.0.1/32\"]",
                            .log = std::string("access = \"") + GetParam() + "\""}};

  RawClient Connect(const std::string& source, const std::string& forwarded) {
    RawClient client(proxy.port(), ClientOptions{.source = source});
    EXPECT_EQ(client.Upgrade("/", "X-Forwarded-For: " + forwarded + "\r\n").status, 101);
    return client;
  }
};

INSTANTIATE_TEST_SUITE_P(AccessLog, KickAddressTest, testing::Values("json", "off"),
                         [](const auto& one) { return std::string(one.param); });

TEST_P(KickAddressTest, IsTheForwardedOneBehindATrustedProxyOnly) {
  RawClient behind = Connect("127.0.0.1", "203.0.113.7");
  RawClient direct = Connect("127.0.0.2", "203.0.113.7");  // says so itself
  RawClient other = Connect("127.0.0.1", "203.0.113.8");
  const json listed = Sessions(proxy, "?client_ip=203.0.113.7");
  ASSERT_EQ(listed["matching"], 1);
  EXPECT_EQ(listed["sessions"][0]["client_ip"], "203.0.113.7");
  EXPECT_EQ(listed["sessions"][0]["client"], "127.0.0.1:" + std::to_string(behind.local_port()));
  EXPECT_EQ(Kick(proxy, "client_ip=203.0.113.7&code=4001"), 1U);
  EXPECT_EQ(behind.ReadFrame().close_code(), 4001);
  EXPECT_EQ(Kick(proxy, "client_ip=127.0.0.2&code=4002"), 1U);
  EXPECT_EQ(direct.ReadFrame().close_code(), 4002);
  EXPECT_EQ(Kick(proxy, "client_ip=127.0.0.1"), 0U) << "the address of the proxy";
  other.Send(BuildFrame(kText, "lives"));
  EXPECT_EQ(other.ReadFrame().payload, "lives");
}

// One address may be written in many ways (RFC 4291 section 2.2).
TEST_P(KickAddressTest, IsTheSameHoweverItIsWritten) {
  RawClient client = Connect("127.0.0.1", "2001:DB8:0:0::7");
  EXPECT_EQ(Kick(proxy, "client_ip=2001%3Adb8%3A%3A0007&code=4001"), 1U);
  EXPECT_EQ(client.ReadFrame().close_code(), 4001);
}

}  // namespace
}  // namespace sluice::test
