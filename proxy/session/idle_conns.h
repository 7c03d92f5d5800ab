// Connections that wait for their next request: to backends, kept behind an answer that was
// complete and handed to the next plain request for the same backend, and to auth servers, for the
// next question of the same route. One per worker, used in its thread only.
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
#include "proxy/base/result.h"
#include "proxy/base/unique_fd.h"
#include "proxy/metrics/blocks.h"
#include "proxy/net/address.h"
#include "proxy/net/conn.h"
#include "proxy/net/loop.h"

namespace sluice::session {

class IdleConns final : private net::ConnSink {
 public:
  // What a connection leads to: the address of the state that a backend, or a route with an auth
  // server, has in the worker's view. It is not looked at.
  using Key = const void*;

  // On what terms one is kept. What is pointed to has to live until it is taken or closed, see
  // Clear.
  struct Terms {
    Instant until{};
    std::size_t most = 0;                            // that wait under one key
    metrics::Gauge* gauge = nullptr;                 // counts it, unless null
    const balance::BackendState* backend = nullptr;  // closed when out of service, unless null
  };

  explicit IdleConns(net::Loop& loop) noexcept : loop_(loop) {}

  // Keeps a connection, or closes it: when the terms are not met, or when it is not at rest, with
  // bytes that wait in it or a direction that has ended. REQUIRES: the conn is open.
  void Keep(Key key, std::unique_ptr<net::Conn> conn, const Terms& terms) noexcept;

  // One that has no input, which from here on reports to `sink`; null when there is none. Its end
  // may be on its way.
  [[nodiscard]] std::unique_ptr<net::Conn> Take(Key key, net::ConnSink& sink, Instant now) noexcept;

  // Begins a new connection, as net::StartConnect does. Where descriptors or memory have run out,
  // all that wait here are closed to make room for it.
  [[nodiscard]] Result<UniqueFd> StartConnect(const net::Address& address) noexcept;

  // Closes those whose time is over or whose backend is out of service.
  void Sweep(Instant now) noexcept;

  void CloseTo(Key key) noexcept;

  // Closes all: before the view that they belong to goes away.
  void Clear() noexcept;

 private:
  struct Idle {
    std::unique_ptr<net::Conn> conn;
    Instant until{};
    metrics::Gauge* gauge = nullptr;
    const balance::BackendState* backend = nullptr;
  };

  // net::ConnSink
  void OnReadable(net::Conn& conn) noexcept override { Drop(conn); }
  void OnWritable(net::Conn& conn) noexcept override { Drop(conn); }
  void OnConnected(net::Conn& conn, int) noexcept override { Drop(conn); }

  void Drop(const net::Conn& conn) noexcept;
  void Close(Idle& idle) noexcept;
  // Closes those that `matches` says, of one key.
  template <class Matches>
  void CloseIf(std::vector<Idle>& list, Matches matches) noexcept;

  net::Loop& loop_;
  std::unordered_map<Key, std::vector<Idle>> idle_;  // the newest last
};

}  // namespace sluice::session
