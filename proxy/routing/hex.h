// Hexadecimal digits, as percent-encoding and JSON have them. Private to proxy/routing.
#pragma once

namespace sluice::routing {

// The value of a hexadecimal digit, or -1.
[[nodiscard]] inline int HexValue(char c) noexcept {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if (c >= 'A' && c <= 'F') {
    return c - 'A' + 10;
  }
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

}  // namespace sluice::routing
