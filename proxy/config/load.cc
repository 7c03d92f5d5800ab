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
#include <utility>

#include "proxy/base/unique_fd.h"
#include "proxy/config/loader.h"
#include "proxy/config/values.h"

namespace sluice::config {
namespace {

constexpr std::size_t kMostSocketPath = sizeof(sockaddr_un::sun_path) - 1;  // and a NUL

constexpr std::size_t kMostFileBytes = 16 * kMiB;  // a device or a dump given by mistake

// Of the admin token: nothing that could be guessed, nothing that does not fit a request's head.
constexpr std::size_t kLeastToken = 16;
constexpr std::size_t kMostToken = 4096;
constexpr std::size_t kMostTokenFileBytes = kMostToken + 64;  // white space at its end

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
