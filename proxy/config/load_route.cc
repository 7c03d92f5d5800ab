// Routes, and all that they say of what passes them. Part of Loader.
#include <algorithm>
#include <filesystem>
#include <limits>
#include <utility>

#include "proxy/config/loader.h"
#include "proxy/config/values.h"

namespace sluice::config {
namespace {

// What lists of sites that speak https only want, and a bound for what is mistyped.
constexpr Millis kYear = std::chrono::days(365);
constexpr Millis kTenYears = std::chrono::days(3650);

constexpr std::size_t kMostMemberName = 64;  // of a JSON object

// Of an error page: such an answer is made in memory, and may have to wait there for a slow client.
constexpr std::size_t kMostPageBytes = 64 * kKiB;

// Each of them is compared with every field of a head.
constexpr std::size_t kMostFieldRules = 32;

// "chat.example.com/socket", "*/".
std::string PlaceOf(const Route& route) {
  return (route.host.empty() ? "*" : route.host) + route.path;
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

}  // namespace

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
    if (in.Has("learn")) {
      // Where SignalR and engine.io send theirs. Behind the address they find what was learned, and
      // nothing else.
      out.affinity.push_back({AffinitySource::kQuery, "id", 0});
      out.affinity.push_back({AffinitySource::kQuery, "sid", 0});
    }
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

}  // namespace sluice::config
