// The PROXY protocol as sessions use it: addresses to and from a header, and what a connection to a
// backend begins with.
#pragma once

#include <string>

#include "proxy/net/address.h"
#include "proxy/proxy_protocol/header.h"
#include "proxy/session/core.h"

namespace sluice::session {

[[nodiscard]] net::Address AddressOf(const proxy_protocol::Endpoint& end) noexcept;
[[nodiscard]] proxy_protocol::Endpoint EndpointOf(const net::Address& address) noexcept;

// The header that tells a backend who the client of this session is, and what it connected to: as
// the header of its own connection says it, or else the two ends of its socket.
[[nodiscard]] std::string HeaderForBackend(const Core& core, proxy_protocol::Version version);

}  // namespace sluice::session
