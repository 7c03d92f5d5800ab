// The PROXY protocol of HAProxy (proxy-protocol.txt), versions 1 and 2: a header in front of all
// other bytes of a connection, by which a proxy tells whose connection it passes on. What both the
// parser and the writer need of it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace sluice::proxy_protocol {

enum class Version : std::uint8_t { kV1, kV2 };

// One end of a TCP connection.
struct Endpoint {
  std::array<std::uint8_t, 16> ip{};  // network order; of IPv4 the first four
  bool v6 = false;
  std::uint16_t port = 0;

  bool operator==(const Endpoint&) const = default;
};

// What a header says of the connection that it begins.
enum class Subject : std::uint8_t {
  kClient,   // it is passed on for a client, whose two ends are given
  kUnknown,  // it is passed on for somebody whose address cannot be told
  kLocal,    // the proxy speaks for itself, as to see whether somebody is there
};

struct Header {
  Version version = Version::kV1;
  Subject subject = Subject::kUnknown;
  Endpoint source;       // for kClient: the client
  Endpoint destination;  // for kClient: what it connected to
};

// Section 2.1: the longest header of version 1, with its CRLF.
inline constexpr std::size_t kMostV1 = 107;

// A header of version 2 may say that it is 64 KiB long. Section 2.2 lets nobody rely on more than
// 536 bytes, the smallest segment that every host takes.
inline constexpr std::size_t kMostHeader = 536;

}  // namespace sluice::proxy_protocol
