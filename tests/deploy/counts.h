// How often something happened, by its name, as JSON.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace sluice::deploy {

using Counts = std::map<std::string, std::uint64_t>;

// The names are ours and need no escapes.
inline std::string JsonOf(const Counts& counts) {
  std::string text;
  for (const auto& [name, count] : counts) {
    text += (text.empty() ? "\"" : ", \"") + name + "\": " + std::to_string(count);
  }
  return "{" + text + "}";
}

}  // namespace sluice::deploy
