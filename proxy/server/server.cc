#include "proxy/server/server.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <utility>

#include <openssl/crypto.h>

#include "proxy/admin/api.h"
#include "proxy/http/parser.h"
#include "proxy/log/log.h"
#include "proxy/net/pipe.h"
#include "proxy/net/socket.h"
#include "proxy/systemd/notifier.h"
#include "proxy/ws/frame_tracker.h"
#include "proxy/ws/upgrade.h"

namespace sluice::server {
namespace {

// Ticket keys live a day and a half: 12 hours sealing, 24 more only opening.
constexpr Millis kTicketLife = std::chrono::hours(12);

// After a second signal: time enough for CLOSE frames to go out and be answered.
constexpr Millis kHurry{2'000};

// Of the start, for the backends that are discovered.
constexpr Millis kFirstDiscovery{2'000};

constexpr std::array kSignals{SIGTERM, SIGINT, SIGHUP, SIGUSR2, SIGCHLD};

// Descriptors that are not connections: log, admin clients, what libraries open.
constexpr std::size_t kReservedFds = 64;

// And of each worker, besides a socket for every listener: its loop, and the pipes of large frames.
constexpr std::size_t kWorkerFds = 2 + net::PipePool::kMostDescriptors;

std::size_t CoresAvailable() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) {
    return 1;
  }
  return std::max<std::size_t>(1, static_cast<std::size_t>(CPU_COUNT(&set)));
}

log::AccessFormat FormatOf(config::AccessFormat format) {
  switch (format) {
    case config::AccessFormat::kJson:
      return log::AccessFormat::kJson;
    case config::AccessFormat::kText:
      return log::AccessFormat::kText;
    case config::AccessFormat::kOff:
      return log::AccessFormat::kOff;
  }
  return log::AccessFormat::kJson;
}

metrics::BuildInfo Build() {
  return {std::string(kVersion), SLUICE_REVISION, OpenSSL_version(OPENSSL_VERSION_STRING),
          event_get_version()};
}

}  // namespace

log::Level LevelOf(config::LogLevel level) {
  switch (level) {
    case config::LogLevel::kDebug:
      return log::Level::kDebug;
    case config::LogLevel::kInfo:
      return log::Level::kInfo;
    case config::LogLevel::kWarn:
      return log::Level::kWarn;
    case config::LogLevel::kError:
      return log::Level::kError;
  }
  return log::Level::kInfo;
}

double UnixNow() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::size_t RaiseFileLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return 1024;
  }
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<std::size_t>(limit.rlim_cur);
}

Server::Server(const config::Config& config, Launch launch, std::size_t workers)
    : config_(config),
      launch_(std::move(launch)),
      exporter_(workers, Build()),
      access_log_(FormatOf(config.log.access), config.log.queue, config.log.query),
      libraries_(workers),
      backend_tls_(libraries_),
      listeners_(libraries_, exporter_, ticket_keys_),
      drains_(loop_, workers_,
              [this](const std::string& pool, const std::string& backend) {
                OnBackendGone(pool, backend);
              }),
      health_(loop_, drains_, backend_tls_),
      discoverer_(loop_,
                  [this](const std::string& pool, const std::vector<config::Backend>& backends) {
                    OnDiscovered(pool, backends);
                  }),
      began_(Now()) {
  workers_.reserve(workers);
}

Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::Make(const config::Config& config, Launch launch) {
  const std::size_t workers = config.server.workers > 0 ? config.server.workers : CoresAvailable();
  // make_unique cannot reach the private constructor.
  std::unique_ptr<Server> server(new Server(config, std::move(launch), workers));
  if (auto prepared = server->Prepare(); !prepared) {
    return tl::unexpected(prepared.error());
  }
  return server;
}

