// The client's side of one TLS connection, blocking with deadlines: for the command line, which
// asks one question of an admin interface and ends. Nothing that runs in a loop uses it.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "proxy/base/bytes.h"
#include "proxy/base/clock.h"
#include "proxy/base/result.h"
#include "proxy/tls/openssl_ptr.h"

namespace sluice::tls {

// Whom to trust. The server's certificate has to be good for `server_name` and to lead to an
// authority, or else to be the very one in `own_certificate`.
struct ClientOptions {
  std::string ca_file = {};  // PEM bundle of authorities; empty: those of the system
  // PEM file whose first certificate is believed whatever its names and dates are: for a client
  // that reads the server's own configuration. Empty: none.
  std::string own_certificate = {};
  // DNS name or numeric address; empty: the name that `own_certificate` is for.
  std::string server_name = {};
};

class BlockingClient {
 public:
  // Makes the handshake on `fd`, a connected non-blocking socket that must outlive this. Nothing
  // has been sent when the server is not to be trusted.
  [[nodiscard]] static Result<std::unique_ptr<BlockingClient>> Connect(int fd,
                                                                       const ClientOptions& options,
                                                                       Instant deadline);

  [[nodiscard]] Result<void> Write(Bytes bytes, Instant deadline);

  // How much was read; 0: the server's end of the stream.
  [[nodiscard]] Result<std::size_t> Read(std::span<std::byte> into, Instant deadline);

 private:
  BlockingClient(int fd, SslCtxPtr context) noexcept : fd_(fd), context_(std::move(context)) {}

  [[nodiscard]] Result<void> Trust(const ClientOptions& options);
  [[nodiscard]] Result<void> Verify() const;
  // Waits for what the last call, which gave `result`, could not do without.
  [[nodiscard]] Result<void> AwaitAfter(int result, Instant deadline);

  int fd_;
  SslCtxPtr context_;
  SslPtr ssl_;
  X509Ptr own_;  // null: none
};

}  // namespace sluice::tls
