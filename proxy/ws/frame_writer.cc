#include "proxy/ws/frame_writer.h"

#include <algorithm>
#include <cassert>

namespace sluice::ws {
namespace {

constexpr std::size_t kMaxPayload = 125;             // RFC 6455 section 5.5
constexpr std::size_t kMaxReason = kMaxPayload - 2;  // the code takes two

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

ControlFrame::ControlFrame(Opcode opcode, Bytes head, Bytes tail,
                           const std::optional<MaskKey>& mask) {
  assert(head.size() + tail.size() <= kMaxPayload);
  const auto put = [this](Bytes bytes) {
    std::copy(bytes.begin(), bytes.end(), data_.begin() + static_cast<std::ptrdiff_t>(size_));
    size_ += bytes.size();
  };
  data_[0] = static_cast<std::byte>(0x80U | static_cast<unsigned>(opcode));
  data_[1] = static_cast<std::byte>((mask ? 0x80U : 0U) | (head.size() + tail.size()));
  size_ = 2;
  if (mask) {
    put(*mask);
  }
  const std::size_t body = size_;
  put(head);
  put(tail);
  if (mask) {
    // Section 5.3.
    for (std::size_t i = body; i < size_; ++i) {
      data_[i] ^= (*mask)[(i - body) % mask->size()];
    }
  }
}

ControlFrame MakeClose(std::uint16_t code, std::string_view reason,
                       const std::optional<MaskKey>& mask) {
  const std::array<std::byte, 2> head{static_cast<std::byte>(code >> 8U),
                                      static_cast<std::byte>(code & 0xFFU)};
  reason = reason.substr(0, CutAtCharacter(reason, kMaxReason));
  return {Opcode::kClose, head, AsBytes(reason), mask};
}

ControlFrame MakePing(Bytes payload, const std::optional<MaskKey>& mask) {
  return {Opcode::kPing, payload.first(std::min(payload.size(), kMaxPayload)), {}, mask};
}

bool IsSendableCloseCode(std::uint16_t code) noexcept {
  if (code >= 3000 && code <= 4999) {
    return true;  // section 7.4.2: libraries and applications
  }
  // The registry of section 11.7. 1005, 1006 and 1015 are never sent; 1004 has no meaning.
  return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014);
}

}  // namespace sluice::ws
