// A digest that tells two contents apart; nobody here wants to forge one (FNV-1a).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::desync {

inline constexpr std::uint64_t kNoBytes = 0xCBF29CE484222325U;  // the digest of nothing

// The digest of what `before` is of, and `bytes` behind it.
inline std::uint64_t Digest(std::string_view bytes, std::uint64_t before = kNoBytes) {
  for (const char c : bytes) {
    before = (before ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  }
  return before;
}

// What a request tells of itself; `content`: the digest of it.
inline std::uint64_t DigestOf(const std::string& method, const std::string& target,
                              std::uint64_t content) {
  return Digest(method + " " + target + " " + std::to_string(content));
}

}  // namespace sluice::desync
