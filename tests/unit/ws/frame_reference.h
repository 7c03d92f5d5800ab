// A second, slow reading of RFC 6455 section 5: one byte at a time, everything remembered. It
// shares no code with FrameTracker, which unit tests and the fuzzer compare with it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/ws/frame_tracker.h"

namespace sluice::ws {

// One frame that ended, with everything that is known at that moment.
struct FrameEnd {
  std::size_t position = 0;  // bytes of the stream up to and including the frame
  bool ends_message = false;
  Opcode opcode = Opcode::kContinuation;  // these two: only when it ends a message
  std::uint64_t bytes = 0;
  std::uint16_t close_code = 0;

  bool operator==(const FrameEnd&) const = default;
};

// What the tracker must say of itself after a number of bytes.
struct FrameState {
  bool at_frame_boundary = true;
  bool at_message_boundary = true;
  std::uint64_t payload_left = 0;

  bool operator==(const FrameState&) const = default;
};

class FrameReference {
 public:
  FrameReference(const FrameRules& rules, std::string_view stream) : rules_(rules) {
    states.emplace_back();
    for (const char c : stream) {
      fault = Feed(static_cast<unsigned char>(c));
      if (!fault.empty()) {
        return;
      }
      ++position_;
      states.push_back({stage_ == Stage::kFirst, stage_ == Stage::kFirst && !open_,
                        stage_ == Stage::kPayload ? left_ : 0});
    }
  }

  std::vector<FrameEnd> ends;
  std::vector<FrameState> states;  // states[n]: after n bytes; up to the byte before the bad one
  std::string fault;               // empty: none
  std::size_t frame_start = 0;     // where the last, or the offending, frame begins

 private:
  enum class Stage { kFirst, kSecond, kLength, kMask, kPayload };

  std::string Feed(unsigned byte) {
    switch (stage_) {
      case Stage::kFirst:
        return FeedFirst(byte);
      case Stage::kSecond:
        return FeedSecond(byte);
      case Stage::kLength:
        length_ = length_ * 256 + byte;
        if (--left_ == 0) {
          return KnowLength();
        }
        return "";
      case Stage::kMask:
        mask_.push_back(byte);
        if (mask_.size() == 4) {
          StartPayload();
        }
        return "";
      case Stage::kPayload:
        if (!mask_.empty()) {
          byte ^= mask_[body_.size() % 4];
        }
        body_.push_back(static_cast<char>(byte));
        if (--left_ == 0) {
          EndFrame();
        }
        return "";
    }
    return "";
  }

  std::string FeedFirst(unsigned byte) {
    frame_start = position_;
    fin_ = byte >= 0x80;
    const bool rsv1 = byte / 0x40 % 2 == 1;
    opcode_ = byte % 16;
    control_ = opcode_ >= 8;
    if ((opcode_ > 2 && opcode_ < 8) || opcode_ > 10) {
      return "reserved_opcode";
    }
    if (byte / 0x20 % 2 == 1 || byte / 0x10 % 2 == 1) {
      return "rsv2_or_rsv3";
    }
    if (rsv1 && !rules_.rsv1_agreed) {
      return "rsv1_not_agreed";
    }
    if (rsv1 && control_) {
      return "rsv1_on_control";
    }
    if (rsv1 && opcode_ == 0) {
      return "rsv1_on_continuation";
    }
    if (control_ && !fin_) {
      return "fragmented_control";
    }
    if (opcode_ == 0 && !open_) {
      return "continuation_without_start";
    }
    if (opcode_ == 0 && rules_.max_frames_per_message != 0 &&
        frames_ + 1 > rules_.max_frames_per_message) {
      return "too_many_frames";
    }
    if ((opcode_ == 1 || opcode_ == 2) && open_) {
      return "data_inside_message";
    }
    mask_.clear();
    body_.clear();
    stage_ = Stage::kSecond;
    return "";
  }

  std::string FeedSecond(unsigned byte) {
    masked_ = byte >= 0x80;
    if (masked_ && rules_.from == Side::kBackend) {
      return "masked_backend_frame";
    }
    if (!masked_ && rules_.from == Side::kClient) {
      return "unmasked_client_frame";
    }
    const unsigned low = byte % 0x80;
    if (control_ && low > 125) {
      return "control_too_long";
    }
    length_ = low;
    least_ = 0;
    if (low < 126) {
      return KnowLength();
    }
    length_ = 0;
    left_ = low == 126 ? 2 : 8;
    least_ = low == 126 ? 126 : 65536;
    stage_ = Stage::kLength;
    return "";
  }

  std::string KnowLength() {
    if (length_ < least_) {
      return "length_not_minimal";
    }
    if (length_ >= std::uint64_t{1} << 63) {
      return "length_top_bit";
    }
    if (opcode_ == 8 && length_ == 1) {
      return "close_length_one";
    }
    if (!control_) {
      const WideSum sum = WideSum{opcode_ == 0 ? message_bytes_ : 0} + length_;
      const std::uint64_t limit =
          rules_.max_message_bytes == 0 ? ~std::uint64_t{0} : rules_.max_message_bytes;
      if (sum > limit) {
        return "message_too_big";
      }
      if (rules_.max_frame_bytes != 0 && length_ > rules_.max_frame_bytes) {
        return "frame_too_big";
      }
    }
    stage_ = Stage::kMask;
    if (!masked_) {
      StartPayload();
    }
    return "";
  }

