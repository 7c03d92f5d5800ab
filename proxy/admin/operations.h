// What the admin interface can ask of the process, as plain values: the server implements it, the
// API maps requests onto it, a test fakes it. Knows neither HTTP nor JSON, except that a Problem
// carries the status of the answer.
//
// Every call is made in the control thread's loop. What the workers have to be asked for comes
// later, through a callback that runs in the same loop, once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "proxy/base/clock.h"

namespace sluice::admin {

// Why something was refused; becomes the answer's problem document (RFC 9457).
struct Problem {
  int status = 400;                   // 400 to 599
  std::string title = {};             // empty: the reason phrase of `status`
  std::string detail = {};            // one sentence with a capital and a full stop
  std::vector<std::string> mistakes;  // one sentence each; may be empty
};

template <class T>
using Outcome = tl::expected<T, Problem>;

// The drain of one backend.
struct DrainProgress {
  std::string_view state = "draining";  // static: "draining", "drained" or "cancelled"
  std::size_t total = 0;                // sessions open when it began
  std::size_t remaining = 0;            // not closed yet
  std::size_t clean = 0;                // closed with CLOSE frames
  std::size_t forced = 0;               // cut
  double elapsed_seconds = 0;           // since it began, until it ended
  double window_seconds = 0;            // over which the closes are spread
  double rate_per_second = 0;           // closes, of late
  double eta_seconds = -1;              // until the last close; below 0: unknown
};

// Whether a backend may get something new, as far as its health goes.
struct HealthInfo {
  std::string_view state = "up";  // static: "up", "down" (by its checks), "ejected" (by what
                                  // sessions saw)
  std::string last_error;         // of the last check that failed, or of the ejection; or empty
  double since = 0;               // Unix time of the last change of `state`
};

struct BackendInfo {
  std::string pool;
  std::string name;
  std::string address;
  double weight = 1;
  bool healthy = true;
  HealthInfo health;
  bool draining = false;               // takes nothing new
  std::int64_t open = 0;               // sessions and requests under way
  std::optional<DrainProgress> drain;  // the one that runs or the last one; none: there was none
};

struct DrainOrder {
  std::optional<Millis> window;  // none: the configured one
  std::optional<double> rate;    // at most so many closes a second; none: the configured cap
  bool force = false;            // also the last healthy backend of its pool
};

// Which sessions are meant; what is empty matches any.
struct SessionFilter {
  std::optional<std::uint64_t> id;
  std::string pool;
  std::string backend;
  std::string route;
  std::string client_ip;
  std::string affinity;     // the affinity key, as the client sent it
  std::size_t limit = 100;  // of a list; closing ignores it
};

struct SessionInfo {
  std::uint64_t id = 0;
  std::string client;     // "10.0.0.7:51234"
  std::string client_ip;  // after trusted proxies
  std::string proxy;      // who has told `client` by a PROXY header, as that; empty: nobody
  std::string listener;
  std::string route;
  std::string pool;
  std::string backend;
  double age_seconds = 0;      // since the 101
  std::uint64_t bytes_in = 0;  // from the client
  std::uint64_t bytes_out = 0;
  std::uint64_t messages_in = 0;
  std::uint64_t messages_out = 0;
  std::string state;  // "open" or "closing"
};

struct SessionList {
  std::vector<SessionInfo> sessions;  // at most SessionFilter::limit
  std::size_t matching = 0;           // all that match, also beyond the limit
};

struct KickOrder {
  SessionFilter filter;
  std::uint16_t code = 0;  // of the CLOSE; 0: the route's
  std::string reason;      // empty: the configured one
};

struct ReadinessInfo {
  bool ready = true;
  std::string_view word = "ready";  // static: "ready" or "draining"
};

struct ReloadReport {
  std::vector<std::string> warnings;  // one sentence each
};

struct StatusInfo {
  std::string version;
  std::int64_t pid = 0;
  double uptime_seconds = 0;
  std::size_t workers = 0;
  std::size_t connections = 0;
  std::size_t max_connections = 0;
  std::size_t sessions = 0;  // relayed now
  bool draining = false;     // the process
  std::size_t drain_remaining = 0;
  std::optional<std::int64_t> taken_over_from;  // pid of the process that handed its sockets over
  double config_loaded_at = 0;                  // Unix time
};

class Operations {
 public:
  virtual ~Operations() = default;

  [[nodiscard]] virtual std::string MetricsText() = 0;
  [[nodiscard]] virtual ReadinessInfo Readiness() = 0;
  // The effective configuration as a JSON object, without secrets.
  [[nodiscard]] virtual std::string ConfigJson() = 0;
  [[nodiscard]] virtual StatusInfo Status() = 0;

  // In the order of the configuration.
  [[nodiscard]] virtual std::vector<BackendInfo> Backends() = 0;
  // 404: there is no such backend; 409: it is the last healthy one of its pool and not forced.
  [[nodiscard]] virtual Outcome<BackendInfo> StartDrain(std::string_view pool,
                                                        std::string_view backend,
                                                        const DrainOrder& order) = 0;
  // Lets the backend take new sessions again and stops a drain that runs: what it has not closed
  // yet stays. 404 as above.
  [[nodiscard]] virtual Outcome<BackendInfo> Undrain(std::string_view pool,
                                                     std::string_view backend) = 0;

  virtual void Sessions(const SessionFilter& filter, std::function<void(SessionList)> done) = 0;
  // Closes what matches with CLOSE frames; `done` gets how many sessions that is.
  virtual void Kick(const KickOrder& order, std::function<void(std::size_t kicked)> done) = 0;

  // 422 with all mistakes: nothing has changed.
  [[nodiscard]] virtual Outcome<ReloadReport> Reload() = 0;
  // As SIGTERM does.
  virtual void StartProcessDrain() = 0;
};

}  // namespace sluice::admin
