// The effective configuration as JSON, every key with its value, for GET /config. Without secrets:
// keys and tokens are files, and only their paths are here.
#pragma once

#include <string>

#include "proxy/config/config.h"

namespace sluice::server {

[[nodiscard]] std::string ConfigJson(const config::Config& config);

}  // namespace sluice::server
