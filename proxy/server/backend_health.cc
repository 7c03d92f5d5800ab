#include "proxy/server/backend_health.h"

#include <algorithm>
#include <random>
#include <utility>

#include "proxy/config/values.h"
#include "proxy/log/log.h"
#include "proxy/proxy_protocol/header_writer.h"
#include "proxy/server/server.h"

namespace sluice::server {
namespace {

health::Check CheckOf(const config::Pool& pool, const config::Backend& backend) {
  const config::Health& config = pool.health;
  health::Check check;
  check.type = config.type == config::HealthType::kTcp    ? health::CheckType::kTcp
               : config.type == config::HealthType::kHttp ? health::CheckType::kHttp
                                                          : health::CheckType::kWebSocket;
  check.path = config.path;
  if (pool.proxy_protocol != config::ProxyProtocol::kOff) {
    check.preamble = proxy_protocol::LocalHeader(pool.proxy_protocol == config::ProxyProtocol::kV1
                                                     ? proxy_protocol::Version::kV1
                                                     : proxy_protocol::Version::kV2);
  }
  check.tls = pool.tls.has_value();
  check.host = config.host.empty()
                   ? config::HostPort{ListedHostOf(backend), backend.port, true}.Text()
                   : config.host;
  check.least_status = config.least_status;
  check.most_status = config.most_status;
  check.ping = config.ping;
  check.interval = config.interval;
  check.timeout = config.timeout;
  check.rise = config.rise;
  check.fall = config.fall;
  return check;
}

}  // namespace

// One backend of the configuration.
class BackendHealth::Entry final : private health::CheckerSink {
 public:
  Entry(BackendHealth& owner, std::string in_pool, std::string its_name,
        std::shared_ptr<balance::BackendState> its_state)
      : pool(std::move(in_pool)),
        name(std::move(its_name)),
        state(std::move(its_state)),
        since(UnixNow()),
        owner_(owner) {}

  void BeginChecks(health::Check check, const net::Address& address) {
    checker_ = std::make_unique<health::Checker>(owner_.loop_, owner_.random_, std::move(check),
                                                 Tls(), address, is_up(),
                                                 static_cast<health::CheckerSink&>(*this));
    checker_->Start();
  }
  void EndChecks() { checker_.reset(); }
  void RestartChecks() {
    if (checker_) {
      checker_->Restart();
    }
  }
  // By the settings that hold when a check is made.
  [[nodiscard]] health::ProbeTls Tls() const {
    return {[this](int fd) { return owner_.tls_.Connect(pool, name, fd); },
            [this] { return owner_.tls_.failure(); }};
  }
  [[nodiscard]] bool IsCheckedSo(const health::Check& check, const net::Address& address) const {
    return checker_ && checker_->check() == check && checker_->address().Text() == address.Text();
  }

  [[nodiscard]] bool is_up() const { return state->healthy.load(std::memory_order_relaxed); }

  void BeginEjection(Millis length) {
    timer_.Arm<&Entry::OnEjectionEnd>(owner_.loop_.base(), length, this);
  }
  void EndEjection() { timer_.Cancel(); }

  const std::string pool;
  const std::string name;
  const std::shared_ptr<balance::BackendState> state;
  config::OnDown on_down = config::OnDown::kKeep;
  config::Outlier outlier;
  health::Ejection ejection;
  std::shared_ptr<const BackendDrain> drain;  // begun when it went down; null: none was
  std::string check_error;                    // of the last check that failed
  std::string ejection_reason;                // of the last ejection
  double since;                               // Unix time of the last change
  std::uint64_t checks_ok = 0;
  std::uint64_t checks_failed = 0;
  std::uint64_t ejections = 0;

 private:
  void OnChecked(health::Checker&, const health::CheckResult& result,
                 bool changed) noexcept override {
    if (!result.counts) {
      spdlog::warn("backend not checked pool={} backend={} reason=\"{}\"", pool, name,
                   result.error);
      return;
    }
    ++(result.passed ? checks_ok : checks_failed);
    if (!result.passed) {
      check_error = result.error;
    }
    if (changed && result.passed) {
      owner_.GoUp(*this);
    } else if (changed) {
      owner_.GoDown(*this, result.error);
    }
  }

