#include "proxy/cli/control.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <ctime>
#include <iostream>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "proxy/admin/client.h"
#include "proxy/cli/exit_status.h"
#include "proxy/cli/format.h"
#include "proxy/config/load.h"
#include "proxy/config/values.h"

namespace sluice::cli {
namespace {

using nlohmann::json;

constexpr Millis kPatience{5'000};
constexpr Millis kReloadPatience{60'000};  // host names may have to be looked up
constexpr Millis kPoll{200};
constexpr Millis kBetweenLines{1'000};

// Why a command ends, after its message.
struct Failed {
  int status = kFailed;
  std::string message;
};

template <class T>
using Attempt = tl::expected<T, Failed>;

tl::unexpected<Failed> Fail(int status, std::string message) {
  return tl::unexpected<Failed>(Failed{status, std::move(message)});
}

int Report(const Failed& failed) {
  std::cerr << Printable(failed.message) << '\n';
  return failed.status;
}

// The endpoint.

Attempt<admin::AdminEndpoint> EndpointAt(std::string_view text) {
  constexpr std::string_view kTls = "https://";
  constexpr std::string_view kPlain = "http://";
  const bool tls = text.starts_with(kTls);
  if (tls || text.starts_with(kPlain)) {
    text.remove_prefix(tls ? kTls.size() : kPlain.size());
  }
  const auto parsed = config::ParseHostPort(text);
  if (!parsed) {
    return Fail(kUsage, "--admin: " + parsed.error().message);
  }
  const auto address = parsed->numeric ? net::Address::FromNumeric(parsed->host, parsed->port)
                                       : net::Address::Resolve(parsed->host, parsed->port);
  if (!address) {
    return Fail(kFailed, "--admin: " + address.error().message);
  }
  admin::AdminEndpoint endpoint;
  endpoint.address = *address;
  endpoint.host = parsed->Text();
  if (tls) {
    endpoint.tls.emplace().server_name = parsed->host;
  }
  return endpoint;
}

Attempt<admin::AdminEndpoint> EndpointOf(const std::string& path) {
  const config::LoadResult loaded = config::LoadFile(path);
  if (!loaded.ok()) {
    for (std::size_t i = 0; i + 1 < loaded.mistakes.size(); ++i) {
      std::cerr << loaded.mistakes[i].Text() << '\n';
    }
    return Fail(kConfig, loaded.mistakes.back().Text());
  }
  const config::Admin& admin = loaded.config.admin;
  if (!admin.enabled) {
    return Fail(kConfig, path + ": the admin interface is off, so there is nobody to ask");
  }
  // What listens on every address is here too.
  const std::string host = admin.host == "0.0.0.0" ? "127.0.0.1"
                           : admin.host == "::"    ? "::1"
                                                   : admin.host;
  const auto address = net::Address::FromNumeric(host, admin.port);
  if (!address) {
    return Fail(kConfig, path + ": " + address.error().message);
  }
  admin::AdminEndpoint endpoint;
  endpoint.address = *address;
  endpoint.host = address->Text();
  endpoint.token = admin.token;
  if (admin.is_tls()) {
    endpoint.tls.emplace().own_certificate = admin.tls.certificates.front().chain;
  }
  return endpoint;
}

Attempt<admin::AdminEndpoint> FindEndpoint(const ControlOptions& options) {
  auto endpoint = options.config.empty()
                      ? EndpointAt(options.admin.empty() ? "127.0.0.1:9900" : options.admin)
                      : EndpointOf(options.config);
  if (!endpoint) {
    return endpoint;
  }
  if (!options.token_file.empty()) {
    auto token = config::LoadToken(options.token_file);
    if (!token) {
      return Fail(kUsage, "--token-file: " + token.error().message);
    }
    endpoint->token = std::move(*token);
  }
  if (!options.ca_file.empty()) {
    if (!endpoint->tls) {
      // The port begins behind the last colon; an IPv6 address has brackets.
      std::string name = endpoint->host.substr(0, endpoint->host.rfind(':'));
      if (name.starts_with('[')) {
        name = name.substr(1, name.size() - 2);
      }
      endpoint->tls.emplace().server_name = name;
    }
    endpoint->tls->ca_file = options.ca_file;
  }
  return endpoint;
}

// Requests.

std::string Encoded(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    if (plain) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += '%';
      out += kHex[byte >> 4U];
      out += kHex[byte & 0xFU];
    }
  }
  return out;
}

// Appends "name=value" to a target.
void AddParameter(std::string& target, std::string_view name, std::string_view value) {
  target += target.find('?') == std::string::npos ? '?' : '&';
  target += std::string(name) + "=" + Encoded(value);
}

// What the server's problem document says (RFC 9457), or its status.
Failed ProblemOf(const admin::ClientAnswer& answer) {
  const json problem = json::parse(answer.body, nullptr, /*allow_exceptions=*/false);
  const auto detail = problem.is_object() ? problem.find("detail") : problem.end();
  if (problem.is_object() && detail != problem.end() && detail->is_string()) {
    return {kFailed, detail->get<std::string>()};
  }
  return {kFailed, "the server answers with status " + std::to_string(answer.status)};
}

struct Answer {
  json document;
  std::string text;  // as it came
};

Attempt<admin::ClientAnswer> AskRaw(const admin::AdminEndpoint& endpoint, std::string method,
                                    std::string target, Millis patience = kPatience) {
  auto answer = admin::Ask(endpoint, {std::move(method), std::move(target), {}}, patience);
  if (!answer) {
    return Fail(kFailed, answer.error().message);
  }
  return *std::move(answer);
}

// An answer that is no success is a failure, and one that is no JSON object too.
Attempt<Answer> AskFor(const admin::AdminEndpoint& endpoint, std::string method,
                       std::string target) {
  auto answer = AskRaw(endpoint, std::move(method), std::move(target));
  if (!answer) {
    return tl::unexpected(answer.error());
  }
  if (answer->status < 200 || answer->status > 299) {
    return tl::unexpected(ProblemOf(*answer));
  }
  Answer out{json::parse(answer->body, nullptr, /*allow_exceptions=*/false), answer->body};
  if (!out.document.is_object()) {
    return Fail(kFailed, endpoint.host + ": answers with something else than JSON");
  }
  return out;
}

// What a document has under `key`, whatever some other program may have put there.

std::string TextAt(const json& in, std::string_view key) {
  const auto found = in.find(key);
  return found != in.end() && found->is_string() ? Printable(found->get<std::string>()) : "";
}

double NumberAt(const json& in, std::string_view key) {
  const auto found = in.find(key);
  return found != in.end() && found->is_number() ? found->get<double>() : 0;
}

std::uint64_t CountAt(const json& in, std::string_view key) {
  const auto found = in.find(key);
  return found != in.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

bool FlagAt(const json& in, std::string_view key) {
  const auto found = in.find(key);
  return found != in.end() && found->is_boolean() && found->get<bool>();
}

std::vector<json> ObjectsAt(const json& in, std::string_view key) {
  std::vector<json> out;
  const auto found = in.find(key);
  if (found != in.end() && found->is_array()) {
    std::copy_if(found->begin(), found->end(), std::back_inserter(out),
                 [](const json& one) { return one.is_object(); });
  }
  return out;
}

std::string NumberText(double value) {
  std::string text = json(value).dump();
  return text.ends_with(".0") ? text.substr(0, text.size() - 2) : text;
}

// Backends.

struct BackendName {
  std::string pool;
  std::string name;

  [[nodiscard]] std::string Text() const { return pool + "/" + name; }
  [[nodiscard]] std::string Target() const {
    return "/backends/" + Encoded(pool) + "/" + Encoded(name);
  }
};

// "POOL/NAME", or a name whose only pool the server knows.
Attempt<BackendName> FindBackend(const admin::AdminEndpoint& endpoint, const std::string& text) {
  if (const std::size_t slash = text.find('/'); slash != std::string::npos) {
    BackendName name{text.substr(0, slash), text.substr(slash + 1)};
    if (name.pool.empty() || name.name.empty()) {
      return Fail(kUsage, config::Quoted(text) + " is not a backend; write it as POOL/NAME");
    }
    return name;
  }
  const auto answer = AskFor(endpoint, "GET", "/backends");
  if (!answer) {
    return tl::unexpected(answer.error());
  }
  std::vector<std::string> pools;
  for (const json& backend : ObjectsAt(answer->document, "backends")) {
    if (TextAt(backend, "name") == text) {
      pools.push_back(TextAt(backend, "pool"));
    }
  }
  if (pools.empty()) {
    return Fail(kFailed, "there is no backend named " + config::Quoted(text));
  }
  if (pools.size() > 1) {
    std::string all;
    for (const std::string& pool : pools) {
      all.append(all.empty() ? "" : ", ").append(pool).append("/").append(text);
    }
    return Fail(kUsage,
                config::Quoted(text) + " is in several pools; write which one you mean: " + all);
  }
  return BackendName{pools.front(), text};
}

Progress ProgressOf(const json& drain) {
  Progress progress;
  progress.total = CountAt(drain, "total");
  progress.remaining = CountAt(drain, "remaining");
  progress.forced = CountAt(drain, "forced");
  progress.rate = NumberAt(drain, "rate_per_second");
  const auto eta = drain.find("eta_seconds");
  if (eta != drain.end() && eta->is_number()) {
    progress.eta_seconds = eta->get<double>();
  }
  return progress;
}

// The object at `key`, or an empty one.
json ObjectAt(const json& document, std::string_view key) {
  const auto found = document.find(key);
  return found != document.end() && found->is_object() ? *found : json::object();
}

// The drain of a backend's document, or an empty object.
json DrainOf(const json& backend) {
  return ObjectAt(backend, "drain");
}

// Waiting for a drain.

volatile std::sig_atomic_t interrupted = 0;

void OnInterrupt(int) {
  interrupted = 1;
}

// While it lives, SIGINT is only noted, and ends a sleep.
class NoteInterrupts {
 public:
  NoteInterrupts() {
    interrupted = 0;
    struct sigaction action {};
    action.sa_handler = &OnInterrupt;  // without SA_RESTART
    ::sigaction(SIGINT, &action, &before_);
  }
  ~NoteInterrupts() { ::sigaction(SIGINT, &before_, nullptr); }
  NoteInterrupts(const NoteInterrupts&) = delete;
  NoteInterrupts& operator=(const NoteInterrupts&) = delete;

 private:
  struct sigaction before_ {};
};

// Shows progress on standard error: as one line that is drawn anew on a terminal, else as a line
// whenever the figures have changed, at most one a second.
class ProgressView {
 public:
  ~ProgressView() { End(); }

  void Show(const Progress& progress) {
    if (terminal_) {
      winsize size{};
      const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
      // One less, or some terminals wrap; what was longer before is erased.
      const std::size_t columns = known ? size.ws_col - 1U : 79U;
      std::cerr << '\r' << ProgressBar(progress, columns) << "\x1b[K" << std::flush;
      open_ = true;
      return;
    }
    const bool changed = !shown_ || !(*shown_ == progress);
    if (changed && (!shown_ || progress.remaining == 0 || Now() - shown_at_ >= kBetweenLines)) {
      std::cerr << ProgressText(progress) << '\n';
      shown_ = progress;
      shown_at_ = Now();
    }
  }

  // Leaves the line as it is, for what is printed next.
  void End() {
    if (std::exchange(open_, false)) {
      std::cerr << '\n';
    }
  }

 private:
  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  bool open_ = false;
  std::optional<Progress> shown_;
  Instant shown_at_{};
};

void Sleep(Millis duration) {
  ::poll(nullptr, 0, static_cast<int>(duration.count()));
}

// Follows the drain until it ends; `answer` is the latest about the backend.
int AwaitDrained(const admin::AdminEndpoint& endpoint, const BackendName& backend, Answer answer,
                 bool as_json) {
  const NoteInterrupts notes;
  ProgressView view;
  for (;;) {
    const json drain = DrainOf(answer.document);
    const std::string state = TextAt(drain, "state");
    if (state.empty() && FlagAt(answer.document, "draining")) {
      view.End();
      std::cerr << "another process has taken over; the one before it goes on with the drain of "
                << backend.Text() << ", and its log tells of the end\n";
      return kFailed;
    }
    if (state != "draining" && state != "drained") {
      view.End();
      std::cerr << "the drain of " << backend.Text() << " was cancelled\n";
      return kFailed;
    }
    view.Show(ProgressOf(drain));
    if (state == "drained") {
      view.End();
      const std::size_t forced = CountAt(drain, "forced");
      std::cout << (as_json ? answer.text
                            : backend.Text() + " is drained" +
                                  (forced > 0 ? ", " + std::to_string(forced) + " by force"
                                              : std::string()) +
                                  "\n");
      return kDone;
    }
    Sleep(kPoll);
    if (interrupted != 0) {
      view.End();
      std::cerr << "no longer waiting; the drain of " << backend.Text()
                << " goes on, `sluice drain " << backend.Text() << " --cancel` stops it\n";
      return kFailed;
    }
    auto next = AskFor(endpoint, "GET", backend.Target());
    if (!next) {
      view.End();
      std::cerr << "how far the drain came is not known\n";
      return Report(next.error());
    }
    answer = *std::move(next);
  }
}

// Sessions.

// Adds the filters to `target`.
Attempt<void> AddFilters(const admin::AdminEndpoint& endpoint, const SessionArguments& arguments,
                         std::string& target) {
  const auto add = [&](std::string_view name, const std::string& value) {
    if (!value.empty()) {
      AddParameter(target, name, value);
    }
  };
  if (!arguments.backend.empty() && arguments.pool.empty()) {
    const auto backend = FindBackend(endpoint, arguments.backend);
    if (!backend) {
      return tl::unexpected(backend.error());
    }
    add("backend", backend->Text());
  } else {
    add("backend", arguments.backend);
  }
  add("pool", arguments.pool);
  add("route", arguments.route);
  add("affinity", arguments.affinity);
  add("client_ip", arguments.client_ip);
  return {};
}

std::string Counted(std::uint64_t count, std::string_view noun) {
  return std::to_string(count) + " " + std::string(noun) + (count == 1 ? "" : "s");
}

std::string TimeText(double unix_seconds) {
  const auto time = static_cast<std::time_t>(std::clamp(unix_seconds, 0.0, 4e9));
  std::tm parts{};
  ::localtime_r(&time, &parts);
  std::array<char, 64> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &parts);
  return text.data();
}

std::string BackendTable(const json& document) {
  std::vector<std::vector<std::string>> rows;
  for (const json& backend : ObjectsAt(document, "backends")) {
    const json drain = DrainOf(backend);
    const std::string state = TextAt(drain, "state");
    const json health = ObjectAt(backend, "health");
    const std::string verdict = TextAt(health, "state");
    rows.push_back({
        TextAt(backend, "pool") + "/" + TextAt(backend, "name"),
        TextAt(backend, "address"),
        NumberText(NumberAt(backend, "weight")),
        !verdict.empty()             ? verdict
        : FlagAt(backend, "healthy") ? "up"
                                     : "down",
        FlagAt(backend, "draining") ? (state == "drained" ? "drained" : "draining") : "serving",
        NumberText(NumberAt(backend, "open")),
        state == "draining" ? ProgressText(ProgressOf(drain)) : "",
        verdict == "up" ? "" : TextAt(health, "last_error"),
    });
  }
  return FormatTable({{"BACKEND"},
                      {"ADDRESS"},
                      {"WEIGHT", true},
                      {"HEALTH"},
                      {"STATE"},
                      {"OPEN", true},
                      {"DRAIN"},
                      {"WHY"}},
                     rows);
}

std::string StatusText(const json& status) {
  std::string state = "serving";
  if (FlagAt(status, "draining")) {
    state = "draining, " + Counted(CountAt(status, "drain_remaining"), "session") + " left";
  }
  std::string out = "sluice " + TextAt(status, "version") + ", pid " +
                    std::to_string(CountAt(status, "pid")) + ", up " +
                    FormatSeconds(NumberAt(status, "uptime_seconds")) + ", " + state + "\n";
  if (const std::uint64_t before = CountAt(status, "taken_over_from"); before > 0) {
    out += "took over from pid " + std::to_string(before) + "\n";
  }
  out += "configuration of " + TimeText(NumberAt(status, "config_loaded_at")) + ", " +
         Counted(CountAt(status, "workers"), "worker") + "\n";
  out += std::to_string(CountAt(status, "connections")) + " of at most " +
         Counted(CountAt(status, "max_connections"), "connection") + ", " +
         Counted(CountAt(status, "sessions"), "session") + "\n";
  return out;
}

std::string SessionTable(const json& document) {
  std::vector<std::vector<std::string>> rows;
  for (const json& session : ObjectsAt(document, "sessions")) {
    rows.push_back({
        std::to_string(CountAt(session, "id")),
        TextAt(session, "client_ip"),
        TextAt(session, "route"),
        TextAt(session, "pool") + "/" + TextAt(session, "backend"),
        FormatSeconds(NumberAt(session, "age_seconds")),
        std::to_string(CountAt(session, "messages_in")),
        FormatBytes(CountAt(session, "bytes_in")),
        std::to_string(CountAt(session, "messages_out")),
        FormatBytes(CountAt(session, "bytes_out")),
        TextAt(session, "state"),
    });
  }
  return FormatTable({{"ID", true},
                      {"CLIENT"},
                      {"ROUTE"},
                      {"BACKEND"},
                      {"AGE", true},
                      {"MSGS IN", true},
                      {"BYTES IN", true},
                      {"MSGS OUT", true},
                      {"BYTES OUT", true},
                      {"STATE"}},
                     rows);
}

}  // namespace

int Drain(const ControlOptions& options, const DrainArguments& arguments) {
  if (!arguments.window.empty()) {
    if (const auto window = config::ParseDuration(arguments.window); !window) {
      return Report({kUsage, "--window: " + window.error().message});
    }
  }
  const auto endpoint = FindEndpoint(options);
  if (!endpoint) {
    return Report(endpoint.error());
  }
  const auto backend = FindBackend(*endpoint, arguments.backend);
  if (!backend) {
    return Report(backend.error());
  }
  std::string target = backend->Target() + "/drain";
  if (!arguments.window.empty()) {
    AddParameter(target, "window", arguments.window);
  }
  if (arguments.rate) {
    AddParameter(target, "rate", NumberText(*arguments.rate));
  }
  if (arguments.force) {
    AddParameter(target, "force", "true");
  }
  auto answer = AskFor(*endpoint, arguments.cancel ? "DELETE" : "POST", target);
  if (!answer) {
    return Report(answer.error());
  }
  if (arguments.wait) {
    return AwaitDrained(*endpoint, *backend, *std::move(answer), options.json);
  }
  if (options.json) {
    std::cout << answer->text;
    return kDone;
  }
  const json drain = DrainOf(answer->document);
  if (arguments.cancel) {
    std::cout << backend->Text() << " takes new sessions again; "
              << Counted(CountAt(drain, "remaining"), "session") << " stayed\n";
  } else {
    std::cout << backend->Text()
              << " is draining: " << Counted(CountAt(drain, "remaining"), "session")
              << " to close over " << FormatSeconds(NumberAt(drain, "window_seconds")) << "\n";
  }
  return kDone;
}

int Undrain(const ControlOptions& options, const std::string& backend) {
  const auto endpoint = FindEndpoint(options);
  if (!endpoint) {
    return Report(endpoint.error());
  }
  const auto name = FindBackend(*endpoint, backend);
  if (!name) {
    return Report(name.error());
  }
  const auto answer = AskFor(*endpoint, "POST", name->Target() + "/undrain");
  if (!answer) {
    return Report(answer.error());
  }
  std::cout << (options.json ? answer->text : name->Text() + " takes new sessions again\n");
  return kDone;
}

int Reload(const ControlOptions& options) {
  const auto endpoint = FindEndpoint(options);
  if (!endpoint) {
    return Report(endpoint.error());
  }
  const auto answer = AskRaw(*endpoint, "POST", "/reload", kReloadPatience);
  if (!answer) {
    return Report(answer.error());
  }
  if (options.json) {
    std::cout << answer->body;
  }
  const json document = json::parse(answer->body, nullptr, /*allow_exceptions=*/false);
  const bool reloaded = answer->status == 200;
  const auto lines =
      document.is_object() ? document.find(reloaded ? "warnings" : "mistakes") : document.end();
  if (document.is_object() && lines != document.end() && lines->is_array()) {
    for (const json& line : *lines) {
      if (line.is_string()) {
        std::cerr << (reloaded ? "warning: " : "") << Printable(line.get<std::string>()) << '\n';
      }
    }
  }
  if (!reloaded) {
    Failed failed = ProblemOf(*answer);
    failed.status = answer->status == 422 ? kConfig : kFailed;
    return Report(failed);
  }
  if (!options.json) {
    std::cout << "reloaded\n";
  }
  return kDone;
}

int Kick(const ControlOptions& options, const KickArguments& arguments) {
  const bool filtered = !(arguments.sessions == SessionArguments());
  if (filtered == arguments.id.has_value()) {
    return Report({kUsage,
                   "say which sessions: either an ID, or at least one of --backend, --pool, "
                   "--route, --affinity and --client-ip"});
  }
  const auto endpoint = FindEndpoint(options);
  if (!endpoint) {
    return Report(endpoint.error());
  }
  std::string target = "/sessions";
  if (arguments.id) {
    target += "/" + std::to_string(*arguments.id);
  } else {
    const auto added = AddFilters(*endpoint, arguments.sessions, target);
    if (!added) {
      return Report(added.error());
    }
  }
  if (arguments.code) {
    AddParameter(target, "code", std::to_string(*arguments.code));
  }
  if (arguments.reason) {
    AddParameter(target, "reason", *arguments.reason);
  }
  const auto answer = AskFor(*endpoint, "DELETE", target);
  if (!answer) {
    return Report(answer.error());
  }
  std::cout << (options.json
                    ? answer->text
                    : "closing " + Counted(CountAt(answer->document, "kicked"), "session") + "\n");
  return kDone;
}

int ListSessions(const ControlOptions& options, const SessionArguments& arguments) {
  const auto endpoint = FindEndpoint(options);
  if (!endpoint) {
    return Report(endpoint.error());
  }
  std::string target = "/sessions";
  if (const auto added = AddFilters(*endpoint, arguments, target); !added) {
    return Report(added.error());
  }
  if (arguments.limit) {
    AddParameter(target, "limit", std::to_string(*arguments.limit));
  }
  const auto answer = AskFor(*endpoint, "GET", target);
  if (!answer) {
    return Report(answer.error());
  }
  if (options.json) {
    std::cout << answer->text;
    return kDone;
  }
  std::cout << SessionTable(answer->document);
  const std::uint64_t matching = CountAt(answer->document, "matching");
  const std::size_t listed = ObjectsAt(answer->document, "sessions").size();
  if (matching > listed) {
    std::cerr << listed << " of " << Counted(matching, "session") << "; --limit shows more\n";
  }
  return kDone;
}

int ShowStatus(const ControlOptions& options) {
  const auto endpoint = FindEndpoint(options);
  if (!endpoint) {
    return Report(endpoint.error());
  }
  const auto status = AskFor(*endpoint, "GET", "/status");
  if (!status) {
    return Report(status.error());
  }
  const auto backends = AskFor(*endpoint, "GET", "/backends");
  if (!backends) {
    return Report(backends.error());
  }
  if (options.json) {
    json both = backends->document;
    both["status"] = status->document;
    std::cout << both.dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
    return kDone;
  }
  std::cout << StatusText(status->document) << '\n' << BackendTable(backends->document);
  return kDone;
}

int CheckHealth(const ControlOptions& options) {
  const auto endpoint = FindEndpoint(options);
  if (!endpoint) {
    return Report(endpoint.error());
  }
  const auto answer = AskRaw(*endpoint, "GET", "/readyz", Millis(3'000));
  if (!answer) {
    return Report(answer.error());
  }
  if (answer->status != 200 && answer->status != 503) {
    return Report(ProblemOf(*answer));
  }
  std::cout << (answer->status == 200 ? "ready" : "not ready") << '\n';
  return answer->status == 200 ? kDone : kFailed;
}

}  // namespace sluice::cli
