// What the phases of one session share: the two conns, the counters and the facts that end up in
// the access log. Owned by Session; Exchange and Relay borrow it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "proxy/base/clock.h"
#include "proxy/base/local_ptr.h"
#include "proxy/net/conn.h"
#include "proxy/session/request_facts.h"
#include "proxy/session/services.h"

namespace sluice::session {

// A leg counted at its backend: taken when a backend is picked, given back when it is left. The
// state outlives it: the session's view keeps it.
class LegCount {
 public:
  LegCount() = default;
  // Counts none when `most` are open already; 0: any number. The backend never has more, however
  // many workers take legs to it at once.
  LegCount(balance::BackendState& state, std::int64_t most) noexcept {
    if (most == 0) {
      state.open.fetch_add(1, std::memory_order_relaxed);
    } else {
      std::int64_t open = state.open.load(std::memory_order_relaxed);
      do {
        if (open >= most) {
          return;
        }
      } while (!state.open.compare_exchange_weak(open, open + 1, std::memory_order_relaxed));
    }
    state_ = &state;
  }
  ~LegCount() { Reset(); }
  LegCount(LegCount&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  LegCount& operator=(LegCount&& other) noexcept {
    if (this != &other) {
      Reset();
      state_ = std::exchange(other.state_, nullptr);
    }
    return *this;
  }
  LegCount(const LegCount&) = delete;
  LegCount& operator=(const LegCount&) = delete;

  // Of the backend that the leg is counted at; null: no leg.
  [[nodiscard]] const balance::BackendState* state() const noexcept { return state_; }

  void Reset() noexcept {
    if (state_ != nullptr) {
      state_->open.fetch_sub(1, std::memory_order_relaxed);
      state_ = nullptr;
    }
  }

 private:
  balance::BackendState* state_ = nullptr;
};

// A client that has ended its direction and to which nothing moves for so long is taken for gone.
inline constexpr Millis kGoneAfter{750};

// How often it is looked whether a client that is not read has left: nothing else tells. Together
// they are less than a second.
inline constexpr Millis kLookInterval{200};

struct Core {
  Core(Services& its_services, LocalPtr<const ListenerView> its_listener, net::ConnSink& sink)
      : services(its_services),
        view(its_services.view),
        listener(std::move(its_listener)),
        client(its_services.loop, sink) {}

  Services& services;
  LocalPtr<const View> view;              // before backend: its TLS session needs the context
  LocalPtr<const ListenerView> listener;  // before client: its TLS session needs the context
  std::uint64_t id = 0;
  net::Address peer;          // the client: as a PROXY header says, or else the socket's other end
  bool introduced = false;    // the former
  bool peer_unknown = false;  // the latter, though it passes the connection on for somebody else
  net::Conn client;
  std::unique_ptr<net::Conn> backend;  // the current leg, if there is one
  LegCount leg_count;
  net::Timer timer;  // the deadline of the phase that is on; whoever begins a phase sets it anew

  // Null: there is none.
  [[nodiscard]] const Introduction* introduction() const noexcept {
    return introduced ? &services.introductions.find(id)->second : nullptr;
  }
  [[nodiscard]] const config::Config& config() const noexcept { return view->snapshot->config; }
  // Connections are kept for those only: another view's do not outlive what their TLS needs of it.
  [[nodiscard]] bool has_todays_view() const noexcept { return view.get() == services.view.get(); }
  [[nodiscard]] const Route& route(const RequestFacts& facts) const noexcept {
    return view->snapshot->routes[facts.route];
  }
  [[nodiscard]] const Pool& pool(const RequestFacts& facts) const noexcept {
    return *view->snapshot->pools[route(facts).pool];
  }
  [[nodiscard]] const PoolTls& pool_tls(const RequestFacts& facts) const noexcept {
    return view->tls[route(facts).pool];
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

  // The source is not read while more than this waits for the destination. What a read has brought
  // while nothing waited yet is held whole: kUsualRead, or the whole scratch buffer of a stream
  // that flowed until then, or what one splice left in a pipe.
  [[nodiscard]] std::size_t high_watermark() const noexcept {
    return config().limits.out_buffer / 2;
  }
  [[nodiscard]] std::size_t low_watermark() const noexcept {
    return config().limits.out_buffer / 4;
  }

  // More waits for slow peers, of all sessions together, than may.
  [[nodiscard]] bool is_memory_short() const noexcept {
    const std::uint64_t most = config().limits.max_buffered;
    return most != 0 && services.in_use.buffered.load(std::memory_order_relaxed) >
                            static_cast<std::int64_t>(most);
  }
  // What waits for `conn` is so much that its source is not to be read. While memory is short, that
  // is anything.
  [[nodiscard]] bool IsFull(const net::Conn& conn) const noexcept {
    const std::size_t pending = conn.pending();
    return pending > 0 && (pending > high_watermark() || is_memory_short());
  }
  // And so little that the source may be read again.
  [[nodiscard]] bool HasRoom(const net::Conn& conn) const noexcept {
    return conn.pending() <= (is_memory_short() ? 0 : low_watermark());
  }

  // What becomes of a backend that fails (see balance::FailureCount). The first two are about
  // attempts at something new, the others about the ends of sessions.
  void NoteFailure(const RequestFacts& facts, metrics::BackendFailure why) noexcept;
  void NoteSuccess(const RequestFacts& facts) noexcept;
  void NoteLoss(const RequestFacts& facts, metrics::BackendFailure why) noexcept;
  void NoteOrderlyEnd(const RequestFacts& facts) noexcept;

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
// into `core` and `facts`. Not worth calling while the log is off.
[[nodiscard]] log::AccessRecord BaseRecord(const Core& core, const RequestFacts& facts,
                                           Instant now);

}  // namespace sluice::session
