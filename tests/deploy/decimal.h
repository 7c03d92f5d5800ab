// A number on a command line that need not be whole.
#pragma once

#include <cstdlib>
#include <string>

#include "tests/bench/socket.h"

namespace sluice::deploy {

// Not negative, or the program ends.
inline double Decimal(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= 0)) {
    bench::Die("not a number: '" + text + "'");
  }
  return value;
}

}  // namespace sluice::deploy
