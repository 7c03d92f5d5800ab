// Follows the content of a text/event-stream response (WHATWG HTML, "Server-sent events") without
// looking into the events, so that a response may be ended between two of them: a browser then
// reconnects and has lost none. Holds none of the content. For one thread; pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "proxy/base/bytes.h"
#include "proxy/http/head.h"

namespace sluice::http {

class EventBoundary {
 public:
  // Accounts for all of `input` in stream order, after the transfer coding was taken off.
  void Advance(Bytes input) noexcept;

  // Accounts for `input` up to the first position behind its first byte where the stream is between
  // events, and returns how far that is: all of it when there is no such position, for which see
  // at_boundary(). A LF that belongs to the CR before it is never left over while it is there.
  [[nodiscard]] std::size_t AdvanceToBoundary(Bytes input) noexcept;

  // True between events: at the start, behind an empty line, and behind comments that follow these.
  // Between CR and LF too, since nobody can know whether a LF will come: an end there is complete.
  [[nodiscard]] bool at_boundary() const noexcept {
    return line_ == Line::kNothing && !event_open_ && (bom_bytes_ == 0 || bom_bytes_ == kBomSize);
  }

 private:
  enum class Line : std::uint8_t {
    kNothing,  // at its start
    kComment,  // begins with a colon
    kField,
  };

  static constexpr std::uint8_t kBomSize = 3;

  void TakeByte(char c) noexcept;

  Line line_ = Line::kNothing;  // what has come of the current line
  bool event_open_ = false;     // a field has come since the last empty line
  bool after_cr_ = false;       // a LF that comes next belongs to the line before
  bool started_ = false;        // no byte order mark may come any more, or go on
  std::uint8_t bom_bytes_ = 0;  // of a byte order mark at the start
};

// True for the media type text/event-stream, whatever its parameters (RFC 9110 section 8.3.1).
// `content_type` is the value of a Content-Type field.
[[nodiscard]] bool IsEventStream(std::string_view content_type) noexcept;

// True if the Accept fields name text/event-stream and do not exclude it with q=0 (RFC 9110 section
// 12.5.1), as those of an EventSource do. A range such as */* does not name it.
[[nodiscard]] bool AcceptsEventStream(const RequestHead& head);

}  // namespace sluice::http
