// What choosing a backend costs. Arg: how many there are.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "proxy/balance/backend_set.h"

namespace sluice::balance {
namespace {

constexpr Instant kNow{std::chrono::hours(1)};

BackendSet MakeSet(std::size_t count, BackendSet::Options options, bool equal_weights) {
  std::vector<Backend> backends;
  for (std::size_t i = 0; i < count; ++i) {
    const double weight = equal_weights ? 1.0 : 1.0 + static_cast<double>(i % 7);
    backends.push_back({"ws-" + std::to_string(i), weight, std::make_shared<BackendState>()});
  }
  return {options, std::move(backends)};
}

void RunPick(benchmark::State& state, const BackendSet& set) {
  Random random(1);
  std::vector<std::uint64_t> keys;
  for (int i = 0; i < 1024; ++i) {
    keys.push_back(HashKey("198.51.100." + std::to_string(i)));
  }
  std::size_t i = 0;
  std::size_t picked = 0;
  for (auto _ : state) {
    const auto pick = set.Choose(keys[i++ & 1023U], {}, kNow, random);
    picked += pick.has_value() ? 1 : 0;
    benchmark::DoNotOptimize(pick);
  }
  if (picked != static_cast<std::size_t>(state.iterations())) {
    state.SkipWithError("no backend was chosen");
  }
}

void PickEqualWeights(benchmark::State& state) {
  RunPick(state, MakeSet(static_cast<std::size_t>(state.range(0)), {.bounded_load = 0}, true));
}

void PickUnequalWeights(benchmark::State& state) {
  RunPick(state, MakeSet(static_cast<std::size_t>(state.range(0)), {.bounded_load = 0}, false));
}

// Half of the backends hold twice as much as the other half, so that homes are above their bound.
void PickBoundedLoad(benchmark::State& state) {
  const BackendSet set = MakeSet(static_cast<std::size_t>(state.range(0)), {}, true);
  std::int64_t open = 100;
  for (const Backend& backend : set.backends()) {
    backend.state->open.store(open);
    open = 300 - open;
  }
  RunPick(state, set);
}

void PickLeastConnections(benchmark::State& state) {
  RunPick(state, MakeSet(static_cast<std::size_t>(state.range(0)),
                         {.policy = Policy::kLeastConnections}, true));
}

BENCHMARK(PickEqualWeights)->Arg(10)->Arg(100)->Arg(1000);
BENCHMARK(PickUnequalWeights)->Arg(10)->Arg(100)->Arg(1000);
BENCHMARK(PickBoundedLoad)->Arg(10)->Arg(100)->Arg(1000);
BENCHMARK(PickLeastConnections)->Arg(10)->Arg(100)->Arg(1000);

}  // namespace
}  // namespace sluice::balance
