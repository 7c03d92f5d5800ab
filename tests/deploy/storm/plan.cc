#include "tests/deploy/storm/plan.h"

#include <algorithm>

namespace sluice::storm {

const char* Name(Cause cause) {
  static constexpr std::array kNames = {"wait",
                                        "kick",
                                        "max_age",
                                        "lost",
                                        "heartbeat",
                                        "client_violation",
                                        "backend_violation",
                                        "client_crosses",
                                        "backend_crosses",
                                        "client_lost"};
  static_assert(kNames.size() == static_cast<std::size_t>(Cause::kCount));
  return kNames[static_cast<std::size_t>(cause)];
}

int CodeOf(Fault fault) {
  switch (fault) {
    case Fault::kTooManyFrames:
      return 1008;
    case Fault::kMessageTooBig:
      return 1009;
    default:
      return 1002;
  }
}

const char* ReasonOf(Fault fault, Side by) {
  switch (fault) {
    case Fault::kReservedOpcode:
      return "reserved_opcode";
    case Fault::kRsv2OrRsv3:
      return "rsv2_or_rsv3";
    case Fault::kRsv1NotAgreed:
      return "rsv1_not_agreed";
    case Fault::kRsv1OnControl:
      return "rsv1_on_control";
    case Fault::kFragmentedControl:
      return "fragmented_control";
    case Fault::kContinuationWithoutStart:
      return "continuation_without_start";
    case Fault::kDataInsideMessage:
      return "data_inside_message";
    case Fault::kTooManyFrames:
      return "too_many_frames";
    case Fault::kWrongMask:
      return by == kClient ? "unmasked_client_frame" : "masked_backend_frame";
    case Fault::kControlTooLong:
      return "control_too_long";
    case Fault::kCloseLengthOne:
      return "close_length_one";
    case Fault::kLengthNotMinimal:
      return "length_not_minimal";
    case Fault::kLengthTopBit:
      return "length_top_bit";
    case Fault::kMessageTooBig:
      return "message_too_big";
    case Fault::kCount:
      break;
  }
  return "";
}

const char* Plan::path() const {
  switch (cause) {
    case Cause::kMaxAge:
      return cut ? "/age-cut" : "/age";
    case Cause::kHeartbeat:
      return cut ? "/beat-cut" : "/beat";
    default:
      return cut ? "/std-cut" : "/std";
  }
}

std::string Plan::Text() const {
  static constexpr std::array kHolds = {"none", "short", "until the CLOSE", "for ever"};
  static constexpr std::array kAnswers = {"prompt", "more",  "slow", "late", "fin",
                                          "tear",   "reset", "mute", "deaf"};
  const auto answer = [&](Side side) {
    return std::string(kAnswers[static_cast<std::size_t>(voices[side].answer)]);
  };
  return "session " + std::to_string(uid) + " of seed " + std::to_string(seed) + ", " +
         Name(cause) + (tls ? ", TLS" : "") + (deflate ? ", deflate" : "") +
         (cut ? ", refragment" : "") + ", trigger " +
         (trigger_side == kClient ? "client" : "backend") + " frame " +
         std::to_string(trigger_frame) + " spot " + std::to_string(trigger_spot) + ", hold " +
         kHolds[static_cast<std::size_t>(hold)] + ", answers " + answer(kClient) + " and " +
         answer(kBackend) + (voices[kClient].stalls ? ", client stalls" : "") +
         (voices[kBackend].stalls ? ", backend stalls" : "") + (by_reset ? ", RST" : "") +
         ", fault " + ReasonOf(fault, trigger_side);
}

namespace {

void Pace(Dice& dice, Voice& voice) {
  switch (dice.Below(8)) {
    case 0:  // whole frames
    case 1:
    case 2:
      voice.least = voice.most = 1U << 20U;
      voice.shape.largest = dice.Percent(12) ? 200'000 : 20'000;
      voice.writes = static_cast<unsigned>(dice.Between(1, 3));
      break;
    case 3:
    case 4:
    case 5:
      voice.most = static_cast<unsigned>(dice.Between(100, 8000));
      voice.writes = static_cast<unsigned>(dice.Between(1, 4));
      // No frame of any voice takes so long that the proxy gives up waiting for its end.
      voice.shape.largest = std::min<std::size_t>(20'000, std::size_t{20} * voice.most);
      break;
    case 6:
      voice.most = static_cast<unsigned>(dice.Between(20, 60));
      voice.shape.largest = 1000;
      voice.writes = static_cast<unsigned>(dice.Between(4, 12));
      break;
    default:  // byte by byte
      voice.shape.largest = 250;
      voice.writes = static_cast<unsigned>(dice.Between(4, 20));
      break;
  }
  voice.pause = static_cast<unsigned>(dice.Between(1, 12));
}

Answer DrawAnswer(Dice& dice, Side side) {
  const std::uint64_t kind = dice.Below(100);
  if (side == kClient) {
    return kind < 84   ? Answer::kPrompt
           : kind < 88 ? Answer::kMore
           : kind < 95 ? Answer::kLate
           : kind < 97 ? Answer::kReset
           : kind < 99 ? Answer::kFin
                       : Answer::kMute;
  }
  return kind < 62   ? Answer::kPrompt
         : kind < 76 ? Answer::kMore
         : kind < 86 ? Answer::kSlow
         : kind < 89 ? Answer::kLate
         : kind < 92 ? Answer::kFin
         : kind < 95 ? Answer::kTear
         : kind < 98 ? Answer::kReset
         : kind < 99 ? Answer::kMute
                     : Answer::kDeaf;
}

}  // namespace

Plan MakePlan(std::uint64_t seed, std::uint32_t uid, const Weights& weights, bool tls, bool calm) {
  Dice dice(seed * 0x9E3779B97F4A7C15U + uid);
  dice.Next();
  Plan plan;
  plan.uid = uid;
  plan.seed = seed;
  unsigned sum = 0;
  for (const unsigned weight : weights) {
    sum += weight;
  }
  std::uint64_t drawn = dice.Below(sum);
  std::size_t cause = 0;
  while (drawn >= weights[cause]) {
    drawn -= weights[cause++];
  }
  plan.cause = static_cast<Cause>(cause);
  plan.tls = dice.Percent(25) && tls;
  plan.deflate = dice.Percent(40);
  plan.cut = dice.Percent(40);
  for (const Side side : {kClient, kBackend}) {
    Voice& voice = plan.voices[side];
    voice.shape.seed = dice.Next();
    voice.shape.compressed = plan.deflate;
    Pace(dice, voice);
    voice.early = dice.Percent(25);
    voice.answer = DrawAnswer(dice, side);
    voice.answer_after = static_cast<unsigned>(voice.answer == Answer::kMore ? dice.Between(1, 4)
                                                                             : dice.Between(1, 40));
    voice.close_in_bytes = dice.Percent(20);
  }
  plan.trigger_side = dice.Percent(65) ? kBackend : kClient;
  plan.trigger_frame = dice.Between(2, 7);
  // Half of the triggers are in or about the header, where there is the most to do wrong.
  plan.trigger_spot =
      static_cast<unsigned>(dice.Percent(50) ? 1024 + dice.Below(16) : dice.Below(1024));
  const std::uint64_t hold = dice.Below(100);
  plan.hold = hold < 40   ? Plan::Hold::kNone
              : hold < 75 ? Plan::Hold::kShort
              : hold < 99 ? Plan::Hold::kUntilClose
                          : Plan::Hold::kForever;
  plan.hold_for = static_cast<unsigned>(dice.Between(1, 60));
  plan.by_reset = dice.Percent(40);
  plan.kick_code = static_cast<int>(3000 + dice.Below(2000));

  switch (plan.cause) {
    case Cause::kLost:
    case Cause::kHeartbeat:
    case Cause::kBackendViolation:
    case Cause::kBackendCrosses:
      plan.trigger_side = kBackend;
      break;
    case Cause::kClientViolation:
    case Cause::kClientCrosses:
    case Cause::kClientLost:
      plan.trigger_side = kClient;
      break;
    default:
      break;
  }
  if (plan.cause == Cause::kClientViolation || plan.cause == Cause::kBackendViolation) {
    plan.trigger_spot = 1024;
    plan.fault = static_cast<Fault>(dice.Below(static_cast<std::size_t>(Fault::kCount)));
    const bool needs_rsv1 = plan.fault == Fault::kRsv1OnControl;
    if (needs_rsv1 || plan.fault == Fault::kRsv1NotAgreed) {
      plan.deflate = needs_rsv1;
      plan.voices[kClient].shape.compressed = plan.voices[kBackend].shape.compressed = needs_rsv1;
    }
    plan.voices[plan.trigger_side].shape.endless = plan.fault == Fault::kTooManyFrames;
  }
  // A client that waits for the CLOSE inside a frame keeps the proxy from sending it.
  if (plan.trigger_side == kClient && plan.hold == Plan::Hold::kUntilClose) {
    plan.hold = Plan::Hold::kShort;
  }
  if (plan.cause == Cause::kClientLost) {
    // A backend that tears its last frame too would be told of in the same number.
    plan.voices[kBackend].answer = Answer::kPrompt;
  }
  if (calm) {
    plan.calm = true;
    plan.hold = Plan::Hold::kNone;
    plan.voices[kClient].answer = plan.voices[kBackend].answer = Answer::kPrompt;
  } else if (plan.cause == Cause::kKick || plan.cause == Cause::kWait) {
    const std::uint64_t stall = dice.Below(100);
    if (stall < 8) {
      // One end does not read, the other sends until nothing goes any more.
      const Side deaf = stall < 5 ? kClient : kBackend;
      plan.voices[deaf].stalls = true;
      plan.voices[deaf].stall_for = static_cast<unsigned>(dice.Between(20, 200));
      plan.trigger_side = deaf == kClient ? kBackend : kClient;
      plan.trigger_frame = dice.Between(1, 3);
      plan.hold = Plan::Hold::kNone;
      Voice& loud = plan.voices[plan.trigger_side];
      loud.shape.large_only = true;
      loud.shape.largest = dice.Between(20'000, 80'000);
      loud.least = loud.most = 1U << 20U;
      loud.writes = 8;
      loud.pause = 1;
      loud.early = false;
      if (loud.answer == Answer::kMute || loud.answer == Answer::kDeaf) {
        loud.answer = Answer::kPrompt;
      }
    }
  }
  return plan;
}

}  // namespace sluice::storm
