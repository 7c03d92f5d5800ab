// The little of RFC 6455 that the benchmark's tools speak, written apart from proxy/ws.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include <openssl/evp.h>
#include <openssl/sha.h>

namespace sluice::bench {

// Sec-WebSocket-Accept for a Sec-WebSocket-Key (section 4.2.2).
inline std::string AcceptKey(std::string_view key) {
  std::string text(key);
  text += "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  std::array<unsigned char, SHA_DIGEST_LENGTH> digest{};
  SHA1(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  std::array<unsigned char, 29> out{};
  EVP_EncodeBlock(out.data(), digest.data(), static_cast<int>(digest.size()));
  return reinterpret_cast<const char*>(out.data());
}

// The value of the field `name` (lower case) in a whole head, or empty.
inline std::string_view FieldValue(std::string_view head, std::string_view name) {
  std::size_t at = head.find("\r\n");
  while (at != std::string_view::npos && at + 2 < head.size()) {
    at += 2;
    const std::size_t end = head.find("\r\n", at);
    const std::string_view line = head.substr(at, end - at);
    const std::size_t colon = line.find(':');
    if (colon == name.size()) {
      bool same = true;
      for (std::size_t i = 0; i < colon; ++i) {
        const char c = line[i];
        same = same && (c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c) == name[i];
      }
      if (same) {
        std::string_view value = line.substr(colon + 1);
        while (!value.empty() && value.front() == ' ') {
          value.remove_prefix(1);
        }
        while (!value.empty() && value.back() == ' ') {
          value.remove_suffix(1);
        }
        return value;
      }
    }
    at = end;
  }
  return {};
}

using MaskKey = std::array<unsigned char, 4>;

// XORs `count` bytes with the mask (section 5.3), the first with byte `phase` % 4 of it; `to` may
// be `from` or lie before it.
inline void Mask(unsigned char* to, const unsigned char* from, std::size_t count,
                 const MaskKey& key, std::size_t phase) {
  std::array<unsigned char, 8> turned{};
  for (std::size_t i = 0; i < turned.size(); ++i) {
    turned[i] = key[(phase + i) % 4];
  }
  std::uint64_t wide = 0;
  std::memcpy(&wide, turned.data(), sizeof(wide));
  std::size_t i = 0;
  for (; i + sizeof(wide) <= count; i += sizeof(wide)) {
    std::uint64_t word = 0;
    std::memcpy(&word, from + i, sizeof(word));
    word ^= wide;
    std::memcpy(to + i, &word, sizeof(word));
  }
  for (; i < count; ++i) {
    to[i] = static_cast<unsigned char>(from[i] ^ turned[i % 4]);
  }
}

inline constexpr std::size_t kMaxHeader = 14;

struct FrameHeader {
  std::size_t size = 0;  // 0: not complete yet
  unsigned char first = 0;
  bool masked = false;
  std::uint64_t payload = 0;
  MaskKey key{};
};

inline bool IsControl(const FrameHeader& header) {
  return (header.first & 0x08U) != 0;
}

// Reads a header from the start of `have` bytes.
inline FrameHeader ReadHeader(const unsigned char* bytes, std::size_t have) {
  FrameHeader header;
  if (have < 2) {
    return header;
  }
  const unsigned length = bytes[1] & 0x7FU;
  const std::size_t extended = length == 126 ? 2 : length == 127 ? 8 : 0;
  const bool masked = (bytes[1] & 0x80U) != 0;
  const std::size_t size = 2 + extended + (masked ? 4 : 0);
  if (have < size) {
    return header;
  }
  header.size = size;
  header.first = bytes[0];
  header.masked = masked;
  header.payload = length;
  if (extended > 0) {
    header.payload = 0;
    for (std::size_t i = 0; i < extended; ++i) {
      header.payload = header.payload << 8U | bytes[2 + i];
    }
  }
  if (masked) {
    std::memcpy(header.key.data(), bytes + size - 4, 4);
  }
  return header;
}

// Writes a header; returns its size. `key` null: unmasked.
inline std::size_t WriteHeader(unsigned char* to, unsigned char first, std::uint64_t payload,
                               const MaskKey* key) {
  std::size_t at = 0;
  to[at++] = first;
  const unsigned mask = key == nullptr ? 0U : 0x80U;
  if (payload <= 125) {
    to[at++] = static_cast<unsigned char>(mask | payload);
  } else {
    const std::size_t extended = payload <= 0xFFFF ? 2 : 8;
    to[at++] = static_cast<unsigned char>(mask | (extended == 2 ? 126U : 127U));
    for (std::size_t i = extended; i-- > 0;) {
      to[at++] = static_cast<unsigned char>(payload >> (8U * i));
    }
  }
  if (key != nullptr) {
    std::memcpy(to + at, key->data(), key->size());
    at += key->size();
  }
  return at;
}

}  // namespace sluice::bench
