// Durations in buckets whose width is at most 1/64 of their value: quantiles of millions of them in
// constant memory.
#pragma once

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdint>
#include <vector>

namespace sluice::bench {

class Histogram {
 public:
  // Negative durations count as 0.
  void Add(std::chrono::nanoseconds duration) {
    const auto value = static_cast<std::uint64_t>(std::max<std::int64_t>(duration.count(), 0));
    ++counts_[Slot(value)];
    ++total_;
  }

  // Upper border, in microseconds, of the bucket that holds the share `q` of all; 0 when empty.
  [[nodiscard]] double Quantile(double q) const {
    const auto wanted = static_cast<std::uint64_t>(q * static_cast<double>(total_));
    std::uint64_t seen = 0;
    for (std::size_t slot = 0; slot < counts_.size(); ++slot) {
      seen += counts_[slot];
      if (seen > std::min(wanted, total_ - 1)) {
        return static_cast<double>(Border(slot)) / 1000.0;
      }
    }
    return 0;
  }

  [[nodiscard]] std::uint64_t total() const { return total_; }

 private:
  static constexpr unsigned kBits = 6;
  static constexpr std::uint64_t kParts = 1U << kBits;

  static std::size_t Slot(std::uint64_t value) {
    if (value < kParts) {
      return value;
    }
    const unsigned shift = static_cast<unsigned>(std::bit_width(value)) - kBits - 1;
    return (shift + 1) * kParts + ((value >> shift) - kParts);
  }
  static std::uint64_t Border(std::size_t slot) {
    if (slot < kParts) {
      return slot;
    }
    const std::size_t shift = slot / kParts - 1;
    return (kParts + slot % kParts + 1) << shift;
  }

  std::vector<std::uint64_t> counts_ = std::vector<std::uint64_t>(64 * kParts);
  std::uint64_t total_ = 0;
};

}  // namespace sluice::bench
