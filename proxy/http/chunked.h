// Takes the chunked transfer coding off a message's content (RFC 9112 section 7.1).
//
// Strict: sizes are 1 to 15 hex digits, lines end with CRLF, the extensions of a chunk are read
// over up to 256 bytes and dropped, trailer fields are read over up to 8 KiB and dropped. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "proxy/base/bytes.h"
#include "proxy/base/parse_status.h"

namespace sluice::http {

class ChunkedDecoder {
 public:
  struct Step {
    ParseStatus status = ParseStatus::kNeedMore;  // kDone: the content ended with this step
    std::size_t consumed = 0;                     // bytes of the input this step used
    Bytes data;  // content found in them: a view into the input; may be empty
  };

  // Takes one step: at most one run of content. Call in a loop with the rest of the input until
  // the input is used up (kNeedMore with consumed == input.size()), kDone or kBad.
  // Always consumes at least one byte of a non-empty input unless it returns kBad.
  [[nodiscard]] Step Next(Bytes input) noexcept;

  // After kBad: a static word from FaultLabels() (parser.h) that says what was wrong.
  [[nodiscard]] std::string_view fault() const noexcept { return fault_; }

 private:
  // kSize -> [extensions] -> kSizeLf -> kData -> kDataCr -> kDataLf -> kSize ...; after a size of
  // zero kSizeLf leads to kTrailerStart, which goes round once a trailer line and ends in kEndLf.
  enum class State : std::uint8_t {
    kSize,
    kExtensionStart,
    kExtensionName,
    kExtensionValueStart,
    kExtensionToken,
    kExtensionQuoted,
    kExtensionEnd,
    kSizeLf,
    kData,
    kDataCr,
    kDataLf,
    kTrailerStart,
    kTrailerName,
    kTrailerValue,
    kTrailerLf,
    kEndLf,
  };

  // Takes one byte outside the content. kNeedMore: go on.
  ParseStatus TakeByte(char c) noexcept;
  ParseStatus TakeExtensionByte(char c) noexcept;
  ParseStatus TakeTrailerByte(char c) noexcept;
  ParseStatus Refuse(std::string_view fault) noexcept;

  std::uint64_t left_ = 0;  // the size read so far, then what is left of the chunk
  std::string_view fault_;
  std::uint16_t line_bytes_ = 0;  // of the extension, then of all trailer lines
  std::uint8_t digits_ = 0;
  State state_ = State::kSize;
};

}  // namespace sluice::http
