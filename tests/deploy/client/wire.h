// One socket of a client, plain or TLS. Never blocks; nothing that goes wrong ends the program: how
// a connection fails is what is counted.
#pragma once

#include "tests/bench/load/tls.h"
#include "tests/bench/socket.h"

namespace sluice::deploy {

// Whatever certificate it is shown will do: they change under way, and who is there is not the
// question.
bench::SslCtxPtr MakeTls();

class Wire {
 public:
  enum class Step { kDone, kWantsRead, kWantsWrite, kFailed };

  // Begins to connect; errno in the result when that fails at once, else 0. `narrow`: small
  // segments and a small buffer for what comes, so that a sender's buffers are soon full.
  int Connect(const sockaddr_in& address, SSL_CTX* tls, bool narrow = false);
  // Takes over a connection that is there already, plain.
  void Adopt(UniqueFd fd);
  // Goes on with TCP and TLS. After kFailed failure() tells why.
  Step Advance();
  // Closes both directions.
  void Close();
  // The same by RST, and without a word of TLS before it.
  void Reset();

  // The number of bytes, or one of these.
  static constexpr ssize_t kNothing = 0;  // no bytes or no room, for now
  static constexpr ssize_t kFin = -1;
  static constexpr ssize_t kReset = -2;
  ssize_t Read(unsigned char* into, std::size_t size);
  ssize_t Write(const unsigned char* from, std::size_t size);
  // Whether TLS holds more that has been read from the socket already.
  [[nodiscard]] bool HasBuffered() const { return ssl_ && SSL_has_pending(ssl_.get()) == 1; }

  // For a socket that is not connected yet; what a listener accepts is narrow like itself.
  static void MakeNarrow(int fd);

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] bool is_open() const { return fd_.valid(); }
  // "refused", "reset", "fin", "tls" or "system": why Advance failed.
  [[nodiscard]] const char* failure() const { return failure_; }

 private:
  ssize_t TlsOutcome(int result, std::size_t count);
  static ssize_t SocketOutcome(ssize_t result);

  UniqueFd fd_;
  bench::SslPtr ssl_;
  SSL_CTX* tls_ = nullptr;
  bool connected_ = false;
  const char* failure_ = "";
};

// In which of the kinds of Wire::failure() an error of connect() falls.
const char* FailureOf(int error);

}  // namespace sluice::deploy
