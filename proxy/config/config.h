// The configuration as plain values, after everything has been checked. Immutable once loaded:
// workers share it through std::shared_ptr<const Config>. config/sluice.toml documents every key.
// Everything compares by value, so that a reload can tell what has changed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "proxy/base/clock.h"

namespace sluice::config {

struct Certificate {
  std::string chain;  // path of a PEM file, leaf first
  std::string key;    // path of a PEM file

  bool operator==(const Certificate&) const = default;
};

enum class TlsVersion : std::uint8_t { k12, k13 };

struct ListenerTls {
  std::vector<Certificate> certificates;  // empty: the listener is plain
  TlsVersion min_version = TlsVersion::k12;
  std::string client_ca;  // path of a PEM bundle; set: mutual TLS
  std::size_t line = 0;   // of the file: where a mistake in the certificates is reported

  // Where it stands in the file makes no difference.
  bool operator==(const ListenerTls& other) const {
    return certificates == other.certificates && min_version == other.min_version &&
           client_ca == other.client_ca;
  }
};

// A listener that serves nothing and sends its clients to https.
struct Redirect {
  std::uint16_t port = 443;    // where they are sent to
  std::uint16_t status = 308;  // 301, 302, 307 or 308

  bool operator==(const Redirect&) const = default;
};

struct Listener {
  std::string name;        // label in metrics and log; the address unless given
  std::string host;        // numeric IPv4 or IPv6 address, without brackets
  std::uint16_t port = 0;  // 0: any free port (tests)
  ListenerTls tls;
  bool proxy_protocol = false;  // every connection comes from a trusted proxy and says for whom
  std::optional<Redirect> redirect = {};  // nothing: it serves; never together with tls

  [[nodiscard]] bool is_tls() const noexcept { return !tls.certificates.empty(); }

  bool operator==(const Listener&) const = default;
};

enum class AffinitySource : std::uint8_t { kCookie, kHeader, kQuery, kPath, kIp };

struct AffinityRule {
  AffinitySource source = AffinitySource::kIp;
  std::string name;         // of the cookie, header or query parameter
  std::size_t segment = 0;  // for kPath: 1 is the first path segment

  bool operator==(const AffinityRule&) const = default;
};

// What becomes of a client that sends more than it may.
enum class OnLimit : std::uint8_t {
  kPause,  // it is read no faster
  kClose,  // its session is closed
};

struct RouteLimits {
  std::uint64_t max_message_bytes = 16ULL << 20;  // 0: no limit
  std::uint32_t max_frame_bytes = 0;              // payload of one frame; 0: no limit
  std::uint32_t max_frames_per_message = 16384;   // 0: no limit
  std::size_t max_connections = 0;                // WebSocket sessions at a time; 0: no limit
  // Of one client; 0: no limit. A second's worth may come at once.
  double messages_per_second = 0;
  std::uint64_t bytes_per_second = 0;
  double control_frames_per_second = 100;
  OnLimit on_limit = OnLimit::kPause;        // of messages and bytes; control frames close
  std::optional<Millis> max_connection_age;  // instead of that of [limits]; 0: no limit

