// The TLS of the load: the certificate is verified, and every proxy is asked for the same work.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <openssl/ssl.h>

namespace sluice::bench {

template <auto Free>
struct FreeWith {
  template <class T>
  void operator()(T* handle) const noexcept {
    Free(handle);
  }
};
using SslPtr = std::unique_ptr<SSL, FreeWith<SSL_free>>;
using SslCtxPtr = std::unique_ptr<SSL_CTX, FreeWith<SSL_CTX_free>>;
using SslSessionPtr = std::unique_ptr<SSL_SESSION, FreeWith<SSL_SESSION_free>>;

// What the certificate that run.py makes is for.
inline constexpr const char* kHost = "bench.test";

// Ends the program with `what` and the reason that OpenSSL gives.
[[noreturn]] void DieSsl(const std::string& what);

// Buffers for reading: little for sessions that idle, one recv for a record, or one for many.
enum class Reading { kLean, kRecord, kBulk };

// Trusts the certificates in the file `ca` alone. Null when `ca` is empty: no TLS.
SslCtxPtr MakeTls(const std::string& ca, Reading reading);

// Tickets that a server has given, each to be used once (RFC 8446, C.4) as long as there are
// enough.
class Tickets {
 public:
  // From now on what servers give to connections of `context` is kept here. At most `limit`, so
  // that none grows old. REQUIRES: outlives the connections.
  Tickets(SSL_CTX* context, std::size_t limit);

  [[nodiscard]] std::size_t size() const { return kept_.size(); }

  // The oldest; null when there has never been one. A server that gives none to those who resume
  // would stop the measurement: the last one is used again then, and counted in reused().
  SslSessionPtr Take();

  [[nodiscard]] std::uint64_t reused() const { return reused_; }

 private:
  static int OnTicket(SSL* ssl, SSL_SESSION* session);

  std::size_t limit_;
  std::vector<SslSessionPtr> kept_;
  std::uint64_t reused_ = 0;
};

}  // namespace sluice::bench
