// Decides what becomes of a request from its head alone: route, upgrade checks, origin, drain,
// affinity. Answers nothing and counts nothing; Session does.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "proxy/http/head.h"
#include "proxy/metrics/blocks.h"
#include "proxy/session/services.h"
#include "proxy/ws/upgrade.h"

namespace sluice::session {

struct Refusal {
  int status = 400;
  std::string_view text;   // static: one sentence for the body
  std::string_view extra;  // whole field lines, or empty; outlives this
  std::string_view label;  // static: for the log
  // Set when it was an upgrade on a known route.
  std::optional<metrics::UpgradeOutcome> outcome;
  unsigned retry_after = 0;  // seconds for a Retry-After, drawn from there on; 0: none
};

struct Admission {
  std::optional<std::size_t> route;
  std::optional<Refusal> refusal;  // set: the request goes no further
  bool upgrade = false;
  ws::UpgradeOffer offer;       // for an upgrade
  std::uint64_t key_hash = 0;   // of the affinity key
  std::string_view key_source;  // static: "cookie", "header", "query", "path", "ip" or "learned"
  bool sticky = false;          // the key is a cookie of ours: load does not move the client
  bool last = false;            // no further request is taken on the connection
  bool issue_cookie = false;    // the route's affinity cookie is to be set with the answer
  // The backend that a learned token belongs to, into the pool's backends: it is asked first, and
  // by the key when it may not be taken.
  std::optional<std::size_t> learned;
  std::uint64_t token = 0;  // its hash, where one is remembered
  // While that backend drains it is asked until this part of the window is over.
  double drain_part = 0;
  bool left = false;   // the token's backend is none of the pool; it may be one of a former view
  bool ended = false;  // the session that the token names is over: nobody is asked
  bool may_teach = false;  // the answer may hand out a token
};

// The first part of what Admit does: whether the method is served, and by which route.
[[nodiscard]] Admission FindRoute(const http::RequestHead& head, const Snapshot& snapshot);

// `client_ip` is where the request comes from.
[[nodiscard]] Admission Admit(const http::RequestHead& head, const Snapshot& snapshot,
                              Intake intake, std::string_view client_ip, Instant now);

// Chooses by what the request is to stay on one backend: the affinity key, or a token that was
// learned. The last part of what Admit does; may be done anew when fields have come to the head.
// REQUIRES: `admission` has a route of `snapshot` and no refusal.
void ChooseKey(const http::RequestHead& head, const Snapshot& snapshot, std::string_view client_ip,
               Instant now, Admission& admission);

// A whole Retry-After field of `least` to `least` + 4 seconds, drawn: clients that were refused
// together do not come back together.
[[nodiscard]] std::string RetryAfter(Random& random, unsigned least = 1);

// The same for one whose place in a queue comes in `wait`: drawn around that, at most 30 seconds.
// One behind the end of the queue (balance::ComebackQueue::kLongest) comes at any time until then.
[[nodiscard]] std::string RetryAfter(Random& random, std::chrono::nanoseconds wait);

}  // namespace sluice::session
