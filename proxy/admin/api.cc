#include "proxy/admin/api.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "proxy/admin/parameters.h"
#include "proxy/config/values.h"
#include "proxy/log/log.h"
#include "proxy/net/address.h"
#include "proxy/ws/frame_writer.h"

namespace sluice::admin {
namespace {

using config::Quoted;
using nlohmann::ordered_json;

constexpr std::size_t kMostListed = 10'000;
constexpr double kMostRate = 1e6;
constexpr Millis kLongestWindow = std::chrono::hours(24);
constexpr std::size_t kMostReason = 123;  // RFC 6455 section 5.5: 125, of which the code takes two

// JSON.

// Milliseconds are as exact as anything here is, and shorter to read than 17 digits.
double Rounded(double value) {
  return std::round(value * 1000) / 1000;
}

ordered_json ToJson(const DrainProgress& drain) {
  ordered_json out = {
      {"state", drain.state},
      {"total", drain.total},
      {"remaining", drain.remaining},
      {"clean", drain.clean},
      {"forced", drain.forced},
      {"elapsed_seconds", Rounded(drain.elapsed_seconds)},
      {"window_seconds", Rounded(drain.window_seconds)},
      {"rate_per_second", Rounded(drain.rate_per_second)},
      {"eta_seconds", nullptr},
  };
  if (drain.eta_seconds >= 0) {
    out["eta_seconds"] = Rounded(drain.eta_seconds);
  }
  return out;
}

ordered_json ToJson(const HealthInfo& health) {
  return {
      {"state", health.state},
      {"last_error", health.last_error.empty() ? ordered_json() : ordered_json(health.last_error)},
      {"since", Rounded(health.since)},
  };
}

ordered_json ToJson(const BackendInfo& backend) {
  return {
      {"pool", backend.pool},
      {"name", backend.name},
      {"address", backend.address},
      {"weight", backend.weight},
      {"healthy", backend.healthy},
      {"health", ToJson(backend.health)},
      {"draining", backend.draining},
      {"open", backend.open},
      {"drain", backend.drain ? ToJson(*backend.drain) : ordered_json()},
  };
}

ordered_json ToJson(const SessionInfo& session) {
  return {
      {"id", session.id},
      {"client", session.client},
      {"client_ip", session.client_ip},
      {"proxy", session.proxy.empty() ? ordered_json() : ordered_json(session.proxy)},
      {"listener", session.listener},
      {"route", session.route},
      {"pool", session.pool},
      {"backend", session.backend},
      {"age_seconds", Rounded(session.age_seconds)},
      {"bytes_in", session.bytes_in},
      {"bytes_out", session.bytes_out},
      {"messages_in", session.messages_in},
      {"messages_out", session.messages_out},
      {"state", session.state},
  };
}

ordered_json ToJson(const StatusInfo& status) {
  return {
      {"version", status.version},
      {"pid", status.pid},
      {"uptime_seconds", Rounded(status.uptime_seconds)},
      {"workers", status.workers},
      {"connections", status.connections},
      {"max_connections", status.max_connections},
      {"sessions", status.sessions},
      {"draining", status.draining},
      {"drain_remaining", status.drain_remaining},
      {"taken_over_from",
       status.taken_over_from ? ordered_json(*status.taken_over_from) : ordered_json()},
      {"config_loaded_at", Rounded(status.config_loaded_at)},
  };
}

AdminReply JsonReply(int status, const ordered_json& document) {
  AdminReply reply;
  reply.status = status;
  reply.content_type = kJson;
  reply.body = document.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
  return reply;
}

AdminReply TextReply(int status, std::string text) {
  AdminReply reply;
  reply.status = status;
  reply.body = std::move(text);
  return reply;
}

AdminReply RefusedReply(int status, std::string detail) {
  return ProblemReply(Refused(status, std::move(detail)).value());
}

AdminReply BackendReply(int status, const Outcome<BackendInfo>& outcome) {
  return outcome ? JsonReply(status, ToJson(*outcome)) : ProblemReply(outcome.error());
}

// Calls.

// One request whose path and parameters are known to fit its endpoint.
struct Call {
  Operations& operations;
  const std::vector<std::string>& names;  // what stands where the pattern has a star, decoded
  const Parameters& parameters;
  const AdminResponder& answer;
};

constexpr auto kNone = std::array<Parameter, 0>{};
constexpr auto kListParameters = std::to_array<Parameter>({
    {"pool"},
    {"backend"},
    {"route"},
    {"client_ip"},
    {"affinity"},
    {"limit", ParameterKind::kNumber},
});
constexpr auto kKickParameters = std::to_array<Parameter>({
    {"pool"},
    {"backend"},
    {"route"},
    {"client_ip"},
    {"affinity"},
    {"code", ParameterKind::kNumber},
    {"reason"},
});
constexpr auto kKickOneParameters =
    std::to_array<Parameter>({{"code", ParameterKind::kNumber}, {"reason"}});
constexpr auto kDrainParameters = std::to_array<Parameter>({
    {"window"},
    {"rate", ParameterKind::kNumber},
    {"force", ParameterKind::kFlag},
});

void GetMetrics(const Call& call) {
  AdminReply reply = TextReply(200, call.operations.MetricsText());
  reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
  call.answer(std::move(reply));
}

void GetHealth(const Call& call) {
  call.answer(TextReply(200, "ok\n"));
}

void GetReadiness(const Call& call) {
  const ReadinessInfo readiness = call.operations.Readiness();
  call.answer(TextReply(readiness.ready ? 200 : 503, std::string(readiness.word) + "\n"));
}

void GetConfig(const Call& call) {
  AdminReply reply = TextReply(200, call.operations.ConfigJson());
  reply.content_type = kJson;
  call.answer(std::move(reply));
}

void GetStatus(const Call& call) {
  call.answer(JsonReply(200, ToJson(call.operations.Status())));
}

void GetBackends(const Call& call) {
  const bool all = call.names.empty();
  ordered_json backends = ordered_json::array();
  for (const BackendInfo& backend : call.operations.Backends()) {
    if (all || backend.pool == call.names[0]) {
      backends.push_back(ToJson(backend));
    }
  }
  if (backends.empty() && !all) {
    call.answer(RefusedReply(404, "There is no pool " + Quoted(call.names[0]) + "."));
    return;
  }
  call.answer(JsonReply(200, {{"backends", std::move(backends)}}));
}

void GetBackend(const Call& call) {
  for (const BackendInfo& backend : call.operations.Backends()) {
    if (backend.pool == call.names[0] && backend.name == call.names[1]) {
      call.answer(JsonReply(200, ToJson(backend)));
      return;
    }
  }
  call.answer(RefusedReply(
      404, "There is no backend " + Quoted(call.names[0] + "/" + call.names[1]) + "."));
}

Outcome<DrainOrder> ReadDrainOrder(const Parameters& parameters) {
  auto window = parameters.Duration("window", kLongestWindow);
  if (!window) {
    return tl::unexpected(window.error());
  }
  auto rate = parameters.Rate("rate", kMostRate);
  if (!rate) {
    return tl::unexpected(rate.error());
  }
  auto force = parameters.Flag("force");
  if (!force) {
    return tl::unexpected(force.error());
  }
  return DrainOrder{*window, *rate, *force};
}

void PostDrainOfBackend(const Call& call) {
  const auto order = ReadDrainOrder(call.parameters);
  if (!order) {
    call.answer(ProblemReply(order.error()));
    return;
  }
  call.answer(BackendReply(202, call.operations.StartDrain(call.names[0], call.names[1], *order)));
}

void PostUndrain(const Call& call) {
  call.answer(BackendReply(200, call.operations.Undrain(call.names[0], call.names[1])));
}

// Fills what the parameters say about sessions. An empty value is refused: it would match any.
Outcome<SessionFilter> ReadFilter(const Parameters& parameters) {
  SessionFilter filter;
  const std::pair<std::string_view, std::string*> texts[] = {
      {"pool", &filter.pool},           {"backend", &filter.backend},   {"route", &filter.route},
      {"client_ip", &filter.client_ip}, {"affinity", &filter.affinity},
  };
  for (const auto& [name, field] : texts) {
    if (const std::string* text = parameters.Find(name)) {
      if (text->empty()) {
        return Refused(400, std::string(name) + " is empty; leave it out to mean any.");
      }
      *field = *text;
    }
  }
  if (const std::size_t slash = filter.backend.find('/'); slash != std::string::npos) {
    const std::string pool = filter.backend.substr(0, slash);
    if (!filter.pool.empty() && filter.pool != pool) {
      return Refused(400, "backend " + Quoted(filter.backend) + " is not in the pool " +
                              Quoted(filter.pool) + ".");
    }
    filter.pool = pool;
    filter.backend.erase(0, slash + 1);
    if (filter.pool.empty() || filter.backend.empty()) {
      return Refused(400, "backend has to be NAME or POOL/NAME.");
    }
  }
  if (!filter.client_ip.empty()) {
    // A NUL would end the text that the resolver sees.
    const bool clean = filter.client_ip.find('\0') == std::string::npos;
    const auto address =
        clean ? net::Address::FromNumeric(filter.client_ip, 0) : Err("not an address");
    if (!address) {
      return Refused(400, "client_ip: " + Quoted(filter.client_ip) + " is not a numeric address.");
    }
    filter.client_ip = address->Ip();
  }
  const auto limit = parameters.Count("limit", 1, kMostListed);
  if (!limit) {
    return tl::unexpected(limit.error());
  }
  if (*limit) {
    filter.limit = static_cast<std::size_t>(**limit);
  }
  return filter;
}

std::optional<std::uint64_t> ParseId(std::string_view text) {
  std::uint64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  return error == std::errc() && end == text.data() + text.size() && !text.empty()
             ? std::optional(id)
             : std::nullopt;
}

AdminReply NoSuchSession(std::string_view id) {
  return RefusedReply(404, "There is no session " + Quoted(id) + ".");
}

void GetSessions(const Call& call) {
  const auto filter = ReadFilter(call.parameters);
  if (!filter) {
    call.answer(ProblemReply(filter.error()));
    return;
  }
  call.operations.Sessions(*filter, [answer = call.answer](const SessionList& list) {
    ordered_json sessions = ordered_json::array();
    for (const SessionInfo& session : list.sessions) {
      sessions.push_back(ToJson(session));
    }
    answer(JsonReply(200, {{"matching", list.matching}, {"sessions", std::move(sessions)}}));
  });
}

void GetSession(const Call& call) {
  SessionFilter filter;
  filter.id = ParseId(call.names[0]);
  filter.limit = 1;
  if (!filter.id) {
    call.answer(NoSuchSession(call.names[0]));
    return;
  }
  call.operations.Sessions(
      filter, [answer = call.answer, id = call.names[0]](const SessionList& list) {
        answer(list.sessions.empty() ? NoSuchSession(id)
                                     : JsonReply(200, ToJson(list.sessions.front())));
      });
}

// The length of the character at the start of `text` if it is one of UTF-8 (RFC 3629 section 4) and
// no control character, else 0.
std::size_t PlainCharacter(std::string_view text) {
  const auto byte = [&](std::size_t i) -> unsigned {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const unsigned lead = byte(0);
  if (lead < 0x80) {
    return lead >= 0x20 && lead != 0x7F ? 1 : 0;
  }
  const std::size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  // What the second byte has to be: no overlong form, no surrogate, nothing above U+10FFFF; U+0080
  // to U+009F are control characters.
  const unsigned least = lead == 0xE0 || lead == 0xC2 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned most = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (lead < 0xC2 || lead > 0xF4 || byte(1) < least || byte(1) > most) {
    return 0;
  }
  for (std::size_t i = 2; i < size; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xBF) {
      return 0;
    }
  }
  return size;
}

bool IsPlainText(std::string_view text) {
  while (!text.empty()) {
    const std::size_t size = PlainCharacter(text);
    if (size == 0) {
      return false;
    }
    text.remove_prefix(size);
  }
  return true;
}

// What is wrong with the CLOSE that is asked for; fills `order` if nothing is.
Outcome<void> ReadClose(const Parameters& parameters, KickOrder& order) {
  if (const std::string* code = parameters.Find("code")) {
    const auto number = ParseId(*code);
    if (!number || *number > 0xFFFF ||
        !ws::IsSendableCloseCode(static_cast<std::uint16_t>(*number))) {
      return Refused(400, "code: " + Quoted(*code) +
                              " may not be sent in a CLOSE frame; allowed: 1000 to 1003, 1007 to "
                              "1014 and 3000 to 4999.");
    }
    order.code = static_cast<std::uint16_t>(*number);
  }
  if (const std::string* reason = parameters.Find("reason")) {
    if (reason->size() > kMostReason || !IsPlainText(*reason)) {
      return Refused(400,
                     "reason has to be UTF-8 without control characters, and at most 123 bytes, "
                     "because a CLOSE frame holds no more.");
    }
    order.reason = *reason;
  }
  return {};
}

void DeleteSession(const Call& call) {
  KickOrder order;
  if (const auto close = ReadClose(call.parameters, order); !close) {
    call.answer(ProblemReply(close.error()));
    return;
  }
  order.filter.id = ParseId(call.names[0]);
  if (!order.filter.id) {
    call.answer(NoSuchSession(call.names[0]));
    return;
  }
  call.operations.Kick(order, [answer = call.answer, id = call.names[0]](std::size_t kicked) {
    answer(kicked == 0 ? NoSuchSession(id) : JsonReply(200, {{"kicked", kicked}}));
  });
}

void DeleteSessions(const Call& call) {
  const auto filter = ReadFilter(call.parameters);
  if (!filter) {
    call.answer(ProblemReply(filter.error()));
    return;
  }
  if (filter->pool.empty() && filter->backend.empty() && filter->route.empty() &&
      filter->client_ip.empty() && filter->affinity.empty()) {
    call.answer(RefusedReply(
        400,
        "Closing sessions needs at least one of pool, backend, route, client_ip and affinity."));
    return;
  }
  KickOrder order;
  if (const auto close = ReadClose(call.parameters, order); !close) {
    call.answer(ProblemReply(close.error()));
    return;
  }
  order.filter = *filter;
  call.operations.Kick(order, [answer = call.answer](std::size_t kicked) {
    answer(JsonReply(200, {{"kicked", kicked}}));
  });
}

void PostReload(const Call& call) {
  const auto report = call.operations.Reload();
  call.answer(report ? JsonReply(200, {{"warnings", report->warnings}})
                     : ProblemReply(report.error()));
}

void PostDrain(const Call& call) {
  call.operations.StartProcessDrain();
  call.answer(JsonReply(202, {{"draining", true}}));
}

// Routing.

struct Endpoint {
  std::string_view method;
  std::string_view pattern;  // a star stands for one segment
  void (*run)(const Call& call);
  std::span<const Parameter> parameters = kNone;
  std::string_view action = {};  // what the log calls it; empty: changes nothing, is not logged
  bool any_query = false;        // for probes and scrapers, which may add what they like
};

constexpr Endpoint kEndpoints[] = {
    {"GET", "/metrics", GetMetrics, kNone, {}, true},
    {"GET", "/healthz", GetHealth, kNone, {}, true},
    {"GET", "/readyz", GetReadiness, kNone, {}, true},
    {"GET", "/config", GetConfig},
    {"GET", "/status", GetStatus},
    {"GET", "/backends", GetBackends},
    {"GET", "/backends/*", GetBackends},
    {"GET", "/backends/*/*", GetBackend},
    {"POST", "/backends/*/*/drain", PostDrainOfBackend, kDrainParameters, "drain"},
    {"DELETE", "/backends/*/*/drain", PostUndrain, kNone, "undrain"},
    {"POST", "/backends/*/*/undrain", PostUndrain, kNone, "undrain"},
    {"GET", "/sessions", GetSessions, kListParameters},
    {"DELETE", "/sessions", DeleteSessions, kKickParameters, "kick"},
    {"GET", "/sessions/*", GetSession},
    {"DELETE", "/sessions/*", DeleteSession, kKickOneParameters, "kick"},
    {"POST", "/reload", PostReload, kNone, "reload"},
    {"POST", "/drain", PostDrain, kNone, "drain_process"},
};

// The first segment of a path that begins with a slash; takes it off.
std::string_view TakeSegment(std::string_view& path) {
  path.remove_prefix(1);
  const std::size_t end = std::min(path.find('/'), path.size());
  const std::string_view segment = path.substr(0, end);
  path.remove_prefix(end);
  return segment;
}

// Fills `names` with what stands for the stars; false: the path is another one. Segments are
// decoded one by one, so that an encoded slash is a part of a name and never a border.
bool Matches(std::string_view pattern, std::string_view path, std::vector<std::string>& names) {
  names.clear();
  while (pattern.starts_with('/') && path.starts_with('/')) {
    const std::string_view want = TakeSegment(pattern);
    const std::string_view got = TakeSegment(path);
    if (want != "*") {
      if (want != got) {
        return false;
      }
      continue;
    }
    auto name = DecodePercent(got, false);
    if (!name || name->empty()) {
      return false;
    }
    names.push_back(std::move(*name));
  }
  return pattern.empty() && path.empty();
}

AdminReply NotAllowed(std::string_view path, std::string_view methods) {
  AdminReply reply =
      RefusedReply(405, Quoted(path) + " takes " + std::string(methods) + " and nothing else.");
  reply.extra_fields = "Allow: " + std::string(methods) + "\r\n";
  return reply;
}

// "pool=chat backend=chat-1 window=30s". Affinity keys are secrets of clients, and a reason is told
// to clients, not to the log.
std::string Subject(const Endpoint& endpoint, const std::vector<std::string>& names,
                    const Parameters* parameters) {
  std::string out;
  const auto add = [&out](std::string_view name, const std::string& value) {
    out += std::string(name) + "=" + value + " ";
  };
  if (names.size() == 2) {
    add("pool", LogValue(names[0]));
    add("backend", LogValue(names[1]));
  } else if (names.size() == 1) {
    add("id", LogValue(names[0]));
  }
  if (parameters != nullptr) {
    for (const Parameter& parameter : endpoint.parameters) {
      const std::string* value = parameters->Find(parameter.name);
      if (value != nullptr && parameter.name != "reason") {
        add(parameter.name, parameter.name == "affinity" ? "hidden" : LogValue(*value));
      }
    }
  }
  return out;
}

void Run(Operations& operations, const Endpoint& endpoint, const std::vector<std::string>& names,
         const AdminRequest& request, AdminResponder answer) {
  Outcome<Parameters> parameters;
  if (request.method == "GET" && !request.body.empty()) {
    parameters = Refused(400, "A GET request here has no content.");
  } else if (!endpoint.any_query) {
    parameters = Parameters::Read(request, endpoint.parameters);
  }
  if (!endpoint.action.empty()) {
    answer = [answer = std::move(answer), action = endpoint.action, peer = request.peer,
              subject =
                  Subject(endpoint, names, parameters ? &*parameters : nullptr)](AdminReply reply) {
      spdlog::info("admin action={} {}status={} peer={}", action, subject, reply.status, peer);
      answer(std::move(reply));
    };
  }
  if (!parameters) {
    answer(ProblemReply(parameters.error()));
    return;
  }
  endpoint.run({operations, names, *parameters, answer});
}

}  // namespace

void Api::operator()(const AdminRequest& request, AdminResponder answer) const {
  std::vector<std::string> names;
  std::string methods;
  for (const Endpoint& endpoint : kEndpoints) {
    if (!Matches(endpoint.pattern, request.path, names)) {
      continue;
    }
    if (endpoint.method == request.method) {
      Run(*operations_, endpoint, names, request, std::move(answer));
      return;
    }
    methods += methods.empty() ? "" : ", ";
    methods += endpoint.method == "GET" ? "GET, HEAD" : endpoint.method;
  }
  if (!methods.empty()) {
    answer(NotAllowed(request.path, methods));
    return;
  }
  answer(RefusedReply(404,
                      "There are /metrics, /healthz, /readyz, /status, /config, /backends, "
                      "/sessions, /reload and /drain here."));
}

}  // namespace sluice::admin
