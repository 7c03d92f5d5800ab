// Holds EventBoundary against a second reading of the text after every step: whole, one byte at a
// time and in pieces.
// Input: the content of a text/event-stream, of which the first 512 bytes are read.
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

#include "tests/fuzz/pieces.h"
#include "tests/unit/http/event_reference.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kMost = 512;  // the other reading starts over with every byte
  const std::string_view text =
      sluice::AsText(std::as_bytes(std::span(data, std::min(size, kMost))));
  for (const std::uint32_t longest : {1U, 4U, 32U, 1U << 30U}) {
    std::vector<std::string_view> pieces;
    std::size_t begin = 0;
    for (const std::size_t end : sluice::fuzz::PieceEnds(text, longest)) {
      pieces.push_back(text.substr(begin, end - begin));
      begin = end;
    }
    const std::string difference = sluice::http::EventDifference(pieces);
    if (!difference.empty()) {
      std::fprintf(stderr, "%zu pieces: %s\n", pieces.size(), difference.c_str());
      std::abort();
    }
  }
  return 0;
}
