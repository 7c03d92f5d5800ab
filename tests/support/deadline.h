// Every wait in a test has an end. A Deadline is that end; running past it is a failure with words.
#pragma once

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>

namespace sluice::test {

using Millis = std::chrono::milliseconds;

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr Millis kPatience{30'000};
#else
// Long enough for a loaded machine of two cores: only a failing test waits it out.
inline constexpr Millis kPatience{15'000};
#endif

// A deadline of Sluice may come so much early: it is counted from the beginning of the turn of the
// loop that has set it.
inline constexpr Millis kGrain{20};

// What helpers throw when the peer does not do what the test expects of it. GoogleTest turns it
// into a failure of the running test, so scenarios read from top to bottom without checks.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Deadline {
 public:
  explicit Deadline(Millis patience = kPatience) : at_(Clock::now() + patience) {}

  [[nodiscard]] bool passed() const { return Clock::now() >= at_; }

  // For poll(2): rounded up, never below 0.
  [[nodiscard]] int poll_ms() const {
    const auto left = std::chrono::ceil<Millis>(at_ - Clock::now()).count();
    return static_cast<int>(std::clamp<decltype(left)>(left, 0, 1'000'000));
  }

  [[nodiscard]] std::chrono::steady_clock::time_point at() const { return at_; }

 private:
  using Clock = std::chrono::steady_clock;

  Clock::time_point at_;
};

}  // namespace sluice::test
