#include "proxy/http/chunked.h"

#include <algorithm>

#include "proxy/http/chars.h"

namespace sluice::http {
namespace {

// 15 digits reach 2^60 - 1: no sum of sizes that a connection can carry overflows 64 bits.
constexpr std::uint8_t kMaxSizeDigits = 15;
constexpr std::uint16_t kMaxExtensionBytes = 256;
constexpr std::uint16_t kMaxTrailerBytes = 8 * 1024;

}  // namespace

ChunkedDecoder::Step ChunkedDecoder::Next(Bytes input) noexcept {
  Step step;
  while (step.consumed < input.size()) {
    if (state_ == State::kData) {
      const std::size_t run =
          static_cast<std::size_t>(std::min<std::uint64_t>(left_, input.size() - step.consumed));
      step.data = input.subspan(step.consumed, run);
      step.consumed += run;
      left_ -= run;
      if (left_ == 0) {
        state_ = State::kDataCr;
      }
      return step;
    }
    step.status = TakeByte(static_cast<char>(input[step.consumed]));
    if (step.status == ParseStatus::kBad) {
      return step;
    }
    ++step.consumed;
    if (step.status == ParseStatus::kDone) {
      return step;
    }
  }
  return step;
}

ParseStatus ChunkedDecoder::TakeByte(char c) noexcept {
  switch (state_) {
    case State::kSize:
      if (IsA(kHexChar, c)) {
        if (digits_ == kMaxSizeDigits) {
          return Refuse("chunk_size_overflow");
        }
        ++digits_;
        left_ = left_ * 16 + HexDigit(c);
        return ParseStatus::kNeedMore;
      }
      // RFC 9112 7.1.1 lets a recipient take blanks before the semicolon ("bad whitespace"), but
      // nobody may send them, and parsers disagree on them.
      if (digits_ == 0 || (c != '\r' && c != ';')) {
        return Refuse(digits_ > 0 && c == '\n' ? "chunk_line_end" : "bad_chunk_size");
      }
      digits_ = 0;
      state_ = c == '\r' ? State::kSizeLf : State::kExtensionStart;
      return ParseStatus::kNeedMore;

    case State::kExtensionStart:
    case State::kExtensionName:
    case State::kExtensionValueStart:
    case State::kExtensionToken:
    case State::kExtensionQuoted:
    case State::kExtensionEnd:
      return TakeExtensionByte(c);

    case State::kSizeLf:
      if (c != '\n') {
        return Refuse("chunk_line_end");
      }
      line_bytes_ = 0;
      state_ = left_ == 0 ? State::kTrailerStart : State::kData;
      return ParseStatus::kNeedMore;

    case State::kDataCr:
      if (c != '\r') {
        return Refuse("chunk_data_end");
      }
      state_ = State::kDataLf;
      return ParseStatus::kNeedMore;

    case State::kDataLf:
      if (c != '\n') {
        return Refuse("chunk_data_end");
      }
      state_ = State::kSize;
      return ParseStatus::kNeedMore;

    case State::kData:  // not reached: Next() takes content in runs
    case State::kTrailerStart:
    case State::kTrailerName:
    case State::kTrailerValue:
    case State::kTrailerLf:
    case State::kEndLf:
      break;
  }
  return TakeTrailerByte(c);
}

// RFC 9112 section 7.1.1: ";" name [ "=" ( token / quoted-string ) ], as often as wanted. A
// backslash in a quoted string is refused: parsers disagree on where such a string ends.
ParseStatus ChunkedDecoder::TakeExtensionByte(char c) noexcept {
  if (++line_bytes_ > kMaxExtensionBytes) {
    return Refuse("chunk_extension_too_long");
  }
  const bool token = IsA(kTokenChar, c);
  switch (state_) {
    case State::kExtensionStart:
      state_ = State::kExtensionName;
      return token ? ParseStatus::kNeedMore : Refuse("bad_chunk_extension");

    case State::kExtensionName:
      if (c == '=') {
        state_ = State::kExtensionValueStart;
        return ParseStatus::kNeedMore;
      }
      if (token) {
        return ParseStatus::kNeedMore;
      }
      break;

    case State::kExtensionValueStart:
      state_ = c == '"' ? State::kExtensionQuoted : State::kExtensionToken;
      return token || c == '"' ? ParseStatus::kNeedMore : Refuse("bad_chunk_extension");

    case State::kExtensionToken:
      if (token) {
        return ParseStatus::kNeedMore;
      }
      break;

    case State::kExtensionQuoted:
      if (c == '"') {
        state_ = State::kExtensionEnd;
        return ParseStatus::kNeedMore;
      }
      return IsA(kValueChar, c) && c != '\\' ? ParseStatus::kNeedMore
                                             : Refuse("bad_chunk_extension");

    default:  // kExtensionEnd
      break;
  }
  if (c == ';') {
    state_ = State::kExtensionStart;
    return ParseStatus::kNeedMore;
  }
  if (c == '\r') {
    state_ = State::kSizeLf;
    return ParseStatus::kNeedMore;
  }
  return Refuse(c == '\n' ? "chunk_line_end" : "bad_chunk_extension");
}

// RFC 9112 section 7.1.2: field lines, then the empty line. What they say is dropped: merging
// trailer fields into a head is how framing fields get smuggled (RFC 9110 section 6.5.1).
ParseStatus ChunkedDecoder::TakeTrailerByte(char c) noexcept {
  if (++line_bytes_ > kMaxTrailerBytes) {
    return Refuse("trailer_too_large");
  }
  bool ok = false;
  switch (state_) {
    case State::kTrailerStart:
      ok = c == '\r' || IsA(kTokenChar, c);  // neither an empty name nor a folded line
      state_ = c == '\r' ? State::kEndLf : State::kTrailerName;
      break;

    case State::kTrailerName:
      ok = c == ':' || IsA(kTokenChar, c);
      state_ = c == ':' ? State::kTrailerValue : State::kTrailerName;
      break;

    case State::kTrailerValue:
      ok = c == '\r' || IsA(kValueChar, c);
      state_ = c == '\r' ? State::kTrailerLf : State::kTrailerValue;
      break;

    case State::kTrailerLf:
      ok = c == '\n';
      state_ = State::kTrailerStart;
      break;

    default:  // kEndLf
      return c == '\n' ? ParseStatus::kDone : Refuse("bad_trailer");
  }
  return ok ? ParseStatus::kNeedMore : Refuse("bad_trailer");
}

ParseStatus ChunkedDecoder::Refuse(std::string_view fault) noexcept {
  fault_ = fault;
  return ParseStatus::kBad;
}

}  // namespace sluice::http