Result<void> Server::Prepare() {
  AwaitDiscovery();
  auto snapshot = session::Snapshot::Make(config_);
  if (!snapshot) {
    return tl::unexpected(snapshot.error());
  }
  snapshot_ = std::move(*snapshot);
  auto backend_tls = backend_tls_.Prepare(config_);
  if (!backend_tls) {
    return tl::unexpected(backend_tls.error());
  }
  backend_tls_.Commit(std::move(*backend_tls));
  loaded_at_ = UnixNow();
  fds_ = RaiseFileLimit();
  shared_.max_connections = MostConnections(config_);
  std::random_device entropy;
  shared_.ping_secret = std::uint64_t{entropy()} << 32U | entropy();
  shared_.on_failing = [this](const std::shared_ptr<balance::BackendState>& backend,
                              metrics::BackendFailure why) {
    loop_.Post([this, backend, why] { health_.OnFailing(*backend, why); });
  };

  for (std::size_t i = 0; i < workers_.capacity(); ++i) {
    metrics::WorkerBlock& block = exporter_.Worker(i);
    block.http_parse_errors.Register(http::FaultLabels());
    block.protocol_errors[Index(Side::kClient)].Register(ws::FaultReasons());
    block.protocol_errors[Index(Side::kBackend)].Register(ws::FaultReasons());
    workers_.push_back(
        std::make_unique<Worker>(i, shared_, access_log_, block, MakeView(i, snapshot_)));
  }
  auto passed = TakeOffer();
  if (!passed) {
    return tl::unexpected(passed.error());
  }
  auto change = listeners_.Prepare(config_, std::move(*passed));
  if (!change) {
    return tl::unexpected(change.error());
  }
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    for (WorkerListener& listener : change->by_worker[i]) {
      workers_[i]->Listen(std::move(listener));
    }
  }
  listeners_.Commit(*change);
  if (!config_.admin.enabled) {
    admin_socket_.Reset();  // a predecessor may have had one
  } else if (auto bound = BindAdmin(); !bound) {
    return bound;
  }
  return ServeTakeover();
}

// Gives discovery a moment, so that a start does not answer 503 while the first lookup is under
// way. Nobody waits for this process yet: it has no listener, and a predecessor goes on.
void Server::AwaitDiscovery() {
  discoverer_.Follow(config_);
  loop_.RunUntil([this] { return discoverer_.settled(); }, kFirstDiscovery);
  discoverer_.FillIn(config_, config_);
  for (const config::Pool& pool : config_.pools) {
    if (pool.backends.empty()) {
      spdlog::warn("no backend is known yet, so requests are answered 503 pool={}", pool.name);
    }
  }
}

// A session takes two descriptors: its client and its backend leg.
std::size_t Server::MostConnections(const config::Config& config) const {
  if (config.limits.max_connections > 0) {
    return config.limits.max_connections;
  }
  // Of every listening socket there are two: the worker's, and the one kept for a successor.
  const std::size_t reserved =
      kReservedFds + workers_.capacity() * (kWorkerFds + 2 * config.listeners.size());
  return fds_ > reserved * 2 ? (fds_ - reserved) / 2 : fds_ / 4;
}

Result<void> Server::BindAdmin() {
  auto address = net::Address::FromNumeric(config_.admin.host, config_.admin.port);
  if (!address) {
    return tl::unexpected(address.error());
  }
  // The predecessor's, if it is the same.
  const net::Address passed =
      admin_socket_.valid() ? net::Address::OfSocket(admin_socket_.get()) : net::Address();
  const bool same =
      config_.admin.port == 0 ? passed.Ip() == address->Ip() : passed.Text() == address->Text();
  if (!admin_socket_.valid() || !same) {
    if (auto free = net::CheckFree(*address); !free) {
      return tl::unexpected(Error{"admin: " + free.error().message, free.error().sys_errno});
    }
    auto fd = net::Listen(*address);
    if (!fd) {
      return tl::unexpected(fd.error());
    }
    admin_socket_ = std::move(*fd);
  }
  admin_address_ = net::Address::OfSocket(admin_socket_.get());
  auto tls = LoadAdminTls(config_.admin);
  if (!tls) {
    return tl::unexpected(tls.error());
  }
  admin_tls_ = std::move(*tls);
  return {};
}

// Null where the admin interface is plain.
Result<std::shared_ptr<const tls::ServerContext>> Server::LoadAdminTls(
    const config::Admin& admin) const {
  if (!admin.enabled || !admin.is_tls()) {
    return std::shared_ptr<const tls::ServerContext>();
  }
  auto made = tls::ServerContext::Make(TlsOptions(admin), ticket_keys_);
  if (!made) {
    return tl::unexpected(made.error());
  }
  return std::shared_ptr<const tls::ServerContext>(std::move(*made));
}

