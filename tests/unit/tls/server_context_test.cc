// Proves what a TLS listener offers: the right certificate for a name, its one protocol, tickets
// that are good on every worker until their key has fallen out of the ring, client certificates;
// and that files that cannot be used are named in one sentence.
#include "proxy/tls/server_context.h"

#include <array>
#include <ctime>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <openssl/sslerr.h>

#include "tests/unit/tls/tls_pair.h"

namespace sluice::tls {
namespace {

class ServerContextTest : public testing::Test {
 protected:
  // The common name of the certificate that a client with this SNI is shown.
  std::string Shown(const ServerContext& context, const std::string& sni) {
    TlsPair pair(context, buffers, {.sni = sni});
    EXPECT_TRUE(pair.Handshake());
    const X509Ptr shown(SSL_get1_peer_certificate(pair.client.get()));
    std::array<char, 256> name{};
    X509_NAME_get_text_by_NID(X509_get_subject_name(shown.get()), NID_commonName, name.data(),
                              static_cast<int>(name.size()));
    EXPECT_EQ(pair.server->server_name(), sni);
    return name.data();
  }

  // Connects with `ticket`, if any; whether it was taken up, and the ticket that came.
  std::pair<bool, SessionPtr> Visit(const ServerContext& context, SSL_SESSION* ticket,
                                    int version) {
    TlsPair pair(context, buffers, {.max_version = version, .resume = ticket});
    EXPECT_TRUE(pair.Handshake());
    EXPECT_EQ(pair.server->resumed(), SSL_session_reused(pair.client.get()) == 1);
    return {pair.server->resumed(), pair.Ticket()};
  }

  std::string MessageOf(const ContextOptions& options) {
    const auto made = ServerContext::Make(options.Get(), keys);
    EXPECT_FALSE(made.has_value());
    return made ? "" : made.error().message;
  }

