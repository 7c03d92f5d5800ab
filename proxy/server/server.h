// The process: binds every listener, runs the workers, answers the admin listener, handles
// signals, reloads, drains. Everything in here belongs to the control thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "proxy/admin/admin_server.h"
#include "proxy/admin/operations.h"
#include "proxy/base/result.h"
#include "proxy/config/config.h"
#include "proxy/config/load.h"
#include "proxy/log/access_log.h"
#include "proxy/log/log.h"
#include "proxy/metrics/exporter.h"
#include "proxy/net/event.h"
#include "proxy/net/loop.h"
#include "proxy/server/backend_drains.h"
#include "proxy/server/backend_health.h"
#include "proxy/server/backend_tls.h"
#include "proxy/server/discoverer.h"
#include "proxy/server/listener_set.h"
#include "proxy/server/worker.h"
#include "proxy/server/worker_libraries.h"
#include "proxy/systemd/activation.h"
#include "proxy/takeover/giver.h"
#include "proxy/takeover/taker.h"
#include "proxy/tls/ticket_keys.h"

namespace sluice::server {

inline constexpr std::string_view kVersion = SLUICE_VERSION;

// How the process was started, as far as it has to know it later.
struct Launch {
  // Loads and checks the configuration once more, certificates included. Null: there is nothing to
  // load, and a reload is refused.
  std::function<config::LoadResult()> load;
  // What a successor is started with on SIGUSR2: the program and its arguments, the first of which
  // is its name. Empty: there is none.
  std::string executable;
  std::vector<std::string> arguments;
  // To the process that has started this one as its successor, if one has.
  std::optional<takeover::Taker> predecessor;
  // What a service manager has opened for this process; one named "admin" is for that.
  std::vector<systemd::ActivatedSocket> activated;
};

class Server final : private admin::Operations, private takeover::GiverSink {
 public:
  // Loads certificates, resolves backends and binds every address: all or nothing. The error is
  // one sentence; EBUSY in it says that another process is in the way of a takeover, and that the
  // configuration is not to blame.
  [[nodiscard]] static Result<std::unique_ptr<Server>> Make(const config::Config& config,
                                                            Launch launch);
  ~Server() override;

  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Serves until SIGTERM or SIGINT has drained it, or a successor has taken over and what was open
  // is closed. Once. An error when the process that was to be taken over goes on instead.
  [[nodiscard]] Result<void> Run();

  [[nodiscard]] std::vector<Bound> listeners() const { return listeners_.bound(); }
  // The admin listener's address; family AF_UNSPEC when it is off.
  [[nodiscard]] const net::Address& admin_address() const noexcept { return admin_address_; }

 private:
  Server(const config::Config& config, Launch launch, std::size_t workers);

  [[nodiscard]] Result<void> Prepare();
  void AwaitDiscovery();
  [[nodiscard]] Result<void> BindAdmin();
  [[nodiscard]] Result<std::shared_ptr<const tls::ServerContext>> LoadAdminTls(
      const config::Admin& admin) const;
  [[nodiscard]] std::size_t MostConnections(const config::Config& config) const;
  [[nodiscard]] LocalPtr<const session::View> MakeView(
      std::size_t worker, const std::shared_ptr<const session::Snapshot>& of);
  [[nodiscard]] metrics::ProcessStatus ProcessStatus() const;
  [[nodiscard]] drain::DrainOptions DrainOptionsOf(const config::Drain& drain) const;

  [[nodiscard]] Result<void> OpenSignals();
  void OnSignal(short what) noexcept;
  void OnStopSignal() noexcept;
  void OnTicketTimer(short what) noexcept;
  void OnWatchdogTimer(short what) noexcept;
  // `whole`: of the whole process.
  void DrainWorkers(const drain::DrainOptions& whole, Worker::Leave leave) noexcept;
  void Announce();
  void WriteReadyFile() const;

  // Reload, in reload.cc.
  struct Reloaded {
    std::vector<std::string> mistakes;  // none: done
    std::vector<std::string> warnings;
  };
  Reloaded ReloadConfig();
  [[nodiscard]] Result<void> Swap(const config::Config& config);
  void Replace(const config::Config& config, std::shared_ptr<const session::Snapshot> snapshot);
  void OnDiscovered(const std::string& pool, const std::vector<config::Backend>& backends);
  void OnBackendGone(const std::string& pool, const std::string& backend);
  // Puts back what a process cannot change while it runs, with a warning for each that differs.
  void KeepWhatStays(config::Config& config, std::vector<std::string>& warnings) const;
  void DrainRemoved(const session::Snapshot& before, const session::Snapshot& after);

