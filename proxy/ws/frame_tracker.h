// Walks RFC 6455 frame headers in one direction of a relayed connection. Never unmasks and never
// copies payload; holds at most a split header (14 bytes) and the first two payload bytes of a
// CLOSE. The session uses it to count messages, to enforce the frame rules (section 5) and to know
// where a frame of ours may be inserted.
// Single-threaded; pure (no I/O), so tests/fuzz/frame_tracker_fuzz.cc drives it directly.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
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
};

// Why a stream was refused: what to close with, and a static word from a closed set for the metric.
struct FrameFault {
  std::uint16_t close_code = 0;  // 1002, 1008 or 1009
  std::string_view reason;       // e.g. "unmasked_client_frame"
};

class FrameTracker {
 public:
  enum class Event : std::uint8_t {
    kNeedMore,  // the input is used up inside a header or a payload
    kFrameEnd,  // a frame ended that does not end a message (a fragment)
    kMessageEnd,  // a data message or a control frame ended: see opcode() and message_bytes()
    kBad,         // the frame rules are broken: see fault(); the tracker must not be fed again
  };

  struct Step {
    Event event = Event::kNeedMore;
    std::size_t consumed = 0;  // bytes of the input up to where the event happened
  };

  explicit FrameTracker(const FrameRules& rules) noexcept;

  // Accounts for `input` in stream order, up to the next event. Call in a loop with the rest until
  // kNeedMore (which has consumed everything) or kBad. For kBad `consumed` counts the bytes before
  // the offending frame's header that belong to earlier frames, so that they may still be
  // forwarded.
  [[nodiscard]] Step Next(Bytes input) noexcept;

  // True between frames: the only moment another frame may be written into this direction.
  [[nodiscard]] bool at_frame_boundary() const noexcept;

  // True when, besides, no fragmented message is open.
  [[nodiscard]] bool at_message_boundary() const noexcept;

  // Of the message or control frame that the last kMessageEnd ended. For a fragmented message the
  // opcode is that of its first frame, and the bytes are the payload of all its frames.
  [[nodiscard]] Opcode opcode() const noexcept;
  [[nodiscard]] std::uint64_t message_bytes() const noexcept;

  // The code of the CLOSE frame that ended, kNoStatusCode when it carried none; 0 before that.
  [[nodiscard]] std::uint16_t close_code() const noexcept;

  // Payload bytes of the current frame that are still to come; 0 at a frame boundary and inside a
  // header. Lets a caller move a large payload without looking at it (see Skip).
  [[nodiscard]] std::uint64_t payload_left() const noexcept;

  // Accounts for `count` payload bytes that went past without being read into memory.
  // REQUIRES: count < payload_left(), so that the end of a frame always comes through Next().
  void Skip(std::uint64_t count) noexcept;

  [[nodiscard]] const FrameFault& fault() const noexcept;
