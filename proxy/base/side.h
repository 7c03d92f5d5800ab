// The two sides of a session. There are no other words for them in this project.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice {

enum class Side : std::uint8_t { kClient = 0, kBackend = 1 };

inline constexpr std::size_t kSides = 2;

[[nodiscard]] constexpr std::string_view Name(Side side) noexcept {
  return side == Side::kClient ? "client" : "backend";
}

[[nodiscard]] constexpr Side Other(Side side) noexcept {
  return side == Side::kClient ? Side::kBackend : Side::kClient;
}

[[nodiscard]] constexpr std::size_t Index(Side side) noexcept {
  return static_cast<std::size_t>(side);
}

}  // namespace sluice