  Files files;
  TicketKeys keys;
  SharedBuffers buffers;
};

TEST_F(ServerContextTest, ChoosesTheCertificateByName) {
  const auto context =
      MakeContext({.certificates = {files.Certificate({"first.test", "also.first.test"}),
                                    files.Certificate({"*.wild.test"}),
                                    files.Certificate({"exact.wild.test", "first.test"})}},
                  keys);
  EXPECT_EQ(Shown(*context, "first.test"), "first.test");
  EXPECT_EQ(Shown(*context, "also.first.test"), "first.test");
  EXPECT_EQ(Shown(*context, "FIRST.test"), "first.test");
  EXPECT_EQ(Shown(*context, "a.wild.test"), "*.wild.test");
  EXPECT_EQ(Shown(*context, "exact.wild.test"), "exact.wild.test");
  EXPECT_EQ(Shown(*context, "a.b.wild.test"), "first.test") << "a wildcard is one label";
  EXPECT_EQ(Shown(*context, "wild.test"), "first.test");
  EXPECT_EQ(Shown(*context, "unknown.test"), "first.test");
  EXPECT_EQ(Shown(*context, ""), "first.test");
}

TEST_F(ServerContextTest, TellsAboutItsCertificates) {
  const auto context = MakeContext(
      {.certificates = {files.Certificate({"Chat.test", "b.test"}), files.Certificate({"c.test"})}},
      keys);
  ASSERT_EQ(context->certificates().size(), 2U);
  EXPECT_EQ(context->certificates()[0].name, "chat.test");
  EXPECT_EQ(context->certificates()[0].names, (std::vector<std::string>{"chat.test", "b.test"}));
  const std::time_t left = context->certificates()[1].not_after - std::time(nullptr);
  EXPECT_GT(left, 9 * 86'400);
  EXPECT_LE(left, 10 * 86'400 + 60);
}

TEST_F(ServerContextTest, AgreesOnHttp11) {
  const auto context = MakeContext({.certificates = {files.Certificate({"a.test"})}}, keys);
  TlsPair pair(*context, buffers, {.alpn = {"h2", "http/1.1"}});
  ASSERT_TRUE(pair.Handshake());
  const unsigned char* chosen = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(pair.client.get(), &chosen, &size);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(chosen), size), "http/1.1");
}

TEST_F(ServerContextTest, RefusesOtherProtocolsWithTheirAlert) {
  const auto context = MakeContext({.certificates = {files.Certificate({"a.test"})}}, keys);
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsPair pair(*context, buffers, {.alpn = {"h2"}, .max_version = version});
    EXPECT_FALSE(pair.Handshake());
    EXPECT_EQ(pair.server_status, net::IoStatus::kError);
    EXPECT_EQ(pair.client_error, SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
  }
}

TEST_F(ServerContextTest, VersionsAreAsConfigured) {
  const KeyPair pair = files.Certificate({"a.test"});
  const auto both = MakeContext({.certificates = {pair}}, keys);
  const auto newest = MakeContext({.certificates = {pair}, .tls13_only = true}, keys);
  TlsPair old_client(*both, buffers, {.max_version = TLS1_2_VERSION});
  EXPECT_TRUE(old_client.Handshake());
  EXPECT_EQ(old_client.server->version(), "TLSv1.2");
  EXPECT_FALSE(old_client.server->is_tls13());
  TlsPair new_client(*both, buffers);
  EXPECT_TRUE(new_client.Handshake());
  EXPECT_TRUE(new_client.server->is_tls13());
  TlsPair refused(*newest, buffers, {.max_version = TLS1_2_VERSION});
  EXPECT_FALSE(refused.Handshake());
  EXPECT_EQ(refused.client_error, SSL_R_TLSV1_ALERT_PROTOCOL_VERSION);
  TlsPair ancient(*both, buffers, {.max_version = TLS1_1_VERSION});
  EXPECT_FALSE(ancient.Handshake());
}

TEST_F(ServerContextTest, PrefersAes128UnlessTheClientNeedsChaChaOrMore) {
  const auto context = MakeContext({.certificates = {files.Certificate({"a.test"})}}, keys);
  const auto chosen = [&](const std::string& offered) {
    TlsPair pair(*context, buffers, {.ciphersuites = offered});
    EXPECT_TRUE(pair.Handshake());
    return std::string(SSL_CIPHER_get_name(SSL_get_current_cipher(pair.client.get())));
  };
  const std::string aes128 = "TLS_AES_128_GCM_SHA256";
  const std::string aes256 = "TLS_AES_256_GCM_SHA384";
  const std::string chacha = "TLS_CHACHA20_POLY1305_SHA256";
  EXPECT_EQ(chosen(aes256 + ":" + chacha + ":" + aes128), aes128);
  EXPECT_EQ(chosen(chacha + ":" + aes128 + ":" + aes256), chacha);
  EXPECT_EQ(chosen(aes256), aes256);
}

TEST_F(ServerContextTest, TicketsAreGoodOnEveryWorkerUntilTheirKeyIsGone) {
  const KeyPair pair = files.Certificate({"a.test"});
  const auto one = MakeContext({.certificates = {pair}, .realm = "l"}, keys);
  const auto two = MakeContext({.certificates = {pair}, .realm = "l"}, keys);
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    auto [resumed, ticket] = Visit(*one, nullptr, version);
    EXPECT_FALSE(resumed);
    EXPECT_TRUE(Visit(*two, ticket.get(), version).first) << version;
    for (int rotation = 1; rotation <= 2; ++rotation) {
      ASSERT_TRUE(keys.Rotate().has_value());
      EXPECT_TRUE(Visit(*two, ticket.get(), version).first) << version << " " << rotation;
    }
    ASSERT_TRUE(keys.Rotate().has_value());
    EXPECT_FALSE(Visit(*two, ticket.get(), version).first) << version;
  }
}

TEST_F(ServerContextTest, ATicketUnderAnOldKeyIsRenewed) {
  const auto context = MakeContext({.certificates = {files.Certificate({"a.test"})}}, keys);
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    SessionPtr ticket = Visit(*context, nullptr, version).second;
    for (int rotation = 0; rotation < 6; ++rotation) {  // longer than any one key lives
      ASSERT_TRUE(keys.Rotate().has_value());
      auto [resumed, renewed] = Visit(*context, ticket.get(), version);
      EXPECT_TRUE(resumed) << version << " " << rotation;
      ticket = std::move(renewed);
    }
  }
}

