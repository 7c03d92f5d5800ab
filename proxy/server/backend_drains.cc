#include "proxy/server/backend_drains.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "proxy/log/log.h"

namespace sluice::server {
namespace {

// Fast enough that somebody who waits for the end does not notice.
constexpr Millis kWatch{100};

constexpr Millis kLogEvery{5'000};

// The rate is that of the closes in this span.
constexpr Millis kRateSpan{3'000};

// After the deadline the workers cut what is left; a turn or two later nothing is.
constexpr Millis kAfterDeadline{2'000};

// The client of a session that was answered asks again within this time.
constexpr Millis kNextPoll{1'000};

double Seconds(Instant::duration span) {
  return std::chrono::duration<double>(span).count();
}

std::size_t Ended(const BackendDrain& drain) {
  return drain.clean.load(std::memory_order_relaxed) + drain.forced.load(std::memory_order_relaxed);
}

}  // namespace

std::string_view Name(BackendDrains::State state) noexcept {
  switch (state) {
    case BackendDrains::State::kDraining:
      return "draining";
    case BackendDrains::State::kDrained:
      return "drained";
    case BackendDrains::State::kCancelled:
      return "cancelled";
  }
  return "draining";
}

std::shared_ptr<const BackendDrain> BackendDrains::Start(
    const std::string& pool, const std::string& backend,
    std::shared_ptr<balance::BackendState> state, const drain::DrainOptions& options,
    bool removed) {
  // Before the workers hear of it: from then on none of them begins anything there.
  const Instant now = Now();
  state->BeginDrain(now, options.window);
  auto drain = std::make_shared<BackendDrain>();
  drain->pool = pool;
  drain->backend = backend;
  drain->state = std::move(state);
  drain->options = options;
  drain->options.ready_delay = Millis(0);  // nobody has to be told to go elsewhere first
  drain->options.rate = options.rate / static_cast<double>(workers_.size());
  entries_.erase(std::remove_if(entries_.begin(), entries_.end(),
                                [&](const Entry& one) { return one.drain->state == drain->state; }),
                 entries_.end());
  Entry entry;
  entry.drain = drain;
  entry.removed = removed;
  entry.began = now;
  entry.logged = entry.began;
  entry.window_ends = entry.began + options.window;
  entries_.push_back(std::move(entry));
  spdlog::info("draining backend pool={} backend={} open={} window_ms={} rate={} removed={}", pool,
               backend, drain->state->open.load(std::memory_order_relaxed), options.window.count(),
               options.rate, removed);
  for (const auto& worker : workers_) {
    worker->StartBackendDrain(drain);
  }
  timer_.Arm<&BackendDrains::OnTimer>(loop_.base(), kWatch, this);
  return drain;
}

bool BackendDrains::Stop(const std::shared_ptr<balance::BackendState>& state) {
  if (!state->draining.exchange(false, std::memory_order_relaxed)) {
    return false;
  }
  state->BeginRamp(Now());
  for (Entry& entry : entries_) {
    if (entry.drain->state == state) {
      if (entry.state == State::kDraining) {
        entry.state = State::kCancelled;
        entry.ended = Now();
        for (const auto& worker : workers_) {
          worker->StopBackendDrain(entry.drain);
        }
      }
      spdlog::info("backend takes sessions again pool={} backend={} drain={} remaining={}",
                   entry.drain->pool, entry.drain->backend, Name(entry.state),
                   entry.drain->remaining());
    }
  }
  return true;
}

bool BackendDrains::IsCurrent(const std::shared_ptr<const BackendDrain>& drain) const {
  return drain->state->draining.load(std::memory_order_relaxed) &&
         std::any_of(entries_.begin(), entries_.end(), [&](const Entry& one) {
           return one.drain == drain && one.state != State::kCancelled;
         });
}

std::optional<BackendDrains::Progress> BackendDrains::ProgressOf(
    const balance::BackendState& state) const {
  for (const Entry& entry : entries_) {
    if (entry.drain->state.get() == &state) {
      return Describe(entry);
    }
  }
  return std::nullopt;
}

std::int64_t BackendDrains::legs_to_removed() const noexcept {
  std::int64_t legs = 0;
  for (const Entry& entry : entries_) {
    legs += entry.removed ? entry.drain->state->open.load(std::memory_order_relaxed) : 0;
  }
  return legs;
}

std::size_t BackendDrains::running() const noexcept {
  return static_cast<std::size_t>(
      std::count_if(entries_.begin(), entries_.end(),
                    [](const Entry& one) { return one.state == State::kDraining; }));
}

BackendDrains::Progress BackendDrains::Describe(const Entry& entry) const {
  const BackendDrain& drain = *entry.drain;
  const Instant now = entry.state == State::kDraining ? Now() : entry.ended;
  Progress progress;
  progress.state = entry.state;
  progress.remaining = drain.remaining();
  progress.clean = drain.clean.load(std::memory_order_relaxed);
  progress.forced = drain.forced.load(std::memory_order_relaxed);
  progress.total = drain.total.load(std::memory_order_relaxed);
  if (!HaveAllBegun(drain)) {
    // They have not counted theirs. Whoever waits for 0 must not be told so too early.
    const auto open = static_cast<std::size_t>(
        std::max<std::int64_t>(0, drain.state->open.load(std::memory_order_relaxed)));
    progress.remaining = std::max(progress.remaining, open);
    progress.total = std::max(progress.total, progress.remaining + Ended(drain));
  }
  progress.elapsed_seconds = Seconds(now - entry.began);
  progress.window_seconds = std::chrono::duration<double>(drain.options.window).count();
  if (!entry.samples.empty()) {
    const Sample& oldest = entry.samples.front();
    const double span = Seconds(now - oldest.at);
    const std::size_t ended = Ended(drain);
    progress.rate_per_second =
        span > 0 && ended > oldest.ended ? static_cast<double>(ended - oldest.ended) / span : 0;
  }
  if (entry.state == State::kDrained) {
    progress.eta_seconds = 0;
  } else if (entry.state == State::kDraining) {
    // The closes fill the window; where the cap holds them up, it tells how long they take.
    const double window_left = std::max(0.0, Seconds(entry.window_ends - now));
    const double cap = drain.options.rate * static_cast<double>(workers_.size());
    const double capped = cap > 0 ? static_cast<double>(progress.remaining) / cap : 0;
    progress.eta_seconds = std::max(window_left, capped);
  }
  return progress;
}

bool BackendDrains::HaveAllBegun(const BackendDrain& drain) const noexcept {
  return drain.workers_begun.load(std::memory_order_acquire) >= workers_.size();
}

bool BackendDrains::IsOver(const Entry& entry, Instant now) const noexcept {
  const BackendDrain& drain = *entry.drain;
  if (!HaveAllBegun(drain)) {
    return false;
  }
  // Requests that do not last are waited for too: they hold a leg.
  const bool empty =
      drain.remaining() == 0 && drain.state->open.load(std::memory_order_relaxed) <= 0;
  return (empty && !AwaitsPoll(entry, now)) ||
         now > entry.window_ends + drain.options.grace + kAfterDeadline;
}

// Between two polls of a session nothing is open.
bool BackendDrains::AwaitsPoll(const Entry& entry, Instant now) noexcept {
  const std::int64_t answered = entry.drain->state->answered_at.load(std::memory_order_relaxed);
  return now < entry.window_ends && answered >= balance::NanosOf(entry.began) &&
         balance::NanosOf(now) - answered < std::chrono::nanoseconds(kNextPoll).count();
}

void BackendDrains::Watch(Entry& entry, Instant now) {
  const BackendDrain& drain = *entry.drain;
  entry.samples.push_back({now, Ended(drain)});
  while (now - entry.samples.front().at > kRateSpan) {
    entry.samples.erase(entry.samples.begin());
  }
  if (IsOver(entry, now)) {
    entry.state = State::kDrained;
    entry.ended = now;
    drain.state->EndDrain(now);  // nobody is sent there any more
    for (const auto& worker : workers_) {
      worker->StopBackendDrain(entry.drain);
    }
    spdlog::info("drained backend pool={} backend={} sessions={} clean={} forced={} seconds={:.1f}",
                 drain.pool, drain.backend, drain.total.load(std::memory_order_relaxed),
                 drain.clean.load(std::memory_order_relaxed),
                 drain.forced.load(std::memory_order_relaxed), Seconds(now - entry.began));
  } else if (now - entry.logged >= kLogEvery) {
    entry.logged = now;
    const Progress progress = Describe(entry);
    spdlog::info(
        "draining backend pool={} backend={} remaining={} of={} rate={:.0f} eta_seconds={:.0f}",
        drain.pool, drain.backend, progress.remaining, progress.total, progress.rate_per_second,
        progress.eta_seconds);
  }
}

// Nobody can ask for a backend that is gone.
void BackendDrains::DropRemoved() {
  const auto over = std::stable_partition(entries_.begin(), entries_.end(), [](const Entry& one) {
    return !one.removed || one.state == State::kDraining;
  });
  const std::vector<Entry> dropped(std::make_move_iterator(over),
                                   std::make_move_iterator(entries_.end()));
  entries_.erase(over, entries_.end());
  for (const Entry& one : dropped) {
    const bool others = std::any_of(entries_.begin(), entries_.end(), [&](const Entry& other) {
      return other.removed && other.drain->pool == one.drain->pool &&
             other.drain->backend == one.drain->backend;
    });
    if (!others) {
      gone_(one.drain->pool, one.drain->backend);
    }
  }
}

void BackendDrains::OnTimer(short) noexcept {
  const Instant now = Now();
  for (Entry& entry : entries_) {
    if (entry.state == State::kDraining) {
      Watch(entry, now);
    }
  }
  DropRemoved();
  if (running() > 0) {
    timer_.Arm<&BackendDrains::OnTimer>(loop_.base(), kWatch, this);
  } else {
    timer_.Cancel();
  }
}

}  // namespace sluice::server
