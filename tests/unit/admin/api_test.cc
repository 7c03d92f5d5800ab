// Proves that every path of the admin API reaches its operation with the parameters as they were
// meant, that whatever is wrong is refused by name before anything happens, and what JSON answers.
#include "proxy/admin/api.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include "tests/unit/admin/fake_operations.h"

namespace sluice::admin {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class ApiTest : public testing::Test {
 protected:
  ApiTest() {
    BackendInfo one;
    one.pool = "chat";
    one.name = "chat-1";
    one.address = "10.0.0.1:9000";
    one.open = 3;
    BackendInfo two = one;
    two.name = "10.0.0.2:9000";
    two.weight = 2;
    two.draining = true;
    two.health = {"ejected", "5 failures in a row", 1.7e9};
    two.drain = DrainProgress{"draining", 10, 4, 5, 1, 1.23456, 30, 2, 2};
    BackendInfo other = one;
    other.pool = "b";
    operations.backends = {one, two, other};
  }

  AdminReply Send(AdminRequest request) {
    AdminReply got;
    got.status = 0;  // not answered
    request.peer = "127.0.0.1:5000";
    const Api api(operations);
    api(request, [&](AdminReply reply) { got = std::move(reply); });
    return got;
  }

  AdminReply Call(std::string method, std::string path, std::string query = {}) {
    AdminRequest request;
    request.method = std::move(method);
    request.path = std::move(path);
    request.query = std::move(query);
    return Send(std::move(request));
  }

  AdminReply CallWithContent(std::string path, std::string body,
                             std::string type = "application/json") {
    AdminRequest request;
    request.method = "POST";
    request.path = std::move(path);
    request.content_type = std::move(type);
    request.body = std::move(body);
    return Send(std::move(request));
  }

  // The answer is a problem document with `status` whose detail has `part`; nothing has happened.
  void ExpectProblem(const AdminReply& reply, int status, std::string_view part) {
    EXPECT_EQ(reply.status, status) << reply.body;
    EXPECT_EQ(reply.content_type, kProblemJson);
    const json problem = json::parse(reply.body, nullptr, false);
    ASSERT_TRUE(problem.is_object()) << reply.body;
    EXPECT_EQ(problem.at("type"), "about:blank");
    EXPECT_EQ(problem.at("status"), status);
    EXPECT_NE(problem.at("title"), "");
    EXPECT_THAT(problem.at("detail").get<std::string>(), HasSubstr(part));
    EXPECT_THAT(operations.calls, IsEmpty());
  }

  FakeOperations operations;
};

json Parsed(const AdminReply& reply) {
  EXPECT_EQ(reply.content_type, kJson);
  return json::parse(reply.body);
}

TEST_F(ApiTest, AnswersProbesInPlainText) {
  AdminReply reply = Call("GET", "/healthz");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body, "ok\n");
  EXPECT_EQ(reply.content_type, kPlainText);
  reply = Call("GET", "/readyz", "verbose&x=%");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body, "ready\n");
  operations.readiness = {false, "draining"};
  reply = Call("GET", "/readyz");
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.body, "draining\n");
  EXPECT_EQ(Call("GET", "/healthz").status, 200);
  reply = Call("GET", "/metrics");
  EXPECT_EQ(reply.body, "up 1\n");
  EXPECT_THAT(std::string(reply.content_type), HasSubstr("version=0.0.4"));
}

TEST_F(ApiTest, ShowsTheConfigurationAsTheServerGivesIt) {
  const AdminReply reply = Call("GET", "/config");
  EXPECT_EQ(reply.body, "{\"admin\":{}}");
  EXPECT_EQ(reply.content_type, kJson);
}

