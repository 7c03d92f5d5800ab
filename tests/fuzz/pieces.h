// Ways of cutting a fuzz input that are the same on every run, so that a corpus stays plain text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace sluice::fuzz {

// Where each piece ends, in order; the last end is bytes.size(). The cuts follow from the bytes.
[[nodiscard]] inline std::vector<std::size_t> PieceEnds(std::string_view bytes,
                                                        std::uint32_t longest) {
  std::uint32_t seed = 2166136261U;  // FNV-1a
  for (const char c : bytes) {
    seed = (seed ^ static_cast<unsigned char>(c)) * 16777619U;
  }
  std::vector<std::size_t> ends;
  std::size_t end = 0;
  while (end < bytes.size()) {
    seed = seed * 1664525U + 1013904223U;
    end += 1 + (seed >> 16U) % longest;
    ends.push_back(end < bytes.size() ? end : bytes.size());
  }
  return ends;
}

}  // namespace sluice::fuzz
