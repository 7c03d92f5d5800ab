#include "proxy/server/close_schedule.h"

#include <algorithm>
#include <utility>

namespace sluice::server {

void CloseSchedule::Begin(std::span<session::Session* const> sessions, drain::DrainPlan& plan,
                          Random& random) {
  for (std::size_t i = 0; i < sessions.size(); ++i) {
    const std::uint64_t id = sessions[i]->id();
    members_.emplace(id, sessions[i]);
    closes_.emplace(plan.CloseAt(i, sessions.size(), random), id);
  }
}

void CloseSchedule::AddLate(session::Session& session, drain::DrainPlan& plan, Instant now,
                            Random& random) {
  if (members_.emplace(session.id(), &session).second) {
    closes_.emplace(plan.LateCloseAt(now, random), session.id());
  }
}

bool CloseSchedule::Forget(std::uint64_t id) noexcept {
  return members_.erase(id) > 0;  // what closes_ still says of it finds nobody
}

std::vector<session::Session*> CloseSchedule::TakeDue(Instant now) {
  std::vector<session::Session*> due;
  while (!closes_.empty() && closes_.begin()->first <= now) {
    const auto found = members_.find(closes_.begin()->second);
    if (found != members_.end()) {
      due.push_back(found->second);
    }
    closes_.erase(closes_.begin());
  }
  return due;
}

void CloseSchedule::Hurry(Instant now) {
  std::multimap<Instant, std::uint64_t> sooner;
  for (const auto& [at, id] : closes_) {
    sooner.emplace(std::min(at, now), id);
  }
  closes_ = std::move(sooner);
}

}  // namespace sluice::server
