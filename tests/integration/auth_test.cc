// Proves that nothing reaches a backend that the route's auth server has not allowed: what it
// denies is answered as it says, what it does not answer is refused, what it has allowed for a time
// ends with that, and nobody speaks as somebody else.
#include <signal.h>

#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/base/clock.h"

#include "tests/integration/auth_server.h"
#include "tests/integration/relayed_session.h"
#include "tests/support/echo_backend.h"

namespace sluice::test {
namespace {

using std::chrono::steady_clock;

constexpr std::string_view kAllow = "HTTP/1.1 204 No Content\r\n\r\n";
constexpr std::string_view kDeny = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
constexpr std::string_view kAsk = "GET /a?b HTTP/1.1\r\nHost: app.test\r\n\r\n";

Config AuthConfig(std::uint16_t backend, std::uint16_t auth, const std::string& more = {},
                  const std::string& route = {}) {
  return Config{.backends = {backend},
                .server = "close_timeout = \"400ms\"",
                .route = "auth = { url = \"http://127.0.0.1:" + std::to_string(auth) +
                         "/check?x=1\", forward = [\"Authorization\", \"cookie\"], copy = "
                         "[\"X-User\"]" +
                         (more.empty() ? "" : ", " + more) + " }\n" + route,
                .drain = "window = \"0s\"\nmessage_grace = \"1s\""};
}

// Each worker has connections of its own.
Config WithOneWorker(Config config) {
  config.workers = 1;
  return config;
}

std::string UnixTimeIn(double seconds) {
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  return std::to_string(now + seconds);
}

std::string FixdateIn(int seconds) {
  const std::time_t at = std::time(nullptr) + seconds;
  std::tm parts{};
  ::gmtime_r(&at, &parts);
  std::array<char, 64> text{};
  return {text.data(),
          std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &parts)};
}

std::string AllowUntil(const std::string& expiry) {
  return "HTTP/1.1 200 OK\r\nX-Auth-Expires: " + expiry + "\r\nContent-Length: 0\r\n\r\n";
}

void AwaitChecks(const ProxyProcess& proxy, const std::string& result, std::size_t count) {
  proxy.AwaitMetric("sluice_auth_checks_total{result=\"" + result + "\"}",
                    static_cast<double>(count));
}

// One test's world: an auth server and a backend in its hands.
class Auth : public testing::Test {
 protected:
  // The next question, on a connection of its own.
  Stream AcceptCheck(HttpMessage* request = nullptr) {
    Stream check = auth.Accept();
    HttpMessage asked = check.ReadRequest();
    if (request != nullptr) {
      *request = std::move(asked);
    }
    return check;
  }

  // The backend serves one plain request and is done.
  HttpMessage ServeOne(std::string_view answer = "HTTP/1.1 204 No Content\r\n\r\n") {
    Stream leg = backend.Accept();
    HttpMessage request = leg.ReadRequest();
    leg.Send(answer);
    return request;
  }

