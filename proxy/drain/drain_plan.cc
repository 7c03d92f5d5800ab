#include "proxy/drain/drain_plan.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cmath>

namespace sluice::drain {
namespace {

using Span = Instant::duration;

// `part` of `whole`, for a part in [0, 1]. A double counts the nanoseconds of 100 days exactly.
[[nodiscard]] Span Fraction(Span whole, double part) noexcept {
  return Span(static_cast<Span::rep>(static_cast<double>(whole.count()) * part));
}

// The part of the window in which the closes a second rise from none to their full number. A tenth
// costs the rest 1 / 0.95 of the even rate.
constexpr double kRamp = 0.1;
constexpr double kFullRate = 1.0 / (1.0 - kRamp / 2);  // of the mean over the window

// How far into the window the given share of all closes is reached, both in [0, 1]: the inverse of
// kFullRate * x^2 / (2 * kRamp) up to the end of the ramp, and of kFullRate * (x - kRamp / 2)
// after.
[[nodiscard]] double PartAt(double share) noexcept {
  constexpr double kShareOfRamp = kFullRate * kRamp / 2;
  return share < kShareOfRamp ? std::sqrt(share * 2 * kRamp / kFullRate)
                              : share / kFullRate + kRamp / 2;
}

}  // namespace

void DrainPlan::Start(Instant now) noexcept {
  if (begun_) {
    return;
  }
  begun_ = true;
  closing_at_ = now + options_.ready_delay;
  window_from_ = closing_at_;
  next_slot_ = closing_at_;
  kill_at_ = closing_at_ + options_.window + options_.grace;
}

void DrainPlan::Hurry(Instant now, Millis limit) noexcept {
  const Stage stage = StageAt(now);
  if (stage == Stage::kKilling) {
    return;
  }
  kill_at_ = stage == Stage::kServing ? now + limit : std::min(kill_at_, now + limit);
  if (stage != Stage::kClosing) {
    closing_at_ = now;
  }
  if (!hurried_) {  // the first hurry has set a time for everyone already
    window_from_ = now;
  }
  begun_ = true;
  hurried_ = true;
}

Stage DrainPlan::StageAt(Instant now) const noexcept {
  if (!begun_) {
    return Stage::kServing;
  }
  if (now < closing_at_) {
    return Stage::kRefusing;
  }
  return now < kill_at_ ? Stage::kClosing : Stage::kKilling;
}

Instant DrainPlan::NextChange(Instant now) const noexcept {
  switch (StageAt(now)) {
    case Stage::kRefusing:
      return closing_at_;
    case Stage::kClosing:
      return kill_at_;
    case Stage::kServing:
    case Stage::kKilling:
      break;
  }
  return Instant::max();
}

Instant DrainPlan::CloseAt(std::size_t index, std::size_t count, Random& random) noexcept {
  assert(begun_ && index < count);
  if (hurried_) {
    return std::min(window_from_, kill_at_);
  }
  const double share = (static_cast<double>(index) + random.Unit()) / static_cast<double>(count);
  return TakeSlot(window_from_ + Fraction(options_.window, PartAt(share)));
}

Instant DrainPlan::LateCloseAt(Instant now, Random& random) noexcept {
  assert(begun_);
  if (hurried_) {
    return std::min(now, kill_at_);
  }
  const Instant from = std::max(now, window_from_);  // a loop's idea of now may lag behind
  const Span left = std::max(window_from_ + options_.window - from, Span(0));
  return TakeSlot(from + Fraction(left, random.Unit()));
}

Instant DrainPlan::TakeSlot(Instant at) noexcept {
  if (options_.rate > 0) {
    at = std::min(std::max(at, next_slot_), kill_at_);
    // A spacing beyond the end of it all is as good as the end, and cannot overflow.
    const double spacing_ns = 1e9 / options_.rate;
    const Span left = kill_at_ - at;
    next_slot_ = spacing_ns < static_cast<double>(left.count())
                     ? at + std::chrono::nanoseconds(static_cast<std::int64_t>(spacing_ns) + 1)
                     : kill_at_;
  }
  return std::min(at, kill_at_);
}

Instant DrainPlan::kill_at() const noexcept {
  assert(begun_);
  return kill_at_;
}

}  // namespace sluice::drain
