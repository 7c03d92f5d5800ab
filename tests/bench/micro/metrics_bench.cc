// What counting a message costs in a worker's own block.
#include <array>
#include <cstddef>
#include <cstdint>

#include <benchmark/benchmark.h>

#include "proxy/metrics/blocks.h"

namespace sluice::metrics {
namespace {

void CounterAdd(benchmark::State& state) {
  RouteBlock block;
  benchmark::DoNotOptimize(&block);  // from here on others might look into it
  Counter& counter = block.messages[0][MessageKind::kText];
  for (auto _ : state) {
    counter.Add();
    benchmark::ClobberMemory();
  }
  if (counter.value() != static_cast<std::uint64_t>(state.iterations())) {
    state.SkipWithError("counted wrongly");
  }
}

void MessageSizeObserve(benchmark::State& state) {
  RouteBlock block;
  benchmark::DoNotOptimize(&block);  // from here on others might look into it
  MessageSizes& sizes = block.message_bytes[0];
  std::uint64_t bytes = 1;
  std::uint64_t sum = 0;
  for (auto _ : state) {
    sizes.Observe(bytes);
    sum += bytes;
    bytes = (bytes * 5 + 3) & 0xFFFFF;  // all buckets up to 1 MiB, in no order
    benchmark::ClobberMemory();
  }
  if (sizes.sum() != sum) {
    state.SkipWithError("counted wrongly");
  }
}

void HistogramObserve(benchmark::State& state) {
  RouteBlock block;
  benchmark::DoNotOptimize(&block);  // from here on others might look into it
  constexpr std::array kSeconds{0.0004, 0.003, 0.02, 0.2, 3.0};
  std::size_t i = 0;
  for (auto _ : state) {
    block.upgrade_seconds.Observe(kSeconds[i]);
    i = i + 1 == kSeconds.size() ? 0 : i + 1;
    benchmark::ClobberMemory();
  }
  if (block.upgrade_seconds.sum() <= 0) {
    state.SkipWithError("counted wrongly");
  }
}

BENCHMARK(CounterAdd);
BENCHMARK(MessageSizeObserve);
BENCHMARK(HistogramObserve);

}  // namespace
}  // namespace sluice::metrics
