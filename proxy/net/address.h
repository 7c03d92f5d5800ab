// A numeric IPv4 or IPv6 address with a port.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "proxy/base/result.h"

namespace sluice::net {

class Address {
 public:
  Address() noexcept { storage_.v4.sin_family = AF_UNSPEC; }

  // `host` is numeric, IPv6 without brackets.
  [[nodiscard]] static Result<Address> FromNumeric(const std::string& host, std::uint16_t port);

  // `ip` is of 4 or 16 bytes, in network order.
  [[nodiscard]] static Address FromBytes(std::span<const std::uint8_t> ip,
                                         std::uint16_t port) noexcept;

  // Asks the resolver for the first address of `host`. Blocks: start-up only.
  [[nodiscard]] static Result<Address> Resolve(const std::string& host, std::uint16_t port);

  // The address of the other end, or of our own end, of a socket; unspecified if it has none.
  [[nodiscard]] static Address OfPeer(int fd) noexcept;
  [[nodiscard]] static Address OfSocket(int fd) noexcept;

  [[nodiscard]] const sockaddr* raw() const noexcept { return &storage_.any; }
  [[nodiscard]] sockaddr* raw() noexcept { return &storage_.any; }
  // Its 4 or 16 bytes, in network order; none if it is unspecified.
  [[nodiscard]] std::span<const std::uint8_t> ip_bytes() const noexcept;
  [[nodiscard]] socklen_t raw_size() const noexcept;
  static constexpr socklen_t kMaxSize = sizeof(sockaddr_in6);

  [[nodiscard]] int family() const noexcept { return storage_.any.sa_family; }
  [[nodiscard]] std::uint16_t port() const noexcept;
  void set_port(std::uint16_t port) noexcept;

  // The network that the address counts with among clients, as a number: of IPv6 its first 64 bits
  // (RFC 4291 section 2.5.4: the rest is the host's to choose); IPv4, mapped or not, is all of its
  // own, in the numbers of a network that is never assigned. 0: unspecified.
  [[nodiscard]] std::uint64_t Network() const noexcept;

  [[nodiscard]] std::string Ip() const;    // "10.0.0.7", "2001:db8::1"; an IPv4-mapped IPv6
                                           // address comes out as IPv4
  [[nodiscard]] std::string Text() const;  // "10.0.0.7:80", "[2001:db8::1]:80"

 private:
  union {
    sockaddr any;
    sockaddr_in v4;
    sockaddr_in6 v6;
  } storage_{};
};

// A block of addresses, "10.0.0.0/8" or a single address.
class Cidr {
 public:
  [[nodiscard]] static Result<Cidr> Parse(const std::string& text);
  [[nodiscard]] bool Contains(const Address& address) const noexcept;

 private:
  std::uint8_t bytes_[16]{};  // IPv4 as IPv4-mapped IPv6
  unsigned prefix_ = 0;       // in bits of those 128
};

}  // namespace sluice::net