// RFC 8446 appendix C.4: a client uses a ticket once, so that its visits cannot be linked.
TEST_F(ServerContextTest, EachResumptionBringsTheNextTicket) {
  const auto context = MakeContext({.certificates = {files.Certificate({"a.test"})}}, keys);
  const auto text = [](const SessionPtr& session) {
    const unsigned char* bytes = nullptr;
    std::size_t size = 0;
    SSL_SESSION_get0_ticket(session.get(), &bytes, &size);
    return std::string(reinterpret_cast<const char*>(bytes), size);
  };
  const SessionPtr first = Visit(*context, nullptr, TLS1_3_VERSION).second;
  auto [resumed, second] = Visit(*context, first.get(), TLS1_3_VERSION);
  EXPECT_TRUE(resumed);
  EXPECT_NE(text(second), text(first));
  EXPECT_TRUE(Visit(*context, second.get(), TLS1_3_VERSION).first);
}

TEST_F(ServerContextTest, TicketsOfAnotherListenerAreNoGood) {
  const KeyPair pair = files.Certificate({"a.test"});
  const auto one = MakeContext({.certificates = {pair}, .realm = "one"}, keys);
  const auto two = MakeContext({.certificates = {pair}, .realm = "two"}, keys);
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const SessionPtr ticket = Visit(*one, nullptr, version).second;
    EXPECT_FALSE(Visit(*two, ticket.get(), version).first) << version;
  }
}

TEST_F(ServerContextTest, AsksForAClientCertificateWhenToldTo) {
  const KeyPair known = files.Certificate({"known.test"});
  const KeyPair stranger = files.Certificate({"stranger.test"});
  const auto context = MakeContext(
      {.certificates = {files.Certificate({"a.test"})}, .client_ca = known.chain}, keys);
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsPair good(*context, buffers, {.max_version = version, .certificate = known});
    EXPECT_TRUE(good.Handshake());
    TlsPair none(*context, buffers, {.max_version = version});
    EXPECT_FALSE(none.Handshake());
    EXPECT_EQ(none.server_status, net::IoStatus::kError);
    TlsPair bad(*context, buffers, {.max_version = version, .certificate = stranger});
    EXPECT_FALSE(bad.Handshake());
    EXPECT_EQ(bad.server_status, net::IoStatus::kError);
  }
}

TEST_F(ServerContextTest, NamesTheFileThatCannotBeUsed) {
  const KeyPair good = files.Certificate({"a.test"});
  const KeyPair other = files.Certificate({"b.test"});
  const std::string junk = files.Write("junk.pem", "not a certificate\n");
  EXPECT_NE(MessageOf({.certificates = {{"/nowhere.pem", good.key}}}).find("/nowhere.pem"),
            std::string::npos);
  EXPECT_NE(MessageOf({.certificates = {{junk, good.key}}}).find(junk), std::string::npos);
  EXPECT_NE(MessageOf({.certificates = {{good.chain, "/nowhere.key"}}}).find("/nowhere.key"),
            std::string::npos);
  EXPECT_NE(MessageOf({.certificates = {{good.chain, junk}}}).find(junk), std::string::npos);
  const std::string mismatch = MessageOf({.certificates = {{good.chain, other.key}}});
  EXPECT_NE(mismatch.find(other.key), std::string::npos) << mismatch;
  EXPECT_NE(mismatch.find(good.chain), std::string::npos) << mismatch;
  const std::string ca = MessageOf({.certificates = {good}, .client_ca = junk});
  EXPECT_NE(ca.find(junk), std::string::npos) << ca;
  EXPECT_NE(MessageOf({.certificates = {good, {junk, junk}}}).find(junk), std::string::npos)
      << "the second certificate is checked too";
}