  void OnEjectionEnd(short) noexcept { owner_.Return(*this); }

  BackendHealth& owner_;
  std::unique_ptr<health::Checker> checker_;  // null: not checked
  net::Timer timer_;                          // of the ejection
};

BackendHealth::BackendHealth(net::Loop& loop, BackendDrains& drains, BackendTls& tls)
    : loop_(loop), drains_(drains), tls_(tls), random_(std::random_device()()) {}

BackendHealth::~BackendHealth() = default;

void BackendHealth::Apply(const session::Snapshot& snapshot, const drain::DrainOptions& drain) {
  drain_options_ = drain;
  std::vector<std::unique_ptr<Entry>> before = std::exchange(entries_, {});
  for (const auto& pool : snapshot.pools) {
    const config::Pool& config = pool->config;
    for (std::size_t i = 0; i < config.backends.size(); ++i) {
      const balance::Backend& backend = pool->backends.backends()[i];
      const auto known = std::find_if(before.begin(), before.end(), [&](const auto& one) {
        return one && one->state == backend.state;
      });
      entries_.push_back(
          known != before.end()
              ? std::move(*known)
              : std::make_unique<Entry>(*this, config.name, backend.name, backend.state));
      Entry& entry = *entries_.back();
      entry.on_down = config.on_down;
      entry.outlier = config.outlier;
      const health::Check check = CheckOf(config, config.backends[i]);
      if (!config.health.is_on()) {
        entry.EndChecks();
        entry.check_error.clear();
        if (!entry.is_up()) {
          GoUp(entry);
        }
      } else if (!entry.IsCheckedSo(check, pool->addresses[i]) && !stopped_) {
        entry.BeginChecks(check, pool->addresses[i]);
      }
      if (entry.outlier.failures == 0 && entry.ejection.is_on()) {
        Return(entry);
      }
    }
  }
  for (const auto& pool : snapshot.pools) {
    RelieveIfEmpty(pool->config.name);
  }
}

void BackendHealth::RestartChecks() {
  for (const auto& entry : entries_) {
    entry->RestartChecks();
  }
}

void BackendHealth::EndChecksBut(std::string_view pool,
                                 const std::vector<config::Backend>& backends) {
  for (const auto& entry : entries_) {
    const bool stays = entry->pool != pool || std::any_of(backends.begin(), backends.end(),
                                                          [&](const config::Backend& one) {
                                                            return one.name == entry->name;
                                                          });
    if (!stays) {
      entry->EndChecks();
    }
  }
}

void BackendHealth::StopChecks() {
  stopped_ = true;
  for (const auto& entry : entries_) {
    entry->EndChecks();
  }
}

BackendHealth::Entry* BackendHealth::Find(const balance::BackendState& state) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const auto& one) { return one->state.get() == &state; });
  return found == entries_.end() ? nullptr : found->get();
}

// Verdicts of checks.

void BackendHealth::GoDown(Entry& entry, const std::string& error) {
  entry.state->healthy.store(false, std::memory_order_relaxed);
  entry.since = UnixNow();
  spdlog::warn("backend down pool={} backend={} reason=\"{}\" open={}", entry.pool, entry.name,
               error, entry.state->open.load(std::memory_order_relaxed));
  RelieveIfEmpty(entry.pool);
  // One that drains already is emptied by whoever began that.
  // The last one is not emptied: its sessions have nowhere else to go, and checks that are wrong
  // about all backends must not end all sessions.
  if (entry.on_down == config::OnDown::kDrain && !stopped_ && HasInService(entry.pool) &&
      !entry.state->draining.load(std::memory_order_relaxed)) {
    entry.drain = drains_.Start(entry.pool, entry.name, entry.state, drain_options_, false);
  }
}

