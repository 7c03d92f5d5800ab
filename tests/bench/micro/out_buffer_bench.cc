// What keeping bytes that the kernel refused costs. Arg: bytes of each piece.
#include <cstddef>
#include <cstdint>
#include <string>

#include <benchmark/benchmark.h>

#include "proxy/net/out_buffer.h"

namespace sluice::net {
namespace {

// From empty to empty: with the memory that it takes and gives back.
void OutBufferOnePiece(benchmark::State& state) {
  const std::string piece(static_cast<std::size_t>(state.range(0)), 'x');
  OutBuffer buffer;
  for (auto _ : state) {
    buffer.Append(AsBytes(piece));
    benchmark::DoNotOptimize(buffer.front().data());
    buffer.Consume(piece.size());
  }
  if (!buffer.empty()) {
    state.SkipWithError("bytes are left");
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(piece.size()));
}

// A peer that is a little behind: 64 pieces wait, and each turn one comes and one goes.
void OutBufferBacklog(benchmark::State& state) {
  const std::string piece(static_cast<std::size_t>(state.range(0)), 'x');
  constexpr std::size_t kWaiting = 64;
  OutBuffer buffer;
  for (std::size_t i = 0; i < kWaiting; ++i) {
    buffer.Append(AsBytes(piece));
  }
  for (auto _ : state) {
    buffer.Append(AsBytes(piece));
    benchmark::DoNotOptimize(buffer.front().data());
    buffer.Consume(piece.size());
  }
  if (buffer.size() != kWaiting * piece.size()) {
    state.SkipWithError("bytes were lost");
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(piece.size()));
}

BENCHMARK(OutBufferOnePiece)->Arg(64)->Arg(16 * 1024);
BENCHMARK(OutBufferBacklog)->Arg(64)->Arg(16 * 1024);

}  // namespace
}  // namespace sluice::net
