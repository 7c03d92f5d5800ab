// Proves that a token which a backend hands out in an answer leads whoever brings it back to that
// backend, in whatever pieces the answer comes and whichever worker is asked, that the answer
// itself goes through untouched, and what becomes of clients whose token or backend is gone.
#include <array>
#include <chrono>
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/proxy_process.h"
#include "tests/support/raw_backend.h"
#include "tests/support/raw_client.h"

namespace sluice::test {
namespace {

using std::chrono::steady_clock;

constexpr std::string_view kNegotiate =
    "POST /chat/negotiate HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nContent-Length: "
    "0\r\n\r\n";

// Both backends in turn, so that only what was learned can lead anybody anywhere.
constexpr const char* kInTurn = "balance = \"round_robin\"\nslow_start = \"0s\"";

std::string LearnRoute(const std::string& more = {}) {
  return "affinity = [\"query:id\", \"ip\"]\n"
         "learn = { json = \"connectionToken\", from = \"/negotiate\"" +
         more + " }";
}

std::string ContentWith(std::string_view token) {
  return nlohmann::json{{"availableTransports", nlohmann::json::array()},
                        {"connectionToken", token},
                        {"negotiateVersion", 1}}
      .dump();
}

std::string WithLength(std::string_view content, std::string_view more = {}) {
  return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + std::string(more) +
         "Content-Length: " + std::to_string(content.size()) + "\r\n\r\n" + std::string(content);
}

class LearnedAffinityTest : public testing::Test {
 protected:
  [[nodiscard]] Config ConfigOf(std::string route = LearnRoute(),
                                std::string pool = kInTurn) const {
    return Config{.backends = {backends[0].port(), backends[1].port()},
                  .workers = 2,
                  .route = std::move(route),
                  .pool = std::move(pool),
                  .log = "access = \"json\""};
  }

  // The next connection to either backend, and whose it is.
  std::pair<std::size_t, Stream> Accept() {
    const std::size_t index = AwaitAny({&backends[0], &backends[1]});
    return {index, backends[index].Accept()};
  }

  // A request for a token over a connection of its own, answered with `answer`. Returns which
  // backend was asked.
  std::size_t Negotiate(const ProxyProcess& proxy, const std::string& answer) {
    RawClient client(proxy.port());
    client.Send(kNegotiate);
    auto [index, backend] = Accept();
    const HttpMessage request = backend.ReadRequest();
    EXPECT_EQ(request.target, "/chat/negotiate");
    EXPECT_FALSE(request.Has("Accept-Encoding"));
    backend.Send(answer);
    backend.FinishWrite();
    const HttpMessage got = client.ReadResponse();
    EXPECT_EQ(got.status, 200);
    last_content = got.body;
    return index;
  }

  std::size_t Teach(const ProxyProcess& proxy, std::string_view token) {
    const std::string content = ContentWith(token);
    const std::size_t index = Negotiate(proxy, WithLength(content));
    EXPECT_EQ(last_content, content);
    return index;
  }

  // Which backend a WebSocket with this token in its query lands on.
  std::size_t Land(const ProxyProcess& proxy, const std::string& token) {
    RawClient client(proxy.port());
    client.Send(UpgradeRequest("/chat?id=" + token));
    const std::size_t index = AwaitAny({&backends[0], &backends[1]});
    const Stream backend = backends[index].AcceptWebSocket();
    EXPECT_EQ(client.ReadHead().status, 101);
    return index;
  }

  // So many tokens of one backend.
  std::vector<std::string> TeachOf(const ProxyProcess& proxy, std::size_t backend,
                                   std::size_t count) {
    std::vector<std::string> tokens;
    while (tokens.size() < count) {
      const std::string token = "token-" + std::to_string(++tokens_made);
      if (Teach(proxy, token) == backend) {
        tokens.push_back(token);
      }
    }
    return tokens;
  }

  struct Answer {
    HttpMessage message;
    std::optional<std::size_t> backend;  // which was asked; nothing: none
  };

