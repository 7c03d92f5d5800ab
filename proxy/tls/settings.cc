#include "proxy/tls/settings.h"

#include <arpa/inet.h>

#include <fstream>
#include <iterator>

#include <openssl/sha.h>
#include <openssl/x509v3.h>

namespace sluice::tls {
namespace {

bool IsNumeric(const std::string& host) {
  in6_addr address{};  // the larger of the two
  return inet_pton(AF_INET, host.c_str(), &address) == 1 ||
         inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

}  // namespace

Result<Library> MakeLibrary() {
  ERR_clear_error();
  Library library(OSSL_LIB_CTX_new(), OSSL_LIB_CTX_free);
  if (!library) {
    return Err("cannot make an OpenSSL library context: " + TakeErrorText());
  }
  return library;
}

Result<void> ApplyCommonSettings(SSL_CTX* context, bool tls13_only) {
  SSL_CTX_set_min_proto_version(context, tls13_only ? TLS1_3_VERSION : TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                   // WebSocket peers often leave without a close_notify; a FIN at a
                                   // record border is then an end, not an error.
                                   SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // OpenSSL's own order begins with AES-256. 128 bits are as far out of reach, a megabyte costs a
  // tenth less, and the handshake hashes with SHA-256, for which processors have instructions and
  // whose states, which a session keeps, are half as large. Clients without AES instructions say so
  // by asking for ChaCha20 first (PRIORITIZE_CHACHA), one that insists on AES-256 gets that.
  if (SSL_CTX_set_ciphersuites(context,
                               "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
                               "TLS_CHACHA20_POLY1305_SHA256") != 1) {
    return Err("cannot set the cipher suites: " + TakeErrorText());
  }
  return {};
}

Result<void> UseKeyPair(SSL_CTX* context, const KeyPair& pair) {
  // An encrypted key is a mistake to report, not a reason to ask at a terminal.
  SSL_CTX_set_default_passwd_cb(context, [](char*, int, int, void*) { return 0; });
  if (SSL_CTX_use_certificate_chain_file(context, pair.chain.c_str()) != 1) {
    return Err("cannot use the certificate chain " + pair.chain + ": " + TakeErrorText());
  }
  if (SSL_CTX_use_PrivateKey_file(context, pair.key.c_str(), SSL_FILETYPE_PEM) != 1) {
    // A key of another certificate is refused here already when both have the same type.
    return Err("the key " + pair.key + " is not a PEM private key that fits the certificate " +
               pair.chain + ": " + TakeErrorText());
  }
  if (SSL_CTX_check_private_key(context) != 1) {
    return Err("the key " + pair.key + " does not fit the certificate " + pair.chain);
  }
  return {};
}

Result<void> TrustAuthorities(SSL_CTX* context, const std::string& ca_file) {
  // The bundle may end with an intermediate authority, or be the certificate itself.
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN);
  if (ca_file.empty()) {
    SSL_CTX_set_default_verify_paths(context);
  } else if (SSL_CTX_load_verify_file(context, ca_file.c_str()) != 1) {
    return Err("cannot use the CA file " + ca_file + ": " + TakeErrorText());
  }
  return {};
}

Result<void> ExpectServer(SSL* ssl, const std::string& name) {
  if (IsNumeric(name)) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name.c_str());
    return {};
  }
  // RFC 6125 section 6.4.3: a wildcard is a whole label.
  SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  if (name.empty() || SSL_set1_host(ssl, name.c_str()) != 1) {
    return Err("there is no name to check the server's certificate against");
  }
  // What the macro SSL_set_tlsext_host_name does, without its C cast. OpenSSL copies the text.
  std::string copy = name;
  SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, copy.data());
  return {};
}

Digest::Digest()
    : digest_(EVP_MD_CTX_new()),
      good_(digest_ && EVP_DigestInit_ex2(digest_.get(), EVP_sha256(), nullptr) == 1) {}

void Digest::Add(std::string_view piece) {
  const std::string size = std::to_string(piece.size()) + ":";
  good_ = good_ && EVP_DigestUpdate(digest_.get(), size.data(), size.size()) == 1 &&
          EVP_DigestUpdate(digest_.get(), piece.data(), piece.size()) == 1;
}

Result<void> Digest::AddFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (!in) {
    return Err("cannot read " + path);
  }
  Add(content);
  return {};
}

Result<std::string> Digest::Finish() {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> out{};
  if (!good_ || EVP_DigestFinal_ex(digest_.get(), out.data(), nullptr) != 1) {
    return Err("cannot compute a digest: " + TakeErrorText());
  }
  return std::string(out.begin(), out.end());
}

}  // namespace sluice::tls
