// Proves whom the client's side believes: certificates that are good, and every way in which one is
// not; that nothing is taken from a server before that; and which sessions are resumed.
#include "proxy/tls/client_context.h"

#include <sys/socket.h>

#include <array>
#include <memory>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "tests/support/certificates.h"
#include "tests/support/tls_server.h"
#include "tests/unit/tls/tls_pair.h"

namespace sluice::tls {
namespace {

using net::IoStatus;
using test::CertificateFiles;
using test::TestCerts;
using test::TlsServer;

// A TlsTransport that connects, and OpenSSL's own server, driven by hand.
class Connection {
 public:
  Connection(const ClientContext& context, Destination& destination, const TlsServer& server)
      : buffers_(std::make_unique<SharedBuffers>()) {
    std::array<int, 2> fds{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds.data()), 0);
    client_fd = UniqueFd(fds[0]);
    server_fd = UniqueFd(fds[1]);
    ssl = SslPtr(SSL_new(server.context()));
    SSL_set_fd(ssl.get(), server_fd.get());
    SSL_set_accept_state(ssl.get());
    client = TlsTransport::Connect(context, destination, client_fd.get(), *buffers_);
  }

  // Both sides take turns until each is done or has failed. The client's last words wait for its
  // first request, so it sends one.
  IoStatus Handshake() {
    bool accepted = false;
    for (int turn = 0; turn < 10; ++turn) {
      if (status == IoStatus::kWouldBlock) {
        status = client->Handshake();
        if (status == IoStatus::kOk) {
          EXPECT_EQ(client->Write(AsBytes("request")).bytes, 7U);
        }
      }
      if (!accepted) {
        ERR_clear_error();
        accepted = SSL_do_handshake(ssl.get()) == 1;
      }
    }
    ERR_clear_error();
    return status;
  }

  [[nodiscard]] const std::string& failure() const { return buffers_->failure; }

  std::string ServerReads() {
    std::array<char, 1024> into{};
    const int got = SSL_read(ssl.get(), into.data(), into.size());
    return got > 0 ? std::string(into.data(), static_cast<std::size_t>(got)) : std::string();
  }

  // What the client reads now: all of it, and how it ended.
  std::pair<std::string, IoStatus> ClientReads() {
    std::array<std::byte, 4096> into{};
    std::string all;
    for (;;) {
      const net::IoResult got = client->Read(into);
      if (got.status != IoStatus::kOk) {
        return {all, got.status};
      }
      all += AsText(Bytes(into).first(got.bytes));
    }
  }

  void ServerWrites(const std::string& text) {
    EXPECT_EQ(SSL_write(ssl.get(), text.data(), static_cast<int>(text.size())),
              static_cast<int>(text.size()));
  }

  UniqueFd client_fd;
  UniqueFd server_fd;
  SslPtr ssl;

 private:
  std::unique_ptr<SharedBuffers> buffers_;

