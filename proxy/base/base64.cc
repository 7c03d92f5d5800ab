#include "proxy/base/base64.h"

#include <array>
#include <cstdint>

namespace sluice {
namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr bool IsDigit64(char c) noexcept {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
         c == '/';
}

}  // namespace

std::string Base64Encode(Bytes bytes) {
  std::string out((bytes.size() + 2) / 3 * 4, '=');
  char* to = out.data();
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t have = bytes.size() - i < 3 ? bytes.size() - i : 3;
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 3; ++j) {
      group = group << 8 | (j < have ? std::to_integer<std::uint32_t>(bytes[i + j]) : 0U);
    }
    to[0] = kAlphabet[group >> 18 & 63];
    to[1] = kAlphabet[group >> 12 & 63];
    if (have > 1) {
      to[2] = kAlphabet[group >> 6 & 63];
    }
    if (have > 2) {
      to[3] = kAlphabet[group & 63];
    }
    to += 4;
  }
  return out;
}

std::optional<std::size_t> Base64DecodedSize(std::string_view text) noexcept {
  if (text.size() % 4 != 0) {
    return std::nullopt;
  }
  std::size_t digits = text.size();
  while (digits > 0 && text[digits - 1] == '=') {
    --digits;
  }
  const std::size_t padding = text.size() - digits;
  if (padding > 2) {
    return std::nullopt;
  }
  for (std::size_t i = 0; i < digits; ++i) {
    if (!IsDigit64(text[i])) {
      return std::nullopt;
    }
  }
  return text.size() / 4 * 3 - padding;
}

}  // namespace sluice
