// When the messages of an open loop are due: at a fixed rate, whatever becomes of those before.
#pragma once

#include <cstdint>

#include "tests/bench/load/client.h"

namespace sluice::bench {

class Pacer {
 public:
  Pacer(Instant start, double per_second) : start_(start), interval_(1e9 / per_second) {}

  [[nodiscard]] Instant due() const {
    return start_ + nanoseconds(static_cast<std::int64_t>(static_cast<double>(sent_) * interval_));
  }
  // The number of the message that is due at due().
  [[nodiscard]] std::uint64_t number() const { return sent_; }
  void Next() { ++sent_; }

 private:
  Instant start_;
  double interval_;  // nanoseconds
  std::uint64_t sent_ = 0;
};

}  // namespace sluice::bench
