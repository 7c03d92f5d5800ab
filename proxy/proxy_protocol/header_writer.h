// Writes the header that begins a connection to a backend.
#pragma once

#include <string>
#include <string_view>

#include "proxy/proxy_protocol/header.h"

namespace sluice::proxy_protocol {

// For a connection that is passed on from `source`, which connected to `destination`. Where only
// one of them is IPv6 the other goes as its IPv4-mapped address, and where both are mapped ones,
// both go as IPv4. `authority`: the server name that the client asked for by TLS; in version 2, and
// if there is one of at most 255 bytes, it goes along (PP2_TYPE_AUTHORITY).
[[nodiscard]] std::string ClientHeader(Version version, const Endpoint& source,
                                       const Endpoint& destination,
                                       std::string_view authority = {});

// For a connection that is passed on for somebody whose address is not known.
[[nodiscard]] std::string UnknownHeader(Version version);

// For a connection of our own, such as a health check. Version 1 has no word for it but UNKNOWN.
[[nodiscard]] std::string LocalHeader(Version version);

}  // namespace sluice::proxy_protocol
