// Connections to backends that wait for their next request: kept behind an answer that was complete,
// handed to the next plain request for the same backend. One per worker, used in its thread only.
//
// Whatever happens to an idle connection, bytes, an end or an error, ends it: nobody has asked for
// anything. The newest is handed out first, so that a crowd that was needed once runs out.
#pragma once

#include <cstddef>
#include <memory>
#include <unordered_map>
#include <vector>

#include "proxy/balance/backend_set.h"
#include "proxy/base/clock.h"
#include "proxy/metrics/blocks.h"
#include "proxy/net/conn.h"
#include "proxy/net/loop.h"

namespace sluice::session {

class IdleConns final : private net::ConnSink {
 public:
  explicit IdleConns(net::Loop& loop) noexcept : loop_(loop) {}

  // Keeps a connection until `until`, unless `most` of that backend wait already or the backend is
  // out of service: then it is closed. `gauge` counts it; both references have to live until it is
  // taken or closed, see Clear. REQUIRES: the conn is open, nothing is pending or unread.
  void Keep(const balance::BackendState& backend, metrics::Gauge& gauge,
            std::unique_ptr<net::Conn> conn, Instant until, std::size_t most) noexcept;

  // One to that backend which from here on reports to `sink`; null when there is none. It may be
  // ending already without our having been told.
  [[nodiscard]] std::unique_ptr<net::Conn> Take(const balance::BackendState& backend,
                                                net::ConnSink& sink, Instant now) noexcept;

  // Closes those whose time is over or whose backend is out of service.
  void Sweep(Instant now) noexcept;

  void CloseTo(const balance::BackendState& backend) noexcept;

  // Closes all: before the view that they belong to goes away.
  void Clear() noexcept;

  [[nodiscard]] bool empty() const noexcept { return idle_.empty(); }

 private:
  struct Idle {
    std::unique_ptr<net::Conn> conn;
    metrics::Gauge* gauge = nullptr;
    Instant until{};
  };

  // net::ConnSink
  void OnReadable(net::Conn& conn) noexcept override { Drop(conn); }
  void OnWritable(net::Conn& conn) noexcept override { Drop(conn); }
  void OnConnected(net::Conn& conn, int) noexcept override { Drop(conn); }

  void Drop(const net::Conn& conn) noexcept;
  void Close(Idle& idle) noexcept;
  // Closes those that `matches` says, of one backend.
  template <class Matches>
  void CloseIf(std::vector<Idle>& list, Matches matches) noexcept;

  net::Loop& loop_;
  std::unordered_map<const balance::BackendState*, std::vector<Idle>> idle_;  // the newest last
};

}  // namespace sluice::session
