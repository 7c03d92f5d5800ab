// Follows the frames of RFC 6455 in one direction of a session without looking into them: it reads
// headers, counts payload down, and unmasks nothing but the two bytes of a close code. From it
// Relay knows how many messages passed, whether the frame rules of section 5 are kept, and where
// there is room for a frame of ours. What it holds of the stream is a header that came in pieces,
// 14 bytes. For one thread; does no I/O, and tests/fuzz/frame_tracker_fuzz.cc feeds it directly.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "proxy/base/bytes.h"
#include "proxy/base/side.h"

namespace sluice::ws {

// RFC 6455 section 5.2.
enum class Opcode : std::uint8_t {
  kContinuation = 0x0,
  kText = 0x1,
  kBinary = 0x2,
  kClose = 0x8,
  kPing = 0x9,
  kPong = 0xA,
};

[[nodiscard]] std::string_view Name(Opcode opcode) noexcept;  // "text", "ping", ...

// The close code that stands for "a CLOSE without a code" (section 7.1.5).
inline constexpr std::uint16_t kNoStatusCode = 1005;

struct FrameRules {
  Side from = Side::kClient;                 // the client's frames are masked, the backend's not
  bool rsv1_agreed = false;                  // the 101 agreed permessage-deflate (RFC 7692)
  std::uint64_t max_message_bytes = 0;       // payload of all frames of a message; 0: no limit
  std::uint32_t max_frames_per_message = 0;  // 0: no limit
  std::uint32_t max_frame_bytes = 0;         // payload of one data frame; 0: no limit
};

// Why a stream was refused: what to close with, and a static word from a closed set for the metric.
struct FrameFault {
  std::uint16_t close_code = 0;  // 1002, 1008 or 1009
  std::string_view reason;       // e.g. "unmasked_client_frame"; one of FaultReasons()
};

// Every reason that a FrameFault can have, each once, for metrics that list their labels up front.
// The views are static.
[[nodiscard]] std::span<const std::string_view> FaultReasons() noexcept;

class FrameTracker {
 public:
  enum class Event : std::uint8_t {
    kNeedMore,    // the input is used up inside a header or a payload, or was empty
    kFrameEnd,    // a frame ended that does not end a message (a fragment)
    kMessageEnd,  // a data message or a control frame ended: see opcode() and message_bytes()
    kBad,         // the frame rules are broken: see fault(); nothing more may come of this stream
  };

  // `consumed` counts bytes of the input given to that call of Next():
  //   kNeedMore               all of it
  //   kFrameEnd, kMessageEnd  up to and including the last byte of that frame, which is the last
  //                           byte of its header when the payload is empty
  //   kBad                    0: frames before the offending one had their own step
  struct Step {
    Event event = Event::kNeedMore;
    std::size_t consumed = 0;
  };

  explicit FrameTracker(const FrameRules& rules) noexcept;

  // Accounts for `input` in stream order, up to the next event. Call in a loop with the rest until
  // kNeedMore or kBad. A rule is checked at the first byte that can break it: the limits at the
  // declared length, before any payload is there.
  //
  // A header that is split over two inputs was accepted so far with the first one, so a caller
  // that forwards what was consumed has then forwarded the start of a frame that turns out bad;
  // at_frame_boundary() tells.
  //
  // After kBad every further call is kBad with the same fault. After the end of a CLOSE frame the
  // tracker follows the same rules as before: that nothing may follow a CLOSE (section 5.5.1) is
  // the caller's to know.
  [[nodiscard]] Step Next(Bytes input) noexcept;

  // True between frames: the only moment another frame may be written into this direction. After
  // kBad: true when nothing of the offending frame has been consumed.
  [[nodiscard]] bool at_frame_boundary() const noexcept {
    return payload_left_ == 0 && header_size_ == 0;
  }

  // True when, besides, no fragmented message is open.
  [[nodiscard]] bool at_message_boundary() const noexcept {
    return at_frame_boundary() && !in_message_;
  }

  // True while a fragmented message is open, also between its frames and inside control frames that
  // sit between them.
  [[nodiscard]] bool in_message() const noexcept { return in_message_; }

  // True when the input ended inside a header, or inside the payload of a control frame: a caller
  // that wants to decide about a frame as a whole holds these bytes back (at most 14 + 125).
  [[nodiscard]] bool in_header_or_control() const noexcept {
    return header_size_ != 0 || (payload_left_ != 0 && IsControl(frame_opcode_));
  }

  // Of the message or control frame that ended with the last step. For a fragmented message the
  // opcode is that of its first frame, and the bytes are the payload of all its frames.
  // REQUIRES: the last step was kMessageEnd.
  [[nodiscard]] Opcode opcode() const noexcept {
    return IsControl(frame_opcode_) ? frame_opcode_ : message_opcode_;
  }
  [[nodiscard]] std::uint64_t message_bytes() const noexcept {
    return IsControl(frame_opcode_) ? control_bytes_ : message_bytes_;
  }

