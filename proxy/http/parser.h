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
#include <span>
#include <string_view>
#include <vector>

#include "proxy/base/parse_status.h"
#include "proxy/http/head.h"

namespace sluice::http {

struct HeadLimits {
  std::size_t max_head_bytes = 32 * 1024;   // beyond: 431
  std::size_t max_fields = 100;             // beyond: 431
  std::size_t max_request_line = 8 * 1024;  // beyond: 414; includes method and version
};

// Why a head was refused. `status` is what a client is told; `reason` is a static text for the
// answer's body and the log; `label` is a static word from a closed set for the metric.
struct HeadFault {
  int status = 400;
  std::string_view reason;
  std::string_view label;
};

namespace detail {

enum class Fault : std::uint8_t;  // one per label; parser.cc has the table

// The part that both kinds of heads share: field lines up to the empty line. Keeps offsets into
// the head's bytes, so that they may move until Export().
class FieldScanner {
 public:
  // Goes on at text[at] and moves `at`. kDone: `at` is behind the empty line. kBad: see fault().
  [[nodiscard]] ParseStatus Scan(std::string_view text, std::size_t& at, std::size_t max_fields);

  // Fills `fields` with views into `text`.
  void Export(std::string_view text, Fields& fields) const;

  [[nodiscard]] Fault fault() const noexcept { return fault_; }

  void Reset() noexcept;  // keeps the memory

 private:
  enum class Part : std::uint8_t {
    kLineStart,
    kName,
    kValueStart,  // the blanks before the value
    kValue,
    kLineLf,
    kEndLf,
  };

  struct Line {
    std::uint32_t name_begin;
    std::uint32_t name_end;
    std::uint32_t value_begin;
    std::uint32_t value_end;
  };

  ParseStatus Refuse(Fault fault) noexcept;

  std::vector<Line> lines_;
  Line line_{};  // the one being read
  Fault fault_{};
  Part part_ = Part::kLineStart;
};

}  // namespace detail

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

 private:
  // The parts of a request line, in order.
  enum class Part : std::uint8_t {
    kStart,  // an empty line may come first
    kStartLf,
    kMethodStart,
    kMethod,
    kTargetStart,
    kTarget,
    kVersion,
    kLineLf,
    kFields,
  };

  ParseStatus ScanRequestLine(std::string_view text) noexcept;
  ParseStatus Finish(std::string_view text);
  ParseStatus Refuse(detail::Fault fault) noexcept;

  HeadLimits limits_;
  RequestHead head_;
  std::size_t head_size_ = 0;
  HeadFault fault_;
  detail::FieldScanner fields_;
  std::size_t at_ = 0;          // what lies before was scanned
  std::size_t line_begin_ = 0;  // where the method starts
  std::size_t method_end_ = 0;
  std::size_t target_end_ = 0;
  Part part_ = Part::kStart;
};

class ResponseParser {
 public:
  explicit ResponseParser(HeadLimits limits = {}) noexcept : limits_(limits) {}

  // Reads one response head from the start of `bytes`, as RequestParser::Parse does. Framing
  // follows RFC 9112 section 6.3: none for 1xx, 204, 304 and for the answer to a HEAD request.
  // A fault has status 502: it is the backend's. max_request_line bounds the status line too.
  // REQUIRES: no earlier call since Reset() returned kDone or kBad.
  [[nodiscard]] ParseStatus Parse(std::string_view bytes, bool answers_head_request);

  [[nodiscard]] const ResponseHead& head() const noexcept { return head_; }

  // How many bytes the head takes, the empty line that ends it included.
  [[nodiscard]] std::size_t head_size() const noexcept { return head_size_; }

  [[nodiscard]] const HeadFault& fault() const noexcept { return fault_; }

  // Makes the parser ready for the next head; keeps the memory of its field list.
  void Reset() noexcept;

 private:
  // The parts of a status line, in order.
  enum class Part : std::uint8_t {
    kVersion,
    kStatus,
    kStatusEnd,
    kReason,
    kLineLf,
    kFields,
  };

  ParseStatus ScanStatusLine(std::string_view text) noexcept;
  ParseStatus Finish(std::string_view text, bool answers_head_request);
  ParseStatus Refuse(detail::Fault fault) noexcept;

  HeadLimits limits_;
  ResponseHead head_;
  std::size_t head_size_ = 0;
  HeadFault fault_;
  detail::FieldScanner fields_;
  std::size_t at_ = 0;  // what lies before was scanned
  std::size_t reason_begin_ = 0;
  std::size_t reason_end_ = 0;
  Part part_ = Part::kVersion;
};

// Every label that a HeadFault or ChunkedDecoder::fault() can have, each once.
[[nodiscard]] std::span<const std::string_view> FaultLabels() noexcept;

}  // namespace sluice::http
