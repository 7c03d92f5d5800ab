#include "proxy/discovery/endpoint.h"

#include <algorithm>

namespace sluice::discovery {

std::size_t Tidy(std::vector<Endpoint>& endpoints) {
  std::stable_sort(endpoints.begin(), endpoints.end(),
                   [](const Endpoint& a, const Endpoint& b) { return a.name < b.name; });
  endpoints.erase(
      std::unique(endpoints.begin(), endpoints.end(),
                  [](const Endpoint& a, const Endpoint& b) { return a.name == b.name; }),
      endpoints.end());
  if (endpoints.size() <= kMostEndpoints) {
    return 0;
  }
  const std::size_t dropped = endpoints.size() - kMostEndpoints;
  endpoints.resize(kMostEndpoints);
  return dropped;
}

}  // namespace sluice::discovery
