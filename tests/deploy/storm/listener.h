// Reads one direction of a session against its script, byte by byte. Nothing may come but what the
// script says, in its order; a CLOSE between two frames, and nothing behind it.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <string_view>

#include "tests/deploy/storm/script.h"

namespace sluice::storm {

class Listener {
 public:
  struct Rules {
    bool masked = false;        // frames of a client (RFC 6455 section 5.1)
    std::size_t cut_above = 0;  // larger frames may come in fragments of that size; 0: none may
    bool pings = false;         // the proxy may ping
  };

  Listener(const Shape& shape, const Rules& rules) : script_(shape), rules_(rules) {}

  // Takes bytes in the order of the stream and may change them. Returns null, or what is wrong with
  // them; then the stream is over. A ping of the proxy is kept in ping().
  const char* Take(unsigned char* bytes, std::size_t count) {
    while (count > 0) {
      if (closed_) {
        return "bytes behind the CLOSE";
      }
      if (!in_frame_) {
        const std::size_t part = std::min(count, head_.size() - head_size_);
        std::memcpy(head_.data() + head_size_, bytes, part);
        if (const char* wrong = CheckStart(head_size_ + part)) {
          return wrong;
        }
        header_ = bench::ReadHeader(head_.data(), head_size_ + part);
        if (header_.size == 0) {
          head_size_ += part;
          return nullptr;
        }
        bytes += header_.size - head_size_;
        count -= header_.size - head_size_;
        head_size_ = 0;
        if (const char* wrong = BeginFrame()) {
          return wrong;
        }
      }
      const auto part =
          static_cast<std::size_t>(std::min<std::uint64_t>(count, header_.payload - offset_));
      if (const char* wrong = TakePayload(bytes, part)) {
        return wrong;
      }
      bytes += part;
      count -= part;
      if (offset_ == header_.payload) {
        in_frame_ = false;
        if (const char* wrong = EndFrame()) {
          return wrong;
        }
      }
    }
    return nullptr;
  }

  // Whether the last byte was inside a frame: an end of the stream there tears it.
  [[nodiscard]] bool inside_frame() const { return in_frame_ || head_size_ > 0; }
  [[nodiscard]] bool in_message() const { return in_message_; }
  // Whole frames of the script that have come.
  [[nodiscard]] std::uint64_t frames_done() const { return frames_done_; }
  [[nodiscard]] bool closed() const { return closed_; }
  // Of the CLOSE; 1005 when it had none.
  [[nodiscard]] int close_code() const {
    return control_.size() < 2 ? 1005 : Unsigned(control_[0]) << 8U | Unsigned(control_[1]);
  }
  [[nodiscard]] std::string_view close_reason() const {
    return control_.size() < 2 ? std::string_view() : std::string_view(control_).substr(2);
  }
  // The payload of a ping of the proxy that came since the last call, or empty.
  std::string TakePing() { return std::exchange(ping_, {}); }

 private:
  static constexpr unsigned char kClose = 0x88;
  static constexpr unsigned char kPing = 0x89;

  static int Unsigned(char byte) { return static_cast<unsigned char>(byte); }

  // What the first two bytes of a header say already: the frame is to be known as wrong even when
  // the rest of it never comes.
  const char* CheckStart(std::size_t have) const {
    const unsigned char first = head_[0];
    if (first != kClose && !(rules_.pings && first == kPing) && first != WantedFirst(false) &&
        first != WantedFirst(true)) {
      return "a frame that is not the next one";
    }
    if (have >= 2 && ((head_[1] & 0x80U) != 0) != rules_.masked) {
      return rules_.masked ? "an unmasked frame" : "a masked frame";
    }
    return nullptr;
  }

  [[nodiscard]] bool MayBeCut() const {
    const ScriptFrame& frame = script_.frame();
    return rules_.cut_above > 0 && !frame.is_control() && frame.size > rules_.cut_above;
  }

  // The first byte of what has to come next of the script; `cut`: of a fragment before the last.
  [[nodiscard]] unsigned char WantedFirst(bool cut) const {
    const ScriptFrame& frame = script_.frame();
    unsigned first = frame.first;
    if (MayBeCut()) {
      first &= piece_at_ > 0 ? 0x80U : 0xFFU;
      first &= cut ? 0x7FU : 0xFFU;
    }
    return static_cast<unsigned char>(first);
  }

  const char* BeginFrame() {
    const unsigned length = head_[1] & 0x7FU;
    if ((length == 126 && header_.payload < 126) || (length == 127 && header_.payload <= 0xFFFF)) {
      return "a length in more bytes than it needs";
    }
    offset_ = 0;
    in_frame_ = true;
    control_.clear();
    const ScriptFrame& frame = script_.frame();
    of_script_ = false;
    if (header_.first == kClose) {
      return length == 1 || length > 125 ? "a CLOSE of a wrong length" : nullptr;
    }
    if (rules_.pings && header_.first == kPing && header_.payload == Script::kForeignPing) {
      return nullptr;
    }
    of_script_ = true;
    if (!MayBeCut()) {
      return header_.first != frame.first || header_.payload != frame.size
                 ? "a frame that is not the next one"
                 : nullptr;
    }
    const std::size_t left = frame.size - piece_at_;
    if (header_.payload == 0 || header_.payload > std::min(left, rules_.cut_above) ||
        header_.first != WantedFirst(header_.payload < left)) {
      return "a fragment that is none of the next frame";
    }
    return nullptr;
  }

  const char* TakePayload(unsigned char* bytes, std::size_t count) {
    if (header_.masked) {
      bench::Mask(bytes, bytes, count, header_.key, static_cast<std::size_t>(offset_));
    }
    if (!of_script_) {
      control_.append(reinterpret_cast<const char*>(bytes), count);
      offset_ += count;
      return nullptr;
    }
    const std::uint64_t number = script_.frame().number;
    const std::size_t from = piece_at_ + static_cast<std::size_t>(offset_);
    for (std::size_t i = 0; i < count; ++i) {
      if (bytes[i] != script_.Byte(number, from + i)) {
        return "a payload with other bytes than were sent";
      }
    }
    offset_ += count;
    return nullptr;
  }

  const char* EndFrame() {
    if (!of_script_) {
      if (header_.first == kClose) {
        closed_ = true;
      } else {
        ping_ = control_;
      }
      return nullptr;
    }
    const ScriptFrame& frame = script_.frame();
    if (!frame.is_control()) {
      in_message_ = (header_.first & 0x80U) == 0;
    }
    piece_at_ += static_cast<std::size_t>(header_.payload);
    if (piece_at_ == frame.size) {
      piece_at_ = 0;
      ++frames_done_;
      script_.Next();
    }
    return nullptr;
  }

  Script script_;
  Rules rules_;
  std::array<unsigned char, bench::kMaxHeader> head_{};
  std::size_t head_size_ = 0;
  bench::FrameHeader header_;
  std::uint64_t offset_ = 0;  // in the payload of the frame
  std::size_t piece_at_ = 0;  // of the script's frame, before this fragment of it
  std::uint64_t frames_done_ = 0;
  std::string control_;  // payload of a frame that is none of the script
  std::string ping_;
  bool of_script_ = false;
  bool in_frame_ = false;
  bool in_message_ = false;
  bool closed_ = false;
};

}  // namespace sluice::storm
