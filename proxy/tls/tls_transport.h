// TLS over one socket, through buffers that all TLS conns of a worker share: one recv(2) feeds as
// many records as it brought, and all records of one write leave in one send(2). An idle conn
// keeps no buffer here; OpenSSL holds at most one partial record, we at most the ciphertext that
// the kernel refused.
//
// Because the BIO never refuses a write, SSL_write never has to be retried: what OpenSSL has taken
// is on its way, and TCP's backpressure shows as pending(). One case is left: a write between two
// records that carry one KeyUpdate, or one ticket, ends the session. No peer is known to send so.
//
// Records grow with the stream. A record can be read only when all of it has arrived, so writes
// that do not fit one TCP segment are cut into records that do, the first 64 KiB of them and again
// the first after an idle second: while TCP's window is still small, what is at the front need not
// wait for what is behind. From then on records are full, which is what encrypts fastest.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/result.h"
#include "proxy/net/out_buffer.h"
#include "proxy/net/transport.h"
#include "proxy/tls/client_context.h"
#include "proxy/tls/openssl_ptr.h"
#include "proxy/tls/server_context.h"

namespace sluice::tls {

// One per worker; lent to every TlsTransport of it. Content lives only during one call.
struct SharedBuffers {
  static constexpr std::size_t kIn = 111 * 1024;

  // What one read may decrypt besides what it receives: the largest record (RFC 8446 section 5.2)
  // may be waiting inside OpenSSL.
  static constexpr std::size_t kInside = 17 * 1024;
  static_assert(kIn + kInside <= net::Transport::kMostBuffered);

  // Counts seconds, coarsely; its owner does. Tells a stream that pauses without a look at a clock.
  std::uint8_t second = 0;

  std::array<std::byte, kIn> in;
  std::vector<std::byte> out;
  Bytes input;                  // what is left of `in`, or of what the transport has kept
  bool input_is_kept = false;   // the latter
  std::size_t may_receive = 0;  // so much; 0 once the socket was read
  BioPtr bio;                   // of all whose handshake is done; its data is who is in a call

  // Why the last call that failed did so, in words; empty where the connection itself has ended or
  // broken.
  std::string failure;
};

class TlsTransport final : public net::Transport {
 public:
  // The server's side of a connection on `fd`, which the Conn owns. Null when memory is out.
  // `buffers` must outlive the transport.
  [[nodiscard]] static std::unique_ptr<TlsTransport> Accept(const ServerContext& context, int fd,
                                                            SharedBuffers& buffers);

  // The client's side, of a connection to `destination`. Null when memory is out. Nothing of the
  // server is believed, and nothing but the handshake is sent, before Handshake() was kOk.
  [[nodiscard]] static std::unique_ptr<TlsTransport> Connect(const ClientContext& context,
                                                             Destination& destination, int fd,
                                                             SharedBuffers& buffers);
  ~TlsTransport() override;

  [[nodiscard]] net::IoStatus Handshake() noexcept override;
  [[nodiscard]] net::IoResult Read(std::span<std::byte> into) noexcept override;
  [[nodiscard]] bool HasBuffered() const noexcept override;
  [[nodiscard]] net::IoResult Write(Bytes plaintext) noexcept override;
  [[nodiscard]] net::IoStatus Flush() noexcept override;
  [[nodiscard]] std::size_t pending() const noexcept override {
    return kept_ && !tail_waits_ ? kept_->unsent.size() : 0;
  }
  void Shutdown() noexcept override;

  // After kEof: the peer has not said that this is the end (close_notify), so that it may be
  // somebody else who has cut what it sends.
  [[nodiscard]] bool was_truncated() const noexcept { return eof_; }

  // Valid after the handshake; the views live as long as the transport.
  [[nodiscard]] std::string_view version() const noexcept;  // "TLSv1.3"
  [[nodiscard]] bool is_tls13() const noexcept;
  [[nodiscard]] bool resumed() const noexcept;
  [[nodiscard]] std::string_view server_name() const noexcept;  // SNI, or empty
  [[nodiscard]] std::string_view alpn() const noexcept;         // "http/1.1", or empty

 private:
  TlsTransport(int fd, SharedBuffers& buffers) noexcept
      : fd_(fd), second_(buffers.second), buffers_(buffers) {}

  // What waits between two calls. Most of the time nothing does, and there is none.
  struct Kept {
    net::OutBuffer unsent;         // ciphertext that the kernel refused, or the tail
    std::vector<std::byte> input;  // ciphertext read but not yet decrypted: the caller's buffer
                                   // was full
    std::size_t input_used = 0;
  };

  // `made` over a session that `new_session` makes of a BIO. Null when memory is out.
  template <class NewSession>
  [[nodiscard]] static std::unique_ptr<TlsTransport> Finish(std::unique_ptr<TlsTransport> made,
                                                            NewSession new_session);
  static BIO_METHOD* Method();
  static BioPtr MakeBio();
  static int OnBioRead(BIO* bio, char* into, int size);
  static int OnBioWrite(BIO* bio, const char* from, int size);
  static long OnBioCtrl(BIO* bio, int command, long number, void* pointer);

  void ShareBio() noexcept;
  void Enter() noexcept;
  void BeginInput(std::size_t room) noexcept;
  void EndInput() noexcept;
  void SendOut() noexcept;
  [[nodiscard]] Kept& kept();
  void DropKeptIfEmpty() noexcept;
  [[nodiscard]] bool HasKeptInput() const noexcept {
    return kept_ && kept_->input.size() > kept_->input_used;
  }
  [[nodiscard]] std::size_t RecordSize(std::size_t left) noexcept;
  [[nodiscard]] net::IoStatus Classify(int result) noexcept;
  void NoteFailure() noexcept;

  // Packed: every idle session has one of these.
  int fd_;
  std::uint8_t second_;             // SharedBuffers::second at the last write
  std::uint8_t small_records_ = 0;  // written since the stream began or paused
  bool eof_ : 1 = false;
  bool broken_ : 1 = false;
  bool established_ : 1 = false;
  bool tail_waits_ : 1 = false;  // of the handshake, in kept_, for the first thing that is written
  SharedBuffers& buffers_;
  SslPtr ssl_;
  std::unique_ptr<Kept> kept_;
};

}  // namespace sluice::tls
