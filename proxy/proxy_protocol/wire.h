// The numbers of version 2 on the wire (section 2.2), for the parser and the writer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice::proxy_protocol {

inline constexpr std::string_view kSignature("\r\n\r\n\0\r\nQUIT\n", 12);
inline constexpr std::size_t kV2Start = 16;  // signature, version and command, family, length

inline constexpr unsigned kVersion2 = 0x2;  // the high half of byte 13
inline constexpr unsigned kLocalCommand = 0x0;
inline constexpr unsigned kProxyCommand = 0x1;

inline constexpr unsigned kUnspec = 0x0;  // the high half of byte 14
inline constexpr unsigned kInet = 0x1;
inline constexpr unsigned kInet6 = 0x2;
inline constexpr unsigned kUnix = 0x3;
inline constexpr unsigned kStream = 0x1;  // the low half
inline constexpr unsigned kDatagram = 0x2;

inline constexpr std::size_t kInetSize = 12;  // of both addresses and ports
inline constexpr std::size_t kInet6Size = 36;
inline constexpr std::size_t kUnixSize = 216;

inline constexpr std::size_t kTlvStart = 3;  // type and length
inline constexpr std::uint8_t kTypeAuthority = 0x02;
inline constexpr std::uint8_t kTypeCrc32c = 0x03;

}  // namespace sluice::proxy_protocol
