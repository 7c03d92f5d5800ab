// What all workers together know of client addresses, for the limits per address: how many
// connections each has open, and how many upgrades it has asked for lately. Touched when a
// connection begins or ends and when an upgrade is asked for, and not at all while these limits are
// off.
//
// An address is known by its network: an IPv6 host usually has a whole /64 to itself, and would
// otherwise be as many clients as it likes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "proxy/base/token_bucket.h"
#include "proxy/net/address.h"

namespace sluice::session {

class IpTable {
 public:
  // Counts one more connection of `client` and returns how many there are with it. Thread-safe.
  std::size_t AddConnection(const net::Address& client);

  // One less. REQUIRES: an AddConnection that was not yet undone. Thread-safe.
  void RemoveConnection(const net::Address& client);

  // One upgrade of `client`, at most `rate`. Nothing: it may go on; else how long it would have to
  // wait for its turn. Thread-safe.
  [[nodiscard]] std::optional<Instant::duration> TakeUpgrade(const net::Address& client,
                                                             const TokenRate& rate, Instant now);

  // How many addresses are remembered. Thread-safe.
  [[nodiscard]] std::size_t size() const;

 private:
  struct Entry {
    std::size_t connections = 0;
    TokenBucket upgrades;
  };

  struct Shard {
    mutable std::mutex mutex;
    std::unordered_map<std::uint64_t, Entry> entries;  // guarded by mutex
    std::size_t sweep_at = kFirstSweep;                // guarded by mutex
  };

  // A shard this large is searched for entries of which nothing is worth remembering.
  static constexpr std::size_t kFirstSweep = 1024;

  [[nodiscard]] Shard& ShardOf(std::uint64_t network) noexcept;
  static void Sweep(Shard& shard, Instant now);

  std::array<Shard, 16> shards_;  // so that workers seldom wait for each other in a storm
};

}  // namespace sluice::session
