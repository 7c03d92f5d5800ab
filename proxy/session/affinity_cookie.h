// The cookie that Sluice issues so that a client's later requests land where its first one did.
//
// It carries nothing but a random id, and no node remembers it: the id is drawn so that the backend
// which served the first request is the id's home in the rendezvous order. So the first request may
// go where there is room, every later one goes home, and every node with the same pool agrees.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "proxy/balance/backend_set.h"

namespace sluice::session {

// 128 random bits as hex digits, from the CSPRNG.
using IdText = std::array<char, 32>;
[[nodiscard]] IdText RandomId() noexcept;

// A random id whose home in `backends` is `backend`. Where a backend's share is too small to be
// drawn in a bounded number of tries, an id with another home.
[[nodiscard]] std::string DrawAffinityId(const balance::BackendSet& backends, std::size_t backend);

// The value of the Set-Cookie field: for a browser session, out of reach of scripts, not sent along
// cross-site requests, and only over TLS when it was set over TLS.
[[nodiscard]] std::string AffinityCookie(std::string_view name, std::string_view id, bool tls);

}  // namespace sluice::session
