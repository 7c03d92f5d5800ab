// The subcommands that steer a running Sluice through its admin interface. Each asks, prints what
// came of it and returns the exit status of the process; what the server refuses is one sentence on
// standard error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace sluice::cli {

// How to reach the admin interface.
struct ControlOptions {
  std::string admin;       // "127.0.0.1:9900", "localhost:9900" or "https://HOST:PORT"; empty: see
                           // config
  std::string config;      // configuration whose [admin] names address, token and certificate;
                           // both empty: 127.0.0.1:9900
  std::string token_file;  // goes before that of the configuration
  std::string ca_file;     // PEM bundle to trust; implies TLS
  bool json = false;       // print what the server answered as it came
};

struct DrainArguments {
  std::string backend;  // "POOL/NAME", or a name that only one pool has
  std::string window;   // "30s"; empty: the server's
  std::optional<double> rate;
  bool force = false;
  bool wait = false;
  bool cancel = false;
};

// Which sessions are meant; what is empty matches any.
struct SessionArguments {
  std::string pool;
  std::string backend;  // "POOL/NAME", or a name that only one pool has
  std::string route;
  std::string affinity;
  std::string client_ip;
  std::optional<std::uint64_t> limit;

  bool operator==(const SessionArguments&) const = default;
};

struct KickArguments {
  std::optional<std::uint64_t> id;  // nothing: those that `sessions` says
  SessionArguments sessions;
  std::optional<unsigned> code;
  std::optional<std::string> reason;
};

[[nodiscard]] int Drain(const ControlOptions& options, const DrainArguments& arguments);
[[nodiscard]] int Undrain(const ControlOptions& options, const std::string& backend);
[[nodiscard]] int Reload(const ControlOptions& options);
[[nodiscard]] int Kick(const ControlOptions& options, const KickArguments& arguments);
[[nodiscard]] int ListSessions(const ControlOptions& options, const SessionArguments& arguments);
[[nodiscard]] int ShowStatus(const ControlOptions& options);
// Whether the process takes new clients, for container health checks.
[[nodiscard]] int CheckHealth(const ControlOptions& options);

}  // namespace sluice::cli