  // Takeover, in handover.cc.
  [[nodiscard]] Result<std::vector<PassedSocket>> TakeOffer();
  [[nodiscard]] Result<void> ServeTakeover();
  [[nodiscard]] Result<void> FinishTakeover();
  void OnTakeoverSignal() noexcept;
  void OnChildSignal() noexcept;
  void OnChildTimer(short what) noexcept;
  void OwnTakeoverSocket();
  void OnPredecessor(short what) noexcept;
  [[nodiscard]] std::optional<std::string> ReasonAgainstTakeover() const;
  // takeover::GiverSink
  [[nodiscard]] std::optional<std::string> MayTake(pid_t pid,
                                                   const std::string& version) noexcept override;
  [[nodiscard]] Result<takeover::Offer> MakeOffer() noexcept override;
  void OnReady(pid_t successor) noexcept override;
  void OnFailed(pid_t successor, const std::string& why) noexcept override;
  void OnRefused(uid_t uid, pid_t pid, const std::string& why) noexcept override;

  // admin::Operations, in operations.cc.
  [[nodiscard]] std::string MetricsText() override;
  [[nodiscard]] admin::ReadinessInfo Readiness() override;
  [[nodiscard]] std::string ConfigJson() override;
  [[nodiscard]] admin::StatusInfo Status() override;
  [[nodiscard]] std::vector<admin::BackendInfo> Backends() override;
  [[nodiscard]] admin::Outcome<admin::BackendInfo> StartDrain(
      std::string_view pool, std::string_view backend, const admin::DrainOrder& order) override;
  [[nodiscard]] admin::Outcome<admin::BackendInfo> Undrain(std::string_view pool,
                                                           std::string_view backend) override;
  void Sessions(const admin::SessionFilter& filter,
                std::function<void(admin::SessionList)> done) override;
  void Kick(const admin::KickOrder& order, std::function<void(std::size_t)> done) override;
  [[nodiscard]] admin::Outcome<admin::ReloadReport> Reload() override;
  void StartProcessDrain() override;

  [[nodiscard]] admin::BackendInfo Describe(const session::Pool& pool, std::size_t index) const;
  // Visits the sessions of all workers; `done` runs here when all have been.
  void VisitSessions(const std::function<void(std::size_t worker, session::Session&)>& visit,
                     const std::function<void()>& done);

  config::Config config_;  // as it is in effect
  Launch launch_;
  net::Loop loop_;
  tls::TicketKeys ticket_keys_;
  metrics::Exporter exporter_;
  log::AccessLog access_log_;
  Shared shared_;
  std::shared_ptr<const session::Snapshot> snapshot_;
  WorkerLibraries libraries_;
  BackendTls backend_tls_;
  ListenerSet listeners_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::thread> threads_;
  BackendDrains drains_;
  BackendHealth health_;
  Discoverer discoverer_;
  net::Address admin_address_;
  UniqueFd admin_socket_;
  std::shared_ptr<const tls::ServerContext> admin_tls_;  // null: plain
  std::unique_ptr<admin::AdminServer> admin_;
  UniqueFd signals_;  // signalfd(2)
  net::Event signal_event_;
  net::Timer child_timer_;
  net::Timer ticket_timer_;
  net::Timer watchdog_timer_;
  Millis watchdog_period_{0};
  std::size_t fds_ = 0;      // that the process may open
  std::size_t running_ = 0;  // workers that have not ended yet
  Instant began_{};
  Instant drain_began_{};
  double loaded_at_ = 0;  // Unix time
  std::uint64_t reloads_ok_ = 0;
  std::uint64_t reloads_failed_ = 0;
  bool last_reload_ok_ = true;
  bool draining_ = false;

  // Takeover. The giver is the last member that uses the loop: it goes first.
  UniqueFd predecessor_;  // open until the process before this one has ended
  net::Event predecessor_event_;
  pid_t predecessor_pid_ = 0;  // 0: there was none
  unsigned generation_ = 1;
  UniqueFd passed_takeover_;   // the takeover socket of the predecessor, until it is used
  std::string passed_path_;    // and its path
  pid_t child_ = 0;            // that this process has started as its successor
  pid_t successor_pid_ = 0;    // that has taken over; 0: none
  bool told_to_stop_ = false;  // after that
  std::uint64_t takeovers_done_ = 0;
  std::uint64_t takeovers_failed_ = 0;
  std::uint64_t takeovers_refused_ = 0;
  std::unique_ptr<takeover::Giver> giver_;
};

// The level of the configuration as proxy/log takes it.
[[nodiscard]] log::Level LevelOf(config::LogLevel level);

// Seconds since 1970.
[[nodiscard]] double UnixNow();

// Raises the soft limit of open files to the hard one and returns it.
std::size_t RaiseFileLimit();

}  // namespace sluice::server
