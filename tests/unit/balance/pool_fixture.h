// Pools for the tests of this folder: names with weights, and how a test looks into them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/balance/backend_set.h"

namespace sluice::balance::test {

using Weights = std::vector<std::pair<std::string, double>>;

inline Weights EqualWeights(std::size_t count) {
  Weights weights;
  for (std::size_t i = 0; i < count; ++i) {
    weights.emplace_back("ws-" + std::to_string(i), 1.0);
  }
  return weights;
}

inline constexpr std::uint64_t kKeys = 100'000;

// The hash of key number `key`. REQUIRES: key < kKeys.
inline std::uint64_t KeyHash(std::uint64_t key) {
  static const std::vector<std::uint64_t> hashes = [] {
    std::vector<std::uint64_t> all;
    for (std::uint64_t i = 0; i < kKeys; ++i) {
      all.push_back(HashKey("key-" + std::to_string(i)));
    }
    return all;
  }();
  return hashes[key];
}

inline std::vector<Backend> MakeBackends(const Weights& weights) {
  std::vector<Backend> backends;
  for (const auto& [name, weight] : weights) {
    backends.push_back({name, weight, std::make_shared<BackendState>()});
  }
  return backends;
}

// A set together with the time and the randomness it is asked with.
struct Pool {
  explicit Pool(const Weights& weights, BackendSet::Options options = {})
      : Pool(options, MakeBackends(weights)) {}
  Pool(BackendSet::Options options, std::vector<Backend> backends)
      : set(options, std::move(backends)) {}

  BackendState& state(std::size_t index) { return *set.backends()[index].state; }

  std::optional<Pick> Choose(std::uint64_t key_hash, std::vector<std::size_t> tried = {}) {
    return set.Choose(key_hash, tried, now, random);
  }

  // The name chosen for key number `key`, or "" when nothing is left. Lives as long as the pool.
  std::string_view NameFor(std::uint64_t key, std::span<const std::size_t> tried = {}) {
    const auto pick = set.Choose(KeyHash(key), tried, now, random);
    return pick.has_value() ? std::string_view(set.backends()[pick->index].name)
                            : std::string_view();
  }

  // Chooses and takes, as a caller does.
  std::size_t Take(std::uint64_t key_hash) {
    const std::size_t index = Choose(key_hash).value().index;
    ++state(index).open;
    return index;
  }

  BackendSet set;
  Instant now{std::chrono::hours(1000)};
  Random random{20240229};
};

}  // namespace sluice::balance::test
