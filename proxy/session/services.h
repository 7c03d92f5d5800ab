// What a worker lends to its sessions. One per worker; outlives every session of it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "proxy/base/local_ptr.h"
#include "proxy/base/random.h"
#include "proxy/http/date.h"
#include "proxy/http/parser.h"
#include "proxy/log/access_log.h"
#include "proxy/metrics/blocks.h"
#include "proxy/net/loop.h"
#include "proxy/session/ip_table.h"
#include "proxy/session/snapshot.h"
#include "proxy/tls/client_context.h"
#include "proxy/tls/server_context.h"

namespace sluice::tls {
struct SharedBuffers;
}

namespace sluice::session {

class IdleConns;
class Session;

// A listener as one worker knows it. A session keeps the one it came through, so that a reload can
// exchange certificates, or close the listener, without touching it.
struct ListenerView : LocallyShared {
  std::string name;
  std::unique_ptr<tls::ServerContext> tls;  // null: plain
  metrics::ListenerBlock* block = nullptr;
  bool proxy_protocol = false;  // each connection begins with the header of a trusted proxy
  std::optional<config::Redirect> redirect;  // set: it serves nothing and sends clients elsewhere

  [[nodiscard]] bool is_tls() const noexcept { return tls != nullptr; }
};

// TLS to the backends of one pool, as one thread has it.
struct PoolTls {
  std::shared_ptr<const tls::ClientContext> context;            // null: plain
  std::vector<std::unique_ptr<tls::Destination>> destinations;  // by backend

  [[nodiscard]] bool is_tls() const noexcept { return context != nullptr; }
};

// A snapshot with this worker's counters for everything in it. A session takes the worker's when a
// request begins and keeps it for as long as that lasts, the whole of a WebSocket session, so that
// a reload can swap the worker's without touching it.
struct View : LocallyShared {
  struct RouteSeries {
    metrics::RouteBlock* block = nullptr;
    std::vector<metrics::Gauge*> sessions_open;  // by backend of the route's pool
  };

  std::shared_ptr<const Snapshot> snapshot;
  std::vector<RouteSeries> routes;                            // parallel to snapshot->routes
  std::vector<std::vector<metrics::BackendBlock*>> backends;  // [pool][backend]
  std::vector<PoolTls> tls;                                   // parallel to snapshot->pools
  std::vector<std::shared_ptr<const void>> kept;              // what those of backends point into
};

// What a worker is told by its sessions.
class SessionOwner {
 public:
  // The session is closed; it is freed at the end of this turn.
  virtual void Retire(Session& session) noexcept = 0;

  // The session has become one that lasts; see Session::lasting.
  virtual void OnLasting(Session& session) noexcept = 0;
  // What made it last is over, and the session goes on.
  virtual void OnLastingOver(Session& session) noexcept = 0;

  // Too much has gone wrong in a row at one backend, at last `why`. Its own or other sessions saw
  // the rest.
  virtual void OnFailing(const std::shared_ptr<balance::BackendState>& backend,
                         metrics::BackendFailure why) noexcept = 0;

 protected:
  ~SessionOwner() = default;
};

// How far a drain of the process has come, as sessions need to know it.
enum class Intake : std::uint8_t {
  kOpen,            // everything is served
  kRefuseUpgrades,  // new upgrades are refused, plain HTTP is served
  kClosing,         // besides, no connection is kept alive
  kLastRequest,     // another process has the listeners: upgrades too are served to whoever is
                    // connected here, but no connection is kept alive
};

[[nodiscard]] constexpr bool KeepsAlive(Intake intake) noexcept {
  return intake == Intake::kOpen || intake == Intake::kRefuseUpgrades;
}

// So many TLS handshakes are taken one step further in a turn of the loop. One costs some 400 us:
// a storm of them must not stall the sessions that live already.
class HandshakeRation {
 public:
  [[nodiscard]] bool HasLeft(std::uint64_t turn) const noexcept {
    return turn != turn_ || left_ > 0;
  }

  // True if one more may go on in this turn.
  [[nodiscard]] bool Take(std::uint64_t turn) noexcept {
    if (turn != turn_) {
      turn_ = turn;
      left_ = kPerTurn;
    }
    if (left_ == 0) {
      return false;
    }
    --left_;
    return true;
  }

 private:
  static constexpr unsigned kPerTurn = 4;
  std::uint64_t turn_ = 0;
  unsigned left_ = kPerTurn;
};

// What one read takes of a stream whose other side may not take it all at once: the rest is kept in
// memory. A stream that flows is read in pieces as large as Services::scratch.
inline constexpr std::size_t kUsualRead = 64 * 1024;

// What the header of a trusted proxy has told of a connection, besides the client's address, which
// is Core::peer.
struct Introduction {
  std::string proxy;         // address and port of the proxy
  net::Address destination;  // what the client connected to
};

// A loop whose once-a-second timer is later than this has stood still, and what its peers are
// blamed for may be our own doing.
inline constexpr Millis kStall{1'000};

// What the sessions of all workers use together. Written when an upgrade begins or ends, and in
// steps of some size when bytes wait.
struct InUse {
  std::atomic<std::size_t> handshakes{0};  // upgrades between their head and the answer
  std::atomic<std::int64_t> buffered{0};  // bytes that wait for slow peers; see Loop::ShareBuffered
};

struct Services {
  net::Loop& loop;
  std::span<std::byte> scratch;          // input of the turn; at least kUsualRead
  http::RequestParser request_parser;    // for heads that arrive whole
  http::ResponseParser response_parser;  // the same
  Random& random;
  log::AccessLog& access_log;
  IpTable& ips;
  InUse& in_use;
  metrics::WorkerBlock& block;
  SessionOwner& owner;
  LocalPtr<const View> view;
  Intake intake = Intake::kOpen;
  HandshakeRation handshakes{};          // with clients
  HandshakeRation backend_handshakes{};  // one of its own: clients that come must not keep those
                                         // who wait for their backend from getting there
  Instant tick_due{};                    // when the worker's once-a-second timer is to run next
  Instant stalled_at{};           // when that was last over a second late: the loop had stood still
  std::uint64_t ping_secret = 0;  // what this process's pings are told from others by
  tls::SharedBuffers* tls_buffers = nullptr;  // never null in a worker
  IdleConns* idle_conns = nullptr;            // the same
  // Of the open sessions that have one, by id. Kept here because a pointer in each session would
  // cost the many that have none.
  std::unordered_map<std::uint64_t, Introduction> introductions{};
  // The same: when what an auth server has allowed them ends.
  std::unordered_map<std::uint64_t, Instant> auth_expiries{};
  // Views before today's with backends that have left the configuration and drain; newest last.
  std::vector<LocalPtr<const View>> former_views{};
  http::DateClock date{};
};

}  // namespace sluice::session
