// Weighted rendezvous hashing (highest random weight, Thaler and Ravishankar 1998; the weighted
// score -w / ln(h) is that of Schindelhauer and Schomaker 2005) with bounded loads (Mirrokni,
// Thorup and Zadimoghaddam 2018).
#include "proxy/balance/backend_set.h"

#include <xxhash.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>

namespace sluice::balance {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The longest period of kRoundRobin: 4096 turns keep each share within 1/4096 of its weight, in
// 16 KiB.
constexpr std::size_t kMaxTurns = 4096;

// The part of its share that a backend gets when it begins to start slowly.
constexpr double kLeastPart = 0.1;

// The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every input bit flips every output
// bit with a probability near one half, so two names give unrelated numbers for one key.
[[nodiscard]] std::uint64_t Mix(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// The h of one backend for one key: the middle of one of 2^52 equal slices of (0, 1), which a
// double holds exactly, and so does its distance to 1. Never 0 or 1.
[[nodiscard]] double UnitHash(std::uint64_t name_hash, std::uint64_t key_hash) noexcept {
  const auto slice = static_cast<std::int64_t>(Mix(name_hash ^ key_hash) >> 12);
  return (static_cast<double>(slice) + 0.5) * 0x1.0p-52;  // from signed: one instruction on x86
}

[[nodiscard]] std::int64_t OpenOf(const BackendState& state) noexcept {
  return std::max<std::int64_t>(0, state.open.load(std::memory_order_relaxed));
}

}  // namespace

std::uint64_t HashKey(std::string_view key) noexcept {
  return XXH3_64bits(key.data(), key.size());
}

BackendSet::BackendSet(Options options, std::vector<Backend> backends)
    : options_(options), backends_(std::move(backends)) {
  entries_.reserve(backends_.size());
  for (std::size_t i = 0; i < backends_.size(); ++i) {
    const Backend& backend = backends_[i];
    assert(backend.weight > 0 && backend.state != nullptr);
    const std::int64_t max_open = backend.max_connections > 0
                                      ? backend.max_connections
                                      : std::numeric_limits<std::int64_t>::max();
    entries_.push_back({HashKey(backend.name), backend.weight, 1.0 / backend.weight,
                        backend.state.get(), i, max_open});
  }
  std::sort(entries_.begin(), entries_.end(), [this](const Entry& a, const Entry& b) {
    return std::tie(backends_[a.index].group, backends_[a.index].name) <
           std::tie(backends_[b.index].group, backends_[b.index].name);
  });
  for (const Entry& entry : entries_) {  // in their order, so that rounding is the same everywhere
    const std::size_t place = static_cast<std::size_t>(&entry - entries_.data());
    if (place == 0 || backends_[entry.index].group != backends_[entries_[place - 1].index].group) {
      groups_.emplace_back();
    }
    groups_.back().end = place + 1;
    groups_.back().weight += entry.weight;
    weight_sum_ += entry.weight;
    weights_are_equal_ = weights_are_equal_ && entry.weight == entries_.front().weight;
  }
  if (const double rate = options_.handshake_rate; rate > 0) {
    const auto second = static_cast<std::uint64_t>(std::ceil(rate));
    handshake_rate_ = SharedTokenBucket::Rate::Of(
        rate, options_.handshake_burst > 0 ? options_.handshake_burst : second);
  }
  if (options_.policy == Policy::kRoundRobin) {
    BuildSchedule();
  }
}

std::optional<Pick> BackendSet::Choose(std::uint64_t key_hash, std::span<const std::size_t> tried,
                                       Instant now, Random& random, Want want) const {
  Filter filter{.tried = tried, .is_settled = want == Want::kSettled};
  if (want == Want::kHandshake && handshake_rate_.interval > 0 && !has_homes()) {
    filter.needs_token = true;
    filter.now = NanosOf(now);
  }
  auto pick = ChooseBy(key_hash, filter, now, random);
  if (!pick && options_.panic == Panic::kTryAll && IsPanic()) {
    filter.any_health = true;
    pick = ChooseBy(key_hash, filter, now, random);
    if (pick) {
      pick->how = PickHow::kPanic;
    }
  }
  return pick;
}

std::optional<Pick> BackendSet::ChooseBy(std::uint64_t key_hash, const Filter& filter, Instant now,
                                         Random& random) const {
  if (options_.policy == Policy::kRendezvous) {
    return ChooseRendezvous(key_hash, filter, now);
  }
  const std::span<const Entry> serving = FindServing(filter).entries;
  const Entry* chosen = nullptr;
  switch (options_.policy) {
    case Policy::kRendezvous:
      break;
    case Policy::kLeastConnections:
      chosen = LeastLoaded(serving, key_hash, filter, now);
      break;
    case Policy::kRandomTwoChoices:
      chosen = BetterOfTwo(serving, filter, now, random);
      break;
    case Policy::kRoundRobin:
      chosen = NextInTurn(serving, filter, now, random);
      break;
  }
  if (chosen == nullptr) {
    return std::nullopt;
  }
  const auto place = static_cast<std::size_t>(chosen - entries_.data());
  const bool first = filter.tried.empty() && place < groups_.front().end;
  return Pick{chosen->index, first ? PickHow::kHome : PickHow::kFallback};
}

std::optional<Pick> BackendSet::ChooseHome(std::uint64_t key_hash,
                                           std::span<const std::size_t> tried) const {
  Filter filter{.tried = tried};
  auto pick = ChooseHomeBy(key_hash, filter);
  if (!pick && options_.panic == Panic::kTryAll && IsPanic()) {
    filter.any_health = true;
    pick = ChooseHomeBy(key_hash, filter);
    if (pick) {
      pick->how = PickHow::kPanic;
    }
  }
  return pick;
}

std::optional<Pick> BackendSet::ChooseHomeBy(std::uint64_t key_hash, const Filter& filter) const {
  const Entry* home = FirstChoice(FirstGroup(), key_hash, [](const Entry&) { return true; });
  if (home == nullptr) {
    return std::nullopt;
  }
  if (IsEligible(*home, filter)) {
    return Pick{home->index, PickHow::kHome};
  }
  const Entry* next =
      FirstChoice(FindServing(filter).entries, key_hash,
                  [this, &filter](const Entry& entry) { return IsEligible(entry, filter); });
  return next == nullptr ? std::nullopt : std::optional(Pick{next->index, HowPast(*home, filter)});
}

std::optional<Pick> BackendSet::ChooseThis(std::size_t index, std::span<const std::size_t> tried,
                                           double part, Instant now) const {
  const auto entry = std::find_if(entries_.begin(), entries_.end(),
                                  [index](const Entry& one) { return one.index == index; });
  Filter filter{.tried = tried, .may_drain = !entry->state->IsDrainedPast(part, now)};
  if (IsEligible(*entry, filter)) {
    return Pick{index, PickHow::kHome};
  }
  filter.any_health = options_.panic == Panic::kTryAll && IsPanic();
  if (filter.any_health && IsEligible(*entry, filter)) {
    return Pick{index, PickHow::kPanic};
  }
  return std::nullopt;
}

std::size_t BackendSet::HomeOf(std::uint64_t key_hash) const {
  return FirstChoice(FirstGroup(), key_hash, [](const Entry&) { return true; })->index;
}

bool BackendSet::LeadsTo(std::uint64_t key_hash, std::size_t index) const {
  if (backends_[index].group == backends_[entries_.front().index].group) {
    return HomeOf(key_hash) == index;
  }
  const auto pick = ChooseHome(key_hash, {});
  return pick && pick->index == index;
}

bool BackendSet::TakeHandshake(std::size_t index, Instant now) const noexcept {
  return handshake_rate_.interval == 0 ||
         backends_[index].state->handshakes.Take(handshake_rate_, NanosOf(now));
}

std::chrono::nanoseconds BackendSet::QueueComeback(std::size_t index, Instant now) const noexcept {
  return std::chrono::nanoseconds(
      backends_[index].state->comebacks.Enter(handshake_rate_, NanosOf(now)));
}

Shortage BackendSet::WhyNone(std::span<const std::size_t> tried, Instant now,
                             Want want) const noexcept {
  const bool any_health = options_.panic == Panic::kTryAll && IsPanic();
  const bool needs_token = want == Want::kHandshake && handshake_rate_.interval > 0 && !has_homes();
  const std::int64_t at = NanosOf(now);
  Shortage why;
  for (const Entry& entry : entries_) {
    const BackendState& state = *entry.state;
    if (state.draining.load(std::memory_order_relaxed) || !(any_health || state.IsInService()) ||
        std::find(tried.begin(), tried.end(), entry.index) != tried.end()) {
      continue;
    }
    if (OpenOf(state) >= entry.max_open) {
      why.cause = std::max(why.cause, Shortage::Cause::kFull);
    } else if (needs_token && !state.handshakes.HasToken(handshake_rate_, at)) {
      if (why.cause != Shortage::Cause::kRate ||
          state.comebacks.end() < backends_[why.index].state->comebacks.end()) {
        why.index = entry.index;
      }
      why.cause = Shortage::Cause::kRate;
    }
  }
  return why;
}

bool BackendSet::IsEligible(const Entry& entry, const Filter& filter) const noexcept {
  const BackendState& state = *entry.state;
  const auto& tried = filter.tried;
  return (filter.may_drain || !state.draining.load(std::memory_order_relaxed)) &&
         (filter.any_health || state.IsHealthy()) &&
         state.open.load(std::memory_order_relaxed) < entry.max_open &&
         (!filter.needs_token || state.handshakes.HasToken(handshake_rate_, filter.now)) &&
         (tried.empty() || std::find(tried.begin(), tried.end(), entry.index) == tried.end());
}

BackendSet::Serving BackendSet::ServingOfMany(Filter filter) const noexcept {
  filter.needs_token = false;  // a storm is not what further groups are for
  Serving serving;
  std::size_t first = 0;  // of those that serve; none so far while they have no weight
  std::size_t begin = 0;
  for (const Group& group : groups_) {
    double usable = 0;
    for (std::size_t i = begin; i < group.end; ++i) {
      usable += IsEligible(entries_[i], filter) ? entries_[i].weight : 0;
    }
    if (usable > 0 && serving.weight == 0) {
      first = begin;
    }
    if (usable > 0 || serving.weight > 0) {
      serving.weight += group.weight;
      serving.entries = std::span(entries_).subspan(first, group.end - first);
    }
    // A hair less than the threshold is the threshold, added up in another order.
    if (usable > 0 && usable >= group.weight * (options_.group_threshold - 1e-9)) {
      break;
    }
    begin = group.end;
  }
  return serving;
}

// Full backends are in service: a pool that has no room is no reason to ask the sick ones.
bool BackendSet::IsPanic() const noexcept {
  return std::none_of(entries_.begin(), entries_.end(),
                      [](const Entry& entry) { return entry.state->IsInService(); });
}

// How one is chosen that is not the home.
PickHow BackendSet::HowPast(const Entry& home, const Filter& filter) const noexcept {
  const bool tried =
      std::find(filter.tried.begin(), filter.tried.end(), home.index) != filter.tried.end();
  return home.state->IsInService() && !tried ? PickHow::kOverflow : PickHow::kFallback;
}

double BackendSet::PartSince(std::int64_t ramp_from, Instant now) const noexcept {
  const auto passed = now.time_since_epoch() - std::chrono::nanoseconds(ramp_from);
  if (passed >= options_.slow_start || options_.slow_start.count() == 0) {
    return 1;
  }
  return std::max(kLeastPart, std::chrono::duration<double>(passed) /
                                  std::chrono::duration<double>(options_.slow_start));
}

std::optional<Pick> BackendSet::ChooseRendezvous(std::uint64_t key_hash, const Filter& filter,
                                                 Instant now) const {
  const auto is_eligible = [this, &filter](const Entry& entry) {
    return IsEligible(entry, filter);
  };
  const Entry* home = FirstChoice(FirstGroup(), key_hash, [](const Entry&) { return true; });
  if (home == nullptr) {
    return std::nullopt;
  }
  // Nobody is before a home that gets its whole share.
  const bool home_is_first = is_eligible(*home) && PartOf(*home, now) == 1;
  const Serving serving = FindServing(filter);
  const Entry* chosen = nullptr;
  if (options_.bounded_load > 0) {
    double weights = serving.weight;
    std::int64_t open = 0;
    for (const Entry& entry : serving.entries) {
      if (is_eligible(entry)) {
        open += OpenOf(*entry.state);
        if (const double part = PartOf(entry, now); part != 1) {
          weights -= entry.weight * (1 - part);
        }
      } else {
        weights -= entry.weight;
      }
    }
    // open + 1 <= ceil(load * weight / weights), without a division: for a whole number `open`
    // that is open < load * weight / weights.
    const double factor = filter.is_settled ? 2 * options_.bounded_load : options_.bounded_load;
    const double load = factor * static_cast<double>(open + 1);
    const std::int64_t spare = filter.is_settled ? kSettledRoom : 0;
    const auto has_room = [this, weights, load, spare, now](const Entry& entry) {
      const std::int64_t here = OpenOf(*entry.state);
      return here < spare || static_cast<double>(here) * weights < load * WeightOf(entry, now);
    };
    chosen = home_is_first && has_room(*home)
                 ? home
                 : FirstChoiceNow(serving.entries, key_hash, now, [&](const Entry& entry) {
                     return is_eligible(entry) && has_room(entry);
                   });
  }
  // Without a bound; and when nobody has room, which with c >= 1 takes other threads that fill
  // the pool in between.
  if (chosen == nullptr) {
    chosen = home_is_first ? home : FirstChoiceNow(serving.entries, key_hash, now, is_eligible);
  }
  if (chosen == nullptr) {
    return std::nullopt;
  }
  return Pick{chosen->index, chosen == home ? PickHow::kHome : HowPast(*home, filter)};
}

// The backend with the highest score among those that `may_take` admits, or null.
template <class MayTake>
const BackendSet::Entry* BackendSet::FirstChoice(std::span<const Entry> entries,
                                                 std::uint64_t key_hash, MayTake may_take) const {
  const Entry* best = nullptr;
  double best_cost = kInfinity;
  for (const Entry& entry : entries) {
    const double h = UnitHash(entry.name_hash, key_hash);
    // The least -ln(h) / w is the greatest -w / ln(h). As -ln(h) >= 1 - h, most candidates are
    // seen to lose without the logarithm, which is what a pick would mostly be spent on.
    // Where all weights are equal the greatest h wins, and no logarithm is needed at all.
    double cost = (1.0 - h) * entry.inverse_weight;
    if (cost >= best_cost || !may_take(entry)) {
      continue;
    }
    if (!weights_are_equal_) {
      cost = -std::log(h) * entry.inverse_weight;
    }
    if (cost < best_cost) {
      best = &entry;
      best_cost = cost;
    }
  }
  return best;
}

// The same by the weights that hold now. They can only be less than the whole ones, so the first by
// those that has its whole weight is the first by these too; it is another only for a key whose
// first starts slowly.
template <class MayTake>
const BackendSet::Entry* BackendSet::FirstChoiceNow(std::span<const Entry> entries,
                                                    std::uint64_t key_hash, Instant now,
                                                    MayTake may_take) const {
  const Entry* best = FirstChoice(entries, key_hash, may_take);
  if (best == nullptr || PartOf(*best, now) == 1) {
    return best;
  }
  double best_cost = kInfinity;
  for (const Entry& entry : entries) {
    const double h = UnitHash(entry.name_hash, key_hash);
    if ((1.0 - h) * entry.inverse_weight >= best_cost || !may_take(entry)) {
      continue;
    }
    const double cost = -std::log(h) * InverseWeightOf(entry, now);
    if (cost < best_cost) {
      best = &entry;
      best_cost = cost;
    }
  }
  return best;
}

const BackendSet::Entry* BackendSet::LeastLoaded(std::span<const Entry> entries,
                                                 std::uint64_t key_hash, const Filter& filter,
                                                 Instant now) const {
  // Ties are common (an idle pool is one) and go by the key's rendezvous order: spread by weight,
  // and the same client lands on the same backend while nothing else speaks against it.
  const auto cost = [this, key_hash, now](const Entry& entry) {
    return -std::log(UnitHash(entry.name_hash, key_hash)) * InverseWeightOf(entry, now);
  };
  const Entry* best = nullptr;
  double best_load = 0;
  for (const Entry& entry : entries) {
    if (!IsEligible(entry, filter)) {
      continue;
    }
    const double load = static_cast<double>(OpenOf(*entry.state)) * InverseWeightOf(entry, now);
    if (best == nullptr || load < best_load || (load == best_load && cost(entry) < cost(*best))) {
      best = &entry;
      best_load = load;
    }
  }
  return best;
}

const BackendSet::Entry* BackendSet::BetterOfTwo(std::span<const Entry> entries,
                                                 const Filter& filter, Instant now,
                                                 Random& random) const {
  double weights = 0;
  for (const Entry& entry : entries) {
    if (IsEligible(entry, filter)) {
      weights += WeightOf(entry, now);
    }
  }
  // One draw by weight, never `except`. The last candidate is taken when rounding, or a backend
  // that went away since the sum, carries the draw past the end.
  const auto draw = [&](double sum, const Entry* except) {
    const Entry* last = nullptr;
    double rest = random.Unit() * sum;
    for (const Entry& entry : entries) {
      if (&entry == except || !IsEligible(entry, filter)) {
        continue;
      }
      last = &entry;
      rest -= WeightOf(entry, now);
      if (rest < 0) {
        break;
      }
    }
    return last;
  };
  const Entry* first = draw(weights, nullptr);
  if (first == nullptr) {
    return nullptr;
  }
  const Entry* second = draw(weights - WeightOf(*first, now), first);
  if (second == nullptr) {
    return first;
  }
  const auto load = [this, now](const Entry& entry) {
    return static_cast<double>(OpenOf(*entry.state)) * InverseWeightOf(entry, now);
  };
  return load(*second) < load(*first) ? second : first;
}

const BackendSet::Entry* BackendSet::NextInTurn(std::span<const Entry> entries,
                                                const Filter& filter, Instant now,
                                                Random& random) const {
  // A turn that falls on a backend out of service, or of a group that does not serve, is thrown
  // away and the next one drawn: were it handed to the neighbour, that one would carry the whole
  // share of the missing backend.
  const auto serves = [&](const Entry& entry) {
    return &entry >= entries.data() && &entry < entries.data() + entries.size();
  };
  for (std::size_t i = 0; i < schedule_.size(); ++i) {
    const std::uint64_t turn = turn_.fetch_add(1, std::memory_order_relaxed);
    const Entry& entry = entries_[schedule_[turn % schedule_.size()]];
    if (serves(entry) && IsEligible(entry, filter) &&
        !GivesUpItsTurn(entry, entries, filter, now, random)) {
      return &entry;
    }
  }
  // Every backend has a turn in a period, so none is left, unless other threads drew the turns
  // of the only one that is.
  for (const Entry& entry : entries) {
    if (IsEligible(entry, filter)) {
      return &entry;
    }
  }
  return nullptr;
}

// A turn of a backend that starts slowly goes to the next one, but for its part of them. The parts
// are those of the strongest: where all have just started, each has its turns.
bool BackendSet::GivesUpItsTurn(const Entry& entry, std::span<const Entry> entries,
                                const Filter& filter, Instant now, Random& random) const {
  const double part = PartOf(entry, now);
  if (part == 1) {
    return false;
  }
  double most = part;
  for (const Entry& other : entries) {
    if (IsEligible(other, filter)) {
      most = std::max(most, PartOf(other, now));
    }
  }
  return random.Unit() * most >= part;
}

// Lays out one period so that the turns of one backend lie as far apart as its weight allows:
// each turn goes to the backend that is furthest behind its share.
void BackendSet::BuildSchedule() {
  if (entries_.empty()) {
    return;
  }
  const std::size_t max_turns = std::max(kMaxTurns, 4 * entries_.size());
  double sum = 0;
  for (const Entry& entry : entries_) {
    sum += entry.weight;
  }
  // The shortest period that gives everyone a whole number of turns; weights for which there is
  // none are rounded to the longest.
  const auto fits = [&](std::size_t turns) {
    return std::all_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
      const double share = entry.weight / sum * static_cast<double>(turns);
      const double whole = std::round(share);
      return whole >= 1 && std::abs(share - whole) < 1e-9 * static_cast<double>(turns);
    });
  };
  std::size_t turns = entries_.size();
  while (turns < max_turns && !fits(turns)) {
    ++turns;
  }

  // Rounding must not take the only turn from a very small weight.
  const double least = fits(turns) ? 0 : 2 * sum / static_cast<double>(turns);
  std::vector<double> rate;
  double rates = 0;
  for (const Entry& entry : entries_) {
    rate.push_back(std::max(entry.weight, least));
    rates += rate.back();
  }
  std::vector<double> behind(entries_.size(), 0.0);
  schedule_.reserve(turns);
  for (std::size_t turn = 0; turn < turns; ++turn) {
    std::size_t next = 0;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      behind[i] += rate[i];
      if (behind[i] > behind[next] + 1e-9 * rates) {  // equal but for rounding: the lower name
        next = i;
      }
    }
    behind[next] -= rates;
    schedule_.push_back(static_cast<std::uint32_t>(next));
  }
}

}  // namespace sluice::balance
