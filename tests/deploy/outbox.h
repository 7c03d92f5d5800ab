// What a tool still has to send: nothing as a rule, since frames are small and go straight into the
// socket; what the kernel refuses is kept in order.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "tests/bench/websocket.h"
#include "tests/deploy/frame_reader.h"
#include "tests/deploy/numbered.h"

namespace sluice::deploy {

class Outbox {
 public:
  [[nodiscard]] bool empty() const { return begin_ == bytes_.size(); }

  // `write(bytes, size)` returns how many it took, 0 when there is no room, and -1 when there never
  // will be; then everything is dropped.
  template <class Write>
  void Send(const unsigned char* bytes, std::size_t size, Write&& write) {
    if (empty()) {
      const ssize_t taken = write(bytes, size);
      if (taken < 0) {
        return;
      }
      bytes += taken;
      size -= static_cast<std::size_t>(taken);
    }
    bytes_.insert(bytes_.end(), bytes, bytes + size);
  }

  template <class Write>
  void Flush(Write&& write) {
    while (!empty()) {
      const ssize_t taken = write(bytes_.data() + begin_, bytes_.size() - begin_);
      if (taken == 0) {
        return;
      }
      begin_ = taken < 0 ? bytes_.size() : begin_ + static_cast<std::size_t>(taken);
    }
    Clear();
  }

  void Clear() {
    bytes_.clear();
    begin_ = 0;
  }

 private:
  std::vector<unsigned char> bytes_;
  std::size_t begin_ = 0;
};

// A whole frame, in memory that the next one uses again. `mask` null: unmasked.
struct Frame {
  unsigned char* bytes;
  std::size_t size;
};

inline std::array<unsigned char, bench::kMaxHeader + kMaxMessage>& FrameMemory() {
  static std::array<unsigned char, bench::kMaxHeader + kMaxMessage> memory;
  return memory;
}

inline Frame NumberedFrame(const Numbered& message, std::size_t size, const bench::MaskKey* mask) {
  auto& memory = FrameMemory();
  const std::size_t head = bench::WriteHeader(
      memory.data(), 0x80U | static_cast<unsigned char>(Opcode::kBinary), size, mask);
  WritePayload(memory.data() + head, message, size);
  if (mask != nullptr) {
    bench::Mask(memory.data() + head, memory.data() + head, size, *mask, 0);
  }
  return {memory.data(), head + size};
}

inline Frame ControlFrame(Opcode opcode, const unsigned char* payload, std::size_t size,
                          const bench::MaskKey* mask) {
  auto& memory = FrameMemory();
  const std::size_t head =
      bench::WriteHeader(memory.data(), 0x80U | static_cast<unsigned char>(opcode), size, mask);
  if (mask != nullptr) {
    bench::Mask(memory.data() + head, payload, size, *mask, 0);
  } else {
    std::memcpy(memory.data() + head, payload, size);
  }
  return {memory.data(), head + size};
}

// The payload of a CLOSE with `code`; nothing for 1005.
class CloseFramePayload {
 public:
  explicit CloseFramePayload(int code)
      : bytes_{static_cast<unsigned char>(code >> 8), static_cast<unsigned char>(code & 0xFF)},
        size_(code == 1005 ? 0 : bytes_.size()) {}
  [[nodiscard]] const unsigned char* data() const { return bytes_.data(); }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  std::array<unsigned char, 2> bytes_;
  std::size_t size_;
};

}  // namespace sluice::deploy