  void StartPayload() {
    if (!control_) {
      if (opcode_ != 0) {
        message_opcode_ = opcode_;
        message_bytes_ = 0;
        frames_ = 0;
        open_ = true;
      }
      message_bytes_ += length_;
      frames_ += 1;
    }
    stage_ = Stage::kPayload;
    left_ = length_;
    if (left_ == 0) {
      EndFrame();
    }
  }

  void EndFrame() {
    FrameEnd end;
    end.position = position_ + 1;
    if (opcode_ == 8) {
      close_code_ = body_.size() < 2
                        ? 1005
                        : static_cast<std::uint16_t>(static_cast<unsigned char>(body_[0]) * 256 +
                                                     static_cast<unsigned char>(body_[1]));
    }
    end.close_code = close_code_;
    end.ends_message = control_ || fin_;
    if (end.ends_message) {
      end.opcode = static_cast<Opcode>(control_ ? opcode_ : message_opcode_);
      end.bytes = control_ ? length_ : message_bytes_;
    }
    if (!control_ && fin_) {
      open_ = false;
    }
    ends.push_back(end);
    stage_ = Stage::kFirst;
  }

  __extension__ using WideSum = unsigned __int128;

  FrameRules rules_;
  Stage stage_ = Stage::kFirst;
  std::size_t position_ = 0;
  bool fin_ = false;
  bool control_ = false;
  bool masked_ = false;
  bool open_ = false;
  unsigned opcode_ = 0;
  unsigned message_opcode_ = 0;
  std::uint64_t length_ = 0;
  std::uint64_t least_ = 0;
  std::uint64_t left_ = 0;
  std::uint64_t message_bytes_ = 0;
  std::uint64_t frames_ = 0;
  std::uint16_t close_code_ = 0;
  std::vector<unsigned> mask_;
  std::string body_;
};

enum class Payload { kRead, kSkipped };  // how the driver below gets past large payloads

// Feeds `pieces` to a FrameTracker and compares each step with the reference. Empty when they
// agree in everything; else what differs, and where.
inline std::string Disagreement(const FrameRules& rules,
                                const std::vector<std::string_view>& pieces,
                                Payload payload = Payload::kRead) {
  std::string stream;
  for (const std::string_view piece : pieces) {
    stream += piece;
  }
  const FrameReference want(rules, stream);
  const std::size_t good = want.states.size() - 1;  // bytes before the one that is bad
  FrameTracker tracker(rules);
  std::size_t position = 0;
  std::size_t told = 0;
  const auto differs = [&position](const auto&... what) {
    std::ostringstream out;
    out << "at byte " << position << ": ";
    (out << ... << what);
    return out.str();
  };
  for (const std::string_view piece : pieces) {
    Bytes input = AsBytes(piece);
    for (;;) {
      // A payload of more than 125 bytes is that of a data frame, so it may be skipped.
      if (payload == Payload::kSkipped && tracker.payload_left() > 125) {
        const auto count = static_cast<std::size_t>(
            std::min<std::uint64_t>(tracker.payload_left() - 1, input.size()));
        tracker.Skip(count);
        input = input.subspan(count);
        position += count;
      }
      const FrameTracker::Step step = tracker.Next(input);
      if (step.event == FrameTracker::Event::kBad) {
        if (want.fault != tracker.fault().reason) {
          return differs("refused as ", tracker.fault().reason, " instead of '", want.fault, "'");
        }
        if (step.consumed != 0) {
          return differs("kBad consumed ", step.consumed);
        }
        if (good < position || good >= position + input.size()) {
          return differs("the bad byte is ", good);
        }
        if (told != want.ends.size()) {
          return differs(told, " frames ended instead of ", want.ends.size());
        }
        if (tracker.at_frame_boundary() != (want.frame_start == position)) {
          return differs("at_frame_boundary() is wrong after kBad");
        }
        if (tracker.Next(input).event != FrameTracker::Event::kBad) {
          return differs("kBad did not last");
        }
        return "";
      }
      if (step.consumed > input.size()) {
        return differs("consumed ", step.consumed, " of ", input.size());
      }
      position += step.consumed;
      input = input.subspan(step.consumed);
      if (position > good) {
        return differs("let '", want.fault, "' pass");
      }
      const FrameState state{tracker.at_frame_boundary(), tracker.at_message_boundary(),
                             tracker.payload_left()};
      if (state != want.states[position]) {
        return differs("frame boundary ", state.at_frame_boundary, ", message boundary ",
                       state.at_message_boundary, ", payload left ", state.payload_left);
      }
      if (step.event == FrameTracker::Event::kNeedMore) {
        if (!input.empty()) {
          return differs("kNeedMore left ", input.size(), " bytes");
        }
        break;
      }
      FrameEnd end;
      end.position = position;
      end.ends_message = step.event == FrameTracker::Event::kMessageEnd;
      if (end.ends_message) {
        end.opcode = tracker.opcode();
        end.bytes = tracker.message_bytes();
      }
      end.close_code = tracker.close_code();
      if (told == want.ends.size() || end != want.ends[told]) {
        return differs("frame ", told, ": ends message ", end.ends_message, ", ", Name(end.opcode),
                       ", bytes ", end.bytes, ", close code ", end.close_code);
      }
      ++told;
    }
  }
  if (!want.fault.empty()) {
    return differs("'", want.fault, "' was not refused");
  }
  if (told != want.ends.size()) {
    return differs(told, " frames ended instead of ", want.ends.size());
  }
  return "";
}

}  // namespace sluice::ws
