#include "proxy/log/access_log.h"

#include <array>
#include <chrono>
#include <ctime>

#include <spdlog/async.h>
#include <spdlog/async_logger.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "proxy/base/blocked_signals.h"

namespace sluice::log {
namespace {

constexpr std::string_view kRedacted = "[redacted]";
constexpr std::string_view kWsClose = "ws_close";

// RFC 3339 in UTC with milliseconds.
std::string Timestamp() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto millis =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900,
                     parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     millis);
}

// Builds one flat JSON object.
class Line {
 public:
  explicit Line(std::string& out) : out_(out) { out_ += '{'; }

  void Text(std::string_view key, std::string_view value) {
    if (value.empty()) {
      return;
    }
    Key(key);
    out_ += '"';
    AppendJsonEscaped(out_, value);
    out_ += '"';
  }

  void Number(std::string_view key, std::int64_t value) {
    Key(key);
    out_ += std::to_string(value);
  }

  void Bool(std::string_view key, bool value) {
    Key(key);
    out_ += value ? "true" : "false";
  }

  void End() { out_ += '}'; }

 private:
  void Key(std::string_view key) {
    if (out_.back() != '{') {
      out_ += ',';
    }
    out_ += '"';
    out_ += key;
    out_ += "\":";
  }

  std::string& out_;
};

std::string_view ShownQuery(const AccessRecord& record, bool keep_query) {
  return record.query.empty() || keep_query ? record.query : kRedacted;
}

}  // namespace

void AppendJsonEscaped(std::string& out, std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte > 0x7E) {
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
}

std::string FormatJson(const AccessRecord& r, bool keep_query) {
  std::string out;
  out.reserve(640);
  Line line(out);
  line.Text("ts", Timestamp());
  line.Text("event", r.event);
  line.Number("conn_id", static_cast<std::int64_t>(r.conn_id));
  line.Text("client_ip", r.client_ip);
  line.Number("client_port", r.client_port);
  line.Text("proxy", r.proxy);
  line.Text("xff", r.forwarded_for);
  line.Text("listener", r.listener);
  if (!r.tls_version.empty()) {
    line.Text("tls_version", r.tls_version);
    line.Bool("tls_resumed", r.tls_resumed);
    line.Text("sni", r.sni);
    line.Text("alpn", r.alpn);
  }
  line.Text("method", r.method);
  line.Text("host", r.host);
  line.Text("path", r.path);
  line.Text("query", ShownQuery(r, keep_query));
  line.Text("origin", r.origin);
  line.Text("user_agent", r.user_agent);
  line.Text("request_id", r.request_id);
  line.Number("status", r.status);
  line.Text("route", r.route);
  line.Text("pool", r.pool);
  line.Text("backend", r.backend);
  line.Text("affinity", r.affinity);
  line.Number("attempts", r.attempts);
  line.Text("subprotocol", r.subprotocol);
  line.Text("extensions", r.extensions);
  line.Number("duration_ms", r.duration.count());
  if (r.handshake.count() >= 0) {
    line.Number("handshake_ms", r.handshake.count());
  }
  if (r.backend_connect.count() >= 0) {
    line.Number("backend_connect_ms", r.backend_connect.count());
  }
  line.Number("bytes_in", static_cast<std::int64_t>(r.bytes_in));
  line.Number("bytes_out", static_cast<std::int64_t>(r.bytes_out));
  if (r.event == kWsClose) {
    line.Number("msgs_in", static_cast<std::int64_t>(r.msgs_in));
    line.Number("msgs_out", static_cast<std::int64_t>(r.msgs_out));
    line.Number("close_code_client", r.close_code_client);
    line.Number("close_code_backend", r.close_code_backend);
    line.Text("closed_by", r.closed_by);
    line.Text("close_reason", r.close_reason);
  }
  line.Text("reason", r.reason);
  line.End();
  return out;
}

std::string FormatText(const AccessRecord& r, bool keep_query) {
  std::string target;
  AppendJsonEscaped(target, r.path);
  if (const std::string_view query = ShownQuery(r, keep_query); !query.empty()) {
    target += '?';
    AppendJsonEscaped(target, query);
  }
  std::string host;
  AppendJsonEscaped(host, r.host);
  std::string client;
  AppendJsonEscaped(client, r.client_ip);
  std::string out = fmt::format(
      "{} {} s{} {}:{} {} {}{} {} backend={} {}ms in={} out={}", Timestamp(), r.event, r.conn_id,
      client, r.client_port, r.method.empty() ? "-" : r.method, host, target, r.status,
      r.backend.empty() ? "-" : r.backend, r.duration.count(), r.bytes_in, r.bytes_out);
  if (r.event == kWsClose) {
    out +=
        fmt::format(" messages={}/{} close={}/{} by={}", r.msgs_in, r.msgs_out, r.close_code_client,
                    r.close_code_backend, r.closed_by.empty() ? "-" : r.closed_by);
  }
  if (!r.reason.empty()) {
    out += fmt::format(" reason={}", r.reason);
  }
  return out;
}

AccessLog::AccessLog(AccessFormat format, std::size_t queue, bool keep_query)
    : format_(format), keep_query_(keep_query) {
  if (format_ == AccessFormat::kOff) {
    return;
  }
  const BlockedSignals blocked;  // they are the control thread's
  pool_ = std::make_shared<spdlog::details::thread_pool>(queue, 1);
  auto sink = std::make_shared<spdlog::sinks::stdout_sink_mt>();
  logger_ = std::make_shared<spdlog::async_logger>("access", std::move(sink), pool_,
                                                   spdlog::async_overflow_policy::overrun_oldest);
  logger_->set_pattern("%v");
  // A line is worth a write of its own: `tail -f` and a container's log see it at once.
  logger_->flush_on(spdlog::level::info);
}

AccessLog::~AccessLog() {
  pool_.reset();  // writes what waits and joins the writer, so that the logger is ours alone again
}

void AccessLog::Write(const AccessRecord& record) {
  if (!logger_) {
    return;
  }
  const std::string line = format_ == AccessFormat::kJson ? FormatJson(record, keep_query_)
                                                          : FormatText(record, keep_query_);
  logger_->log(spdlog::level::info, spdlog::string_view_t(line));
}

std::uint64_t AccessLog::dropped() const {
  return pool_ ? pool_->overrun_counter() : 0;
}

}  // namespace sluice::log
