// The server's side of TLS for backends of tests: one SSL_CTX, so that what one connection gave
// another may resume.
#pragma once

#include <memory>
#include <string>

#include <openssl/ssl.h>

#include "tests/support/certificates.h"

namespace sluice::test {

struct TlsServerOptions {
  CertificateFiles certificate = {};
  std::string client_ca = {};  // PEM file; set: clients must show a certificate of it
  int max_version = 0;         // TLS1_2_VERSION, ...; 0: the newest
};

// What a handshake has agreed.
struct TlsFacts {
  std::string sni;   // empty: none was sent
  std::string alpn;  // empty: none was agreed
  int version = 0;
  bool resumed = false;
  bool client_certificate = false;
};

class TlsServer {
 public:
  explicit TlsServer(const TlsServerOptions& options);

  // Shared by any number of threads.
  [[nodiscard]] SSL_CTX* context() const noexcept { return context_.get(); }

  // REQUIRES: the handshake is done.
  [[nodiscard]] static TlsFacts FactsOf(const SSL* ssl);

 private:
  struct ContextFree {
    void operator()(SSL_CTX* context) const noexcept { SSL_CTX_free(context); }
  };

  std::unique_ptr<SSL_CTX, ContextFree> context_;
};

}  // namespace sluice::test