TEST_F(ServerContextTest, ManyShareOneLibraryAndKeepIt) {
  auto library = MakeLibrary();
  ASSERT_TRUE(library.has_value());
  std::vector<std::unique_ptr<ServerContext>> contexts;
  for (const char* name : {"one.test", "two.test", "three.test"}) {
    auto made = ServerContext::Make(
        ContextOptions{.certificates = {files.Certificate({name})}}.Get(), keys, *library);
    ASSERT_TRUE(made.has_value()) << made.error().message;
    contexts.push_back(std::move(*made));
  }
  EXPECT_EQ(library->use_count(), 4);
  library->reset();
  // One after the other goes; those that are left do as before.
  while (!contexts.empty()) {
    for (const auto& context : contexts) {
      EXPECT_EQ(Shown(*context, ""), context->certificates()[0].name);
    }
    contexts.pop_back();
  }
}

TEST_F(ServerContextTest, OneWithoutALibraryMakesItsOwn) {
  auto library = MakeLibrary();
  ASSERT_TRUE(library.has_value());
  const auto context = MakeContext({.certificates = {files.Certificate({"a.test"})}}, keys);
  EXPECT_EQ(library->use_count(), 1);
  EXPECT_EQ(Shown(*context, ""), "a.test");
}

class FingerprintTest : public testing::Test {
 protected:
  [[nodiscard]] std::string Of(const ContextOptions& options) const {
    const auto made = Fingerprint(options.Get());
    EXPECT_TRUE(made.has_value()) << made.error().message;
    return made.value_or("");
  }

  Files files;
  std::string chain = files.Write("chain.pem", "chain");
  std::string key = files.Write("key.pem", "key");
  std::string ca = files.Write("ca.pem", "ca");
};

TEST_F(FingerprintTest, TellsEverySettingApart) {
  const std::string second_chain = files.Write("second.pem", "second");
  const std::vector<ContextOptions> all{
      {.certificates = {{chain, key}}},
      {.certificates = {{key, chain}}},
      {.certificates = {{chain, key}, {second_chain, key}}},
      {.certificates = {{second_chain, key}, {chain, key}}},  // another one for unknown names
      {.certificates = {{chain, key}}, .tls13_only = true},
      {.certificates = {{chain, key}}, .client_ca = ca},
      {.certificates = {{chain, key}}, .client_ca = chain},
      {.certificates = {{chain, key}}, .realm = "a"},
      {.certificates = {{chain, key}}, .realm = "b"},
  };
  std::set<std::string> prints;
  for (const ContextOptions& options : all) {
    const std::string print = Of(options);
    EXPECT_FALSE(print.empty()) << "empty is for a plain listener";
    EXPECT_EQ(Of(options), print);
    prints.insert(print);
  }
  EXPECT_EQ(prints.size(), all.size());
}

TEST_F(FingerprintTest, FollowsTheContentOfTheFilesNotTheirNames) {
  const ContextOptions options{.certificates = {{chain, key}}, .client_ca = ca};
  const std::string before = Of(options);
  const std::string copy = files.Write("copy.pem", "chain");
  EXPECT_EQ(Of({.certificates = {{copy, key}}, .client_ca = ca}), before);
  for (const char* name : {"chain.pem", "key.pem", "ca.pem"}) {
    const std::string was(name, std::string_view(name).find('.'));
    files.Write(name, was + " ");
    EXPECT_NE(Of(options), before) << name;
    files.Write(name, was);
    EXPECT_EQ(Of(options), before) << name;
  }
  // What moves from the end of one file to the start of the next is a change.
  files.Write("chain.pem", "chai");
  files.Write("key.pem", "nkey");
  EXPECT_NE(Of(options), before);
}

TEST_F(FingerprintTest, NamesAFileThatIsNotThere) {
  const auto made = Fingerprint(ContextOptions{.certificates = {{chain, "/nowhere.key"}}}.Get());
  ASSERT_FALSE(made.has_value());
  EXPECT_NE(made.error().message.find("/nowhere.key"), std::string::npos) << made.error().message;
}

}  // namespace
}  // namespace sluice::tls
