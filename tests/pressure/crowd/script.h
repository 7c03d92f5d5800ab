// What the peers of a crowd say and how they listen, by the kind of trouble that they make.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tests/deploy/event_loop.h"

namespace sluice::pressure {

using deploy::Nanoseconds;

struct Options {
  sockaddr_in address{};
  std::string kind;
  std::string path = "/s";
  std::size_t connections = 100;
  double ramp = 2000;                       // connections that begin in a second
  Nanoseconds every = 5 * deploy::kSecond;  // slow-head: between two bytes
  std::uint64_t read_rate = 0;              // slow-reader: bytes a second
  std::uint32_t first_uid = 1;
  std::uint64_t seed = 1;  // garbage
};

struct Script {
  std::string begin;  // sent at once
  std::string rest;   // and then, byte by byte
  Nanoseconds every = 0;
  bool ends = false;  // FIN behind the last byte
  // Bytes a second that are read of what follows the answer's head; none: all, as they come.
  std::optional<std::uint64_t> read_rate;
};

// What number `index` of a crowd does; the same for the same options.
Script MakeScript(const Options& options, std::size_t index);

// Whether there is such a kind.
bool IsKind(const std::string& kind);

}  // namespace sluice::pressure
