// Writes the frames that Sluice itself sends: CLOSE and PING (RFC 6455 sections 5.5.1 and 5.5.2).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "proxy/base/bytes.h"
#include "proxy/ws/frame_tracker.h"

namespace sluice::ws {

using MaskKey = std::array<std::byte, 4>;

// A frame of ours, ready to send: at most 2 + 4 + 125 bytes, by value.
class ControlFrame {
 public:
  [[nodiscard]] Bytes bytes() const noexcept { return Bytes(data_.data(), size_); }

 private:
  friend ControlFrame MakeClose(std::uint16_t, std::string_view, const std::optional<MaskKey>&);
  friend ControlFrame MakePing(Bytes, const std::optional<MaskKey>&);

  // The payload is `head` and then `tail`, at most 125 bytes together.
  ControlFrame(Opcode opcode, Bytes head, Bytes tail, const std::optional<MaskKey>& mask);

  std::array<std::byte, 131> data_{};
  std::size_t size_ = 0;
};

// A CLOSE with `code` and `reason` (UTF-8, cut to 123 bytes at a character border). With `mask`
// the frame is masked, as it must be towards a backend; the key must come from a CSPRNG
// (section 10.3). Without it the frame is unmasked, as it must be towards a client.
[[nodiscard]] ControlFrame MakeClose(std::uint16_t code, std::string_view reason,
                                     const std::optional<MaskKey>& mask);

// A PING with the first 125 bytes of `payload`, which the PONG brings back. `mask` as above.
[[nodiscard]] ControlFrame MakePing(Bytes payload, const std::optional<MaskKey>& mask);

// True for a code that an endpoint may send in a CLOSE frame (section 7.4).
[[nodiscard]] bool IsSendableCloseCode(std::uint16_t code) noexcept;

}  // namespace sluice::ws
