#include "tests/bench/load/options.h"

#include <cstdlib>

#include "tests/bench/socket.h"

namespace sluice::bench {
namespace {

struct Defaults {
  const char* mode;
  std::size_t connections;
  std::size_t size;
  double rate;
};

constexpr Defaults kModes[] = {
    {"echo", 200, 64, 0},   {"rate", 1000, 64, 10000}, {"bulk", 8, 1 << 20, 0},
    {"connect", 16, 0, 0},  {"idle", 4000, 65536, 0},  {"drain", 1000, 64, 1000},
    {"http", 100, 1024, 0}, {"events", 4000, 1, 0},
};

double Decimal(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= 0)) {
    Die("not a number: '" + text + "'");
  }
  return value;
}

Options DefaultsOf(const std::string& mode) {
  for (const Defaults& defaults : kModes) {
    if (mode == defaults.mode) {
      Options options;
      options.mode = mode;
      options.connections = defaults.connections;
      options.size = defaults.size;
      options.rate = defaults.rate;
      return options;
    }
  }
  Die("there is no mode '" + mode + "'");
}

}  // namespace

Options ParseOptions(int argc, char** argv) {
  if (argc < 2) {
    Die("usage: bench_load echo|rate|bulk|connect|idle|drain|http|events --port N [OPTION "
        "VALUE]...");
  }
  Options options = DefaultsOf(argv[1]);
  for (int i = 2; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) {
      Die(name + " lacks its value");
    }
    const std::string value = argv[i + 1];
    if (name == "--port") {
      options.port = PortNumber(value);
    } else if (name == "--connections") {
      options.connections = Number(value);
    } else if (name == "--size") {
      options.size = Number(value);
    } else if (name == "--depth") {
      options.depth = Number(value);
    } else if (name == "--rate") {
      options.rate = Decimal(value);
    } else if (name == "--seconds") {
      options.seconds = Decimal(value);
    } else if (name == "--warmup") {
      options.warmup = Decimal(value);
    } else if (name == "--direction") {
      options.direction = value;
    } else if (name == "--burst") {
      options.burst = Number(value);
    } else if (name == "--handshake") {
      if (value != "full" && value != "resumed") {
        Die("--handshake is full or resumed");
      }
      options.resume = value == "resumed";
    } else if (name == "--tls") {
      options.ca = value;
    } else if (name == "--cpu-of") {
      options.cpu_of.push_back(static_cast<pid_t>(Number(value)));
    } else {
      Die("there is no option " + name);
    }
  }
  if (options.port == 0 || options.connections == 0 || options.depth == 0 || options.seconds <= 0 ||
      (options.size == 0 && options.mode != "connect") ||
      (options.rate <= 0 && (options.mode == "rate" || options.mode == "drain"))) {
    Die("--port is required; counts, sizes, rates and durations are more than 0");
  }
  if (options.direction != "down" && options.direction != "up" && options.direction != "both") {
    Die("--direction is down, up or both");
  }
  if (options.resume && options.ca.empty()) {
    Die("--handshake resumed needs --tls");
  }
  return options;
}

}  // namespace sluice::bench
