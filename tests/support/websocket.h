// RFC 6455 as a test sees it: frames are built and read here, independent of proxy/ws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::test {

inline constexpr std::uint8_t kContinuation = 0x0;
inline constexpr std::uint8_t kText = 0x1;
inline constexpr std::uint8_t kBinary = 0x2;
inline constexpr std::uint8_t kClose = 0x8;
inline constexpr std::uint8_t kPing = 0x9;
inline constexpr std::uint8_t kPong = 0xA;

struct Frame {
  std::uint8_t opcode = 0;
  bool fin = true;
  std::uint8_t rsv = 0;  // the three bits, RSV1 is 4
  bool masked = false;
  std::string mask;     // 4 bytes when masked
  std::string payload;  // unmasked

  // Of a CLOSE; 0 when it has none.
  [[nodiscard]] std::uint16_t close_code() const;
  [[nodiscard]] std::string close_reason() const;
};

struct FrameOptions {
  bool fin = true;
  bool masked = true;
  std::uint8_t rsv = 0;
};

// Masked with a fixed key unless told otherwise: what a client sends.
[[nodiscard]] std::string BuildFrame(std::uint8_t opcode, std::string_view payload,
                                     FrameOptions options = {});

// A frame header alone, whatever it announces. `length_bytes` is 0 (7 bits), 2 or 8.
[[nodiscard]] std::string BuildHeader(std::uint8_t first, bool masked, std::uint64_t length,
                                      int length_bytes);

[[nodiscard]] std::string ClosePayload(std::uint16_t code, std::string_view reason = {});

// Takes one whole frame off the front of `bytes`; nothing when it is not whole.
[[nodiscard]] std::optional<Frame> TakeFrame(std::string& bytes);

// Sec-WebSocket-Accept for a key.
[[nodiscard]] std::string AcceptFor(std::string_view key);

// The key that UpgradeRequest sends.
inline constexpr std::string_view kKey = "dGhlIHNhbXBsZSBub25jZQ==";

// The request line and fields of an upgrade. `more`: further whole field lines, each with CRLF.
[[nodiscard]] std::string UpgradeRequest(std::string_view target = "/", std::string_view more = {},
                                         std::string_view host = "127.0.0.1");

// A 101 for the request with `key`. `more`: further whole field lines.
[[nodiscard]] std::string SwitchingProtocols(std::string_view key, std::string_view more = {});

}  // namespace sluice::test
