// Compares FrameTracker with the byte-by-byte reference on any stream: whole, one byte at a time,
// in pieces that the input chooses, and with large payloads skipped.
// Input: one byte of rules, two bytes that seed the pieces, then the stream.
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

#include "tests/unit/ws/frame_reference.h"

namespace {

using sluice::ws::Disagreement;
using sluice::ws::FrameRules;
using sluice::ws::Payload;

constexpr std::size_t kPrefix = 3;

FrameRules RulesOf(unsigned byte) {
  return {.from = (byte & 1U) != 0 ? sluice::Side::kBackend : sluice::Side::kClient,
          .rsv1_agreed = (byte & 2U) != 0,
          .max_message_bytes = (byte & 4U) != 0 ? 200U : 0U,
          .max_frames_per_message = (byte & 8U) != 0 ? 3U : 0U,
          .max_frame_bytes = (byte & 16U) != 0 ? 100U : 0U};
}

void Require(const FrameRules& rules, const std::vector<std::string_view>& pieces,
             Payload payload) {
  const std::string difference = Disagreement(rules, pieces, payload);
  if (!difference.empty()) {
    std::fprintf(stderr, "%zu pieces: %s\n", pieces.size(), difference.c_str());
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < kPrefix) {
    return 0;
  }
  const FrameRules rules = RulesOf(data[0]);
  std::uint32_t seed = data[1] * 256U + data[2];
  const std::string_view stream =
      sluice::AsText(std::as_bytes(std::span(data, size))).substr(kPrefix);

  std::vector<std::string_view> dribble;
  for (std::size_t i = 0; i < stream.size(); ++i) {
    dribble.push_back(stream.substr(i, 1));
  }
  std::vector<std::string_view> pieces;
  for (std::string_view rest = stream; !rest.empty();) {
    seed = seed * 1664525U + 1013904223U;  // the low bits are poor
    const std::string_view piece = rest.substr(0, (seed >> 16U) % 20U);
    pieces.push_back(piece);
    rest.remove_prefix(piece.size());
  }
  Require(rules, {stream}, Payload::kRead);
  Require(rules, dribble, Payload::kRead);
  Require(rules, pieces, Payload::kRead);
  Require(rules, pieces, Payload::kSkipped);
  return 0;
}
