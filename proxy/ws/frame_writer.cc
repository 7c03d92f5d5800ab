#include "proxy/ws/frame_writer.h"

#include <algorithm>

#include "proxy/ws/frame_tracker.h"

namespace sluice::ws {
namespace {

constexpr std::size_t kMaxReason = 123;  // RFC 6455 section 5.5: 125, of which the code takes two

// The length of the longest prefix of `text` of at most `most` bytes that cuts no character.
std::size_t CutAtCharacter(std::string_view text, std::size_t most) noexcept {
  if (text.size() <= most) {
    return text.size();
  }
  std::size_t size = most;
  // UTF-8: a byte 10xxxxxx continues a character that began before it (RFC 3629 section 3).
  while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xC0U) == 0x80U) {
    --size;
  }
  return size;
}

}  // namespace

ControlFrame MakeClose(std::uint16_t code, std::string_view reason,
                       const std::optional<MaskKey>& mask) {
  ControlFrame frame;
  const auto put = [&frame](unsigned byte) {
    frame.data_[frame.size_++] = static_cast<std::byte>(byte);
  };
  reason = reason.substr(0, CutAtCharacter(reason, kMaxReason));
  put(0x80U | static_cast<unsigned>(Opcode::kClose));
  put((mask ? 0x80U : 0U) | static_cast<unsigned>(2 + reason.size()));
  if (mask) {
    std::copy(mask->begin(), mask->end(), frame.data_.begin() + 2);
    frame.size_ += mask->size();
  }
  const std::size_t body = frame.size_;
  put(code >> 8U);
  put(code & 0xFFU);
  for (const char c : reason) {
    put(static_cast<unsigned char>(c));
  }
  if (mask) {
    // Section 5.3.
    for (std::size_t i = body; i < frame.size_; ++i) {
      frame.data_[i] ^= (*mask)[(i - body) % mask->size()];
    }
  }
  return frame;
}

bool IsSendableCloseCode(std::uint16_t code) noexcept {
  if (code >= 3000 && code <= 4999) {
    return true;  // section 7.4.2: libraries and applications
  }
  // The registry of section 11.7. 1005, 1006 and 1015 are never sent; 1004 has no meaning.
  return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014);
}

}  // namespace sluice::ws
