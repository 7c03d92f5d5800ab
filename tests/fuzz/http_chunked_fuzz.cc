// Compares ChunkedDecoder with llhttp in its strict mode: as long as we take the bytes llhttp takes
// them too, and both find the same content and the same end. And with itself: the verdict is the
// same whole, byte by byte and in pieces.
// Input: content in the chunked coding, and what follows it.
#include <llhttp.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/bytes.h"
#include "proxy/http/chunked.h"

#include "tests/fuzz/pieces.h"

namespace {

using namespace sluice;

[[noreturn]] void Fail(const char* what, const std::string& ours, const std::string& theirs) {
  std::fprintf(stderr, "%s\n  ours:   %s\n  theirs: %s\n", what, ours.c_str(), theirs.c_str());
  std::abort();
}

struct Reading {
  ParseStatus status = ParseStatus::kNeedMore;
  std::size_t used = 0;
  std::string content;
  std::string fault;
  bool in_trailers = false;  // llhttp's alone

  [[nodiscard]] std::string Text() const {
    return std::to_string(static_cast<int>(status)) + " " + std::to_string(used) + " " + fault +
           ": " + content;
  }
};

Reading Decode(std::string_view bytes, const std::vector<std::size_t>& ends) {
  http::ChunkedDecoder decoder;
  Reading reading;
  std::size_t begin = 0;
  for (const std::size_t end : ends) {
    // A copy of exactly that size, so that AddressSanitizer sees a read beyond the end.
    const std::vector<char> piece(bytes.begin() + static_cast<std::ptrdiff_t>(begin),
                                  bytes.begin() + static_cast<std::ptrdiff_t>(end));
    Bytes rest = std::as_bytes(std::span(piece));
    while (!rest.empty()) {
      const http::ChunkedDecoder::Step step = decoder.Next(rest);
      reading.used += step.consumed;
      reading.content += AsText(step.data);
      reading.status = step.status;
      if (step.status == ParseStatus::kBad) {
        reading.fault = decoder.fault();
        return reading;
      }
      if (step.status == ParseStatus::kDone) {
        return reading;
      }
      if (step.consumed == 0) {
        Fail("a step used nothing", reading.Text(), "");
      }
      rest = rest.subspan(step.consumed);
    }
    begin = end;
  }
  return reading;
}

Reading& ReadingOf(llhttp_t* parser) {
  return *static_cast<Reading*>(parser->data);
}

int OnBody(llhttp_t* parser, const char* at, std::size_t length) {
  ReadingOf(parser).content.append(at, length);
  return 0;
}

int OnChunkHeader(llhttp_t* parser) {
  ReadingOf(parser).in_trailers = parser->content_length == 0;
  return 0;
}

int OnMessageComplete(llhttp_t* parser) {
  ReadingOf(parser).status = ParseStatus::kDone;
  return HPE_PAUSED;
}

const llhttp_settings_t kSettings = [] {
  llhttp_settings_t settings;
  llhttp_settings_init(&settings);
  settings.on_body = OnBody;
  settings.on_chunk_header = OnChunkHeader;
  settings.on_message_complete = OnMessageComplete;
  return settings;
}();

Reading DecodeWithLlhttp(std::string_view bytes) {
  constexpr std::string_view kHead = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
  Reading reading;
  llhttp_t parser;
  llhttp_init(&parser, HTTP_REQUEST, &kSettings);
  parser.data = &reading;
  if (llhttp_execute(&parser, kHead.data(), kHead.size()) != HPE_OK) {
    Fail("llhttp refuses our head", "", llhttp_get_error_reason(&parser));
  }
  const llhttp_errno_t error = llhttp_execute(&parser, bytes.data(), bytes.size());
  if (error == HPE_OK) {
    reading.used = bytes.size();
    return reading;
  }
  reading.used = static_cast<std::size_t>(llhttp_get_error_pos(&parser) - bytes.data());
  if (error != HPE_PAUSED) {
    reading.status = ParseStatus::kBad;
    reading.fault = llhttp_errno_name(error);
  }
  return reading;
}

// llhttp reads the values of framing fields in trailers; ours drops trailers whatever they say
// (RFC 9110 section 6.5.1).
bool IsFaultOfTrailerValue(const Reading& theirs) {
  return theirs.in_trailers && (theirs.fault == "HPE_INVALID_CONTENT_LENGTH" ||
                                theirs.fault == "HPE_UNEXPECTED_CONTENT_LENGTH" ||
                                theirs.fault == "HPE_INVALID_TRANSFER_ENCODING");
}

// llhttp 8.1 reads no further extension behind one whose value is a token.
bool IsSecondExtension(std::string_view bytes, const Reading& theirs) {
  return theirs.fault == "HPE_INVALID_CHUNK_SIZE" && theirs.used > 0 &&
         bytes[theirs.used - 1] == ';';
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes = AsText(std::as_bytes(std::span(data, size)));
  const Reading ours = Decode(bytes, {bytes.size()});
  for (const std::uint32_t longest : {1U, 16U}) {
    const Reading pieced = Decode(bytes, fuzz::PieceEnds(bytes, longest));
    if (ours.Text() != pieced.Text()) {
      Fail("the cuts matter", ours.Text(), pieced.Text());
    }
  }
  if (ours.status == ParseStatus::kBad) {
    return 0;
  }
  const Reading theirs = DecodeWithLlhttp(bytes);
  if (ours.Text() != theirs.Text() && !IsFaultOfTrailerValue(theirs) &&
      !IsSecondExtension(bytes, theirs)) {
    Fail("llhttp reads it differently", ours.Text(), theirs.Text());
  }
  return 0;
}
