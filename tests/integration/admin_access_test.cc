// Proves who may use the admin interface of the real binary: with and without a token, from a page
// of another site, over TLS, by the command line; and that a reload changes the token and never
// opens an address.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"
#include "tests/support/certificates.h"
#include "tests/support/echo_backend.h"

namespace sluice::test {
namespace {

using nlohmann::json;

constexpr const char* kToken = "0123456789-first-token";
constexpr const char* kNewToken = "0123456789-second-token";

std::string Bearer(const std::string& token) {
  return "Authorization: Bearer " + token + "\r\n";
}

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

class AdminAccess : public testing::Test {
 protected:
  AdminAccess() { dir.Write("token", std::string(kToken) + "\n"); }

  // `admin`: what goes into [admin].
  [[nodiscard]] std::string Text(const std::string& admin) const {
    std::string text = Config{.backends = {backend.port()}}.Text();
    const std::string usual = "[admin]\naddress = \"127.0.0.1:0\"";
    return text.replace(text.find(usual), usual.size(), "[admin]\n" + admin);
  }

  [[nodiscard]] std::string Guarded(const std::string& address) const {
    return "address = \"" + address + "\"\ntoken_file = \"" + dir.path() + "/token\"\n";
  }

  // The status of GET /status.
  static int StatusWith(const ProxyProcess& proxy, const std::string& fields) {
    return proxy.Ask("GET", "/status", fields).status;
  }

