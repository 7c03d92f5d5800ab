// Counters as the workers write them. Each worker has its own block for each route, backend and
// listener: one writer, relaxed atomics, no shared cache line, summed by the Exporter when somebody
// scrapes. A block lives as long as its Exporter; a session keeps pointers to the ones it writes.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

#include "proxy/base/side.h"

namespace sluice::metrics {

// A counter with one writer. Add is a plain load and store: no locked instruction.
class Counter {
 public:
  void Add(std::uint64_t n = 1) noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t value() const noexcept {
    return value_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// A value that goes up and down, with one writer.
class Gauge {
 public:
  void Add(std::int64_t n) noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  void Set(std::int64_t n) noexcept { value_.store(n, std::memory_order_relaxed); }
  [[nodiscard]] std::int64_t value() const noexcept {
    return value_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::int64_t> value_{0};
};

// A histogram over fixed upper bounds, with one writer. `Bounds` has static storage and ascends.
template <const auto& Bounds>
class Histogram {
 public:
  void Observe(double value) noexcept {
    std::size_t i = 0;
    while (i < Bounds.size() && value > Bounds[i]) {
      ++i;
    }
    buckets_[i].Add();
    sum_.store(sum_.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
  }
  // Not cumulative; the last one is the +Inf bucket.
  [[nodiscard]] std::uint64_t bucket(std::size_t i) const noexcept { return buckets_[i].value(); }
  [[nodiscard]] double sum() const noexcept { return sum_.load(std::memory_order_relaxed); }
  [[nodiscard]] static constexpr const auto& bounds() noexcept { return Bounds; }

 private:
  std::array<Counter, std::tuple_size_v<std::remove_cvref_t<decltype(Bounds)>> + 1> buckets_{};
  std::atomic<double> sum_{0};
};

inline constexpr std::array kLatencyBounds{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                           0.1,    0.25,  0.5,    1.0,   2.5,  5.0,   10.0};
inline constexpr std::array kRelayBounds{0.000005, 0.00001, 0.000025, 0.00005, 0.0001,
                                         0.00025,  0.0005,  0.001,    0.0025,  0.005,
                                         0.01,     0.025,   0.05,     0.1};
inline constexpr std::array kLifeBounds{1.0,   5.0,    15.0,   60.0,    300.0,   900.0,
                                        1800., 3600.0, 7200.0, 14400.0, 43200.0, 86400.0};
// Message sizes: powers of four from 16 B to 16 MiB. Found by bit width, not by search: this one
// is on the path of every message.
inline constexpr std::array kMessageBounds{16.0,      64.0,      256.0,     1024.0,
                                           4096.0,    16384.0,   65536.0,   262144.0,
                                           1048576.0, 4194304.0, 16777216.0};

class MessageSizes {
 public:
  // `count` messages of `bytes` each.
  void Observe(std::uint64_t bytes, std::uint64_t count = 1) noexcept {
    // bytes <= 16 -> 0, <= 64 -> 1, <= 256 -> 2, ...
    const unsigned bits = bytes <= 16 ? 4U : static_cast<unsigned>(std::bit_width(bytes - 1));
    const std::size_t i = (bits - 3) / 2;
    buckets_[i < kMessageBounds.size() ? i : kMessageBounds.size()].Add(count);
    sum_.Add(bytes * count);
  }
  [[nodiscard]] std::uint64_t bucket(std::size_t i) const noexcept { return buckets_[i].value(); }
  [[nodiscard]] std::uint64_t sum() const noexcept { return sum_.value(); }

 private:
  std::array<Counter, kMessageBounds.size() + 1> buckets_{};
  Counter sum_;
};

// Labels from closed sets; Name(x) is the label's value.
enum class MessageKind : std::uint8_t { kText, kBinary, kClose, kPing, kPong, kCount };
enum class UpgradeOutcome : std::uint8_t {
  kAccepted,         // 101 was sent to the client
  kBadRequest,       // refused by the table of checks: 400, 405, 426
  kOriginDenied,     // 403: Origin not on the list
  kNotAllowed,       // 403: the route takes no upgrades
  kLimit,            // 429 or 503 by a limit
  kDraining,         // 503 while draining
  kNoBackend,        // 503: none left to try
  kBackendRefused,   // the backend answered with a status other than 101
  kBackendError,     // 502: a 101 that does not hold, or the leg broke
  kTimeout,          // 504: no answer in handshake_timeout
  kClientGone,       // the client left before the 101
  kAuthDenied,       // the auth server said no, or its yes has expired
  kAuthUnavailable,  // 503: the auth server gave no answer that holds
  kCount
};
enum class ClosedBy : std::uint8_t { kClient, kBackend, kSluice, kCount };
enum class PickHow : std::uint8_t { kHome, kOverflow, kFallback, kPanic, kCount };
enum class BackendFailure : std::uint8_t {
  kRefused,    // connect refused or unreachable
  kTimeout,    // connect timed out, or the TLS handshake
  kReset,      // reset or EOF before its answer
  kBadAnswer,  // malformed head, or a 101 that does not hold
  kStatus,     // 502, 503 or 504 before the 101
  kLost,       // EOF without CLOSE, or reset, while relaying
  kHung,       // no answer to a ping while relaying
  kTls,        // TLS handshake failed, or TLS broke before its answer
  kCount
};
// Why Sluice itself began to close a session that kept the rules.
enum class OwnClose : std::uint8_t {
  kDrain,         // the process drains
  kBackendDrain,  // its backend drains
  kMaxAge,        // it has reached max_connection_age
  kKick,          // somebody asked for it
  kIdle,          // no frame has passed for idle_timeout
  kSlow,          // its client has not taken what waits for it in slow_timeout
  kRate,          // its client has sent more than it may
  kAuthExpired,   // what its auth server had said of it has expired
  kCount
};
// What came of asking an auth server.
enum class AuthResult : std::uint8_t {
  kAllowed,
  kDenied,       // its answer was another than 2xx, or what it allows has expired already
  kTimeout,      // no whole answer in time
  kUnreachable,  // no connection
  kBadAnswer,    // malformed, too large, or ended before its end
  kCount
};
enum class TornReason : std::uint8_t {
  kBackendLost,  // the backend went away inside a frame
  kClientLost,   // the client went away inside a frame
  kDeadline,     // a frame did not end before the deadline of a closing
  kCount
};

[[nodiscard]] std::string_view Name(MessageKind v) noexcept;
[[nodiscard]] std::string_view Name(UpgradeOutcome v) noexcept;
[[nodiscard]] std::string_view Name(ClosedBy v) noexcept;
[[nodiscard]] std::string_view Name(PickHow v) noexcept;
[[nodiscard]] std::string_view Name(BackendFailure v) noexcept;
[[nodiscard]] std::string_view Name(TornReason v) noexcept;
[[nodiscard]] std::string_view Name(OwnClose v) noexcept;
[[nodiscard]] std::string_view Name(AuthResult v) noexcept;

template <class E>
inline constexpr std::size_t kCountOf = static_cast<std::size_t>(E::kCount);

// An array of T indexed by an enum.
template <class E, class T>
class PerEnum {
 public:
  [[nodiscard]] T& operator[](E e) noexcept { return items_[static_cast<std::size_t>(e)]; }
  [[nodiscard]] const T& operator[](E e) const noexcept {
    return items_[static_cast<std::size_t>(e)];
  }

 private:
  std::array<T, kCountOf<E>> items_{};
};

// Close codes by slot, so that the label set is closed: 1000..1015 one each, then "3xxx", "4xxx",
// "other", and "none" (the connection ended without any CLOSE: what a client sees as 1006).
inline constexpr std::size_t kCloseSlots = 20;
[[nodiscard]] std::size_t CloseSlot(std::uint16_t code) noexcept;  // code 0: "none"
[[nodiscard]] std::string_view CloseSlotName(std::size_t slot) noexcept;

// Why an answer that could have handed out a token has taught nothing.
enum class Unreadable : std::uint8_t {
  kEncoded,  // it has a Content-Encoding
  kNoToken,  // it is no JSON object with such a string in it
  kCount
};
// Where a request went whose token was learned.
enum class LearnedPick : std::uint8_t {
  kHome,      // to the backend that has handed it out
  kFallback,  // to another one: that one may not be chosen
  kEnded,     // nowhere: the session has ended with a drain of its backend
  kCount
};
[[nodiscard]] std::string_view Name(Unreadable v) noexcept;
[[nodiscard]] std::string_view Name(LearnedPick v) noexcept;

// What a route's sessions count. Everything about a message is here, in few cache lines.
struct alignas(64) RouteBlock {
  std::array<PerEnum<MessageKind, Counter>, kSides> messages;  // [from side]
  std::array<Counter, kSides> bytes;                           // [from side], frames with headers
  std::array<MessageSizes, kSides> message_bytes;              // [from side], data messages only
  PerEnum<UpgradeOutcome, Counter> upgrades;
  Histogram<kLatencyBounds> upgrade_seconds;                   // head complete -> 101 sent
  std::array<PerEnum<ClosedBy, Counter>, kCloseSlots> closes;  // [close slot]
  PerEnum<TornReason, Counter> torn;
  Histogram<kLifeBounds> session_seconds;
  PerEnum<OwnClose, Counter> own_closes;
  // Our own: [side asked][0] answered, [1] not answered in time
  std::array<std::array<Counter, 2>, kSides> pings;
  std::array<Histogram<kLatencyBounds>, kSides> rtt_seconds;  // [side asked]: ping -> its pong
  std::array<Counter, 6> http_requests;                       // [status / 100]; 0: no answer
  Histogram<kLatencyBounds> http_request_seconds;             // without event streams
  Gauge http_requests_in_flight;                              // the same
  std::array<Counter, kSides> http_bytes;                     // [from side], content only
  Histogram<kLifeBounds> event_stream_seconds;
  Gauge event_streams_open;
  std::array<Counter, kSides> backpressure_pauses;  // [the side not read]
  PerEnum<AuthResult, Counter> auth_checks;
  Histogram<kLatencyBounds> auth_seconds;  // from the request to what came of it
  Counter learned;                         // answers whose token was learned
  Counter learned_evicted;                 // tokens forgotten because the table was full
  PerEnum<Unreadable, Counter> unreadable;
  PerEnum<LearnedPick, Counter> learned_picks;
};

enum class BackendTlsResult : std::uint8_t { kOk, kResumed, kFailed, kCount };
[[nodiscard]] std::string_view Name(BackendTlsResult v) noexcept;

struct alignas(64) BackendBlock {
  Counter retries;  // went on to another after this one failed
  PerEnum<BackendFailure, Counter> failures;
  Histogram<kLatencyBounds> connect_seconds;
  PerEnum<PickHow, Counter> picks;  // the pool's, counted at the backend taken
  PerEnum<BackendTlsResult, Counter> tls_handshakes;
  Gauge idle;      // connections that wait for another request
  Counter reused;  // requests that went over one of these
  Counter stale;   // such requests that were sent again: the connection had ended
};

enum class TlsResult : std::uint8_t { kOk, kFailed, kTimeout, kCount };
[[nodiscard]] std::string_view Name(TlsResult v) noexcept;

// What became of a connection of which a PROXY header was to come.
enum class ProxyHeader : std::uint8_t {
  kV1,         // the header came, for a client
  kV2,         // the same
  kUnknown,    // it came, and names no client
  kLocal,      // the proxy spoke for itself
  kBad,        // something else came
  kEnded,      // the connection ended without one
  kTimeout,    // nothing came in time
  kUntrusted,  // the other end may not say who its clients are
  kCount
};
[[nodiscard]] std::string_view Name(ProxyHeader v) noexcept;

struct alignas(64) ListenerBlock {
  Counter accepts;
  Gauge connections_open;
  PerEnum<ProxyHeader, Counter> proxy_headers;
  std::array<Counter, 2> tls_full;         // [0] TLS 1.2, [1] TLS 1.3: finished handshakes
  std::array<Counter, 2> tls_resumed;      // the same, resumed
  PerEnum<TlsResult, Counter> tls_failed;  // kFailed and kTimeout
  Histogram<kLatencyBounds> tls_handshake_seconds;
};

// Why accept paused, why a connection or request was refused.
enum class AcceptPause : std::uint8_t { kEmfile, kEnfile, kEnobufs, kEnomem, kCount };
[[nodiscard]] std::string_view Name(AcceptPause v) noexcept;
enum class Refused : std::uint8_t {
  kConnections,       // max_connections
  kConnectionsPerIp,  // connections_per_ip
  kDraining,          // the process drains
  kBackendRate,       // the backend's handshake_rate
  kBackendFull,       // max_connections of every backend that is left
  kUpgradesPerIp,     // upgrades_per_ip
  kHandshakes,        // max_handshakes
  kRouteConnections,  // a route's limits.max_connections
  kMemory,            // max_buffered
  kMessages,          // messages_per_second: the client was paused or closed
  kBytes,             // bytes_per_second: the same
  kControlFrames,     // control_frames_per_second: closed
  kCount
};
[[nodiscard]] std::string_view Name(Refused v) noexcept;

// Reasons of malformed requests and frames come as words from closed sets that other folders
// own (http::HeadFault::label, ws::FrameFault::reason). A ReasonCounters maps them to counters:
// registered at start, looked up by content on the cold path.
class ReasonCounters {
 public:
  static constexpr std::size_t kMax = 48;
  // REQUIRES: before any worker runs. `words` have static storage, at most kMax - 1 of them; a word
  // given twice counts once. Without a call there is "other" alone.
  void Register(std::span<const std::string_view> words) noexcept;
  // Counts; an unknown word counts as "other".
  void Add(std::string_view word) noexcept;
  [[nodiscard]] std::size_t size() const noexcept { return size_; }  // "other" is the last
  [[nodiscard]] std::string_view word(std::size_t i) const noexcept { return words_[i]; }
  [[nodiscard]] std::uint64_t value(std::size_t i) const noexcept { return counters_[i].value(); }

 private:
  std::array<std::string_view, kMax> words_{"other"};
  std::array<Counter, kMax> counters_{};
  std::size_t size_ = 1;
};

// What is counted once per worker.
struct alignas(64) WorkerBlock {
  PerEnum<AcceptPause, Counter> accept_paused;
  PerEnum<Refused, Counter> rate_limited;
  ReasonCounters http_parse_errors;
  std::array<ReasonCounters, kSides> protocol_errors;  // [the side that broke the rules]
  std::array<Counter, 2> drain_closed;                 // [0] clean, [1] forced
  Gauge drain_sessions_remaining;
  Gauge out_buffer_bytes;
  Histogram<kRelayBounds> loop_lag_seconds;
  Histogram<kRelayBounds> relay_seconds;  // recv -> send done, one in 64 reads
  Counter loop_busy_micros;
};

}  // namespace sluice::metrics
