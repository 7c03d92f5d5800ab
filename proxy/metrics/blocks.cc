#include "proxy/metrics/blocks.h"

#include <algorithm>

namespace sluice::metrics {

namespace {

constexpr std::uint16_t kFirstCode = 1000;
constexpr std::uint16_t kLastCode = 1015;
constexpr std::size_t k3xxx = 16;
constexpr std::size_t k4xxx = 17;
constexpr std::size_t kOther = 18;
constexpr std::size_t kNone = 19;

constexpr std::array<std::string_view, kCloseSlots> kSlotNames{
    "1000", "1001", "1002", "1003", "1004", "1005", "1006", "1007", "1008",  "1009",
    "1010", "1011", "1012", "1013", "1014", "1015", "3xxx", "4xxx", "other", "none"};

// The names of an enum in the order of its values; the size is checked against kCount.
template <class E, std::size_t N>
std::string_view NameOf(E v, const std::array<std::string_view, N>& names) noexcept {
  static_assert(N == kCountOf<E>);
  const auto i = static_cast<std::size_t>(v);
  return i < N ? names[i] : std::string_view("other");
}

}  // namespace

std::string_view Name(MessageKind v) noexcept {
  static constexpr auto kNames =
      std::to_array<std::string_view>({"text", "binary", "close", "ping", "pong"});
  return NameOf(v, kNames);
}

std::string_view Name(UpgradeOutcome v) noexcept {
  static constexpr auto kNames = std::to_array<std::string_view>(
      {"accepted", "bad_request", "origin_denied", "not_allowed", "limit", "draining", "no_backend",
       "backend_refused", "backend_error", "timeout", "client_gone", "auth_denied",
       "auth_unavailable"});
  return NameOf(v, kNames);
}

std::string_view Name(ClosedBy v) noexcept {
  static constexpr auto kNames = std::to_array<std::string_view>({"client", "backend", "sluice"});
  return NameOf(v, kNames);
}

std::string_view Name(PickHow v) noexcept {
  static constexpr auto kNames =
      std::to_array<std::string_view>({"home", "overflow", "fallback", "panic"});
  return NameOf(v, kNames);
}

std::string_view Name(BackendFailure v) noexcept {
  static constexpr auto kNames = std::to_array<std::string_view>(
      {"refused", "timeout", "reset", "bad_answer", "status", "lost", "hung", "tls"});
  return NameOf(v, kNames);
}

std::string_view Name(TornReason v) noexcept {
  static constexpr auto kNames =
      std::to_array<std::string_view>({"backend_lost", "client_lost", "deadline"});
  return NameOf(v, kNames);
}

std::string_view Name(Unreadable v) noexcept {
  static constexpr auto kNames = std::to_array<std::string_view>({"encoded", "no_token"});
  return NameOf(v, kNames);
}

std::string_view Name(LearnedPick v) noexcept {
  static constexpr auto kNames = std::to_array<std::string_view>({"home", "fallback", "ended"});
  return NameOf(v, kNames);
}

std::string_view Name(OwnClose v) noexcept {
  static constexpr auto kNames = std::to_array<std::string_view>(
      {"drain", "backend_drain", "max_age", "kick", "idle", "slow", "rate", "auth_expired"});
  return NameOf(v, kNames);
}

std::string_view Name(AuthResult v) noexcept {
  static constexpr auto kNames = std::to_array<std::string_view>(
      {"allowed", "denied", "timeout", "unreachable", "bad_answer"});
  return NameOf(v, kNames);
}

std::string_view Name(BackendTlsResult v) noexcept {
  static constexpr auto kNames = std::to_array<std::string_view>({"ok", "resumed", "failed"});
  return NameOf(v, kNames);
}

std::string_view Name(TlsResult v) noexcept {
  static constexpr auto kNames = std::to_array<std::string_view>({"ok", "failed", "timeout"});
  return NameOf(v, kNames);
}

std::string_view Name(ProxyHeader v) noexcept {
  static constexpr auto kNames = std::to_array<std::string_view>(
      {"v1", "v2", "unknown", "local", "bad", "ended", "timeout", "untrusted"});
  return NameOf(v, kNames);
}

std::string_view Name(AcceptPause v) noexcept {
  static constexpr auto kNames =
      std::to_array<std::string_view>({"emfile", "enfile", "enobufs", "enomem"});
  return NameOf(v, kNames);
}

std::string_view Name(Refused v) noexcept {
  static constexpr auto kNames = std::to_array<std::string_view>(
      {"connections", "connections_per_ip", "draining", "backend_rate", "backend_full",
       "upgrades_per_ip", "handshakes", "route_connections", "memory", "messages", "bytes",
       "control_frames"});
  return NameOf(v, kNames);
}

std::size_t CloseSlot(std::uint16_t code) noexcept {
  if (code >= kFirstCode && code <= kLastCode) {
    return code - std::size_t{kFirstCode};
  }
  if (code >= 3000 && code <= 3999) {
    return k3xxx;
  }
  if (code >= 4000 && code <= 4999) {
    return k4xxx;
  }
  return code == 0 ? kNone : kOther;
}

std::string_view CloseSlotName(std::size_t slot) noexcept {
  return kSlotNames[std::min(slot, kNone)];
}

void ReasonCounters::Register(std::span<const std::string_view> words) noexcept {
  size_ = 0;
  for (const std::string_view word : words) {
    const auto end = words_.begin() + static_cast<std::ptrdiff_t>(size_);
    const bool known = word == "other" || std::find(words_.begin(), end, word) != end;
    if (!known && size_ < kMax - 1) {
      words_[size_++] = word;
    }
  }
  words_[size_++] = "other";
}

void ReasonCounters::Add(std::string_view word) noexcept {
  std::size_t i = 0;
  while (i + 1 < size_ && words_[i] != word) {
    ++i;
  }
  counters_[i].Add();
}

}  // namespace sluice::metrics
