#include "tests/deploy/client/wire.h"

#include <utility>

#include <openssl/err.h>

namespace sluice::deploy {

bench::SslCtxPtr MakeTls() {
  bench::SslCtxPtr context(SSL_CTX_new(TLS_client_method()));
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
  return context;
}

const char* FailureOf(int error) {
  switch (error) {
    case ECONNREFUSED:
      return "refused";
    case ECONNRESET:
    case EPIPE:
      return "reset";
    case ETIMEDOUT:
      return "timeout";
    default:
      return "system";
  }
}

// Loopback has segments of 64 KiB, and a sender's buffer is of many of them.
void Wire::MakeNarrow(int fd) {
  constexpr int kSegment = 1400;
  constexpr int kBuffer = 32 * 1024;
  ::setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &kSegment, sizeof(kSegment));
  ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kBuffer, sizeof(kBuffer));
}

int Wire::Connect(const sockaddr_in& address, SSL_CTX* tls, bool narrow) {
  tls_ = tls;
  connected_ = false;
  failure_ = "";
  fd_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd_.valid()) {
    return errno;
  }
  bench::SetNoDelay(fd_.get());
  if (narrow) {
    MakeNarrow(fd_.get());
  }
  if (::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 &&
      errno != EINPROGRESS) {
    return errno;
  }
  return 0;
}

void Wire::Adopt(UniqueFd fd) {
  ssl_.reset();
  tls_ = nullptr;
  connected_ = true;
  fd_ = std::move(fd);
}

Wire::Step Wire::Advance() {
  if (!connected_) {
    int error = 0;
    socklen_t size = sizeof(error);
    ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      failure_ = FailureOf(error);
      return Step::kFailed;
    }
    sockaddr_in peer{};
    size = sizeof(peer);
    if (::getpeername(fd_.get(), reinterpret_cast<sockaddr*>(&peer), &size) != 0) {
      return Step::kWantsWrite;
    }
    connected_ = true;
    if (tls_ != nullptr) {
      ssl_.reset(SSL_new(tls_));
      SSL_set_fd(ssl_.get(), fd_.get());
    }
  }
  if (!ssl_ || SSL_is_init_finished(ssl_.get()) == 1) {
    return Step::kDone;
  }
  ERR_clear_error();
  const int result = SSL_connect(ssl_.get());
  if (result == 1) {
    return Step::kDone;
  }
  const int system_error = errno;
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return Step::kWantsRead;
    case SSL_ERROR_WANT_WRITE:
      return Step::kWantsWrite;
    case SSL_ERROR_SYSCALL:
      failure_ = FailureOf(system_error);
      break;
    default:
      failure_ =
          ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING ? "fin" : "tls";
  }
  return Step::kFailed;
}

void Wire::Close() {
  if (ssl_) {
    ERR_clear_error();
    SSL_shutdown(ssl_.get());
    ssl_.reset();
  }
  fd_.Reset();
}

void Wire::Reset() {
  ssl_.reset();
  if (fd_.valid()) {
    const linger now{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    fd_.Reset();
  }
}

ssize_t Wire::Read(unsigned char* into, std::size_t size) {
  if (ssl_) {
    ERR_clear_error();
    std::size_t got = 0;
    const int result = SSL_read_ex(ssl_.get(), into, size, &got);
    return TlsOutcome(result, got);
  }
  const ssize_t got = ::recv(fd_.get(), into, size, 0);
  return got == 0 ? kFin : SocketOutcome(got);
}

ssize_t Wire::Write(const unsigned char* from, std::size_t size) {
  if (ssl_) {
    ERR_clear_error();
    std::size_t sent = 0;
    const int result = SSL_write_ex(ssl_.get(), from, size, &sent);
    return TlsOutcome(result, sent);
  }
  return SocketOutcome(::send(fd_.get(), from, size, MSG_NOSIGNAL));
}

ssize_t Wire::TlsOutcome(int result, std::size_t count) {
  if (result == 1) {
    return static_cast<ssize_t>(count);
  }
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
      return kNothing;
    case SSL_ERROR_ZERO_RETURN:
      return kFin;
    case SSL_ERROR_SSL:
      return ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING ? kFin : kReset;
    default:
      return kReset;
  }
}

ssize_t Wire::SocketOutcome(ssize_t result) {
  if (result >= 0) {
    return result;
  }
  return errno == EAGAIN ? kNothing : kReset;
}

}  // namespace sluice::deploy
