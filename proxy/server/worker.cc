#include "proxy/server/worker.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <ctime>
#include <set>
#include <utility>

namespace sluice::server {
namespace {

// With half of it, bulk over TLS takes twice the system calls and a tenth (to the client) to a
// third (from it) more CPU. Twice of it saves little more, and other sessions wait longer for their
// turn.
constexpr std::size_t kScratch = 128 * 1024;
constexpr Millis kTick{1'000};

// Sessions are looked after at this grain, so that one walk over them serves many.
constexpr Millis kLookGrain{50};

// So many connections above the limit are let in to be told so; more are closed at once, before a
// TLS handshake is spent on them. They fit into the descriptors that are kept free.
constexpr std::size_t kTold = 16;

// Ids are unique in the process without any shared counter: the worker's index is above the
// 40 bits of its own count, and the whole stays below 2^53, where JSON readers keep it exact.
constexpr unsigned kIdShift = 40;

std::uint64_t ThreadCpuMicros() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec) / 1'000U;
}

}  // namespace

Worker::Worker(std::size_t index, Shared& shared, log::AccessLog& access_log,
               metrics::WorkerBlock& block, LocalPtr<const session::View> view)
    : index_(index),
      shared_(shared),
      scratch_(new std::byte[kScratch]),
      random_(std::random_device()()),
      services_{loop_,
                std::span(scratch_.get(), kScratch),
                http::RequestParser(view->snapshot->head_limits),
                http::ResponseParser(view->snapshot->head_limits),
                random_,
                access_log,
                shared.ips,
                shared.in_use,
                block,
                *this,
                std::move(view),
                session::Intake::kOpen,
                session::HandshakeRation(),
                session::HandshakeRation(),
                Instant(),
                Instant(),
                shared.ping_secret,
                &tls_buffers_,
                &idle_conns_} {
  loop_.ShareBuffered(shared.in_use.buffered);
}

Worker::~Worker() {
  assert(sessions_.empty());
}

void Worker::Run() {
  services_.tick_due = Now() + kTick;
  tick_.Arm<&Worker::OnTick>(loop_.base(), kTick, this);
  loop_.Run();
  tick_.Cancel();
  look_timer_.Cancel();
}

// Configuration.

Worker::Listening* Worker::Find(std::size_t tag) noexcept {
  const auto found = std::find_if(listeners_.begin(), listeners_.end(),
                                  [tag](const Listening& one) { return one.tag == tag; });
  return found == listeners_.end() ? nullptr : &*found;
}

void Worker::Listen(WorkerListener listener) {
  Listening* one = Find(listener.tag);
  if (one == nullptr) {
    one = &listeners_.emplace_back();
    one->tag = listener.tag;
  }
  one->view = std::move(listener.view);
  net::AcceptSink& sink = *this;  // privately ours: make_unique could not convert it
  for (UniqueFd& fd : listener.sockets) {
    one->sockets.push_back(
        std::make_unique<net::Listener>(loop_, std::move(fd), listener.tag, sink));
  }
}

void Worker::CloseListener(std::size_t tag) noexcept {
  Listening* one = Find(tag);
  if (one == nullptr) {
    return;
  }
  for (const auto& socket : one->sockets) {
    socket->Close();  // may accept what waits, so `one` has to be there still
  }
  listeners_.erase(listeners_.begin() + (one - listeners_.data()));
}

void Worker::Update(WorkerUpdate update) {
  // The queue copies what it holds, and what it holds here cannot be copied.
  auto box = std::make_shared<WorkerUpdate>(std::move(update));
  loop_.Post([this, box] { Apply(std::move(*box)); });
}

void Worker::Apply(WorkerUpdate update) {
  if (plan_) {
    return;  // on the way out nothing is taken up any more
  }
  const http::HeadLimits& limits = update.view->snapshot->head_limits;
  services_.request_parser = http::RequestParser(limits);
  services_.response_parser = http::ResponseParser(limits);
  idle_conns_.Clear();  // other addresses, other TLS, or none
  services_.former_views.push_back(std::exchange(services_.view, std::move(update.view)));
  DropFormerViews();
  for (WorkerListener& listener : update.listeners) {
    Listen(std::move(listener));
  }
  for (const std::size_t tag : update.closed) {
    CloseListener(tag);
  }
}

