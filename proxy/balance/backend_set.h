// The backends of one pool and the choice among them. Pure: no socket, no event; the affinity
// hash, the time and the randomness are arguments. One BackendSet is shared by all workers: what is
// written after construction are atomics alone, those of BackendState and the turn of kRoundRobin.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/balance/failure_count.h"
#include "proxy/balance/shared_token_bucket.h"
#include "proxy/base/clock.h"
#include "proxy/base/random.h"

namespace sluice::balance {

enum class Policy : std::uint8_t {
  kRendezvous,        // weighted highest-random-weight hashing of the affinity key
  kLeastConnections,  // fewest open sessions per weight
  kRandomTwoChoices,  // the less loaded of two drawn by weight
  kRoundRobin,        // in turn, by weight
};

// What to do when no backend is in service, for the verdict of health checks or of sessions.
enum class Panic : std::uint8_t {
  kRefuse,  // there is no choice
  kTryAll,  // one is chosen as if all were healthy; who drains or is full is left alone
};

// What a backend is wanted for.
enum class Want : std::uint8_t {
  kRequest,    // one plain request
  kHandshake,  // a session; it costs a token of the backend's handshake_rate
  kSettled,    // something of a client that may have more at work by the same key, all of which has
               // to meet at one backend: where keys have homes, it is moved only from one that has
               // kSettledRoom open or more, and twice what the bounded load allows
};

inline constexpr std::int64_t kSettledRoom = 64;

// What all workers know of one backend. Written with relaxed atomics by whoever learns something;
// nothing is ordered by it. Kept across a reload as long as pool and name stay.
struct BackendState {
  std::atomic<std::int64_t> open{0};  // sessions and requests that hold a leg to it now
  std::atomic<bool> healthy{true};    // the verdict of its health checks; false: gets nothing new
  std::atomic<bool> ejected{false};   // true: gets nothing new for a while, for what sessions saw
  std::atomic<bool> draining{false};  // true: gets nothing new, what it has is being closed
  // Of the drain that has made it so, in nanoseconds of Instant: when it began, and when its window
  // is over. Written before `draining`; see BeginDrain.
  std::atomic<std::int64_t> drain_from{0};
  std::atomic<std::int64_t> drain_until{0};
  // The same: when a request of a session of several requests was last answered there while it
  // drained. The next one is to be expected soon.
  std::atomic<std::int64_t> answered_at{0};
  // The same: when a drain of it was last over. What it remembered before counts for nothing any
  // more, also when it is back: most likely it is another process.
  std::atomic<std::int64_t> emptied_at{0};
  // When it began to take its share anew, in nanoseconds of Instant; 0: never. See slow_start.
  std::atomic<std::int64_t> ramp_from{0};
  SharedTokenBucket handshakes;  // what handshake_rate leaves of new sessions
  ComebackQueue comebacks;       // of those that it has refused
  FailureCount failures;         // what sessions see going wrong; too much of it in a row: ejected

  void BeginRamp(Instant now) noexcept { ramp_from.store(NanosOf(now), std::memory_order_relaxed); }

  // From now on nothing new. A worker that sees `draining` sees the window of this drain, or of a
  // later one.
  void BeginDrain(Instant now, Millis window) noexcept {
    drain_until.store(NanosOf(now + window), std::memory_order_relaxed);
    drain_from.store(NanosOf(now), std::memory_order_relaxed);
    draining.store(true, std::memory_order_release);
  }

  // The drain is over, before its window is or later.
  void EndDrain(Instant now) noexcept {
    const std::int64_t until = drain_until.load(std::memory_order_relaxed);
    drain_until.store(std::min(until, NanosOf(now)), std::memory_order_relaxed);
    emptied_at.store(NanosOf(now), std::memory_order_relaxed);
  }

  void NoteAnswered(Instant now) noexcept {
    answered_at.store(NanosOf(now), std::memory_order_relaxed);
  }

  // It drains, and so much of the window is over: [0, 1], a part of it.
  [[nodiscard]] bool IsDrainedPast(double part, Instant now) const noexcept {
    if (!draining.load(std::memory_order_acquire)) {
      return false;
    }
    const std::int64_t from = drain_from.load(std::memory_order_relaxed);
    const std::int64_t window = drain_until.load(std::memory_order_relaxed) - from;
    return NanosOf(now) - from >= static_cast<std::int64_t>(static_cast<double>(window) * part);
  }

