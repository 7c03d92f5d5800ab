#include "tests/support/stream.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <gtest/gtest.h>
#include <openssl/err.h>

namespace sluice::test {
namespace {

struct ContextFree {
  void operator()(SSL_CTX* context) const noexcept { SSL_CTX_free(context); }
};

std::string Shown(std::string_view bytes) {
  constexpr std::size_t kMost = 200;
  std::string out;
  for (const char c : bytes.substr(0, kMost)) {
    if (c == '\r' || c == '\n' || (c >= ' ' && c <= '~')) {
      out += c;
    } else {
      out += '?';
    }
  }
  return out;
}

}  // namespace

Stream::Stream(UniqueFd fd, std::string label) : fd_(std::move(fd)), label_(std::move(label)) {
  const int on = 1;
  ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  ::fcntl(fd_.get(), F_SETFL, ::fcntl(fd_.get(), F_GETFL) | O_NONBLOCK);
}

Stream::~Stream() = default;

void Stream::Fail(const std::string& what) const {
  throw Failure(label_ + ": " + what + (buffer_.empty() ? "" : "; unread: " + Shown(buffer_)));
}

void Stream::Await(short events, Deadline deadline, const char* what) const {
  pollfd one{fd_.get(), events, 0};
  for (;;) {
    const int ready = ::poll(&one, 1, deadline.poll_ms());
    if (ready > 0) {
      return;
    }
    if (ready == 0 || errno != EINTR) {
      Fail(std::string("waited in vain ") + what);
    }
  }
}

void Stream::StartTls(const TlsClientOptions& options) {
  const std::unique_ptr<SSL_CTX, ContextFree> context(SSL_CTX_new(TLS_client_method()));
  if (options.max_version != 0) {
    SSL_CTX_set_max_proto_version(context.get(), options.max_version);
  }
  if (!options.trust.empty()) {
    SSL_CTX_load_verify_locations(context.get(), options.trust.c_str(), nullptr);
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  }
  if (!options.chain.empty() &&
      (SSL_CTX_use_certificate_chain_file(context.get(), options.chain.c_str()) != 1 ||
       SSL_CTX_use_PrivateKey_file(context.get(), options.key.c_str(), SSL_FILETYPE_PEM) != 1)) {
    Fail("cannot use the client certificate");
  }
  ssl_.reset(SSL_new(context.get()));
  SSL_set_fd(ssl_.get(), fd_.get());
  if (!options.sni.empty()) {
    // SSL_set_tlsext_host_name without its C cast; OpenSSL copies the text.
    SSL_ctrl(ssl_.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
             const_cast<char*>(options.sni.c_str()));
    if (!options.trust.empty()) {
      SSL_set1_host(ssl_.get(), options.sni.c_str());
    }
  }
  if (!options.alpn.empty()) {
    std::string wire(1, static_cast<char>(options.alpn.size()));
    wire += options.alpn;
    SSL_set_alpn_protos(ssl_.get(), reinterpret_cast<const unsigned char*>(wire.data()),
                        static_cast<unsigned>(wire.size()));
  }
  SSL_set_connect_state(ssl_.get());
  FinishHandshake();
}

void Stream::AcceptTls(const TlsServer& server) {
  ssl_.reset(SSL_new(server.context()));
  SSL_set_fd(ssl_.get(), fd_.get());
  SSL_set_accept_state(ssl_.get());
  FinishHandshake();
}

void Stream::FinishHandshake() {
  const Deadline deadline;
  for (;;) {
    ERR_clear_error();
    const int done = SSL_do_handshake(ssl_.get());
    if (done == 1) {
      return;
    }
    switch (SSL_get_error(ssl_.get(), done)) {
      case SSL_ERROR_WANT_READ:
        Await(POLLIN, deadline, "in the TLS handshake");
        break;
      case SSL_ERROR_WANT_WRITE:
        Await(POLLOUT, deadline, "in the TLS handshake");
        break;
      default: {
        std::array<char, 256> text{};
        ERR_error_string_n(ERR_peek_error(), text.data(), text.size());
        Fail(std::string("TLS handshake failed: ") + text.data());
      }
    }
  }
}

std::size_t Stream::SendSome(std::string_view bytes) {
  if (bytes.empty()) {
    return 0;
  }
  if (ssl_) {
    ERR_clear_error();
    SSL_set_mode(ssl_.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    const int sent = SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size()));
    if (sent > 0) {
      return static_cast<std::size_t>(sent);
    }
    const int error = SSL_get_error(ssl_.get(), sent);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
      return 0;
    }
    Fail("TLS write failed");
  }
  const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  if (sent >= 0) {
    return static_cast<std::size_t>(sent);
  }
  if (errno == EAGAIN || errno == EINTR) {
    return 0;
  }
  Fail(std::string("send: ") + std::strerror(errno));
}

