#include "proxy/session/idle_conns.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "proxy/net/socket.h"

namespace sluice::session {
namespace {

bool IsOut(const balance::BackendState* backend) noexcept {
  return backend != nullptr && !backend->IsInService();
}

bool IsAtRest(const net::Conn& conn) noexcept {
  return conn.pending() == 0 && !conn.write_failed() && !conn.read_ended() &&
         (conn.transport() == nullptr || !conn.transport()->HasBuffered());
}

}  // namespace

void IdleConns::Keep(Key key, std::unique_ptr<net::Conn> conn, const Terms& terms) noexcept {
  Idle idle{std::move(conn), terms.until, terms.gauge, terms.backend};
  if (idle.gauge != nullptr) {
    idle.gauge->Add(1);
  }
  std::vector<Idle>& list = idle_[key];
  if (list.size() >= terms.most || IsOut(terms.backend) || !IsAtRest(*idle.conn)) {
    Close(idle);
    return;
  }
  idle.conn->ReportTo(*this);
  list.push_back(std::move(idle));
}

std::unique_ptr<net::Conn> IdleConns::Take(Key key, net::ConnSink& sink, Instant now) noexcept {
  const auto found = idle_.find(key);
  if (found == idle_.end()) {
    return nullptr;
  }
  std::vector<Idle>& list = found->second;
  while (!list.empty()) {
    Idle newest = std::move(list.back());
    list.pop_back();
    // An end, or bytes that nobody has asked for, may be there without their event having been
    // dealt with: the next request would take them for its answer.
    if (newest.until > now && !newest.conn->HasInput()) {
      if (newest.gauge != nullptr) {
        newest.gauge->Add(-1);
      }
      newest.conn->ReportTo(sink);
      return std::move(newest.conn);
    }
    Close(newest);
  }
  return nullptr;
}

Result<UniqueFd> IdleConns::StartConnect(const net::Address& address) noexcept {
  auto fd = net::StartConnect(address);
  if (!fd && net::IsOwnShortage(fd.error().sys_errno) && !idle_.empty()) {
    Clear();
    fd = net::StartConnect(address);
  }
  return fd;
}

void IdleConns::Sweep(Instant now) noexcept {
  for (auto entry = idle_.begin(); entry != idle_.end();) {
    CloseIf(entry->second,
            [now](const Idle& idle) { return IsOut(idle.backend) || idle.until <= now; });
    entry = entry->second.empty() ? idle_.erase(entry) : std::next(entry);
  }
}

void IdleConns::CloseTo(Key key) noexcept {
  if (const auto found = idle_.find(key); found != idle_.end()) {
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
  for (auto& [key, list] : idle_) {
    const auto found = std::find_if(list.begin(), list.end(),
                                    [&conn](const Idle& idle) { return idle.conn.get() == &conn; });
    if (found != list.end()) {
      Close(*found);
      list.erase(found);
      return;
    }
  }
}

// Its event may be on the stack.
void IdleConns::Close(Idle& idle) noexcept {
  if (idle.gauge != nullptr) {
    idle.gauge->Add(-1);
  }
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
