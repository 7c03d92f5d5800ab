// The admin listener: HTTP/1.1, plain or over TLS, for Prometheus, probes, people and the command
// line. Runs in the control thread's loop, parses with the same strict parser as the data path,
// never touches a worker. Decides who may ask (access.h); what is answered is the handler's.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "proxy/admin/access.h"
#include "proxy/admin/message.h"
#include "proxy/net/listener.h"
#include "proxy/net/loop.h"
#include "proxy/tls/server_context.h"
#include "proxy/tls/tls_transport.h"

namespace sluice::admin {

class AdminServer final : private net::AcceptSink {
 public:
  // A request with more content is answered 413.
  static constexpr std::size_t kMostContent = 64 * 1024;

  // `socket` listens already. `tls` null: plain. `handler` is kept.
  AdminServer(net::Loop& loop, UniqueFd socket, AdminAccess access,
              std::shared_ptr<const tls::ServerContext> tls, AdminHandler handler);
  ~AdminServer();

  // What holds for requests that are read, and for connections that are made, from now on. Plain
  // and TLS are not exchanged for each other: `tls` is null if it was null before.
  void Renew(AdminAccess access, std::shared_ptr<const tls::ServerContext> tls);

  // Closes the listening socket without accepting what waits in its queue: a successor that was
  // handed the socket serves that. Requests that have begun are answered, then their connections
  // close; the others close now. Idempotent.
  void StopAccepting() noexcept;

  // The listening socket, to be passed on to a successor; -1 after StopAccepting.
  [[nodiscard]] int socket() const noexcept { return socket_; }

  [[nodiscard]] std::size_t connections() const noexcept { return clients_.size(); }

 private:
  class Client;

  void OnAccept(net::Listener& listener, UniqueFd fd, const net::Address& peer) noexcept override;
  void OnAcceptPaused(net::Listener& listener, int sys_errno) noexcept override;
  void Remove(Client& client) noexcept;

  // One accepts, another one reads what a scrape asks of the kernel; the rest in case that workers
  // are quicker than this.
  static constexpr std::size_t kSpareFds = 8;

  net::Loop& loop_;
  net::FdReserve reserve_{kSpareFds};
  AdminAccess access_;
  AdminHandler handler_;
  std::shared_ptr<const tls::ServerContext> tls_;  // shared with the clients that use it
  std::unique_ptr<tls::SharedBuffers> buffers_;    // null: plain
  int socket_;                                     // the listener's
  std::unique_ptr<net::Listener> listener_;        // null once no more are accepted
  std::vector<std::unique_ptr<Client>> clients_;
};

}  // namespace sluice::admin
