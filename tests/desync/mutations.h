// The requests that are broken on purpose: each known way to make two readers see two messages.
#pragma once

#include <span>

#include "tests/desync/request.h"

namespace sluice::desync {

struct Mutation {
  const char* name;
  Fate fate;
  int status;  // what Sluice answers itself; 0: the backend answers
  bool ends;   // the connection, behind that answer
  // Begins with a POST whose content is the hidden request, by Content-Length.
  void (*apply)(Parts& parts, storm::Dice& dice);
};

std::span<const Mutation> Mutations();

}  // namespace sluice::desync
