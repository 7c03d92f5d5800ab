#include "proxy/server/worker.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <ctime>
#include <utility>

namespace sluice::server {
namespace {

// With half of it, bulk over TLS takes twice the system calls and a tenth (to the client) to a
// third (from it) more CPU. Twice of it saves little more, and other sessions wait longer for their
// turn.
constexpr std::size_t kScratch = 128 * 1024;
constexpr Millis kTick{1'000};

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
                block,
                *this,
                std::move(view),
                session::Intake::kOpen} {}

Worker::~Worker() {
  assert(sessions_.empty());
}

void Worker::AddListener(UniqueFd fd, std::size_t tag, std::unique_ptr<tls::ServerContext> tls) {
  if (listeners_.size() <= tag) {
    listeners_.resize(tag + 1);
  }
  net::AcceptSink& sink = *this;  // privately ours: make_unique could not convert it
  listeners_[tag].listener = std::make_unique<net::Listener>(loop_, std::move(fd), tag, sink);
  listeners_[tag].tls = std::move(tls);
}

void Worker::Run() {
  tick_due_ = Now() + kTick;
  tick_.Arm<&Worker::OnTick>(loop_.base(), kTick, this);
  loop_.Run();
  tick_.Cancel();
}

// Connections.

void Worker::OnAccept(net::Listener& listener, UniqueFd fd, const net::Address& peer) noexcept {
  const std::size_t tag = listener.tag();
  services_.view->listeners[tag]->accepts.Add();
  const std::size_t open = shared_.connections.fetch_add(1, std::memory_order_relaxed) + 1;
  if (open > shared_.max_connections + kTold) {
    shared_.connections.fetch_sub(1, std::memory_order_relaxed);
    services_.block.rate_limited[metrics::Refused::kConnections].Add();
    return;
  }
  std::unique_ptr<tls::TlsTransport> transport;
  if (const auto& tls = listeners_[tag].tls) {
    transport = tls::TlsTransport::Accept(*tls, fd.get(), tls_buffers_);
    if (!transport) {
      shared_.connections.fetch_sub(1, std::memory_order_relaxed);
      return;  // out of memory for this one
    }
  }
  const std::uint64_t id = static_cast<std::uint64_t>(index_) << kIdShift | ++next_session_;
  auto session =
      std::make_unique<session::Session>(services_, id, tag, peer, open > shared_.max_connections);
  session->slot = static_cast<std::uint32_t>(sessions_.size());
  session::Session& added = *session;
  sessions_.push_back(std::move(session));
  added.Start(std::move(fd), std::move(transport));
}

void Worker::OnAcceptPaused(net::Listener&, int sys_errno) noexcept {
  using metrics::AcceptPause;
  const AcceptPause reason = sys_errno == EMFILE   ? AcceptPause::kEmfile
                             : sys_errno == ENFILE ? AcceptPause::kEnfile
                             : sys_errno == ENOMEM ? AcceptPause::kEnomem
                                                   : AcceptPause::kEnobufs;
  services_.block.accept_paused[reason].Add();
}

void Worker::Retire(session::Session& session) noexcept {
  shared_.connections.fetch_sub(1, std::memory_order_relaxed);
  if (closing_) {
    by_id_.erase(session.id());
    services_.block.drain_closed[session.was_forced() ? 1 : 0].Add();
  }
  const std::size_t slot = session.slot;
  std::unique_ptr<session::Session> dead = std::move(sessions_[slot]);
  if (slot + 1 != sessions_.size()) {
    sessions_[slot] = std::move(sessions_.back());
    sessions_[slot]->slot = session.slot;
  }
  sessions_.pop_back();
  loop_.Bury(std::move(dead));
  if (closing_) {
    services_.block.drain_sessions_remaining.Set(static_cast<std::int64_t>(sessions_.size()));
    MaybeStop();
  }
}

// Once a second.

void Worker::OnTick(short) noexcept {
  const Instant now = Now();
  services_.block.loop_lag_seconds.Observe(
      std::max(0.0, std::chrono::duration<double>(now - tick_due_).count()));
  const std::uint64_t busy = ThreadCpuMicros();
  services_.block.loop_busy_micros.Add(busy - busy_micros_);
  busy_micros_ = busy;
  services_.block.out_buffer_bytes.Set(loop_.buffered());
  ++tls_buffers_.second;
  tick_due_ = now + kTick;
  tick_.Arm<&Worker::OnTick>(loop_.base(), kTick, this);
}

// Drain.

void Worker::StartDrain(const drain::DrainOptions& options) {
  loop_.Post([this, options] {
    if (plan_) {
      return;
    }
    plan_ = std::make_unique<drain::DrainPlan>(options);
    plan_->Start(Now());
    services_.intake = session::Intake::kRefuseUpgrades;
    StepDrain();
  });
}

void Worker::Hurry(Millis limit) {
  loop_.Post([this, limit] {
    if (!plan_) {
      plan_ = std::make_unique<drain::DrainPlan>(drain::DrainOptions{});
    }
    plan_->Hurry(Now(), limit);
    if (closing_) {
      const Instant now = Now();
      for (Close& close : closes_) {
        close.at = now;
      }
    }
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
  while (!closes_.empty() && closes_.back().at <= now) {
    const std::uint64_t id = closes_.back().session;
    closes_.pop_back();
    if (const auto found = by_id_.find(id); found != by_id_.end()) {
      found->second->Drain();
    }
  }
  Instant next = plan_->kill_at();
  if (!closes_.empty()) {
    next = std::min(next, closes_.back().at);
  }
  ArmDrainTimer(next);
}

void Worker::BeginClosing() noexcept {
  closing_ = true;
  services_.intake = session::Intake::kClosing;
  services_.block.drain_sessions_remaining.Set(static_cast<std::int64_t>(sessions_.size()));
  std::vector<session::Session*> others;
  std::size_t relays = 0;
  for (const auto& session : sessions_) {
    by_id_.emplace(session->id(), session.get());
    if (session->relaying()) {
      ++relays;
    } else {
      others.push_back(session.get());
    }
  }
  std::size_t i = 0;
  for (const auto& session : sessions_) {
    if (session->relaying()) {
      closes_.push_back({plan_->CloseAt(i++, relays, random_), session->id()});
    }
  }
  std::sort(closes_.begin(), closes_.end(),
            [](const Close& a, const Close& b) { return a.at > b.at; });
  for (session::Session* session : others) {
    session->Drain();
  }
  // After the sessions: what is still in the accept queues is served its answer, not a FIN.
  for (Listening& one : listeners_) {
    if (one.listener) {
      one.listener->Close();
    }
  }
  accepting_ = false;
  MaybeStop();
}

void Worker::CutAll() noexcept {
  while (!sessions_.empty()) {
    sessions_.back()->Cut();
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
