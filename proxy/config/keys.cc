#include "proxy/config/keys.h"

#include <array>
#include <cassert>

namespace sluice::config {
namespace {

using Key = std::string_view;

constexpr auto kRoot =
    std::to_array<Key>({"server", "limits", "listener", "route", "pool", "drain", "admin", "log"});
constexpr auto kServer = std::to_array<Key>(
    {"workers", "header_timeout", "tls_timeout", "keep_alive_timeout", "keep_alive_requests",
     "close_timeout", "trusted_proxies", "takeover_socket"});
constexpr auto kLimits = std::to_array<Key>(
    {"max_connections", "connections_per_ip", "upgrades_per_ip", "upgrades_per_ip_burst",
     "max_handshakes", "max_head_bytes", "max_head_fields", "max_request_line", "early_data",
     "out_buffer", "max_buffered", "max_connection_age"});
constexpr auto kListener =
    std::to_array<Key>({"name", "address", "tls", "proxy_protocol", "redirect"});
constexpr auto kListenerTls = std::to_array<Key>({"certificates", "min_version", "client_ca"});
constexpr auto kListenerRedirect = std::to_array<Key>({"port", "status"});
constexpr auto kCertificate = std::to_array<Key>({"chain", "key"});
constexpr auto kRoute = std::to_array<Key>({"name",
                                            "host",
                                            "path",
                                            "pool",
                                            "upgrades",
                                            "affinity",
                                            "affinity_cookie",
                                            "origins",
                                            "require_origin",
                                            "limits",
                                            "retries",
                                            "handshake_timeout",
                                            "response_timeout",
                                            "response_idle_timeout",
                                            "close_code",
                                            "refragment",
                                            "heartbeat",
                                            "idle_timeout",
                                            "on_slow",
                                            "slow_timeout",
                                            "request_headers",
                                            "response_headers",
                                            "hsts",
                                            "error_pages",
                                            "auth",
                                            "auth_expires_header",
                                            "auth_expires_code",
                                            "learn"});
constexpr auto kHsts = std::to_array<Key>({"max_age", "include_subdomains", "preload"});
constexpr auto kHeaderRules = std::to_array<Key>({"add", "remove"});
constexpr auto kLearn = std::to_array<Key>({"json", "from", "max_entries", "ttl"});
constexpr auto kRouteLimits =
    std::to_array<Key>({"max_message_bytes", "max_frame_bytes", "max_frames_per_message",
                        "max_connections", "messages_per_second", "bytes_per_second",
                        "control_frames_per_second", "on_limit", "max_connection_age"});
constexpr auto kHeartbeat = std::to_array<Key>({"interval", "timeout", "client", "backend"});
constexpr auto kSideHeartbeat = std::to_array<Key>({"interval", "timeout"});
constexpr auto kAuth = std::to_array<Key>({"url", "forward", "copy", "timeout", "on"});
constexpr auto kPool = std::to_array<Key>(
    {"balance", "bounded_load", "connect_timeout", "slow_start", "group_threshold", "panic",
     "handshake_rate", "handshake_burst", "proxy_protocol", "keep_alive", "backends", "discover",
     "health", "on_down", "outlier", "tls"});
constexpr auto kBackend =
    std::to_array<Key>({"name", "address", "weight", "group", "max_connections", "server_name"});
constexpr auto kPoolTls =
    std::to_array<Key>({"ca", "server_name", "certificate", "verify", "min_version"});
constexpr auto kKeepAlive = std::to_array<Key>({"max_idle", "idle_timeout"});
constexpr auto kHealth = std::to_array<Key>(
    {"type", "path", "host", "status", "interval", "timeout", "rise", "fall", "ping"});
constexpr auto kOutlier =
    std::to_array<Key>({"failures", "ejection_time", "max_ejection_time", "max_ejected"});
constexpr auto kDiscover =
    std::to_array<Key>({"dns", "port", "type", "servers", "timeout", "min_ttl", "max_ttl", "file"});
constexpr auto kBackendsFile = std::to_array<Key>({"backends"});
constexpr auto kDrain = std::to_array<Key>({"window", "grace", "ready_delay", "message_grace",
                                            "rate", "event_retry", "close_code", "reason"});
constexpr auto kAdmin = std::to_array<Key>({"address", "token_file", "tls"});
constexpr auto kAdminTls = std::to_array<Key>({"certificates", "min_version"});
constexpr auto kLog = std::to_array<Key>({"level", "access", "query", "queue"});

constexpr std::array kTables{
    KeyTable{"", kRoot},
    KeyTable{"server", kServer},
    KeyTable{"limits", kLimits},
    KeyTable{"listener", kListener},
    KeyTable{"listener.tls", kListenerTls},
    KeyTable{"listener.tls.certificates", kCertificate},
    KeyTable{"listener.redirect", kListenerRedirect},
    KeyTable{"route", kRoute},
    KeyTable{"route.learn", kLearn},
    KeyTable{"route.limits", kRouteLimits},
    KeyTable{"route.heartbeat", kHeartbeat},
    KeyTable{"route.heartbeat.client", kSideHeartbeat},
    KeyTable{"route.heartbeat.backend", kSideHeartbeat},
    KeyTable{"route.request_headers", kHeaderRules},
    KeyTable{"route.response_headers", kHeaderRules},
    KeyTable{"route.hsts", kHsts},
    KeyTable{"route.auth", kAuth},
    KeyTable{"pool.*", kPool},
    KeyTable{"pool.*.backends", kBackend},
    KeyTable{"pool.*.tls", kPoolTls},
    KeyTable{"pool.*.tls.certificate", kCertificate},
    KeyTable{"pool.*.keep_alive", kKeepAlive},
    KeyTable{"pool.*.health", kHealth},
    KeyTable{"pool.*.outlier", kOutlier},
    KeyTable{"pool.*.discover", kDiscover},
    KeyTable{"drain", kDrain},
    KeyTable{"admin", kAdmin},
    KeyTable{"admin.tls", kAdminTls},
    KeyTable{"admin.tls.certificates", kCertificate},
    KeyTable{"log", kLog},
};

// Of another file than the configuration.
constexpr KeyTable kBackendsFileTable{kBackendsFileKeys, kBackendsFile};

}  // namespace

std::span<const KeyTable> AllKeyTables() noexcept {
  return kTables;
}

const KeyTable& KeysOf(std::string_view path) noexcept {
  if (path == kBackendsFileKeys) {
    return kBackendsFileTable;
  }
  for (const KeyTable& table : kTables) {
    if (table.path == path) {
      return table;
    }
  }
  assert(false && "no such table");
  return kTables.front();
}

}  // namespace sluice::config
