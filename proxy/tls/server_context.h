// The certificates and settings of one TLS listener, as one worker uses them.
//
// Each worker has contexts of its own over an OSSL_LIB_CTX of its own: OpenSSL 3.0 takes locks
// inside a shared one during every handshake. What must be common to all workers, the ticket
// keys, is passed in. A context outlives its sessions: OpenSSL calls back into it.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "proxy/base/result.h"
#include "proxy/tls/settings.h"
#include "proxy/tls/ticket_keys.h"

namespace sluice::tls {

struct ServerOptions {
  std::vector<KeyPair> certificates;  // never empty; the first serves unknown names
  bool tls13_only = false;
  std::string client_ca;  // path of a PEM bundle; set: clients must show a certificate of it
  std::string realm;      // tickets are good within one realm only: the listener's name
};

// A digest of the settings and of the content of every file they name: a reload tells by it whether
// there is anything to load anew.
[[nodiscard]] Result<std::string> Fingerprint(const ServerOptions& options);

// What is known about a loaded certificate.
struct CertificateInfo {
  std::string name;                // its first DNS name, or its common name
  std::vector<std::string> names;  // all DNS names, lower case
  std::time_t not_after = 0;
};

[[nodiscard]] CertificateInfo Describe(X509* certificate);

class ServerContext {
 public:
  // Loads and checks everything; an error names the file and says what is wrong with it.
  // `keys` must outlive the context. Without a `library` it has one of its own.
  [[nodiscard]] static Result<std::unique_ptr<ServerContext>> Make(const ServerOptions& options,
                                                                   const TicketKeys& keys,
                                                                   Library library = nullptr);

  ServerContext(const ServerContext&) = delete;
  ServerContext& operator=(const ServerContext&) = delete;

  // A new server-side session over `bio`, which it takes. Null only when memory is out.
  [[nodiscard]] SslPtr NewSession(BioPtr bio) const;

  [[nodiscard]] const std::vector<CertificateInfo>& certificates() const noexcept { return infos_; }

 private:
  ServerContext(const TicketKeys& keys, Library library);

  [[nodiscard]] Result<SslCtxPtr> Load(const ServerOptions& options, const KeyPair& pair);
  [[nodiscard]] SSL_CTX* ForName(std::string_view server_name) const;

  static int OnServerName(SSL* ssl, int* alert, void* self);
  static int OnAlpn(SSL* ssl, const unsigned char** out, unsigned char* out_size,
                    const unsigned char* in, unsigned int in_size, void* self);
  static int OnTicket(SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher,
                      EVP_MAC_CTX* mac, int seal);

  const TicketKeys& keys_;
  Library library_;  // before what is made from it
  CipherPtr ticket_cipher_;
  std::vector<SslCtxPtr> contexts_;
  std::vector<CertificateInfo> infos_;
  std::unordered_map<std::string, SSL_CTX*> by_name_;  // exact names and "*.suffix", lower case
};

}  // namespace sluice::tls
