#include "proxy/config/load.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <limits>
#include <map>
#include <utility>

#include "proxy/base/unique_fd.h"
#include "proxy/config/keys.h"
#include "proxy/config/table_reader.h"
#include "proxy/config/values.h"

namespace sluice::config {
namespace {

using std::chrono::hours;

// A deadline below 10 ms is shorter than one turn of a busy loop; above an hour it is none.
constexpr Millis kShortest{10};
constexpr Millis kLongest = hours(1);
// What may rightly take long: an idle keep-alive, a long poll, a drain over a night.
constexpr Millis kDay = hours(24);
// What lists of sites that speak https only want, and a bound for what is mistyped.
constexpr Millis kYear = std::chrono::days(365);
constexpr Millis kTenYears = std::chrono::days(3650);
// A connection that may live longer than a month needs no limit.
constexpr Millis kMonth = hours(720);

constexpr std::uint64_t kKiB = 1ULL << 10;
constexpr std::uint64_t kMiB = 1ULL << 20;
constexpr std::uint64_t kGiB = 1ULL << 30;
constexpr std::uint64_t kMostConnections = 10'000'000;  // far above any fd limit

constexpr std::size_t kMostMemberName = 64;  // of a JSON object

// Of anything a second. Once in 100 s is still a rate, less often a mistyped one.
constexpr double kLeastRate = 0.01;
constexpr double kMostRate = 1e9;

constexpr std::size_t kMostSocketPath = sizeof(sockaddr_un::sun_path) - 1;  // and a NUL

constexpr std::size_t kMostFileBytes = 16 * kMiB;  // a device or a dump given by mistake

// Of the admin token: nothing that could be guessed, nothing that does not fit a request's head.
constexpr std::size_t kLeastToken = 16;
constexpr std::size_t kMostToken = 4096;
constexpr std::size_t kMostTokenFileBytes = kMostToken + 64;  // white space at its end

// Of an error page: such an answer is made in memory, and may have to wait there for a slow client.
constexpr std::size_t kMostPageBytes = 64 * kKiB;

// Each of them is compared with every field of a head.
constexpr std::size_t kMostFieldRules = 32;

// Names that must differ, and who took each.
class Claims {
 public:
  explicit Claims(std::string_view noun) : noun_(noun) {}

  // Reports when `name` is taken, and returns whether it was free. `key` is where this one got it
  // from.
  bool Claim(Report& report, const std::string& name, std::size_t line, const std::string& key) {
    const auto [entry, fresh] = taken_.try_emplace(name, key, line);
    if (!fresh) {
      report.AddMistake(line, key,
                        "the " + std::string(noun_) + " " + Quoted(name) + " is taken by " +
                            entry->second.first + " in line " +
                            std::to_string(entry->second.second) + "; each must be different");
    }
    return fresh;
  }

 private:
  std::string_view noun_;
  std::map<std::string, std::pair<std::string, std::size_t>> taken_;
};

// "chat.example.com/socket", "*/".
std::string PlaceOf(const Route& route) {
  return (route.host.empty() ? "*" : route.host) + route.path;
}

constexpr std::string_view kPemFile = "a PEM file";

// The whole file, or one sentence. `noun` is what a file of more than `most` bytes cannot be.
Result<std::string> ReadWhole(const std::string& path, std::uint64_t most, std::string_view noun) {
  if (const auto readable = CheckReadable(path); !readable) {
    return tl::unexpected(readable.error());
  }
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    return SysErr("cannot read " + Quoted(path), errno);
  }
  std::string text;
  std::array<char, 16384> chunk{};
  for (;;) {
    const ssize_t got = ::read(fd.get(), chunk.data(), chunk.size());
    if (got == -1 && errno == EINTR) {
      continue;
    }
    if (got == -1) {
      return SysErr("cannot read " + Quoted(path), errno);
    }
    if (got == 0) {
      return text;
    }
    text.append(chunk.data(), static_cast<std::size_t>(got));
    if (text.size() > most) {
      return Err(Quoted(path) + " is larger than " + FormatSize(most) + ", so it is not " +
                 std::string(noun));
    }
  }
}

// Of a file by its extension.
std::string_view ContentType(std::string_view extension) noexcept {
  if (extension == ".json") {
    return "application/json";
  }
  if (extension == ".txt") {
    return "text/plain; charset=utf-8";
  }
  if (extension == ".xml") {
    return "application/xml";
  }
  return "text/html; charset=utf-8";
}

// One run over one document. The root reader reports unknown tables, each Read* one section, and
// the checks that need several sections come last.
class Loader {
 public:
  // `keys` names the table in keys.h that the root of the document is.
  Loader(Report& report, const toml::table& document, std::string base_dir,
         std::string_view keys = "")
      : report_(report), root_(report, document, keys, ""), base_dir_(std::move(base_dir)) {}

  [[nodiscard]] Config Load() {
    ReadServer();
    ReadLimits();
    ReadDrain();
    ReadAdmin();
    ReadLog();
    ReadListeners();
    ReadPools();
    ReadRoutes();
    CheckPoolUse();
    CheckAdminAddress();
    return std::move(config_);
  }

  // Of a document that is a file of backends.
  [[nodiscard]] std::vector<Backend> LoadBackends() {
    Pool pool;
    pool.tls.emplace();  // the pool that reads the file may have it
    ReadBackends(root_, pool);
    return std::move(pool.backends);
  }

 private:
  void ReadServer();
  void ReadLimits();
  void ReadDrain();
  void ReadAdmin();
  void ReadAdminAddress(const TableReader& in, bool token_wanted);
  void ReadLog();
  void ReadListeners();
  // `certificates_path` names the table of a certificate in keys.h.
  void ReadTls(const TableReader& in, std::string_view certificates_path, ListenerTls& out);
  void ReadRedirect(const TableReader& listener, std::optional<Redirect>& out);
  void ReadPools();
  void ReadBackends(const TableReader& in, Pool& out);
  void ReadPoolTls(const TableReader& in, PoolTls& out);
  void ReadHealth(const TableReader& pool, Pool& out);
  void ReadOutlier(const TableReader& pool, Outlier& out);
  void ReadDiscovery(const TableReader& pool, Discovery& out);
  void ReadDnsDiscovery(const TableReader& in, Discovery& out);
  void ReadRoutes();
  // Returns whether both are as the file means them.
  bool ReadHostAndPath(const TableReader& in, Route& out);
  void ReadRoute(const TableReader& in, Route& out);
  void ReadHeartbeat(const TableReader& in, Heartbeat& out);
  void ReadHeaderRules(const TableReader& in, HeaderRules& out);
  void ReadHsts(const TableReader& route, Route& out);
  void ReadErrorPages(const TableReader& route, std::vector<ErrorPage>& out);
  void ReadAffinity(const TableReader& in, Route& out);
  void CheckCookiePrefix(const TableReader& route, std::string_view name);
  void ReadAuth(const TableReader& route, Route& out);
  // Names of fields, in lower case, each once. `parse` tells which there may be.
  void ReadFieldNames(const TableReader& in, std::string_view key,
                      Result<std::string> (*parse)(std::string_view),
                      std::vector<std::string>& out);
  // REQUIRES: the affinity of the route was read.
  void ReadLearn(const TableReader& route, Route& out);
  void ReadCloseCode(const TableReader& in, std::uint16_t& out);
  // Reads the path of a file and joins it with the folder of the configuration. `what` it is, for
  // messages. ReadFilePath also sees to it that the file is there.
  bool ReadPath(const TableReader& in, std::string_view key, std::string_view what,
                std::string& out);
  bool ReadFilePath(const TableReader& in, std::string_view key, std::string_view what,
                    std::string& out);
  // Reads the path of a socket to be, and joins it like the others.
  void ReadSocketPath(const TableReader& in, std::string_view key, std::string& out);
  void ReadConnectionAge(const TableReader& in, Millis& out);
  void CheckPoolUse();
  void CheckAdminAddress();

