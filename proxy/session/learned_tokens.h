// Which backend has handed out a token, for the tokens that one route has seen in answers. Shared
// by all workers: a token may be learned by one and asked for by another. Bounded: what was used
// least lately is forgotten first. Tokens are known by a hash; they are credentials of clients, and
// are kept nowhere.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "proxy/balance/backend_set.h"
#include "proxy/base/clock.h"

namespace sluice::session {

class LearnedTokens {
 public:
  // Remembers at most `most` tokens, each for `ttl` since it was used last. REQUIRES: most > 0.
  LearnedTokens(std::size_t most, Millis ttl);
  // The same, beginning with what `before` remembers, as far as there is room.
  LearnedTokens(std::size_t most, Millis ttl, const LearnedTokens& before);

  // `token`, a hash of it, was handed out by `backend`. False when another one had to go for it
  // before its time. Thread-safe.
  bool Learn(std::uint64_t token, const std::shared_ptr<balance::BackendState>& backend,
             Instant now);

  // Index of the backend that has handed out `token`, if that is remembered and one of `backends`.
  // Then it was used now. Thread-safe.
  [[nodiscard]] std::optional<std::size_t> Find(std::uint64_t token,
                                                std::span<const balance::Backend> backends,
                                                Instant now);

  // How many are remembered; those whose time is over are forgotten first. Thread-safe.
  [[nodiscard]] std::size_t Count(Instant now);

  [[nodiscard]] std::size_t most() const noexcept { return most_; }
  [[nodiscard]] Millis ttl() const noexcept { return ttl_; }

 private:
  // The identity of a backend: kept across reloads as long as pool and name stay. Weak: a backend
  // that is gone must not be kept by its tokens, nor one that comes later be taken for it.
  using BackendId = std::weak_ptr<balance::BackendState>;

  struct Entry {
    std::uint64_t token = 0;
    BackendId backend;
    Instant used{};
  };
  using Order = std::list<Entry>;  // the one used last is the first

  struct Shard {
    mutable std::mutex mutex;
    Order order;                                                // guarded by mutex
    std::unordered_map<std::uint64_t, Order::iterator> places;  // guarded by mutex
    std::size_t most = 0;
  };

  static constexpr std::size_t kMostShards = 16;
  // A shard forgets what is oldest in it, so that each is to stand for the whole.
  static constexpr std::size_t kLeastPerShard = 4096;

  [[nodiscard]] Shard& ShardOf(std::uint64_t token) noexcept {
    return shards_[(token >> 60U) & (shard_count_ - 1)];
  }
  bool Put(std::uint64_t token, const BackendId& backend, Instant used, Instant now);
  void ForgetExpired(Shard& shard, Instant now) const;
  static void ForgetOldest(Shard& shard);

  std::size_t most_;
  Millis ttl_;
  std::size_t shard_count_;  // a power of two
  std::array<Shard, kMostShards> shards_;
};

}  // namespace sluice::session
