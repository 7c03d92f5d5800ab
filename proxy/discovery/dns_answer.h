// Reads DNS messages (RFC 1035 section 4, SRV: RFC 2782) into what a lookup needs. c-ares finds the
// records; whatever it is given, the outcome is a value or one sentence.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "proxy/base/bytes.h"
#include "proxy/base/clock.h"
#include "proxy/base/result.h"
#include "proxy/net/address.h"

namespace sluice::discovery {

struct AddressAnswer {
  std::vector<net::Address> addresses;  // never empty; without a port, in the order of the message
  Millis ttl{0};                        // the least of all records of the answer
};

// Records of more priorities than that are in the last group together.
inline constexpr unsigned kLastGroup = 15;

struct SrvRecord {
  std::string target;  // a host name in lower case
  std::uint16_t port = 0;
  std::uint16_t weight = 0;
  unsigned group = 0;  // rank of its priority number among those of the answer, at most kLastGroup
};

struct SrvAnswer {
  std::vector<SrvRecord> records;  // never empty
  Millis ttl{0};
};

// `family`: AF_INET for the A records, AF_INET6 for the AAAA records, aliases followed.
[[nodiscard]] Result<AddressAnswer> ParseAddresses(Bytes message, int family);

[[nodiscard]] Result<SrvAnswer> ParseSrv(Bytes message);

}  // namespace sluice::discovery
