#include "proxy/server/server.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <utility>

#include <openssl/crypto.h>

#include "proxy/admin/api.h"
#include "proxy/http/parser.h"
#include "proxy/log/log.h"
#include "proxy/net/pipe.h"
#include "proxy/net/socket.h"
#include "proxy/ws/frame_tracker.h"
#include "proxy/ws/upgrade.h"

namespace sluice::server {
namespace {

// Ticket keys live a day and a half: 12 hours sealing, 24 more only opening.
constexpr Millis kTicketLife = std::chrono::hours(12);

// After a second signal: time enough for CLOSE frames to go out and be answered.
constexpr Millis kHurry{2'000};

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

double UnixNow() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

metrics::BuildInfo Build() {
  return {std::string(kVersion), SLUICE_REVISION, OpenSSL_version(OPENSSL_VERSION_STRING),
          event_get_version()};
}

tls::ServerOptions TlsOptions(const config::ListenerTls& tls, const std::string& realm) {
  tls::ServerOptions options;
  for (const config::Certificate& pair : tls.certificates) {
    options.certificates.push_back({pair.chain, pair.key});
  }
  options.tls13_only = tls.min_version == config::TlsVersion::k13;
  options.client_ca = tls.client_ca;
  options.realm = realm;
  return options;
}

}  // namespace

tls::ServerOptions TlsOptions(const config::Listener& listener) {
  return TlsOptions(listener.tls, listener.name);
}

tls::ServerOptions TlsOptions(const config::Admin& admin) {
  return TlsOptions(admin.tls, "admin interface");  // no listener has a space in its name
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

Server::Server(const config::Config& config, std::size_t workers)
    : config_(config),
      exporter_(workers, Build()),
      access_log_(FormatOf(config.log.access), config.log.queue, config.log.query) {}

Result<std::unique_ptr<Server>> Server::Make(const config::Config& config) {
  const std::size_t workers = config.server.workers > 0 ? config.server.workers : CoresAvailable();
  // make_unique cannot reach the private constructor.
  std::unique_ptr<Server> server(new Server(config, workers));
  if (auto prepared = server->Prepare(workers); !prepared) {
    return tl::unexpected(prepared.error());
  }
  return server;
}

Result<void> Server::Prepare(std::size_t workers) {
  auto snapshot = session::Snapshot::Make(config_);
  if (!snapshot) {
    return tl::unexpected(snapshot.error());
  }
  snapshot_ = std::move(*snapshot);
  loaded_at_ = UnixNow();

  const std::size_t fds = RaiseFileLimit();
  // A session takes two descriptors: its client and its backend leg.
  const std::size_t reserved = kReservedFds + workers * (kWorkerFds + config_.listeners.size());
  const std::size_t possible = fds > reserved * 2 ? (fds - reserved) / 2 : fds / 4;
  shared_.max_connections =
      config_.limits.max_connections > 0 ? config_.limits.max_connections : possible;

  for (std::size_t i = 0; i < workers; ++i) {
    metrics::WorkerBlock& block = exporter_.Worker(i);
    block.http_parse_errors.Register(http::FaultLabels());
    block.protocol_errors[Index(Side::kClient)].Register(ws::FaultReasons());
    block.protocol_errors[Index(Side::kBackend)].Register(ws::FaultReasons());
    workers_.push_back(std::make_unique<Worker>(i, shared_, access_log_, block, MakeView(i)));
  }
  for (std::size_t i = 0; i < config_.listeners.size(); ++i) {
    if (auto bound = BindListener(i); !bound) {
      return bound;
    }
  }
  return config_.admin.enabled ? BindAdmin() : Result<void>();
}

Result<void> Server::BindListener(std::size_t index) {
  const config::Listener& listener = config_.listeners[index];
  auto address = net::Address::FromNumeric(listener.host, listener.port);
  if (!address) {
    return tl::unexpected(address.error());
  }
  if (auto free = net::CheckFree(*address); !free) {
    return free;
  }
  for (const auto& worker : workers_) {
    std::unique_ptr<tls::ServerContext> tls;
    if (listener.is_tls()) {
      auto made = tls::ServerContext::Make(TlsOptions(listener), ticket_keys_);
      if (!made) {
        return tl::unexpected(made.error());
      }
      tls = std::move(*made);
      if (worker == workers_.front()) {
        for (const tls::CertificateInfo& info : tls->certificates()) {
          certificates_.push_back({listener.name, info.name, static_cast<double>(info.not_after)});
        }
      }
    }
    auto fd = net::Listen(*address);
    if (!fd) {
      return tl::unexpected(fd.error());
    }
    // Port 0: the first worker's socket gets a port, the others join it.
    address->set_port(net::Address::OfSocket(fd->get()).port());
    worker->AddListener(std::move(*fd), index, std::move(tls));
  }
  bound_.push_back({listener.name, *address, listener.is_tls()});
  return {};
}

Result<void> Server::BindAdmin() {
  auto address = net::Address::FromNumeric(config_.admin.host, config_.admin.port);
  if (!address) {
    return tl::unexpected(address.error());
  }
  if (auto free = net::CheckFree(*address); !free) {
    return tl::unexpected(Error{"admin: " + free.error().message, free.error().sys_errno});
  }
  auto fd = net::Listen(*address);
  if (!fd) {
    return tl::unexpected(fd.error());
  }
  if (config_.admin.is_tls()) {
    auto made = tls::ServerContext::Make(TlsOptions(config_.admin), ticket_keys_);
    if (!made) {
      return tl::unexpected(made.error());
    }
    admin_tls_ = std::move(*made);
  }
  admin_address_ = net::Address::OfSocket(fd->get());
  admin_socket_ = std::move(*fd);
  return {};
}

LocalPtr<const session::View> Server::MakeView(std::size_t worker) {
  auto view = std::make_unique<session::View>();
  view->snapshot = snapshot_;
  for (const session::Route& route : snapshot_->routes) {
    session::View::RouteSeries series;
    series.block = &exporter_.Route(worker, route.config.name);
    for (const config::Backend& backend : snapshot_->pools[route.pool]->config.backends) {
      series.sessions_open.push_back(
          &exporter_.SessionsOpen(worker, route.config.name, route.config.pool, backend.name));
    }
    view->routes.push_back(std::move(series));
  }
  for (const auto& pool : snapshot_->pools) {
    std::vector<metrics::BackendBlock*> blocks;
    for (const config::Backend& backend : pool->config.backends) {
      blocks.push_back(&exporter_.Backend(worker, pool->config.name, backend.name));
    }
    view->backends.push_back(std::move(blocks));
  }
  for (const config::Listener& listener : config_.listeners) {
    view->listeners.push_back(&exporter_.Listener(worker, listener.name, listener.is_tls()));
  }
  return LocalPtr<const session::View>(view.release());
}

// What the admin interface can ask of this process.
class Server::AdminOperations final : public admin::Operations {
 public:
  explicit AdminOperations(Server& server) : server_(server) {}

  std::string MetricsText() override { return server_.exporter_.Text(server_.Status()); }

  admin::ReadinessInfo Readiness() override {
    return server_.stop_signals_ > 0 ? admin::ReadinessInfo{false, "draining"}
                                     : admin::ReadinessInfo{};
  }

  std::string ConfigJson() override { return "{}\n"; }

  admin::StatusInfo Status() override {
    admin::StatusInfo status;
    status.version = kVersion;
    status.pid = ::getpid();
    status.workers = server_.workers_.size();
    status.connections = server_.shared_.connections.load(std::memory_order_relaxed);
    status.max_connections = server_.shared_.max_connections;
    status.draining = server_.stop_signals_ > 0;
    status.config_loaded_at = server_.loaded_at_;
    return status;
  }

  std::vector<admin::BackendInfo> Backends() override { return {}; }

  admin::Outcome<admin::BackendInfo> StartDrain(std::string_view, std::string_view,
                                                const admin::DrainOrder&) override {
    return Unavailable();
  }

  admin::Outcome<admin::BackendInfo> Undrain(std::string_view, std::string_view) override {
    return Unavailable();
  }

  void Sessions(const admin::SessionFilter&,
                std::function<void(admin::SessionList)> done) override {
    done({});
  }

  void Kick(const admin::KickOrder&, std::function<void(std::size_t)> done) override { done(0); }

  admin::Outcome<admin::ReloadReport> Reload() override { return Unavailable(); }

  void StartProcessDrain() override {
    if (++server_.stop_signals_ == 1) {
      server_.StartDrain();
    }
  }

 private:
  static tl::unexpected<admin::Problem> Unavailable() {
    admin::Problem problem;
    problem.status = 501;
    problem.detail = "This version cannot do that.";
    return tl::unexpected<admin::Problem>(std::move(problem));
  }

  Server& server_;
};

Server::~Server() = default;

void Server::Run() {
  // Signals are the control thread's: the workers start with them blocked.
  sigset_t blocked;
  sigset_t before;
  sigemptyset(&blocked);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    sigaddset(&blocked, signal);
  }
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  term_event_.Add<&Server::OnStopSignal>(loop_.base(), SIGTERM, EV_SIGNAL | EV_PERSIST, this);
  int_event_.Add<&Server::OnStopSignal>(loop_.base(), SIGINT, EV_SIGNAL | EV_PERSIST, this);
  hup_event_.Add<&Server::OnReloadSignal>(loop_.base(), SIGHUP, EV_SIGNAL | EV_PERSIST, this);
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
  pthread_sigmask(SIG_SETMASK, &before, nullptr);

  ticket_timer_.Arm<&Server::OnTicketTimer>(loop_.base(), kTicketLife, this);
  if (admin_socket_.valid()) {
    operations_ = std::make_unique<AdminOperations>(*this);
    admin_ = std::make_unique<admin::AdminServer>(loop_, std::move(admin_socket_),
                                                  admin::AdminAccess{config_.admin.token},
                                                  admin_tls_, admin::Api(*operations_));
  }
  for (const Bound& bound : bound_) {
    spdlog::info("listening name={} address={} tls={}", bound.name, bound.address.Text(),
                 bound.tls);
  }
  if (admin_) {
    spdlog::info("admin address={}", admin_address_.Text());
  }
  spdlog::info("serving version={} workers={} max_connections={}", kVersion, workers_.size(),
               shared_.max_connections);
  WriteReadyFile();

  loop_.Run();
  for (std::thread& thread : threads_) {
    thread.join();
  }
  spdlog::info("stopped");
}

void Server::OnStopSignal(short) noexcept {
  if (++stop_signals_ == 1) {
    StartDrain();
    return;
  }
  spdlog::info("second signal: closing at once limit_ms={}", kHurry.count());
  for (const auto& worker : workers_) {
    worker->Hurry(kHurry);
  }
}

void Server::StartDrain() noexcept {
  drain_began_ = Now();
  spdlog::info("draining connections={} window_ms={}",
               shared_.connections.load(std::memory_order_relaxed), config_.drain.window.count());
  drain::DrainOptions options;
  options.ready_delay = config_.drain.ready_delay;
  options.window = config_.drain.window;
  options.grace = config_.drain.grace;
  // The cap is for the whole process; sessions are spread evenly enough over the workers.
  options.rate = config_.drain.rate / static_cast<double>(workers_.size());
  for (const auto& worker : workers_) {
    worker->StartDrain(options);
  }
}

void Server::OnReloadSignal(short) noexcept {
  spdlog::warn("SIGHUP: reloading is not available in this version, nothing has changed");
}

void Server::OnTicketTimer(short) noexcept {
  if (auto rotated = ticket_keys_.Rotate(); !rotated) {
    spdlog::warn("session ticket keys were not rotated: {}", rotated.error().message);
  }
  ticket_timer_.Arm<&Server::OnTicketTimer>(loop_.base(), kTicketLife, this);
}

// Admin.

metrics::ProcessStatus Server::Status() const {
  metrics::ProcessStatus status;
  status.draining = stop_signals_ > 0;
  if (status.draining) {
    status.drain_seconds = std::chrono::duration<double>(Now() - drain_began_).count();
  }
  status.config_loaded_at = loaded_at_;
  status.log_dropped = access_log_.dropped();
  status.max_connections = shared_.max_connections;
  status.certificates = certificates_;
  for (const auto& pool : snapshot_->pools) {
    for (const balance::Backend& backend : pool->backends.backends()) {
      status.backends.push_back(
          {pool->config.name, backend.name, backend.state->healthy.load(std::memory_order_relaxed),
           backend.state->draining.load(std::memory_order_relaxed),
           backend.state->open.load(std::memory_order_relaxed), backend.weight});
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
  for (const Bound& bound : bound_) {
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