  // A stream of events with this token, as backend `index` begins it with `events`.
  std::pair<RawClient, Stream> OpenEvents(const ProxyProcess& proxy, const std::string& token,
                                          std::size_t index, const std::string& events) {
    RawClient client(proxy.port());
    client.Send("GET /chat?id=" + token +
                " HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    Stream backend = backends[index].Accept();
    static_cast<void>(backend.ReadRequest());
    backend.Send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + events);
    EXPECT_EQ(client.ReadHead().status, 200);
    return {std::move(client), std::move(backend)};
  }

  static void ReadToLastChunk(RawClient& client) {
    while (!client.ReadChunk().empty()) {  // events, and `retry:`
    }
  }

  // A plain request with this token, over a connection of its own.
  Answer Request(const ProxyProcess& proxy, const std::string& method, const std::string& token,
                 const std::string& more = {}) {
    RawClient client(proxy.port());
    client.Send(method + " /chat?id=" + token + " HTTP/1.1\r\nHost: a\r\n" + more +
                (method == "POST" ? "Content-Length: 0\r\n\r\n" : "\r\n"));
    Answer answer;
    const Deadline deadline;
    while (!answer.backend && !client.HasInput(Millis(1)) && !deadline.passed()) {
      for (std::size_t i = 0; i < backends.size() && !answer.backend; ++i) {
        if (backends[i].HasConnection(Millis(0))) {
          Stream backend = backends[i].Accept();
          static_cast<void>(backend.ReadRequest());
          backend.Send(WithLength("{}"));
          answer.backend = i;
        }
      }
    }
    answer.message = client.ReadResponse();
    return answer;
  }

  static void AwaitDrained(const ProxyProcess& proxy) {
    const Deadline deadline;
    while (proxy.AskJson("GET", "/backends/app/b0")["drain"]["state"] != "drained") {
      ASSERT_FALSE(deadline.passed());
    }
  }

  // Returns when all workers have heard of it.
  static void Reload(const ProxyProcess& proxy, const Config& config) {
    proxy.Configure(config);
    EXPECT_EQ(proxy.Ask("POST", "/reload").status, 200);
    proxy.Stop();
    proxy.Continue();
  }

