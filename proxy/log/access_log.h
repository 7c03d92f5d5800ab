// The access log: one line for each plain HTTP request and each WebSocket session, at its end.
//
// Lines go to standard output through a bounded queue and a thread of its own; a worker never
// waits for the disk or a pipe. When the queue is full the oldest lines are dropped and counted.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "proxy/base/clock.h"

namespace spdlog {
class logger;
namespace details {
class thread_pool;
}
}  // namespace spdlog

namespace sluice::log {

enum class AccessFormat : std::uint8_t { kJson, kText, kOff };

// What a line says. All views live only during the call of Write. Empty views and zero durations
// below -1 are left out of the line.
struct AccessRecord {
  std::string_view event;     // "http", "event_stream" or "ws_close"
  std::uint64_t conn_id = 0;  // unique in the process; kept-alive requests share it
  std::string_view client_ip;
  std::uint16_t client_port = 0;
  std::string_view proxy;  // address and port of the proxy that has told the two by a PROXY header
  std::string_view listener;
  std::string_view tls_version;
  bool tls_resumed = false;
  std::string_view sni;
  std::string_view alpn;
  std::string_view method;
  std::string_view host;
  std::string_view path;   // without the query
  std::string_view query;  // as sent; written only if the log is told to keep queries
  std::string_view origin;
  std::string_view forwarded_for;  // X-Forwarded-For as it came
  std::string_view request_id;
  std::string_view user_agent;
  int status = 0;  // what the client was answered; 0: nothing
  std::string_view route;
  std::string_view pool;
  std::string_view backend;
  std::string_view affinity;  // what decided the pick; see session::Admission::key_source
  unsigned attempts = 0;      // backends tried
  std::string_view subprotocol;
  std::string_view extensions;
  Millis duration{0};
  Millis handshake{-1};  // head complete -> 101 sent
  Millis backend_connect{-1};
  std::uint64_t bytes_in = 0;  // from the client: frames, or the request's content
  std::uint64_t bytes_out = 0;
  std::uint64_t msgs_in = 0;
  std::uint64_t msgs_out = 0;
  std::uint16_t close_code_client = 0;   // the code the client sent or was sent first; 0: none
  std::uint16_t close_code_backend = 0;  // the same for the backend
  std::string_view closed_by;            // "client", "backend", "sluice"
  std::string_view close_reason;         // the text of a CLOSE that Sluice wrote
  std::string_view reason;               // why it ended or was refused, a static word
};

class AccessLog {
 public:
  // `queue`: lines that may wait. `keep_query`: query strings are written as they came; otherwise
  // they are replaced, because tokens travel in them.
  AccessLog(AccessFormat format, std::size_t queue, bool keep_query);
  ~AccessLog();  // writes what waits

  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;

  // False: nothing is written, so a record need not be made.
  [[nodiscard]] bool enabled() const noexcept { return format_ != AccessFormat::kOff; }

  // False: of a query no more is told than that there was one.
  [[nodiscard]] bool keeps_query() const noexcept { return keep_query_; }

  // Any thread. Never blocks on output.
  void Write(const AccessRecord& record);

  // Lines dropped because the queue was full.
  [[nodiscard]] std::uint64_t dropped() const;

 private:
  AccessFormat format_;
  bool keep_query_;
  std::shared_ptr<spdlog::details::thread_pool> pool_;
  std::shared_ptr<spdlog::logger> logger_;
};

// The line of `record` without a newline. For AccessLog and its tests.
[[nodiscard]] std::string FormatJson(const AccessRecord& record, bool keep_query);
[[nodiscard]] std::string FormatText(const AccessRecord& record, bool keep_query);

// `text` as the inside of a JSON string: quotes, backslashes and control characters escaped, bytes
// above 0x7E as \u00xx, so that the line is valid whatever a peer sent.
void AppendJsonEscaped(std::string& out, std::string_view text);

}  // namespace sluice::log
