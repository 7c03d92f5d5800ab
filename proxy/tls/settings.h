// What contexts of both sides are made of: the library context of a thread, certificates with their
// keys, whom to trust, and the settings that all of them share.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>

#include "proxy/base/result.h"
#include "proxy/tls/openssl_ptr.h"

namespace sluice::tls {

// An OSSL_LIB_CTX, some 300 KB: made once for a worker, shared by all of its contexts.
using Library = std::shared_ptr<OSSL_LIB_CTX>;
[[nodiscard]] Result<Library> MakeLibrary();

struct KeyPair {
  std::string chain;  // path of a PEM file, leaf first
  std::string key;    // path of a PEM file
};

// RFC 7301: the one protocol that is spoken, in wire form.
inline constexpr std::array<unsigned char, 9> kHttp11{8, 'h', 't', 't', 'p', '/', '1', '.', '1'};

// Versions, ciphers and modes, for a TlsTransport of either side.
[[nodiscard]] Result<void> ApplyCommonSettings(SSL_CTX* context, bool tls13_only);

// Loads a certificate chain and its key; an error names the file and says what is wrong with it.
[[nodiscard]] Result<void> UseKeyPair(SSL_CTX* context, const KeyPair& pair);

// Has certificates of servers lead to one in `ca_file`, a PEM bundle; empty: to an authority of the
// system. Does not say that they are verified.
[[nodiscard]] Result<void> TrustAuthorities(SSL_CTX* context, const std::string& ca_file);

// Has the server's certificate be good for `name`, a DNS name or a numeric address. A DNS name is
// sent as SNI too (RFC 6066 section 3).
[[nodiscard]] Result<void> ExpectServer(SSL* ssl, const std::string& name);

// A digest of settings and files, by which a reload tells whether there is anything to load anew.
class Digest {
 public:
  Digest();

  // Each piece with its length in front: where one ends cannot be mistaken.
  void Add(std::string_view piece);
  [[nodiscard]] Result<void> AddFile(const std::string& path);
  [[nodiscard]] Result<std::string> Finish();

 private:
  DigestPtr digest_;
  bool good_;
};

}  // namespace sluice::tls
