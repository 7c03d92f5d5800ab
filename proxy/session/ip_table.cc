#include "proxy/session/ip_table.h"

#include <algorithm>

namespace sluice::session {

IpTable::Shard& IpTable::ShardOf(std::uint64_t network) noexcept {
  // Fibonacci hashing: neighbours in one block of addresses go to different shards.
  return shards_[(network * 0x9e3779b97f4a7c15ULL) >> 60U];
}

std::size_t IpTable::AddConnection(const net::Address& client) {
  const std::uint64_t network = client.Network();
  Shard& shard = ShardOf(network);
  const std::lock_guard lock(shard.mutex);
  return ++shard.entries[network].connections;
}

void IpTable::RemoveConnection(const net::Address& client) {
  const std::uint64_t network = client.Network();
  Shard& shard = ShardOf(network);
  const std::lock_guard lock(shard.mutex);
  const auto found = shard.entries.find(network);
  if (found != shard.entries.end() && --found->second.connections == 0 &&
      found->second.upgrades.IsFull(Now())) {
    shard.entries.erase(found);
  }
}

std::optional<Instant::duration> IpTable::TakeUpgrade(const net::Address& client,
                                                      const TokenRate& rate, Instant now) {
  const std::uint64_t network = client.Network();
  Shard& shard = ShardOf(network);
  const std::lock_guard lock(shard.mutex);
  if (shard.entries.size() >= shard.sweep_at) {
    Sweep(shard, now);
  }
  TokenBucket& bucket = shard.entries[network].upgrades;
  if (bucket.Take(rate, now)) {
    return std::nullopt;
  }
  return bucket.Wait(rate, now);
}

// The table doubles before the next search, so that a search is paid for by what was added.
void IpTable::Sweep(Shard& shard, Instant now) {
  std::erase_if(shard.entries, [now](const auto& item) {
    return item.second.connections == 0 && item.second.upgrades.IsFull(now);
  });
  shard.sweep_at = std::max(kFirstSweep, shard.entries.size() * 2);
}

std::size_t IpTable::size() const {
  std::size_t sum = 0;
  for (const Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    sum += shard.entries.size();
  }
  return sum;
}

}  // namespace sluice::session
