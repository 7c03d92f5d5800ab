// The affinity keys that plain requests of one route came with of late. Who sends such requests may
// have a session of several of them, and upgrade it to a WebSocket at last: all have to meet at the
// backend where the key leads (balance::Want::kSettled).
//
// Shared by all workers, without a lock: what two note at the same instant, one of them may lose.
// Bounded: where many keys are noted the oldest ones are forgotten early, and a client of theirs is
// as new again. Knows keys by a part of their hash, so it may know one that was never noted,
// rarely.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "proxy/base/clock.h"

namespace sluice::session {

class SettledKeys {
 public:
  // For so long after the last request a key is known: longer than the pauses of clients that poll.
  static constexpr Millis kFor{120'000};

  // Takes up memory page by page with what is noted, 512 KiB at most.
  SettledKeys();

  // Thread-safe.
  void Note(std::uint64_t key_hash, Instant now) noexcept;

  // Thread-safe.
  [[nodiscard]] bool Knows(std::uint64_t key_hash, Instant now) const noexcept;

 private:
  // A slot holds the upper half of a hash above the second in which it was noted; 0: free.
  static constexpr std::size_t kPerBucket = 8;  // a cache line
  static constexpr std::size_t kBuckets = 8192;
  static constexpr std::size_t kBytes = kBuckets * kPerBucket * sizeof(std::uint64_t);

  struct Unmap {
    void operator()(std::uint64_t* slots) const noexcept;
  };

  [[nodiscard]] std::uint64_t* BucketOf(std::uint64_t key_hash) const noexcept {
    return slots_.get() + key_hash % kBuckets * kPerBucket;
  }

  std::unique_ptr<std::uint64_t[], Unmap> slots_;
};

}  // namespace sluice::session