  [[nodiscard]] bool IsHealthy() const noexcept {
    return healthy.load(std::memory_order_relaxed) && !ejected.load(std::memory_order_relaxed);
  }
  [[nodiscard]] bool IsInService() const noexcept {
    return IsHealthy() && !draining.load(std::memory_order_relaxed);
  }
};

struct Backend {
  std::string name;     // stable: the hash is over it, never over the address
  double weight = 1.0;  // > 0
  std::shared_ptr<BackendState> state;
  unsigned group = 0;                // the lowest is used first; see BackendSet
  std::int64_t max_connections = 0;  // with so many open legs it is full, for everybody; 0: never
};

// Only kRendezvous has a first choice of its own for each key. The other policies report kHome
// while nothing was tried and the first group serves, and kFallback after that.
enum class PickHow : std::uint8_t {
  kHome,      // the first choice
  kOverflow,  // the first choice is full, above its bounded load, or starts slowly
  kFallback,  // the first choice was tried already, is unhealthy or drains
  kPanic,     // nobody was in service; see Panic
};

struct Pick {
  std::size_t index = 0;  // into backends()
  PickHow how = PickHow::kHome;
};

// The 64-bit hash of an affinity key; the same in every process and on every machine.
[[nodiscard]] std::uint64_t HashKey(std::string_view key) noexcept;

// Why there was no choice.
struct Shortage {
  enum class Cause : std::uint8_t {
    kOutOfService,  // unhealthy, ejected, draining or tried, all of them
    kFull,          // one at least would have been taken but for its max_connections
    kRate,          // the same, but for handshake_rate
  };
  Cause cause = Cause::kOutOfService;
  std::size_t index = 0;  // for kRate: the one that has a token next for who comes again
};

// Groups. A backend is usable when it is healthy, not ejected, not draining, not full and not
// tried. The groups are asked from the lowest on, and those that have a usable backend serve
// together, up to and including the first group whose usable backends make up group_threshold of
// its weight. So the first group serves alone while enough of it is usable; below that the next one
// joins; and when nobody of the first is left, the next one serves alone. What a load is compared
// with, and who is chosen among, are the usable backends of these groups. A key's home is in the
// first group always: a client whose home is usable stays there when another group joins, and
// everybody is back at home when the first group has recovered.
class BackendSet {
 public:
  struct Options {
    Policy policy = Policy::kRendezvous;
    double bounded_load = 1.25;  // 0: off; else >= 1
    // For how long after BeginRamp a backend gets less than its share of what is new: a tenth of it
    // at first, then as much of it as has passed of this time. 0: its whole share at once.
    Millis slow_start{0};
    double group_threshold = 0.5;  // [0, 1]
    Panic panic = Panic::kRefuse;
    double handshake_rate = 0;          // handshakes per second for each backend; 0: any number
    std::uint64_t handshake_burst = 0;  // at once after a pause; 0: those of one second
  };

  // REQUIRES: names are unique, every weight is > 0, every state is set. The order of `backends`
  // has no influence on what kRendezvous and kLeastConnections choose.
  BackendSet(Options options, std::vector<Backend> backends);

  // Chooses among the usable backends of the groups that serve; when nobody is in service, as the
  // option panic says. `key_hash` is the affinity key's hash; for kRandomTwoChoices and kRoundRobin
  // it is ignored. `tried` holds indices into backends(). A policy without homes passes over those
  // that have no token for a handshake. Nothing is reserved: the caller counts `open` when it takes
  // the backend, and takes the token. Returns nothing when no backend is left. Thread-safe;
  // allocates nothing.
  [[nodiscard]] std::optional<Pick> Choose(std::uint64_t key_hash,
                                           std::span<const std::size_t> tried, Instant now,
                                           Random& random, Want want = Want::kRequest) const;

  // Chooses for a client that must stay where it is, whatever the policy and the load, and however
  // lately a backend has started: the key's home by rendezvous hashing, or the next in its order
  // when the home may not be taken.
  // Thread-safe; allocates nothing.
  [[nodiscard]] std::optional<Pick> ChooseHome(std::uint64_t key_hash,
                                               std::span<const std::size_t> tried) const;

  // Chooses that backend for a client that must stay there, as ChooseHome does the home of a key;
  // nothing when it may not be taken. What is asked for began there: it may be taken while it
  // drains too, until `part` of the window, [0, 1], is over. REQUIRES: index < backends().size().
  // Thread-safe; allocates nothing.
  [[nodiscard]] std::optional<Pick> ChooseThis(std::size_t index,
                                               std::span<const std::size_t> tried, double part,
                                               Instant now) const;

  // The key's home among the backends of the first group, healthy or not. REQUIRES: there is at
  // least one.
  [[nodiscard]] std::size_t HomeOf(std::uint64_t key_hash) const;

  // True for a client that comes back to the backend with this key: because it is the key's home,
  // or, for one of a later group, because the key leads there as things are.
  [[nodiscard]] bool LeadsTo(std::uint64_t key_hash, std::size_t index) const;

