// A client that says exactly what the test tells it to.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tests/support/stream.h"

namespace sluice::test {

struct ClientOptions {
  bool small_buffers = false;        // feels backpressure soon
  std::string source = "127.0.0.1";  // any 127.0.0.0/8 address
};

class RawClient : public Stream {
 public:
  RawClient() = default;
  // Connects to 127.0.0.1:port.
  explicit RawClient(std::uint16_t port, const ClientOptions& options = {});
  // Connects and finishes a TLS handshake.
  RawClient(std::uint16_t port, const TlsClientOptions& tls, const ClientOptions& options = {});

  // Sends an upgrade and returns the answer, whatever it is. `more`: further field lines.
  HttpMessage Upgrade(std::string_view target = "/", std::string_view more = {});

  // Sends CLOSE and reads on to the peer's CLOSE, which it returns.
  Frame CloseAndAwait(std::uint16_t code = 1000);
};

// An upgraded client; fails the test if the answer is not 101.
RawClient ConnectWebSocket(std::uint16_t port, std::string_view target = "/",
                           std::string_view more = {});

}  // namespace sluice::test
