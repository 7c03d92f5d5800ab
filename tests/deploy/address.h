// HOST:PORT on a command line; the host is numeric.
#pragma once

#include <string>

#include "tests/bench/socket.h"

namespace sluice::deploy {

// An address, or the program ends.
inline sockaddr_in AddressOf(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  if (colon == std::string::npos ||
      ::inet_pton(AF_INET, text.substr(0, colon).c_str(), &address.sin_addr) != 1) {
    bench::Die("not an address: '" + text + "'");
  }
  address.sin_port = htons(bench::PortNumber(text.substr(colon + 1)));
  return address;
}

}  // namespace sluice::deploy