 public:
  std::unique_ptr<TlsTransport> client;
  IoStatus status = IoStatus::kWouldBlock;
};

std::unique_ptr<ClientContext> Context(const ClientContext::Options& options) {
  auto made = ClientContext::Make(options);
  EXPECT_TRUE(made.has_value()) << made.error().message;
  return made ? std::move(*made) : nullptr;
}

TestCerts& Certs() {
  static TestCerts certs;
  return certs;
}

// How a handshake ends: "" when it is good, else why it failed.
std::string Verdict(const ClientContext::Options& options, const std::string& name,
                    const test::TlsServerOptions& server_options) {
  const auto context = Context(options);
  const TlsServer server(server_options);
  Destination destination(name);
  Connection connection(*context, destination, server);
  if (connection.Handshake() == IoStatus::kOk) {
    EXPECT_EQ(connection.ServerReads(), "request");
    return "";
  }
  EXPECT_EQ(connection.ServerReads(), "") << "nothing is sent to a server that is not believed";
  EXPECT_FALSE(destination.has_session());
  return connection.failure().empty() ? "ended" : connection.failure();
}

ClientContext::Options Trusting(const std::string& ca) {
  return {.ca_file = ca, .certificate = {}};
}

KeyPair Pair(const CertificateFiles& files) {
  return {files.chain, files.key};
}

TEST(ClientContext, BelievesACertificateOfItsAuthorityForTheName) {
  const test::TlsServerOptions server{.certificate = Certs().Issue({"b.test", "*.wild.test"})};
  for (const char* name : {"b.test", "a.wild.test", "127.0.0.1"}) {
    EXPECT_EQ(Verdict(Trusting(Certs().ca()), name, server), "") << name;
  }
}

TEST(ClientContext, BelievesNoOtherName) {
  const test::TlsServerOptions server{.certificate = Certs().Issue({"b.test", "*.wild.test"})};
  for (const char* name : {"c.test", "wild.test", "a.b.wild.test", "b.test.evil.test"}) {
    EXPECT_EQ(Verdict(Trusting(Certs().ca()), name, server), "hostname mismatch") << name;
  }
  EXPECT_EQ(Verdict(Trusting(Certs().ca()), "127.0.0.2", server), "IP address mismatch");
  EXPECT_EQ(Verdict(Trusting(Certs().ca()), "::1", server), "IP address mismatch");
}

TEST(ClientContext, BelievesNothingThatHasExpired) {
  const test::TlsServerOptions server{.certificate = Certs().Issue({"b.test"}, -1)};
  EXPECT_EQ(Verdict(Trusting(Certs().ca()), "b.test", server), "certificate has expired");
}

TEST(ClientContext, BelievesNoOtherAuthority) {
  TestCerts others;
  const test::TlsServerOptions server{.certificate = others.Issue({"b.test"})};
  EXPECT_EQ(Verdict(Trusting(Certs().ca()), "b.test", server), "certificate signature failure")
      << "it only has the same name";
  EXPECT_EQ(Verdict(Trusting(""), "b.test", server), "unable to get local issuer certificate")
      << "nor does the system know it";
}

TEST(ClientContext, BelievesASelfSignedCertificateOnlyWhenToldSo) {
  Files files;
  const KeyPair self = files.Certificate({"b.test"});
  const test::TlsServerOptions server{.certificate = {self.chain, self.key}};
  EXPECT_EQ(Verdict(Trusting(self.chain), "b.test", server), "");
  EXPECT_EQ(Verdict(Trusting(self.chain), "c.test", server), "hostname mismatch");
  EXPECT_EQ(Verdict(Trusting(Certs().ca()), "b.test", server), "self-signed certificate");
}

TEST(ClientContext, TakesAnyCertificateWithoutVerification) {
  TestCerts others;
  const test::TlsServerOptions server{.certificate = others.Issue({"b.test"}, -1)};
  EXPECT_EQ(Verdict({.ca_file = "", .certificate = {}, .verify = false}, "c.test", server), "");
}

TEST(ClientContext, ShowsItsCertificateToWhomAsksForOne) {
  const CertificateFiles own = Certs().Issue({"sluice.test"});
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const TlsServer server({.certificate = Certs().Issue({"b.test"}),
                            .client_ca = Certs().ca(),
                            .max_version = version});
    Destination destination("b.test");
    const auto with = Context({.ca_file = Certs().ca(), .certificate = Pair(own)});
    Connection shown(*with, destination, server);
    EXPECT_EQ(shown.Handshake(), IoStatus::kOk);
    EXPECT_EQ(shown.ServerReads(), "request");
    EXPECT_TRUE(TlsServer::FactsOf(shown.ssl.get()).client_certificate);

    const auto without = Context(Trusting(Certs().ca()));
    Destination other("b.test");
    Connection missing(*without, other, server);
    const IoStatus handshake = missing.Handshake();
    EXPECT_EQ(missing.ServerReads(), "");
    if (version == TLS1_2_VERSION) {
      EXPECT_EQ(handshake, IoStatus::kError);
    } else {
      EXPECT_EQ(missing.ClientReads().second, IoStatus::kError)
          << "1.3 tells it with the first read";
      EXPECT_NE(missing.failure().find("certificate required"), std::string::npos)
          << missing.failure();
    }
  }
}

