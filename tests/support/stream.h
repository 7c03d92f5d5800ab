// One connected socket of a test, plain or TLS, used from one thread with blocking calls that all
// have a deadline. A call that does not get what it waits for throws Failure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <openssl/ssl.h>

#include "proxy/base/unique_fd.h"

#include "tests/support/deadline.h"
#include "tests/support/http_message.h"
#include "tests/support/tls_server.h"
#include "tests/support/websocket.h"

namespace sluice::test {

// How a peer ended its direction.
enum class StreamEnd { kFin, kReset };

struct TlsClientOptions {
  std::string sni = {};    // empty: none is sent
  std::string trust = {};  // PEM file; empty: any certificate will do
  std::string chain = {};  // PEM file of a client certificate, with `key`
  std::string key = {};
  int max_version = 0;    // TLS1_2_VERSION, ...; 0: the newest
  std::string alpn = {};  // one protocol; empty: none
};

class Stream {
 public:
  Stream() = default;
  Stream(UniqueFd fd, std::string label);
  ~Stream();

  Stream(Stream&&) noexcept = default;
  Stream& operator=(Stream&&) noexcept = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Client handshake on the open socket. Throws when it fails.
  void StartTls(const TlsClientOptions& options);
  // Server handshake on the open socket. Throws when it fails.
  void AcceptTls(const TlsServer& server);

  // Sending. Send blocks until the kernel has taken everything.
  void Send(std::string_view bytes);
  // One byte in each segment.
  void SendDribble(std::string_view bytes);
  // Sends what the kernel takes without waiting; returns how much.
  [[nodiscard]] std::size_t SendSome(std::string_view bytes);
  void SendFrame(std::uint8_t opcode, std::string_view payload, FrameOptions options = {}) {
    Send(BuildFrame(opcode, payload, options));
  }

  // Reading.
  // At least one byte, at most what has come; empty at EOF.
  [[nodiscard]] std::string ReadSome(Deadline deadline = Deadline());
  [[nodiscard]] std::string ReadExactly(std::size_t count);
  // Up to and with `delimiter`.
  [[nodiscard]] std::string ReadUntil(std::string_view delimiter);
  // Everything until the peer's FIN. A reset throws.
  [[nodiscard]] std::string ReadToEnd();
  // Little by little, about 100 kB/s, for two seconds or until the stream ends. A kernel tells of
  // the room that this makes in steps of much more. REQUIRES: plain TCP.
  [[nodiscard]] std::string ReadSlowly();
  // Reads and drops until the stream ends, and says how.
  StreamEnd AwaitEnd(Deadline deadline = Deadline());
  // Fails the test unless the next thing is FIN (for TLS: close_notify or FIN), with no byte before
  // it.
  void ExpectEnd();
  // Fails the test unless the stream ends with a reset; bytes before it are dropped.
  void ExpectReset();
  // True when bytes or an end can be read within `patience`. For what must not come.
  [[nodiscard]] bool HasInput(Millis patience);
  // True when the kernel takes more to send within `patience`.
  [[nodiscard]] bool HasRoom(Millis patience);

  // A head as it comes, without a body.
  [[nodiscard]] HttpMessage ReadHead();
  // A response with its body; interim ones are returned like any other. `method`: of the request.
  [[nodiscard]] HttpMessage ReadResponse(std::string_view method = "GET");
  // A request with its body.
  [[nodiscard]] HttpMessage ReadRequest();
  // The data of the next chunk of a chunked body; empty for the last one, whose trailers are read.
  [[nodiscard]] std::string ReadChunk();
  [[nodiscard]] Frame ReadFrame(Deadline deadline = Deadline());

  // shutdown(SHUT_WR); under TLS a close_notify before it.
  void FinishWrite();
  // Closes so that the peer gets RST.
  void Reset();
  void Close();

  // Makes the kernel hold little, so that backpressure is soon felt. For RawClient: before connect.
  void ShrinkBuffers();

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] bool open() const noexcept { return fd_.valid(); }
  [[nodiscard]] std::uint16_t local_port() const;
  [[nodiscard]] SSL* ssl() const noexcept { return ssl_.get(); }
  // Everything read so far that no Read call has returned.
  [[nodiscard]] const std::string& unread() const noexcept { return buffer_; }
  [[nodiscard]] std::uint64_t bytes_read() const noexcept { return bytes_read_; }

 protected:
  struct SslFree {
    void operator()(SSL* ssl) const noexcept { SSL_free(ssl); }
  };

  void FinishHandshake();
  // Fills buffer_ with at least one more byte. False at EOF.
  bool Fill(Deadline deadline);
  void Await(short events, Deadline deadline, const char* what) const;
  void ReadBody(HttpMessage& message, bool none, bool until_close);
  [[noreturn]] void Fail(const std::string& what) const;

  UniqueFd fd_;
  std::unique_ptr<SSL, SslFree> ssl_;
  std::string label_;
  std::string buffer_;
  std::uint64_t bytes_read_ = 0;
  bool reset_ = false;
  bool ended_ = false;
};

}  // namespace sluice::test