  bool operator==(const RouteLimits&) const = default;
};

struct Heartbeat {
  Millis interval{30'000};  // of silence before a ping; 0: none are sent
  Millis timeout{20'000};   // for the pong; then that side is lost

  bool operator==(const Heartbeat&) const = default;
};

struct Heartbeats {
  Heartbeat client;
  Heartbeat backend;

  bool operator==(const Heartbeats&) const = default;
};

// What becomes of a client that does not take what its backend sends.
enum class OnSlow : std::uint8_t {
  kPause,  // its backend is not read until it does
  kClose,  // besides, after slow_timeout its session is closed
};

// What is changed in the fields of heads on their way. What is removed is removed before anything
// is added: a field that is in both is replaced.
struct HeaderRules {
  struct Field {
    std::string name;
    std::string value;

    bool operator==(const Field&) const = default;
  };

  std::vector<Field> add;           // in file order; names differ, ignoring case
  std::vector<std::string> remove;  // names; case does not matter

  bool operator==(const HeaderRules&) const = default;
};

// What Sluice's own answers of one status hold instead of a sentence.
struct ErrorPage {
  unsigned status = 0;  // 400 to 599
  std::string path;     // of the file
  std::string type;     // for Content-Type
  std::string content;  // what the file held when it was loaded

  bool operator==(const ErrorPage&) const = default;
};

// Strict-Transport-Security (RFC 6797 section 6.1).
struct Hsts {
  Millis max_age = std::chrono::days(365);  // 0: browsers forget what they were told
  bool include_subdomains = false;
  bool preload = false;

  bool operator==(const Hsts&) const = default;
};

enum class AuthOn : std::uint8_t { kAll, kUpgrades };

// A server of the user's that is asked whether a request may go on.
struct Auth {
  std::string host = {};  // numeric address or host name, resolved once at start
  std::uint16_t port = 80;
  std::string authority = {};             // of the url, as it stands there: for the Host field
  std::string target = "/";               // its path and query
  std::vector<std::string> forward = {};  // fields of the client that it is shown; lower case
  std::vector<std::string> copy = {};     // fields of its answer for the backend; the same
  Millis timeout{2'000};                  // from the request to the end of its answer
  AuthOn on = AuthOn::kAll;

  bool operator==(const Auth&) const = default;
};

// Tokens that backends hand out in their answers, and that keep who brings one on that backend.
struct Learn {
  std::string json;                 // name of the member that holds the token
  std::string from;                 // what the path of the request ends with; begins with a slash
  std::size_t max_entries = 65536;  // tokens that are remembered
  Millis ttl{600'000};              // for which one is remembered since it was used last

  bool operator==(const Learn&) const = default;
};

struct Route {
  std::string name;        // label; unique; derived from host and path unless given
  std::string host;        // lower case; exact, "*.suffix", or empty for any
  std::string path = "/";  // prefix on segment borders
  std::string pool;
  bool upgrades = true;                // false: WebSocket upgrades are answered 403
  std::vector<AffinityRule> affinity;  // the first that is present wins; never empty once loaded
  std::string affinity_cookie;         // name of the cookie to issue; empty: none
  std::optional<Learn> learn;          // nothing: no token is learned
  std::vector<std::string> origins;    // empty: any; else exact origins, compared ignoring case
  bool require_origin = false;         // with origins: refuse requests without Origin too
  RouteLimits limits;
  unsigned retries = 2;                  // further candidates after the first
  Millis handshake_timeout{10'000};      // from the request head to the backend's answer, upgrades
  Millis response_timeout{120'000};      // plain HTTP: for the head of the answer
  Millis response_idle_timeout{75'000};  // an answer under way: without progress
  std::uint16_t close_code = 0;          // 1012 or 1001; 0: [drain] close_code
  std::uint64_t refragment = 0;  // payload bytes of a frame towards the client; 0: as it came
  Heartbeats heartbeat;
  Millis idle_timeout{0};  // a session without a frame of either side; 0: no limit
  OnSlow on_slow = OnSlow::kPause;
  Millis slow_timeout{10'000};
  HeaderRules request_headers;             // of what goes to backends
  HeaderRules response_headers;            // of what goes to clients
  std::vector<ErrorPage> error_pages;      // in file order; statuses differ
  std::optional<Hsts> hsts;                // sent with what goes out over TLS; nothing: none
  std::optional<Auth> auth = {};           // nothing: nobody is asked
  std::string auth_expires_header = {};    // of its answer; lower case; empty: none is looked at
  std::uint16_t auth_expires_code = 1008;  // of the CLOSE then: 1008, or 4000 to 4999

  bool operator==(const Route&) const = default;
};

enum class Balance : std::uint8_t {
  kRendezvous,
  kLeastConnections,
  kRandomTwoChoices,
  kRoundRobin,
};

struct Backend {
  std::string name;
  std::string host;  // numeric address or host name, resolved once at start
  std::uint16_t port = 0;
  double weight = 1.0;
  unsigned group = 0;               // the lowest is used first
  std::size_t max_connections = 0;  // open legs to it; 0: no limit
  std::string server_name = {};     // of its certificate; empty: that of the pool's tls, or `host`
  std::string listed_host = {};     // what `host` was looked up from, where it was; else empty

  bool operator==(const Backend&) const = default;
};

enum class ProxyProtocol : std::uint8_t { kOff, kV1, kV2 };

// What becomes of clients when no backend is in service.
enum class Panic : std::uint8_t { kTryAll, kRefuse };

// Connections to the backends of a pool that are kept for further plain requests. The default is
// below the 5 s after which many servers, Node's among them, close an idle connection themselves.
struct KeepAlive {
  std::size_t max_idle = 256;  // for each worker and backend; 0: each serves one request
  Millis idle_timeout{4'000};  // and what the backend announces, if that is less

  bool operator==(const KeepAlive&) const = default;
};

// TLS to the backends of a pool.
struct PoolTls {
  std::string ca;           // path of a PEM bundle; empty: the authorities of the system
  std::string server_name;  // DNS name or numeric address; empty: the host of each backend
  Certificate certificate;  // shown to backends that ask for one; empty paths: none
  bool verify = true;       // false: any certificate will do
  TlsVersion min_version = TlsVersion::k12;
  std::size_t ca_line = 0;           // of the file: where a mistake in `ca` is reported
  std::size_t certificate_line = 0;  // the same for `certificate`

  [[nodiscard]] bool has_certificate() const noexcept { return !certificate.chain.empty(); }

  // Where it stands in the file makes no difference.
  bool operator==(const PoolTls& other) const {
    return ca == other.ca && server_name == other.server_name && certificate == other.certificate &&
           verify == other.verify && min_version == other.min_version;
  }
};

enum class HealthType : std::uint8_t { kOff, kTcp, kHttp, kWebSocket };

// Checks that Sluice makes of each backend of a pool.
struct Health {
  HealthType type = HealthType::kOff;
  std::string path = "/";       // of the request; without a fragment
  std::string host;             // of the Host field; empty: the backend's address
  unsigned least_status = 200;  // http: statuses that are good
  unsigned most_status = 399;
  Millis interval{5'000};
  Millis timeout{2'000};
  unsigned rise = 2;  // successes in a row after which a backend is up again
  unsigned fall = 3;  // failures in a row after which it is down
  bool ping = false;  // websocket: a ping has to be answered too

  [[nodiscard]] bool is_on() const noexcept { return type != HealthType::kOff; }

  bool operator==(const Health&) const = default;
};

// What becomes of the sessions of a backend that its checks have found down.
enum class OnDown : std::uint8_t { kKeep, kDrain };

// When what sessions see of a backend keeps new ones away from it for a while.
struct Outlier {
  unsigned failures = 5;              // in a row; 0: off
  Millis ejection_time{10'000};       // of the first ejection; each further one lasts twice as long
  Millis max_ejection_time{300'000};  // up to this
  double max_ejected = 0.5;           // share of the pool's backends that may be ejected at a time

  bool operator==(const Outlier&) const = default;
};

enum class DnsType : std::uint8_t { kA, kAaaa, kSrv };

// Where the backends of a pool are learned from while the process runs.
struct Discovery {
  std::string file = {};  // path of a file that lists them; empty: they are asked of DNS
  std::string dns = {};   // the name to ask for, lower case, without a dot at its end
  DnsType type = DnsType::kA;
  std::uint16_t port = 0;                 // of all of them; 0 for kSrv, which tells it of each
  std::vector<std::string> servers = {};  // "ADDRESS:PORT"; empty: those of /etc/resolv.conf
  Millis timeout{5'000};  // for a whole lookup, that of the targets of kSrv included
  Millis min_ttl{1'000};  // an answer is used for its TTL, within these bounds
  Millis max_ttl{300'000};

  bool operator==(const Discovery&) const = default;
};

struct Pool {
  std::string name;
  Balance balance = Balance::kRendezvous;
  double bounded_load = 1.25;  // 0: off
  Millis connect_timeout{3'000};
  Millis slow_start{30'000};     // 0: off
  double group_threshold = 0.5;  // share of a group's weight below which the next group joins
  Panic panic = Panic::kTryAll;
  double handshake_rate = 0;          // new sessions per second for each backend; 0: off
  std::uint64_t handshake_burst = 0;  // of them at once; 0: those of one second
  // What connections to its backends begin with.
  ProxyProtocol proxy_protocol = ProxyProtocol::kOff;
  KeepAlive keep_alive;
  Health health;
  OnDown on_down = OnDown::kKeep;
  Outlier outlier;
  // Never empty, unless they are discovered: then the file lists none, and here is what is known.
  std::vector<Backend> backends;
  std::optional<Discovery> discover;
  std::optional<PoolTls> tls;  // nothing: the backends are spoken to in plain text

  bool operator==(const Pool&) const = default;
};

struct Server {
  unsigned workers = 0;  // 0: one per core this process may use
  Millis header_timeout{10'000};
  Millis tls_timeout{5'000};
  Millis keep_alive_timeout{60'000};         // a client connection between two requests
  std::uint32_t keep_alive_requests = 0;     // of one client connection; 0: no limit
  Millis close_timeout{5'000};               // waiting for a CLOSE or an EOF that is owed
  std::vector<std::string> trusted_proxies;  // CIDR blocks whose forwarding fields are believed
  std::string takeover_socket;  // path of a Unix socket, at most 107 bytes; empty: none

  bool operator==(const Server&) const = default;
};

struct Limits {
  std::size_t max_connections = 0;     // clients; 0: derived from the fd limit
  std::size_t connections_per_ip = 0;  // 0: no limit; an IPv6 address counts with its /64
  double upgrades_per_ip = 0;          // a second; 0: no limit
  unsigned upgrades_per_ip_burst = 10;
  std::size_t max_handshakes = 0;        // upgrades between head and 101 at a time; 0: no limit
  std::uint64_t max_buffered = 1 << 30;  // bytes that wait for slow peers in all; 0: no limit
  std::size_t max_head_bytes = 32 << 10;
  std::size_t max_head_fields = 100;
  std::size_t max_request_line = 8 << 10;
  std::size_t early_data = 16 << 10;  // bytes held of what a client sends before the 101
  // Per side: its source is not read while more than half of it waits, and again when no more than
  // a quarter does. What one read brought on top is held too.
  std::size_t out_buffer = 64 << 10;
  Millis max_connection_age{0};  // of a client connection; then it is closed; 0: no limit

  bool operator==(const Limits&) const = default;
};

struct Drain {
  Millis window{30'000};
  Millis grace{10'000};
  Millis ready_delay{0};
  Millis message_grace{2'000};
  double rate = 0;  // closes per second of the whole process; 0: no cap
  // What an event stream that is ended tells its client to wait before it comes back, drawn between
  // half and one and a half of it; 0: nothing.
  Millis event_retry{0};
  std::uint16_t close_code = 1012;
  std::string reason = "service restart";

  bool operator==(const Drain&) const = default;
};

struct Admin {
  std::string host = "127.0.0.1";  // numeric; loopback unless there is a token
  std::uint16_t port = 9900;
  bool enabled = true;     // address = "off" turns it off
  std::string token_file;  // path; empty: no token is wanted
  std::string token;       // what the file holds. A secret: never logged, printed or served
  ListenerTls tls;         // without certificates: plain; client_ca is not used

  [[nodiscard]] bool is_tls() const noexcept { return !tls.certificates.empty(); }

  bool operator==(const Admin&) const = default;
};

enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarn, kError };
enum class AccessFormat : std::uint8_t { kJson, kText, kOff };

struct Log {
  LogLevel level = LogLevel::kInfo;
  AccessFormat access = AccessFormat::kJson;
  bool query = false;  // true: query strings are logged; default: redacted
  std::size_t queue =
      8192;  // records waiting to be written; beyond it they are dropped and counted

  bool operator==(const Log&) const = default;
};

struct Config {
  Server server;
  Limits limits;
  Drain drain;
  Admin admin;
  Log log;
  std::vector<Listener> listeners;  // never empty
  std::vector<Route> routes;        // never empty; in file order
  std::vector<Pool> pools;          // never empty; in file order

  bool operator==(const Config&) const = default;
};

}  // namespace sluice::config
