#include "proxy/session/auth_conns.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace sluice::session {
namespace {

constexpr std::ptrdiff_t kMostWaiting = 16;  // for each server

// Node.js, the most impatient of the usual servers, ends a connection after 5 s of silence.
constexpr Millis kMostIdle{4'000};

bool IsSame(const net::Address& a, const net::Address& b) noexcept {
  const auto left = a.ip_bytes();
  const auto right = b.ip_bytes();
  return a.port() == b.port() && std::equal(left.begin(), left.end(), right.begin(), right.end());
}

}  // namespace

std::unique_ptr<net::Conn> AuthConns::Take(const net::Address& server,
                                           net::ConnSink& sink) noexcept {
  const auto found = std::find_if(waiting_.rbegin(), waiting_.rend(),
                                  [&](const Waiting& one) { return IsSame(one.server, server); });
  if (found == waiting_.rend()) {
    return nullptr;
  }
  std::unique_ptr<net::Conn> taken = std::move(found->conn);
  waiting_.erase(std::next(found).base());
  taken->ReportTo(sink);
  return taken;
}

void AuthConns::Keep(const net::Address& server, std::unique_ptr<net::Conn> conn) noexcept {
  const auto same = [&](const Waiting& one) { return IsSame(one.server, server); };
  if (std::count_if(waiting_.begin(), waiting_.end(), same) >= kMostWaiting) {
    Close(std::move(conn));
    return;
  }
  conn->ReportTo(*this);
  if (waiting_.empty()) {
    timer_.Arm<&AuthConns::OnTimer>(loop_.base(), kMostIdle, this);
  }
  waiting_.push_back({server, std::move(conn), loop_.now() + kMostIdle});
}

void AuthConns::Drop(const net::Conn& conn) noexcept {
  const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                  [&](const Waiting& one) { return one.conn.get() == &conn; });
  Close(std::move(found->conn));
  waiting_.erase(found);
}

// Its event may be on the stack.
void AuthConns::Close(std::unique_ptr<net::Conn> conn) noexcept {
  conn->Close();
  loop_.Bury(std::move(conn));
}

void AuthConns::OnTimer(short) noexcept {
  const Instant now = loop_.now();
  const auto over = std::find_if(waiting_.begin(), waiting_.end(),
                                 [now](const Waiting& one) { return one.until > now; });
  std::for_each(waiting_.begin(), over, [this](Waiting& one) { Close(std::move(one.conn)); });
  waiting_.erase(waiting_.begin(), over);
  if (!waiting_.empty()) {
    const auto left = std::chrono::ceil<Millis>(waiting_.front().until - now);
    timer_.Arm<&AuthConns::OnTimer>(loop_.base(), left, this);
  }
}

}  // namespace sluice::session
