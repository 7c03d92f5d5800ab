// Holds what Refragmenter makes of a valid stream against a second reading of it: whole, one byte
// at a time and in pieces. What breaks the frame rules ends the stream, as it ends a session.
// Input: one byte that chooses the limit, then the stream of a backend, RSV1 agreed.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/bytes.h"
#include "proxy/ws/frame_tracker.h"

#include "tests/fuzz/pieces.h"
#include "tests/unit/ws/refragmenter_reference.h"

namespace {

using sluice::ws::FrameTracker;

constexpr std::uint64_t kLimits[] = {1, 2, 3, 7, 16, 125, 126, 127, 1024, 4096, 4097, 1ULL << 30U};

// What a relay would let pass of `stream`: all frames before a bad one.
std::string_view Valid(std::string_view stream) {
  FrameTracker tracker({.from = sluice::Side::kBackend, .rsv1_agreed = true});
  std::size_t whole = 0;
  for (;;) {
    const FrameTracker::Step step = tracker.Next(sluice::AsBytes(stream.substr(whole)));
    if (step.event == FrameTracker::Event::kBad) {
      return stream.substr(0, whole);
    }
    if (step.event == FrameTracker::Event::kNeedMore) {
      return stream;
    }
    whole += step.consumed;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  const std::uint64_t limit = kLimits[data[0] % std::size(kLimits)];
  const std::string_view stream =
      Valid(sluice::AsText(std::as_bytes(std::span(data, size))).substr(1));
  for (const std::uint32_t longest : {1U, 16U, 600U, 1U << 30U}) {
    std::vector<std::string_view> pieces;
    std::size_t begin = 0;
    for (const std::size_t end : sluice::fuzz::PieceEnds(stream, longest)) {
      pieces.push_back(stream.substr(begin, end - begin));
      begin = end;
    }
    const std::string difference = sluice::ws::RefragmentDifference(limit, pieces);
    if (!difference.empty()) {
      std::fprintf(stderr, "%zu pieces: %s\n", pieces.size(), difference.c_str());
      std::abort();
    }
  }
  return 0;
}
