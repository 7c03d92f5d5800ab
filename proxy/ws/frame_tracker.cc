#include "proxy/ws/frame_tracker.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <limits>

namespace sluice::ws {

// In the order of kFaults below.
enum class FrameTracker::Fault : std::uint8_t {
  kNone,
  kReservedOpcode,
  kRsv2OrRsv3,
  kRsv1NotAgreed,
  kRsv1OnControl,
  kRsv1OnContinuation,
  kFragmentedControl,
  kContinuationWithoutStart,
  kDataInsideMessage,
  kTooManyFrames,
  kUnmaskedClientFrame,
  kMaskedBackendFrame,
  kControlTooLong,
  kCloseLengthOne,
  kLengthNotMinimal,
  kLengthTopBit,
  kMessageTooBig,
  kFrameTooBig,
};

namespace {

// RFC 6455 section 7.4.1.
constexpr std::uint16_t kProtocolError = 1002;
constexpr std::uint16_t kPolicyViolation = 1008;
constexpr std::uint16_t kMessageTooBig = 1009;

constexpr std::array kFaults{
    FrameFault{0, ""},
    FrameFault{kProtocolError, "reserved_opcode"},
    FrameFault{kProtocolError, "rsv2_or_rsv3"},
    FrameFault{kProtocolError, "rsv1_not_agreed"},
    FrameFault{kProtocolError, "rsv1_on_control"},
    FrameFault{kProtocolError, "rsv1_on_continuation"},
    FrameFault{kProtocolError, "fragmented_control"},
    FrameFault{kProtocolError, "continuation_without_start"},
    FrameFault{kProtocolError, "data_inside_message"},
    FrameFault{kPolicyViolation, "too_many_frames"},
    FrameFault{kProtocolError, "unmasked_client_frame"},
    FrameFault{kProtocolError, "masked_backend_frame"},
    FrameFault{kProtocolError, "control_too_long"},
    FrameFault{kProtocolError, "close_length_one"},
    FrameFault{kProtocolError, "length_not_minimal"},
    FrameFault{kProtocolError, "length_top_bit"},
    FrameFault{kMessageTooBig, "message_too_big"},
    FrameFault{kMessageTooBig, "frame_too_big"},
};

constexpr auto kReasons = [] {
  std::array<std::string_view, kFaults.size() - 1> reasons;
  for (std::size_t i = 0; i < reasons.size(); ++i) {
    reasons[i] = kFaults[i + 1].reason;
  }
  return reasons;
}();

// The first two header bytes (section 5.2).
constexpr unsigned kFin = 0x80;
constexpr unsigned kRsv1 = 0x40;
constexpr unsigned kRsv2AndRsv3 = 0x30;
constexpr unsigned kOpcodeBits = 0x0F;
constexpr unsigned kMaskBit = 0x80;
constexpr unsigned kLengthBits = 0x7F;

constexpr std::uint64_t kMaxControlBytes = 125;  // section 5.5
constexpr std::uint64_t kShortLength = 125;      // section 5.2: what the second byte itself can say
constexpr std::size_t kMaskSize = 4;

constexpr bool IsKnown(unsigned opcode) noexcept {
  return opcode <= 0x2 || (opcode >= 0x8 && opcode <= 0xA);
}

}  // namespace

std::string_view Name(Opcode opcode) noexcept {
  switch (opcode) {
    case Opcode::kContinuation:
      return "continuation";
    case Opcode::kText:
      return "text";
    case Opcode::kBinary:
      return "binary";
    case Opcode::kClose:
      return "close";
    case Opcode::kPing:
      return "ping";
    case Opcode::kPong:
      return "pong";
  }
  return "reserved";
}

std::span<const std::string_view> FaultReasons() noexcept {
  return kReasons;
}

FrameTracker::FrameTracker(const FrameRules& rules) noexcept
    : max_message_bytes_(rules.max_message_bytes != 0 ? rules.max_message_bytes
                                                      : std::numeric_limits<std::uint64_t>::max()),
      max_frames_(rules.max_frames_per_message),
      max_frame_bytes_(rules.max_frame_bytes),
      mask_bit_(rules.from == Side::kClient ? kMaskBit : 0),
      first_byte_mask_(static_cast<std::uint8_t>(rules.rsv1_agreed ? ~kRsv1 : ~0U)),
      short_most_(static_cast<std::uint8_t>(
          std::min({kShortLength, max_message_bytes_,
                    max_frame_bytes_ != 0 ? std::uint64_t{max_frame_bytes_} : kShortLength}))) {}

void FrameTracker::Skip(std::uint64_t count) noexcept {
  assert(count < payload_left_);
  assert(!IsControl(frame_opcode_));
  payload_left_ -= count;
}

const FrameFault& FrameTracker::fault() const noexcept {
  return kFaults[static_cast<std::size_t>(fault_)];
}

FrameTracker::Step FrameTracker::NextInGeneral(Bytes input) noexcept {
  if (fault_ != Fault::kNone) {
    return {Event::kBad, 0};
  }
  if (input.empty()) {
    return {Event::kNeedMore, 0};
  }
  if (payload_left_ > 0) {
    return TakePayload(input, 0);
  }
  const std::size_t carried = header_size_;
  const std::size_t have = carried + std::min(input.size(), kMaxHeader - carried);
  std::memcpy(header_.data() + carried, input.data(), have - carried);
  const Header header = CheckHeader(have);
  if (header.fault != Fault::kNone) {
    fault_ = header.fault;
    first_byte_mask_ = 0;
    return {Event::kBad, 0};
  }
  if (header.size == 0 || have < header.size) {
    header_size_ = static_cast<std::uint8_t>(have);
    return {Event::kNeedMore, input.size()};
  }
  header_size_ = 0;
  BeginFrame(header.payload);
  const std::size_t header_bytes = header.size - carried;
  return TakePayload(input.subspan(header_bytes), header_bytes);
}

FrameTracker::Header FrameTracker::CheckHeader(std::size_t have) const noexcept {
  Header header;
  header.fault = CheckFirstByte(header_[0]);
  if (header.fault != Fault::kNone || have < 2) {
    return header;
  }
  // Section 5.1: every frame of a client is masked, none of a server.
  if ((header_[1] & kMaskBit) != mask_bit_) {
    header.fault = mask_bit_ != 0 ? Fault::kUnmaskedClientFrame : Fault::kMaskedBackendFrame;
    return header;
  }
  const auto opcode = static_cast<Opcode>(header_[0] & kOpcodeBits);
  std::size_t length_size = 0;
  header.payload = header_[1] & kLengthBits;
  // Asked before the longer forms are read: a control frame has only the short one.
  if (IsControl(opcode) && header.payload > kMaxControlBytes) {
    header.fault = Fault::kControlTooLong;
    return header;
  }
  if (header.payload >= 126) {
    length_size = header.payload == 126 ? 2 : 8;
    if (have < 2 + length_size) {
      return header;
    }
    const std::uint64_t least = length_size == 2 ? 126 : 0x10000;
    header.payload = 0;
    for (std::size_t i = 0; i < length_size; ++i) {
      header.payload = header.payload << 8U | header_[2 + i];
    }
    // Section 5.2: the minimal form MUST be used, and the most significant bit MUST be 0.
    if (header.payload < least) {
      header.fault = Fault::kLengthNotMinimal;
      return header;
    }
    if (header.payload >> 63U != 0) {
      header.fault = Fault::kLengthTopBit;
      return header;
    }
  }
  header.fault = CheckLength(opcode, header.payload);
  header.size = 2 + length_size + (mask_bit_ != 0 ? kMaskSize : 0);
  return header;
}

FrameTracker::Fault FrameTracker::CheckFirstByte(unsigned first) const noexcept {
  const unsigned opcode_bits = first & kOpcodeBits;
  if (!IsKnown(opcode_bits)) {
    return Fault::kReservedOpcode;
  }
  if ((first & kRsv2AndRsv3) != 0) {
    return Fault::kRsv2OrRsv3;
  }
  const auto opcode = static_cast<Opcode>(opcode_bits);
  if ((first & kRsv1) != 0) {
    if ((first_byte_mask_ & kRsv1) != 0) {
      return Fault::kRsv1NotAgreed;
    }
    // RFC 7692 section 6: the bit is that of a message and stands on its first frame only.
    if (IsControl(opcode)) {
      return Fault::kRsv1OnControl;
    }
    if (opcode == Opcode::kContinuation) {
      return Fault::kRsv1OnContinuation;
    }
  }
  if (IsControl(opcode)) {
    // Section 5.5: control frames MUST NOT be fragmented.
    return (first & kFin) != 0 ? Fault::kNone : Fault::kFragmentedControl;
  }
  // Section 5.4.
  if (opcode == Opcode::kContinuation) {
    if (!in_message_) {
      return Fault::kContinuationWithoutStart;
    }
    return max_frames_ != 0 && frames_ >= max_frames_ ? Fault::kTooManyFrames : Fault::kNone;
  }
  return in_message_ ? Fault::kDataInsideMessage : Fault::kNone;
}

FrameTracker::Fault FrameTracker::CheckLength(Opcode opcode, std::uint64_t payload) const noexcept {
  if (IsControl(opcode)) {
    // Section 5.5.1: a body starts with a code of two bytes.
    return opcode == Opcode::kClose && payload == 1 ? Fault::kCloseLengthOne : Fault::kNone;
  }
  // message_bytes_ is at most the limit, so this cannot wrap where the sum of the two could.
  const std::uint64_t before = opcode == Opcode::kContinuation ? message_bytes_ : 0;
  if (payload > max_message_bytes_ - before) {
    return Fault::kMessageTooBig;
  }
  return max_frame_bytes_ != 0 && payload > max_frame_bytes_ ? Fault::kFrameTooBig : Fault::kNone;
}

// Takes over the checked header in header_.
void FrameTracker::BeginFrame(std::uint64_t payload) noexcept {
  fin_ = (header_[0] & kFin) != 0;
  frame_opcode_ = static_cast<Opcode>(header_[0] & kOpcodeBits);
  payload_left_ = payload;
  if (IsControl(frame_opcode_)) {
    control_bytes_ = static_cast<std::uint8_t>(payload);
    close_code_bytes_ = 0;
    close_code_partial_ = 0;
    return;
  }
  if (frame_opcode_ != Opcode::kContinuation) {
    message_opcode_ = frame_opcode_;
    message_bytes_ = 0;
    frames_ = 0;
    in_message_ = true;
  }
  message_bytes_ += payload;
  ++frames_;
}

FrameTracker::Step FrameTracker::TakePayload(Bytes input, std::size_t header_bytes) noexcept {
  const auto taken = static_cast<std::size_t>(std::min<std::uint64_t>(payload_left_, input.size()));
  if (frame_opcode_ == Opcode::kClose) {
    for (std::size_t i = 0; i < taken && close_code_bytes_ < 2; ++i, ++close_code_bytes_) {
      // A CLOSE has the short length form, so its mask begins at byte 2.
      const unsigned mask = mask_bit_ != 0 ? header_[2U + close_code_bytes_] : 0U;
      const unsigned byte = std::to_integer<unsigned>(input[i]) ^ mask;
      close_code_partial_ = static_cast<std::uint16_t>(close_code_partial_ * 256U + byte);
    }
  }
  payload_left_ -= taken;
  const std::size_t consumed = header_bytes + taken;
  if (payload_left_ > 0) {
    return {Event::kNeedMore, consumed};
  }
  if (IsControl(frame_opcode_)) {
    if (frame_opcode_ == Opcode::kClose) {
      close_code_ = close_code_bytes_ == 2 ? close_code_partial_ : kNoStatusCode;
    }
    return {Event::kMessageEnd, consumed};
  }
  in_message_ = !fin_;
  return {fin_ ? Event::kMessageEnd : Event::kFrameEnd, consumed};
}

}  // namespace sluice::ws
