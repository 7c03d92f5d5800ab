// What the admin interface asks for. Part of Server.
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "proxy/log/log.h"
#include "proxy/server/config_json.h"
#include "proxy/server/server.h"
#include "proxy/systemd/notifier.h"

namespace sluice::server {
namespace {

admin::Problem NoSuchBackend(std::string_view pool, std::string_view backend) {
  return {404,
          "",
          "There is no backend \"" + std::string(backend) + "\" in a pool \"" + std::string(pool) +
              "\".",
          {}};
}

// A filter in the form in which sessions are compared with it.
class Matcher {
 public:
  explicit Matcher(const admin::SessionFilter& filter)
      : filter_(filter),
        key_hash_(filter.affinity.empty() ? 0 : balance::HashKey(filter.affinity)) {}

  [[nodiscard]] bool operator()(const session::Session& session) const {
    if (!session.relaying() || (filter_.id && session.id() != *filter_.id)) {
      return false;
    }
    if (filter_.pool.empty() && filter_.backend.empty() && filter_.route.empty() &&
        filter_.client_ip.empty() && filter_.affinity.empty()) {
      return true;
    }
    const session::Session::Description about = session.Describe();
    const auto fits = [](const std::string& wanted, std::string_view has) {
      return wanted.empty() || wanted == has;
    };
    return fits(filter_.pool, about.pool) && fits(filter_.backend, about.backend) &&
           fits(filter_.route, about.route) && fits(filter_.client_ip, about.client_ip) &&
           (filter_.affinity.empty() || about.key_hash == key_hash_);
  }

 private:
  admin::SessionFilter filter_;
  std::uint64_t key_hash_;
};

admin::SessionInfo InfoOf(const session::Session& session, Instant now) {
  const session::Session::Description about = session.Describe();
  admin::SessionInfo info;
  info.id = session.id();
  info.client = about.peer;
  info.client_ip = about.client_ip;
  info.proxy = about.proxy;
  info.listener = about.listener;
  info.route = about.route;
  info.pool = about.pool;
  info.backend = about.backend;
  info.age_seconds = std::chrono::duration<double>(now - about.began).count();
  info.bytes_in = about.totals.bytes_in;
  info.bytes_out = about.totals.bytes_out;
  info.messages_in = about.totals.messages_in;
  info.messages_out = about.totals.messages_out;
  info.state = about.closing ? "closing" : "open";
  return info;
}

}  // namespace

std::string Server::MetricsText() {
  return exporter_.Text(ProcessStatus());
}

admin::ReadinessInfo Server::Readiness() {
  return draining_ ? admin::ReadinessInfo{false, "draining"} : admin::ReadinessInfo{true, "ready"};
}

std::string Server::ConfigJson() {
  return server::ConfigJson(config_);
}

admin::StatusInfo Server::Status() {
  admin::StatusInfo status;
  status.version = kVersion;
  status.pid = ::getpid();
  status.uptime_seconds = std::chrono::duration<double>(Now() - began_).count();
  status.workers = workers_.size();
  status.connections = shared_.connections.load(std::memory_order_relaxed);
  status.max_connections = shared_.max_connections.load(std::memory_order_relaxed);
  status.sessions = exporter_.OpenSessions();
  status.draining = draining_;
  status.drain_remaining = draining_ ? status.connections : 0;
  status.config_loaded_at = loaded_at_;
  if (predecessor_pid_ != 0) {
    status.taken_over_from = predecessor_pid_;
  }
  return status;
}

// Backends.

admin::BackendInfo Server::Describe(const session::Pool& pool, std::size_t index) const {
  const balance::Backend& backend = pool.backends.backends()[index];
  admin::BackendInfo info;
  info.pool = pool.config.name;
  info.name = backend.name;
  info.address = pool.addresses[index].Text();
  info.weight = backend.weight;
  info.healthy = backend.state->healthy.load(std::memory_order_relaxed);
  info.draining = backend.state->draining.load(std::memory_order_relaxed);
  info.open = backend.state->open.load(std::memory_order_relaxed);
  const BackendHealth::Report health = health_.ReportOf(*backend.state);
  info.health = {health.state, health.last_error, health.since};
  if (const auto progress = drains_.ProgressOf(*backend.state)) {
    info.drain = admin::DrainProgress{
        Name(progress->state),    progress->total,           progress->remaining,
        progress->clean,          progress->forced,          progress->elapsed_seconds,
        progress->window_seconds, progress->rate_per_second, progress->eta_seconds};
  }
  return info;
}

std::vector<admin::BackendInfo> Server::Backends() {
  std::vector<admin::BackendInfo> all;
  for (const auto& pool : snapshot_->pools) {
    for (std::size_t i = 0; i < pool->addresses.size(); ++i) {
      all.push_back(Describe(*pool, i));
    }
  }
  return all;
}

admin::Outcome<admin::BackendInfo> Server::StartDrain(std::string_view pool,
                                                      std::string_view backend,
                                                      const admin::DrainOrder& order) {
  const session::Pool* in = snapshot_->FindPool(pool);
  const balance::Backend* found = in == nullptr ? nullptr : in->FindBackend(backend);
  if (found == nullptr) {
    return tl::unexpected(NoSuchBackend(pool, backend));
  }
  if (draining_) {
    return tl::unexpected(
        admin::Problem{409, "", "The whole process drains, and this backend with it.", {}});
  }
  const auto& all = in->backends.backends();
  const bool others = std::any_of(all.begin(), all.end(), [&](const balance::Backend& other) {
    return &other != found && other.state->IsInService();
  });
  if (!others && !order.force) {
    return tl::unexpected(
        admin::Problem{409,
                       "",
                       "No other backend of this pool takes sessions, so its clients would find "
                       "none; force drains it nevertheless.",
                       {}});
  }
  drain::DrainOptions options = DrainOptionsOf(config_.drain);
  options.window = order.window.value_or(options.window);
  options.rate = order.rate.value_or(options.rate);
  drains_.Start(in->config.name, found->name, found->state, options, false);
  health_.RelieveIfEmpty(in->config.name);
  return Describe(*in, static_cast<std::size_t>(found - all.data()));
}

admin::Outcome<admin::BackendInfo> Server::Undrain(std::string_view pool,
                                                   std::string_view backend) {
  const session::Pool* in = snapshot_->FindPool(pool);
  const balance::Backend* found = in == nullptr ? nullptr : in->FindBackend(backend);
  if (found == nullptr) {
    return tl::unexpected(NoSuchBackend(pool, backend));
  }
  drains_.Stop(found->state);  // one that does not drain is where it is wanted already
  return Describe(*in, static_cast<std::size_t>(found - in->backends.backends().data()));
}

// Sessions.

void Server::VisitSessions(const std::function<void(std::size_t worker, session::Session&)>& visit,
                           const std::function<void()>& done) {
  const auto left = std::make_shared<std::size_t>(workers_.size());  // of this thread
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    workers_[i]->Visit([visit, i](session::Session& session) { visit(i, session); },
                       [this, left, done] {
                         loop_.Post([left, done] {
                           if (--*left == 0) {
                             done();
                           }
                         });
                       });
  }
}

