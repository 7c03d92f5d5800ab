// Which backends may get something new, as the control thread decides it: by checks of its own, and
// by what the workers' sessions see.
//
//   up --fall failed checks--> down --rise good checks--> up, slowly
//   up --failures in a row-->  ejected --its time--> up, slowly
//
// The two know nothing of each other: a backend that is ejected goes on being checked, and one that
// is down is not ejected, since it gets nothing anyway. An ejection never leaves a pool without a
// backend: it is refused then, and taken back when the last other one goes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/balance/backend_set.h"
#include "proxy/base/random.h"
#include "proxy/config/config.h"
#include "proxy/drain/drain_plan.h"
#include "proxy/health/checker.h"
#include "proxy/health/ejection.h"
#include "proxy/metrics/blocks.h"
#include "proxy/net/event.h"
#include "proxy/net/loop.h"
#include "proxy/server/backend_drain.h"
#include "proxy/server/backend_drains.h"
#include "proxy/server/backend_tls.h"
#include "proxy/session/snapshot.h"

namespace sluice::server {

class BackendHealth {
 public:
  // What is told of one backend.
  struct Report {
    std::string_view state = "up";  // static: "up", "down" or "ejected"
    std::string last_error;         // of the last check that failed, or of the ejection; or empty
    double since = 0;               // Unix time of the last change of `state`
    std::uint64_t checks_ok = 0;
    std::uint64_t checks_failed = 0;
    std::uint64_t ejections = 0;
  };

  // `drains` and `tls` outlive this.
  BackendHealth(net::Loop& loop, BackendDrains& drains, BackendTls& tls);
  ~BackendHealth();

  BackendHealth(const BackendHealth&) = delete;
  BackendHealth& operator=(const BackendHealth&) = delete;

  // Goes by this configuration from now on. A backend that stays keeps what is known of it; where
  // there are no checks any more it is up, where they have changed they begin anew with the verdict
  // that holds. `drain`: how the sessions of a backend that is down are drained, if they are.
  void Apply(const session::Snapshot& snapshot, const drain::DrainOptions& drain);

  // Gives up the checks that are under way and begins the next ones at once; verdicts stay.
  void RestartChecks();
  // Ends the checks of what `pool` has now and not in `backends`.
  void EndChecksBut(std::string_view pool, const std::vector<config::Backend>& backends);

  // No checks any more: the process drains. Verdicts stay.
  void StopChecks();

  // Sessions have seen too much go wrong in a row at one backend, at last `why`.
  void OnFailing(const balance::BackendState& state, metrics::BackendFailure why);

  // Takes the ejections in this pool back if nobody takes sessions there any more.
  void RelieveIfEmpty(std::string_view pool);

  // True while the backend drains because its checks have found it down, and for nothing else.
  [[nodiscard]] bool IsDraining(const balance::BackendState& state) const;

  // REQUIRES: the backend is in the configuration that was applied last.
  [[nodiscard]] Report ReportOf(const balance::BackendState& state) const;

 private:
  class Entry;

  [[nodiscard]] Entry* Find(const balance::BackendState& state) const;
  void GoDown(Entry& entry, const std::string& error);
  void GoUp(Entry& entry);
  [[nodiscard]] bool HasInService(std::string_view pool) const;
  void Return(Entry& entry);

  net::Loop& loop_;
  BackendDrains& drains_;
  BackendTls& tls_;
  Random random_;
  drain::DrainOptions drain_options_;
  std::vector<std::unique_ptr<Entry>> entries_;
  bool stopped_ = false;
};

}  // namespace sluice::server
