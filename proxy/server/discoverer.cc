#include "proxy/server/discoverer.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <random>
#include <utility>

#include "proxy/config/load.h"
#include "proxy/discovery/dns_watch.h"
#include "proxy/discovery/file_watch.h"
#include "proxy/log/log.h"
#include "proxy/net/address.h"

namespace sluice::server {
namespace {

discovery::RecordType TypeOf(config::DnsType type) {
  switch (type) {
    case config::DnsType::kA:
      return discovery::RecordType::kA;
    case config::DnsType::kAaaa:
      return discovery::RecordType::kAaaa;
    case config::DnsType::kSrv:
      return discovery::RecordType::kSrv;
  }
  return discovery::RecordType::kA;
}

// How many of `backends` are not in `others`, by name.
std::size_t Missing(const std::vector<config::Backend>& backends,
                    const std::vector<config::Backend>& others) {
  std::vector<std::string_view> names;
  for (const config::Backend& other : others) {
    names.push_back(other.name);
  }
  std::sort(names.begin(), names.end());
  return static_cast<std::size_t>(
      std::count_if(backends.begin(), backends.end(), [&](const config::Backend& one) {
        return !std::binary_search(names.begin(), names.end(), std::string_view(one.name));
      }));
}

}  // namespace

// The discovery of one pool.
class Discoverer::Source {
 public:
  Source(Discoverer& owner, std::string pool, config::Discovery setting)
      : owner_(owner), pool_(std::move(pool)), setting_(std::move(setting)) {
    if (!setting_.file.empty()) {
      file_.emplace(owner_.loop_, setting_.file, [this] { ReadFile(); });
      ReadFile();
      return;
    }
    dns_.emplace(owner_.loop_,
                 discovery::DnsQuestion{setting_.dns, TypeOf(setting_.type), setting_.port,
                                        setting_.servers, setting_.timeout},
                 discovery::RefreshSchedule::Bounds{setting_.min_ttl, setting_.max_ttl},
                 std::random_device()(),
                 [this](Result<discovery::DnsAnswer> outcome) { Take(std::move(outcome)); });
  }

  [[nodiscard]] bool Is(std::string_view pool, const config::Discovery& setting) const {
    return pool_ == pool && setting_ == setting;
  }
  // Nothing until there was a list.
  [[nodiscard]] const std::optional<std::vector<config::Backend>>& known() const { return known_; }

  [[nodiscard]] bool settled() const { return known_.has_value() || !setting_.file.empty(); }

  void Stop() {
    file_.reset();
    dns_.reset();
  }

  [[nodiscard]] metrics::ProcessStatus::Discovery Status() const {
    metrics::ProcessStatus::Discovery status;
    status.pool = pool_;
    status.backends = known_ ? known_->size() : 0;
    status.up = last_ == Last::kGood;
    status.last_success = last_success_;
    status.changed = changed_;
    status.unchanged = unchanged_;
    status.failed = failed_;
    return status;
  }

 private:
  enum class Last : std::uint8_t { kNone, kGood, kFailed };

  [[nodiscard]] const std::string& from() const {
    return setting_.file.empty() ? setting_.dns : setting_.file;
  }

  void Take(Result<discovery::DnsAnswer> outcome) {
    if (!outcome) {
      return Fail({outcome.error().message});
    }
    std::vector<config::Backend> backends;
    for (const discovery::Endpoint& endpoint : outcome->endpoints) {
      config::Backend& backend = backends.emplace_back();
      backend.name = endpoint.name;
      backend.host = endpoint.address.Ip();
      backend.port = endpoint.address.port();
      backend.weight = endpoint.weight;
      backend.group = endpoint.group;
    }
    if (outcome->dropped > 0 && (!known_ || *known_ != backends)) {
      spdlog::warn("discovery: too many backends pool={} name={} taken={} left_out={}", pool_,
                   setting_.dns, backends.size(), outcome->dropped);
    }
    Take(std::move(backends));
  }

  void ReadFile() {
    config::LoadedBackends loaded = config::LoadBackends(setting_.file);
    std::vector<std::string> why;
    for (const config::Mistake& mistake : loaded.mistakes) {
      why.push_back(mistake.Text());
    }
    if (why.empty()) {
      // Here, so that whoever applies the list has nothing left that could fail.
      for (config::Backend& backend : loaded.backends) {
        if (const auto address = net::Address::Resolve(backend.host, backend.port)) {
          backend.listed_host = std::exchange(backend.host, address->Ip());
        } else {
          why.push_back(setting_.file + ": backend \"" + backend.name +
                        "\": " + address.error().message);
        }
      }
    }
    if (why.empty()) {
      Take(std::move(loaded.backends));
    } else {
      Fail(std::move(why));
    }
  }

