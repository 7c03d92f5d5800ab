#include "proxy/net/address.h"

#include <arpa/inet.h>
#include <netdb.h>

#include <array>
#include <charconv>
#include <cstring>

namespace sluice::net {
namespace {

constexpr std::array<std::uint8_t, 12> kMappedPrefix{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

// All 16 bytes of an address as IPv6; IPv4 becomes IPv4-mapped.
std::array<std::uint8_t, 16> SixteenBytes(const sockaddr* address) noexcept {
  std::array<std::uint8_t, 16> out{};
  if (address->sa_family == AF_INET) {
    std::memcpy(out.data(), kMappedPrefix.data(), kMappedPrefix.size());
    std::memcpy(out.data() + 12, &reinterpret_cast<const sockaddr_in*>(address)->sin_addr, 4);
  } else if (address->sa_family == AF_INET6) {
    std::memcpy(out.data(), &reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr, 16);
  }
  return out;
}

// inet_ntop(3) goes through printf, and every connection asks.
std::string Dotted(std::span<const std::uint8_t, 4> bytes) {
  std::array<char, INET_ADDRSTRLEN> text;
  char* at = text.data();
  for (const std::uint8_t byte : bytes) {
    at = std::to_chars(at, text.data() + text.size(), byte).ptr;
    *at++ = '.';
  }
  return {text.data(), at - 1};
}

}  // namespace

Result<Address> Address::FromNumeric(const std::string& host, std::uint16_t port) {
  Address address;
  if (::inet_pton(AF_INET, host.c_str(), &address.storage_.v4.sin_addr) == 1) {
    address.storage_.v4.sin_family = AF_INET;
  } else if (::inet_pton(AF_INET6, host.c_str(), &address.storage_.v6.sin6_addr) == 1) {
    address.storage_.v6.sin6_family = AF_INET6;
  } else {
    return Err("\"" + host + "\" is not a numeric IPv4 or IPv6 address");
  }
  address.set_port(port);
  return address;
}

Address Address::FromBytes(std::span<const std::uint8_t> ip, std::uint16_t port) noexcept {
  Address address;
  if (ip.size() == sizeof(in_addr)) {
    address.storage_.v4.sin_family = AF_INET;
    std::memcpy(&address.storage_.v4.sin_addr, ip.data(), ip.size());
  } else {
    address.storage_.v6.sin6_family = AF_INET6;
    std::memcpy(&address.storage_.v6.sin6_addr, ip.data(), sizeof(in6_addr));
  }
  address.set_port(port);
  return address;
}

Result<Address> Address::Resolve(const std::string& host, std::uint16_t port) {
  if (auto numeric = FromNumeric(host, port)) {
    return numeric;
  }
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
    return Err("cannot resolve \"" + host + "\": " + ::gai_strerror(error));
  }
  Address address;
  std::memcpy(&address.storage_, found->ai_addr,
              found->ai_addrlen < kMaxSize ? found->ai_addrlen : kMaxSize);
  ::freeaddrinfo(found);
  address.set_port(port);
  return address;
}

Address Address::OfPeer(int fd) noexcept {
  Address address;
  socklen_t size = kMaxSize;
  if (::getpeername(fd, address.raw(), &size) != 0) {
    return {};
  }
  return address;
}

Address Address::OfSocket(int fd) noexcept {
  Address address;
  socklen_t size = kMaxSize;
  if (::getsockname(fd, address.raw(), &size) != 0) {
    return {};
  }
  return address;
}

socklen_t Address::raw_size() const noexcept {
  return family() == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
}

std::span<const std::uint8_t> Address::ip_bytes() const noexcept {
  switch (family()) {
    case AF_INET:
      return {reinterpret_cast<const std::uint8_t*>(&storage_.v4.sin_addr), sizeof(in_addr)};
    case AF_INET6:
      return {storage_.v6.sin6_addr.s6_addr, sizeof(in6_addr)};
    default:
      return {};
  }
}

std::uint16_t Address::port() const noexcept {
  return ntohs(family() == AF_INET6 ? storage_.v6.sin6_port : storage_.v4.sin_port);
}

void Address::set_port(std::uint16_t port) noexcept {
  if (family() == AF_INET6) {
    storage_.v6.sin6_port = htons(port);
  } else {
    storage_.v4.sin_port = htons(port);
  }
}

std::uint64_t Address::Network() const noexcept {
  if (family() == AF_UNSPEC) {
    return 0;
  }
  const auto bytes = SixteenBytes(raw());
  // ::ffff:a.b.c.d says in its second half what an IPv6 address says in its first.
  const bool is_v4 = std::memcmp(bytes.data(), kMappedPrefix.data(), kMappedPrefix.size()) == 0;
  std::uint64_t network = 0;
  for (std::size_t i = 0; i < sizeof(network); ++i) {
    network = network << 8U | bytes[is_v4 ? i + sizeof(network) : i];
  }
  return network;
}

std::string Address::Ip() const {
  if (family() == AF_UNSPEC) {
    return {};
  }
  const auto bytes = SixteenBytes(raw());
  if (std::memcmp(bytes.data(), kMappedPrefix.data(), kMappedPrefix.size()) == 0) {
    return Dotted(std::span(bytes).last<4>());
  }
  std::array<char, INET6_ADDRSTRLEN> text{};
  ::inet_ntop(AF_INET6, &storage_.v6.sin6_addr, text.data(), text.size());
  return text.data();
}

std::string Address::Text() const {
  const std::string ip = Ip();
  const std::string port_text = std::to_string(port());
  return ip.find(':') == std::string::npos ? ip + ":" + port_text : "[" + ip + "]:" + port_text;
}

Result<Cidr> Cidr::Parse(const std::string& text) {
  const std::size_t slash = text.find('/');
  auto address = Address::FromNumeric(text.substr(0, slash), 0);
  if (!address) {
    return tl::unexpected(address.error());
  }
  const bool v4 = address->family() == AF_INET;
  unsigned prefix = v4 ? 32 : 128;
  if (slash != std::string::npos) {
    unsigned given = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + slash + 1, end, given);
    if (error != std::errc() || stop != end || given > prefix) {
      return Err("\"" + text + "\" has no valid prefix length");
    }
    prefix = given;
  }
  Cidr cidr;
  const auto bytes = SixteenBytes(address->raw());
  std::memcpy(cidr.bytes_, bytes.data(), bytes.size());
  cidr.prefix_ = v4 ? prefix + 96 : prefix;
  return cidr;
}

bool Cidr::Contains(const Address& address) const noexcept {
  const auto bytes = SixteenBytes(address.raw());
  const unsigned whole = prefix_ / 8;
  if (std::memcmp(bytes.data(), bytes_, whole) != 0) {
    return false;
  }
  const unsigned rest = prefix_ % 8;
  if (rest == 0) {
    return true;
  }
  const auto mask = static_cast<std::uint8_t>(0xFF00U >> rest);
  return (bytes[whole] & mask) == (bytes_[whole] & mask);
}

}  // namespace sluice::net