  // The code of the last CLOSE frame that ended, kNoStatusCode when it carried none; 0 before
  // that. Any 16-bit value: what codes may be sent is for the two ends to check.
  [[nodiscard]] std::uint16_t close_code() const noexcept { return close_code_; }

  // Payload bytes of the current frame that are still to come; 0 at a frame boundary and inside a
  // header. Lets a caller move a large payload without looking at it (see Skip).
  [[nodiscard]] std::uint64_t payload_left() const noexcept { return payload_left_; }

  // Accounts for `count` payload bytes that went past without being read into memory.
  // REQUIRES: count < payload_left(), so that the end of a frame always comes through Next(); the
  // current frame is a data frame (one of more than 125 bytes always is).
  void Skip(std::uint64_t count) noexcept;

  // Why Next() returned kBad. Before that: no reason, close code 0. The object is static.
  [[nodiscard]] const FrameFault& fault() const noexcept;

 private:
  enum class Fault : std::uint8_t;

  struct Header {
    Fault fault{};
    std::size_t size = 0;  // 0: not known yet
    std::uint64_t payload = 0;
  };

  static constexpr std::size_t kMaxHeader = 14;  // 2 + 8 bytes of length + 4 bytes of mask

  [[nodiscard]] static constexpr bool IsControl(Opcode opcode) noexcept {
    return (static_cast<std::uint8_t>(opcode) & 0x8U) != 0;
  }

  [[nodiscard]] Step NextInGeneral(Bytes input) noexcept;
  // Checks the first `have` bytes of header_, as far as they go.
  [[nodiscard]] Header CheckHeader(std::size_t have) const noexcept;
  [[nodiscard]] Fault CheckFirstByte(unsigned first) const noexcept;
  [[nodiscard]] Fault CheckLength(Opcode opcode, std::uint64_t payload) const noexcept;
  void BeginFrame(std::uint64_t payload) noexcept;
  [[nodiscard]] Step TakePayload(Bytes input, std::size_t header_bytes) noexcept;

  // 64 bytes in all: one cache line for each direction of a session.
  std::uint64_t payload_left_ = 0;
  std::uint64_t message_bytes_ = 0;  // declared so far for the data message that is or was open
  std::uint64_t max_message_bytes_;
  std::uint32_t max_frames_;
  std::uint32_t frames_ = 0;  // of the open data message
  std::uint32_t max_frame_bytes_;
  std::uint16_t close_code_ = 0;
  std::uint16_t close_code_partial_ = 0;  // of the CLOSE frame that is being read
  std::uint8_t close_code_bytes_ = 0;     // how many of its two bytes are in close_code_partial_
  std::uint8_t control_bytes_ = 0;        // payload of the last control frame
  std::uint8_t header_size_ = 0;          // bytes of a header that came in earlier inputs
  std::uint8_t mask_bit_;                 // 0x80 or 0: what the second byte must have
  std::uint8_t first_byte_mask_;          // the bits of a first byte that decide its meaning
  std::uint8_t short_most_;               // payload of a frame that may take the short way
  Opcode frame_opcode_ = Opcode::kContinuation;
  Opcode message_opcode_ = Opcode::kContinuation;
  bool fin_ : 1 = false;
  bool in_message_ : 1 = false;  // a fragmented message is open
  Fault fault_{};
  // The last header that did not take the short way in Next(); kept for the mask of a CLOSE.
  std::array<std::uint8_t, kMaxHeader> header_{};
};

inline FrameTracker::Step FrameTracker::Next(Bytes input) noexcept {
  // The short way: a whole unfragmented data message of up to 125 bytes, between messages. A fault
  // clears first_byte_mask_, so that it is never taken again.
  if (input.size() >= 2 && at_message_boundary()) {
    const unsigned first = std::to_integer<unsigned>(input[0]) & first_byte_mask_;
    // With the mask bit right this is the length; with it wrong it is 128 or more.
    const unsigned length = std::to_integer<unsigned>(input[1]) ^ mask_bit_;
    const std::size_t size = 2U + (mask_bit_ >> 5U) + length;  // 0x80 >> 5: the mask's 4 bytes
    if ((first == 0x81U || first == 0x82U) && length <= short_most_ && size <= input.size()) {
      frame_opcode_ = message_opcode_ = static_cast<Opcode>(first & 0x0FU);
      message_bytes_ = length;
      return {Event::kMessageEnd, size};
    }
  }
  return NextInGeneral(input);
}

}  // namespace sluice::ws
