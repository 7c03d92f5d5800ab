#include "proxy/session/snapshot.h"

#include <algorithm>
#include <utility>

namespace sluice::session {
namespace {

balance::Policy PolicyOf(config::Balance balance) {
  switch (balance) {
    case config::Balance::kRendezvous:
      return balance::Policy::kRendezvous;
    case config::Balance::kLeastConnections:
      return balance::Policy::kLeastConnections;
    case config::Balance::kRandomTwoChoices:
      return balance::Policy::kRandomTwoChoices;
    case config::Balance::kRoundRobin:
      return balance::Policy::kRoundRobin;
  }
  return balance::Policy::kRendezvous;
}

routing::AffinityRule::Source SourceOf(config::AffinitySource source) {
  using Source = routing::AffinityRule::Source;
  switch (source) {
    case config::AffinitySource::kCookie:
      return Source::kCookie;
    case config::AffinitySource::kHeader:
      return Source::kHeader;
    case config::AffinitySource::kQuery:
      return Source::kQuery;
    case config::AffinitySource::kPath:
      return Source::kPath;
    case config::AffinitySource::kIp:
      return Source::kIp;
  }
  return Source::kIp;
}

std::vector<routing::AffinityRule> RulesOf(const config::Route& route) {
  std::vector<routing::AffinityRule> rules;
  bool has_own_cookie = route.affinity_cookie.empty();
  for (const config::AffinityRule& rule : route.affinity) {
    rules.push_back({SourceOf(rule.source), rule.name, rule.segment});
    has_own_cookie = has_own_cookie || (rule.source == config::AffinitySource::kCookie &&
                                        rule.name == route.affinity_cookie);
  }
  if (!has_own_cookie) {
    // A cookie that Sluice issues is meant to decide, so it comes first unless it is listed.
    rules.insert(rules.begin(), {routing::AffinityRule::Source::kCookie, route.affinity_cookie, 0});
  }
  return rules;
}

std::shared_ptr<balance::BackendState> StateOf(std::string_view pool, std::string_view backend,
                                               const Snapshot* before) {
  if (before == nullptr) {
    return std::make_shared<balance::BackendState>();
  }
  const Pool* old_pool = before->FindPool(pool);
  if (old_pool != nullptr) {
    if (const balance::Backend* old = old_pool->FindBackend(backend)) {
      return old->state;
    }
  }
  auto fresh = std::make_shared<balance::BackendState>();
  // Where there was none before, nobody else could take what a slow start spares it.
  if (old_pool == nullptr || !old_pool->addresses.empty()) {
    fresh->BeginRamp(Now());
  }
  return fresh;
}

// Null: there was none of that name.
const Route* RouteBefore(std::string_view route, const Snapshot* before) {
  if (before == nullptr) {
    return nullptr;
  }
  const auto old = std::find_if(before->routes.begin(), before->routes.end(),
                                [route](const Route& one) { return one.config.name == route; });
  return old == before->routes.end() ? nullptr : &*old;
}

std::shared_ptr<RouteState> StateOf(const Route* before) {
  return before != nullptr ? before->state : std::make_shared<RouteState>();
}

std::shared_ptr<LearnedTokens> LearnedOf(const config::Route& route, const Route* before) {
  if (!route.learn) {
    return nullptr;
  }
  const auto [most, ttl] = std::pair(route.learn->max_entries, route.learn->ttl);
  if (before == nullptr || before->learned == nullptr) {
    return std::make_shared<LearnedTokens>(most, ttl);
  }
  const std::shared_ptr<LearnedTokens>& old = before->learned;
  return old->most() == most && old->ttl() == ttl
             ? old
             : std::make_shared<LearnedTokens>(most, ttl, *old);
}

// Null where it has to be looked up.
const net::Address* AddressBefore(const Pool& before, const config::Backend& backend) {
  const auto& all = before.config.backends;
  const auto found = std::find_if(all.begin(), all.end(), [&](const config::Backend& one) {
    return one.name == backend.name && one.host == backend.host && one.port == backend.port;
  });
  return found == all.end() ? nullptr
                            : &before.addresses[static_cast<std::size_t>(found - all.begin())];
}

Result<net::Address> AddressOf(const config::Backend& backend, const Pool* before) {
  const net::Address* known = before == nullptr ? nullptr : AddressBefore(*before, backend);
  return known != nullptr ? Result<net::Address>(*known)
                          : net::Address::Resolve(backend.host, backend.port);
}

Result<std::unique_ptr<Pool>> MakePool(const config::Pool& config, const Snapshot* before,
                                       Snapshot::Names names) {
  const Pool* kept = before != nullptr && names == Snapshot::Names::kKeep
                         ? before->FindPool(config.name)
                         : nullptr;
  std::vector<balance::Backend> backends;
  std::vector<net::Address> addresses;
  for (const config::Backend& backend : config.backends) {
    auto address = AddressOf(backend, kept);
    if (!address) {
      return Err("pool." + config.name + ": backend \"" + backend.name +
                 "\": " + address.error().message);
    }
    addresses.push_back(*address);
    backends.push_back({backend.name, backend.weight, StateOf(config.name, backend.name, before),
                        backend.group, static_cast<std::int64_t>(backend.max_connections)});
  }
  const balance::BackendSet::Options options{.policy = PolicyOf(config.balance),
                                             .bounded_load = config.bounded_load,
                                             .slow_start = config.slow_start,
                                             .group_threshold = config.group_threshold,
                                             .panic = config.panic == config::Panic::kTryAll
                                                          ? balance::Panic::kTryAll
                                                          : balance::Panic::kRefuse,
                                             .handshake_rate = config.handshake_rate,
                                             .handshake_burst = config.handshake_burst};
  return std::unique_ptr<Pool>(new Pool{config, balance::BackendSet(options, std::move(backends)),
                                        std::move(addresses),
                                        std::make_unique<FailureNews[]>(config.backends.size())});
}

// `before`: where a known address may be kept from; null: nowhere.
Result<net::Address> AuthAddressOf(const config::Route& route, const Snapshot* before) {
  if (!route.auth) {
    return net::Address();
  }
  if (before != nullptr) {
    const auto known =
        std::find_if(before->routes.begin(), before->routes.end(), [&](const Route& one) {
          return one.config.auth && one.config.auth->host == route.auth->host &&
                 one.config.auth->port == route.auth->port;
        });
    if (known != before->routes.end()) {
      return known->auth;
    }
  }
  auto address = net::Address::Resolve(route.auth->host, route.auth->port);
  return address ? std::move(address)
                 : Err("route " + route.name + ": auth.url: " + address.error().message);
}

// A failure that was not seen for so long is told anew.
constexpr Millis kQuiet = std::chrono::minutes(1);

}  // namespace

bool FailureNews::IsNews(std::string_view failure, Instant now) noexcept {
  const std::uint64_t hash = balance::HashKey(failure);
  const Instant::rep at = now.time_since_epoch().count();
  const Instant::rep before = seen_at_.exchange(at, std::memory_order_relaxed);
  return hash_.exchange(hash, std::memory_order_relaxed) != hash ||
         Instant::duration(at - before) > kQuiet;
}

bool Snapshot::IsTrusted(const net::Address& address) const noexcept {
  return std::any_of(trusted_proxies.begin(), trusted_proxies.end(),
                     [&](const net::Cidr& block) { return block.Contains(address); });
}

const balance::Backend* Pool::FindBackend(std::string_view name) const noexcept {
  const auto& all = backends.backends();
  const auto found = std::find_if(all.begin(), all.end(),
                                  [name](const balance::Backend& one) { return one.name == name; });
  return found == all.end() ? nullptr : &*found;
}

const Pool* Snapshot::FindPool(std::string_view name) const noexcept {
  const auto found = std::find_if(pools.begin(), pools.end(),
                                  [name](const auto& pool) { return pool->config.name == name; });
  return found == pools.end() ? nullptr : found->get();
}

Result<std::shared_ptr<const Snapshot>> Snapshot::Make(const config::Config& config,
                                                       const Snapshot* before, Names names) {
  std::vector<routing::RouteRule> rules;
  for (const config::Route& route : config.routes) {
    rules.push_back({route.host, route.path});
  }
  auto made = std::make_shared<Snapshot>(
      Snapshot{config, routing::RouteTable(std::move(rules)), {}, {}, {}, {}});
  for (const config::Pool& pool : config.pools) {
    auto one = MakePool(pool, before, names);
    if (!one) {
      return tl::unexpected(one.error());
    }
    made->pools.push_back(std::move(*one));
  }
  for (const config::Route& route : config.routes) {
    auto auth = AuthAddressOf(route, names == Names::kKeep ? before : nullptr);
    if (!auth) {
      return tl::unexpected(auth.error());
    }
    const Route* old = RouteBefore(route.name, before);
    Route one{route,
              StateOf(old),
              0,
              RulesOf(route),
              route.close_code != 0 ? route.close_code : config.drain.close_code,
              RouteHeads(route),
              *auth,
              LearnedOf(route, old)};
    while (config.pools[one.pool].name != route.pool) {
      ++one.pool;  // the loader has checked that it exists
    }
    made->routes.push_back(std::move(one));
  }
  for (const std::string& block : config.server.trusted_proxies) {
    auto cidr = net::Cidr::Parse(block);
    if (!cidr) {
      return tl::unexpected(cidr.error());
    }
    made->trusted_proxies.push_back(*cidr);
  }
  made->head_limits = {config.limits.max_head_bytes, config.limits.max_head_fields,
                       config.limits.max_request_line};
  return std::shared_ptr<const Snapshot>(std::move(made));
}

}  // namespace sluice::session
