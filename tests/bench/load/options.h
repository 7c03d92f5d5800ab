// The command line of bench_load; main.cc describes it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace sluice::bench {

struct Options {
  std::string mode;
  std::uint16_t port = 0;
  std::size_t connections = 0;
  std::size_t size = 0;  // bytes of payload
  std::size_t depth = 1;
  double rate = 0;  // messages per second, all connections together
  double seconds = 5;
  double warmup = 1;
  std::string direction = "down";
  std::size_t burst = 0;  // messages per session
  bool resume = false;
  std::string ca;  // empty: plain
  std::vector<pid_t> cpu_of;
};

// Ends the program with one sentence when the command line is wrong.
Options ParseOptions(int argc, char** argv);

}  // namespace sluice::bench
