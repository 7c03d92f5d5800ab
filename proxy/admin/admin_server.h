// The admin listener: plain HTTP/1.1 for Prometheus, probes and people. Runs in the control
// thread's loop, parses with the same strict parser as the data path, never touches a worker.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/http/head.h"
#include "proxy/net/listener.h"
#include "proxy/net/loop.h"

namespace sluice::admin {

struct AdminReply {
  int status = 200;
  std::string_view content_type = "text/plain; charset=utf-8";  // static
  std::string body;
};

// Answers a GET or HEAD of `path`. Called in the loop's thread.
using AdminHandler = std::function<AdminReply(std::string_view path)>;

class AdminServer final : private net::AcceptSink {
 public:
  // `socket` listens already. `handler` is kept.
  AdminServer(net::Loop& loop, UniqueFd socket, AdminHandler handler);
  ~AdminServer();

 private:
  class Client;

  void OnAccept(net::Listener& listener, UniqueFd fd, const net::Address& peer) noexcept override;
  void OnAcceptPaused(net::Listener& listener, int sys_errno) noexcept override;
  void Remove(Client& client) noexcept;

  net::Loop& loop_;
  AdminHandler handler_;
  net::Listener listener_;
  std::vector<std::unique_ptr<Client>> clients_;
};

}  // namespace sluice::admin
