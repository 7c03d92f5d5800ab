// Reloading the configuration: everything that can fail is done first, beside what is in use; then
// the workers are given the new, and open sessions keep the old. Part of Server.
#include <algorithm>
#include <utility>

#include "proxy/log/log.h"
#include "proxy/server/server.h"
#include "proxy/systemd/notifier.h"

namespace sluice::server {
namespace {

double UnixNow() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

Server::Reloaded Server::ReloadConfig() {
  Reloaded result;
  const bool serving = !draining_;
  if (serving) {
    systemd::NotifyReloading();
  }
  if (draining_) {
    result.mistakes.emplace_back("the process drains, so its configuration changes no more");
  } else if (!launch_.load) {
    result.mistakes.emplace_back("this process has no configuration file to load");
  } else {
    const config::LoadResult loaded = launch_.load();
    for (const config::Mistake& warning : loaded.warnings) {
      result.warnings.push_back(warning.Text());
    }
    for (const config::Mistake& mistake : loaded.mistakes) {
      result.mistakes.push_back(mistake.Text());
    }
    if (loaded.ok()) {
      WarnOfWhatStays(loaded.config, result.warnings);
      if (auto swapped = Swap(loaded.config); !swapped) {
        result.mistakes.push_back(swapped.error().message);
      }
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
  if (serving) {
    systemd::NotifyReady(last_reload_ok_ ? "serving" : "serving; the last reload failed");
  }
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
  const bool same_kind = config.admin.is_tls() == config_.admin.is_tls();
  if (same_kind) {
    if (auto loaded = LoadAdminTls(config.admin); !loaded) {
      return loaded;
    }
  }
  // From here on nothing fails.
  listeners_.Commit(*change);
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    workers_[i]->Update(
        {MakeView(i, *snapshot), std::move(change->by_worker[i]), change->closed});
  }
  if (admin_ && same_kind) {
    admin_->Renew({config.admin.token}, admin_tls_);
  }
  const std::shared_ptr<const session::Snapshot> before = std::exchange(snapshot_, *snapshot);
  config_ = config;
  shared_.max_connections = MostConnections(config_);
  DrainRemoved(*before, *snapshot_);
  return {};
}

// The backends that the new configuration does not have any more.
void Server::DrainRemoved(const session::Snapshot& before, const session::Snapshot& after) {
  for (const auto& pool : before.pools) {
    const session::Pool* now = after.FindPool(pool->config.name);
    for (const balance::Backend& backend : pool->backends.backends()) {
      if (now == nullptr || now->FindBackend(backend.name) == nullptr) {
        drains_.Start(pool->config.name, backend.name, backend.state,
                      DrainOptionsOf(config_.drain), true);
      }
    }
  }
}

// What a process cannot change while it runs.
void Server::WarnOfWhatStays(const config::Config& config,
                             std::vector<std::string>& warnings) const {
  constexpr std::string_view kLater = " takes effect with the next process (SIGUSR2, or a restart)";
  const auto warn = [&](std::string_view key, bool differs) {
    if (differs) {
      warnings.push_back(std::string(key) + ": the change" + std::string(kLater));
    }
  };
  warn("server.workers", config.server.workers != config_.server.workers);
  warn("server.takeover_socket", config.server.takeover_socket != config_.server.takeover_socket);
  warn("admin.address", config.admin.enabled != config_.admin.enabled ||
                            config.admin.host != config_.admin.host ||
                            config.admin.port != config_.admin.port);
  warn("admin.tls", config.admin.is_tls() != config_.admin.is_tls());
  warn("log.access", config.log.access != config_.log.access);
  warn("log.query", config.log.query != config_.log.query);
  warn("log.queue", config.log.queue != config_.log.queue);
}

}  // namespace sluice::server