void Stream::Send(std::string_view bytes) {
  const Deadline deadline;
  while (!bytes.empty()) {
    const std::size_t sent = SendSome(bytes);
    bytes.remove_prefix(sent);
    if (sent == 0) {
      Await(POLLOUT, deadline, "to send");
    }
  }
}

void Stream::SendDribble(std::string_view bytes) {
  const Deadline deadline;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    Send(bytes.substr(i, 1));
    // The byte has left when nothing is unsent: the next one cannot join its segment.
    int unsent = 1;
    while (::ioctl(fd_.get(), TIOCOUTQ, &unsent) == 0 && unsent > 0 && !deadline.passed()) {
      pollfd none{-1, 0, 0};
      ::poll(&none, 1, 0);
    }
  }
}

bool Stream::Fill(Deadline deadline) {
  if (ended_) {
    return false;
  }
  std::array<char, 64 * 1024> scratch;
  for (;;) {
    ssize_t got = 0;
    if (ssl_) {
      ERR_clear_error();
      got = SSL_read(ssl_.get(), scratch.data(), static_cast<int>(scratch.size()));
      if (got <= 0) {
        const int error = SSL_get_error(ssl_.get(), static_cast<int>(got));
        if (error == SSL_ERROR_WANT_READ) {
          Await(POLLIN, deadline, "for bytes");
          continue;
        }
        ended_ = true;
        reset_ = error != SSL_ERROR_ZERO_RETURN;
        return false;
      }
    } else {
      got = ::recv(fd_.get(), scratch.data(), scratch.size(), 0);
      if (got < 0) {
        if (errno == EAGAIN || errno == EINTR) {
          Await(POLLIN, deadline, "for bytes");
          continue;
        }
        ended_ = true;
        reset_ = true;
        return false;
      }
      if (got == 0) {
        ended_ = true;
        return false;
      }
    }
    bytes_read_ += static_cast<std::uint64_t>(got);
    buffer_.append(scratch.data(), static_cast<std::size_t>(got));
    return true;
  }
}

std::string Stream::ReadSome(Deadline deadline) {
  if (buffer_.empty() && !Fill(deadline) && reset_) {
    Fail("reset by the peer");
  }
  return std::exchange(buffer_, {});
}

std::string Stream::ReadSlowly() {
  std::string got = std::exchange(buffer_, {});
  std::array<char, 2048> piece;
  for (const Deadline over(Millis(2000)); !over.passed();) {
    pollfd one{fd(), POLLIN, 0};
    static_cast<void>(::poll(&one, 1, 100));
    const ssize_t count = ::recv(fd(), piece.data(), piece.size(), MSG_DONTWAIT);
    if (count == 0 || (count < 0 && errno != EAGAIN)) {
      break;
    }
    got.append(piece.data(), count > 0 ? static_cast<std::size_t>(count) : 0);
    static_cast<void>(::poll(nullptr, 0, 20));  // the pace
  }
  return got;
}

std::string Stream::ReadExactly(std::size_t count) {
  const Deadline deadline;
  while (buffer_.size() < count) {
    if (!Fill(deadline)) {
      Fail("ended " + std::to_string(count - buffer_.size()) + " bytes short of " +
           std::to_string(count));
    }
  }
  std::string out = buffer_.substr(0, count);
  buffer_.erase(0, count);
  return out;
}

