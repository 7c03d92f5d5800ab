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

struct SrvRecord {
  std::string target;  // a host name in lower case
  std::uint16_t port = 0;
  std::uint16_t weight = 0;
};

struct SrvAnswer {
  std::vector<SrvRecord> records;  // of the lowest priority number; never empty
  Millis ttl{0};
};

// `family`: AF_INET for the A records, AF_INET6 for the AAAA records, aliases followed.
[[nodiscard]] Result<AddressAnswer> ParseAddresses(Bytes message, int family);

[[nodiscard]] Result<SrvAnswer> ParseSrv(Bytes message);

}  // namespace sluice::discovery