LocalPtr<const session::View> Server::MakeView(std::size_t worker,
                                               const std::shared_ptr<const session::Snapshot>& of) {
  auto view = std::make_unique<session::View>();
  view->snapshot = of;
  view->tls = backend_tls_.Of(worker);
  for (const session::Route& route : of->routes) {
    session::View::RouteSeries series;
    series.block = &exporter_.Route(worker, route.config.name);
    for (const config::Backend& backend : of->pools[route.pool]->config.backends) {
      series.sessions_open.push_back(
          &exporter_.SessionsOpen(worker, route.config.name, route.config.pool, backend.name));
    }
    view->routes.push_back(std::move(series));
  }
  for (const auto& pool : of->pools) {
    std::vector<metrics::BackendBlock*> blocks;
    for (const config::Backend& backend : pool->config.backends) {
      blocks.push_back(&exporter_.Backend(worker, pool->config.name, backend.name));
      view->kept.push_back(exporter_.KeepBackend(pool->config.name, backend.name));
    }
    view->backends.push_back(std::move(blocks));
  }
  return LocalPtr<const session::View>(view.release());
}

// From here on signals are read by the control thread's loop. They stay blocked, in the threads
// that start from here on too: no handler runs anywhere, so none can come at a wrong moment. One
// that the starter has told to be ignored, as nohup and shells without job control do, would never
// come, and an ended child would leave no status.
Result<void> Server::OpenSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : kSignals) {
    sigaddset(&signals, signal);
  }
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  for (const int signal : kSignals) {
    std::signal(signal, SIG_DFL);
  }
  signals_ = UniqueFd(::signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!signals_.valid()) {
    return SysErr("cannot receive signals", errno);
  }
  signal_event_.Add<&Server::OnSignal>(loop_.base(), signals_.get(), EV_READ | EV_PERSIST, this);
  return {};
}

Result<void> Server::Run() {
  if (auto opened = OpenSignals(); !opened) {
    return opened;
  }
  running_ = workers_.size();
  for (const auto& worker : workers_) {
    threads_.emplace_back([this, one = worker.get()] {
      one->Run();
      loop_.Post([this] {
        if (--running_ == 0) {
          loop_.Stop();
        }
      });
    });
  }
  ticket_timer_.Arm<&Server::OnTicketTimer>(loop_.base(), kTicketLife, this);
  // Before anything else is told: whoever waits for this process may rely on the old one's end.
  Result<void> taken = FinishTakeover();
  if (!taken) {
    spdlog::error("takeover failed: {}", taken.error().message);
    DrainWorkers({}, Worker::Leave::kHandOver);
    for (const auto& worker : workers_) {
      worker->Hurry(kHurry);
    }
    admin_socket_.Reset();
  } else {
    Announce();
  }

  loop_.Run();
  for (std::thread& thread : threads_) {
    thread.join();
  }
  spdlog::info("stopped");
  return taken;
}

// Everything serves: opens the admin interface and tells whoever waits for it.
void Server::Announce() {
  if (admin_socket_.valid()) {
    admin_ = std::make_unique<admin::AdminServer>(loop_, std::move(admin_socket_),
                                                  admin::AdminAccess{config_.admin.token},
                                                  admin_tls_, admin::Api(*this));
    spdlog::info("admin address={}", admin_address_.Text());
  }
  health_.Apply(*snapshot_, DrainOptionsOf(config_.drain));
  spdlog::info("serving version={} workers={} max_connections={}", kVersion, workers_.size(),
               shared_.max_connections.load());
  WriteReadyFile();
  systemd::NotifyReady("serving");
  if (const auto period = systemd::WatchdogPeriod()) {
    watchdog_period_ = *period;
    OnWatchdogTimer(0);
  }
}

// Signals.

void Server::OnSignal(short) noexcept {
  signalfd_siginfo signal{};
  while (::read(signals_.get(), &signal, sizeof(signal)) == sizeof(signal)) {
    switch (signal.ssi_signo) {
      case SIGHUP:
        ReloadConfig();
        break;
      case SIGUSR2:
        OnTakeoverSignal();
        break;
      case SIGCHLD:
        OnChildSignal();
        break;
      default:
        OnStopSignal();
        break;
    }
  }
}

void Server::OnStopSignal() noexcept {
  if (!draining_) {
    StartProcessDrain();
    return;
  }
  if (successor_pid_ != 0 && !told_to_stop_) {
    told_to_stop_ = true;  // it ends anyway, in its time
    spdlog::info("draining already since the takeover connections={}",
                 shared_.connections.load(std::memory_order_relaxed));
    return;
  }
  spdlog::info("second signal: closing at once limit_ms={}", kHurry.count());
  for (const auto& worker : workers_) {
    worker->Hurry(kHurry);
  }
}

