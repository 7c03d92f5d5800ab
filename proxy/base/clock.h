// Time as the project uses it: a monotonic instant and milliseconds. Code that decides by time
// takes the instant as an argument, so that a unit test can play any hour of the day.
#pragma once

#include <chrono>

namespace sluice {

using Millis = std::chrono::milliseconds;
using Instant = std::chrono::steady_clock::time_point;

[[nodiscard]] inline Instant Now() noexcept {
  return std::chrono::steady_clock::now();
}

}  // namespace sluice