std::string Stream::ReadUntil(std::string_view delimiter) {
  const Deadline deadline;
  std::size_t from = 0;
  for (;;) {
    const std::size_t at = buffer_.find(delimiter, from);
    if (at != std::string::npos) {
      std::string out = buffer_.substr(0, at + delimiter.size());
      buffer_.erase(0, out.size());
      return out;
    }
    from = buffer_.size() < delimiter.size() ? 0 : buffer_.size() - delimiter.size();
    if (!Fill(deadline)) {
      Fail("ended before " + Shown(delimiter));
    }
  }
}

std::string Stream::ReadToEnd() {
  const Deadline deadline;
  while (Fill(deadline)) {
  }
  if (reset_) {
    Fail("reset by the peer");
  }
  return std::exchange(buffer_, {});
}

StreamEnd Stream::AwaitEnd(Deadline deadline) {
  while (Fill(deadline)) {
    buffer_.clear();
  }
  return reset_ ? StreamEnd::kReset : StreamEnd::kFin;
}

void Stream::ExpectEnd() {
  const std::string rest = ReadToEnd();
  EXPECT_EQ(rest, "") << label_ << ": bytes before the end";
}

void Stream::ExpectReset() {
  EXPECT_EQ(AwaitEnd(), StreamEnd::kReset) << label_;
}

bool Stream::HasInput(Millis patience) {
  if (!buffer_.empty() || ended_ || (ssl_ && SSL_pending(ssl_.get()) > 0)) {
    return true;
  }
  pollfd one{fd_.get(), POLLIN, 0};
  return ::poll(&one, 1, Deadline(patience).poll_ms()) > 0;
}

bool Stream::HasRoom(Millis patience) {
  pollfd one{fd_.get(), POLLOUT, 0};
  return ::poll(&one, 1, Deadline(patience).poll_ms()) > 0;
}

HttpMessage Stream::ReadHead() {
  return ParseHead(ReadUntil("\r\n\r\n"));
}

std::string Stream::ReadChunk() {
  const std::string line = ReadUntil("\r\n");
  const std::size_t size = std::strtoull(line.c_str(), nullptr, 16);
  if (size == 0) {
    while (ReadUntil("\r\n") != "\r\n") {
    }
    return {};
  }
  std::string data = ReadExactly(size);
  if (ReadExactly(2) != "\r\n") {
    Fail("no CRLF behind a chunk");
  }
  return data;
}

void Stream::ReadBody(HttpMessage& message, bool none, bool until_close) {
  if (none) {
    return;
  }
  if (message.Field("Transfer-Encoding") == "chunked") {
    for (std::string chunk = ReadChunk(); !chunk.empty(); chunk = ReadChunk()) {
      message.body += chunk;
    }
  } else if (message.Has("Content-Length")) {
    message.body = ReadExactly(std::strtoull(message.Field("Content-Length").c_str(), nullptr, 10));
  } else if (until_close) {
    message.body = ReadToEnd();
  }
}

HttpMessage Stream::ReadResponse(std::string_view method) {
  HttpMessage message = ReadHead();
  const bool none =
      method == "HEAD" || message.status < 200 || message.status == 204 || message.status == 304;
  ReadBody(message, none, true);
  return message;
}

HttpMessage Stream::ReadRequest() {
  HttpMessage message = ReadHead();
  ReadBody(message, false, false);
  return message;
}

Frame Stream::ReadFrame(Deadline deadline) {
  for (;;) {
    if (auto frame = TakeFrame(buffer_)) {
      return *std::move(frame);
    }
    if (!Fill(deadline)) {
      Fail(reset_ ? "reset instead of a frame" : "ended instead of a frame");
    }
  }
}

void Stream::FinishWrite() {
  if (ssl_) {
    SSL_shutdown(ssl_.get());
  }
  ::shutdown(fd_.get(), SHUT_WR);
}

void Stream::Reset() {
  const linger at_once{1, 0};
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  Close();
}

void Stream::Close() {
  ssl_.reset();
  fd_.Reset();
}

void Stream::ShrinkBuffers() {
  const int size = 4096;
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

std::uint16_t Stream::local_port() const {
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

}  // namespace sluice::test
