// Builds DNS messages for tests (RFC 1035 section 4), good ones and bad ones.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::discovery {

inline constexpr std::uint16_t kTypeA = 1;
inline constexpr std::uint16_t kTypeCname = 5;
inline constexpr std::uint16_t kTypeAaaa = 28;
inline constexpr std::uint16_t kTypeSrv = 33;

inline std::string Wire16(std::uint16_t value) {
  return {static_cast<char>(value >> 8U), static_cast<char>(value & 0xFFU)};
}

inline std::string Wire32(std::uint32_t value) {
  return Wire16(static_cast<std::uint16_t>(value >> 16U)) +
         Wire16(static_cast<std::uint16_t>(value & 0xFFFFU));
}

// "a.test" as labels.
inline std::string WireName(std::string_view name) {
  std::string out;
  while (!name.empty()) {
    const std::string_view label = name.substr(0, name.find('.'));
    out += static_cast<char>(label.size());
    out += label;
    name.remove_prefix(std::min(name.size(), label.size() + 1));
  }
  return out + '\0';
}

struct Message {
  std::uint16_t id = 0;
  std::string name = "a.test";
  std::uint16_t type = kTypeA;
  std::uint16_t flags = 0x8580;  // an answer, authoritative, recursion available; below: the status
  std::string records = {};
  std::uint16_t count = 0;

  Message& Add(std::string_view owner, std::uint16_t record_type, std::uint32_t ttl,
               std::string_view data) {
    records += WireName(owner) + Wire16(record_type) + Wire16(1) + Wire32(ttl) +
               Wire16(static_cast<std::uint16_t>(data.size()));
    records += data;
    ++count;
    return *this;
  }
  Message& AddA(std::string_view owner, std::uint32_t ttl, std::uint32_t address) {
    return Add(owner, kTypeA, ttl, Wire32(address));
  }
  Message& AddSrv(std::string_view owner, std::uint32_t ttl, std::uint16_t priority,
                  std::uint16_t weight, std::uint16_t port, std::string_view target) {
    return Add(owner, kTypeSrv, ttl,
               Wire16(priority) + Wire16(weight) + Wire16(port) + WireName(target));
  }

  [[nodiscard]] std::string Bytes() const {
    return Wire16(id) + Wire16(flags) + Wire16(1) + Wire16(count) + Wire16(0) + Wire16(0) +
           WireName(name) + Wire16(type) + Wire16(1) + records;
  }
};

}  // namespace sluice::discovery
