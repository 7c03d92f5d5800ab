// Owns every counter block and writes the Prometheus text. The only folder that includes
// <prometheus/...>. Blocks are handed out before the workers run (or, later, on a reload, from the
// control thread); Text() runs on the control thread while workers count on. So the tables of
// blocks have one user and need no lock; what is shared with workers are the blocks' atomics alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/metrics/blocks.h"

namespace sluice::metrics {

struct BuildInfo {
  std::string version;
  std::string revision;
  std::string openssl;
  std::string libevent;
};

// State that is read at scrape time rather than counted.
struct BackendStatus {
  std::string pool;
  std::string backend;
  bool up = true;
  bool draining = false;
  std::int64_t open = 0;  // legs held by all workers
  double weight = 1;
  bool tls = false;
  bool ejected = false;
  std::uint64_t checks_ok = 0;
  std::uint64_t checks_failed = 0;
  std::uint64_t ejections = 0;
};

struct ProcessStatus {
  bool draining = false;             // drain_active{what="process"}
  std::size_t backend_drains = 0;    // drain_active{what="backend"}
  std::int64_t legs_to_removed = 0;  // open to backends that are in no pool any more
  double drain_seconds = 0;          // since the drain began; 0 when not draining
  bool config_ok = true;             // config_last_reload_successful
  double config_loaded_at = 0;       // Unix time
  std::uint64_t reloads_ok = 0;      // reloads since start, the first load not counted
  std::uint64_t reloads_failed = 0;
  unsigned generation = 1;  // how many processes took over before this one, and one
  std::uint64_t takeovers_done = 0;
  std::uint64_t takeovers_failed = 0;
  std::uint64_t takeovers_refused = 0;
  std::uint64_t log_dropped = 0;  // access-log records dropped since start
  std::size_t max_connections = 0;
  std::vector<BackendStatus> backends;
  // TLS certificates: expiry as Unix time.
  struct Certificate {
    std::string listener;
    std::string name;
    double not_after = 0;
  };
  std::vector<Certificate> certificates;
  // Pools whose backends are discovered.
  struct Discovery {
    std::string pool;
    std::size_t backends = 0;  // of the list in use
    bool up = false;           // the last attempt succeeded
    double last_success = 0;   // Unix time; 0: never
    std::uint64_t changed = 0;
    std::uint64_t unchanged = 0;
    std::uint64_t failed = 0;
  };
  std::vector<Discovery> discoveries;
  // Routes that learn tokens.
  struct Learned {
    std::string route;
    std::size_t entries = 0;
  };
  std::vector<Learned> learned;
};

class Exporter {
 public:
  // `workers` is how many worker numbers there are: 0 .. workers - 1.
  Exporter(std::size_t workers, BuildInfo build);
  ~Exporter();

  Exporter(const Exporter&) = delete;
  Exporter& operator=(const Exporter&) = delete;

  // The block of `worker` for that label set; made at the first call, the same one ever after.
  // Its address holds until the Exporter goes; that of a backend, and of a gauge of SessionsOpen,
  // for as long as somebody has its KeepBackend or it is not forgotten. Control thread only.
  // REQUIRES: worker < workers.
  [[nodiscard]] RouteBlock& Route(std::size_t worker, std::string_view route);
  [[nodiscard]] BackendBlock& Backend(std::size_t worker, std::string_view pool,
                                      std::string_view backend);
  // Keeps the blocks and gauges of a backend; let go of in any thread.
  [[nodiscard]] std::shared_ptr<const void> KeepBackend(std::string_view pool,
                                                        std::string_view backend);
  // Drops the series of a backend that is gone for good, so that they do not pile up where backends
  // come and go: what is still counted there is not told any more. Counters of its pool keep what
  // it has added. Asked for again, it begins at 0.
  void ForgetBackend(std::string_view pool, std::string_view backend);
  [[nodiscard]] ListenerBlock& Listener(std::size_t worker, std::string_view listener, bool tls,
                                        bool proxy_protocol = false);
  [[nodiscard]] WorkerBlock& Worker(std::size_t worker);

  // sessions_open{route,pool,backend} is a gauge over pairs; one per worker and pair.
  [[nodiscard]] Gauge& SessionsOpen(std::size_t worker, std::string_view route,
                                    std::string_view pool, std::string_view backend);

  // WebSocket sessions relayed now, all workers.
  [[nodiscard]] std::size_t OpenSessions() const;

  // Prometheus text format 0.0.4 of all blocks and of `status`.
  [[nodiscard]] std::string Text(const ProcessStatus& status) const;

  // What Text() is served with.
  static constexpr std::string_view kContentType = "text/plain; version=0.0.4; charset=utf-8";

 private:
  struct Shards;

  BuildInfo build_;
  std::unique_ptr<Shards> shards_;
};

}  // namespace sluice::metrics
