// What the deploy client was told on its command line.
#pragma once

#include <optional>
#include <string>

#include "tests/deploy/event_loop.h"
#include "tests/deploy/numbered.h"

namespace sluice::deploy {

// How long a client waits until it connects again.
struct Policy {
  // kJitter: at once when it was open; otherwise base to cap, behind what Retry-After asks for.
  enum class Kind { kImmediate, kFixed, kExponential, kJitter };
  Kind kind = Kind::kImmediate;
  Nanoseconds base = 100 * kMillisecond;
  Nanoseconds cap = 30 * kSecond;  // kExponential, kJitter: of what the random delay is drawn from
};

struct Options {
  sockaddr_in address{};
  bool tls = false;
  std::string path = "/s";
  std::string report;  // file for a line for each incarnation; empty: none
  std::size_t sessions = 100;
  std::uint32_t first_uid = 1;
  double rate = 0;                 // messages a second of each session
  double ramp = 1000;              // sessions that begin in a second
  double connects_per_second = 0;  // set: short sessions at this rate instead
  Policy policy;
  std::optional<double> seconds;  // none: until SIGTERM
  std::size_t size = kNumberedSize;
  Nanoseconds connect_timeout = 10 * kSecond;
  Nanoseconds close_timeout = 10 * kSecond;
};

// Ends the program with one sentence when the command line means nothing.
Options ParseOptions(int argc, char** argv);

}  // namespace sluice::deploy
