// Bytes that both ends of a measurement know: what one sends, the other can compare with.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace sluice::bench {

// One large message of so many is compared byte by byte.
inline constexpr std::uint64_t kCheckEvery = 16;

// The first `size` bytes of a fixed sequence without a short period; at least that many, valid
// until the next call.
inline const std::vector<unsigned char>& Pattern(std::size_t size) {
  static std::vector<unsigned char> pattern;
  static std::uint64_t state = 1;
  while (pattern.size() < size) {
    // splitmix64: every 8 bytes differ from all others.
    state += 0x9E3779B97F4A7C15U;
    std::uint64_t word = state;
    word = (word ^ (word >> 30U)) * 0xBF58476D1CE4E5B9U;
    word = (word ^ (word >> 27U)) * 0x94D049BB133111EBU;
    word ^= word >> 31U;
    const std::size_t at = pattern.size();
    pattern.resize(at + sizeof(word));
    std::memcpy(pattern.data() + at, &word, sizeof(word));
  }
  return pattern;
}

}  // namespace sluice::bench
