#include "tests/bench/load/window.h"

#include <array>

namespace sluice::bench {

Window::Window(const Options& options, Instant start)
    : cpu_of_(options.cpu_of),
      begin_(start + Seconds(options.warmup)),
      end_(begin_ + Seconds(options.seconds)) {}

void Window::Update(Instant now) {
  if (phase_ == Phase::kWarmUp && now >= begin_) {
    phase_ = Phase::kCount;
    before_ = CpuOf(cpu_of_);
    opened_ = std::chrono::steady_clock::now();
  } else if (phase_ == Phase::kCount && now >= end_) {
    phase_ = Phase::kOver;
    closed_ = now;
    after_ = CpuOf(cpu_of_);
  }
}

std::string Window::Json() const {
  std::array<char, 256> text{};
  std::snprintf(text.data(), text.size(),
                "\"seconds\": %.6f, \"cpu_seconds\": %.6f, \"user_seconds\": %.2f, "
                "\"system_seconds\": %.2f",
                lasted(), after_.total - before_.total, after_.user - before_.user,
                after_.system - before_.system);
  return text.data();
}

std::string LatencyJson(const Histogram& latency) {
  std::array<char, 128> text{};
  std::snprintf(text.data(), text.size(), "\"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f",
                latency.Quantile(0.5), latency.Quantile(0.99), latency.Quantile(0.999));
  return text.data();
}

void Patience::Saw(int events, Instant now) {
  if (events > 0) {
    last_ = now;
  } else if (now - last_ > std::chrono::seconds(kPatienceSeconds)) {
    Die("nothing came back for " + std::to_string(kPatienceSeconds) + " s");
  }
}

}  // namespace sluice::bench
