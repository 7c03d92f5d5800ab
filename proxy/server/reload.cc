// Reloading the configuration: everything that can fail is done first, beside what is in use; then
// the workers are given the new, and open sessions keep the old. Part of Server.
#include <algorithm>
#include <utility>

#include "proxy/log/log.h"
#include "proxy/server/server.h"
#include "proxy/systemd/notifier.h"

namespace sluice::server {

Server::Reloaded Server::ReloadConfig() {
  Reloaded result;
  if (draining_ || !launch_.load) {
    // No attempt that could have failed: neither counted nor to be alarmed about.
    result.mistakes.emplace_back(draining_
                                     ? "the process drains, so its configuration changes no more"
                                     : "this process has no configuration file to load");
    spdlog::warn("reload: {}", result.mistakes.back());
    return result;
  }
  systemd::NotifyReloading();
  config::LoadResult loaded = launch_.load();
  for (const config::Mistake& warning : loaded.warnings) {
    result.warnings.push_back(warning.Text());
  }
  for (const config::Mistake& mistake : loaded.mistakes) {
    result.mistakes.push_back(mistake.Text());
  }
  if (loaded.ok()) {
    KeepWhatStays(loaded.config, result.warnings);
    discoverer_.FillIn(loaded.config, config_);
    if (auto swapped = Swap(loaded.config); !swapped) {
      result.mistakes.push_back(swapped.error().message);
    }
  }
  for (const std::string& warning : result.warnings) {
    spdlog::warn("reload: {}", warning);
  }
  for (const std::string& mistake : result.mistakes) {
    spdlog::error("reload: {}", mistake);
  }
  last_reload_ok_ = result.mistakes.empty();
  if (last_reload_ok_) {
    ++reloads_ok_;
    loaded_at_ = UnixNow();
    spdlog::info("reloaded listeners={} routes={} pools={}", config_.listeners.size(),
                 config_.routes.size(), config_.pools.size());
  } else {
    ++reloads_failed_;
    spdlog::error("reload failed mistakes={}: the configuration in use stays",
                  result.mistakes.size());
  }
  // Ready is what it is again, whatever came of it.
  systemd::NotifyReady(last_reload_ok_ ? "serving" : "serving; the last reload failed");
  return result;
}

Result<void> Server::Swap(const config::Config& config) {
  auto snapshot = session::Snapshot::Make(config, snapshot_.get());
  if (!snapshot) {
    return tl::unexpected(snapshot.error());
  }
  auto change = listeners_.Prepare(config);
  if (!change) {
    return tl::unexpected(change.error());
  }
  auto backend_tls = backend_tls_.Prepare(config);
  if (!backend_tls) {
    return tl::unexpected(backend_tls.error());
  }
  auto admin_tls = LoadAdminTls(config.admin);
  if (!admin_tls) {
    return tl::unexpected(admin_tls.error());
  }
  // From here on nothing fails.
  listeners_.Commit(*change);
  health_.RestartChecks();
  backend_tls_.Commit(std::move(*backend_tls));
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    workers_[i]->Update({MakeView(i, *snapshot), std::move(change->by_worker[i]), change->closed});
  }
  if (admin_) {
    admin_tls_ = std::move(*admin_tls);
    admin_->Renew({config.admin.token}, admin_tls_);
  }
  log::SetLevel(LevelOf(config.log.level));
  shared_.max_connections = MostConnections(config);
  Replace(config, std::move(*snapshot));
  discoverer_.Follow(config_);
  return {};
}

// What the workers have been given becomes what is in use.
void Server::Replace(const config::Config& config,
                     std::shared_ptr<const session::Snapshot> snapshot) {
  const auto before = std::exchange(snapshot_, std::move(snapshot));
  config_ = config;
  DrainRemoved(*before, *snapshot_);
  health_.Apply(*snapshot_, DrainOptionsOf(config_.drain));
}

// A pool has other backends. Nothing else of the configuration is looked at.
void Server::OnDiscovered(const std::string& pool, const std::vector<config::Backend>& backends) {
  const auto has_name = [&](const config::Pool& one) { return one.name == pool; };
  config::Config config = config_;
  const auto found = std::find_if(config.pools.begin(), config.pools.end(), has_name);
  if (!snapshot_ || draining_ || found == config.pools.end()) {
    return;  // not yet, or no more
  }
  found->backends = backends;
  auto snapshot = session::Snapshot::Make(config, snapshot_.get(), session::Snapshot::Names::kKeep);
  if (!snapshot) {
    spdlog::error("discovered backends are not used pool={}: {}", pool, snapshot.error().message);
    return;
  }
  health_.EndChecksBut(pool, backends);
  backend_tls_.FollowBackends(config);
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    workers_[i]->Update({MakeView(i, *snapshot), {}, {}});
  }
  Replace(config, std::move(*snapshot));
}

// One that is in no configuration any more has been drained.
void Server::OnBackendGone(const std::string& pool, const std::string& backend) {
  const session::Pool* now = snapshot_->FindPool(pool);
  if (now == nullptr || now->FindBackend(backend) == nullptr) {
    exporter_.ForgetBackend(pool, backend);
  }
}

// The backends that the new configuration does not have any more.
void Server::DrainRemoved(const session::Snapshot& before, const session::Snapshot& after) {
  for (const auto& pool : before.pools) {
    const session::Pool* now = after.FindPool(pool->config.name);
    for (const balance::Backend& backend : pool->backends.backends()) {
      if (now == nullptr || now->FindBackend(backend.name) == nullptr) {
        drains_.Start(pool->config.name, backend.name, backend.state, DrainOptionsOf(config_.drain),
                      true);
      }
    }
  }
}

void Server::KeepWhatStays(config::Config& config, std::vector<std::string>& warnings) const {
  const auto keep = [&warnings](std::string_view key, auto& value, const auto& in_effect) {
    if (value != in_effect) {
      warnings.push_back(std::string(key) +
                         ": the change takes effect with the next process (SIGUSR2, or a restart)");
      value = in_effect;
    }
  };
  keep("server.workers", config.server.workers, config_.server.workers);
  keep("server.takeover_socket", config.server.takeover_socket, config_.server.takeover_socket);
  keep("log.access", config.log.access, config_.log.access);
  keep("log.query", config.log.query, config_.log.query);
  keep("log.queue", config.log.queue, config_.log.queue);
  // The token and the certificate of one place are no good for another: all of it or nothing.
  const config::Admin& now = config_.admin;
  const config::Admin& then = config.admin;
  if (then.enabled != now.enabled || then.host != now.host || then.port != now.port) {
    keep("admin.address", config.admin, config_.admin);
  } else if (then.is_tls() != now.is_tls()) {
    keep("admin.tls", config.admin, config_.admin);
  }
}

}  // namespace sluice::server
