// What one direction of a session says, frame by frame, as its seed wants it: messages in
// fragments, control frames between them, empty frames, large ones. Sender and receiver each have a
// copy, so the receiver knows every byte before it comes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "tests/bench/websocket.h"
#include "tests/deploy/storm/dice.h"

namespace sluice::storm {

// No message of a script has more frames; one more is `too_many_frames` to the proxy.
inline constexpr unsigned kMaxFragments = 8;

struct Shape {
  std::uint64_t seed = 0;
  std::size_t largest = 3000;  // payload of a data frame; at least 200
  bool large_only = false;     // nothing but frames of that size, to fill buffers
  bool compressed = false;     // RSV1 was agreed (RFC 7692)
  bool endless = false;        // the second message never ends
};

struct ScriptFrame {
  std::uint64_t number = 0;  // 1, 2, 3, ...
  unsigned char first = 0;   // first byte of the header
  unsigned fragment = 0;     // 1, 2, ... of its message; 0: a control frame
  std::size_t size = 0;      // of its payload

  [[nodiscard]] bool is_control() const { return (first & 0x08U) != 0; }
  [[nodiscard]] bool fin() const { return (first & 0x80U) != 0; }
};

class Script {
 public:
  // A ping of this size is the proxy's own: no script has one.
  static constexpr std::size_t kForeignPing = 16;

  explicit Script(const Shape& shape) : shape_(shape), dice_(shape.seed) { Next(); }

  // The frame whose turn it is. Its size does not depend on who asks, or how often.
  [[nodiscard]] const ScriptFrame& frame() const { return frame_; }

  void Next() {
    ++frame_.number;
    if (!shape_.large_only && dice_.Percent(15)) {
      frame_.first = static_cast<unsigned char>(dice_.Percent(50) ? 0x89 : 0x8A);
      frame_.fragment = 0;
      frame_.size = dice_.Below(126);
      frame_.size += frame_.size == kForeignPing ? 1 : 0;
      return;
    }
    if (left_ == 0) {
      ++messages_;
      fragment_ = 0;
      left_ = dice_.Percent(45) ? static_cast<unsigned>(dice_.Between(2, 5)) : 1;
      if (shape_.endless && messages_ == 2) {
        left_ = static_cast<unsigned>(-1);
      }
      frame_.first = dice_.Percent(50) ? 0x01 : 0x02;
      if (shape_.compressed && dice_.Percent(60)) {
        frame_.first |= 0x40U;
      }
    } else {
      frame_.first = 0x00;
    }
    frame_.fragment = ++fragment_;
    if (--left_ == 0) {
      frame_.first |= 0x80U;
    }
    frame_.size = Size();
  }

  // Byte `at` of the payload of frame `number`.
  [[nodiscard]] unsigned char Byte(std::uint64_t number, std::size_t at) const {
    return static_cast<unsigned char>(shape_.seed + number * 31 + at * 7 + (at >> 8U) * 13);
  }

 private:
  std::size_t Size() {
    const std::uint64_t kind = dice_.Below(100);
    if (shape_.large_only) {
      return shape_.largest;
    }
    if (kind < 10) {
      return 0;
    }
    if (kind < 60) {
      return dice_.Between(1, 125);
    }
    return kind < 85 ? dice_.Between(126, shape_.largest < 2000 ? shape_.largest : 2000)
                     : dice_.Between(126, shape_.largest);
  }

  Shape shape_;
  Dice dice_;
  ScriptFrame frame_;
  std::uint64_t messages_ = 0;
  unsigned fragment_ = 0;
  unsigned left_ = 0;  // frames of the message that are still to come
};

// The frames of a script as bytes, to be taken in pieces of any size.
class Speaker {
 public:
  Speaker(const Shape& shape, bool masked) : script_(shape), masked_(masked), masks_(~shape.seed) {}

  // Of the frame whose turn it is, what has not been taken. Lives until the next call.
  std::span<const unsigned char> Rest() {
    if (at_ == 0) {
      Render();
    }
    return std::span<const unsigned char>(bytes_).subspan(at_);
  }

  // REQUIRES: no more than Rest() had.
  void Took(std::size_t count) {
    at_ += count;
    if (at_ == bytes_.size()) {
      ++frames_done_;
      in_message_ = script_.frame().is_control() ? in_message_ : !script_.frame().fin();
      at_ = 0;
      script_.Next();
    }
  }

  [[nodiscard]] const ScriptFrame& frame() const { return script_.frame(); }
  [[nodiscard]] std::size_t offset() const { return at_; }
  [[nodiscard]] bool inside_frame() const { return at_ > 0; }
  [[nodiscard]] bool in_message() const { return in_message_; }
  [[nodiscard]] std::uint64_t frames_done() const { return frames_done_; }
  // Of the frame whose turn it is.
  [[nodiscard]] std::size_t header_size() const {
    const std::size_t size = frame().size;
    return (size < 126 ? 2U : size <= 0xFFFF ? 4U : 10U) + (masked_ ? 4U : 0U);
  }

  bench::MaskKey NextMask() {
    const std::uint64_t word = masks_.Next();
    bench::MaskKey key{};
    std::memcpy(key.data(), &word, key.size());
    return key;
  }

 private:
  void Render() {
    const ScriptFrame& frame = script_.frame();
    const bench::MaskKey key = NextMask();
    bytes_.resize(bench::kMaxHeader + frame.size);
    const std::size_t head =
        bench::WriteHeader(bytes_.data(), frame.first, frame.size, masked_ ? &key : nullptr);
    bytes_.resize(head + frame.size);
    for (std::size_t i = 0; i < frame.size; ++i) {
      bytes_[head + i] = script_.Byte(frame.number, i);
    }
    if (masked_) {
      bench::Mask(bytes_.data() + head, bytes_.data() + head, frame.size, key, 0);
    }
  }

  Script script_;
  bool masked_;
  Dice masks_;
  std::vector<unsigned char> bytes_;
  std::size_t at_ = 0;
  std::uint64_t frames_done_ = 0;
  bool in_message_ = false;
};

}  // namespace sluice::storm
