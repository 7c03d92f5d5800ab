// The hops of a request as proxies note them: in Forwarded (RFC 7239), and in X-Forwarded-For,
// which nobody has specified. What is read here was sent by anybody; whom to believe is for the
// caller.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/http/head.h"

namespace sluice::http {

// The node that each element of the Forwarded fields gives as `for`, in order and without quotes;
// empty for an element that has none. Nothing when the fields are not what RFC 7239 section 4 says:
// somebody else may then read something else in them.
[[nodiscard]] std::optional<std::vector<std::string>> ForwardedNodes(const Fields& fields);

// The address in a node, for inet_pton(3) to judge: without a port and without brackets. It is
// empty for what is none, as "unknown" and "_hidden" are (RFC 7239 section 6). Bare IPv6, as
// X-Forwarded-For has it, is taken too. The view is into `node`.
[[nodiscard]] std::string_view AddressOfNode(std::string_view node) noexcept;

}  // namespace sluice::http
