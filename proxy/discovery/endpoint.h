// One backend as DNS tells of it, and a list of them in the form in which two lists are compared.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "proxy/net/address.h"

namespace sluice::discovery {

struct Endpoint {
  std::string name;      // "10.0.0.7:9000", "[fd00::7]:9000", "ws1.chat.internal:9000"
  net::Address address;  // with its port
  double weight = 1;     // > 0
  unsigned group = 0;    // by the priority of its SRV record
};

// The most that is taken of one answer.
inline constexpr std::size_t kMostEndpoints = 1024;

// Sorts by name, keeps the first of each name and no more than kMostEndpoints, so that an answer
// in another order makes the same list. Returns how many names were left out.
std::size_t Tidy(std::vector<Endpoint>& endpoints);

}  // namespace sluice::discovery
