// The backends of one pool and the choice among them. Pure: no socket, no event; the affinity
// hash, the time and the randomness are arguments. One BackendSet is shared by all workers: what is
// written after construction are atomics alone, those of BackendState and the turn of kRoundRobin.
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

#include "proxy/base/clock.h"
#include "proxy/base/random.h"

namespace sluice::balance {

enum class Policy : std::uint8_t {
  kRendezvous,        // weighted highest-random-weight hashing of the affinity key
  kLeastConnections,  // fewest open sessions per weight
  kRandomTwoChoices,  // the less loaded of two drawn by weight
  kRoundRobin,        // in turn, by weight
};

// What all workers know of one backend. Written with relaxed atomics by whoever learns something;
// nothing is ordered by it. Kept across a reload as long as pool and name stay.
struct BackendState {
  std::atomic<std::int64_t> open{0};  // sessions and requests that hold a leg to it now
  std::atomic<bool> healthy{true};    // the verdict of its health checks; false: gets nothing new
  std::atomic<bool> ejected{false};   // true: gets nothing new for a while, for what sessions saw
  std::atomic<bool> draining{false};  // true: gets nothing new, what it has is being closed
  // When it began to take its share anew, in nanoseconds of Instant; 0: never. See slow_start.
  std::atomic<std::int64_t> ramp_from{0};

  void BeginRamp(Instant now) noexcept {
    ramp_from.store(std::chrono::nanoseconds(now.time_since_epoch()).count(),
                    std::memory_order_relaxed);
  }
};

struct Backend {
  std::string name;     // stable: the hash is over it, never over the address
  double weight = 1.0;  // > 0
  std::shared_ptr<BackendState> state;
};

// Only kRendezvous has a first choice of its own for each key. The other policies report kHome
// while nothing was tried and kFallback after that.
enum class PickHow : std::uint8_t {
  kHome,      // the first choice
  kOverflow,  // the first choice is above its bounded load, or starts slowly
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
    // For how long after BeginRamp a backend gets less than its share of what is new: a tenth of it
    // at first, then as much of it as has passed of this time. 0: its whole share at once.
    Millis slow_start{0};
  };

  // REQUIRES: names are unique, every weight is > 0, every state is set. The order of `backends`
  // has no influence on what kRendezvous and kLeastConnections choose.
  BackendSet(Options options, std::vector<Backend> backends);

  // Chooses among the backends that are healthy, not draining and not in `tried`. `key_hash` is
  // the affinity key's hash; for kRandomTwoChoices and kRoundRobin it is ignored. `tried` holds
  // indices into backends(). Nothing is reserved: the caller counts `open` when it takes the
  // backend. Returns nothing when no backend is left. Thread-safe; allocates nothing.
  [[nodiscard]] std::optional<Pick> Choose(std::uint64_t key_hash,
                                           std::span<const std::size_t> tried, Instant now,
                                           Random& random) const;

  // Chooses for a client that must stay where it is, whatever the policy and the load, and however
  // lately a backend has started: the key's home by rendezvous hashing, or the next in its order
  // when the home may not be taken.
  // Thread-safe; allocates nothing.
  [[nodiscard]] std::optional<Pick> ChooseHome(std::uint64_t key_hash,
                                               std::span<const std::size_t> tried) const;

  // The key's home among all backends, healthy or not. REQUIRES: there is at least one.
  [[nodiscard]] std::size_t HomeOf(std::uint64_t key_hash) const;

  [[nodiscard]] const std::vector<Backend>& backends() const noexcept { return backends_; }

 private:
  // What a pick reads of one backend, packed so that a pick walks one array.
  struct Entry {
    std::uint64_t name_hash;
    double weight;
    double inverse_weight;
    const BackendState* state;  // kept alive by backends_
    std::size_t index;          // into backends_
  };

  [[nodiscard]] static bool IsEligible(const Entry& entry,
                                       std::span<const std::size_t> tried) noexcept;

  // What a backend gets of its share, in [0.1, 1]: less than 1 while it starts slowly. Most have
  // never started anew, and are told by one load.
  [[nodiscard]] double PartOf(const Entry& entry, Instant now) const noexcept {
    const std::int64_t from = entry.state->ramp_from.load(std::memory_order_relaxed);
    return from == 0 ? 1 : PartSince(from, now);
  }
  [[nodiscard]] double PartSince(std::int64_t ramp_from, Instant now) const noexcept;
  // Its weight for what is new, and the inverse of that.
  [[nodiscard]] double WeightOf(const Entry& entry, Instant now) const noexcept {
    const double part = PartOf(entry, now);
    return part == 1 ? entry.weight : entry.weight * part;
  }
  [[nodiscard]] double InverseWeightOf(const Entry& entry, Instant now) const noexcept {
    const double part = PartOf(entry, now);
    return part == 1 ? entry.inverse_weight : entry.inverse_weight / part;
  }

  [[nodiscard]] std::optional<Pick> ChooseRendezvous(std::uint64_t key_hash,
                                                     std::span<const std::size_t> tried,
                                                     Instant now) const;
  template <class MayTake>
  [[nodiscard]] const Entry* FirstChoice(std::uint64_t key_hash, MayTake may_take) const;
  template <class MayTake>
  [[nodiscard]] const Entry* FirstChoiceNow(std::uint64_t key_hash, Instant now,
                                            MayTake may_take) const;
  [[nodiscard]] const Entry* LeastLoaded(std::uint64_t key_hash, std::span<const std::size_t> tried,
                                         Instant now) const;
  [[nodiscard]] const Entry* BetterOfTwo(std::span<const std::size_t> tried, Instant now,
                                         Random& random) const;
  [[nodiscard]] const Entry* NextInTurn(std::span<const std::size_t> tried, Instant now,
                                        Random& random) const;
  [[nodiscard]] bool GivesUpItsTurn(const Entry& entry, std::span<const std::size_t> tried,
                                    Instant now, Random& random) const;

  void BuildSchedule();

  Options options_;
  std::vector<Backend> backends_;
  std::vector<Entry> entries_;  // by name, so that a tie goes to the lower name
  double weight_sum_ = 0;
  bool weights_are_equal_ = true;
  std::vector<std::uint32_t> schedule_;  // kRoundRobin: one period of turns, into entries_
  mutable std::atomic<std::uint64_t> turn_{0};
};

}  // namespace sluice::balance
