// One worker: a thread, its event loop, its listening sockets and its sessions.
//
// Made and wired on the control thread, then Run() in a thread of its own. From then on only the
// members marked so may be called from outside; they go through Loop::Post.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "proxy/base/local_ptr.h"
#include "proxy/drain/drain_plan.h"
#include "proxy/net/listener.h"
#include "proxy/session/services.h"
#include "proxy/session/session.h"
#include "proxy/tls/server_context.h"
#include "proxy/tls/tls_transport.h"

namespace sluice::server {

// What all workers share. The counters are touched when a connection begins or ends.
struct Shared {
  std::atomic<std::size_t> connections{0};  // open client connections of all workers
  std::size_t max_connections = 0;
  session::IpCounter ips;
};

class Worker final : private net::AcceptSink, private session::SessionOwner {
 public:
  // `access_log`, `block` and `shared` outlive the worker.
  Worker(std::size_t index, Shared& shared, log::AccessLog& access_log, metrics::WorkerBlock& block,
         LocalPtr<const session::View> view);
  ~Worker();

  // Before Run(): one listening socket; `tag` is the listener's index in the config, `tls` its
  // context or null.
  void AddListener(UniqueFd fd, std::size_t tag, std::unique_ptr<tls::ServerContext> tls);

  // Serves until it has drained.
  void Run();

  // Any thread.
  void StartDrain(const drain::DrainOptions& options);
  void Hurry(Millis limit);

 private:
  struct Listening {
    std::unique_ptr<net::Listener> listener;
    std::unique_ptr<tls::ServerContext> tls;  // null: plain
  };
  struct Close {
    Instant at;
    std::uint64_t session;
  };

  void OnAccept(net::Listener& listener, UniqueFd fd, const net::Address& peer) noexcept override;
  void OnAcceptPaused(net::Listener& listener, int sys_errno) noexcept override;
  void Retire(session::Session& session) noexcept override;

  void OnTick(short what) noexcept;
  void OnDrainTimer(short what) noexcept;
  void StepDrain() noexcept;
  void BeginClosing() noexcept;
  void CutAll() noexcept;
  void MaybeStop() noexcept;
  void ArmDrainTimer(Instant at) noexcept;

  std::size_t index_;
  Shared& shared_;
  net::Loop loop_;
  std::unique_ptr<std::byte[]> scratch_;
  Random random_;
  tls::SharedBuffers tls_buffers_;
  session::Services services_;
  std::vector<Listening> listeners_;  // by tag
  std::vector<std::unique_ptr<session::Session>> sessions_;
  std::uint64_t next_session_ = 0;

  net::Timer tick_;
  Instant tick_due_{};
  std::uint64_t busy_micros_ = 0;

  net::Timer drain_timer_;
  std::unique_ptr<drain::DrainPlan> plan_;
  bool closing_ = false;
  bool accepting_ = true;      // closing the listeners still brings what is in their queues
  std::vector<Close> closes_;  // by time, latest first
  std::unordered_map<std::uint64_t, session::Session*> by_id_;  // while closing
};

}  // namespace sluice::server
