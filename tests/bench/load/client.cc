#include "tests/bench/load/client.h"

#include <poll.h>

#include <array>
#include <utility>

#include <openssl/err.h>
#include <openssl/rand.h>

#include "tests/bench/websocket.h"

namespace sluice::bench {

Client::Client(const Target& target, std::uint64_t number, SslSessionPtr resume)
    : number_(number),
      tls_(target.tls),
      upgrade_(target.upgrade),
      resume_(std::move(resume)),
      must_resume_(resume_ != nullptr),
      fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)),
      path_(target.path) {
  if (!fd_.valid()) {
    DieErrno("socket");
  }
  SetNoDelay(fd_.get());
  const sockaddr_in address = Loopback(target.port);
  if (::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 &&
      errno != EINPROGRESS) {
    DieErrno("connect to port " + std::to_string(target.port));
  }
}

Client::~Client() {
  if (ssl_) {
    // OpenSSL takes the tickets of a connection without a close_notify for spoilt.
    SSL_set_quiet_shutdown(ssl_.get(), 1);
    SSL_shutdown(ssl_.get());
  }
}

Client::Progress Client::Advance() {
  if (stage_ == Stage::kConnect) {
    sockaddr_in peer{};
    socklen_t size = sizeof(peer);
    if (::getpeername(fd_.get(), reinterpret_cast<sockaddr*>(&peer), &size) != 0) {
      int error = 0;
      size = sizeof(error);
      ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
      if (error != 0) {
        DieHere(std::string("connect: ") + std::strerror(error));
      }
      return Progress::kWantsWrite;
    }
    stage_ = tls_ != nullptr ? Stage::kTls : Stage::kRequest;
    if (tls_ != nullptr) {
      StartTls();
    }
  }
  if (stage_ == Stage::kTls) {
    const Progress progress = AdvanceTls();
    if (progress != Progress::kOpen) {
      return progress;
    }
    stage_ = Stage::kRequest;
  }
  if (stage_ == Stage::kRequest && !upgrade_) {
    stage_ = Stage::kOpen;
  }
  if (stage_ == Stage::kRequest) {
    MakeRequest();
    // Some 600 bytes on a new connection always fit.
    if (Write(reinterpret_cast<const unsigned char*>(request_.data()), request_.size()) !=
        static_cast<ssize_t>(request_.size())) {
      DieHere("the upgrade request was not taken");
    }
    std::string().swap(request_);
    stage_ = Stage::kAnswer;
  }
  while (stage_ == Stage::kAnswer) {
    std::array<unsigned char, 4096> bytes{};
    const ssize_t got = Read(bytes.data(), bytes.size());
    if (got == kNothing) {
      return Progress::kWantsRead;
    }
    if (got == kEnded) {
      DieHere("no answer to the upgrade: " + end_);
    }
    if (TakeAnswer({reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(got)})) {
      stage_ = Stage::kOpen;
    }
  }
  return Progress::kOpen;
}

void Client::Open() {
  for (;;) {
    const Progress progress = Advance();
    if (progress == Progress::kOpen) {
      return;
    }
    pollfd wanted{fd_.get(),
                  static_cast<short>(progress == Progress::kWantsRead ? POLLIN : POLLOUT), 0};
    if (::poll(&wanted, 1, kPatienceSeconds * 1000) == 0) {
      DieHere("not open after " + std::to_string(kPatienceSeconds) + " s");
    }
  }
}

void Client::StartTls() {
  ssl_.reset(SSL_new(tls_));
  SSL_set_fd(ssl_.get(), fd_.get());
  // What the macro SSL_set_tlsext_host_name does, without its C cast.
  SSL_ctrl(ssl_.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
           const_cast<char*>(kHost));
  SSL_set1_host(ssl_.get(), kHost);
  if (resume_) {
    SSL_set_session(ssl_.get(), resume_.get());
    resume_.reset();
  }
}