  TempDir dir;
  EchoBackend backend;
};

TEST_F(AdminAccess, AnAddressBeyondLoopbackNeedsAToken) {
  const std::string file = dir.Write("open.toml", Text("address = \"0.0.0.0:0\""));
  for (const char* command : {"check", "run"}) {
    const Outcome refused = RunToEnd({command, "-c", file});
    EXPECT_EQ(refused.status, 78);
    EXPECT_NE(refused.err.find("token"), std::string::npos) << refused.err;
  }
  ProxyProcess proxy(Text(Guarded("0.0.0.0:0")));
  EXPECT_NE(proxy.err().find("as plain"), std::string::npos) << "warned: without TLS";
  EXPECT_EQ(StatusWith(proxy, Bearer(kToken)), 200);
  EXPECT_EQ(StatusWith(proxy, ""), 401);
}

TEST_F(AdminAccess, WithATokenEveryPathWantsIt) {
  ProxyProcess proxy(Text(Guarded("127.0.0.1:0")));
  for (const char* path : {"/metrics", "/healthz", "/readyz", "/status", "/config", "/backends",
                           "/sessions", "/nowhere"}) {
    const HttpMessage refused = proxy.Ask("GET", path);
    EXPECT_EQ(refused.status, 401) << path;
    EXPECT_EQ(refused.Field("WWW-Authenticate").substr(0, 6), "Bearer") << path;
    EXPECT_EQ(refused.body.find(kToken), std::string::npos);
    EXPECT_EQ(proxy.Ask("GET", path, Bearer(kToken)).status,
              std::string(path) == "/nowhere" ? 404 : 200)
        << path;
  }
  for (const std::string& wrong :
       {Bearer("0123456789-other-token"), Bearer(std::string(kToken) + "x"),
        Bearer(std::string(kToken).substr(0, 10)), Bearer(""),
        "Authorization: Basic " + std::string(kToken) + "\r\n", Bearer(kToken) + Bearer(kToken)}) {
    EXPECT_EQ(StatusWith(proxy, wrong), 401) << wrong;
  }
  EXPECT_EQ(proxy.Ask("POST", "/drain").status, 401);
  EXPECT_EQ(proxy.Ask("GET", "/readyz", Bearer(kToken)).status, 200) << "and nothing happened";
  EXPECT_NE(proxy.Ask("GET", "/metrics", Bearer(kToken)).body.find("sluice_build_info"),
            std::string::npos);
  EXPECT_EQ(proxy.Ask("GET", "/config", Bearer(kToken)).body.find(kToken), std::string::npos);
  EXPECT_TRUE(proxy.AwaitErr("admin refused method=POST path=/drain status=401"));
  EXPECT_EQ(proxy.err().find(kToken), std::string::npos);
}

TEST_F(AdminAccess, APageOfAnotherSiteMayNotAsk) {
  ProxyProcess open(Text("address = \"127.0.0.1:0\""));
  ProxyProcess guarded(Text(Guarded("127.0.0.1:0")));
  for (const std::string& fields :
       {std::string("Origin: https://evil.test\r\n"), std::string("Origin: null\r\n"),
        std::string("Sec-Fetch-Site: cross-site\r\n"),
        std::string("Sec-Fetch-Site: same-site\r\n")}) {
    EXPECT_EQ(StatusWith(open, fields), 403) << fields;
    EXPECT_EQ(StatusWith(guarded, fields + Bearer(kToken)), 403) << fields;
  }
  EXPECT_EQ(StatusWith(open, "Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n"), 200);
  // A name that somebody has made to resolve to this address.
  RawClient rebound(open.admin_port());
  rebound.Send("POST /drain HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(rebound.ReadResponse().status, 403);
  EXPECT_EQ(open.Ask("GET", "/readyz").status, 200);
}

TEST_F(AdminAccess, AReloadRotatesTheToken) {
  const std::string text = Text(Guarded("127.0.0.1:0"));
  ProxyProcess proxy(text);
  RawClient kept(proxy.admin_port());
  const std::string request =
      "GET /status HTTP/1.1\r\nHost: localhost\r\n" + Bearer(kToken) + "\r\n";
  kept.Send(request);
  EXPECT_EQ(kept.ReadResponse().status, 200);
  dir.Write("token", kNewToken);
  EXPECT_EQ(StatusWith(proxy, Bearer(kToken)), 200) << "nobody was told yet";
  EXPECT_EQ(proxy.Ask("POST", "/reload", Bearer(kToken)).status, 200);
  EXPECT_EQ(StatusWith(proxy, Bearer(kToken)), 401);
  EXPECT_EQ(StatusWith(proxy, Bearer(kNewToken)), 200);
  kept.Send(request);
  EXPECT_EQ(kept.ReadResponse().status, 401) << "a connection from before is no way around it";

  // A token that cannot be used leaves the one that can.
  dir.Write("token", "short");
  EXPECT_EQ(proxy.Ask("POST", "/reload", Bearer(kNewToken)).status, 422);
  EXPECT_EQ(StatusWith(proxy, Bearer(kNewToken)), 200);
  EXPECT_EQ(StatusWith(proxy, Bearer("short")), 401);
}

TEST_F(AdminAccess, AReloadNeverOpensTheAddressThatStays) {
  ProxyProcess proxy(Text(Guarded("0.0.0.0:0")));
  // Each of them is right by itself, and is for the next process.
  for (const char* admin : {"address = \"127.0.0.1:0\"", "address = \"off\""}) {
    proxy.Configure(Text(admin));
    const HttpMessage answer = proxy.Ask("POST", "/reload", Bearer(kToken));
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(json::parse(answer.body)["warnings"].size(), 1U) << answer.body;
    EXPECT_EQ(StatusWith(proxy, ""), 401) << admin;
    EXPECT_EQ(StatusWith(proxy, Bearer(kToken)), 200) << admin;
  }
}

TEST_F(AdminAccess, OverTlsByTheCommandLine) {
  TestCerts certs;
  const CertificateFiles files = certs.Issue({"localhost"});
  const std::string admin = Guarded("127.0.0.1:0") + "tls.certificates = [{ chain = \"" +
                            files.chain + "\", key = \"" + files.key + "\" }]\n";
  ProxyProcess proxy(Text(admin));
  const std::string url = "https://127.0.0.1:" + std::to_string(proxy.admin_port());
  const std::string token = dir.path() + "/token";
  const Outcome status =
      RunToEnd({"status", "--admin", url, "--ca", certs.ca(), "--token-file", token, "--json"});
  EXPECT_EQ(status.status, 0) << status.err;
  EXPECT_NE(status.out.find("\"pid\":" + std::to_string(proxy.pid())), std::string::npos)
      << status.out;
  EXPECT_EQ(
      RunToEnd({"healthcheck", "--admin", url, "--ca", certs.ca(), "--token-file", token}).status,
      0);

  const TestCerts others;
  const Outcome untrusted =
      RunToEnd({"status", "--admin", url, "--ca", others.ca(), "--token-file", token});
  EXPECT_EQ(untrusted.status, 1);
  EXPECT_NE(untrusted.err, "");
  const Outcome no_token = RunToEnd({"status", "--admin", url, "--ca", certs.ca()});
  EXPECT_EQ(no_token.status, 1);
  EXPECT_NE(no_token.err.find("token"), std::string::npos) << no_token.err;
  EXPECT_EQ(RunToEnd({"status", "--admin", "http://127.0.0.1:" + std::to_string(proxy.admin_port()),
                      "--token-file", token})
                .status,
            1)
      << "it speaks TLS";

  // With another certificate after a reload.
  TestCerts next;
  const CertificateFiles renewed = next.Issue({"localhost"});
  proxy.Configure(Text(Guarded("127.0.0.1:0") + "tls.certificates = [{ chain = \"" + renewed.chain +
                       "\", key = \"" + renewed.key + "\" }]\n"));
  const Outcome reload =
      RunToEnd({"reload", "--admin", url, "--ca", certs.ca(), "--token-file", token});
  EXPECT_EQ(reload.status, 0) << reload.err;
  EXPECT_EQ(RunToEnd({"status", "--admin", url, "--ca", next.ca(), "--token-file", token}).status,
            0);
  EXPECT_EQ(RunToEnd({"status", "--admin", url, "--ca", certs.ca(), "--token-file", token}).status,
            1);
}

TEST_F(AdminAccess, DoesNotTurnToTlsByReloadsHoweverMany) {
  TestCerts certs;
  const CertificateFiles files = certs.Issue({"localhost"});
  ProxyProcess proxy(Text("address = \"127.0.0.1:0\""));
  proxy.Configure(Text("address = \"127.0.0.1:0\"\ntls.certificates = [{ chain = \"" + files.chain +
                       "\", key = \"" + files.key + "\" }]\n"));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(proxy.AskJson("POST", "/reload")["warnings"].size(), 1U) << i;
  }
  EXPECT_EQ(StatusWith(proxy, ""), 200);
}

}  // namespace
}  // namespace sluice::test