  // The policy has a first choice of its own for each key.
  [[nodiscard]] bool has_homes() const noexcept { return options_.policy == Policy::kRendezvous; }

  // Takes a token for a handshake with that backend, or returns false and takes nothing. Always
  // true without a handshake_rate. Thread-safe; so are the next two.
  [[nodiscard]] bool TakeHandshake(std::size_t index, Instant now) const noexcept;

  // When one whose handshake found no token at that backend is to come again, from now on; at most
  // ComebackQueue::kLongest, which says that the queue is longer than that. REQUIRES: a rate.
  [[nodiscard]] std::chrono::nanoseconds QueueComeback(std::size_t index,
                                                       Instant now) const noexcept;

  // Why Choose, or ChooseHome with Want::kRequest, has just returned nothing.
  [[nodiscard]] Shortage WhyNone(std::span<const std::size_t> tried, Instant now,
                                 Want want) const noexcept;

  [[nodiscard]] const std::vector<Backend>& backends() const noexcept { return backends_; }

 private:
  // What a pick reads of one backend, packed so that a pick walks one array.
  struct Entry {
    std::uint64_t name_hash;
    double weight;
    double inverse_weight;
    const BackendState* state;  // kept alive by backends_
    std::size_t index;          // into backends_
    std::int64_t max_open;      // the largest number without a limit
  };
  // A run of entries_.
  struct Group {
    std::size_t end = 0;  // behind its last entry; it begins at the end of the one before
    double weight = 0;
  };
  // The entries of the groups that serve.
  struct Serving {
    std::span<const Entry> entries;
    double weight = 0;
  };
  // What one pick may take.
  struct Filter {
    std::span<const std::size_t> tried;
    bool any_health = false;  // in panic
    bool may_drain = false;
    bool is_settled = false;
    bool needs_token = false;
    std::int64_t now = 0;  // with needs_token
  };

  [[nodiscard]] bool IsEligible(const Entry& entry, const Filter& filter) const noexcept;
  [[nodiscard]] Serving FindServing(const Filter& filter) const noexcept {
    return groups_.size() <= 1 ? Serving{entries_, weight_sum_} : ServingOfMany(filter);
  }
  [[nodiscard]] Serving ServingOfMany(Filter filter) const noexcept;
  [[nodiscard]] std::span<const Entry> FirstGroup() const noexcept {
    return groups_.size() <= 1 ? std::span(entries_) : std::span(entries_).first(groups_[0].end);
  }
  [[nodiscard]] bool IsPanic() const noexcept;

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

  [[nodiscard]] std::optional<Pick> ChooseBy(std::uint64_t key_hash, const Filter& filter,
                                             Instant now, Random& random) const;
  [[nodiscard]] std::optional<Pick> ChooseHomeBy(std::uint64_t key_hash,
                                                 const Filter& filter) const;
  [[nodiscard]] std::optional<Pick> ChooseRendezvous(std::uint64_t key_hash, const Filter& filter,
                                                     Instant now) const;
  [[nodiscard]] PickHow HowPast(const Entry& home, const Filter& filter) const noexcept;
  template <class MayTake>
  [[nodiscard]] const Entry* FirstChoice(std::span<const Entry> entries, std::uint64_t key_hash,
                                         MayTake may_take) const;
  template <class MayTake>
  [[nodiscard]] const Entry* FirstChoiceNow(std::span<const Entry> entries, std::uint64_t key_hash,
                                            Instant now, MayTake may_take) const;
  [[nodiscard]] const Entry* LeastLoaded(std::span<const Entry> entries, std::uint64_t key_hash,
                                         const Filter& filter, Instant now) const;
  [[nodiscard]] const Entry* BetterOfTwo(std::span<const Entry> entries, const Filter& filter,
                                         Instant now, Random& random) const;
  [[nodiscard]] const Entry* NextInTurn(std::span<const Entry> entries, const Filter& filter,
                                        Instant now, Random& random) const;
  [[nodiscard]] bool GivesUpItsTurn(const Entry& entry, std::span<const Entry> entries,
                                    const Filter& filter, Instant now, Random& random) const;

  void BuildSchedule();

  Options options_;
  std::vector<Backend> backends_;
  SharedTokenBucket::Rate handshake_rate_;  // interval 0: none
  std::vector<Entry> entries_;              // by group, then name: a tie goes to the lower name
  std::vector<Group> groups_;               // from the lowest on; empty without backends
  double weight_sum_ = 0;
  bool weights_are_equal_ = true;
  std::vector<std::uint32_t> schedule_;  // kRoundRobin: one period of turns, into entries_
  mutable std::atomic<std::uint64_t> turn_{0};
};

}  // namespace sluice::balance
