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
      // RFC 9112 7.1.1 lets a recipient take "bad whitespace" before the semicolon; it must not
      // be generated, and parsers disagree on it.
      if (digits_ == 0 || (c != '\r' && c != ';')) {
        return Refuse(digits_ > 0 && c == '\n' ? "chunk_line_end" : "bad_chunk_size");
      }
      digits_ = 0;
      line_bytes_ = 0;
      state_ = c == '\r' ? State::kSizeLf : State::kExtension;
      return ParseStatus::kNeedMore;

    case State::kExtension:
      if (c == '\r') {
        state_ = State::kSizeLf;
        return ParseStatus::kNeedMore;
      }
      if (!IsA(kValueChar, c)) {
        return Refuse("chunk_line_end");
      }
      if (++line_bytes_ > kMaxExtensionBytes) {
        return Refuse("chunk_extension_too_long");
      }
      return ParseStatus::kNeedMore;

    case State::kSizeLf:
      if (c != '\n') {
        return Refuse("chunk_line_end");
      }
      line_bytes_ = 0;
      state_ = left_ == 0 ? State::kTrailerStart : State::kData;
      return ParseStatus::kNeedMore;

    case State::kData:  // Next() takes content in runs
      return Refuse("chunk_data_end");

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

    case State::kTrailerStart:
      if (c == '\r') {
        state_ = State::kEndLf;
        return ParseStatus::kNeedMore;
      }
      if (!IsA(kTokenChar, c)) {  // an empty name or a folded line
        return Refuse("bad_trailer");
      }
      state_ = State::kTrailerName;
      break;

    case State::kTrailerName:
      if (c == ':') {
        state_ = State::kTrailerValue;
      } else if (!IsA(kTokenChar, c)) {
        return Refuse("bad_trailer");
      }
      break;

    case State::kTrailerValue:
      if (c == '\r') {
        state_ = State::kTrailerLf;
      } else if (!IsA(kValueChar, c)) {
        return Refuse("bad_trailer");
      }
      break;

    case State::kTrailerLf:
      if (c != '\n') {
        return Refuse("bad_trailer");
      }
      state_ = State::kTrailerStart;
      break;

    case State::kEndLf:
      return c == '\n' ? ParseStatus::kDone : Refuse("bad_trailer");
  }
  // One byte of a trailer line.
  if (++line_bytes_ > kMaxTrailerBytes) {
    return Refuse("trailer_too_large");
  }
  return ParseStatus::kNeedMore;
}

ParseStatus ChunkedDecoder::Refuse(std::string_view fault) noexcept {
  fault_ = fault;
  return ParseStatus::kBad;
}

}  // namespace sluice::http
