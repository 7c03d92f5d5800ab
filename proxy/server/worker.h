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
#include <vector>

#include "proxy/base/local_ptr.h"
#include "proxy/drain/drain_plan.h"
#include "proxy/net/listener.h"
#include "proxy/server/backend_closer.h"
#include "proxy/server/close_schedule.h"
#include "proxy/session/idle_conns.h"
#include "proxy/session/services.h"
#include "proxy/session/session.h"
#include "proxy/tls/tls_transport.h"

namespace sluice::server {

// What all workers share. The counters are touched when a connection begins or ends.
struct Shared {
  std::atomic<std::size_t> connections{0};      // open client connections of all workers
  std::atomic<std::size_t> max_connections{0};  // written by the control thread
  std::uint64_t ping_secret = 0;                // set before a worker runs
  // Takes what SessionOwner::OnFailing says on to the control thread. Any thread; set before a
  // worker runs.
  std::function<void(const std::shared_ptr<balance::BackendState>&, metrics::BackendFailure)>
      on_failing;
  session::IpTable ips;
  session::InUse in_use;
};

// What one listener of the configuration is for one worker.
struct WorkerListener {
  std::size_t tag = 0;                         // the server's number of the listener
  LocalPtr<const session::ListenerView> view;  // replaces the one before
  std::vector<UniqueFd> sockets;               // in addition to those it has
};

// What a new configuration changes for one worker.
struct WorkerUpdate {
  LocalPtr<const session::View> view;
  std::vector<WorkerListener> listeners;  // added, or with another view
  std::vector<std::size_t> closed;        // tags
};

class Worker final : private net::AcceptSink, private session::SessionOwner {
 public:
  // What becomes of the listening sockets when the process drains.
  enum class Leave : std::uint8_t {
    kClose,    // nobody else has them: what waits in their queues is served
    kHandOver  // another process has them too and serves what waits; nothing more is accepted here
  };

  // `access_log`, `block` and `shared` outlive the worker.
  Worker(std::size_t index, Shared& shared, log::AccessLog& access_log, metrics::WorkerBlock& block,
         LocalPtr<const session::View> view);
  ~Worker();

  // Before Run().
  void Listen(WorkerListener listener);

  // Serves until it has drained.
  void Run();

  // Any thread.
  void Update(WorkerUpdate update);
  void StartDrain(const drain::DrainOptions& options, Leave leave);
  void Hurry(Millis limit);
  // Replaces an earlier drain of the same backend.
  void StartBackendDrain(const std::shared_ptr<BackendDrain>& drain);
  // What it has not begun to close stays open.
  void StopBackendDrain(const std::shared_ptr<BackendDrain>& drain);
  // Calls `visit` for every session, which may end it, and then `done`; both in the worker's
  // thread. Once the worker has ended, `done` alone, and in the caller's.
  void Visit(std::function<void(session::Session&)> visit, const std::function<void()>& done);

 private:
  struct Listening {
    std::size_t tag = 0;
    LocalPtr<const session::ListenerView> view;
    std::vector<std::unique_ptr<net::Listener>> sockets;
  };

  struct Held {
    std::unique_ptr<session::Session> session;
    Instant look_at = Instant::max();  // when Session::LookAfter is due
  };

  void OnAccept(net::Listener& listener, UniqueFd fd, const net::Address& peer) noexcept override;
  void OnAcceptPaused(net::Listener& listener, int sys_errno) noexcept override;
  void Retire(session::Session& session) noexcept override;
  void OnLasting(session::Session& session) noexcept override;
  void OnLastingOver(session::Session& session) noexcept override;
  void OnFailing(const std::shared_ptr<balance::BackendState>& backend,
                 metrics::BackendFailure why) noexcept override;

  [[nodiscard]] Listening* Find(std::size_t tag) noexcept;
  void CloseListener(std::size_t tag) noexcept;
  void Apply(WorkerUpdate update);
  void DropFormerViews();

  void CutLegsTo(const balance::BackendState& state) noexcept;
  template <class Matches>
  void DropCloser(Matches matches);

  void OnTick(short what) noexcept;
  void OnLookTimer(short what) noexcept;
  void ArmLookTimer() noexcept;
  void LeaveToSuccessor() noexcept;
  void OnDrainTimer(short what) noexcept;
  void StepDrain() noexcept;
  void BeginClosing() noexcept;
  void CutAll() noexcept;
  void MaybeStop() noexcept;
  void ArmDrainTimer(Instant at) noexcept;
  void NoteRemaining() noexcept;

  std::size_t index_;
  Shared& shared_;
  net::Loop loop_;
  std::unique_ptr<std::byte[]> scratch_;
  Random random_;
  tls::SharedBuffers tls_buffers_;
  session::Services services_;
  session::IdleConns idle_conns_{loop_};  // after services_: their TLS needs its view
  std::vector<Listening> listeners_;      // a few: one for each listener of the configuration
  std::vector<Held> sessions_;            // by Session::slot
  std::uint64_t next_session_ = 0;

  net::Timer tick_;
  std::uint64_t busy_micros_ = 0;
  net::Timer look_timer_;
  Instant look_armed_ = Instant::max();  // when look_timer_ fires

  net::Timer drain_timer_;
  std::unique_ptr<drain::DrainPlan> plan_;
  bool closing_ = false;
  bool accepting_ = true;   // closing the listeners still brings what is in their queues
  CloseSchedule schedule_;  // while closing
  std::vector<std::unique_ptr<BackendCloser>> backend_closers_;
};

}  // namespace sluice::server
