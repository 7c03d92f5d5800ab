// What chance has in store for one session: how both ends talk, what ends it, at which byte, and
// how each end takes the CLOSE. All of it follows from the seed and the session's number.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "tests/deploy/storm/script.h"

namespace sluice::storm {

// What the plan does to bring about a CLOSE of the proxy.
enum class Cause : std::uint8_t {
  kWait,             // nothing: a drain, of its backend or of the process, comes to everybody
  kKick,             // DELETE /sessions
  kMaxAge,           // the route's max_connection_age
  kLost,             // the backend vanishes
  kHeartbeat,        // the backend falls silent
  kClientViolation,  // a side breaks the rules
  kBackendViolation,
  kClientCrosses,  // a kick, and in the same moment a CLOSE of the client
  kBackendCrosses,
  kClientLost,  // no CLOSE comes of it; what is torn is counted
  kCount,
};
const char* Name(Cause cause);

enum Side : std::uint8_t { kClient, kBackend };

// What breaks RFC 6455, or a limit of the configuration.
enum class Fault : std::uint8_t {
  kReservedOpcode,
  kRsv2OrRsv3,
  kRsv1NotAgreed,
  kRsv1OnControl,
  kFragmentedControl,
  kContinuationWithoutStart,
  kDataInsideMessage,
  kTooManyFrames,
  kWrongMask,
  kControlTooLong,
  kCloseLengthOne,
  kLengthNotMinimal,
  kLengthTopBit,
  kMessageTooBig,
  kCount,
};
// The code and reason of the CLOSE that it deserves.
int CodeOf(Fault fault);
const char* ReasonOf(Fault fault, Side by);

// How an end takes a CLOSE.
enum class Answer : std::uint8_t {
  kPrompt,  // finishes its frame and answers
  kMore,    // sends some frames before
  kSlow,    // goes on at its pace to the end of its message, then answers
  kLate,    // waits, then answers
  kFin,     // finishes its frame and ends the stream without an answer
  kTear,    // ends the stream where it is
  kReset,   // the same by RST
  kMute,    // sends nothing more
  kDeaf,    // goes on for ever
};

struct Voice {
  Shape shape;
  unsigned least = 1;  // bytes in one write
  unsigned most = 1;
  unsigned writes = 1;     // writes in one go
  unsigned pause = 2;      // milliseconds between two goes, at most
  bool early = false;      // says its first frame before the other end can hear it
  bool stalls = false;     // stops reading at the trigger
  unsigned stall_for = 0;  // milliseconds
  Answer answer = Answer::kPrompt;
  unsigned answer_after = 0;    // kLate: milliseconds; kMore: frames
  bool close_in_bytes = false;  // its CLOSE goes out byte by byte
};

struct Plan {
  std::uint32_t uid = 0;
  std::uint64_t seed = 0;
  Cause cause = Cause::kWait;
  bool tls = false;
  bool deflate = false;
  bool cut = false;  // on a route with `refragment`
  std::array<Voice, 2> voices;
  // The trigger: when this side has written so much of its frame with this number. What the cause
  // wants happens then.
  Side trigger_side = kBackend;
  std::uint64_t trigger_frame = 1;
  unsigned trigger_spot = 0;  // below 1024: of the frame; else bytes from its begin
  enum class Hold : std::uint8_t { kNone, kShort, kUntilClose, kForever };
  Hold hold = Hold::kNone;  // then it says nothing
  unsigned hold_for = 0;    // milliseconds
  bool by_reset = false;    // kLost, kClientLost: RST, not FIN
  Fault fault = Fault::kReservedOpcode;
  int kick_code = 1012;
  bool calm = false;

  [[nodiscard]] bool stalls() const { return voices[kClient].stalls || voices[kBackend].stalls; }
  [[nodiscard]] const char* path() const;
  [[nodiscard]] std::string kick_reason() const { return "kick " + std::to_string(uid); }
  // One line for whoever has to find out what happened.
  [[nodiscard]] std::string Text() const;
};

// How often each cause is drawn.
using Weights = std::array<unsigned, static_cast<std::size_t>(Cause::kCount)>;

// `calm`: both ends talk on, read, and answer at once.
Plan MakePlan(std::uint64_t seed, std::uint32_t uid, const Weights& weights, bool tls, bool calm);

}  // namespace sluice::storm
