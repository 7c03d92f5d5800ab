// What a check of a backend is, as plain values, and what comes of one.
#pragma once

#include <cstdint>
#include <string>

#include "proxy/base/clock.h"

namespace sluice::health {

enum class CheckType : std::uint8_t {
  kTcp,        // the connection is made
  kHttp,       // GET is answered with a status in the range
  kWebSocket,  // the upgrade is answered with a 101 that holds, and a CLOSE in order
};

struct Check {
  CheckType type = CheckType::kWebSocket;
  std::string path = "/";
  std::string preamble;         // before the request: a PROXY header, or nothing
  bool tls = false;             // kHttp, kWebSocket: over TLS, after the preamble
  std::string host;             // of the Host field
  unsigned least_status = 200;  // kHttp: statuses that are good
  unsigned most_status = 399;   // kHttp
  bool ping = false;            // kWebSocket: a ping has to be answered before the CLOSE
  Millis interval{5'000};       // from the start of one to the start of the next, +-10 %
  Millis timeout{2'000};        // of one, from the connect to its end
  unsigned rise = 2;            // successes in a row after which a backend is up
  unsigned fall = 3;            // failures in a row after which it is down

  bool operator==(const Check&) const = default;
};

struct CheckResult {
  bool passed = false;
  std::string error = {};  // half a sentence when it has not passed: "connect: Connection refused"
  bool counts = true;      // false: it could not be made for want of something of our own
};

}  // namespace sluice::health