  std::array<RawBackend, 2> backends;
  std::string last_content;
  unsigned tokens_made = 0;
};

TEST_F(LearnedAffinityTest, AWebSocketLandsOnTheBackendThatHandedOutItsToken) {
  const ProxyProcess proxy(ConfigOf());
  std::array<std::size_t, 2> taught{};
  for (int i = 0; i < 30; ++i) {
    const std::string number = std::to_string(i);
    const std::size_t teacher = Teach(proxy, "a+b/" + number + "==");
    ++taught[teacher];
    ASSERT_EQ(Land(proxy, "a%2Bb%2F" + number + "%3D%3D"), teacher) << i;
    ASSERT_EQ(Land(proxy, "a+b/" + number + "=="), teacher) << i;
  }
  EXPECT_GT(taught[0], 0U);
  EXPECT_GT(taught[1], 0U);
  proxy.AwaitMetric("sluice_affinity_learned_total", 30);
  proxy.AwaitMetric("sluice_affinity_learned_entries", 30);
  proxy.AwaitMetric("sluice_affinity_learned_picks_total{how=\"home\"}", 60);
  EXPECT_EQ(proxy.Metric("sluice_affinity_learned_picks_total{how=\"fallback\"}"), 0);
  EXPECT_EQ(proxy.Metric("sluice_affinity_unreadable_total"), 0);
}

TEST_F(LearnedAffinityTest, AnswersTeachInWhateverPiecesTheyCome) {
  const ProxyProcess proxy(ConfigOf());
  const std::string head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
  const std::string content = "0" + ContentWith("tok");
  for (const std::size_t size : {content.size(), std::size_t{7}, std::size_t{1}}) {
    std::string chunks = head + "Transfer-Encoding: chunked\r\n\r\n";
    for (std::size_t at = 0; at < content.size(); at += size) {
      const std::string chunk = content.substr(at, size);
      std::array<char, 17> digits{};
      std::snprintf(digits.data(), digits.size(), "%zx", chunk.size());
      chunks += std::string(digits.data()) + ";ext=\"}\"\r\n" + chunk + "\r\n";
    }
    const std::size_t teacher = Negotiate(proxy, chunks + "0\r\n\r\n");
    EXPECT_EQ(last_content, content);
    EXPECT_EQ(Land(proxy, "tok"), teacher) << "chunks of " << size;
    EXPECT_EQ(Land(proxy, "tok"), teacher) << "chunks of " << size;
  }
  const std::size_t teacher = Negotiate(proxy, head + "\r\n" + content);  // to its end
  EXPECT_EQ(last_content, content);
  EXPECT_EQ(Land(proxy, "tok"), teacher);
  EXPECT_EQ(Land(proxy, "tok"), teacher);
  proxy.AwaitMetric("sluice_affinity_learned_total", 4);
  proxy.AwaitMetric("sluice_affinity_learned_entries", 1);
}

TEST_F(LearnedAffinityTest, ATokenIsKnownWhenTheClientHasItAndNothingIsHeldBack) {
  const ProxyProcess proxy(ConfigOf());
  RawClient client(proxy.port());
  client.Send(kNegotiate);
  auto [teacher, backend] = Accept();
  static_cast<void>(backend.ReadRequest());
  const std::string content = ContentWith("token-1");
  const std::size_t quote = content.find("token-1") + 8;
  const std::string answer = WithLength(content);
  const std::string head = answer.substr(0, answer.size() - content.size());
  backend.Send(head);
  EXPECT_EQ(client.ReadHead().status, 200);
  for (std::size_t at = 0; at < quote; ++at) {
    backend.Send(content.substr(at, 1));
    ASSERT_EQ(client.ReadExactly(1), content.substr(at, 1));
  }
  // The client has the token, and half of the answer.
  EXPECT_EQ(Land(proxy, "token-1"), teacher);
  EXPECT_EQ(Land(proxy, "token-1"), teacher);
  backend.Send(content.substr(quote));
  EXPECT_EQ(client.ReadExactly(content.size() - quote), content.substr(quote));
}

TEST_F(LearnedAffinityTest, PlainRequestsFollowTheirTokenToo) {
  const ProxyProcess proxy(ConfigOf());
  const std::size_t teacher = Teach(proxy, "t");
  RawClient client(proxy.port());
  for (int i = 0; i < 3; ++i) {
    // A poll is not looked at, though its path ends alike.
    client.Send("GET /negotiate?id=t HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    auto [index, backend] = Accept();
    EXPECT_EQ(index, teacher);
    EXPECT_EQ(backend.ReadRequest().Field("Accept-Encoding"), "gzip");
    backend.Send(WithLength(ContentWith("another")));
    EXPECT_EQ(client.ReadResponse().body, ContentWith("another"));
  }
  proxy.AwaitMetric("sluice_affinity_learned_total", 1);
  EXPECT_EQ(proxy.Metric("sluice_affinity_unreadable_total"), 0);
}

TEST_F(LearnedAffinityTest, WhatCannotBeReadGoesThroughAndIsCounted) {
  const ProxyProcess proxy(ConfigOf());
  const std::string content = ContentWith("t");
  Negotiate(proxy, WithLength(content, "Content-Encoding: br\r\n"));
  EXPECT_EQ(last_content, content);
  proxy.AwaitMetric("sluice_affinity_unreadable_total{reason=\"encoded\"}", 1);
  double unreadable = 0;
  for (const std::string& other :
       {std::string("<html></html>"), std::string("{\"connectionToken\":"), std::string(),
        "{\"url\":\"" + std::string(100'000, 'x') + "\",\"connectionToken\":\"t\"}"}) {
    Negotiate(proxy, WithLength(other));
    EXPECT_EQ(last_content, other);
    proxy.AwaitMetric("sluice_affinity_unreadable_total{reason=\"no_token\"}", ++unreadable);
  }
  EXPECT_EQ(proxy.Metric("sluice_affinity_learned_total"), 0);
}

TEST_F(LearnedAffinityTest, AFullTableForgetsTheOldestToken) {
  ProxyProcess proxy(ConfigOf(LearnRoute(", max_entries = 3")));
  std::array<std::size_t, 5> teachers{};
  for (std::size_t i = 1; i <= 3; ++i) {
    teachers[i] = Teach(proxy, "t" + std::to_string(i));
  }
  EXPECT_EQ(Land(proxy, "t1"), teachers[1]);  // so that the second is the oldest
  teachers[4] = Teach(proxy, "t4");
  proxy.AwaitMetric("sluice_affinity_learned_evicted_total", 1);
  proxy.AwaitMetric("sluice_affinity_learned_entries", 3);
  for (const std::size_t kept : {1, 3, 4}) {
    EXPECT_EQ(Land(proxy, "t" + std::to_string(kept)), teachers[kept]) << kept;
  }
  proxy.AwaitMetric("sluice_affinity_learned_picks_total{how=\"home\"}", 4);
  static_cast<void>(Land(proxy, "t2"));
  proxy.AwaitMetric("sluice_affinity_learned_picks_total", 4);
  // Four requests for tokens by the address, four sessions by what was learned, one by its key.
  std::map<std::string, int> decided;
  for (const nlohmann::json& line : proxy.AwaitAccessLog(9)) {
    ++decided[line["affinity"].get<std::string>()];
  }
  EXPECT_EQ(decided, (std::map<std::string, int>{{"ip", 4}, {"learned", 4}, {"query", 1}}));
}

// The sessions of a backend that drains, each of them polls and messages beside them: none is asked
// of a stranger, and their ends are spread over the window.
TEST_F(LearnedAffinityTest, SessionsEndOneByOneWhileTheirBackendDrains) {
  constexpr double kWindow = 0.6;
  ProxyProcess proxy(ConfigOf());
  std::vector<std::string> tokens = TeachOf(proxy, 0, 16);
  const auto began = steady_clock::now();
  EXPECT_EQ(proxy.Ask("POST", "/backends/app/b0/drain?window=600ms").status, 202);
  std::vector<double> ends;
  std::size_t messages = 0;
  const Deadline deadline;
  while (ends.size() < tokens.size()) {
    ASSERT_FALSE(deadline.passed()) << ends.size();
    for (std::string& token : tokens) {
      if (token.empty()) {
        continue;
      }
      const Answer message = Request(proxy, "POST", token);
      const double now = std::chrono::duration<double>(steady_clock::now() - began).count();
      EXPECT_TRUE(message.backend == 0U || now >= kWindow) << now;
      messages += message.backend == 0U ? 1 : 0;
      const Answer poll = Request(proxy, "GET", token);
      if (!poll.backend) {
        EXPECT_EQ(poll.message.status, 503);
        EXPECT_TRUE(poll.message.Has("Retry-After"));
        EXPECT_EQ(Request(proxy, "POST", token).message.status, 503) << "it is over in all ways";
        ends.push_back(now);
        token.clear();
      } else {
        EXPECT_EQ(poll.backend, 0U);
      }
    }
  }
  EXPECT_GE(messages, tokens.size());
  EXPECT_GE(ends.back() - ends.front(), kWindow / 3);
  EXPECT_EQ(Teach(proxy, "new"), 1U);
  EXPECT_EQ(proxy.Metric("sluice_affinity_learned_picks_total{how=\"fallback\"}"), 0);
  EXPECT_GE(proxy.Metric("sluice_affinity_learned_picks_total{how=\"ended\"}"),
            2 * static_cast<double>(tokens.size()));
  AwaitDrained(proxy);
}

TEST_F(LearnedAffinityTest, SessionsEndAtOnceWithoutAWindow) {
  ProxyProcess proxy(ConfigOf());
  const std::vector<std::string> tokens = TeachOf(proxy, 0, 3);
  const std::size_t lines = proxy.AwaitAccessLog(1).size();
  EXPECT_EQ(proxy.Ask("POST", "/backends/app/b0/drain?window=0s").status, 202);
  EXPECT_EQ(Request(proxy, "GET", tokens[0]).message.status, 503);
  // An EventSource whose connection only ended would come back for ever.
  EXPECT_EQ(Request(proxy, "GET", tokens[1], "Accept: text/event-stream\r\n").message.status, 503);
  RawClient client(proxy.port());
  EXPECT_EQ(client.Upgrade("/chat?id=" + tokens[2]).status, 503);
  EXPECT_FALSE(backends[0].HasConnection(Millis(0)));
  EXPECT_FALSE(backends[1].HasConnection(Millis(0)));
  proxy.AwaitMetric("sluice_affinity_learned_picks_total{how=\"ended\"}", 3);
  proxy.AwaitMetric("sluice_upgrades_total{outcome=\"draining\"}", 1);
  std::size_t told = 0;
  for (const Deadline deadline; told < 3 && !deadline.passed();) {
    told = 0;
    for (const nlohmann::json& line : proxy.AwaitAccessLog(lines)) {
      told +=
          line.value("reason", "") == "session_drained" && line["affinity"] == "learned" ? 1 : 0;
    }
  }
  EXPECT_EQ(told, 3U);
}

// A hub forgets a session with its stream: what is said beside it afterwards is not for it.
TEST_F(LearnedAffinityTest, ASessionEndsWithItsEventStream) {
  ProxyProcess proxy(ConfigOf());
  const std::vector<std::string> tokens = TeachOf(proxy, 0, 1);
  auto [client, backend] = OpenEvents(proxy, tokens[0], 0, "data: 1\n\n");
  EXPECT_EQ(proxy.Ask("POST", "/backends/app/b0/drain?window=600ms").status, 202);
  ReadToLastChunk(client);
  const Answer late = Request(proxy, "POST", tokens[0]);
  EXPECT_EQ(late.message.status, 503);
  EXPECT_FALSE(late.backend);
}

// Until then it is the hub's to answer.
TEST_F(LearnedAffinityTest, ASessionLastsAsLongAsItsEventStream) {
  ProxyProcess proxy(ConfigOf());
  const std::vector<std::string> tokens = TeachOf(proxy, 0, 1);
  auto [client, backend] = OpenEvents(proxy, tokens[0], 0, "data: tw");
  EXPECT_EQ(client.ReadChunk(), "data: tw");
  const auto began = steady_clock::now();
  EXPECT_EQ(proxy.Ask("POST", "/backends/app/b0/drain?window=3s").status, 202);
  // At some moment of the window the stream is to end with the event that is on its way.
  while (steady_clock::now() - began < Millis(2000)) {
    ASSERT_EQ(Request(proxy, "POST", tokens[0]).backend, 0U);
    ASSERT_FALSE(client.HasInput(Millis(50)));
  }
  backend.Send("o\n\n");
  ReadToLastChunk(client);
  EXPECT_EQ(Request(proxy, "POST", tokens[0]).message.status, 503);
}

// One request that is lost is not the end of the session that it was of.
TEST_F(LearnedAffinityTest, ARequestThatFailsEndsNoSessionOfABackendThatDrains) {
  ProxyProcess proxy(ConfigOf());
  const std::vector<std::string> tokens = TeachOf(proxy, 0, 1);
  EXPECT_EQ(proxy.Ask("POST", "/backends/app/b0/drain?window=60s").status, 202);
  RawClient client(proxy.port());
  client.Send("GET /chat?id=" + tokens[0] + " HTTP/1.1\r\nHost: a\r\n\r\n");
  {
    Stream backend = backends[0].Accept();
    static_cast<void>(backend.ReadRequest());
  }
  EXPECT_EQ(client.ReadResponse().status, 502);
  EXPECT_EQ(Request(proxy, "POST", tokens[0]).backend, 0U);
  EXPECT_EQ(proxy.Metric("sluice_affinity_learned_picks_total{how=\"ended\"}"), 0);
}

TEST_F(LearnedAffinityTest, AStreamElsewhereEndsNoSession) {
  ProxyProcess proxy(ConfigOf());
  const std::vector<std::string> tokens = TeachOf(proxy, 0, 1);
  backends[0].StopListening();
  auto [client, backend] = OpenEvents(proxy, tokens[0], 1, "data: 1\n\n");
  EXPECT_EQ(proxy.Ask("POST", "/backends/app/b1/drain?window=0s").status, 202);
  ReadToLastChunk(client);
  EXPECT_EQ(Request(proxy, "POST", tokens[0]).message.status, 503);
  proxy.AwaitMetric("sluice_affinity_learned_picks_total{how=\"home\"}", 2);  // was tried
  EXPECT_EQ(proxy.Metric("sluice_affinity_learned_picks_total{how=\"ended\"}"), 0);
}

TEST_F(LearnedAffinityTest, AnUndrainInBetweenMakesAllAsBefore) {
  ProxyProcess proxy(ConfigOf());
  const std::vector<std::string> tokens = TeachOf(proxy, 0, 1);
  EXPECT_EQ(proxy.Ask("POST", "/backends/app/b0/drain?window=60s").status, 202);
  {
    // What is open is what the drain waits for.
    RawClient client(proxy.port());
    client.Send("POST /chat?id=" + tokens[0] + " HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    Stream backend = backends[0].Accept();
    static_cast<void>(backend.ReadRequest());
    EXPECT_EQ(proxy.AskJson("GET", "/backends/app/b0")["drain"]["state"], "draining");
    backend.Send(WithLength("{}"));
    EXPECT_EQ(client.ReadResponse().status, 200);
  }
  EXPECT_EQ(proxy.Ask("POST", "/backends/app/b0/undrain").status, 200);
  EXPECT_EQ(Request(proxy, "GET", tokens[0]).backend, 0U);
  EXPECT_EQ(Land(proxy, tokens[0]), 0U);
  EXPECT_EQ(proxy.Metric("sluice_affinity_learned_picks_total{how=\"ended\"}"), 0);
}

// It was drained to be restarted: who comes late is not to ask what is there instead.
TEST_F(LearnedAffinityTest, ASessionOfBeforeADrainIsNothingToTheBackendThatIsBack) {
  ProxyProcess proxy(ConfigOf());
  const std::vector<std::string> tokens = TeachOf(proxy, 0, 1);
  EXPECT_EQ(proxy.Ask("POST", "/backends/app/b0/drain?window=0s").status, 202);
  AwaitDrained(proxy);
  EXPECT_EQ(proxy.Ask("POST", "/backends/app/b0/undrain").status, 200);
  EXPECT_EQ(Request(proxy, "GET", tokens[0]).message.status, 503);
  const std::vector<std::string> again = TeachOf(proxy, 0, 1);
  EXPECT_EQ(Request(proxy, "GET", again[0]).backend, 0U);
}

TEST_F(LearnedAffinityTest, SessionsGoOnAtABackendThatAReloadHasTakenOut) {
  Config config = ConfigOf();
  config.drain = "window = \"600ms\"";
  ProxyProcess proxy(config);
  const std::vector<std::string> tokens = TeachOf(proxy, 0, 2);
  const std::vector<std::string> others = TeachOf(proxy, 1, 1);
  // By name, so that b1 stays b1.
  Config without = config;
  without.backends = {backends[1].port()};
  std::string text = without.Text();
  text.replace(text.find("\"b0\""), 4, "\"b1\"");
  const auto began = steady_clock::now();
  proxy.Configure(text);
  EXPECT_EQ(proxy.Ask("POST", "/reload").status, 200);
  std::size_t served = 0;
  const Deadline deadline;
  for (bool over = false; !over;) {
    ASSERT_FALSE(deadline.passed());
    const Answer message = Request(proxy, "POST", tokens[0]);
    const double now = std::chrono::duration<double>(steady_clock::now() - began).count();
    over = !message.backend;
    EXPECT_TRUE(over ? now >= 0.6 : message.backend == 0U) << now;
    served += over ? 0 : 1;
    EXPECT_EQ(Request(proxy, "GET", others[0]).backend, 1U);
  }
  EXPECT_GT(served, 0U);
  EXPECT_EQ(Request(proxy, "GET", tokens[1]).message.status, 503);
  EXPECT_EQ(Teach(proxy, "new"), 1U);
  EXPECT_EQ(proxy.Metric("sluice_affinity_learned_picks_total{how=\"fallback\"}"), 0);

  // One that comes back under the same name is another one, which knows no token.
  Reload(proxy, config);
  EXPECT_EQ(Request(proxy, "GET", tokens[1]).message.status, 503);
  EXPECT_EQ(Request(proxy, "GET", others[0]).backend, 1U);
}

TEST_F(LearnedAffinityTest, WhoseBackendRefusesIsServedByAnother) {
  const ProxyProcess proxy(ConfigOf());
  const std::size_t teacher = Teach(proxy, "t");
  backends[teacher].StopListening();
  RawClient client(proxy.port());
  client.Send(UpgradeRequest("/chat?id=t"));
  const Stream other = backends[1 - teacher].AcceptWebSocket();
  EXPECT_EQ(client.ReadHead().status, 101);
  proxy.AwaitMetric("sluice_affinity_learned_picks_total{how=\"home\"}", 1);
  proxy.AwaitMetric("sluice_affinity_learned_picks_total{how=\"fallback\"}", 1);
}

// Elsewhere nobody knows the token: it is to come again rather than to go there.
TEST_F(LearnedAffinityTest, WaitsForItsBackendWhereThatTakesNoMoreSessions) {
  const ProxyProcess proxy(ConfigOf(
      LearnRoute(), std::string(kInTurn) + "\nhandshake_rate = 0.01\nhandshake_burst = 1"));
  const std::size_t teacher = Teach(proxy, "t");
  EXPECT_EQ(Land(proxy, "t"), teacher);
  RawClient client(proxy.port());
  const HttpMessage refused = client.Upgrade("/chat?id=t");
  EXPECT_EQ(refused.status, 503);
  EXPECT_TRUE(refused.Has("Retry-After"));
  EXPECT_FALSE(backends[1 - teacher].HasConnection(Millis(0)));
  EXPECT_EQ(Land(proxy, "unknown"), 1 - teacher) << "who has no home goes where there is room";
}

TEST_F(LearnedAffinityTest, ACookieOfOursDecidesWhereItIsBrought) {
  const ProxyProcess proxy(ConfigOf(LearnRoute() + "\naffinity_cookie = \"stick\""));
  RawClient client(proxy.port());
  client.Send(kNegotiate);
  auto [first, backend] = Accept();
  static_cast<void>(backend.ReadRequest());
  backend.Send(WithLength(ContentWith("t")));
  const std::string set = client.ReadResponse().Field("Set-Cookie");
  const std::string cookie = "Cookie: " + set.substr(0, set.find(';')) + "\r\n";
  // Somebody else's token does not take the cookie's client away.
  std::string others;
  for (int i = 0; others.empty(); ++i) {
    const std::string token = "u" + std::to_string(i);
    others = Teach(proxy, token) == first ? "" : token;
  }
  for (const bool with_cookie : {true, false}) {
    RawClient next(proxy.port());
    next.Send(UpgradeRequest("/chat?id=" + others, with_cookie ? cookie : ""));
    const std::size_t index = AwaitAny({&backends[0], &backends[1]});
    EXPECT_EQ(index, with_cookie ? first : 1 - first);
    const Stream peer = backends[index].AcceptWebSocket();
    EXPECT_EQ(next.ReadHead().status, 101);
  }
}

}  // namespace
}  // namespace sluice::test
