// Holds the parser of PROXY headers to what it promises of any bytes: the verdict does not depend
// on how they come, no byte behind a header changes it, waiting has a bound, and what the writer
// makes of a client's header reads the same.
// Input: the first bytes of a connection.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/bytes.h"
#include "proxy/proxy_protocol/header_parser.h"
#include "proxy/proxy_protocol/header_writer.h"

#include "tests/fuzz/pieces.h"
#include "tests/unit/proxy_protocol/header_reference.h"

namespace {

namespace pp = sluice::proxy_protocol;
using sluice::ParseStatus;

// From memory of its own size, so that the sanitizer sees a look behind the end.
pp::Parsed ParseExactly(std::string_view bytes) {
  const std::vector<char> exact(bytes.begin(), bytes.end());
  return pp::Parse(sluice::AsBytes({exact.data(), exact.size()}));
}

void Require(bool holds, const char* what) {
  if (!holds) {
    std::fprintf(stderr, "%s\n", what);
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes = sluice::AsText(std::as_bytes(std::span(data, size)));
  const pp::Parsed whole = ParseExactly(bytes);
  const std::string verdict = pp::Describe(whole);
  if (whole.status == ParseStatus::kNeedMore) {
    Require(size < pp::kMostHeader, "waits beyond the bound");
  }
  for (const std::uint32_t longest : {1U, 7U, 64U}) {
    std::string told = "more";
    for (const std::size_t end : sluice::fuzz::PieceEnds(bytes, longest)) {
      const pp::Parsed parsed = ParseExactly(bytes.substr(0, end));
      if (parsed.status != ParseStatus::kNeedMore) {
        told = pp::Describe(parsed);
        break;
      }
    }
    Require(told == verdict, "the verdict depends on the pieces");
  }
  if (whole.status != ParseStatus::kDone) {
    return 0;
  }
  Require(whole.size <= size && whole.size <= pp::kMostHeader, "longer than what has come");
  Require(pp::Describe(ParseExactly(bytes.substr(0, whole.size))) == verdict,
          "looks behind the header");
  const pp::Header& header = whole.header;
  if (header.subject == pp::Subject::kClient) {
    const std::string written = pp::ClientHeader(header.version, header.source, header.destination);
    const pp::Parsed again = ParseExactly(written);
    Require(again.status == ParseStatus::kDone && again.size == written.size(),
            "what is written is not read");
    // An IPv4-mapped address goes as IPv4, so that only the ports are sure to be the same.
    Require(again.header.source.port == header.source.port &&
                again.header.destination.port == header.destination.port,
            "another client than the one written");
    Require(again.header.source.v6 != header.source.v6 ||
                (again.header.source == header.source &&
                 again.header.destination == header.destination),
            "another address than the one written");
  }
  return 0;
}