TEST_F(ApiTest, TellsTheStatus) {
  operations.status.version = "1.2.3";
  operations.status.pid = 42;
  operations.status.uptime_seconds = 1.5;
  operations.status.max_connections = 1000;
  json status = Parsed(Call("GET", "/status"));
  EXPECT_EQ(status.at("version"), "1.2.3");
  EXPECT_EQ(status.at("pid"), 42);
  EXPECT_EQ(status.at("uptime_seconds"), 1.5);
  EXPECT_EQ(status.at("max_connections"), 1000);
  EXPECT_EQ(status.at("draining"), false);
  EXPECT_TRUE(status.at("taken_over_from").is_null());
  operations.status.taken_over_from = 41;
  EXPECT_EQ(Parsed(Call("GET", "/status")).at("taken_over_from"), 41);
}

TEST_F(ApiTest, ListsBackends) {
  const json all = Parsed(Call("GET", "/backends"));
  EXPECT_EQ(all.at("backends").size(), 3U);
  const json pool = Parsed(Call("GET", "/backends/chat"));
  ASSERT_EQ(pool.at("backends").size(), 2U);
  EXPECT_TRUE(pool.at("backends")[0].at("drain").is_null());
  const json drain = pool.at("backends")[1].at("drain");
  EXPECT_EQ(drain, json::parse(R"({"state":"draining","total":10,"remaining":4,"clean":5,"forced":1,
      "elapsed_seconds":1.235,"window_seconds":30.0,"rate_per_second":2.0,"eta_seconds":2.0})"));
  ExpectProblem(Call("GET", "/backends/nope"), 404, "\"nope\"");
}

TEST_F(ApiTest, SaysHowABackendIs) {
  operations.backends[0].health.since = 1.7e9;
  const json document = Parsed(Call("GET", "/backends")).at("backends");
  EXPECT_EQ(document[0].at("health"),
            json::parse(R"({"state":"up","last_error":null,"since":1700000000.0})"));
  EXPECT_EQ(document[1].at("health"),
            json::parse(R"({"state":"ejected","last_error":"5 failures in a row",
                            "since":1700000000.0})"));
}

TEST_F(ApiTest, FindsABackendWhoseNameIsEncoded) {
  EXPECT_EQ(Parsed(Call("GET", "/backends/chat/10.0.0.2:9000")).at("weight"), 2);
  EXPECT_EQ(Parsed(Call("GET", "/backends/%63hat/10.0.0.2%3A9000")).at("weight"), 2);
  operations.backends[0].name = "a/b";
  EXPECT_EQ(Parsed(Call("GET", "/backends/chat/a%2Fb")).at("open"), 3);
  ExpectProblem(Call("GET", "/backends/chat/nope"), 404, "\"chat/nope\"");
}

TEST_F(ApiTest, SaysThatAnUnknownEtaIsUnknown) {
  operations.backends[1].drain->eta_seconds = -1;
  const json backend = Parsed(Call("GET", "/backends/chat/10.0.0.2:9000"));
  EXPECT_TRUE(backend.at("drain").at("eta_seconds").is_null());
}

TEST_F(ApiTest, DrainsABackend) {
  const AdminReply reply = Call("POST", "/backends/chat/chat-1/drain");
  EXPECT_EQ(reply.status, 202);
  EXPECT_EQ(Parsed(reply).at("name"), "chat-1");
  EXPECT_THAT(operations.calls, ElementsAre("drain chat chat-1"));
  EXPECT_FALSE(operations.drain_order->window.has_value());
  EXPECT_FALSE(operations.drain_order->rate.has_value());
  EXPECT_FALSE(operations.drain_order->force);
}

