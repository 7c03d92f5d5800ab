// Which backend has handed out a token, for the tokens that one route has seen in answers. Shared
// by all workers: a token may be learned by one and asked for by another. Bounded: what was used
// least lately is forgotten first. Tokens are known by a hash; they are credentials of clients, and
// are kept nowhere.
//
//   unknown --Learn--> known --End--> ended --kAfterEnd--> unknown
//
// An ended one names a session that its client has been told is over. What that client has on its
// way meanwhile, or says at last, is nothing for any backend.
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

  enum class Home : std::uint8_t {
    kHere,   // the backend is one of those that were asked about
    kLeft,   // it is none of them, and is in service
    kGone,   // it is none of them, and drains or is there no more
    kEnded,  // the session is over: so it was said, or the backend was drained since
  };
  struct Found {
    Home home = Home::kHere;
    std::size_t index = 0;  // kHere: into those backends
  };

  // What is remembered of `token`. One whose home is here was used now. Thread-safe.
  [[nodiscard]] std::optional<Found> Find(std::uint64_t token,
                                          std::span<const balance::Backend> backends, Instant now);

  // The session that `token` names is over. Nothing happens when it is not known. Thread-safe.
  void End(std::uint64_t token, Instant now);

  // For so long after the first End a token is remembered as one that has ended.
  static constexpr Millis kAfterEnd{10'000};

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
    Instant learned{};
    Instant used{};
    std::optional<Instant> ended{};
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
  bool Put(Entry entry, Instant now);
  void ForgetExpired(Shard& shard, Instant now) const;
  static void ForgetOldest(Shard& shard);

  std::size_t most_;
  Millis ttl_;
  std::size_t shard_count_;  // a power of two
  std::array<Shard, kMostShards> shards_;
};

}  // namespace sluice::session
