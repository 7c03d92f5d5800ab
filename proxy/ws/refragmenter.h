// Cuts the large frames of a backend into fragments (RFC 6455 section 5.4) on their way to the
// client. A large frame that comes slowly leaves no place for a CLOSE until it ends; of fragments
// each goes out whole, so that the client's side stands between frames all the time. Messages stay
// what they are, and so do frames of up to the limit and control frames.
// Owned by Relay; for one thread. Does no I/O: tests/fuzz/refragmenter_fuzz.cc feeds it directly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "proxy/base/bytes.h"

namespace sluice::ws {

class Refragmenter {
 public:
  // Where a sender is slow, a fragment is sent from this many bytes on (from `limit` on if that is
  // less), so that headers stay small beside the payload: at most 4 bytes for each 4096.
  static constexpr std::uint64_t kLeast = 4096;

  // Frames with more than `limit` bytes of payload are cut. REQUIRES: 1 <= limit <= 1 GiB.
  explicit Refragmenter(std::uint64_t limit) noexcept;

  // Takes the next piece of the stream, cut anywhere, and returns what is to be sent now: a part of
  // `input` where nothing had to change, which costs no copy, else the content of `out`, in place
  // of what was there. May be empty. What it returns lives as long as the one it is a part of.
  // REQUIRES: the stream is that of a backend, and a FrameTracker has accepted it; of a header, as
  // far as it is there.
  [[nodiscard]] Bytes Feed(Bytes input, std::string& out) noexcept {
    // The short way: one whole frame with the short form of the length.
    if (left_ == 0 && held_.empty() && input.size() >= 2) {
      const auto length = std::to_integer<std::size_t>(input[1]);
      if (length < kLength16 && length <= limit_ && input.size() == 2 + length) {
        NoteFirstByte(std::to_integer<unsigned>(input[0]));
        return input;
      }
    }
    return FeedInGeneral(input, out);
  }

  // These four are about what Feed has returned so far, which may be behind what it was given.

  // Another frame may be written now. Always true inside a frame that is being cut.
  [[nodiscard]] bool at_frame_boundary() const noexcept { return left_ == 0 || cutting_; }
  // Besides, no fragmented message is open. True also while a frame is being cut of which nothing
  // has been sent yet, if it begins a message.
  [[nodiscard]] bool at_message_boundary() const noexcept {
    return at_frame_boundary() && !message_open_;
  }
  // The stream is inside a frame that is being cut: a CLOSE may be written, and the rest dropped.
  [[nodiscard]] bool in_cut_frame() const noexcept { return cutting_; }
  // Bytes kept inside: less than kLeast of payload, or the start of a header (at most 9).
  [[nodiscard]] std::size_t held() const noexcept { return held_.size(); }

 private:
  // Section 5.2: the values of the length that announce a longer form.
  static constexpr unsigned kLength16 = 126;
  static constexpr unsigned kLength64 = 127;
  static constexpr unsigned kFin = 0x80;
  static constexpr unsigned kControl = 0x8;

  // Of a frame that goes out as it came.
  void NoteFirstByte(unsigned first) noexcept {
    if ((first & kControl) == 0) {
      message_open_ = (first & kFin) == 0;
    }
  }

  [[nodiscard]] Bytes FeedInGeneral(Bytes input, std::string& out) noexcept;
  // Takes over a header; returns whether the frame goes out as it came.
  [[nodiscard]] bool BeginFrame(unsigned first, std::uint64_t payload) noexcept;
  void Cut(Bytes payload, std::string& out) noexcept;
  void AppendHeader(bool fin, std::size_t payload, std::string& out) noexcept;

  std::string held_;        // payload of the frame being cut, or the start of a header
  std::uint64_t left_ = 0;  // payload of the current frame that has not come yet
  std::uint32_t limit_;
  std::uint8_t first_ = 0;  // of the frame being cut: the first byte of its next fragment
  bool fin_ = false;        // the frame being cut ends its message
  bool cutting_ = false;
  bool message_open_ = false;
};

}  // namespace sluice::ws
