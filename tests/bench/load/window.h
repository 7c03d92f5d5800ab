// The time that counts: after the warm-up, for as long as asked, with the proxy's CPU time read as
// it begins and as it ends. And what all modes say about it.
#pragma once

#include <chrono>
#include <string>

#include "tests/bench/load/client.h"
#include "tests/bench/load/cpu_time.h"
#include "tests/bench/load/histogram.h"
#include "tests/bench/load/options.h"

namespace sluice::bench {

inline nanoseconds Seconds(double count) {
  return std::chrono::duration_cast<nanoseconds>(std::chrono::duration<double>(count));
}

class Window {
 public:
  // The warm-up begins at `start`.
  Window(const Options& options, Instant start);

  // To be called in each turn of the loop: opens and closes the window when it is time.
  void Update(Instant now);

  [[nodiscard]] bool counting() const { return phase_ == Phase::kCount; }
  [[nodiscard]] bool over() const { return phase_ == Phase::kOver; }
  [[nodiscard]] Instant begin() const { return begin_; }
  [[nodiscard]] Instant end() const { return end_; }
  // How long it really was open.
  [[nodiscard]] double lasted() const {
    return std::chrono::duration<double>(closed_ - opened_).count();
  }
  // "seconds" and the CPU times, as members of a JSON object.
  [[nodiscard]] std::string Json() const;

 private:
  enum class Phase { kWarmUp, kCount, kOver };

  const std::vector<pid_t>& cpu_of_;
  Phase phase_ = Phase::kWarmUp;
  Instant begin_;  // as planned
  Instant end_;
  Instant opened_{};  // as it came about
  Instant closed_{};
  CpuTime before_;
  CpuTime after_;
};

// Median and high quantiles, as members of a JSON object.
std::string LatencyJson(const Histogram& latency);

// Ends the program when a turn of the loop brought nothing for kPatienceSeconds.
class Patience {
 public:
  void Saw(int events, Instant now);

 private:
  Instant last_ = std::chrono::steady_clock::now();
};

}  // namespace sluice::bench
