// Proves what a new configuration makes of the TLS contexts of pools, and that the control thread
// can speak TLS to a backend by itself.
#include "proxy/server/backend_tls.h"

#include <sys/socket.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "tests/support/certificates.h"
#include "tests/support/tls_server.h"

namespace sluice::server {
namespace {

using test::TestCerts;

class BackendTlsTest : public testing::Test {
 protected:
  static constexpr std::size_t kWorkers = 2;

  // A pool "plain" and a pool "secure" with these settings.
  [[nodiscard]] static config::Config With(const config::PoolTls& tls) {
    config::Config config;
    config.pools.resize(2);
    config.pools[0].name = "plain";
    config.pools[1].name = "secure";
    config.pools[1].tls = tls;
    for (config::Pool& pool : config.pools) {
      pool.backends.resize(2);
      pool.backends[0].name = "a";
      pool.backends[0].host = "127.0.0.1";
      pool.backends[1].name = "b";
      pool.backends[1].host = "b.internal";
    }
    return config;
  }

  void Load(const config::PoolTls& tls) {
    auto change = tls_.Prepare(With(tls));
    ASSERT_TRUE(change.has_value()) << change.error().message;
    tls_.Commit(std::move(*change));
  }

  [[nodiscard]] config::PoolTls Trusting(const std::string& ca) const {
    config::PoolTls tls;
    tls.ca = ca;
    return tls;
  }

  TestCerts certs_;
  WorkerLibraries libraries_{kWorkers};
  BackendTls tls_{libraries_};
};

TEST_F(BackendTlsTest, EachWorkerHasItsOwnContexts) {
  Load(Trusting(certs_.ca()));
  const auto first = tls_.Of(0);
  const auto second = tls_.Of(1);
  ASSERT_EQ(first.size(), 2U);
  EXPECT_FALSE(first[0].is_tls());
  ASSERT_TRUE(first[1].is_tls());
  EXPECT_NE(first[1].context, second[1].context);
  ASSERT_EQ(first[1].destinations.size(), 2U);
  EXPECT_EQ(first[1].destinations[1]->server_name(), "b.internal");
}

TEST_F(BackendTlsTest, TheNearestNameIsTheOneThatCounts) {
  config::Pool pool;
  pool.tls = Trusting(certs_.ca());
  config::Backend backend;
  backend.name = "ws1.chat.test:9000";
  backend.host = "10.0.0.1";
  EXPECT_EQ(ServerNameOf(pool, backend), "10.0.0.1");
  pool.discover = config::Discovery{.dns = "chat.test"};
  EXPECT_EQ(ServerNameOf(pool, backend), "chat.test");
  pool.discover->type = config::DnsType::kSrv;
  EXPECT_EQ(ServerNameOf(pool, backend), "ws1.chat.test");
  pool.tls->server_name = "pool.test";
  EXPECT_EQ(ServerNameOf(pool, backend), "pool.test");
  backend.server_name = "own.test";
  EXPECT_EQ(ServerNameOf(pool, backend), "own.test");
}

TEST_F(BackendTlsTest, AReloadKeepsAContextUntilSomethingOfItHasChanged) {
  const std::string ca = certs_.ca() + ".copy";
  std::filesystem::copy_file(certs_.ca(), ca);
  Load(Trusting(ca));
  const auto before = tls_.Of(0)[1].context;
  Load(Trusting(ca));
  EXPECT_EQ(tls_.Of(0)[1].context, before);
  TestCerts others;
  std::filesystem::copy_file(others.ca(), ca, std::filesystem::copy_options::overwrite_existing);
  Load(Trusting(ca));
  const auto after = tls_.Of(0)[1].context;
  EXPECT_NE(after, before) << "the file has";
  config::PoolTls stricter = Trusting(ca);
  stricter.min_version = config::TlsVersion::k13;
  Load(stricter);
  EXPECT_NE(tls_.Of(0)[1].context, after) << "a setting has";
}

TEST_F(BackendTlsTest, AFileThatIsNoAuthorityChangesNothing) {
  Load(Trusting(certs_.ca()));
  const auto before = tls_.Of(0)[1].context;
  std::ofstream(certs_.ca() + ".text") << "no certificate\n";
  for (const std::string& wrong : {certs_.ca() + ".text", std::string("/nonexistent")}) {
    const auto change = tls_.Prepare(With(Trusting(wrong)));
    ASSERT_FALSE(change.has_value());
    EXPECT_TRUE(change.error().message.starts_with("pool.secure: cannot "))
        << change.error().message;
    EXPECT_NE(change.error().message.find(wrong), std::string::npos);
  }
  EXPECT_EQ(tls_.Of(0)[1].context, before);
}

// True when the handshake was made with a server of that certificate.
bool Reach(BackendTls& tls, const char* backend, const test::CertificateFiles& certificate) {
  std::array<int, 2> fds{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds.data()), 0);
  const UniqueFd ours(fds[0]);
  const UniqueFd theirs(fds[1]);
  const test::TlsServer server({.certificate = certificate});
  const tls::SslPtr ssl(SSL_new(server.context()));
  SSL_set_fd(ssl.get(), theirs.get());
  SSL_set_accept_state(ssl.get());
  const auto transport = tls.Connect("secure", backend, ours.get());
  net::IoStatus status = net::IoStatus::kWouldBlock;
  for (int turn = 0; turn < 10 && status == net::IoStatus::kWouldBlock; ++turn) {
    status = transport->Handshake();
    SSL_do_handshake(ssl.get());
    ERR_clear_error();
  }
  return status == net::IoStatus::kOk;
}

TEST_F(BackendTlsTest, TheControlThreadReachesABackendByItself) {
  Load(Trusting(certs_.ca()));
  EXPECT_TRUE(Reach(tls_, "a", certs_.Issue({"x.test"})));  // and 127.0.0.1
  EXPECT_TRUE(Reach(tls_, "b", certs_.Issue({"b.internal"})));
  EXPECT_FALSE(Reach(tls_, "b", certs_.Issue({"x.test"})));
  EXPECT_EQ(tls_.failure(), "hostname mismatch");
  EXPECT_EQ(tls_.Connect("plain", "a", 0), nullptr);
  EXPECT_EQ(tls_.Connect("secure", "c", 0), nullptr);
  EXPECT_EQ(tls_.Connect("none", "a", 0), nullptr);
}

}  // namespace
}  // namespace sluice::server
