#include "proxy/server/close_schedule.h"

#include <algorithm>
#include <utility>

namespace sluice::server {

void CloseSchedule::Begin(std::span<session::Session* const> sessions, drain::DrainPlan& plan,
                          Random& random) {
  for (std::size_t i = 0; i < sessions.size(); ++i) {
    Take(*sessions[i], plan.CloseAt(i, sessions.size(), random));
  }
}

void CloseSchedule::AddLate(session::Session& session, drain::DrainPlan& plan, Instant now,
                            Random& random) {
  if (!members_.contains(session.id())) {
    Take(session, plan.LateCloseAt(now, random));
  }
}

void CloseSchedule::Take(session::Session& session, Instant at) {
  members_.emplace(session.id(), closes_.emplace(at, &session));
}

bool CloseSchedule::Forget(std::uint64_t id) noexcept {
  const auto found = members_.find(id);
  if (found == members_.end()) {
    return false;
  }
  if (found->second) {
    closes_.erase(*found->second);
  }
  members_.erase(found);
  return true;
}

std::vector<session::Session*> CloseSchedule::TakeDue(Instant now) {
  std::vector<session::Session*> due;
  while (!closes_.empty() && closes_.begin()->first <= now) {
    due.push_back(closes_.begin()->second);
    members_[due.back()->id()].reset();
    closes_.erase(closes_.begin());
  }
  return due;
}

void CloseSchedule::Hurry(Instant now) {
  Closes sooner;
  for (const auto& [at, session] : closes_) {
    members_[session->id()] = sooner.emplace(std::min(at, now), session);
  }
  closes_ = std::move(sooner);
}

}  // namespace sluice::server
