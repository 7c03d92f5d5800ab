// Connections of one worker to auth servers that wait for the next question: each serves one after
// the other. Whatever happens to one that waits ends it: nobody has asked for anything.
// Used in the worker's thread only.
#pragma once

#include <memory>
#include <vector>

#include "proxy/base/clock.h"
#include "proxy/net/address.h"
#include "proxy/net/conn.h"
#include "proxy/net/event.h"
#include "proxy/net/loop.h"

namespace sluice::session {

class AuthConns final : private net::ConnSink {
 public:
  explicit AuthConns(net::Loop& loop) noexcept : loop_(loop) {}

  // The connection to `server` that has waited for the shortest time, which reports to `sink` from
  // here on, or null. It may have ended without our having heard of it yet.
  [[nodiscard]] std::unique_ptr<net::Conn> Take(const net::Address& server,
                                                net::ConnSink& sink) noexcept;

  // Keeps one whose answer is over; closes it when so many of that server wait already.
  // REQUIRES: the conn is open, nothing is pending or unread.
  void Keep(const net::Address& server, std::unique_ptr<net::Conn> conn) noexcept;

 private:
  struct Waiting {
    net::Address server;
    std::unique_ptr<net::Conn> conn;
    Instant until{};
  };

  // net::ConnSink
  void OnReadable(net::Conn& conn) noexcept override { Drop(conn); }
  void OnWritable(net::Conn& conn) noexcept override { Drop(conn); }
  void OnConnected(net::Conn& conn, int) noexcept override { Drop(conn); }

  void Drop(const net::Conn& conn) noexcept;
  void Close(std::unique_ptr<net::Conn> conn) noexcept;
  void OnTimer(short what) noexcept;

  net::Loop& loop_;
  std::vector<Waiting> waiting_;  // the newest last
  net::Timer timer_;              // runs while somebody waits, for the one that came first
};

}  // namespace sluice::session
