// Decides when each session of a draining process is closed. Pure state machine over instants;
// one plan per worker, driven by its Worker.
//
//   Serving --Start--> Refusing --ready_delay--> Closing --window + grace--> Killing
//      (a second signal moves Serving and Refusing to Closing at once, and ends the window there
//      and in Closing; nothing leads back, and nothing prolongs)
//
//   Serving   everything as always
//   Refusing  readiness fails, listeners still accept, new upgrades are refused
//   Closing   listeners are closed, each session has its own deadline in the window
//   Killing   what is left is cut
#pragma once

#include <cstddef>
#include <cstdint>

#include "proxy/base/clock.h"
#include "proxy/base/random.h"

namespace sluice::drain {

enum class Stage : std::uint8_t { kServing, kRefusing, kClosing, kKilling };

struct DrainOptions {
  Millis ready_delay{0};  // how long listeners go on accepting after readiness failed
  Millis window{30'000};  // closes are spread over this span: gently at first, then evenly
  Millis grace{10'000};   // after the window, for the last handshakes
  double rate = 0;        // closes started per second by this worker; 0: no cap
};

class DrainPlan {
 public:
  explicit DrainPlan(const DrainOptions& options) noexcept : options_(options) {}

  // Begins to drain. Does nothing when it has begun already.
  void Start(Instant now) noexcept;

  // A second signal: closing starts now, all at once and without the rate cap, and is over after
  // `limit` or when it would have been over anyway, if that is sooner. The caller asks CloseAt
  // again for what it has left. Does nothing in kKilling.
  void Hurry(Instant now, Millis limit) noexcept;

  [[nodiscard]] Stage StageAt(Instant now) const noexcept;

  // When the stage changes next; Instant::max() in kServing and kKilling.
  [[nodiscard]] Instant NextChange(Instant now) const noexcept;

  // The instant at which one session is to be closed. In the first tenth of the window the closes
  // a second rise from none to their full number, and stay there to its end: those who come back
  // meet a fleet that can see them coming. `index` of `count` sessions gets the index-th slice of
  // equal share and is jittered inside it, without the clumps of independent draws. Later when the
  // rate cap has no earlier slot left, but never after kill_at().
  // Call once per session when Closing begins, by rising index: the rate cap deals its slots in
  // the order of the calls.
  // REQUIRES: Start or Hurry was called; index < count.
  [[nodiscard]] Instant CloseAt(std::size_t index, std::size_t count, Random& random) noexcept;

  // The same for a session that turns up during Closing: a random instant in what is left of the
  // window, `now` when nothing is left or a second signal came. Later when the rate cap has dealt
  // its slots to others, but never after kill_at(), which may have passed.
  // REQUIRES: Start or Hurry was called.
  [[nodiscard]] Instant LateCloseAt(Instant now, Random& random) noexcept;

  // When what is left is cut. REQUIRES: Start or Hurry was called.
  [[nodiscard]] Instant kill_at() const noexcept;

 private:
  // `at`, or the next slot of the rate cap when that is later; kill_at_ at the latest.
  [[nodiscard]] Instant TakeSlot(Instant at) noexcept;

  DrainOptions options_;
  bool begun_ = false;
  bool hurried_ = false;
  Instant closing_at_;   // from here on kClosing
  Instant window_from_;  // where the slices of CloseAt begin: closing_at_, or when Hurry came
  Instant kill_at_;      // from here on kKilling
  Instant next_slot_;    // the earliest close that the rate cap still allows
};

}  // namespace sluice::drain
