// Character classes of HTTP/1.1 heads, as one table: one load and one test per byte.
// Shared by the head parsers and the chunked decoder; private to proxy/http.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice::http {

enum CharClass : std::uint8_t {
  kTokenChar = 1,   // RFC 9110 section 5.6.2: tchar
  kTargetChar = 2,  // 0x21 to 0x7E: what a request target may be made of
  kValueChar = 4,   // RFC 9110 section 5.5: field-vchar, obs-text, SP and HTAB
  kHostChar = 8,    // letters, digits and "-._": what DNS names and IPv4 addresses are made of
  kHexChar = 16,
  kDigitChar = 32,
};

inline constexpr std::array<std::uint8_t, 256> kCharClasses = [] {
  std::array<std::uint8_t, 256> table{};
  for (unsigned c = 0; c < 256; ++c) {
    const bool digit = c >= '0' && c <= '9';
    const bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    const auto is_one_of = [c](std::string_view marks) {
      return marks.find(static_cast<char>(c)) != std::string_view::npos;
    };
    unsigned classes = 0;
    const auto put_if = [&classes](bool member, CharClass to) {
      if (member) {
        classes |= to;
      }
    };
    put_if(digit || letter || is_one_of("!#$%&'*+-.^_`|~"), kTokenChar);
    put_if(c >= 0x21 && c <= 0x7E, kTargetChar);
    put_if(c == '\t' || (c >= 0x20 && c != 0x7F), kValueChar);
    put_if(digit || letter || is_one_of("-._"), kHostChar);
    put_if(digit || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f'), kHexChar);
    put_if(digit, kDigitChar);
    table[c] = static_cast<std::uint8_t>(classes);
  }
  return table;
}();

[[nodiscard]] inline bool IsA(CharClass wanted, char c) noexcept {
  return (kCharClasses[static_cast<unsigned char>(c)] & wanted) != 0;
}

// REQUIRES: IsA(kHexChar, c).
[[nodiscard]] inline unsigned HexDigit(char c) noexcept {
  const auto u = static_cast<unsigned char>(c);
  return u <= '9' ? u - '0' : (u | 0x20U) - 'a' + 10U;
}

}  // namespace sluice::http
