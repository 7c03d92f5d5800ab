// The configuration in the form that sessions use it: routes compiled, pools with their shared
// state, backends resolved. Immutable but for the atomics of the backends; all workers share one
// through std::shared_ptr, and a session keeps the one it began with.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/balance/backend_set.h"
#include "proxy/base/clock.h"
#include "proxy/base/result.h"
#include "proxy/config/config.h"
#include "proxy/http/parser.h"
#include "proxy/net/address.h"
#include "proxy/routing/affinity.h"
#include "proxy/routing/route_table.h"
#include "proxy/session/learned_tokens.h"
#include "proxy/session/route_heads.h"
#include "proxy/session/settled_keys.h"

namespace sluice::session {

// Whether a failure is news: another one than the last, or the first in a minute. So a log tells it
// once and not for every connection. Thread-safe.
class FailureNews {
 public:
  [[nodiscard]] bool IsNews(std::string_view failure, Instant now) noexcept;

 private:
  std::atomic<std::uint64_t> hash_{0};
  std::atomic<Instant::rep> seen_at_{0};
};

struct Pool {
  config::Pool config;
  balance::BackendSet backends;
  std::vector<net::Address> addresses;          // parallel to backends
  std::unique_ptr<FailureNews[]> tls_failures;  // the same

  // The backend of that name, or null.
  [[nodiscard]] const balance::Backend* FindBackend(std::string_view name) const noexcept;
};

// What all workers know of one route. Kept across a reload as long as its name stays.
struct RouteState {
  std::atomic<std::size_t> open{0};  // its WebSocket sessions, and upgrades under way
  FailureNews auth_failures;
  SettledKeys settled;
};

struct Route {
  config::Route config;
  std::shared_ptr<RouteState> state;
  std::size_t pool = 0;  // into Snapshot::pools
  std::vector<routing::AffinityRule> affinity;
  std::uint16_t close_code = 1012;
  RouteHeads heads;
  net::Address auth;  // of its auth server; unspecified without one
  // Null without `learn`. Kept across a reload like `state`, its entries even where its bounds
  // change.
  std::shared_ptr<LearnedTokens> learned;
};

struct Snapshot {
  // What is done about the host names of backends and auth servers.
  enum class Names : std::uint8_t {
    kLookUp,  // all are resolved: blocks
    kKeep,    // one that `before` has at the same host and port keeps its address
  };

  // Control thread only. A backend that `before` has in a pool of the same name keeps its state:
  // its open sessions, and that it is drained; so does a route. A backend that a running process
  // gets anew starts slowly, unless its pool had none at all.
  [[nodiscard]] static Result<std::shared_ptr<const Snapshot>> Make(
      const config::Config& config, const Snapshot* before = nullptr, Names names = Names::kLookUp);

  // The pool of that name, or null.
  [[nodiscard]] const Pool* FindPool(std::string_view name) const noexcept;

  // True for an address whose forwarding fields are believed.
  [[nodiscard]] bool IsTrusted(const net::Address& address) const noexcept;

  config::Config config;
  routing::RouteTable table;
  std::vector<Route> routes;                 // parallel to config.routes
  std::vector<std::unique_ptr<Pool>> pools;  // parallel to config.pools
  std::vector<net::Cidr> trusted_proxies;
  http::HeadLimits head_limits;
};

}  // namespace sluice::session
