// The drains of single backends, as the control thread sees them: begins them, watches them, tells
// of them in the log, and knows how far each has come. The workers close the sessions; see
// Worker::StartBackendDrain.
//
//   begun --all sessions gone, or the deadline and they were cut--> drained
//      \--Stop--> cancelled: what is not closed yet stays
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/balance/backend_set.h"
#include "proxy/drain/drain_plan.h"
#include "proxy/net/event.h"
#include "proxy/net/loop.h"
#include "proxy/server/backend_drain.h"
#include "proxy/server/worker.h"

namespace sluice::server {

class BackendDrains {
 public:
  enum class State : std::uint8_t { kDraining, kDrained, kCancelled };

  struct Progress {
    State state = State::kDraining;
    std::size_t total = 0;
    std::size_t remaining = 0;
    std::size_t clean = 0;
    std::size_t forced = 0;
    double elapsed_seconds = 0;
    double window_seconds = 0;
    double rate_per_second = 0;  // closes, over the last seconds
    double eta_seconds = -1;     // below 0: unknown
  };

  // Told when the drain of a backend that has left the configuration is over, and no other of that
  // name runs.
  using Gone = std::function<void(const std::string& pool, const std::string& backend)>;

  // `workers` outlive this.
  BackendDrains(net::Loop& loop, const std::vector<std::unique_ptr<Worker>>& workers, Gone gone)
      : loop_(loop), workers_(workers), gone_(std::move(gone)) {}

  // The backend gets nothing new from now on, and its sessions are closed as `options` say, of
  // which `rate` is for the whole process and
  // `ready_delay` has no meaning. A drain of it that runs is replaced: its window begins
  // anew. `removed`: the backend has left the configuration, and nobody will ask for it again.
  std::shared_ptr<const BackendDrain> Start(const std::string& pool, const std::string& backend,
                                            std::shared_ptr<balance::BackendState> state,
                                            const drain::DrainOptions& options, bool removed);

  // The backend takes new sessions again, from a slow start on. True: it was draining.
  bool Stop(const std::shared_ptr<balance::BackendState>& state);
  // True while this very drain, running or over, is what keeps the backend from getting anything
  // new: nobody has stopped or replaced it.
  [[nodiscard]] bool IsCurrent(const std::shared_ptr<const BackendDrain>& drain) const;

  // Of the drain that runs, or of the last one; nothing when there was none.
  [[nodiscard]] std::optional<Progress> ProgressOf(const balance::BackendState& state) const;

  // Held by sessions to backends that have left the configuration and still drain.
  [[nodiscard]] std::int64_t legs_to_removed() const noexcept;

  // Drains that run.
  [[nodiscard]] std::size_t running() const noexcept;

 private:
  struct Sample {
    Instant at;
    std::size_t ended;
  };

  struct Entry {
    std::shared_ptr<BackendDrain> drain;
    State state = State::kDraining;
    bool removed = false;
    Instant began{};
    Instant ended{};
    Instant window_ends{};
    Instant logged{};
    std::vector<Sample> samples;  // of the last seconds, oldest first
  };

  [[nodiscard]] Progress Describe(const Entry& entry) const;
  // Each worker has counted what it has there.
  [[nodiscard]] bool HaveAllBegun(const BackendDrain& drain) const noexcept;
  [[nodiscard]] bool IsOver(const Entry& entry, Instant now) const noexcept;
  [[nodiscard]] static bool AwaitsPoll(const Entry& entry, Instant now) noexcept;
  void Watch(Entry& entry, Instant now);
  void DropRemoved();
  void OnTimer(short what) noexcept;

  net::Loop& loop_;
  const std::vector<std::unique_ptr<Worker>>& workers_;
  Gone gone_;
  std::vector<Entry> entries_;
  net::Timer timer_;
};

[[nodiscard]] std::string_view Name(BackendDrains::State state) noexcept;

}  // namespace sluice::server