TEST(ClientContext, RefusesOlderVersionsThanItsMinimum) {
  const test::TlsServerOptions server{.certificate = Certs().Issue({"b.test"}),
                                      .max_version = TLS1_2_VERSION};
  EXPECT_EQ(Verdict(Trusting(Certs().ca()), "b.test", server), "");
  const std::string verdict =
      Verdict({.ca_file = Certs().ca(), .certificate = {}, .tls13_only = true}, "b.test", server);
  EXPECT_NE(verdict.find("protocol version"), std::string::npos) << verdict;
}

TEST(ClientContext, AsksForHttp11AndSendsNamesOnly) {
  const auto context = Context(Trusting(Certs().ca()));
  const TlsServer server({.certificate = Certs().Issue({"b.test"})});
  for (const char* name : {"b.test", "127.0.0.1"}) {
    Destination destination(name);
    Connection connection(*context, destination, server);
    ASSERT_EQ(connection.Handshake(), IoStatus::kOk) << name;
    const test::TlsFacts facts = TlsServer::FactsOf(connection.ssl.get());
    EXPECT_EQ(facts.alpn, "http/1.1");
    EXPECT_EQ(facts.sni, name[0] == 'b' ? "b.test" : "") << "RFC 6066 section 3: no address";
  }
}

TEST(ClientContext, TakesNoPlaintextBeforeTheHandshake) {
  const auto context = Context(Trusting(Certs().ca()));
  const TlsServer server({.certificate = Certs().Issue({"b.test"})});
  for (const std::string_view injected :
       {std::string_view("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
        std::string_view("\x17\x03\x03\x00\x02hi", 7)}) {
    Destination destination("b.test");
    Connection connection(*context, destination, server);
    ASSERT_EQ(::send(connection.server_fd.get(), injected.data(), injected.size(), 0),
              static_cast<ssize_t>(injected.size()));
    EXPECT_EQ(connection.Handshake(), IoStatus::kError);
    const auto [text, how] = connection.ClientReads();
    EXPECT_EQ(text, "");
    EXPECT_EQ(how, IoStatus::kError);
  }
}

// One connection with an answer; whether it was resumed.
bool Visit(const ClientContext& context, Destination& destination, const TlsServer& server) {
  Connection connection(context, destination, server);
  EXPECT_EQ(connection.Handshake(), IoStatus::kOk) << connection.failure();
  EXPECT_EQ(connection.ServerReads(), "request");
  connection.ServerWrites("answer");
  EXPECT_EQ(connection.ClientReads().first, "answer");
  EXPECT_TRUE(destination.has_session());
  EXPECT_EQ(connection.client->resumed(), TlsServer::FactsOf(connection.ssl.get()).resumed);
  return connection.client->resumed();
}

TEST(ClientContext, ResumesTheSessionOfADestination) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const auto context = Context(Trusting(Certs().ca()));
    const TlsServer server({.certificate = Certs().Issue({"b.test"}), .max_version = version});
    Destination destination("b.test");
    EXPECT_FALSE(Visit(*context, destination, server));
    for (int again = 0; again < 3; ++again) {
      EXPECT_TRUE(Visit(*context, destination, server)) << again;
    }
    Destination other("127.0.0.1");
    EXPECT_FALSE(Visit(*context, other, server)) << "another name";
    destination.ForgetSession();
    EXPECT_FALSE(Visit(*context, destination, server));
  }
}

