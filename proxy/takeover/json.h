// The JSON of payloads: reading that never throws, whatever a peer sent.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

namespace sluice::takeover {

// Longer than any name in a configuration or a sentence of ours needs to be.
inline constexpr std::size_t kMostText = 1024;

// The object that `payload` is; nothing when it is none.
[[nodiscard]] inline std::optional<nlohmann::json> ParseObject(const std::string& payload) {
  auto value = nlohmann::json::parse(payload, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) {
    return std::nullopt;
  }
  return value;
}

// Bytes that are no UTF-8 are replaced: a path may have some.
[[nodiscard]] inline std::string Dump(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// A member of an object, or null.
[[nodiscard]] inline const nlohmann::json* Member(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

[[nodiscard]] inline bool IsControl(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

// Fit for a line of the log.
[[nodiscard]] inline bool IsPlainText(const std::string& text) {
  return text.size() <= kMostText && std::none_of(text.begin(), text.end(), IsControl);
}

// `value` as a text of at most kMostText bytes without control characters. A null pointer is none.
[[nodiscard]] inline std::optional<std::string> TextOf(const nlohmann::json* value) {
  const auto* text = value == nullptr ? nullptr : value->get_ptr<const std::string*>();
  if (text == nullptr || !IsPlainText(*text)) {
    return std::nullopt;
  }
  return *text;
}

// `value` as a whole number from 1 to `most`.
[[nodiscard]] inline std::optional<std::uint64_t> NumberOf(const nlohmann::json* value,
                                                           std::uint64_t most) {
  if (value == nullptr || !value->is_number_integer() || *value < 1 || *value > most) {
    return std::nullopt;
  }
  return value->get<std::uint64_t>();
}

[[nodiscard]] inline std::optional<pid_t> PidOf(const nlohmann::json* value) {
  const auto number = NumberOf(value, std::numeric_limits<pid_t>::max());
  if (!number) {
    return std::nullopt;
  }
  return static_cast<pid_t>(*number);
}

}  // namespace sluice::takeover
