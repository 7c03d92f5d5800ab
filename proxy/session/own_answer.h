// The answers that Sluice itself gives to requests, as their route wants them.
#pragma once

#include <string>

#include "proxy/http/reply.h"
#include "proxy/session/core.h"

namespace sluice::session {

// The whole of `reply`, the answer to the request that `facts` are about.
[[nodiscard]] std::string OwnAnswer(const Core& core, const RequestFacts& facts, http::Reply reply);

}  // namespace sluice::session
