// What was announced, what has come of it, and what does not fit: the memory that both ends share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/deploy/counts.h"

namespace sluice::desync {

// What may come of a request at the backend.
enum class Fate : std::uint8_t {
  kUnknown,  // nobody has sent it
  kServed,   // comes whole, once
  kSeen,     // has come
  kBroken,   // its content breaks off or breaks the rules: may begin, and is never whole
  kNever,    // nothing of it comes
};

// Connections that the backend ended where it might have gone on, and said nothing.
inline constexpr const char* kSilentEnds = "silent_ends";

// The requests of a pair. A hidden one is content, or stands behind what is refused.
enum class Role : std::uint8_t { kSubject, kMarker, kHidden };

class Ledger {
 public:
  explicit Ledger(std::uint64_t seed) : seed_(seed) {}

  static std::uint64_t IdOf(std::uint64_t pair, Role role) {
    return 1 + pair * kRoles + static_cast<std::uint64_t>(role);
  }

  void Announce(std::uint64_t id, Fate fate) {
    if (id >= fates_.size()) {
      fates_.resize(id + 4096, Fate::kUnknown);
    }
    fates_[id] = fate;
  }

  [[nodiscard]] Fate FateOf(std::uint64_t id) const {
    return id < fates_.size() ? fates_[id] : Fate::kUnknown;
  }

  // Something that must not be; `id` 0: nobody knows of which request.
  void Blame(std::uint64_t id, const std::string& what) {
    constexpr std::size_t kMostTold = 20;
    ++faults_;
    if (told_.size() < kMostTold) {
      const std::string pair = id == 0 ? "?" : std::to_string((id - 1) / kRoles);
      told_.push_back("seed " + std::to_string(seed_) + " pair " + pair + ": " + what);
    }
  }

  // How often something happened.
  void Count(const std::string& what) { ++counts_[what]; }
  void CountKind(const std::string& kind) { ++kinds_[kind]; }

  [[nodiscard]] bool HasCounted(const std::string& what) const { return counts_.contains(what); }
  [[nodiscard]] std::uint64_t faults() const { return faults_; }
  [[nodiscard]] const std::vector<std::string>& told() const { return told_; }
  [[nodiscard]] const deploy::Counts& counts() const { return counts_; }
  [[nodiscard]] const deploy::Counts& kinds() const { return kinds_; }

 private:
  static constexpr std::uint64_t kRoles = 3;

  std::uint64_t seed_;
  std::vector<Fate> fates_;  // by id
  std::uint64_t faults_ = 0;
  std::vector<std::string> told_;
  deploy::Counts counts_;
  deploy::Counts kinds_;
};

}  // namespace sluice::desync
