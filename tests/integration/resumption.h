// TLS connections that offer a session of an earlier one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <openssl/ssl.h>

#include "tests/support/raw_client.h"

namespace sluice::test {

struct SslFree {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL_SESSION* session) const { SSL_SESSION_free(session); }
};

using SslContext = std::unique_ptr<SSL_CTX, SslFree>;
using SslSession = std::unique_ptr<SSL_SESSION, SslFree>;

inline SslContext MakeClientContext(int max_version) {
  SslContext context(SSL_CTX_new(TLS_client_method()));
  SSL_CTX_set_max_proto_version(context.get(), max_version);
  return context;
}

// One connection that offers `session`; returns whether it was taken up, and the new ticket.
inline bool Resume(std::uint16_t port, SSL_CTX* context, SslSession& session) {
  RawClient tcp(port);
  const std::unique_ptr<SSL, SslFree> ssl(SSL_new(context));
  SSL_set_fd(ssl.get(), tcp.fd());
  if (session) {
    SSL_set_session(ssl.get(), session.get());
  }
  const Deadline deadline;
  const auto finish = [&](auto&& call) {
    for (;;) {
      const int result = call();
      const int error = SSL_get_error(ssl.get(), result);
      if (error != SSL_ERROR_WANT_READ || deadline.passed()) {
        return result;
      }
      static_cast<void>(tcp.HasInput(Millis(100)));
    }
  };
  if (finish([&] { return SSL_connect(ssl.get()); }) != 1) {
    throw Failure("no handshake");
  }
  const bool resumed = SSL_session_reused(ssl.get()) == 1;
  // A ticket of TLS 1.3 comes with the first answer.
  const std::string request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  SSL_write(ssl.get(), request.data(), static_cast<int>(request.size()));
  std::string answer(4096, '\0');
  finish([&] { return SSL_read(ssl.get(), answer.data(), static_cast<int>(answer.size())); });
  session.reset(SSL_get1_session(ssl.get()));
  SSL_set_shutdown(ssl.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);  // keeps it resumable
  return resumed;
}

}  // namespace sluice::test