TEST(ClientContext, ASessionThatTheServerDoesNotKnowIsNoLoss) {
  const auto context = Context(Trusting(Certs().ca()));
  const CertificateFiles certificate = Certs().Issue({"b.test"});
  Destination destination("b.test");
  EXPECT_FALSE(Visit(*context, destination, TlsServer({.certificate = certificate})));
  const TlsServer restarted({.certificate = certificate});  // with other ticket keys
  EXPECT_FALSE(Visit(*context, destination, restarted));
  EXPECT_TRUE(Visit(*context, destination, restarted));
}

TEST(ClientContext, AnotherCertificateIsVerifiedThoughASessionIsOffered) {
  const auto context = Context(Trusting(Certs().ca()));
  TestCerts others;
  Destination destination("b.test");
  EXPECT_FALSE(Visit(*context, destination, TlsServer({.certificate = Certs().Issue({"b.test"})})));
  const TlsServer impostor({.certificate = others.Issue({"b.test"})});
  Connection connection(*context, destination, impostor);
  EXPECT_EQ(connection.Handshake(), IoStatus::kError);
  EXPECT_EQ(connection.failure(), "certificate signature failure");
}

TEST(ClientContext, TellsATruncatedStreamFromOneThatEnded) {
  const auto context = Context(Trusting(Certs().ca()));
  const TlsServer server({.certificate = Certs().Issue({"b.test"})});
  for (const bool notify : {true, false}) {
    Destination destination("b.test");
    Connection connection(*context, destination, server);
    ASSERT_EQ(connection.Handshake(), IoStatus::kOk);
    connection.ServerWrites("all of it");
    if (notify) {
      SSL_shutdown(connection.ssl.get());
    }
    ::shutdown(connection.server_fd.get(), SHUT_WR);
    EXPECT_EQ(connection.ClientReads(), std::make_pair(std::string("all of it"), IoStatus::kEof));
    EXPECT_EQ(connection.client->was_truncated(), !notify);
  }
}

TEST(ClientContext, NamesTheFileThatIsWrong) {
  Files files;
  const std::string text = files.Write("text.pem", "no certificate at all\n");
  const CertificateFiles good = Certs().Issue({"a.test"});
  const CertificateFiles other = Certs().Issue({"b.test"});
  const auto error = [](const ClientContext::Options& options) {
    const auto made = ClientContext::Make(options);
    return made ? std::string() : made.error().message;
  };
  EXPECT_TRUE(error(Trusting(text)).starts_with("cannot use the CA file " + text + ": "));
  EXPECT_TRUE(error(Trusting("/nonexistent")).starts_with("cannot use the CA file /nonexistent: "));
  EXPECT_TRUE(error({.ca_file = "", .certificate = {text, good.key}})
                  .starts_with("cannot use the certificate chain " + text + ": "));
  EXPECT_TRUE(error({.ca_file = "", .certificate = {good.chain, other.key}})
                  .starts_with("the key " + other.key + " is not a PEM private key that fits"));
}

TEST(ClientContext, AFingerprintTellsWhatHasChanged) {
  Files files;
  const std::string ca = files.Write("ca.pem", "one");
  ClientContext::Options options = Trusting(ca);
  const auto of = [](const ClientContext::Options& settings) {
    return Fingerprint(settings).value_or("none");
  };
  const std::string before = of(options);
  EXPECT_EQ(of(options), before);
  files.Write("ca.pem", "two");
  EXPECT_NE(of(options), before);
  files.Write("ca.pem", "one");
  EXPECT_EQ(of(options), before);
  options.verify = false;
  EXPECT_NE(of(options), before);
  options.verify = true;
  options.tls13_only = true;
  EXPECT_NE(of(options), before);
  options.tls13_only = false;
  options.certificate = {ca, ca};
  EXPECT_NE(of(options), before);
  EXPECT_EQ(of(Trusting("/nonexistent")), "none");
  EXPECT_NE(before, "none");
}

}  // namespace
}  // namespace sluice::tls