Client::Progress Client::AdvanceTls() {
  ERR_clear_error();
  const int result = SSL_connect(ssl_.get());
  if (result != 1) {
    const int error = SSL_get_error(ssl_.get(), result);
    if (error == SSL_ERROR_WANT_READ) {
      return Progress::kWantsRead;
    }
    if (error == SSL_ERROR_WANT_WRITE) {
      return Progress::kWantsWrite;
    }
    DieSsl("TLS handshake");
  }
  if ((SSL_session_reused(ssl_.get()) == 1) != must_resume_) {
    DieHere(must_resume_ ? "a ticket was not taken" : "a handshake was not full");
  }
  return Progress::kOpen;
}

// The head of a browser's upgrade, so that parsing it costs what it costs in life.
void Client::MakeRequest() {
  std::array<unsigned char, 16> raw{};
  RAND_bytes(raw.data(), static_cast<int>(raw.size()));
  std::array<unsigned char, 25> text{};
  EVP_EncodeBlock(text.data(), raw.data(), static_cast<int>(raw.size()));
  key_ = reinterpret_cast<const char*>(text.data());
  request_ = "GET " + path_ + " HTTP/1.1\r\nHost: " + kHost +
             "\r\nConnection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n"
             "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
             "Chrome/131.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\nOrigin: " +
             (ssl_ ? "https://" : "http://") + kHost +
             "\r\nSec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
             "Accept-Language: en-GB,en;q=0.9\r\nCookie: sid=4c1f9a7be2d05a3388b1c6d7e0f92a41\r\n"
             "Sec-WebSocket-Key: " +
             key_ + "\r\n\r\n";
}

bool Client::TakeAnswer(std::string_view bytes) {
  answer_.append(bytes);
  const std::size_t end = answer_.find("\r\n\r\n");
  if (end == std::string::npos) {
    return false;
  }
  const std::string head = answer_.substr(0, end + 4);
  answer_.erase(0, end + 4);
  if (!head.starts_with("HTTP/1.1 101 ")) {
    DieHere("the upgrade was answered '" + head.substr(0, head.find("\r\n")) + "'");
  }
  if (FieldValue(head, "sec-websocket-accept") != AcceptKey(key_)) {
    DieHere("the upgrade was answered with the wrong Sec-WebSocket-Accept");
  }
  return true;
}

ssize_t Client::Read(unsigned char* into, std::size_t size) {
  if (ssl_) {
    ERR_clear_error();
    std::size_t got = 0;
    const int result = SSL_read_ex(ssl_.get(), into, size, &got);
    return TlsOutcome(result, got);
  }
  return SocketOutcome(::recv(fd_.get(), into, size, 0));
}

ssize_t Client::Discard(std::size_t size) {
  return SocketOutcome(::recv(fd_.get(), nullptr, size, MSG_TRUNC));
}

ssize_t Client::Write(const unsigned char* from, std::size_t size) {
  if (ssl_) {
    ERR_clear_error();
    std::size_t sent = 0;
    const int result = SSL_write_ex(ssl_.get(), from, size, &sent);
    return TlsOutcome(result, sent);
  }
  return SocketOutcome(::send(fd_.get(), from, size, MSG_NOSIGNAL));
}

ssize_t Client::TlsOutcome(int result, std::size_t count) {
  if (result == 1) {
    return static_cast<ssize_t>(count);
  }
  const int system_error = errno;
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
      return kNothing;
    case SSL_ERROR_ZERO_RETURN:
      end_ = "end of stream";
      break;
    case SSL_ERROR_SYSCALL:
      end_ = std::strerror(system_error);
      break;
    default: {
      const unsigned long code = ERR_peek_error();
      end_ = ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING
                 ? "end of stream without close_notify"
                 : ERR_reason_error_string(code);
    }
  }
  return kEnded;
}

ssize_t Client::SocketOutcome(ssize_t result) {
  if (result > 0) {
    return result;
  }
  if (result == 0) {
    end_ = "end of stream";
    return kEnded;
  }
  if (errno == EAGAIN) {
    return kNothing;
  }
  end_ = std::strerror(errno);
  return kEnded;
}

void Client::DieHere(const std::string& what) const {
  Die("connection " + std::to_string(number_) + ": " + what);
}

}  // namespace sluice::bench
