// Reads one direction of a WebSocket as strictly as RFC 6455 is written, and takes no message but
// the numbered ones. Whatever else comes is named and ends the stream: a reader that forgives would
// not see a CLOSE inside a frame, nor the bytes of somebody else's session.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tests/bench/websocket.h"
#include "tests/deploy/numbered.h"

namespace sluice::deploy {

enum class Opcode : unsigned char {
  kContinuation = 0x0,
  kText = 0x1,
  kBinary = 0x2,
  kClose = 0x8,
  kPing = 0x9,
  kPong = 0xA,
};

class FrameReader {
 public:
  enum class Masking { kWanted, kForbidden };  // sections 5.1 and 5.3: clients mask, servers do not

  explicit FrameReader(Masking masking) : masking_(masking) {}

  // Takes bytes in the order of the stream and may change them. Calls sink.OnNumbered(message) and
  // sink.OnControl(opcode, payload, size) for what is complete; neither may destroy the reader.
  // Returns null, or the rule that was broken; then the stream is over.
  template <class Sink>
  const char* Take(unsigned char* bytes, std::size_t count, Sink& sink) {
    while (count > 0) {
      if (closed_) {
        return "bytes behind the CLOSE";
      }
      if (!in_frame_) {
        const std::size_t part = std::min(count, head_.size() - head_size_);
        std::memcpy(head_.data() + head_size_, bytes, part);
        const std::size_t have = head_size_ + part;
        if (const char* broken = CheckHead(have)) {
          return broken;
        }
        header_ = bench::ReadHeader(head_.data(), have);
        if (header_.size == 0) {
          head_size_ = have;
          return nullptr;
        }
        bytes += header_.size - head_size_;
        count -= header_.size - head_size_;
        head_size_ = 0;
        if (const char* broken = BeginFrame()) {
          return broken;
        }
      }
      const auto part =
          static_cast<std::size_t>(std::min<std::uint64_t>(count, header_.payload - offset_));
      if (const char* broken = TakePayload(bytes, part)) {
        return broken;
      }
      bytes += part;
      count -= part;
      if (offset_ == header_.payload) {
        in_frame_ = false;
        if (const char* broken = EndFrame(sink)) {
          return broken;
        }
      }
    }
    return nullptr;
  }

  // Whether the last byte was inside a frame: an end of the stream there tears it.
  [[nodiscard]] bool inside_frame() const { return in_frame_ || head_size_ > 0; }

 private:
  [[nodiscard]] Opcode opcode() const { return Opcode{static_cast<unsigned char>(first_ & 0x0FU)}; }
  [[nodiscard]] bool is_control() const { return (first_ & 0x08U) != 0; }

  // What the first bytes of a header say already.
  const char* CheckHead(std::size_t have) {
    first_ = head_[0];
    if ((first_ & 0x70U) != 0) {
      return "a reserved bit is set";
    }
    const bool fin = (first_ & 0x80U) != 0;
    switch (opcode()) {
      case Opcode::kContinuation:
        if (!in_message_) {
          return "a continuation without a message";
        }
        break;
      case Opcode::kBinary:
        if (in_message_) {
          return "a message inside another";
        }
        break;
      case Opcode::kText:
        return "a text message, which nobody sent";
      case Opcode::kClose:
      case Opcode::kPing:
      case Opcode::kPong:
        if (!fin) {
          return "a control frame in fragments";
        }
        break;
      default:
        return "a reserved opcode";
    }
    if (have < 2) {
      return nullptr;
    }
    const bool masked = (head_[1] & 0x80U) != 0;
    if (masked != (masking_ == Masking::kWanted)) {
      return masked ? "a masked frame" : "an unmasked frame";
    }
    if (is_control() && (head_[1] & 0x7FU) > kMaxControl) {
      return "a control frame of more than 125 bytes";
    }
    return nullptr;
  }

  const char* BeginFrame() {
    const unsigned length = head_[1] & 0x7FU;
    if ((length == 126 && header_.payload < 126) || (length == 127 && header_.payload <= 0xFFFF)) {
      return "a length in more bytes than it needs";
    }
    if (opcode() == Opcode::kBinary) {
      message_size_ = 0;
    }
    if (!is_control()) {
      if (header_.payload > kMaxMessage - message_size_) {
        return "a message longer than any that was sent";
      }
      in_message_ = true;
    }
    offset_ = 0;
    in_frame_ = true;
    return nullptr;
  }

  const char* TakePayload(unsigned char* bytes, std::size_t count) {
    if (header_.masked) {
      bench::Mask(bytes, bytes, count, header_.key, static_cast<std::size_t>(offset_));
    }
    if (is_control()) {
      std::memcpy(control_.data() + offset_, bytes, count);
      offset_ += count;
      return nullptr;
    }
    offset_ += count;
    if (message_size_ < kNumberedSize) {
      const std::size_t part = std::min(count, kNumberedSize - message_size_);
      std::memcpy(reinterpret_cast<unsigned char*>(&message_) + message_size_, bytes, part);
      message_size_ += part;
      bytes += part;
      count -= part;
    }
    for (std::size_t i = 0; i < count; ++i) {
      if (bytes[i] != Filler(message_.number, message_size_ + i)) {
        return "a message with other bytes than were sent";
      }
    }
    message_size_ += count;
    return nullptr;
  }

  template <class Sink>
  const char* EndFrame(Sink& sink) {
    if (!is_control()) {
      if ((first_ & 0x80U) == 0) {
        return nullptr;
      }
      in_message_ = false;
      const std::uint32_t from =
          masking_ == Masking::kWanted ? Numbered::kFromClient : Numbered::kFromBackend;
      if (message_size_ < kNumberedSize || message_.from != from) {
        return "a message that nobody sent";
      }
      sink.OnNumbered(message_);
      return nullptr;
    }
    const auto size = static_cast<std::size_t>(header_.payload);
    if (opcode() == Opcode::kClose) {
      closed_ = true;
      if (size == 1 || (size > 1 && !IsCloseCode(control_[0] << 8U | control_[1]))) {
        return "a CLOSE whose code may not be sent";
      }
    }
    sink.OnControl(opcode(), control_.data(), size);
    return nullptr;
  }

  // Section 7.4, with what is registered since.
  static bool IsCloseCode(int code) {
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
  }

  static constexpr unsigned kMaxControl = 125;

  Masking masking_;
  bool in_frame_ = false;
  bool in_message_ = false;
  bool closed_ = false;
  unsigned char first_ = 0;
  std::array<unsigned char, bench::kMaxHeader> head_{};
  std::size_t head_size_ = 0;
  bench::FrameHeader header_;
  std::uint64_t offset_ = 0;  // in the payload of the frame
  Numbered message_;
  std::size_t message_size_ = 0;
  std::array<unsigned char, kMaxControl> control_{};
};

// The code of a CLOSE with that payload; 1005 when it has none.
inline int CloseCode(const unsigned char* payload, std::size_t size) {
  return size < 2 ? 1005 : payload[0] << 8U | payload[1];
}

}  // namespace sluice::deploy
