#include "proxy/session/learned_tokens.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace sluice::session {

LearnedTokens::LearnedTokens(std::size_t most, Millis ttl)
    : most_(most),
      ttl_(ttl),
      shard_count_(std::bit_floor(std::clamp<std::size_t>(most / kLeastPerShard, 1, kMostShards))) {
  for (std::size_t i = 0; i < shard_count_; ++i) {
    shards_[i].most = (most + i) / shard_count_;
  }
}

LearnedTokens::LearnedTokens(std::size_t most, Millis ttl, const LearnedTokens& before)
    : LearnedTokens(most, ttl) {
  std::vector<Entry> entries;
  for (const Shard& shard : before.shards_) {
    const std::lock_guard lock(shard.mutex);
    entries.insert(entries.end(), shard.order.begin(), shard.order.end());
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.used < b.used; });
  for (const Entry& entry : entries) {
    Put(entry, entry.used);
  }
}

bool LearnedTokens::Learn(std::uint64_t token,
                          const std::shared_ptr<balance::BackendState>& backend, Instant now) {
  return Put({token, backend, now, now}, now);
}

bool LearnedTokens::Put(Entry entry, Instant now) {
  const std::uint64_t token = entry.token;
  Shard& shard = ShardOf(token);
  const std::lock_guard lock(shard.mutex);
  ForgetExpired(shard, now);
  const auto place = shard.places.find(token);
  if (place != shard.places.end()) {
    *place->second = std::move(entry);
    shard.order.splice(shard.order.begin(), shard.order, place->second);
    return true;
  }
  const bool full = shard.order.size() >= shard.most;
  if (full) {
    ForgetOldest(shard);
  }
  shard.order.push_front(std::move(entry));
  shard.places.emplace(token, shard.order.begin());
  return !full;
}

std::optional<LearnedTokens::Found> LearnedTokens::Find(std::uint64_t token,
                                                        std::span<const balance::Backend> backends,
                                                        Instant now) {
  Shard& shard = ShardOf(token);
  const std::lock_guard lock(shard.mutex);
  ForgetExpired(shard, now);
  const auto place = shard.places.find(token);
  if (place == shard.places.end()) {
    return std::nullopt;
  }
  Entry& entry = *place->second;
  if (entry.ended) {
    if (now - *entry.ended <= kAfterEnd) {
      return Found{.home = Home::kEnded};
    }
    shard.order.erase(place->second);
    shard.places.erase(place);
    return std::nullopt;
  }
  const auto found =
      std::find_if(backends.begin(), backends.end(), [&](const balance::Backend& one) {
        return !entry.backend.owner_before(one.state) && !one.state.owner_before(entry.backend);
      });
  if (found == backends.end()) {
    const auto state = entry.backend.lock();
    const bool gone = state == nullptr || state->draining.load(std::memory_order_relaxed);
    return Found{.home = gone ? Home::kGone : Home::kLeft};
  }
  if (balance::NanosOf(entry.learned) <= found->state->emptied_at.load(std::memory_order_relaxed)) {
    entry.ended = now;
    return Found{.home = Home::kEnded};
  }
  entry.used = now;
  shard.order.splice(shard.order.begin(), shard.order, place->second);
  return Found{.index = static_cast<std::size_t>(found - backends.begin())};
}

void LearnedTokens::End(std::uint64_t token, Instant now) {
  Shard& shard = ShardOf(token);
  const std::lock_guard lock(shard.mutex);
  const auto place = shard.places.find(token);
  if (place != shard.places.end() && !place->second->ended) {
    place->second->ended = now;
  }
}

std::size_t LearnedTokens::Count(Instant now) {
  std::size_t sum = 0;
  for (Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    ForgetExpired(shard, now);
    sum += shard.order.size();
  }
  return sum;
}

// Each is forgotten once, so whoever does this pays for what was learned.
void LearnedTokens::ForgetExpired(Shard& shard, Instant now) const {
  while (!shard.order.empty() && now - shard.order.back().used > ttl_) {
    ForgetOldest(shard);
  }
}

void LearnedTokens::ForgetOldest(Shard& shard) {
  shard.places.erase(shard.order.back().token);
  shard.order.pop_back();
}

}  // namespace sluice::session