void BackendHealth::GoUp(Entry& entry) {
  // Before it may be picked: what comes first must not be more than its part.
  entry.state->BeginRamp(Now());
  entry.state->healthy.store(true, std::memory_order_relaxed);
  entry.since = UnixNow();
  spdlog::info("backend up pool={} backend={}", entry.pool, entry.name);
  if (const auto drain = std::exchange(entry.drain, nullptr); drain && drains_.IsCurrent(drain)) {
    drains_.Stop(entry.state);
  }
}

// Ejections.

void BackendHealth::OnFailing(const balance::BackendState& state, metrics::BackendFailure why) {
  Entry* entry = Find(state);
  if (entry == nullptr || entry->outlier.failures == 0) {
    return;  // a reload has come first
  }
  entry->state->failures.Reset();
  if (!entry->state->IsInService()) {
    return;  // what went wrong was under way
  }
  health::PoolShape shape;
  for (const auto& one : entries_) {
    if (one->pool == entry->pool) {
      ++shape.backends;
      shape.ejected += one->ejection.is_on() ? 1 : 0;
      shape.others += one.get() != entry && one->state->IsInService() ? 1 : 0;
    }
  }
  if (!health::MayEject(shape, entry->outlier.max_ejected)) {
    spdlog::debug("backend fails but stays pool={} backend={} reason={}", entry->pool, entry->name,
                  metrics::Name(why));
    return;
  }
  // Where nothing listens no client is harmed: the connect fails at once and goes elsewhere. That
  // is what a restart looks like, and a backend that is back must not wait for longer than once.
  const bool grows = why != metrics::BackendFailure::kRefused;
  const Millis length = entry->ejection.Begin(
      {entry->outlier.ejection_time, entry->outlier.max_ejection_time}, grows, Now());
  entry->state->ejected.store(true, std::memory_order_relaxed);
  entry->since = UnixNow();
  ++entry->ejections;
  entry->ejection_reason = std::to_string(entry->outlier.failures) +
                           " failures in a row, the last one: " + std::string(metrics::Name(why));
  entry->BeginEjection(length);
  spdlog::warn("backend ejected pool={} backend={} reason={} for_ms={}", entry->pool, entry->name,
               metrics::Name(why), length.count());
}

void BackendHealth::Return(Entry& entry) {
  entry.EndEjection();
  entry.ejection.End(Now());
  entry.state->failures.Reset();
  entry.state->BeginRamp(Now());
  entry.state->ejected.store(false, std::memory_order_relaxed);
  entry.since = UnixNow();
  spdlog::info("backend back pool={} backend={}", entry.pool, entry.name);
}

bool BackendHealth::HasInService(std::string_view pool) const {
  return std::any_of(entries_.begin(), entries_.end(), [&](const auto& one) {
    return one->pool == pool && one->state->IsInService();
  });
}

void BackendHealth::RelieveIfEmpty(std::string_view pool) {
  const bool empty = !HasInService(pool);
  for (const auto& entry : entries_) {
    if (empty && entry->pool == pool && entry->ejection.is_on()) {
      Return(*entry);
    }
  }
}

bool BackendHealth::IsDraining(const balance::BackendState& state) const {
  const Entry* entry = Find(state);
  return entry != nullptr && entry->drain && drains_.IsCurrent(entry->drain);
}

BackendHealth::Report BackendHealth::ReportOf(const balance::BackendState& state) const {
  Report report;
  if (const Entry* entry = Find(state)) {
    const bool ejected = entry->ejection.is_on();
    report.state = !entry->is_up() ? "down" : ejected ? "ejected" : "up";
    report.last_error = entry->is_up() && ejected ? entry->ejection_reason : entry->check_error;
    report.since = entry->since;
    report.checks_ok = entry->checks_ok;
    report.checks_failed = entry->checks_failed;
    report.ejections = entry->ejections;
  }
  return report;
}

}  // namespace sluice::server