  RawBackend auth;
  RawBackend backend;
};

TEST_F(Auth, IsAskedAboutARequestWhoseBackendIsToldItsAnswer) {
  ProxyProcess proxy(AuthConfig(backend.port(), auth.port()));
  RawClient client(proxy.port());
  client.Send(
      "DELETE /a/b?c=%2Fd HTTP/1.1\r\nHost: app.test\r\nAuthorization: Bearer t\r\n"
      "Cookie: a=1\r\nCookie: b=2\r\nX-User: mallory\r\nx-user: root\r\nX_User: admin\r\nX.User: "
      "boss\r\nX-Other: 1\r\n"
      "X-Forwarded-For: 10.0.0.1\r\nX-Original-URI: /admin\r\nConnection: x-user\r\n\r\n");
  HttpMessage asked;
  Stream check = AcceptCheck(&asked);
  EXPECT_EQ(asked.start_line, "GET /check?x=1 HTTP/1.1");
  EXPECT_EQ(asked.Field("Host"), "127.0.0.1:" + std::to_string(auth.port()));
  EXPECT_EQ(asked.Field("Authorization"), "Bearer t");
  EXPECT_EQ(asked.Count("Cookie"), 2U);
  EXPECT_EQ(asked.Field("X-Original-Method"), "DELETE");
  EXPECT_EQ(asked.Field("X-Original-URI"), "/a/b?c=%2Fd");
  EXPECT_EQ(asked.Count("X-Original-URI"), 1U);
  EXPECT_EQ(asked.Field("X-Forwarded-For"), "127.0.0.1");
  EXPECT_EQ(asked.Field("X-Forwarded-Proto"), "http");
  EXPECT_EQ(asked.Field("X-Forwarded-Host"), "app.test");
  EXPECT_FALSE(asked.Has("X-User"));
  EXPECT_FALSE(asked.Has("X-Other"));
  EXPECT_FALSE(asked.Has("Content-Length"));
  EXPECT_FALSE(backend.HasConnection(Millis(50))) << "reached a backend unasked";
  check.Send(
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-User: alice\r\nX-Role: admin\r\n"
      "Content-Length: 2\r\n\r\nok");
  const HttpMessage request = ServeOne();
  EXPECT_EQ(request.start_line, "DELETE /a/b?c=%2Fd HTTP/1.1");
  EXPECT_EQ(request.Field("X-User"), "alice");
  EXPECT_EQ(request.Count("X-User"), 1U) << request.head;
  EXPECT_FALSE(request.Has("X_User"));
  EXPECT_FALSE(request.Has("X.User"));
  EXPECT_FALSE(request.Has("X-Role"));
  EXPECT_EQ(request.Field("X-Other"), "1");
  EXPECT_EQ(request.Field("Authorization"), "Bearer t");
  EXPECT_EQ(request.Field("X-Request-Id"), asked.Field("X-Request-Id"));
  EXPECT_EQ(client.ReadResponse().status, 204);
  AwaitChecks(proxy, "allowed", 1);
  proxy.AwaitMetric("sluice_auth_seconds_count", 1);
  EXPECT_EQ(proxy.AwaitAccessLog(1)[0]["request_id"], asked.Field("X-Request-Id"));
}

// A field that the answer's own Connection names is none for the backend (RFC 9110 section 7.6.1).
TEST_F(Auth, WithoutAFieldToCopyNobodySpeaksAsAnybody) {
  ProxyProcess proxy(AuthConfig(backend.port(), auth.port()));
  for (const std::string_view answer :
       {std::string_view(kAllow),
        std::string_view("HTTP/1.1 200 OK\r\nConnection: x-user\r\nX-User: hop\r\n"
                         "Content-Length: 0\r\n\r\n")}) {
    RawClient client(proxy.port());
    client.Send(UpgradeRequest("/", "X-User: mallory\r\n"));
    Stream check = AcceptCheck();
    check.Send(answer);
    HttpMessage request;
    Stream leg = backend.AcceptWebSocket({}, &request);
    EXPECT_FALSE(request.Has("X-User"));
    EXPECT_EQ(client.ReadHead().status, 101);
  }
}

TEST_F(Auth, MayBeAskedAboutUpgradesAlone) {
  ProxyProcess proxy(AuthConfig(backend.port(), auth.port(), "on = \"upgrades\""));
  RawClient client(proxy.port());
  client.Send("GET / HTTP/1.1\r\nHost: a\r\nX-USER: mallory\r\nX-Other: 1\r\n\r\n");
  const HttpMessage request = ServeOne();
  EXPECT_FALSE(request.Has("X-User"));
  EXPECT_TRUE(request.Has("X-Other"));
  EXPECT_EQ(client.ReadResponse().status, 204);
  EXPECT_FALSE(auth.HasConnection(Millis(0)));
  client.Send(UpgradeRequest());
  AcceptCheck().Send(kDeny);
  EXPECT_EQ(client.ReadResponse().status, 403);
  EXPECT_FALSE(backend.HasConnection(Millis(50)));
}

// What it says instead of 2xx is the client's answer, in a form that fits this connection.
TEST_F(Auth, DenialsAreRelayedAndTheConnectionGoesOn) {
  struct Case {
    std::string answer;
    int status;
    std::string body;
    bool closes = false;  // the auth server ends its answer by closing
  };
  const std::string large(64U << 10U, 'x');
  const std::array<Case, 7> cases{{
      {"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a\"\r\nContent-Type: "
       "text/html\r\nContent-Length: 5\r\nX-Why: no\r\nKeep-Alive: timeout=5\r\n\r\nlogin",
       401, "login"},
      {"HTTP/1.1 302 Found\r\nLocation: /login\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
       "Content-Length: 0\r\n\r\n",
       302, ""},
      {"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyou\r\n4;x=y\r\n not\r\n"
       "0\r\nX-Trailer: 1\r\n\r\n",
       403, "you not"},
      {"HTTP/1.1 500 Oops\r\n\r\nno length", 500, "no length", true},
      {"HTTP/1.0 404 Not Found\r\n\r\n", 404, "", true},
      {"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 65536\r\n\r\n" + large, 429, large},
      {"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", 304, ""},
  }};
  ProxyProcess proxy(AuthConfig(backend.port(), auth.port()));
  RawClient client(proxy.port());
  std::size_t denied = 0;
  for (const Case& one : cases) {
    SCOPED_TRACE(one.answer.substr(0, 20));
    for (const std::string method : {"GET", "HEAD"}) {
      client.Send(method + " / HTTP/1.1\r\nHost: a\r\n\r\n");
      Stream check = AcceptCheck();
      check.Send(one.answer);
      check.Close();
      const HttpMessage answer = client.ReadResponse(method);
      ++denied;
      EXPECT_EQ(answer.status, one.status);
      EXPECT_EQ(answer.body, method == "GET" ? one.body : "");
      EXPECT_FALSE(answer.Has("Transfer-Encoding"));
      EXPECT_FALSE(answer.Has("Keep-Alive"));
      EXPECT_FALSE(answer.Has("Connection")) << "the connection may go on";
      EXPECT_EQ(answer.Field("Content-Length"),
                one.status == 304 ? "" : std::to_string(one.body.size()));
      if (one.status == 401) {
        EXPECT_EQ(answer.Field("WWW-Authenticate"), "Basic realm=\"a\"");
        EXPECT_EQ(answer.Field("Content-Type"), "text/html");
        EXPECT_EQ(answer.Field("X-Why"), "no");
      } else if (one.status == 302) {
        EXPECT_EQ(answer.Field("Location"), "/login");
        EXPECT_EQ(answer.Count("Set-Cookie"), 2U);
      } else if (one.status == 429) {
        EXPECT_EQ(answer.Field("Retry-After"), "7");
      }
    }
  }
  EXPECT_FALSE(backend.HasConnection(Millis(0)));
  AwaitChecks(proxy, "denied", denied);
  for (const auto& line : proxy.AwaitAccessLog(denied)) {
    EXPECT_EQ(line["reason"], "auth_denied");
  }
}

TEST_F(Auth, ADeniedUpgradeGetsAPlainAnswerAndCountsNoMore) {
  ProxyProcess proxy(AuthConfig(backend.port(), auth.port(), {}, "limits.max_connections = 1"));
  RawClient client(proxy.port());
  for (int i = 0; i < 3; ++i) {
    client.Send(UpgradeRequest());
    AcceptCheck().Send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
    const HttpMessage answer = client.ReadResponse();
    EXPECT_EQ(answer.status, 401);
    EXPECT_EQ(answer.body, "no");
  }
  EXPECT_FALSE(backend.HasConnection(Millis(0)));
  proxy.AwaitMetric("sluice_upgrades_total{outcome=\"auth_denied\"}", 3);
  // While one is asked about it has the route's only place.
  client.Send(UpgradeRequest());
  Stream check = AcceptCheck();
  RawClient other(proxy.port());
  EXPECT_EQ(other.Upgrade().status, 503);
  check.Send(kAllow);
  Stream leg = backend.AcceptWebSocket();
  EXPECT_EQ(client.ReadHead().status, 101);
}

// No answer that holds: 503, and nothing for the backend.
TEST_F(Auth, AnAnswerThatDoesNotHoldAllowsNothing) {
  const std::vector<std::string> answers{
      "",  // closed without a byte
      "allowed\r\n\r\n",
      "HTTP/1.1 200 OK\r\nX-User: a",
      "HTTP/1.1 200 OK\r\n Folded: a\r\n\r\n",
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf",
      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
      "HTTP/1.1 403 Forbidden\r\nContent-Length: 65537\r\n\r\n" + std::string(65'537, 'x'),
      "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n" +
          std::string(65'537, 'x') + "\r\n0\r\n\r\n",
      "HTTP/1.1 403 Forbidden\r\n\r\n" + std::string(65'537, 'x'),
      "HTTP/1.1 200 OK\r\nX: " + std::string(40'000, 'x') + "\r\n\r\n",
  };
  ProxyProcess proxy(AuthConfig(backend.port(), auth.port()));
  RawClient client(proxy.port());
  std::string interim;
  for (int i = 0; i < 17; ++i) {
    interim += "HTTP/1.1 100 Continue\r\n\r\n";
  }
  std::size_t asked = 0;
  const auto expect_503 = [&](const std::string& answer) {
    client.Send(kAsk);
    Stream check = AcceptCheck();
    try {
      check.Send(answer);
      check.FinishWrite();
    } catch (const Failure&) {
      // It has heard enough.
    }
    const HttpMessage refusal = client.ReadResponse();
    EXPECT_EQ(refusal.status, 503) << answer.substr(0, 60);
    EXPECT_TRUE(refusal.Has("Retry-After"));
    static_cast<void>(check.AwaitEnd());
    AwaitChecks(proxy, "bad_answer", ++asked);
  };
  for (const std::string& answer : answers) {
    expect_503(answer);
  }
  expect_503(interim + std::string(kAllow));
  EXPECT_FALSE(backend.HasConnection(Millis(0)));
  for (const auto& line : proxy.AwaitAccessLog(asked)) {
    EXPECT_EQ(line["reason"], "auth_unavailable");
    EXPECT_EQ(line["status"], 503);
  }
  EXPECT_TRUE(proxy.AwaitErr("no answer of an auth server"));
}

TEST_F(Auth, ThatCannotBeReachedAllowsNothing) {
  const ClosedPort closed;
  ProxyProcess proxy(AuthConfig(backend.port(), closed.port()));
  RawClient client(proxy.port());
  client.Send(std::string(kAsk) + std::string(kAsk));
  EXPECT_EQ(client.ReadResponse().status, 503);
  EXPECT_EQ(client.ReadResponse().status, 503);
  const HttpMessage upgrade = client.Upgrade();
  EXPECT_EQ(upgrade.status, 503);
  EXPECT_TRUE(upgrade.Has("Retry-After"));
  AwaitChecks(proxy, "unreachable", 3);
  proxy.AwaitMetric("sluice_upgrades_total{outcome=\"auth_unavailable\"}", 1);
  EXPECT_FALSE(backend.HasConnection(Millis(0)));
}

TEST_F(Auth, ThatIsSilentOrTooSlowAllowsNothing) {
  const SilentPort silent;
  ProxyProcess unconnected(AuthConfig(backend.port(), silent.port(), "timeout = \"100ms\""));
  RawClient first(unconnected.port());
  first.Send(kAsk);
  EXPECT_EQ(first.ReadResponse().status, 503);
  AwaitChecks(unconnected, "timeout", 1);

  ProxyProcess proxy(AuthConfig(backend.port(), auth.port(), "timeout = \"300ms\""));
  RawClient client(proxy.port());
  const auto began = steady_clock::now();
  client.Send(kAsk);
  Stream check = AcceptCheck();
  EXPECT_EQ(client.ReadResponse().status, 503);
  EXPECT_GE(steady_clock::now() - began, Millis(300) - kGrain);
  static_cast<void>(check.AwaitEnd());
  // Bytes that come one by one buy no time, not even behind a 200.
  client.Send(kAsk);
  Stream dribble = AcceptCheck();
  dribble.Send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 503) << "too large is said at once";
  client.Send(kAsk);
  Stream slow = AcceptCheck();
  slow.Send("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n");
  const Deadline deadline;
  while (!client.HasInput(Millis(20)) && !deadline.passed()) {
    static_cast<void>(slow.SendSome("x"));
  }
  EXPECT_EQ(client.ReadResponse().status, 503);
  AwaitChecks(proxy, "timeout", 2);
  EXPECT_FALSE(backend.HasConnection(Millis(0)));
}

// Times of expiry.

TEST_F(Auth, WhatItAllowsEndsWhenItSays) {
  AuthServer server([](const HttpMessage& request) {
    const std::string target = request.Field("X-Original-URI");
    return AllowUntil(target == "/long"    ? UnixTimeIn(86'400)
                      : target == "/never" ? UnixTimeIn(2e9)
                      : target == "/date"  ? FixdateIn(2)
                                           : UnixTimeIn(0.7));
  });
  EchoBackend echo;
  const std::string expires = "auth_expires_header = \"x-auth-expires\"\n";
  Config config = AuthConfig(echo.port(), server.port(), {}, expires);
  const std::string own = config.route;
  config.more = "[[route]]\nname = \"own\"\npath = \"/own\"\npool = \"app\"\n" + own +
                "auth_expires_code = 4001\n";
  ProxyProcess proxy(config);
  const auto began = steady_clock::now();
  RawClient usual = ConnectWebSocket(proxy.port(), "/");
  RawClient coded = ConnectWebSocket(proxy.port(), "/own");
  RawClient date = ConnectWebSocket(proxy.port(), "/date");
  RawClient lasting = ConnectWebSocket(proxy.port(), "/long");
  RawClient never = ConnectWebSocket(proxy.port(), "/never");
  const auto expect_close = [&](RawClient& client, std::uint16_t code, Millis least) {
    const Frame close = client.ReadFrame();
    EXPECT_GE(steady_clock::now() - began, least);
    EXPECT_EQ(close.close_code(), code);
    EXPECT_EQ(close.close_reason(), "token expired");
    client.Send(ClientClose(code));
    client.ExpectEnd();
  };
  expect_close(usual, 1008, Millis(700) - kGrain);
  expect_close(coded, 4001, Millis(700) - kGrain);
  expect_close(date, 1008, Millis(1000) - kGrain);  // whole seconds, of which one has begun
  EXPECT_TRUE(echo.AwaitCloses(3));
  for (const std::uint16_t code : echo.closes()) {
    EXPECT_EQ(code, 1001);
  }
  for (RawClient* client : {&lasting, &never}) {
    client->SendFrame(kText, "still here");
    EXPECT_EQ(client->ReadFrame().payload, "still here");
  }
  proxy.AwaitMetric("sluice_own_closes_total{cause=\"auth_expired\"}", 3);
  for (const auto& line : proxy.AwaitAccessLog(3)) {
    EXPECT_EQ(line["reason"], "auth_expired");
    EXPECT_EQ(line["closed_by"], "sluice");
  }
}

// What comes behind that time is not for it, however long its backend goes on.
TEST_F(Auth, ABackendThatDoesNotAnswerKeepsNoSessionThatHasExpired) {
  AuthServer server([](const HttpMessage&) { return AllowUntil(UnixTimeIn(0.5)); });
  Config config =
      AuthConfig(backend.port(), server.port(), {}, "auth_expires_header = \"x-auth-expires\"\n");
  config.server = "close_timeout = \"5s\"";
  ProxyProcess proxy(config);
  const auto began = steady_clock::now();
  RelayedSession s = OpenSession(proxy, backend);
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1001);
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1008);
  EXPECT_LT(steady_clock::now() - began, Millis(2000));
  s.backend.Send(BackendFrame(kText, "too late"));
  EXPECT_FALSE(s.client.HasInput(Millis(50)));
}

TEST_F(Auth, WhatHasExpiredOrDoesNotSayWhenIsNotAllowed) {
  ProxyProcess proxy(
      AuthConfig(backend.port(), auth.port(), {},
                 "auth_expires_header = \"X-Auth-Expires\"\n"
                 "response_headers = { add = { \"WWW-Authenticate\" = \"Negotiate\" } }"));
  RawClient client(proxy.port());
  const auto ask = [&](const std::string& answer) {
    client.Send(UpgradeRequest());
    AcceptCheck().Send(answer);
    return client.ReadResponse();
  };
  for (const std::string& past : {UnixTimeIn(-1), UnixTimeIn(0), std::string("0"), FixdateIn(-5),
                                  std::string("Mon, 01 Jan 1601 00:00:00 GMT"),
                                  std::string("Mon, 01 Jan 0001 00:00:00 GMT")}) {
    const HttpMessage answer = ask(AllowUntil(past));
    EXPECT_EQ(answer.status, 401) << past;
    EXPECT_EQ(answer.Count("WWW-Authenticate"), 1U);
  }
  AwaitChecks(proxy, "denied", 6);
  for (const std::string bad : {"", "soon", "1e9", "Mon, 01 Jan 2300"}) {
    EXPECT_EQ(ask(AllowUntil(bad)).status, 503) << bad;
  }
  // Two of them, of which one might be meant.
  EXPECT_EQ(ask(AllowUntil(UnixTimeIn(9) + "\r\nX-Auth-Expires: " + UnixTimeIn(9))).status, 503);
  AwaitChecks(proxy, "bad_answer", 5);
  EXPECT_FALSE(backend.HasConnection(Millis(0)));
}

TEST_F(Auth, AStreamOfEventsEndsBetweenTwoOfThemAndItsConnectionToo) {
  AuthServer server([](const HttpMessage&) { return AllowUntil(UnixTimeIn(0.5)); });
  ProxyProcess proxy(
      AuthConfig(backend.port(), server.port(), {}, "auth_expires_header = \"x-auth-expires\""));
  RawClient client(proxy.port());
  client.Send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
  Stream leg = backend.Accept();
  static_cast<void>(leg.ReadRequest());
  leg.Send(
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
      "8\r\ndata: ha\r\n");
  EXPECT_EQ(client.ReadHead().status, 200);
  EXPECT_EQ(client.ReadChunk(), "data: ha");
  EXPECT_FALSE(client.HasInput(Millis(700))) << "ended inside an event";
  leg.Send("4\r\nlf\n\n\r\n7\r\ndata: n\r\n");
  EXPECT_EQ(client.ReadChunk(), "lf\n\n");
  EXPECT_EQ(client.ReadChunk(), "");
  client.ExpectEnd();
}

// Another request on the same connection has a time of its own.
TEST_F(Auth, AnExpiryIsOfOneRequestAlone) {
  AuthServer server([](const HttpMessage& request) {
    return request.Field("X-Original-URI") == "/short" ? AllowUntil(UnixTimeIn(0.3))
                                                       : std::string(kAllow);
  });
  ProxyProcess proxy(
      AuthConfig(backend.port(), server.port(), {}, "auth_expires_header = \"x-auth-expires\""));
  RawClient client(proxy.port());
  client.Send("GET /short HTTP/1.1\r\nHost: a\r\n\r\n");
  static_cast<void>(ServeOne());
  EXPECT_EQ(client.ReadResponse().status, 204);
  client.Send(UpgradeRequest());
  Stream leg = backend.AcceptWebSocket();
  EXPECT_EQ(client.ReadHead().status, 101);
  EXPECT_FALSE(client.HasInput(Millis(500)));
  EXPECT_EQ(proxy.Metric("sluice_own_closes_total"), 0);
}

// Clients.

TEST_F(Auth, RequestsSentOneBehindTheOtherAreAskedAboutInTurn) {
  AuthServer server([](const HttpMessage& request) {
    return request.Field("X-Original-URI") == "/no"
               ? std::string("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
               : std::string(kAllow);
  });
  EchoBackend echo("e");
  ProxyProcess proxy(AuthConfig(echo.port(), server.port()));
  RawClient client(proxy.port());
  std::string all;
  for (int i = 0; i < 30; ++i) {
    all += i % 3 == 1 ? "GET /no HTTP/1.1\r\nHost: a\r\n\r\n"
                      : "POST /" + std::to_string(i) +
                            " HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
  }
  client.Send(all);
  for (int i = 0; i < 30; ++i) {
    const HttpMessage answer = client.ReadResponse();
    EXPECT_EQ(answer.body, i % 3 == 1 ? "no" : "e POST /" + std::to_string(i) + "\n") << i;
  }
  EXPECT_EQ(server.connections(), 1U) << "the connection to it is kept alive";
  EXPECT_EQ(server.requests().size(), 30U);
}

TEST_F(Auth, WhatTheClientSendsMeanwhileWaits) {
  ProxyProcess proxy(WithOneWorker(AuthConfig(backend.port(), auth.port())));
  // Frames behind an upgrade, far more than is held.
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  Stream check = AcceptCheck();
  std::string frames;
  for (int i = 0; i < 400; ++i) {
    frames += BuildFrame(kBinary, Pattern(200, static_cast<unsigned>(i)));
  }
  const std::size_t sent = client.SendSome(frames);
  EXPECT_FALSE(backend.HasConnection(Millis(100)));
  check.Send(kAllow);
  Stream leg = backend.AcceptWebSocket();
  client.Send(std::string_view(frames).substr(sent));
  EXPECT_EQ(leg.ReadExactly(frames.size()), frames);
  EXPECT_EQ(client.ReadHead().status, 101);
  // The content of a request.
  const std::string content = Pattern(300'000);
  RawClient post(proxy.port());
  post.Send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n");
  const std::size_t early = post.SendSome(content);
  static_cast<void>(check.ReadRequest());
  EXPECT_FALSE(backend.HasConnection(Millis(50)));
  check.Send(kAllow);
  post.Send(std::string_view(content).substr(early));
  Stream server = backend.Accept();
  EXPECT_EQ(server.ReadRequest().body, content);
  server.Send("HTTP/1.1 204 No Content\r\n\r\n");
  EXPECT_EQ(post.ReadResponse().status, 204);
}

// Content that nobody reads would be taken for the next request.
TEST_F(Auth, ADenialEndsAConnectionThatHasContentOnIt) {
  AuthServer server([](const HttpMessage&) { return std::string(kDeny); });
  ProxyProcess proxy(AuthConfig(backend.port(), server.port()));
  RawClient client(proxy.port());
  client.Send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\nGET /smuggled HTTP/1.1\r\n");
  const HttpMessage answer = client.ReadResponse();
  EXPECT_EQ(answer.status, 403);
  EXPECT_EQ(answer.Field("Connection"), "close");
  client.ExpectEnd();
  EXPECT_EQ(server.requests().size(), 1U);
}

// auth.timeout is a part of it.
TEST_F(Auth, AnUpgradeIsAskedAboutNoLongerThanItsHandshakeMayTake) {
  ProxyProcess proxy(
      AuthConfig(backend.port(), auth.port(), "timeout = \"1h\"", "handshake_timeout = \"200ms\""));
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  Stream check = AcceptCheck();
  EXPECT_EQ(client.ReadResponse().status, 503);
  static_cast<void>(check.AwaitEnd());
  AwaitChecks(proxy, "timeout", 1);
}

TEST_F(Auth, ARequestThatIsAskedAboutIsInFlight) {
  ProxyProcess proxy(AuthConfig(backend.port(), auth.port()));
  const auto await_in_flight = [&](int count) {
    proxy.AwaitMetric("sluice_http_requests_in_flight", count);
  };
  for (const std::string_view verdict : {kDeny, kAllow, std::string_view("nonsense\r\n\r\n")}) {
    RawClient client(proxy.port());
    client.Send(kAsk);
    Stream check = AcceptCheck();
    await_in_flight(1);
    check.Send(verdict);
    if (verdict == kAllow) {
      Stream leg = backend.Accept();
      static_cast<void>(leg.ReadRequest());
      await_in_flight(1);
      leg.Send("HTTP/1.1 204 No Content\r\n\r\n");
    }
    EXPECT_GE(client.ReadResponse().status, 200);
    await_in_flight(0);
    check.Close();
  }
  RawClient gone(proxy.port());
  gone.Send(kAsk);
  Stream check = AcceptCheck();
  gone.Reset();
  static_cast<void>(check.AwaitEnd());
  await_in_flight(0);
  RawClient upgrade(proxy.port());
  upgrade.Send(UpgradeRequest());
  Stream second = AcceptCheck();
  EXPECT_EQ(proxy.Metric("sluice_http_requests_in_flight"), 0) << "an upgrade is none";
  second.Send(kDeny);
  EXPECT_EQ(upgrade.ReadResponse().status, 403);
  await_in_flight(0);
}

TEST_F(Auth, AClientThatLeavesEndsTheCheck) {
  ProxyProcess proxy(AuthConfig(backend.port(), auth.port(), "timeout = \"1h\""));
  RawClient upgrade(proxy.port());
  upgrade.Send(UpgradeRequest());
  Stream check = AcceptCheck();
  upgrade.FinishWrite();
  static_cast<void>(check.AwaitEnd());
  upgrade.ExpectEnd();
  proxy.AwaitMetric("sluice_upgrades_total{outcome=\"client_gone\"}", 1);
  RawClient plain(proxy.port());
  plain.Send(kAsk);
  Stream second = AcceptCheck();
  plain.Reset();
  static_cast<void>(second.AwaitEnd());
  // With content, which waits in the kernel meanwhile; and without a word of its end but a FIN.
  constexpr std::string_view kPost = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
  for (const auto& [request, resets] :
       {std::pair(kPost, true), {kPost, false}, {std::string_view(kAsk), false}}) {
    RawClient gone(proxy.port());
    gone.Send(request);
    Stream one = AcceptCheck();
    const auto from = Now();
    if (resets) {
      gone.Reset();
    } else {
      gone.Close();
    }
    static_cast<void>(one.AwaitEnd());
    EXPECT_LT(Now() - from, Millis(1000));
  }
  for (const auto& line : proxy.AwaitAccessLog(5)) {
    EXPECT_EQ(line["reason"], "client_gone");
  }
  // One that has only said its last still gets its answers, and then the end.
  for (const std::string_view verdict : {kDeny, kAllow}) {
    RawClient half(proxy.port());
    half.Send(kAsk);
    half.FinishWrite();
    Stream third = AcceptCheck();
    third.Send(verdict);
    if (verdict == kAllow) {
      static_cast<void>(ServeOne());
    }
    EXPECT_EQ(half.ReadResponse().status, verdict == kAllow ? 204 : 403);
    half.ExpectEnd();
    third.Close();
  }
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 0);
  proxy.AwaitMetric("sluice_auth_checks_total", 2);
}

// Connections to it.

TEST_F(Auth, AConnectionThatHasEndedIsReplacedOnce) {
  ProxyProcess proxy(WithOneWorker(AuthConfig(backend.port(), auth.port())));
  RawClient client(proxy.port());
  client.Send(kAsk);
  Stream check = AcceptCheck();
  check.Send(kDeny);
  EXPECT_EQ(client.ReadResponse().status, 403);
  // It is used again ...
  client.Send(kAsk);
  static_cast<void>(check.ReadRequest());
  check.Send(kDeny);
  EXPECT_EQ(client.ReadResponse().status, 403);
  // ... and ends as the next question comes: that goes to a new one.
  client.Send(kAsk);
  static_cast<void>(check.ReadRequest());
  check.Close();
  Stream second = AcceptCheck();
  second.Send(kDeny);
  EXPECT_EQ(client.ReadResponse().status, 403);
  // Once a byte has come it is an answer, and a broken one.
  client.Send(kAsk);
  static_cast<void>(second.ReadRequest());
  second.Send("H");
  second.Close();
  EXPECT_EQ(client.ReadResponse().status, 503);
  // A new one is not tried again.
  client.Send(kAsk);
  Stream third = AcceptCheck();
  third.Close();
  EXPECT_EQ(client.ReadResponse().status, 503);
  // What says more than it was asked is not used again.
  client.Send(kAsk);
  Stream fourth = AcceptCheck();
  fourth.Send(std::string(kDeny) + std::string(kAllow));
  EXPECT_EQ(client.ReadResponse().status, 403);
  static_cast<void>(fourth.AwaitEnd());
  client.Send(kAsk);
  Stream fifth = AcceptCheck();
  fifth.Send("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 403);
  static_cast<void>(fifth.AwaitEnd());
  EXPECT_FALSE(auth.HasConnection(Millis(0)));
  EXPECT_FALSE(backend.HasConnection(Millis(0)));
}

// What it sends unasked may come to the end of what one read takes.
TEST_F(Auth, NoAnswerIsTakenFromAConnectionThatHasOneAlready) {
  constexpr std::size_t kRead = 16'384;
  std::string large = "HTTP/1.1 403 Forbidden\r\nContent-Length: 16000\r\nX-Fill: ";
  large += std::string(kRead - 16'000 - large.size() - 4, 'x') + "\r\n\r\n" +
           std::string(16'000, 'n') +
           "HTTP/1.1 200 OK\r\nX-User: admin\r\nContent-Length: 0\r\n\r\n";
  AuthServer server([&](const HttpMessage& request) {
    return request.Field("X-Original-URI") == "/no" ? large : std::string(kDeny);
  });
  EchoBackend echo;
  ProxyProcess proxy(WithOneWorker(AuthConfig(echo.port(), server.port())));
  for (int i = 0; i < 3; ++i) {
    RawClient client(proxy.port());
    client.Send("GET /no HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(client.ReadResponse().status, 403);
    EXPECT_EQ(client.ReadResponse().status, 403) << "allowed by what nobody had asked for";
  }
  EXPECT_TRUE(echo.heads().empty());
  AwaitChecks(proxy, "denied", 6);
}

TEST_F(Auth, AReloadClosesTheConnectionsThatWaitForAQuestion) {
  ProxyProcess proxy(WithOneWorker(AuthConfig(backend.port(), auth.port())));
  RawClient client(proxy.port());
  client.Send(kAsk);
  Stream waits = AcceptCheck();
  RawClient other(proxy.port());
  other.Send(kAsk);
  Stream asked = AcceptCheck();
  waits.Send(kDeny);
  EXPECT_EQ(client.ReadResponse().status, 403);
  EXPECT_EQ(proxy.Ask("POST", "/reload").status, 200);
  static_cast<void>(waits.AwaitEnd());
  // This one is asked by the old configuration still, and does not wait for another question.
  asked.Send(kDeny);
  EXPECT_EQ(other.ReadResponse().status, 403);
  static_cast<void>(asked.AwaitEnd());
  client.Send(kAsk);
  AcceptCheck().Send(kDeny);
  EXPECT_EQ(client.ReadResponse().status, 403);
}

TEST_F(Auth, NoMoreThanSixteenConnectionsWaitForAQuestion) {
  ProxyProcess proxy(WithOneWorker(AuthConfig(backend.port(), auth.port())));
  constexpr std::size_t kClients = 24;
  std::vector<RawClient> clients;
  std::vector<Stream> checks;
  for (std::size_t i = 0; i < kClients; ++i) {
    clients.emplace_back(proxy.port()).Send(kAsk);
    checks.push_back(AcceptCheck());
  }
  for (Stream& check : checks) {
    check.Send(kDeny);
  }
  for (RawClient& client : clients) {
    EXPECT_EQ(client.ReadResponse().status, 403);
  }
  std::size_t open = 0;
  for (Stream& check : checks) {
    open += check.HasInput(Millis(0)) ? 0 : 1;
  }
  EXPECT_EQ(open, 16U);
}

// Changes while it is asked.

TEST_F(Auth, AReloadMeanwhileLeavesTheRequestToTheConfigurationItBeganWith) {
  ProxyProcess proxy(AuthConfig(backend.port(), auth.port()));
  RawClient client(proxy.port());
  client.Send(kAsk);
  Stream check = AcceptCheck();
  Config without = AuthConfig(backend.port(), auth.port());
  without.route = "";
  without.limits = "max_head_bytes = \"1KiB\"\nmax_request_line = \"256B\"";
  proxy.Configure(without);
  EXPECT_EQ(proxy.Ask("POST", "/reload").status, 200);
  proxy.Stop();  // until the workers have heard of it
  proxy.Continue();
  check.Send("HTTP/1.1 200 OK\r\nX-User: alice\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(ServeOne().Field("X-User"), "alice");
  EXPECT_EQ(client.ReadResponse().status, 204);
  client.Send(kAsk);
  static_cast<void>(ServeOne());  // nobody was asked
  EXPECT_EQ(client.ReadResponse().status, 204);
}

// A head is as large as it may be on the day that it begins.
TEST_F(Auth, AReloadWhileTheHeadComesLeavesItItsLimits) {
  ProxyProcess proxy(WithOneWorker(AuthConfig(backend.port(), auth.port())));
  const std::string large(8'000, 'x');
  RawClient client(proxy.port());
  client.Send("GET /a HTTP/1.1\r\nHost: a\r\nX-Large: " + large + "\r\n");
  RawClient other(proxy.port());
  other.Send(kAsk);
  AcceptCheck().Send(kDeny);
  EXPECT_EQ(other.ReadResponse().status, 403);  // by now the worker has read what came before
  Config smaller = WithOneWorker(AuthConfig(backend.port(), auth.port()));
  smaller.limits = "max_head_bytes = \"4KiB\"\nmax_request_line = \"1KiB\"";
  proxy.Configure(smaller);
  EXPECT_EQ(proxy.Ask("POST", "/reload").status, 200);
  proxy.Stop();  // until the worker has heard of it
  proxy.Continue();
  client.Send("\r\n");
  AcceptCheck().Send("HTTP/1.1 200 OK\r\nX-User: alice\r\nContent-Length: 0\r\n\r\n");
  const HttpMessage request = ServeOne();
  EXPECT_EQ(request.start_line, "GET /a HTTP/1.1");
  EXPECT_EQ(request.Field("X-Large"), large);
  EXPECT_EQ(request.Field("X-User"), "alice");
  EXPECT_EQ(client.ReadResponse().status, 204);
}

TEST_F(Auth, ADrainMeanwhileRefusesUpgradesAndServesTheRest) {
  ProxyProcess proxy(AuthConfig(backend.port(), auth.port()));
  RawClient upgrade(proxy.port());
  upgrade.Send(UpgradeRequest());
  Stream first = AcceptCheck();
  RawClient plain(proxy.port());
  plain.Send(kAsk);
  Stream second = AcceptCheck();
  RawClient denied(proxy.port());
  denied.Send(kAsk);
  Stream third = AcceptCheck();
  proxy.Signal(SIGTERM);
  EXPECT_EQ(upgrade.ReadResponse().status, 503);
  upgrade.ExpectEnd();
  static_cast<void>(first.AwaitEnd());
  second.Send(kAllow);
  static_cast<void>(ServeOne());
  const HttpMessage answer = plain.ReadResponse();
  EXPECT_EQ(answer.status, 204);
  EXPECT_EQ(answer.Field("Connection"), "close");
  third.Send(kDeny);
  EXPECT_EQ(denied.ReadResponse().Field("Connection"), "close");
  plain.ExpectEnd();
  denied.ExpectEnd();
  plain.Close();
  denied.Close();
  upgrade.Close();
  EXPECT_EQ(proxy.Wait(), 0) << proxy.err();
}

// Who somebody is may be what keeps them on their backend.
TEST_F(Auth, WhatItSaysMayBeTheAffinityKey) {
  AuthServer server([](const HttpMessage& request) {
    return "HTTP/1.1 200 OK\r\nX-User: " + request.Field("Authorization") +
           "\r\nContent-Length: 0\r\n\r\n";
  });
  EchoBackend one("one");
  EchoBackend two("two");
  Config config =
      AuthConfig(one.port(), server.port(), {}, "affinity = [\"header:X-User\", \"ip\"]");
  config.backends = {one.port(), two.port()};
  config.pool = "bounded_load = 0";
  ProxyProcess proxy(config);
  std::map<std::string, std::set<std::string>> homes;
  RawClient client(proxy.port());
  for (int i = 0; i < 60; ++i) {
    const std::string user = "user" + std::to_string(i % 20);
    client.Send("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: " + user + "\r\nX-User: mallory" +
                std::to_string(i) + "\r\n\r\n");
    homes[user].insert(client.ReadResponse().body);
  }
  std::set<std::string> used;
  for (const auto& [user, at] : homes) {
    EXPECT_EQ(at.size(), 1U) << user;
    used.insert(at.begin(), at.end());
  }
  EXPECT_EQ(used.size(), 2U) << "twenty users that all have one home would be a wonder";
  EXPECT_EQ(proxy.AwaitAccessLog(1)[0]["affinity"], "header");
}

// The one thing that must never happen.
TEST_F(Auth, NothingPassesWithoutItsWordWhileItDiesAndComesBack) {
  constexpr int kRequests = 1'000;
  std::mutex mutex;
  std::set<std::string> allowed;  // ids of requests, as its answers were made
  AuthServer server([&](const HttpMessage& request) {
    if (request.Field("Authorization") != "yes") {
      return std::string(kDeny);
    }
    const std::lock_guard lock(mutex);
    allowed.insert(request.Field("X-Request-Id"));
    return std::string(kAllow);
  });
  EchoBackend echo;
  Config config = AuthConfig(echo.port(), server.port());
  config.log = "access = \"off\"";
  ProxyProcess proxy(config);
  std::array<RawClient, 8> clients;
  std::map<int, int> statuses;
  std::size_t passed = 0;
  for (int i = 0; i < kRequests;) {
    std::array<bool, clients.size()> may{};
    for (std::size_t k = 0; k < clients.size(); ++k, ++i) {
      if (!clients[k].open()) {
        clients[k] = RawClient(proxy.port());
      }
      may[k] = i % 5 != 0;
      clients[k].Send("GET /" + std::to_string(i) +
                      " HTTP/1.1\r\nHost: a\r\nAuthorization: " + (may[k] ? "yes" : "no") +
                      "\r\nX-Request-Id: r" + std::to_string(i) + "\r\n\r\n");
      if (i % 250 == 100) {
        server.Kill();  // with questions under way
      } else if (i % 250 == 180) {
        server.Start();
      }
    }
    for (std::size_t k = 0; k < clients.size(); ++k) {
      const HttpMessage answer = clients[k].ReadResponse();
      ++statuses[answer.status];
      passed += answer.status == 200 ? 1U : 0U;
      EXPECT_TRUE(may[k] || answer.status != 200);
      if (answer.Field("Connection") == "close") {
        clients[k].Close();
      }
    }
  }
  EXPECT_GT(statuses[200], 300);
  EXPECT_GT(statuses[403], 50);
  EXPECT_GT(statuses[503], 100);
  EXPECT_EQ(statuses[200] + statuses[403] + statuses[503], kRequests);
  const std::vector<HttpMessage> heads = echo.heads();
  EXPECT_EQ(heads.size(), passed);
  const std::lock_guard lock(mutex);
  for (const HttpMessage& head : heads) {
    EXPECT_TRUE(allowed.contains(head.Field("X-Request-Id"))) << head.head;
  }
  AwaitChecks(proxy, "allowed", passed);
  proxy.AwaitMetric("sluice_auth_checks_total", kRequests);
}

}  // namespace
}  // namespace sluice::test
