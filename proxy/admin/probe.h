// The other end of the admin listener: one blocking GET, for `sluice healthcheck`.
#pragma once

#include <string>

#include "proxy/base/clock.h"
#include "proxy/base/result.h"
#include "proxy/net/address.h"

namespace sluice::admin {

// The status of `GET path`. Blocks for at most `patience` in all.
[[nodiscard]] Result<int> ProbeStatus(const net::Address& address, const std::string& path,
                                      Millis patience);

}  // namespace sluice::admin
