// The backends of one pool and the choice among them. Pure: no socket, no event; the affinity
// hash and the randomness are arguments. One BackendSet is shared by all workers: what is written
// after construction are the atomics of BackendState alone.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/random.h"

namespace sluice::balance {

enum class Policy : std::uint8_t {
  kRendezvous,         // weighted highest-random-weight hashing of the affinity key
  kLeastConnections,   // fewest open sessions per weight
  kRandomTwoChoices,   // the less loaded of two drawn by weight
  kRoundRobin,         // in turn, by weight
};

// What all workers know of one backend. Written with relaxed atomics by whoever learns something;
// nothing is ordered by it. Kept across a reload as long as pool and name stay.
struct BackendState {
  std::atomic<std::int64_t> open{0};     // sessions and requests that hold a leg to it now
  std::atomic<bool> healthy{true};       // false: gets nothing new
  std::atomic<bool> draining{false};     // true: gets nothing new, what it has is being closed
};

struct Backend {
  std::string name;        // stable: the hash is over it, never over the address
  double weight = 1.0;     // > 0
  std::shared_ptr<BackendState> state;
};

enum class PickHow : std::uint8_t {
  kHome,      // the first choice
  kOverflow,  // the first choice is above its bounded load
  kFallback,  // the first choice was tried already, is unhealthy or drains
};

struct Pick {
  std::size_t index = 0;  // into backends()
  PickHow how = PickHow::kHome;
};

// The 64-bit hash of an affinity key; the same in every process and on every machine.
[[nodiscard]] std::uint64_t HashKey(std::string_view key) noexcept;

class BackendSet {
 public:
  struct Options {
    Policy policy = Policy::kRendezvous;
    double bounded_load = 1.25;  // 0: off; else >= 1
  };

  // REQUIRES: names are unique, every weight is > 0, every state is set.
  BackendSet(Options options, std::vector<Backend> backends);

  // Chooses among the backends that are healthy, not draining and not in `tried`. `key_hash` is
  // the affinity key's hash; for kRandomTwoChoices and kRoundRobin it is ignored. Nothing is
  // reserved: the caller counts `open` when it takes the backend. Returns nothing when no backend
  // is left. Thread-safe.
  [[nodiscard]] std::optional<Pick> Choose(std::uint64_t key_hash,
                                           std::span<const std::size_t> tried,
                                           Random& random) const;

  [[nodiscard]] const std::vector<Backend>& backends() const noexcept { return backends_; }
