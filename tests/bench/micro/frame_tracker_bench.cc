// What the walk over frames costs: per frame where frames are small, per byte where one is large.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "proxy/ws/frame_tracker.h"

namespace sluice::ws {
namespace {

// A frame as a client sends it: FIN, text, masked with zeroes.
std::string ClientFrame(std::size_t payload) {
  std::string frame{'\x81'};
  constexpr unsigned kMasked = 0x80;
  if (payload <= 125) {
    frame += static_cast<char>(kMasked | payload);
  } else if (payload <= 0xFFFF) {
    frame += static_cast<char>(kMasked | 126U);
    frame += static_cast<char>(payload >> 8U);
    frame += static_cast<char>(payload & 0xFFU);
  } else {
    frame += static_cast<char>(kMasked | 127U);
    for (unsigned shift = 64; shift > 0; shift -= 8) {
      frame += static_cast<char>((std::uint64_t{payload} >> (shift - 8)) & 0xFFU);
    }
  }
  return frame + std::string(4 + payload, '\0');
}

// Feeds all of `input`; the number of messages that ended, or -1 for a fault.
std::int64_t Walk(FrameTracker& tracker, Bytes input) {
  std::int64_t messages = 0;
  for (;;) {
    const FrameTracker::Step step = tracker.Next(input);
    input = input.subspan(step.consumed);
    if (step.event == FrameTracker::Event::kMessageEnd) {
      messages += 1;
    } else if (step.event == FrameTracker::Event::kBad) {
      return -1;
    } else if (step.event == FrameTracker::Event::kNeedMore) {
      return messages;
    }
  }
}

// One frame in each read, as in an echo; Arg: bytes of payload.
void FrameAlone(benchmark::State& state) {
  const std::string frame = ClientFrame(static_cast<std::size_t>(state.range(0)));
  FrameTracker tracker(FrameRules{});
  if (Walk(tracker, AsBytes(frame)) != 1) {
    state.SkipWithError("the frame was not taken as one message");
  }
  for (auto _ : state) {
    benchmark::DoNotOptimize(Walk(tracker, AsBytes(frame)));
  }
  state.SetItemsProcessed(state.iterations());
}

// One read of 64 KiB with many frames; Arg: bytes of payload of each. Items are frames.
void FramesInOneRead(benchmark::State& state) {
  const std::string frame = ClientFrame(static_cast<std::size_t>(state.range(0)));
  const std::size_t count = 64 * 1024 / frame.size();
  std::string read;
  for (std::size_t i = 0; i < count; ++i) {
    read += frame;
  }
  FrameTracker tracker(FrameRules{});
  if (Walk(tracker, AsBytes(read)) != static_cast<std::int64_t>(count)) {
    state.SkipWithError("not every frame was taken as a message");
  }
  for (auto _ : state) {
    benchmark::DoNotOptimize(Walk(tracker, AsBytes(read)));
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(count));
}

// A frame of 1 MiB in reads of 64 KiB: what a byte of payload costs.
void LargePayload(benchmark::State& state) {
  const std::string frame = ClientFrame(1024 * 1024);
  constexpr std::size_t kRead = 64 * 1024;
  FrameTracker tracker(FrameRules{});
  const auto feed = [&] {
    std::int64_t messages = 0;
    for (std::size_t at = 0; at < frame.size(); at += kRead) {
      messages += Walk(tracker, AsBytes(frame).subspan(at, std::min(kRead, frame.size() - at)));
    }
    return messages;
  };
  if (feed() != 1) {
    state.SkipWithError("the frame was not taken as one message");
  }
  for (auto _ : state) {
    benchmark::DoNotOptimize(feed());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(frame.size()));
}

BENCHMARK(FrameAlone)->Arg(64)->Arg(4096);
BENCHMARK(FramesInOneRead)->Arg(8)->Arg(64)->Arg(1024);
BENCHMARK(LargePayload);

}  // namespace
}  // namespace sluice::ws