  void Take(std::vector<config::Backend> backends) {
    const bool recovers = last_ == Last::kFailed;
    last_ = Last::kGood;
    why_.clear();
    last_success_ =
        std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    if (recovers) {
      spdlog::info("discovery works again pool={} from={}", pool_, from());
    }
    if (known_ == backends) {
      ++unchanged_;
      return;
    }
    ++changed_;
    const std::vector<config::Backend> before =
        std::exchange(known_, std::move(backends)).value_or(std::vector<config::Backend>());
    spdlog::info("discovered backends pool={} from={} backends={} added={} removed={}", pool_,
                 from(), known_->size(), Missing(*known_, before), Missing(before, *known_));
    owner_.changed_(pool_, *known_);
  }

  // Told when it begins, and again when the reason is another.
  void Fail(std::vector<std::string> why) {
    ++failed_;
    last_ = Last::kFailed;
    if (why != why_) {
      for (const std::string& reason : why) {
        spdlog::error("discovery: {}", reason);
      }
      spdlog::warn("discovery fails pool={} from={}: what is known stays backends={}", pool_,
                   from(), known_ ? known_->size() : 0);
      why_ = std::move(why);
    }
  }

  Discoverer& owner_;
  std::string pool_;
  config::Discovery setting_;
  std::optional<discovery::DnsWatch> dns_;    // one of the two
  std::optional<discovery::FileWatch> file_;  // until it is stopped
  std::optional<std::vector<config::Backend>> known_;
  Last last_ = Last::kNone;
  std::vector<std::string> why_;  // of the last failure; empty: it was none
  double last_success_ = 0;       // Unix time
  std::uint64_t changed_ = 0;
  std::uint64_t unchanged_ = 0;
  std::uint64_t failed_ = 0;
};

Discoverer::Discoverer(net::Loop& loop, Changed changed)
    : loop_(loop), changed_(std::move(changed)) {}

Discoverer::~Discoverer() = default;

const Discoverer::Source* Discoverer::Find(std::string_view pool,
                                           const config::Discovery& setting) const noexcept {
  const auto found = std::find_if(sources_.begin(), sources_.end(),
                                  [&](const auto& one) { return one->Is(pool, setting); });
  return found == sources_.end() ? nullptr : found->get();
}

void Discoverer::Follow(const config::Config& config) {
  std::vector<std::unique_ptr<Source>> kept;
  std::vector<config::Pool> fresh;
  for (const config::Pool& pool : config.pools) {
    if (!pool.discover) {
      continue;
    }
    const auto found =
        std::find_if(sources_.begin(), sources_.end(), [&](const std::unique_ptr<Source>& one) {
          return one && one->Is(pool.name, *pool.discover);
        });
    if (found != sources_.end()) {
      kept.push_back(std::move(*found));
    } else {
      fresh.push_back(pool);
    }
  }
  sources_ = std::move(kept);
  // A file may be applied at once, which changes `config`: by then those that are gone are.
  for (const config::Pool& pool : fresh) {
    sources_.push_back(std::make_unique<Source>(*this, pool.name, *pool.discover));
  }
}

void Discoverer::Stop() noexcept {
  for (const auto& source : sources_) {
    source->Stop();
  }
}

void Discoverer::FillIn(config::Config& config, const config::Config& before) const {
  for (config::Pool& pool : config.pools) {
    if (!pool.discover) {
      continue;
    }
    const Source* source = Find(pool.name, *pool.discover);
    if (source != nullptr && source->known()) {
      pool.backends = *source->known();
      continue;
    }
    const auto old = std::find_if(before.pools.begin(), before.pools.end(),
                                  [&](const config::Pool& one) { return one.name == pool.name; });
    if (old != before.pools.end()) {
      pool.backends = old->backends;
    }
  }
}

bool Discoverer::settled() const noexcept {
  return std::all_of(sources_.begin(), sources_.end(),
                     [](const auto& source) { return source->settled(); });
}

std::vector<metrics::ProcessStatus::Discovery> Discoverer::statuses() const {
  std::vector<metrics::ProcessStatus::Discovery> all;
  all.reserve(sources_.size());
  for (const auto& source : sources_) {
    all.push_back(source->Status());
  }
  return all;
}

}  // namespace sluice::server
