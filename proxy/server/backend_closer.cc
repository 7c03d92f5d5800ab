#include "proxy/server/backend_closer.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace sluice::server {

BackendCloser::BackendCloser(net::Loop& loop, Random& random, std::shared_ptr<BackendDrain> drain,
                             std::function<void()> cut)
    : loop_(loop),
      random_(random),
      drain_(std::move(drain)),
      cut_(std::move(cut)),
      plan_(drain_->options) {}

void BackendCloser::Begin(std::span<session::Session* const> sessions) {
  plan_.Start(Now());
  drain_->total.fetch_add(sessions.size(), std::memory_order_relaxed);
  schedule_.Begin(sessions, plan_, random_);
  // After the total: who sees that all workers have begun sees all sessions counted.
  drain_->workers_begun.fetch_add(1, std::memory_order_release);
  Step();
}

void BackendCloser::OnLasting(session::Session& session) {
  if (session.backend_state() == drain_->state.get()) {
    drain_->total.fetch_add(1, std::memory_order_relaxed);
    schedule_.AddLate(session, plan_, Now(), random_);
    Arm();
  }
}

bool BackendCloser::OnOver(const session::Session& session) noexcept {
  if (!schedule_.Forget(session.id())) {
    return false;
  }
  (session.was_forced() ? drain_->forced : drain_->clean).fetch_add(1, std::memory_order_relaxed);
  return true;
}

void BackendCloser::OnTimer(short) noexcept {
  Step();
}

void BackendCloser::Step() noexcept {
  const Instant now = Now();
  for (session::Session* session : schedule_.TakeDue(now)) {
    session->CloseInOrder(metrics::OwnClose::kBackendDrain);
  }
  if (plan_.StageAt(now) == drain::Stage::kKilling) {
    timer_.Cancel();
    cut_();
  } else {
    Arm();
  }
}

void BackendCloser::Arm() noexcept {
  const Instant next = std::min(schedule_.next(), plan_.kill_at());
  timer_.Arm<&BackendCloser::OnTimer>(loop_.base(), std::chrono::ceil<Millis>(next - Now()), this);
}

}  // namespace sluice::server
