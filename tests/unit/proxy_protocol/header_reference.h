// Headers put together from their parts, and what the parser said of one as a text to compare.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "proxy/proxy_protocol/header_parser.h"

namespace sluice::proxy_protocol {

inline std::string TwoBytes(std::size_t number) {
  return {static_cast<char>(number >> 8U), static_cast<char>(number & 0xFFU)};
}

// Version 2: `command` and `family` are the bytes 13 and 14.
inline std::string V2(unsigned command, unsigned family, std::string_view rest) {
  std::string out("\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A", 12);
  out += static_cast<char>(command);
  out += static_cast<char>(family);
  out += TwoBytes(rest.size());
  out += rest;
  return out;
}

inline std::string Tlv(unsigned type, std::string_view value) {
  return static_cast<char>(type) + TwoBytes(value.size()) + std::string(value);
}

// 192.0.2.1:4660 to 198.51.100.2:443, and the same with IPv6.
inline std::string V4Addresses() {
  return std::string("\xC0\x00\x02\x01\xC6\x33\x64\x02\x12\x34\x01\xBB", 12);
}

inline std::string V6Addresses() {
  std::string source("\x20\x01\x0D\xB8", 4);
  std::string destination = source;
  source += std::string(11, '\0') + '\x01';
  destination += std::string(11, '\0') + '\x02';
  return source + destination + TwoBytes(0x1234) + TwoBytes(443);
}

// CRC-32C (RFC 9260 appendix A) by long division of polynomials over the bits, as the definition
// has it: bits in the order of transmission, the first 32 and the remainder inverted.
inline std::uint32_t Crc32cByDivision(std::string_view bytes) {
  std::string bits;
  for (const char c : bytes) {
    for (unsigned i = 0; i < 8; ++i) {
      bits += static_cast<char>(static_cast<unsigned char>(c) >> i & 1U);
    }
  }
  bits.append(32, '\0');
  for (std::size_t i = 0; i < 32; ++i) {
    bits[i] = static_cast<char>(bits[i] ^ 1);
  }
  constexpr std::uint64_t kPolynomial = 0x11EDC6F41ULL;
  for (std::size_t i = 0; i + 32 < bits.size(); ++i) {
    if (bits[i] != 0) {
      for (std::size_t j = 0; j <= 32; ++j) {
        bits[i + j] =
            static_cast<char>(bits[i + j] ^ static_cast<char>(kPolynomial >> (32 - j) & 1U));
      }
    }
  }
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < 32; ++i) {
    sum |= static_cast<std::uint32_t>(bits[bits.size() - 32 + i]) << i;
  }
  return ~sum;
}

// A header that is right but for its checksum, put right: `marker` stands in its place.
inline constexpr std::string_view kSumMarker("\0\0\0\0", 4);

inline std::string WithSum(std::string header, std::size_t at) {
  header.replace(at, 4, kSumMarker);
  const std::uint32_t sum = Crc32cByDivision(header);
  header.replace(at, 4, TwoBytes(sum >> 16U) + TwoBytes(sum & 0xFFFFU));
  return header;
}

inline std::string Describe(const Endpoint& end) {
  std::string out = end.v6 ? "6:" : "4:";
  constexpr std::string_view kHex = "0123456789abcdef";
  for (std::size_t i = 0; i < (end.v6 ? 16U : 4U); ++i) {
    out += kHex[end.ip[i] >> 4U];
    out += kHex[end.ip[i] & 15U];
  }
  return out + ":" + std::to_string(end.port);
}

// "more", "bad REASON" or "done SIZE VERSION WHAT".
inline std::string Describe(const Parsed& parsed) {
  switch (parsed.status) {
    case ParseStatus::kNeedMore:
      return "more";
    case ParseStatus::kBad:
      return "bad " + std::string(parsed.reason);
    case ParseStatus::kDone:
      break;
  }
  std::string out = "done " + std::to_string(parsed.size);
  out += parsed.header.version == Version::kV1 ? " v1 " : " v2 ";
  switch (parsed.header.subject) {
    case Subject::kClient:
      return out + Describe(parsed.header.source) + " > " + Describe(parsed.header.destination);
    case Subject::kUnknown:
      return out + "unknown";
    case Subject::kLocal:
      return out + "local";
  }
  return out;
}

}  // namespace sluice::proxy_protocol
