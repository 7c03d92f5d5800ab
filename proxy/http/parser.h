// Strict, incremental parsers for the heads of HTTP/1.1 requests and responses.
//
// There are no leniency switches: what RFC 9112 says a server MUST refuse is refused, and so is
// everything that two implementations have been seen to read differently (docs/HTTP.md has the
// table). A parser neither copies nor owns bytes: it keeps offsets, so the caller's buffer may
// move between calls as long as its content stays.
// Pure: no I/O. Single-threaded. Driven directly by tests/fuzz/http_head_fuzz.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "proxy/base/parse_status.h"
#include "proxy/http/head.h"

namespace sluice::http {

struct HeadLimits {
  std::size_t max_head_bytes = 32 * 1024;     // beyond: 431
  std::size_t max_fields = 100;               // beyond: 431
  std::size_t max_request_line = 8 * 1024;    // beyond: 414; includes method and version
};

// Why a head was refused. `status` is what a client is told; `reason` is a static text for the
// answer's body and the log; `label` is a static word from a closed set for the metric.
struct HeadFault {
  int status = 400;
  std::string_view reason;
  std::string_view label;
};

class RequestParser {
 public:
  explicit RequestParser(HeadLimits limits = {}) noexcept : limits_(limits) {}

  // Reads one request head from the start of `bytes`. On kNeedMore call again with the same bytes
  // and more behind them; what was scanned is not scanned again. On kDone head() and head_size()
  // are set: the views point into the `bytes` of this call. On kBad fault() says why. One empty
  // line (CRLF) before the request line is skipped (RFC 9112 section 2.2).
  // REQUIRES: no earlier call since Reset() returned kDone or kBad.
  [[nodiscard]] ParseStatus Parse(std::string_view bytes);

  [[nodiscard]] const RequestHead& head() const noexcept { return head_; }

  // How many bytes the head takes, the empty line that ends it included.
  [[nodiscard]] std::size_t head_size() const noexcept { return head_size_; }

  [[nodiscard]] const HeadFault& fault() const noexcept { return fault_; }

  // Makes the parser ready for the next head; keeps the memory of its field list.
  void Reset() noexcept;