void Server::OnTicketTimer(short) noexcept {
  if (auto rotated = ticket_keys_.Rotate(); !rotated) {
    spdlog::warn("session ticket keys were not rotated: {}", rotated.error().message);
  }
  ticket_timer_.Arm<&Server::OnTicketTimer>(loop_.base(), kTicketLife, this);
}

void Server::OnWatchdogTimer(short) noexcept {
  systemd::NotifyWatchdog();
  watchdog_timer_.Arm<&Server::OnWatchdogTimer>(loop_.base(), watchdog_period_, this);
}

// Drain.

drain::DrainOptions Server::DrainOptionsOf(const config::Drain& drain) const {
  return {drain.ready_delay, drain.window, drain.grace, drain.rate};
}

void Server::DrainWorkers(const drain::DrainOptions& whole, Worker::Leave leave) noexcept {
  draining_ = true;
  drain_began_ = Now();
  health_.StopChecks();
  discoverer_.Stop();
  // The workers' are the last descriptors from now on, so that their closing is final.
  listeners_.LetGo();
  drain::DrainOptions options = whole;
  // The cap is for the whole process; sessions are spread evenly enough over the workers.
  options.rate = whole.rate / static_cast<double>(workers_.size());
  for (const auto& worker : workers_) {
    worker->StartDrain(options, leave);
  }
}

metrics::ProcessStatus Server::ProcessStatus() const {
  metrics::ProcessStatus status;
  status.draining = draining_;
  if (status.draining) {
    status.drain_seconds = std::chrono::duration<double>(Now() - drain_began_).count();
  }
  status.backend_drains = drains_.running();
  status.legs_to_removed = drains_.legs_to_removed();
  status.generation = generation_;
  status.takeovers_done = takeovers_done_;
  status.takeovers_failed = takeovers_failed_;
  status.takeovers_refused = takeovers_refused_;
  status.config_ok = last_reload_ok_;
  status.config_loaded_at = loaded_at_;
  status.reloads_ok = reloads_ok_;
  status.reloads_failed = reloads_failed_;
  status.log_dropped = access_log_.dropped();
  status.max_connections = shared_.max_connections;
  status.certificates = listeners_.certificates();
  status.discoveries = discoverer_.statuses();
  for (const session::Route& route : snapshot_->routes) {
    if (route.learned) {
      status.learned.push_back({route.config.name, route.learned->Count(Now())});
    }
  }
  for (const auto& pool : snapshot_->pools) {
    for (const balance::Backend& backend : pool->backends.backends()) {
      const BackendHealth::Report health = health_.ReportOf(*backend.state);
      const bool ejected = backend.state->ejected.load(std::memory_order_relaxed);
      status.backends.push_back({pool->config.name, backend.name,
                                 backend.state->healthy.load(std::memory_order_relaxed) && !ejected,
                                 backend.state->draining.load(std::memory_order_relaxed),
                                 backend.state->open.load(std::memory_order_relaxed),
                                 backend.weight, pool->config.tls.has_value(), ejected,
                                 health.checks_ok, health.checks_failed, health.ejections});
    }
  }
  return status;
}

// For supervisors and tests: where everything listens, once it does. Written beside and renamed,
// so that a reader never sees half of it.
void Server::WriteReadyFile() const {
  const char* path = std::getenv("SLUICE_READY_FILE");
  if (path == nullptr || *path == '\0') {
    return;
  }
  std::string text = "{\"pid\":" + std::to_string(::getpid());
  if (admin_address_.family() != AF_UNSPEC) {
    text += ",\"admin\":\"" + admin_address_.Text() + "\"";
  }
  text += ",\"listeners\":[";
  for (const Bound& bound : listeners_.bound()) {
    if (text.back() != '[') {
      text += ',';
    }
    text += "{\"name\":\"";
    log::AppendJsonEscaped(text, bound.name);
    text += "\",\"address\":\"" + bound.address.Text() + "\",\"tls\":";
    text += bound.tls ? "true}" : "false}";
  }
  text += "]}\n";
  const std::string beside = std::string(path) + ".new";
  std::ofstream out(beside);
  out << text;
  out.close();
  if (!out || std::rename(beside.c_str(), path) != 0) {
    spdlog::warn("cannot write the ready file path={}", path);
  }
}

}  // namespace sluice::server