// Keeps those with a backend that today's view has not, as long as it drains: before its drain
// begins here too, which is a moment later.
void Worker::DropFormerViews() {
  if (services_.former_views.empty()) {
    return;
  }
  std::set<const balance::BackendState*> todays;
  for (const auto& pool : services_.view->snapshot->pools) {
    for (const balance::Backend& backend : pool->backends.backends()) {
      todays.insert(backend.state.get());
    }
  }
  const auto is_leaving = [&](const balance::Backend& backend) {
    return todays.count(backend.state.get()) == 0 &&
           (!backend.state->draining.load(std::memory_order_relaxed) ||
            !backend.state->IsDrainedPast(1.0, Now()));
  };
  const auto is_needed = [&](const session::Snapshot& former) {
    return std::any_of(former.pools.begin(), former.pools.end(), [&](const auto& pool) {
      const auto& all = pool->backends.backends();
      return std::any_of(all.begin(), all.end(), is_leaving);
    });
  };
  auto& former = services_.former_views;
  former.erase(std::remove_if(former.begin(), former.end(),
                              [&](const auto& one) { return !is_needed(*one->snapshot); }),
               former.end());
}

// Connections.

void Worker::OnAccept(net::Listener& listener, UniqueFd fd, const net::Address& peer) noexcept {
  const LocalPtr<const session::ListenerView>& view = Find(listener.tag())->view;
  view->block->accepts.Add();
  const std::size_t open = shared_.connections.fetch_add(1, std::memory_order_relaxed) + 1;
  const std::size_t most = shared_.max_connections.load(std::memory_order_relaxed);
  if (open > most + kTold) {
    shared_.connections.fetch_sub(1, std::memory_order_relaxed);
    services_.block.rate_limited[metrics::Refused::kConnections].Add();
    return;
  }
  const std::uint64_t id = static_cast<std::uint64_t>(index_) << kIdShift | ++next_session_;
  auto session = std::make_unique<session::Session>(services_, id, view, peer, open > most);
  session->slot = static_cast<std::uint32_t>(sessions_.size());
  session::Session& added = *session;
  sessions_.push_back({std::move(session), Instant::max()});
  added.Start(std::move(fd));
}

void Worker::OnAcceptPaused(net::Listener&, int sys_errno) noexcept {
  using metrics::AcceptPause;
  const AcceptPause reason = sys_errno == EMFILE   ? AcceptPause::kEmfile
                             : sys_errno == ENFILE ? AcceptPause::kEnfile
                             : sys_errno == ENOMEM ? AcceptPause::kEnomem
                                                   : AcceptPause::kEnobufs;
  services_.block.accept_paused[reason].Add();
  idle_conns_.Clear();  // their descriptors are worth more to whoever waits
}

void Worker::OnLasting(session::Session& session) noexcept {
  if (const Instant first = session.FirstLook(); first != Instant::max()) {
    sessions_[session.slot].look_at = first;
    if (first < look_armed_) {
      look_armed_ = first;
      ArmLookTimer();
    }
  }
  if (closing_) {
    schedule_.AddLate(session, *plan_, loop_.now(), random_);
    ArmDrainTimer(std::min(schedule_.next(), plan_->kill_at()));
  }
  for (const auto& closer : backend_closers_) {
    closer->OnLasting(session);
  }
}

void Worker::OnLastingOver(session::Session& session) noexcept {
  sessions_[session.slot].look_at = Instant::max();
  schedule_.Forget(session.id());
  for (const auto& closer : backend_closers_) {
    if (closer->OnOver(session) && !closing_) {  // else it is counted when it ends
      services_.block.drain_closed[0].Add();
      NoteRemaining();
    }
  }
}

void Worker::OnFailing(const std::shared_ptr<balance::BackendState>& backend,
                       metrics::BackendFailure why) noexcept {
  shared_.on_failing(backend, why);
}