TEST_F(ApiTest, TakesTheParametersOfADrainFromTheQueryOrTheContent) {
  EXPECT_EQ(Call("POST", "/backends/chat/chat-1/drain", "window=90s&rate=0.5&force=true").status,
            202);
  EXPECT_EQ(operations.drain_order->window, Millis(90'000));
  EXPECT_EQ(operations.drain_order->rate, 0.5);
  EXPECT_TRUE(operations.drain_order->force);
  EXPECT_EQ(CallWithContent("/backends/chat/chat-1/drain",
                            R"({"window":"0s","rate":1000000,"force":false})",
                            "Application/JSON; charset=utf-8")
                .status,
            202);
  EXPECT_EQ(operations.drain_order->window, Millis(0));
  EXPECT_EQ(operations.drain_order->rate, 1e6);
  EXPECT_FALSE(operations.drain_order->force);
}

TEST_F(ApiTest, RefusesWrongParametersOfADrain) {
  const std::string path = "/backends/chat/chat-1/drain";
  ExpectProblem(Call("POST", path, "window=soon"), 400, "window: \"soon\"");
  ExpectProblem(Call("POST", path, "window=25h"), 400, "0s to 24h");
  ExpectProblem(Call("POST", path, "window="), 400, "window: ");
  for (const char* rate : {"0", "-1", "nan", "inf", "1000001", "5x", "", "0x10"}) {
    ExpectProblem(Call("POST", path, std::string("rate=") + rate), 400, "rate: ");
  }
  ExpectProblem(Call("POST", path, "force=yes"), 400, "force: \"yes\"");
  ExpectProblem(Call("POST", path, "windo=1s"), 400, "allowed: window, rate and force");
  ExpectProblem(Call("POST", path, "rate=1&rate=2"), 400, "rate is given twice");
  ExpectProblem(Call("POST", path, "window=%3"), 400, "%");
  ExpectProblem(Call("POST", path, "window=%zz"), 400, "%");
}

TEST_F(ApiTest, RefusesContentThatIsNotTheObjectItShouldBe) {
  const std::string path = "/backends/chat/chat-1/drain";
  ExpectProblem(CallWithContent(path, "window=1s", "application/x-www-form-urlencoded"), 415,
                "application/json");
  ExpectProblem(CallWithContent(path, "{}", ""), 415, "application/json");
  ExpectProblem(CallWithContent(path, "{"), 400, "JSON object");
  ExpectProblem(CallWithContent(path, "[]"), 400, "JSON object");
  ExpectProblem(CallWithContent(path, "\"\xff\""), 400, "JSON object");
  ExpectProblem(CallWithContent(path, std::string(60'000, '[')), 400, "JSON object");
  ExpectProblem(CallWithContent(path, R"({"window":30})"), 400, "window has to be a string");
  ExpectProblem(CallWithContent(path, R"({"window":null})"), 400, "window has to be a string");
  ExpectProblem(CallWithContent(path, R"({"rate":"5"})"), 400, "rate has to be a number");
  ExpectProblem(CallWithContent(path, R"({"force":"true"})"), 400, "force has to be true or false");
  ExpectProblem(CallWithContent(path, R"({"rates":5})"), 400, "\"rates\"");
  ExpectProblem(CallWithContent(path, R"({"rate":5,"rate":6})"), 400, "given twice");
}

TEST_F(ApiTest, RefusesAParameterThatIsBothInTheQueryAndTheContent) {
  AdminRequest request;
  request.method = "POST";
  request.path = "/backends/chat/chat-1/drain";
  request.query = "rate=1";
  request.content_type = "application/json";
  request.body = R"({"rate":1})";
  ExpectProblem(Send(request), 400, "rate is given twice");
}

TEST_F(ApiTest, PassesOnWhatTheServerRefuses) {
  const AdminReply reply = Call("POST", "/backends/chat/nope/drain");
  EXPECT_EQ(reply.status, 404);
  EXPECT_EQ(reply.content_type, kProblemJson);
  EXPECT_EQ(json::parse(reply.body).at("title"), "Not Found");
}

TEST_F(ApiTest, UndrainsABackendEitherWay) {
  EXPECT_EQ(Call("POST", "/backends/chat/chat-1/undrain").status, 200);
  EXPECT_EQ(Call("DELETE", "/backends/b/chat-1/drain").status, 200);
  EXPECT_THAT(operations.calls, ElementsAre("undrain chat chat-1", "undrain b chat-1"));
}

TEST_F(ApiTest, ListsSessions) {
  SessionInfo session;
  session.id = 18'000'000'000'000'000'000U;
  session.client = "10.0.0.7:5";
  session.state = "open";
  operations.sessions = {{session}, 7};
  const json list = Parsed(Call("GET", "/sessions"));
  EXPECT_EQ(list.at("matching"), 7);
  ASSERT_EQ(list.at("sessions").size(), 1U);
  EXPECT_EQ(list.at("sessions")[0].at("id"), session.id);
  EXPECT_EQ(operations.list_filter->limit, 100U);
  EXPECT_FALSE(operations.list_filter->id.has_value());
}

TEST_F(ApiTest, TakesFiltersOfSessions) {
  EXPECT_EQ(Call("GET", "/sessions",
                 "backend=chat%2Fchat-1&route=*%2F&client_ip=::FFFF:10.0.0.7&affinity=a+b%2Bc&"
                 "limit=10000")
                .status,
            200);
  const SessionFilter& filter = *operations.list_filter;
  EXPECT_EQ(filter.pool, "chat");
  EXPECT_EQ(filter.backend, "chat-1");
  EXPECT_EQ(filter.route, "*/");
  EXPECT_EQ(filter.client_ip, "10.0.0.7");
  EXPECT_EQ(filter.affinity, "a b+c");
  EXPECT_EQ(filter.limit, 10'000U);
}

TEST_F(ApiTest, RefusesWrongFiltersOfSessions) {
  for (const char* limit : {"0", "10001", "-1", "1.0", "x", ""}) {
    ExpectProblem(Call("GET", "/sessions", std::string("limit=") + limit), 400,
                  "a whole number from 1 to 10000");
  }
  ExpectProblem(Call("GET", "/sessions", "client_ip=localhost"), 400, "not a numeric address");
  ExpectProblem(Call("GET", "/sessions", "client_ip=10.0.0.1%00"), 400, "not a numeric address");
  ExpectProblem(Call("GET", "/sessions", "pool="), 400, "pool is empty");
  ExpectProblem(Call("GET", "/sessions", "pool=a&backend=b/c"), 400, "not in the pool \"a\"");
  ExpectProblem(Call("GET", "/sessions", "backend=/c"), 400, "POOL/NAME");
  ExpectProblem(Call("GET", "/sessions", "code=1000"), 400, "\"code\"");
}

TEST_F(ApiTest, ShowsOneSession) {
  operations.sessions.sessions.resize(1);
  operations.sessions.sessions[0].id = 5;
  EXPECT_EQ(Parsed(Call("GET", "/sessions/5")).at("id"), 5);
  EXPECT_EQ(operations.list_filter->id, 5U);
  operations.sessions = {};
  EXPECT_EQ(Call("GET", "/sessions/6").status, 404);
  operations.calls.clear();
  ExpectProblem(Call("GET", "/sessions/x"), 404, "\"x\"");
  ExpectProblem(Call("GET", "/sessions/18446744073709551616"), 404, "no session");
}

TEST_F(ApiTest, AnswersWhenTheOperationDoes) {
  operations.hold = true;
  std::vector<AdminReply> replies;
  AdminRequest request;
  request.path = "/sessions";
  const Api api(operations);
  api(request, [&](AdminReply reply) { replies.push_back(std::move(reply)); });
  EXPECT_TRUE(replies.empty());
  ASSERT_EQ(operations.held.size(), 1U);
  operations.held[0]();
  ASSERT_EQ(replies.size(), 1U);
  EXPECT_EQ(replies[0].status, 200);
}

TEST_F(ApiTest, ClosesOneSession) {
  operations.kicked = 1;
  EXPECT_EQ(Parsed(Call("DELETE", "/sessions/9", "code=4001&reason=bye+now")).at("kicked"), 1);
  EXPECT_EQ(operations.kick_order->filter.id, 9U);
  EXPECT_EQ(operations.kick_order->code, 4001);
  EXPECT_EQ(operations.kick_order->reason, "bye now");
  operations.kicked = 0;
  EXPECT_EQ(Call("DELETE", "/sessions/9").status, 404);
  EXPECT_EQ(operations.kick_order->code, 0);
}

TEST_F(ApiTest, ClosesTheSessionsThatMatch) {
  operations.kicked = 3;
  EXPECT_EQ(Parsed(Call("DELETE", "/sessions", "backend=chat/chat-1&code=1012")).at("kicked"), 3);
  EXPECT_EQ(operations.kick_order->filter.pool, "chat");
  EXPECT_EQ(operations.kick_order->filter.backend, "chat-1");
  operations.kicked = 0;
  EXPECT_EQ(Parsed(Call("DELETE", "/sessions", "route=x")).at("kicked"), 0);
}

TEST_F(ApiTest, NeverClosesAllSessionsByOmission) {
  ExpectProblem(Call("DELETE", "/sessions"), 400, "at least one of");
  ExpectProblem(Call("DELETE", "/sessions", "code=1000"), 400, "at least one of");
  ExpectProblem(Call("DELETE", "/sessions", "backend="), 400, "backend is empty");
  ExpectProblem(Call("DELETE", "/sessions", "limit=5"), 400, "\"limit\"");
}

// RFC 6455 section 7.4.
TEST_F(ApiTest, SendsOnlyCodesThatMayBeSent) {
  for (const char* code : {"0", "1", "999", "1004", "1005", "1006", "1015", "1016", "2000", "2999",
                           "5000", "65535", "65536", "66536", "-1000", "1e3", "x", ""}) {
    ExpectProblem(Call("DELETE", "/sessions/1", std::string("code=") + code), 400, "allowed: 1000");
  }
  for (const int code : {1000, 1001, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999}) {
    operations.kicked = 1;
    EXPECT_EQ(Call("DELETE", "/sessions/1", "code=" + std::to_string(code)).status, 200) << code;
    EXPECT_EQ(operations.kick_order->code, code);
  }
}

TEST_F(ApiTest, SendsOnlyReasonsThatFitAClose) {
  const std::string limit(123, 'a');
  ExpectProblem(Call("DELETE", "/sessions/1", "reason=" + limit + "a"), 400, "at most 123 bytes");
  for (const char* reason :
       {"%00", "a%0Ab", "%7F", "%C2%80", "%C2%9F", "%C0%80", "%80", "%FF", "%C3", "%E2%82",
        "%E0%80%80", "%ED%A0%80", "%F0%80%80%80", "%F4%90%80%80", "%F5%80%80%80"}) {
    ExpectProblem(Call("DELETE", "/sessions/1", std::string("reason=") + reason), 400, "UTF-8");
  }
  operations.kicked = 1;
  for (const char* reason : {"", "a b", "%C2%A0", "%C3%BC", "%E2%82%AC", "%EF%BF%BF",
                             "%F0%9F%98%80", "%F4%8F%BF%BF", "%ED%9F%BF"}) {
    EXPECT_EQ(Call("DELETE", "/sessions/1", std::string("reason=") + reason).status, 200) << reason;
  }
  EXPECT_EQ(Call("DELETE", "/sessions/1", "reason=" + limit).status, 200);
  EXPECT_EQ(operations.kick_order->reason, limit);
}

TEST_F(ApiTest, Reloads) {
  operations.reload = ReloadReport{{"a warning"}};
  const AdminReply reply = Call("POST", "/reload");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(Parsed(reply).at("warnings"), json::array({"a warning"}));
}

TEST_F(ApiTest, TellsAllMistakesOfAReload) {
  Problem problem;
  problem.status = 422;
  problem.detail = "The configuration has 2 mistakes.";
  problem.mistakes = {"one", "two \xff"};
  operations.reload = tl::unexpected<Problem>(problem);
  const AdminReply reply = Call("POST", "/reload");
  EXPECT_EQ(reply.status, 422);
  EXPECT_EQ(reply.content_type, kProblemJson);
  EXPECT_EQ(json::parse(reply.body).at("mistakes").size(), 2U);
}

TEST_F(ApiTest, DrainsTheProcess) {
  EXPECT_EQ(Call("POST", "/drain").status, 202);
  EXPECT_THAT(operations.calls, ElementsAre("drain process"));
}

TEST_F(ApiTest, NamesTheMethodsOfAPath) {
  const std::vector<std::vector<std::string>> cases = {
      {"POST", "/metrics", "GET, HEAD"},
      {"DELETE", "/status", "GET, HEAD"},
      {"GET", "/drain", "POST"},
      {"GET", "/reload", "POST"},
      {"POST", "/sessions", "GET, HEAD, DELETE"},
      {"PUT", "/sessions/1", "GET, HEAD, DELETE"},
      {"GET", "/backends/a/b/drain", "POST, DELETE"},
      {"OPTIONS", "/backends/a/b/undrain", "POST"},
  };
  for (const auto& test : cases) {
    const AdminReply reply = Call(test[0], test[1]);
    ExpectProblem(reply, 405, test[2]);
    EXPECT_EQ(reply.extra_fields, "Allow: " + test[2] + "\r\n") << test[1];
  }
}

TEST_F(ApiTest, KnowsNoOtherPaths) {
  for (const char* path :
       {"/", "/nope", "/metrics/", "//metrics", "/backends/", "/backends//x", "/backends/a/b/c",
        "/backends/a/b/drain/", "/backends/%/b", "*", "", "/sessions/", "/%6detrics"}) {
    ExpectProblem(Call("GET", path), 404, "/backends");
    ExpectProblem(Call("POST", path), 404, "/backends");
  }
}

TEST_F(ApiTest, WantsNeitherContentNorParametersWhereThereAreNone) {
  AdminRequest request;
  request.path = "/status";
  request.content_type = "application/json";
  request.body = "{}";
  ExpectProblem(Send(request), 400, "no content");
  ExpectProblem(Call("GET", "/status", "x=1"), 400, "allowed: none");
  ExpectProblem(Call("POST", "/reload", "now"), 400, "\"now\"");
}

// What a log line says of a call, with secrets left out and nothing that breaks the line.
TEST_F(ApiTest, LogsWhoChangedWhat) {
  std::ostringstream log;
  const auto before = spdlog::default_logger();
  spdlog::set_default_logger(std::make_shared<spdlog::logger>(
      "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log)));
  Call("POST", "/backends/chat/chat-1/drain", "window=5s");
  Call("POST", "/backends/chat/no%0Ape%20status=200/drain");
  Call("DELETE", "/sessions", "affinity=s3cret&reason=private+words");
  Call("DELETE", "/sessions", "code=1006&route=r");
  Call("GET", "/sessions", "route=quiet");
  spdlog::set_default_logger(before);
  const std::string text = log.str();
  EXPECT_THAT(text, HasSubstr("admin action=drain pool=chat backend=chat-1 window=5s status=202 "
                              "peer=127.0.0.1:5000"));
  EXPECT_THAT(text, HasSubstr("backend=\"no\\x0ape status=200\" status=404"));
  EXPECT_THAT(text, HasSubstr("admin action=kick affinity=hidden status=200"));
  EXPECT_THAT(text, HasSubstr("admin action=kick route=r code=1006 status=400"));
  EXPECT_THAT(text, Not(HasSubstr("s3cret")));
  EXPECT_THAT(text, Not(HasSubstr("private")));
  EXPECT_THAT(text, Not(HasSubstr("quiet")));
}

}  // namespace
}  // namespace sluice::admin
