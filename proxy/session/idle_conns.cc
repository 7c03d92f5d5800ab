#include "proxy/session/idle_conns.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace sluice::session {

void IdleConns::Keep(const balance::BackendState& backend, metrics::Gauge& gauge,
                     std::unique_ptr<net::Conn> conn, Instant until, std::size_t most) noexcept {
  Idle idle{std::move(conn), &gauge, until};
  gauge.Add(1);
  std::vector<Idle>& list = idle_[&backend];
  if (list.size() >= most || !backend.IsInService()) {
    Close(idle);
    return;
  }
  idle.conn->ReportTo(*this);
  list.push_back(std::move(idle));
}

std::unique_ptr<net::Conn> IdleConns::Take(const balance::BackendState& backend,
                                           net::ConnSink& sink, Instant now) noexcept {
  const auto found = idle_.find(&backend);
  if (found == idle_.end()) {
    return nullptr;
  }
  std::vector<Idle>& list = found->second;
  while (!list.empty()) {
    Idle newest = std::move(list.back());
    list.pop_back();
    if (newest.until > now) {
      newest.gauge->Add(-1);
      newest.conn->ReportTo(sink);
      return std::move(newest.conn);
    }
    Close(newest);
  }
  return nullptr;
}

void IdleConns::Sweep(Instant now) noexcept {
  for (auto entry = idle_.begin(); entry != idle_.end();) {
    const bool in_service = entry->first->IsInService();
    CloseIf(entry->second, [&](const Idle& idle) { return !in_service || idle.until <= now; });
    entry = entry->second.empty() ? idle_.erase(entry) : std::next(entry);
  }
}

void IdleConns::CloseTo(const balance::BackendState& backend) noexcept {
  if (const auto found = idle_.find(&backend); found != idle_.end()) {
    CloseIf(found->second, [](const Idle&) { return true; });
    idle_.erase(found);
  }
}

void IdleConns::Clear() noexcept {
  for (auto& entry : idle_) {
    CloseIf(entry.second, [](const Idle&) { return true; });
  }
  idle_.clear();
}

// The list stays, if only an empty one: Sweep takes it off.
void IdleConns::Drop(const net::Conn& conn) noexcept {
  for (auto& entry : idle_) {
    CloseIf(entry.second, [&conn](const Idle& idle) { return idle.conn.get() == &conn; });
  }
}

// Its event may be on the stack.
void IdleConns::Close(Idle& idle) noexcept {
  idle.gauge->Add(-1);
  idle.conn->Close();
  loop_.Bury(std::move(idle.conn));
}

template <class Matches>
void IdleConns::CloseIf(std::vector<Idle>& list, Matches matches) noexcept {
  const auto gone = std::stable_partition(list.begin(), list.end(),
                                          [&](const Idle& idle) { return !matches(idle); });
  std::for_each(gone, list.end(), [this](Idle& idle) { Close(idle); });
  list.erase(gone, list.end());
}

}  // namespace sluice::session
