// What stands between a Conn and its socket when that is not the plain socket itself. The one
// implementation is tls::TlsTransport; a plain Conn has none and calls the kernel directly, which
// keeps an idle plain session free of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "proxy/base/bytes.h"
#include "proxy/net/io_result.h"

namespace sluice::net {

class Transport {
 public:
  Transport() = default;
  virtual ~Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  // Takes the handshake one step further. kOk: it is done; kWouldBlock: more is to come from the
  // peer; kEof, kError: it has failed. Not called again after kOk.
  [[nodiscard]] virtual IoStatus Handshake() noexcept = 0;

  // Reads plaintext: at most one recv(2), and everything that can be decrypted from it.
  [[nodiscard]] virtual IoResult Read(std::span<std::byte> into) noexcept = 0;

  // What was received and not read yet is at most so much.
  static constexpr std::size_t kMostBuffered = std::size_t{128} * 1024;

  // True when Read would return bytes without the socket being readable.
  [[nodiscard]] virtual bool HasBuffered() const noexcept = 0;

  // Takes plaintext. kOk with how much was taken: all of it is on its way, the ciphertext that the
  // kernel refused waits in here. kWouldBlock: ciphertext is waiting, nothing was taken.
  [[nodiscard]] virtual IoResult Write(Bytes plaintext) noexcept = 0;

  // Sends ciphertext that waits. kOk: none is left.
  [[nodiscard]] virtual IoStatus Flush() noexcept = 0;

  // Bytes of ciphertext that wait.
  [[nodiscard]] virtual std::size_t pending() const noexcept = 0;

  // Writes the end of our direction (close_notify). Call Flush afterwards as for any write.
  virtual void Shutdown() noexcept = 0;
};

}  // namespace sluice::net
