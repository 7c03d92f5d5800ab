// Views of bytes. The data path speaks std::span<const std::byte>, the HTTP code
// std::string_view; these two functions are the only bridge between them.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace sluice {

using Bytes = std::span<const std::byte>;

[[nodiscard]] inline Bytes AsBytes(std::string_view text) noexcept {
  return std::as_bytes(std::span(text.data(), text.size()));
}

[[nodiscard]] inline std::string_view AsText(Bytes bytes) noexcept {
  // std::byte and char may alias each other, so the cast is defined.
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace sluice
