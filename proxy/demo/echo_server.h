// A small WebSocket echo backend that also answers a few plain HTTP requests: what stands behind
// Sluice in `sluice demo` (three of them) and in the containers (`sluice echo`).
//
// WebSocket, on any path: each text or binary message comes back whole, as it was; pings are
// answered; a CLOSE is answered with its code and then FIN. No extensions. A client that offers
// the subprotocol `demo.sluice` gets it, and one text message {"backend":"NAME"} before anything
// else.
// HTTP: GET / (the demo page), GET /whoami, GET /healthz, POST /echo, and HEAD; else 404.
//
// Owned by whoever owns the loop, used in the loop's thread only.
// Source: RFC 6455, RFC 9112.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/unique_fd.h"
#include "proxy/net/event.h"
#include "proxy/net/listener.h"
#include "proxy/net/loop.h"

namespace sluice::demo {

// The subprotocol that the demo page offers.
inline constexpr std::string_view kDemoProtocol = "demo.sluice";

// What may name an EchoServer: 1 to 64 letters, digits and "-._", so that the name needs no
// escaping in a header field or in JSON.
[[nodiscard]] bool IsEchoName(std::string_view name) noexcept;

class EchoServer final : private net::AcceptSink {
 public:
  // Bounds of what a client can make a session hold. Beyond: CLOSE 1009, status 413.
  static constexpr std::size_t kMaxMessageBytes = std::size_t{16} * 1024 * 1024;
  static constexpr std::size_t kMaxBodyBytes = std::size_t{1024} * 1024;

  // Serves what arrives at `listening` (see net::Listen) while `loop` runs. `loop` outlives this.
  // REQUIRES: IsEchoName(name).
  EchoServer(net::Loop& loop, std::string name, UniqueFd listening);

  // Closes every socket at once, without a CLOSE frame; see Drain() for the polite way.
  // REQUIRES: the loop is not inside one of our callbacks.
  ~EchoServer();

  EchoServer(const EchoServer&) = delete;
  EchoServer& operator=(const EchoServer&) = delete;

  // Stops listening and ends every session in order: CLOSE 1001 and FIN to WebSocket clients, the
  // answer under way and FIN to the others. Calls `on_empty` when the last one is gone, possibly
  // before this returns; a client that does not let go is cut 5 s after it last took a byte.
  // `on_empty` must not destroy the server. Call it once.
  void Drain(std::function<void()> on_empty = {});

  // Open client connections.
  [[nodiscard]] std::size_t sessions() const noexcept { return sessions_.size(); }

  [[nodiscard]] const std::string& name() const noexcept { return name_; }

 private:
  class Session;

  void OnAccept(net::Listener& listener, UniqueFd fd, const net::Address& peer) noexcept override;
  void OnAcceptPaused(net::Listener& listener, int sys_errno) noexcept override;
  void OnTick(short what) noexcept;
  void Retire(Session& session) noexcept;

  net::Loop& loop_;
  std::string name_;
  std::unique_ptr<std::byte[]> scratch_;  // what a read goes into; no session keeps a view of it
  std::vector<std::unique_ptr<Session>> sessions_;
  net::Timer tick_;  // runs while there are sessions
  bool draining_ = false;
  std::function<void()> on_empty_;
  net::Listener listener_;  // last: the first to go
};

}  // namespace sluice::demo