void Worker::Retire(session::Session& session) noexcept {
  shared_.connections.fetch_sub(1, std::memory_order_relaxed);
  bool drained = closing_;
  if (closing_) {
    schedule_.Forget(session.id());
  }
  for (const auto& closer : backend_closers_) {
    drained = closer->OnOver(session) || drained;
  }
  if (drained) {
    services_.block.drain_closed[session.was_forced() ? 1 : 0].Add();
  }
  const std::size_t slot = session.slot;
  std::unique_ptr<session::Session> dead = std::move(sessions_[slot].session);
  if (slot + 1 != sessions_.size()) {
    sessions_[slot] = std::move(sessions_.back());
    sessions_[slot].session->slot = session.slot;
  }
  sessions_.pop_back();
  loop_.Bury(std::move(dead));
  if (drained) {
    NoteRemaining();
  }
  if (closing_) {
    MaybeStop();
  }
}

void Worker::Visit(std::function<void(session::Session&)> visit,
                   const std::function<void()>& done) {
  const bool posted = loop_.Post([this, visit = std::move(visit), done] {
    // From the back: one that ends is replaced by the last one, which was visited already.
    for (std::size_t i = sessions_.size(); i-- > 0;) {
      visit(*sessions_[i].session);
    }
    done();
  });
  if (!posted) {
    done();  // the worker has ended, and has no session any more
  }
}

// Once a second.

void Worker::OnTick(short) noexcept {
  const Instant now = Now();
  const Instant::duration late = now - services_.tick_due;
  services_.block.loop_lag_seconds.Observe(
      std::max(0.0, std::chrono::duration<double>(late).count()));
  if (late > session::kStall) {
    services_.stalled_at = now;
  }
  const std::uint64_t busy = ThreadCpuMicros();
  services_.block.loop_busy_micros.Add(busy - busy_micros_);
  busy_micros_ = busy;
  services_.block.out_buffer_bytes.Set(loop_.buffered());
  ++tls_buffers_.second;
  idle_conns_.Sweep(now);
  services_.tick_due = now + kTick;
  tick_.Arm<&Worker::OnTick>(loop_.base(), kTick, this);
}

// Age and heartbeats: one timer for all sessions, set to the first that wants to be looked after.

void Worker::ArmLookTimer() noexcept {
  const auto delay = std::chrono::ceil<Millis>(look_armed_ - loop_.now());
  look_timer_.Arm<&Worker::OnLookTimer>(loop_.base(), std::max(delay, kLookGrain), this);
}

void Worker::OnLookTimer(short) noexcept {
  const Instant now = loop_.now();
  Instant next = Instant::max();
  for (std::size_t i = sessions_.size(); i-- > 0;) {
    if (sessions_[i].look_at <= now) {
      const std::size_t before = sessions_.size();
      sessions_[i].look_at = Instant::max();
      const Instant at = sessions_[i].session->LookAfter(now);
      if (sessions_.size() != before) {
        continue;  // it has ended, and the last one, looked after already, is in its place
      }
      sessions_[i].look_at = at;
    }
    next = std::min(next, sessions_[i].look_at);
  }
  look_armed_ = next;
  if (next == Instant::max()) {
    look_timer_.Cancel();
  } else {
    ArmLookTimer();
  }
}

// Drain of a backend.

void Worker::StartBackendDrain(const std::shared_ptr<BackendDrain>& drain) {
  const bool posted = loop_.Post([this, drain] {
    DropCloser([&](const BackendCloser& closer) { return closer.drain()->state == drain->state; });
    const balance::BackendState* state = drain->state.get();
    idle_conns_.CloseTo(state);
    std::vector<session::Session*> mine;
    for (const Held& held : sessions_) {
      if (held.session->backend_state() == state && held.session->lasting()) {
        mine.push_back(held.session.get());
      }
    }
    backend_closers_.push_back(std::make_unique<BackendCloser>(
        loop_, random_, drain, [this, state] { CutLegsTo(*state); }));
    backend_closers_.back()->Begin(mine);
    NoteRemaining();
  });
  if (!posted) {
    drain->workers_begun.fetch_add(1, std::memory_order_release);  // there is nobody to close
  }
}

// At the deadline: also plain requests that the backend has not answered.
void Worker::CutLegsTo(const balance::BackendState& state) noexcept {
  for (std::size_t i = sessions_.size(); i-- > 0;) {
    session::Session& session = *sessions_[i].session;
    if (session.backend_state() == &state) {
      session.Cut("backend_drain_deadline");
    }
  }
}

