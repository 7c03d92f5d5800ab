// `sluice demo`: Sluice in front of three echo backends of its own, to be tried at once; and
// `sluice echo`: one such backend alone. Both run until SIGTERM or SIGINT and return the exit
// status of the process.
#pragma once

#include <string>

#include "proxy/base/result.h"
#include "proxy/net/address.h"

namespace sluice::cli {

struct DemoOptions {
  std::string http = "127.0.0.1:8080";
  std::string https = "127.0.0.1:8443";
  std::string admin = "127.0.0.1:9900";
  std::string window = "5s";  // of the drain
};

struct EchoOptions {
  std::string listen = "127.0.0.1:9000";
  std::string name = "echo";
};

[[nodiscard]] int RunDemo(const DemoOptions& options);
[[nodiscard]] int RunEcho(const EchoOptions& options);

// "127.0.0.1:80" or "[::1]:80".
[[nodiscard]] Result<net::Address> ParseAddress(const std::string& text);

}  // namespace sluice::cli
