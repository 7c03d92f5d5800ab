// What the phases of one session share: the two conns, the counters and the facts that end up in
// the access log. Owned by Session; Exchange and Relay borrow it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "proxy/base/clock.h"
#include "proxy/net/conn.h"
#include "proxy/session/services.h"

namespace sluice::session {

// Facts about the request being served. Kept from its head to its access-log line.
struct RequestFacts {
  std::string method;
  std::string host;
  std::string path;
  std::string query;
  std::string origin;
  std::string user_agent;
  std::string forwarded_for;  // X-Forwarded-For as it came
  std::string request_id;
  std::string client_ip;  // as forwarded: behind a trusted proxy it is not the peer
  std::string subprotocol;
  std::string extensions;
  Instant began{};
  Millis handshake{-1};
  Millis backend_connect{-1};
  std::size_t route = 0;    // into the snapshot's routes; meaningful if has_route
  std::size_t backend = 0;  // into the pool's backends; meaningful if has_backend
  bool has_route = false;
  bool has_backend = false;
  std::uint64_t bytes_in = 0;  // content of a plain request and of its response, without framing
  std::uint64_t bytes_out = 0;
  int status = 0;             // what the client was answered
  std::string_view affinity;  // static: where the affinity key came from
  std::string_view reason;    // static: why it was refused or failed; empty when all went well
  unsigned attempts = 0;
};

// A leg counted at its backend: taken when a backend is picked, given back when it is left.
class LegCount {
 public:
  LegCount() = default;
  explicit LegCount(std::shared_ptr<balance::BackendState> state) : state_(std::move(state)) {
    state_->open.fetch_add(1, std::memory_order_relaxed);
  }
  ~LegCount() { Reset(); }
  LegCount(LegCount&& other) noexcept = default;
  LegCount& operator=(LegCount&& other) noexcept {
    if (this != &other) {
      Reset();
      state_ = std::move(other.state_);
    }
    return *this;
  }
  LegCount(const LegCount&) = delete;
  LegCount& operator=(const LegCount&) = delete;

  void Reset() noexcept {
    if (state_) {
      state_->open.fetch_sub(1, std::memory_order_relaxed);
      state_.reset();
    }
  }

 private:
  std::shared_ptr<balance::BackendState> state_;
};

struct Core {
  Core(Services& its_services, net::ConnSink& sink)
      : services(its_services),
        view(its_services.view),
        client(its_services.loop, sink),
        conn_sink(sink) {}

  Services& services;
  std::shared_ptr<const View> view;
  std::uint64_t id = 0;
  std::size_t listener = 0;
  net::Address peer;
  net::Conn client;
  std::unique_ptr<net::Conn> backend;  // the current leg, if there is one
  LegCount leg_count;
  net::ConnSink& conn_sink;  // what a new backend conn reports to

  [[nodiscard]] const config::Config& config() const noexcept { return view->snapshot->config; }
  [[nodiscard]] const config::Listener& listener_config() const noexcept {
    return config().listeners[listener];
  }
  [[nodiscard]] const Route& route(const RequestFacts& facts) const noexcept {
    return view->snapshot->routes[facts.route];
  }
  [[nodiscard]] const Pool& pool(const RequestFacts& facts) const noexcept {
    return *view->snapshot->pools[route(facts).pool];
  }
  [[nodiscard]] metrics::RouteBlock& route_block(const RequestFacts& facts) const noexcept {
    return *view->routes[facts.route].block;
  }
  [[nodiscard]] metrics::BackendBlock& backend_block(const RequestFacts& facts) const noexcept {
    return *view->backends[route(facts).pool][facts.backend];
  }
  [[nodiscard]] net::Conn& conn(Side side) noexcept {
    return side == Side::kClient ? client : *backend;
  }

  // The source is not read while more than this waits for the destination. With one full scratch
  // buffer on top it bounds what a side may hold at limits.out_buffer and a half.
  [[nodiscard]] std::size_t high_watermark() const noexcept {
    return config().limits.out_buffer / 2;
  }
  [[nodiscard]] std::size_t low_watermark() const noexcept {
    return config().limits.out_buffer / 4;
  }

  // Closes the backend leg, if any, and lets the graveyard free it.
  void DropBackend() noexcept {
    if (backend) {
      backend->Close();
      services.loop.Bury(std::move(backend));
    }
    leg_count.Reset();
  }
};

// Fills what every access-log record of this session has in common. The views in the record point
// into `core`, `facts` and `peer_ip`.
[[nodiscard]] log::AccessRecord BaseRecord(const Core& core, const RequestFacts& facts,
                                           const std::string& peer_ip, Instant now);

}  // namespace sluice::session
