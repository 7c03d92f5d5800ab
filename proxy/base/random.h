// Fast randomness for choices that need no secrecy: jitter, pacing, two random choices.
// Masks, cookies and request ids come from the CSPRNG instead (proxy/session/secure_random.h). One
// instance per thread.
#pragma once

#include <cstdint>
#include <random>

namespace sluice {

class Random {
 public:
  explicit Random(std::uint64_t seed) noexcept : engine_(seed) {}

  [[nodiscard]] std::uint64_t Next() noexcept { return engine_(); }

  // Uniform in [0, 1).
  [[nodiscard]] double Unit() noexcept {
    return static_cast<double>(engine_() >> 11) * 0x1.0p-53;  // 53 bits: a double's mantissa
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace sluice
