// TLS over one socket, through buffers that all TLS conns of a worker share: one recv(2) feeds as
// many records as it brought, and all records of one write leave in one send(2). An idle conn
// keeps no buffer here; OpenSSL holds at most one partial record, we at most the ciphertext that
// the kernel refused.
//
// Because the BIO never refuses a write, SSL_write never has to be retried: what OpenSSL has taken
// is on its way, and TCP's backpressure shows as pending().
#pragma once

#include <array>
#include <cstddef>
#include <string_view>
#include <vector>

#include "proxy/base/result.h"
#include "proxy/net/out_buffer.h"
#include "proxy/net/transport.h"
#include "proxy/tls/openssl_ptr.h"
#include "proxy/tls/server_context.h"

namespace sluice::tls {

// One per worker; lent to every TlsTransport of it. Content lives only during one call.
struct SharedBuffers {
  // With the largest record (16 KiB + overhead) that may be waiting inside OpenSSL, one read
  // decrypts to less than 64 KiB: the caller's scratch buffer always has room for all of it.
  static constexpr std::size_t kIn = 47 * 1024;

  std::array<std::byte, kIn> in;
  std::vector<std::byte> out;
};

class TlsTransport final : public net::Transport {
 public:
  // The server's side of a connection on `fd`, which the Conn owns. Null when memory is out.
  // `buffers` must outlive the transport.
  [[nodiscard]] static std::unique_ptr<TlsTransport> Accept(const ServerContext& context, int fd,
                                                            SharedBuffers& buffers);

  [[nodiscard]] net::IoStatus Handshake() noexcept override;
  [[nodiscard]] net::IoResult Read(std::span<std::byte> into) noexcept override;
  [[nodiscard]] bool HasBuffered() const noexcept override;
  [[nodiscard]] net::IoResult Write(Bytes plaintext) noexcept override;
  [[nodiscard]] net::IoStatus Flush() noexcept override;
  [[nodiscard]] std::size_t pending() const noexcept override { return unsent_.size(); }
  void Shutdown() noexcept override;

  // Valid after the handshake; the views live as long as the transport.
  [[nodiscard]] std::string_view version() const noexcept;  // "TLSv1.3"
  [[nodiscard]] bool is_tls13() const noexcept;
  [[nodiscard]] bool resumed() const noexcept;
  [[nodiscard]] std::string_view server_name() const noexcept;  // SNI, or empty
  [[nodiscard]] std::string_view alpn() const noexcept;         // "http/1.1", or empty

 private:
  TlsTransport(int fd, SharedBuffers& buffers) noexcept : fd_(fd), buffers_(buffers) {}

  static BIO_METHOD* Method();
  static int OnBioRead(BIO* bio, char* into, int size);
  static int OnBioWrite(BIO* bio, const char* from, int size);
  static long OnBioCtrl(BIO* bio, int command, long number, void* pointer);

  void BeginInput() noexcept;
  void EndInput() noexcept;
  void SendOut() noexcept;
  [[nodiscard]] net::IoStatus Classify(int result) noexcept;

  int fd_;
  SharedBuffers& buffers_;
  SslPtr ssl_;
  net::OutBuffer unsent_;         // ciphertext that the kernel refused
  std::vector<std::byte> carry_;  // ciphertext read but not yet decrypted; empty between turns
                                  // unless the caller's buffer was full
  std::size_t carry_used_ = 0;
  Bytes input_;  // during one call: what is left of carry_ or buffers_.in
  bool input_is_carry_ = false;
  bool may_receive_ = false;  // during one call: the socket was not read yet
  bool eof_ = false;
  bool broken_ = false;
  bool established_ = false;
};

}  // namespace sluice::tls