  struct Place {
    std::size_t line;
    std::string key;
  };

  Report& report_;
  TableReader root_;
  std::string base_dir_;
  Config config_;
  std::vector<Place> listener_places_;  // of the addresses, parallel to config_.listeners
  std::vector<Place> pool_places_;      // parallel to config_.pools
  std::vector<Place> route_pools_;      // of the key `pool`, parallel to config_.routes
};

void Loader::ReadServer() {
  const auto in = root_.Table("server", "server", "one table, written [server]");
  if (!in) {
    return;
  }
  Server& out = config_.server;
  in->ReadCount("workers", out.workers, 0, 1024);
  in->ReadDuration("header_timeout", out.header_timeout, kShortest, kLongest);
  in->ReadDuration("tls_timeout", out.tls_timeout, kShortest, kLongest);
  in->ReadDuration("keep_alive_timeout", out.keep_alive_timeout, kShortest, kDay);
  in->ReadCount("keep_alive_requests", out.keep_alive_requests, 0, 1'000'000'000);
  in->ReadDuration("close_timeout", out.close_timeout, kShortest, kLongest);
  for (const TextItem& item : in->Texts("trusted_proxies")) {
    if (auto block = ParseCidr(item.text)) {
      out.trusted_proxies.push_back(std::move(*block));
    } else {
      report_.AddMistake(item.line, item.key, block.error().message);
    }
  }
  ReadSocketPath(*in, "takeover_socket", out.takeover_socket);
}

void Loader::ReadLimits() {
  const auto in = root_.Table("limits", "limits", "one table, written [limits]");
  if (!in) {
    return;
  }
  Limits& out = config_.limits;
  in->ReadCount("max_connections", out.max_connections, 0, kMostConnections);
  in->ReadCount("connections_per_ip", out.connections_per_ip, 0, kMostConnections);
  in->ReadNumber("upgrades_per_ip", out.upgrades_per_ip, kLeastRate, kMostRate, "no limit");
  in->ReadCount("upgrades_per_ip_burst", out.upgrades_per_ip_burst, 1, 1'000'000);
  in->ReadCount("max_handshakes", out.max_handshakes, 0, kMostConnections);
  in->ReadSize("max_head_bytes", out.max_head_bytes, kKiB, kMiB);
  in->ReadCount("max_head_fields", out.max_head_fields, 10, 1000);
  in->ReadSize("max_request_line", out.max_request_line, 256, kMiB);
  in->ReadSize("early_data", out.early_data, kKiB, kMiB);
  in->ReadSize("out_buffer", out.out_buffer, 4 * kKiB, 16 * kMiB);
  in->ReadSize("max_buffered", out.max_buffered, kMiB, 1024 * kGiB, "no limit");
  ReadConnectionAge(*in, out.max_connection_age);
  if (out.max_request_line > out.max_head_bytes) {
    in->AddMistake(in->Has("max_request_line") ? "max_request_line" : "max_head_bytes",
                   "max_request_line (" + FormatSize(out.max_request_line) +
                       ") is a part of the head; allowed: at most max_head_bytes (" +
                       FormatSize(out.max_head_bytes) + ")");
  }
}

void Loader::ReadDrain() {
  const auto in = root_.Table("drain", "drain", "one table, written [drain]");
  if (!in) {
    return;
  }
  Drain& out = config_.drain;
  in->ReadDuration("window", out.window, Millis(0), kDay);
  in->ReadDuration("grace", out.grace, Millis(0), kLongest);
  in->ReadDuration("ready_delay", out.ready_delay, Millis(0), kLongest);
  in->ReadDuration("message_grace", out.message_grace, Millis(0), kLongest);
  in->ReadParsed("reason", out.reason, ParseCloseReason);
  ReadCloseCode(*in, out.close_code);
  // Slower than one close in 100 s is a mistyped cap: the window decides long before it.
  in->ReadNumber("rate", out.rate, 0.01, 1e6, "no cap");
  in->ReadDuration("event_retry", out.event_retry, Millis(100), kLongest, "none");
  if (out.window + out.grace == Millis(0)) {
    in->AddMistake("grace",
                   "window and grace are both zero, so every client would be cut without a CLOSE; "
                   "allowed: at least one above zero");
  } else if (in->Has("message_grace") && out.message_grace > out.window + out.grace) {
    in->AddMistake("message_grace", FormatDuration(out.message_grace) +
                                        " is longer than the whole drain; allowed: at most window "
                                        "+ grace (" +
                                        FormatDuration(out.window + out.grace) + ")");
  }
}

void Loader::ReadAdmin() {
  const auto in = root_.Table("admin", "admin", "one table, written [admin]");
  if (!in) {
    return;
  }
  Admin& out = config_.admin;
  // A token that cannot be read is a mistake of its own, not a missing one.
  bool token_wanted = in->Has("token_file");
  if (const auto file = in->Text("token_file")) {
    token_wanted = !file->text.empty();
    if (token_wanted &&
        ReadFilePath(*in, "token_file", "a file that holds the token", out.token_file)) {
      if (auto token = LoadToken(out.token_file)) {
        out.token = std::move(*token);
      } else {
        in->AddMistake("token_file", token.error().message);
      }
    }
  }
  if (const auto tls = in->Table("tls", "admin.tls", "a table")) {
    ReadTls(*tls, "admin.tls.certificates", out.tls);
  }
  ReadAdminAddress(*in, token_wanted);
}

void Loader::ReadAdminAddress(const TableReader& in, bool token_wanted) {
  const auto address = in.Text("address");
  if (!address) {
    return;
  }
  Admin& out = config_.admin;
  if (address->text == "off") {
    out.enabled = false;
    return;
  }
  auto parsed = ParseHostPort(address->text);
  if (!parsed) {
    in.AddMistake("address", parsed.error().message + "; or \"off\"");
    return;
  }
  if (!parsed->numeric) {
    in.AddMistake("address", Quoted(address->text) +
                                 " is not numeric; allowed: a numeric address and a port, such as "
                                 "\"127.0.0.1:9900\", or \"off\"");
    return;
  }
  if (!IsLoopback(parsed->host)) {
    if (!token_wanted) {
      in.AddMistake("address", Quoted(address->text) +
                                   " is reached from other machines, which needs a token; allowed: "
                                   "127.0.0.1:PORT, [::1]:PORT, \"off\", or any address together "
                                   "with token_file");
      return;
    }
    if (!in.Has("tls")) {
      in.AddWarning("address",
                    "without tls.certificates the token crosses the network as plain "
                    "text");
    }
  }
  out.host = std::move(parsed->host);
  out.port = parsed->port;
}

void Loader::ReadLog() {
  const auto in = root_.Table("log", "log", "one table, written [log]");
  if (!in) {
    return;
  }
  Log& out = config_.log;
  in->ReadWord("level", out.level, {"debug", "info", "warn", "error"},
               {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarn, LogLevel::kError});
  in->ReadWord("access", out.access, {"json", "text", "off"},
               {AccessFormat::kJson, AccessFormat::kText, AccessFormat::kOff});
  in->Read("query", out.query);
  in->ReadCount("queue", out.queue, 64, 1 << 20);
}

void Loader::ReadListeners() {
  const auto tables =
      root_.Tables("listener", "listener", "an array of tables, each written [[listener]]");
  if (root_.IsAbsentOrEmpty("listener")) {
    root_.AddMistake("listener", "there is no listener; write [[listener]] and an address");
  }
  Claims names("listener name");
  Claims addresses("address");
  for (const TableReader& in : tables) {
    Listener out;
    std::string shown;
    bool address_free = false;
    if (!in.Has("address")) {
      in.AddMistake("address",
                    "is missing; allowed: a numeric address and a port, such as "
                    "\"0.0.0.0:8080\" or \"[::]:8080\"");
    } else if (const auto text = in.Text("address")) {
      auto parsed = ParseHostPort(text->text);
      if (!parsed) {
        in.AddMistake("address", parsed.error().message);
      } else if (!parsed->numeric) {
        in.AddMistake("address", Quoted(text->text) +
                                     " is not numeric; allowed: a numeric address and a port, "
                                     "such as \"0.0.0.0:8080\" or \"[::]:8080\"");
      } else {
        shown = parsed->Text();
        out.host = std::move(parsed->host);
        out.port = parsed->port;
        // Port 0 is a different port every time.
        address_free = out.port == 0 ||
                       addresses.Claim(report_, shown, in.LineOf("address"), in.PathOf("address"));
      }
    }
    out.name = shown;
    in.ReadParsed("name", out.name, ParseName);
    if (!out.name.empty() && (in.Has("name") || address_free)) {
      names.Claim(report_, out.name, in.LineOf("name"), in.PathOf("name"));
    }
    if (const auto tls = in.Table("tls", "listener.tls", "a table")) {
      ReadTls(*tls, "listener.tls.certificates", out.tls);
      if (const auto ca = tls->Text("client_ca"); ca && !ca->text.empty()) {
        ReadFilePath(*tls, "client_ca", kPemFile, out.tls.client_ca);
      }
    }
    if (in.Read("proxy_protocol", out.proxy_protocol) && out.proxy_protocol &&
        config_.server.trusted_proxies.empty()) {
      in.AddMistake("proxy_protocol",
                    "true lets nobody in while server.trusted_proxies names no proxy that may say "
                    "who its clients are; allowed: false, or true together with trusted_proxies");
    }
    ReadRedirect(in, out.redirect);
    config_.listeners.push_back(std::move(out));
    listener_places_.push_back({in.LineOf("address"), in.PathOf("address")});
  }
}

void Loader::ReadTls(const TableReader& in, std::string_view certificates_path, ListenerTls& out) {
  out.line = in.LineOf("certificates");
  constexpr std::string_view kForm =
      "an array of tables, such as [{ chain = \"chain.pem\", key = \"key.pem\" }]";
  const auto tables = in.Tables("certificates", certificates_path, kForm);
  Claims chains("certificate chain");
  for (const TableReader& entry : tables) {
    Certificate certificate;
    if (ReadFilePath(entry, "chain", kPemFile, certificate.chain)) {
      chains.Claim(report_, certificate.chain, entry.LineOf("chain"), entry.PathOf("chain"));
    }
    ReadFilePath(entry, "key", kPemFile, certificate.key);
    out.certificates.push_back(std::move(certificate));
  }
  // A listener that names TLS settings and then speaks plain TCP is the worst of all surprises.
  if (!in.Has("certificates")) {
    in.AddMistake("certificates", "is missing, and without it the listener is plain; allowed: " +
                                      std::string(kForm) + ", or no tls at all");
  } else if (in.IsAbsentOrEmpty("certificates")) {
    in.AddMistake("certificates",
                  "must not be empty; leave tls out altogether for a plain listener");
  }
  in.ReadWord("min_version", out.min_version, {"1.2", "1.3"}, {TlsVersion::k12, TlsVersion::k13});
}

void Loader::ReadRedirect(const TableReader& listener, std::optional<Redirect>& out) {
  constexpr std::string_view kForm = "\"https\" or a table, such as { port = 443, status = 308 }";
  if (!listener.Has("redirect")) {
    return;
  }
  if (listener.Has("tls")) {
    listener.AddMistake("redirect",
                        "sends clients to https, and this listener has tls itself; allowed: either "
                        "redirect or tls");
  }
  Redirect redirect;
  if (listener.IsText("redirect")) {
    if (const auto word = listener.Text("redirect"); word->text != "https") {
      listener.AddMistake("redirect",
                          Quoted(word->text) + " is not known; allowed: " + std::string(kForm));
      return;
    }
  } else if (const auto in = listener.Table("redirect", "listener.redirect", kForm)) {
    in->ReadCount("port", redirect.port, 1, 65535);
    in->ReadCode(
        "status", redirect.status,
        [](std::uint16_t status) {
          return status == 301 || status == 302 || status == 307 || status == 308;
        },
        "is no status that sends clients to another URL", "301, 302, 307, 308");
  } else {
    return;
  }
  out = redirect;
}

bool Loader::ReadPath(const TableReader& in, std::string_view key, std::string_view what,
                      std::string& out) {
  if (!in.Has(key)) {
    in.AddMistake(key, "is missing; allowed: the path of " + std::string(what));
    return false;
  }
  const auto text = in.Text(key);
  if (!text) {
    return false;
  }
  if (text->text.empty() || text->text.find('\0') != std::string_view::npos) {
    in.AddMistake(key,
                  Quoted(text->text) + " is not a path; allowed: the path of " + std::string(what));
    return false;
  }
  out = (std::filesystem::path(base_dir_) / text->text).lexically_normal().string();
  return true;
}

bool Loader::ReadFilePath(const TableReader& in, std::string_view key, std::string_view what,
                          std::string& out) {
  if (!ReadPath(in, key, what, out)) {
    return false;
  }
  if (const auto readable = CheckReadable(out); !readable) {
    in.AddMistake(key, readable.error().message);
    return false;
  }
  return true;
}

void Loader::ReadSocketPath(const TableReader& in, std::string_view key, std::string& out) {
  const auto text = in.Text(key);
  if (!text) {
    return;
  }
  const std::filesystem::path path =
      (std::filesystem::path(base_dir_) / text->text).lexically_normal();
  const std::string name = path.filename().string();
  if (text->text.empty() || text->text.find('\0') != std::string_view::npos || name.empty() ||
      name == "." || name == "..") {
    in.AddMistake(key, Quoted(text->text) +
                           " is not the path of a socket; allowed: a path such as "
                           "\"/run/sluice/takeover.sock\"");
    return;
  }
  if (path.native().size() > kMostSocketPath) {
    in.AddMistake(key, Quoted(path.native()) + " is " + std::to_string(path.native().size()) +
                           " bytes long; allowed: at most " + std::to_string(kMostSocketPath) +
                           ", because the address of a socket holds no more");
    return;
  }
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    in.AddMistake(key, "there is no folder " + Quoted(folder.native()) + " for the socket");
    return;
  }
  out = path.native();
}

void Loader::ReadConnectionAge(const TableReader& in, Millis& out) {
  in.ReadDuration("max_connection_age", out, Millis(1000), kMonth, "no limit");
}

void Loader::ReadPools() {
  constexpr std::string_view kForm = "a table, written [pool.NAME]";
  const auto tables = root_.NamedTables("pool", "pool.*", kForm);
  if (root_.IsAbsentOrEmpty("pool")) {
    root_.AddMistake("pool", "there is no pool; write [pool.NAME] and its backends");
  }
  for (const auto& [name, in] : tables) {
    Pool out;
    out.name = name;
    if (const auto good = ParseName(name); !good) {
      report_.AddMistake(in.line(), in.path(), good.error().message);
    }
    in.ReadWord("balance", out.balance,
                {"rendezvous", "least_connections", "random_two_choices", "round_robin"},
                {Balance::kRendezvous, Balance::kLeastConnections, Balance::kRandomTwoChoices,
                 Balance::kRoundRobin});
    // Below 1 the fair share itself would be over the bound.
    in.ReadNumber("bounded_load", out.bounded_load, 1, 100, "off");
    in.ReadDuration("connect_timeout", out.connect_timeout, kShortest, kLongest);
    in.ReadDuration("slow_start", out.slow_start, Millis(0), kLongest);
    in.ReadWord("proxy_protocol", out.proxy_protocol, {"off", "v1", "v2"},
                {ProxyProtocol::kOff, ProxyProtocol::kV1, ProxyProtocol::kV2});
    in.ReadNumber("group_threshold", out.group_threshold, 0, 1);
    in.ReadWord("panic", out.panic, {"try_all", "refuse"}, {Panic::kTryAll, Panic::kRefuse});
    in.ReadNumber("handshake_rate", out.handshake_rate, 0.01, 1e6, "off");
    in.ReadCount("handshake_burst", out.handshake_burst, 0, 1'000'000);
    if (const auto tls = in.Table("tls", "pool.*.tls", "a table; {} for the defaults")) {
      ReadPoolTls(*tls, out.tls.emplace());
    }
    if (in.Has("discover")) {
      ReadDiscovery(in, out.discover.emplace());
    } else {
      ReadBackends(in, out);
    }
    if (const auto keep = in.Table("keep_alive", "pool.*.keep_alive", "a table")) {
      keep->ReadCount("max_idle", out.keep_alive.max_idle, 0, 10'000);
      keep->ReadDuration("idle_timeout", out.keep_alive.idle_timeout, kShortest, kLongest);
    }
    ReadHealth(in, out);
    ReadOutlier(in, out.outlier);
    config_.pools.push_back(std::move(out));
    pool_places_.push_back({in.line(), in.path()});
  }
}

void Loader::ReadBackends(const TableReader& in, Pool& out) {
  constexpr std::string_view kForm =
      "an array of tables, such as [{ name = \"a\", address = \"10.0.0.1:9000\" }]";
  const auto tables = in.Tables("backends", "pool.*.backends", kForm);
  if (in.IsAbsentOrEmpty("backends")) {
    in.AddMistake("backends", "must not be empty; allowed: " + std::string(kForm));
  }
  Claims names("backend name");
  for (const TableReader& entry : tables) {
    Backend backend;
    if (!entry.Has("address")) {
      entry.AddMistake("address", "is missing; allowed: HOST:PORT, such as \"10.0.0.1:9000\"");
    } else if (const auto text = entry.Text("address")) {
      auto parsed = ParseHostPort(text->text);
      if (!parsed) {
        entry.AddMistake("address", parsed.error().message);
      } else if (parsed->port == 0) {
        entry.AddMistake("address", Quoted(text->text) + ": 0 is not a port; allowed: 1 to 65535");
      } else {
        backend.name = text->text;
        backend.host = std::move(parsed->host);
        backend.port = parsed->port;
      }
    }
    entry.ReadParsed("name", backend.name, ParseName);
    if (!backend.name.empty()) {
      const std::string_view from = entry.Has("name") ? "name" : "address";
      names.Claim(report_, backend.name, entry.LineOf(from), entry.PathOf(from));
    }
    entry.ReadNumber("weight", backend.weight, 0.001, 1000);
    entry.ReadCount("group", backend.group, 0, 15);
    entry.ReadCount("max_connections", backend.max_connections, 0, 10'000'000);
    if (entry.ReadParsed("server_name", backend.server_name, ParseServerName) && !out.tls) {
      entry.AddMistake("server_name",
                       "is the name in a certificate, and this pool has no tls; set tls in the "
                       "pool, or leave this key out");
    }
    out.backends.push_back(std::move(backend));
  }
}

void Loader::ReadPoolTls(const TableReader& in, PoolTls& out) {
  out.ca_line = in.LineOf("ca");
  if (const auto ca = in.Text("ca"); ca && !ca->text.empty()) {
    ReadFilePath(in, "ca", kPemFile, out.ca);
  }
  if (const auto name = in.Text("server_name"); name && !name->text.empty()) {
    in.ReadParsed("server_name", out.server_name, ParseServerName);
  }
  out.certificate_line = in.LineOf("certificate");
  if (const auto pair = in.Table("certificate", "pool.*.tls.certificate",
                                 "a table, such as { chain = \"chain.pem\", key = \"key.pem\" }")) {
    ReadFilePath(*pair, "chain", kPemFile, out.certificate.chain);
    ReadFilePath(*pair, "key", kPemFile, out.certificate.key);
  }
  in.Read("verify", out.verify);
  if (!out.verify) {
    in.AddWarning("verify",
                  "certificates of these backends are not checked, so anybody on the way to them "
                  "can read and change what is said");
  }
  in.ReadWord("min_version", out.min_version, {"1.2", "1.3"}, {TlsVersion::k12, TlsVersion::k13});
}

void Loader::ReadHealth(const TableReader& pool, Pool& out) {
  Health& health = out.health;
  if (const auto in =
          pool.Table("health", "pool.*.health", "a table, such as { type = \"tcp\" }")) {
    if (!in->Has("type")) {
      in->AddMistake("type", "is missing; allowed: off, tcp, http, websocket");
    }
    in->ReadWord("type", health.type, {"off", "tcp", "http", "websocket"},
                 {HealthType::kOff, HealthType::kTcp, HealthType::kHttp, HealthType::kWebSocket});
    in->ReadParsed("path", health.path, ParseRequestPath);
    in->ReadParsed("host", health.host, ParseHostField);
    StatusRange status{health.least_status, health.most_status};
    if (in->IsInteger("status")) {
      if (in->ReadCount("status", status.least, kLeastStatus, kMostStatus)) {
        status.most = status.least;
      }
    } else {
      in->ReadParsed("status", status, ParseStatusRange);
    }
    health.least_status = status.least;
    health.most_status = status.most;
    // Ten checks a second of each backend are as many as anybody needs.
    in->ReadDuration("interval", health.interval, Millis(100), kLongest);
    in->ReadDuration("timeout", health.timeout, Millis(50), kLongest);
    in->ReadCount("rise", health.rise, 1, 100);
    in->ReadCount("fall", health.fall, 1, 100);
    in->Read("ping", health.ping);
  }
  pool.ReadWord("on_down", out.on_down, {"keep", "drain"}, {OnDown::kKeep, OnDown::kDrain});
  if (out.on_down == OnDown::kDrain && !health.is_on()) {
    pool.AddWarning("on_down", "without health checks no backend is ever found down");
  }
}

void Loader::ReadOutlier(const TableReader& pool, Outlier& out) {
  const auto in = pool.Table("outlier", "pool.*.outlier", "a table");
  if (!in) {
    return;
  }
  in->ReadCount("failures", out.failures, 0, 1000);
  in->ReadDuration("ejection_time", out.ejection_time, Millis(100), kLongest);
  in->ReadDuration("max_ejection_time", out.max_ejection_time, Millis(100), kDay);
  in->ReadNumber("max_ejected", out.max_ejected, 0.01, 1);
  if (out.ejection_time > out.max_ejection_time) {
    in->AddMistake(in->Has("ejection_time") ? "ejection_time" : "max_ejection_time",
                   "ejection_time (" + FormatDuration(out.ejection_time) +
                       ") is the first and shortest; allowed: at most max_ejection_time (" +
                       FormatDuration(out.max_ejection_time) + ")");
  }
}

void Loader::ReadDiscovery(const TableReader& pool, Discovery& out) {
  constexpr std::string_view kForm =
      "a table, such as { dns = \"chat.internal\", port = 9000 } or { file = \"backends.toml\" }";
  if (pool.Has("backends")) {
    pool.AddMistake("discover",
                    "the pool lists backends too; allowed: either backends or discover");
  }
  const auto in = pool.Table("discover", "pool.*.discover", kForm);
  if (!in) {
    return;
  }
  if (in->Has("dns") == in->Has("file")) {
    pool.AddMistake("discover", (in->Has("dns") ? "has both dns and file; allowed: "
                                                : "has neither dns nor file; allowed: ") +
                                    std::string(kForm));
    return;
  }
  if (in->Has("dns")) {
    ReadDnsDiscovery(*in, out);
    return;
  }
  // It need not be there yet: what is wrong with it then is told while the process runs.
  ReadPath(*in, "file", "a file that lists backends", out.file);
  for (const std::string_view key : {"port", "type", "servers", "timeout", "min_ttl", "max_ttl"}) {
    if (in->Has(key)) {
      in->AddMistake(key, "has no meaning for a file; allowed: only with dns");
    }
  }
}

void Loader::ReadDnsDiscovery(const TableReader& in, Discovery& out) {
  in.ReadParsed("dns", out.dns, ParseDnsName);
  in.ReadWord("type", out.type, {"A", "AAAA", "SRV"}, {DnsType::kA, DnsType::kAaaa, DnsType::kSrv});
  in.ReadCount("port", out.port, 1, 65535);
  if (out.type == DnsType::kSrv && in.Has("port")) {
    in.AddMistake("port", "is told by SRV records themselves; allowed: only with type A or AAAA");
  } else if (out.type != DnsType::kSrv && !in.Has("port")) {
    in.AddMistake("port", "is missing; allowed: the port of all backends, 1 to 65535");
  }
  for (const TextItem& item : in.Texts("servers")) {
    if (const auto server = ParseDnsServer(item.text)) {
      out.servers.push_back(server->Text());
    } else {
      report_.AddMistake(item.line, item.key, server.error().message);
    }
  }
  in.ReadDuration("timeout", out.timeout, Millis(100), Millis(60'000));
  in.ReadDuration("min_ttl", out.min_ttl, Millis(100), kDay);
  in.ReadDuration("max_ttl", out.max_ttl, Millis(100), kDay);
  if (out.min_ttl > out.max_ttl) {
    in.AddMistake(in.Has("min_ttl") ? "min_ttl" : "max_ttl",
                  "min_ttl (" + FormatDuration(out.min_ttl) + ") is above max_ttl (" +
                      FormatDuration(out.max_ttl) + "); allowed: at most max_ttl");
  }
}

void Loader::ReadRoutes() {
  const auto tables = root_.Tables("route", "route", "an array of tables, each written [[route]]");
  if (root_.IsAbsentOrEmpty("route")) {
    root_.AddMistake("route", "there is no route; write [[route]] and its pool");
  }
  Claims names("route name");
  Claims places("host and path");
  for (const TableReader& in : tables) {
    Route out;
    const bool place_known = ReadHostAndPath(in, out);
    ReadRoute(in, out);
    // What was refused already need not be reported a second time as taken.
    const bool place_free =
        place_known && places.Claim(report_, PlaceOf(out), in.line(), in.path());
    if (in.Has("name") || place_free) {
      names.Claim(report_, out.name, in.LineOf("name"), in.PathOf("name"));
    }
    config_.routes.push_back(std::move(out));
    route_pools_.push_back({in.LineOf("pool"), in.PathOf("pool")});
  }
}

bool Loader::ReadHostAndPath(const TableReader& in, Route& out) {
  const bool host = in.ReadParsed("host", out.host, ParseRouteHost) || !in.Has("host");
  const bool path = in.ReadParsed("path", out.path, ParseRoutePath) || !in.Has("path");
  return host && path;
}

void Loader::ReadRoute(const TableReader& in, Route& out) {
  out.name = PlaceOf(out);
  in.ReadParsed("name", out.name, ParseRouteName);
  if (!in.Has("pool")) {
    in.AddMistake("pool", "is missing; allowed: the name of a pool");
  } else {
    in.Read("pool", out.pool);
  }
  in.Read("upgrades", out.upgrades);
  ReadAffinity(in, out);
  ReadLearn(in, out);
  for (const TextItem& item : in.Texts("origins")) {
    if (auto origin = ParseOrigin(item.text)) {
      out.origins.push_back(std::move(*origin));
    } else {
      report_.AddMistake(item.line, item.key, origin.error().message);
    }
  }
  in.Read("require_origin", out.require_origin);
  if (out.require_origin && !in.Has("origins")) {
    in.AddMistake("require_origin",
                  "has nothing to require without origins; list them, or leave "
                  "this key out");
  }
  if (const auto limits = in.Table("limits", "route.limits", "a table")) {
    constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    limits->ReadSize("max_message_bytes", out.limits.max_message_bytes, 0, kMost);
    limits->ReadSize("max_frame_bytes", out.limits.max_frame_bytes, 0, 2 * kGiB);
    limits->ReadCount("max_frames_per_message", out.limits.max_frames_per_message, 0,
                      std::numeric_limits<std::uint32_t>::max());
    limits->ReadCount("max_connections", out.limits.max_connections, 0, kMostConnections);
    limits->ReadNumber("messages_per_second", out.limits.messages_per_second, kLeastRate, kMostRate,
                       "no limit");
    limits->ReadSize("bytes_per_second", out.limits.bytes_per_second, 100, kMost, "no limit");
    limits->ReadNumber("control_frames_per_second", out.limits.control_frames_per_second,
                       kLeastRate, kMostRate, "no limit");
    limits->ReadWord("on_limit", out.limits.on_limit, {"pause", "close"},
                     {OnLimit::kPause, OnLimit::kClose});
    if (limits->Has("max_connection_age")) {
      ReadConnectionAge(*limits, out.limits.max_connection_age.emplace());
    }
  }
  in.ReadCount("retries", out.retries, 0, 16);
  in.ReadDuration("handshake_timeout", out.handshake_timeout, kShortest, kLongest);
  in.ReadDuration("response_timeout", out.response_timeout, kShortest, kDay);
  in.ReadDuration("response_idle_timeout", out.response_idle_timeout, kShortest, kDay);
  ReadCloseCode(in, out.close_code);
  in.ReadSize("refragment", out.refragment, kKiB, kGiB, "off");
  if (const auto heartbeat = in.Table("heartbeat", "route.heartbeat", "a table")) {
    ReadHeartbeat(*heartbeat, out.heartbeat.backend);
    out.heartbeat.client = out.heartbeat.backend;
    if (const auto side = heartbeat->Table("client", "route.heartbeat.client", "a table")) {
      ReadHeartbeat(*side, out.heartbeat.client);
    }
    if (const auto side = heartbeat->Table("backend", "route.heartbeat.backend", "a table")) {
      ReadHeartbeat(*side, out.heartbeat.backend);
    }
  }
  in.ReadDuration("idle_timeout", out.idle_timeout, Millis(500), kMonth, "no limit");
  in.ReadWord("on_slow", out.on_slow, {"pause", "close"}, {OnSlow::kPause, OnSlow::kClose});
  in.ReadDuration("slow_timeout", out.slow_timeout, Millis(100), kLongest);
  constexpr std::string_view kRulesForm =
      "a table, such as { add = { \"X-Env\" = \"prod\" }, remove = [\"X-Debug\"] }";
  if (const auto rules = in.Table("request_headers", "route.request_headers", kRulesForm)) {
    ReadHeaderRules(*rules, out.request_headers);
  }
  if (const auto rules = in.Table("response_headers", "route.response_headers", kRulesForm)) {
    ReadHeaderRules(*rules, out.response_headers);
  }
  ReadHsts(in, out);
  ReadErrorPages(in, out.error_pages);
  ReadAuth(in, out);
}

void Loader::ReadAuth(const TableReader& route, Route& out) {
  if (const auto in = route.Table("auth", "route.auth",
                                  "a table, such as { url = \"http://127.0.0.1:9001/check\" }")) {
    Auth& auth = out.auth.emplace();
    if (!in->Has("url")) {
      in->AddMistake("url", "is missing; allowed: the http:// URL of a server to ask");
    } else if (const auto text = in->Text("url")) {
      if (auto url = ParseHttpUrl(text->text)) {
        auth.host = std::move(url->address.host);
        auth.port = url->address.port;
        auth.authority = std::move(url->authority);
        auth.target = std::move(url->target);
      } else {
        in->AddMistake("url", url.error().message);
      }
    }
    ReadFieldNames(*in, "forward", ParseForwardedField, auth.forward);
    ReadFieldNames(*in, "copy", ParseCopiedField, auth.copy);
    for (const HeaderRules::Field& added : out.request_headers.add) {
      if (std::find(auth.copy.begin(), auth.copy.end(), Lower(added.name)) != auth.copy.end()) {
        in->AddMistake("copy",
                       "has " + Quoted(added.name) +
                           ", which request_headers adds too, so that the backend would get "
                           "both; allowed: either of them");
      }
    }
    in->ReadDuration("timeout", auth.timeout, kShortest, kLongest);
    in->ReadWord("on", auth.on, {"all", "upgrades"}, {AuthOn::kAll, AuthOn::kUpgrades});
  }
  const auto header = route.Text("auth_expires_header");
  if (header && !header->text.empty()) {
    if (route.ReadParsed("auth_expires_header", out.auth_expires_header, ParseFieldName) &&
        !route.Has("auth")) {
      route.AddMistake("auth_expires_header",
                       "is a field of the answer of auth, and this route has none; set auth, or "
                       "leave this key out");
    }
  }
  const bool has_code = route.ReadCode(
      "auth_expires_code", out.auth_expires_code,
      [](std::uint16_t code) { return code == 1008 || (code >= 4000 && code <= 4999); },
      "does not tell a client that it needs another token",
      "1008 (policy violation), or 4000 to 4999 for what its application knows");
  const bool expires = header ? !header->text.empty() : route.Has("auth_expires_header");
  if (has_code && !expires && out.auth_expires_code != Route().auth_expires_code) {
    route.AddMistake("auth_expires_code",
                     "is for sessions that end when auth_expires_header says, and this route has "
                     "none; set auth_expires_header, or leave this key out");
  }
}

void Loader::ReadFieldNames(const TableReader& in, std::string_view key,
                            Result<std::string> (*parse)(std::string_view),
                            std::vector<std::string>& out) {
  for (const TextItem& item : in.Texts(key)) {
    auto name = parse(item.text);
    if (!name) {
      report_.AddMistake(item.line, item.key, name.error().message);
    } else if (std::find(out.begin(), out.end(), *name) == out.end()) {
      out.push_back(std::move(*name));
    }
  }
}

void Loader::ReadHeartbeat(const TableReader& in, Heartbeat& out) {
  in.ReadDuration("interval", out.interval, Millis(100), kLongest, "off");
  in.ReadDuration("timeout", out.timeout, Millis(50), kLongest);
}

void Loader::ReadHeaderRules(const TableReader& in, HeaderRules& out) {
  Claims names("field");
  const auto added = in.NamedTexts("add", "a table, such as { \"X-Env\" = \"prod\" }");
  for (const auto& [name, item] : added) {
    auto good_name = ParseChangedField(name);
    auto value = ParseFieldValue(item.text);
    if (!good_name) {
      report_.AddMistake(item.line, item.key, good_name.error().message);
    } else if (!value) {
      report_.AddMistake(item.line, item.key, value.error().message);
    } else if (names.Claim(report_, Lower(name), item.line, item.key)) {
      out.add.push_back({std::move(*good_name), std::move(*value)});
    }
  }
  const auto removed = in.Texts("remove");
  for (const TextItem& item : removed) {
    if (auto name = ParseChangedField(item.text)) {
      out.remove.push_back(std::move(*name));
    } else {
      report_.AddMistake(item.line, item.key, name.error().message);
    }
  }
  for (const auto& [key, count] :
       {std::pair<std::string_view, std::size_t>("add", added.size()),
        std::pair<std::string_view, std::size_t>("remove", removed.size())}) {
    if (count > kMostFieldRules) {
      in.AddMistake(key, "has " + std::to_string(count) + " fields; allowed: at most " +
                             std::to_string(kMostFieldRules));
    }
  }
}

void Loader::ReadHsts(const TableReader& route, Route& out) {
  const auto names = [](std::string_view name) {
    return Lower(name) == "strict-transport-security";
  };
  const HeaderRules& rules = out.response_headers;
  const bool added =
      std::any_of(rules.add.begin(), rules.add.end(),
                  [&](const HeaderRules::Field& field) { return names(field.name); });
  if (added && std::any_of(config_.listeners.begin(), config_.listeners.end(),
                           [](const Listener& listener) { return !listener.is_tls(); })) {
    route.AddWarning(
        "response_headers",
        "adds Strict-Transport-Security to what goes out without TLS too, where nobody "
        "may believe it; hsts sends it over TLS alone");
  }
  const auto in = route.Table("hsts", "route.hsts", "a table, such as { max_age = \"365d\" }");
  if (!in) {
    return;
  }
  Hsts& hsts = out.hsts.emplace();
  in->ReadDuration("max_age", hsts.max_age, Millis(1000), kTenYears, "browsers forget it");
  in->Read("include_subdomains", hsts.include_subdomains);
  in->Read("preload", hsts.preload);
  if (hsts.preload && (!hsts.include_subdomains || hsts.max_age < kYear)) {
    in->AddMistake("preload",
                   "asks for a place on the lists of browsers, which take no such site; allowed: "
                   "false, or true together with include_subdomains = true and a max_age of at "
                   "least 365d");
  }
  if (added || std::any_of(rules.remove.begin(), rules.remove.end(), names)) {
    route.AddMistake("hsts",
                     "sets Strict-Transport-Security, which response_headers names too; allowed: "
                     "either of them");
  }
  if (std::none_of(config_.listeners.begin(), config_.listeners.end(),
                   [](const Listener& listener) { return listener.is_tls(); })) {
    route.AddWarning("hsts", "no listener has tls, so Strict-Transport-Security is never sent");
  }
}

void Loader::ReadErrorPages(const TableReader& route, std::vector<ErrorPage>& out) {
  for (const auto& [name, item] :
       route.NamedTexts("error_pages", "a table, such as { 502 = \"errors/502.html\" }")) {
    const auto status = ParseErrorStatus(name);
    if (!status) {
      report_.AddMistake(item.line, item.key, status.error().message);
      continue;
    }
    if (item.text.empty() || item.text.find('\0') != std::string_view::npos) {
      report_.AddMistake(item.line, item.key,
                         Quoted(item.text) + " is not a path; allowed: the path of a file");
      continue;
    }
    const std::filesystem::path path =
        (std::filesystem::path(base_dir_) / item.text).lexically_normal();
    if (auto content = ReadWhole(path.string(), kMostPageBytes, "an error page")) {
      out.push_back({*status, path.string(), std::string(ContentType(path.extension().string())),
                     std::move(*content)});
    } else {
      report_.AddMistake(item.line, item.key, content.error().message);
    }
  }
}

void Loader::ReadAffinity(const TableReader& in, Route& out) {
  if (in.Has("affinity_cookie")) {
    const auto cookie = in.Text("affinity_cookie");
    if (cookie && !cookie->text.empty() && !IsToken(cookie->text)) {
      in.AddMistake("affinity_cookie",
                    Quoted(cookie->text) +
                        " is not a cookie name; allowed: letters, digits and !#$%&'*+-.^_`|~");
    } else if (cookie) {
      out.affinity_cookie = cookie->text;
      CheckCookiePrefix(in, out.affinity_cookie);
    }
  }
  const AffinityRule cookie_rule{AffinitySource::kCookie, out.affinity_cookie, 0};
  bool has_cookie_rule = false;
  for (const TextItem& item : in.Texts("affinity")) {
    if (auto rule = ParseAffinity(item.text)) {
      has_cookie_rule =
          has_cookie_rule || (rule->source == cookie_rule.source && rule->name == cookie_rule.name);
      out.affinity.push_back(std::move(*rule));
    } else {
      report_.AddMistake(item.line, item.key, rule.error().message);
    }
  }
  if (out.affinity.empty()) {
    out.affinity.push_back({AffinitySource::kIp, "", 0});
  }
  if (!out.affinity_cookie.empty() && !has_cookie_rule) {
    // A cookie that Sluice issues is meant to decide.
    out.affinity.insert(out.affinity.begin(), cookie_rule);
  }
}

// Browsers hold names that begin so to what they promise (RFC 6265bis section 4.1.3), in any case.
void Loader::CheckCookiePrefix(const TableReader& route, std::string_view name) {
  const std::string lower = Lower(name);
  const bool promises_tls = lower.starts_with("__host-") || lower.starts_with("__secure-");
  const auto plain =
      std::find_if(config_.listeners.begin(), config_.listeners.end(),
                   [](const Listener& one) { return !one.is_tls() && !one.redirect; });
  if (promises_tls && plain != config_.listeners.end()) {
    route.AddWarning("affinity_cookie",
                     "browsers take a cookie of this name over TLS only, and listener " +
                         Quoted(plain->name) + " has none: there they are not kept on a backend");
  }
}

void Loader::ReadLearn(const TableReader& route, Route& out) {
  const auto in =
      route.Table("learn", "route.learn",
                  "a table, such as { json = \"connectionToken\", from = \"/negotiate\" }");
  if (!in) {
    return;
  }
  Learn& learn = out.learn.emplace();
  if (!in->Has("json")) {
    in->AddMistake("json", "is missing; allowed: the name of the member that holds the token");
  } else if (in->Read("json", learn.json) &&
             (learn.json.empty() || learn.json.size() > kMostMemberName)) {
    in->AddMistake("json", Quoted(learn.json) +
                               " is not the name of a member; allowed: 1 to 64 bytes, such as "
                               "\"connectionToken\" or \"sid\"");
  }
  if (!in->Has("from")) {
    in->AddMistake("from", "is missing; allowed: the end of a path, such as \"/negotiate\"");
  } else {
    in->ReadParsed("from", learn.from, ParsePathEnd);
  }
  in->ReadCount("max_entries", learn.max_entries, 1, kMostConnections);
  in->ReadDuration("ttl", learn.ttl, std::chrono::seconds(1), kDay);
  // Neither an address nor a cookie of ours is a token of a backend.
  const bool can_find =
      std::any_of(out.affinity.begin(), out.affinity.end(), [&](const AffinityRule& rule) {
        return rule.source != AffinitySource::kIp &&
               !(rule.source == AffinitySource::kCookie && rule.name == out.affinity_cookie);
      });
  if (!can_find) {
    route.AddMistake("learn",
                     "has no affinity rule that could find a token in a request; add the one that "
                     "clients send it in: query:NAME, header:NAME, path:N or cookie:NAME");
  }
}

void Loader::ReadCloseCode(const TableReader& in, std::uint16_t& out) {
  in.ReadCode(
      "close_code", out, [](std::uint16_t code) { return code == 1012 || code == 1001; },
      "would make some clients give up instead of reconnecting",
      "1012 (service restart) or 1001 (going away)");
}

void Loader::CheckPoolUse() {
  std::vector<std::string_view> names;
  for (const Pool& pool : config_.pools) {
    names.push_back(pool.name);
  }
  std::vector<bool> used(names.size(), false);
  for (std::size_t i = 0; i < config_.routes.size(); ++i) {
    const std::string& wanted = config_.routes[i].pool;
    const auto found = std::find(names.begin(), names.end(), wanted);
    if (found != names.end()) {
      used[static_cast<std::size_t>(found - names.begin())] = true;
    } else if (!wanted.empty() && !names.empty()) {
      std::string what = "there is no pool named " + Quoted(wanted) + "; ";
      if (const auto nearest = Nearest(wanted, names)) {
        what += "did you mean " + Quoted(*nearest) + "? ";
      }
      report_.AddMistake(route_pools_[i].line, route_pools_[i].key,
                         what + "pools here: " + Joined(names));
    }
  }
  for (std::size_t i = 0; i < used.size(); ++i) {
    if (!used[i] && !config_.routes.empty()) {
      report_.AddWarning(pool_places_[i].line, pool_places_[i].key,
                         "no route uses this pool, so it gets no traffic");
    }
  }
}

void Loader::CheckAdminAddress() {
  const Admin& admin = config_.admin;
  if (!admin.enabled || admin.port == 0) {
    return;
  }
  const auto is_v6 = [](const std::string& host) { return host.find(':') != std::string::npos; };
  const bool admin_v6 = is_v6(admin.host);
  const std::string any = admin_v6 ? "::" : "0.0.0.0";
  for (std::size_t i = 0; i < config_.listeners.size(); ++i) {
    const Listener& listener = config_.listeners[i];
    const bool same_host = listener.host == admin.host || listener.host == any ||
                           (admin.host == any && is_v6(listener.host) == admin_v6);
    if (listener.port == admin.port && same_host) {
      report_.AddMistake(listener_places_[i].line, listener_places_[i].key,
                         "takes the port of the admin interface (" +
                             HostPort{admin.host, admin.port, true}.Text() +
                             "); choose another port, or set address in [admin]");
    }
  }
}

// Calls `read` for the parsed text, or reports the one mistake that keeps it from being parsed.
template <class Read>
void ParseDocument(std::string_view text, const std::string& name, Report& report, Read read) {
  try {
    const toml::table document = toml::parse(text, std::string_view(name));
    read(document);
  } catch (const toml::parse_error& error) {
    // The description of an error inside a string may quote it; keep the message one line.
    std::string what = "not valid TOML: ";
    for (const char c : error.description()) {
      what += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
    report.AddMistake(std::max<std::size_t>(1, error.source().begin.line), "",
                      what + " (column " + std::to_string(error.source().begin.column) + ")");
  }
}

}  // namespace

std::string Mistake::Text() const {
  std::string text = where;
  for (const std::string& part : {key, what}) {
    if (!part.empty()) {
      text += text.empty() ? part : ": " + part;
    }
  }
  return text;
}

LoadResult LoadText(std::string_view text, const std::string& name, const std::string& base_dir) {
  LoadResult result;
  Report report(name);
  ParseDocument(text, name, report, [&](const toml::table& document) {
    result.config = Loader(report, document, base_dir).Load();
  });
  result.mistakes = report.TakeMistakes();
  result.warnings = report.TakeWarnings();
  return result;
}

LoadResult LoadFile(const std::string& path) {
  const auto text = ReadWhole(path, kMostFileBytes, "a configuration");
  if (!text) {
    LoadResult result;
    result.mistakes.push_back({"", "", text.error().message});
    return result;
  }
  return LoadText(*text, path, std::filesystem::path(path).parent_path().string());
}

LoadedBackends LoadBackends(const std::string& path) {
  LoadedBackends loaded;
  const auto text = ReadWhole(path, kMostFileBytes, "a list of backends");
  if (!text) {
    loaded.mistakes.push_back({"", "", text.error().message});
    return loaded;
  }
  Report report(path);
  ParseDocument(*text, path, report, [&](const toml::table& document) {
    loaded.backends = Loader(report, document, "", kBackendsFileKeys).LoadBackends();
  });
  loaded.mistakes = report.TakeMistakes();
  return loaded;
}

Result<std::string> LoadToken(const std::string& path) {
  auto token = ReadWhole(path, kMostTokenFileBytes, "a token");
  if (!token) {
    return token;
  }
  token->erase(token->find_last_not_of(" \t\r\n") + 1);
  const bool visible =
      std::all_of(token->begin(), token->end(), [](char c) { return c > 0x20 && c < 0x7F; });
  if (!visible || token->size() < kLeastToken || token->size() > kMostToken) {
    // What it does hold is nobody's business.
    return Err(Quoted(path) + " does not hold a token; allowed: " + std::to_string(kLeastToken) +
               " to " + std::to_string(kMostToken) +
               " visible ASCII characters without spaces, such as `openssl rand -hex 32` makes");
  }
  return token;
}

}  // namespace sluice::config
