// What a listener that sends its clients to https makes of a request (RFC 9110 section 15.4). It
// redirects only what some route serves, so that nobody can use it to send others anywhere. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "proxy/session/admission.h"

namespace sluice::session {

// The URL of what was asked for, at https and `port`: host, path and query as they were sent.
// REQUIRES: the head names a host, and its target has a path.
[[nodiscard]] std::string HttpsUrl(const http::RequestHead& head, std::uint16_t port);

// Always a refusal: the redirect, or why there is none. `location` gets the Location field, which
// the refusal has a view of.
[[nodiscard]] Admission AdmitToRedirect(const http::RequestHead& head, const Snapshot& snapshot,
                                        const config::Redirect& redirect, std::string& location);

}  // namespace sluice::session