void Server::Sessions(const admin::SessionFilter& filter,
                      std::function<void(admin::SessionList)> done) {
  // A part for each worker, so that they need no lock; read here when all have written theirs.
  const auto parts = std::make_shared<std::vector<admin::SessionList>>(workers_.size());
  const Matcher matches(filter);
  VisitSessions(
      [parts, matches, limit = filter.limit](std::size_t worker, session::Session& session) {
        if (!matches(session)) {
          return;
        }
        admin::SessionList& mine = (*parts)[worker];
        ++mine.matching;
        if (mine.sessions.size() < limit) {
          mine.sessions.push_back(InfoOf(session, Now()));
        }
      },
      [parts, limit = filter.limit, done = std::move(done)] {
        admin::SessionList all;
        for (admin::SessionList& part : *parts) {
          all.matching += part.matching;
          std::move(part.sessions.begin(), part.sessions.end(), std::back_inserter(all.sessions));
        }
        std::sort(all.sessions.begin(), all.sessions.end(),
                  [](const auto& a, const auto& b) { return a.id < b.id; });
        all.sessions.resize(std::min(all.sessions.size(), limit));
        done(std::move(all));
      });
}

void Server::Kick(const admin::KickOrder& order, std::function<void(std::size_t)> done) {
  const auto kicked = std::make_shared<std::vector<std::size_t>>(workers_.size());
  const Matcher matches(order.filter);
  const std::string reason = order.reason.empty() ? config_.drain.reason : order.reason;
  VisitSessions(
      [kicked, matches, code = order.code, reason](std::size_t worker, session::Session& session) {
        if (matches(session) && !session.closing()) {
          ++(*kicked)[worker];
          session.Kick(code, reason);
        }
      },
      [kicked, done = std::move(done)] {
        std::size_t sum = 0;
        for (const std::size_t part : *kicked) {
          sum += part;
        }
        spdlog::info("kicked sessions={}", sum);
        done(sum);
      });
}

// The process.

admin::Outcome<admin::ReloadReport> Server::Reload() {
  Reloaded result = ReloadConfig();
  if (!result.mistakes.empty()) {
    const std::string count = std::to_string(result.mistakes.size());
    return tl::unexpected(admin::Problem{
        422, "",
        result.mistakes.size() == 1
            ? "The configuration has a mistake, so the one in use stays."
            : "The configuration has " + count + " mistakes, so the one in use stays.",
        std::move(result.mistakes)});
  }
  return admin::ReloadReport{std::move(result.warnings)};
}

void Server::StartProcessDrain() {
  if (draining_) {
    return;
  }
  spdlog::info("draining connections={} window_ms={}",
               shared_.connections.load(std::memory_order_relaxed), config_.drain.window.count());
  systemd::NotifyStopping();
  DrainWorkers(DrainOptionsOf(config_.drain), Worker::Leave::kClose);
}

}  // namespace sluice::server
