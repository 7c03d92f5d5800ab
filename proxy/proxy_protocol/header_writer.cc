#include "proxy/proxy_protocol/header_writer.h"

#include <arpa/inet.h>

#include <algorithm>

#include "proxy/proxy_protocol/wire.h"

namespace sluice::proxy_protocol {
namespace {

constexpr std::array<std::uint8_t, 12> kMappedPrefix{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

bool IsMapped(const Endpoint& end) noexcept {
  return end.v6 && std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), end.ip.begin());
}

Endpoint AsV4(const Endpoint& end) noexcept {
  if (!end.v6) {
    return end;
  }
  Endpoint v4{{}, false, end.port};
  std::copy(end.ip.begin() + kMappedPrefix.size(), end.ip.end(), v4.ip.begin());
  return v4;
}

Endpoint AsV6(const Endpoint& end) noexcept {
  if (end.v6) {
    return end;
  }
  Endpoint v6{{}, true, end.port};
  std::copy(kMappedPrefix.begin(), kMappedPrefix.end(), v6.ip.begin());
  std::copy(end.ip.begin(), end.ip.begin() + 4, v6.ip.begin() + kMappedPrefix.size());
  return v6;
}

std::string TextOf(const Endpoint& end) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  ::inet_ntop(end.v6 ? AF_INET6 : AF_INET, end.ip.data(), text.data(), text.size());
  return text.data();
}

void AppendNumber(std::string& out, std::size_t number) {
  out += static_cast<char>(number >> 8U & 0xFFU);
  out += static_cast<char>(number & 0xFFU);
}

void AppendIp(std::string& out, const Endpoint& end) {
  out.append(reinterpret_cast<const char*>(end.ip.data()), end.v6 ? 16 : 4);
}

// `rest`: what follows the first sixteen bytes.
std::string V2Header(unsigned command, unsigned family, unsigned protocol, std::string_view rest) {
  std::string out(kSignature);
  out += static_cast<char>(kVersion2 << 4U | command);
  out += static_cast<char>(family << 4U | protocol);
  AppendNumber(out, rest.size());
  out += rest;
  return out;
}

std::string V1Header(const Endpoint& source, const Endpoint& destination) {
  std::string out = source.v6 ? "PROXY TCP6 " : "PROXY TCP4 ";
  out += TextOf(source);
  out += ' ';
  out += TextOf(destination);
  out += ' ';
  out += std::to_string(source.port);
  out += ' ';
  out += std::to_string(destination.port);
  out += "\r\n";
  return out;
}

constexpr std::string_view kV1Unknown = "PROXY UNKNOWN\r\n";

}  // namespace

std::string ClientHeader(Version version, const Endpoint& source, const Endpoint& destination,
                         std::string_view authority) {
  const bool both_v4 =
      (!source.v6 || IsMapped(source)) && (!destination.v6 || IsMapped(destination));
  const Endpoint from = both_v4 ? AsV4(source) : AsV6(source);
  const Endpoint to = both_v4 ? AsV4(destination) : AsV6(destination);
  if (version == Version::kV1) {
    return V1Header(from, to);
  }
  std::string rest;
  AppendIp(rest, from);
  AppendIp(rest, to);
  AppendNumber(rest, from.port);
  AppendNumber(rest, to.port);
  constexpr std::size_t kMostName = 255;  // RFC 1035 section 2.3.4
  if (!authority.empty() && authority.size() <= kMostName) {
    rest += static_cast<char>(kTypeAuthority);
    AppendNumber(rest, authority.size());
    rest += authority;
  }
  return V2Header(kProxyCommand, both_v4 ? kInet : kInet6, kStream, rest);
}

std::string UnknownHeader(Version version) {
  return version == Version::kV1 ? std::string(kV1Unknown)
                                 : V2Header(kProxyCommand, kUnspec, kUnspec, {});
}

std::string LocalHeader(Version version) {
  return version == Version::kV1 ? std::string(kV1Unknown)
                                 : V2Header(kLocalCommand, kUnspec, kUnspec, {});
}

}  // namespace sluice::proxy_protocol
