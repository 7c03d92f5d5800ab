// The process: binds every listener, runs the workers, answers the admin listener, handles
// signals, drains. Everything in here belongs to the control thread.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "proxy/admin/admin_server.h"
#include "proxy/base/result.h"
#include "proxy/config/config.h"
#include "proxy/log/access_log.h"
#include "proxy/metrics/exporter.h"
#include "proxy/net/event.h"
#include "proxy/net/loop.h"
#include "proxy/server/worker.h"
#include "proxy/tls/ticket_keys.h"

namespace sluice::server {

inline constexpr std::string_view kVersion = SLUICE_VERSION;

// A listener that is bound, with the port it got.
struct Bound {
  std::string name;
  net::Address address;
  bool tls = false;
};

class Server {
 public:
  // Loads certificates, resolves backends and binds every address: all or nothing. The error is
  // one sentence.
  [[nodiscard]] static Result<std::unique_ptr<Server>> Make(const config::Config& config);
  ~Server();

  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Serves until SIGTERM or SIGINT has drained it. Once.
  void Run();

  [[nodiscard]] const std::vector<Bound>& listeners() const noexcept { return bound_; }
  // The admin listener's address; family AF_UNSPEC when it is off.
  [[nodiscard]] const net::Address& admin_address() const noexcept { return admin_address_; }

 private:
  class AdminOperations;

  Server(const config::Config& config, std::size_t workers);

  [[nodiscard]] Result<void> Prepare(std::size_t workers);
  [[nodiscard]] Result<void> BindListener(std::size_t index);
  [[nodiscard]] Result<void> BindAdmin();
  [[nodiscard]] LocalPtr<const session::View> MakeView(std::size_t worker);
  [[nodiscard]] metrics::ProcessStatus Status() const;

  void OnStopSignal(short what) noexcept;
  void OnReloadSignal(short what) noexcept;
  void OnTicketTimer(short what) noexcept;
  void StartDrain() noexcept;
  void WriteReadyFile() const;

  config::Config config_;
  net::Loop loop_;
  tls::TicketKeys ticket_keys_;
  metrics::Exporter exporter_;
  log::AccessLog access_log_;
  Shared shared_;
  std::shared_ptr<const session::Snapshot> snapshot_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::thread> threads_;
  std::vector<metrics::ProcessStatus::Certificate> certificates_;
  std::vector<Bound> bound_;
  net::Address admin_address_;
  UniqueFd admin_socket_;
  std::shared_ptr<const tls::ServerContext> admin_tls_;  // null: plain
  std::unique_ptr<AdminOperations> operations_;          // before admin_, which asks it
  std::unique_ptr<admin::AdminServer> admin_;
  net::Event term_event_;
  net::Event int_event_;
  net::Event hup_event_;
  net::Timer ticket_timer_;
  std::size_t running_ = 0;  // workers that have not ended yet
  Instant drain_began_{};
  double loaded_at_ = 0;  // Unix time
  unsigned stop_signals_ = 0;
};

// The TLS settings of a listener, and of the admin listener, as proxy/tls takes them.
[[nodiscard]] tls::ServerOptions TlsOptions(const config::Listener& listener);
[[nodiscard]] tls::ServerOptions TlsOptions(const config::Admin& admin);

// Raises the soft limit of open files to the hard one and returns it.
std::size_t RaiseFileLimit();

}  // namespace sluice::server
