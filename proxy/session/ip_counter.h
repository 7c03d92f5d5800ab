// Counts client connections by address over all workers, for the limit per client address. Touched
// when a connection begins and ends, never in between, and not at all while the limit is off.
#pragma once

#include <array>
#include <cstddef>
#include <mutex>
#include <string>
#include <unordered_map>

namespace sluice::session {

class IpCounter {
 public:
  // Counts one more connection of `ip` and returns how many there are with it. Thread-safe.
  std::size_t Add(const std::string& ip);

  // One less. REQUIRES: an Add that was not yet undone. Thread-safe.
  void Remove(const std::string& ip);

 private:
  struct Shard {
    std::mutex mutex;
    std::unordered_map<std::string, std::size_t> counts;  // guarded by mutex
  };

  Shard& ShardOf(const std::string& ip);

  std::array<Shard, 16> shards_;  // so that workers seldom wait for each other in a storm
};

}  // namespace sluice::session
