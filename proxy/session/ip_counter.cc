#include "proxy/session/ip_counter.h"

#include <functional>

namespace sluice::session {

IpCounter::Shard& IpCounter::ShardOf(const std::string& ip) {
  return shards_[std::hash<std::string>()(ip) % shards_.size()];
}

std::size_t IpCounter::Add(const std::string& ip) {
  Shard& shard = ShardOf(ip);
  const std::lock_guard lock(shard.mutex);
  return ++shard.counts[ip];
}

void IpCounter::Remove(const std::string& ip) {
  Shard& shard = ShardOf(ip);
  const std::lock_guard lock(shard.mutex);
  const auto found = shard.counts.find(ip);
  if (found != shard.counts.end() && --found->second == 0) {
    shard.counts.erase(found);
  }
}

}  // namespace sluice::session