template <class Matches>
void Worker::DropCloser(Matches matches) {
  const auto found = std::find_if(backend_closers_.begin(), backend_closers_.end(),
                                  [&](const auto& closer) { return matches(*closer); });
  if (found != backend_closers_.end()) {
    (*found)->Stop();
    loop_.Bury(std::move(*found));  // its timer may be on the stack
    backend_closers_.erase(found);
  }
}

void Worker::StopBackendDrain(const std::shared_ptr<BackendDrain>& drain) {
  loop_.Post([this, drain] {
    DropCloser([&](const BackendCloser& closer) { return closer.drain() == drain; });
    DropFormerViews();
    NoteRemaining();
  });
}

void Worker::NoteRemaining() noexcept {
  std::size_t remaining = closing_ ? sessions_.size() : 0;
  if (!closing_) {
    for (const auto& closer : backend_closers_) {
      remaining += closer->remaining();
    }
  }
  services_.block.drain_sessions_remaining.Set(static_cast<std::int64_t>(remaining));
}

// Drain of the process.

void Worker::StartDrain(const drain::DrainOptions& options, Leave leave) {
  loop_.Post([this, options, leave] {
    if (plan_) {
      if (leave == Leave::kHandOver) {
        LeaveToSuccessor();  // it has come while we drained already
      }
      return;
    }
    plan_ = std::make_unique<drain::DrainPlan>(options);
    plan_->Start(Now());
    services_.intake = session::Intake::kRefuseUpgrades;
    if (leave == Leave::kHandOver) {
      LeaveToSuccessor();
    }
    StepDrain();
  });
}

// Not one more is accepted: whoever waits, and whoever comes, is served by the other process.
void Worker::LeaveToSuccessor() noexcept {
  listeners_.clear();
  services_.intake = session::Intake::kLastRequest;
}

void Worker::Hurry(Millis limit) {
  loop_.Post([this, limit] {
    if (!plan_) {
      plan_ = std::make_unique<drain::DrainPlan>(drain::DrainOptions{});
    }
    const Instant now = Now();
    plan_->Hurry(now, limit);
    schedule_.Hurry(now);
    StepDrain();
  });
}

void Worker::OnDrainTimer(short) noexcept {
  StepDrain();
}

void Worker::ArmDrainTimer(Instant at) noexcept {
  // Rounded up: a timer that fires early would come back for the same millisecond.
  const auto delay = std::chrono::ceil<Millis>(at - Now());
  drain_timer_.Arm<&Worker::OnDrainTimer>(loop_.base(), delay, this);
}

void Worker::StepDrain() noexcept {
  const Instant now = Now();
  switch (plan_->StageAt(now)) {
    case drain::Stage::kServing:
      return;
    case drain::Stage::kRefusing:
      ArmDrainTimer(plan_->NextChange(now));
      return;
    case drain::Stage::kKilling:
      if (!closing_) {
        BeginClosing();
      }
      CutAll();
      return;
    case drain::Stage::kClosing:
      break;
  }
  if (!closing_) {
    BeginClosing();
  }
  for (session::Session* session : schedule_.TakeDue(now)) {
    session->Drain();
  }
  ArmDrainTimer(std::min(schedule_.next(), plan_->kill_at()));
}

void Worker::BeginClosing() noexcept {
  closing_ = true;
  if (services_.intake != session::Intake::kLastRequest) {
    services_.intake = session::Intake::kClosing;
  }
  NoteRemaining();
  std::vector<session::Session*> others;
  std::vector<session::Session*> lasting;
  for (const Held& held : sessions_) {
    (held.session->lasting() ? lasting : others).push_back(held.session.get());
  }
  schedule_.Begin(lasting, *plan_, random_);
  for (session::Session* session : others) {
    session->Drain();
  }
  // After the sessions: what is still in the accept queues is served its answer, not a FIN.
  while (!listeners_.empty()) {
    CloseListener(listeners_.back().tag);
  }
  accepting_ = false;
  MaybeStop();
}

void Worker::CutAll() noexcept {
  while (!sessions_.empty()) {
    sessions_.back().session->Cut();
  }
  MaybeStop();
}

void Worker::MaybeStop() noexcept {
  if (closing_ && !accepting_ && sessions_.empty()) {
    drain_timer_.Cancel();
    loop_.Stop();
  }
}

}  // namespace sluice::server
