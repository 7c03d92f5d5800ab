#include "proxy/session/route_heads.h"

#include <algorithm>
#include <array>

#include "proxy/http/head.h"
#include "proxy/http/reply.h"

namespace sluice::session {
namespace {

// What Sluice writes into its own answers, from what it knows about them.
bool IsOfOwnAnswer(std::string_view name) noexcept {
  constexpr std::array<std::string_view, 5> kNames{"Allow", "Cache-Control", "Content-Type",
                                                   "Location", "Retry-After"};
  return std::any_of(kNames.begin(), kNames.end(),
                     [name](std::string_view own) { return http::EqualsIgnoreCase(own, name); });
}

std::string Lines(const config::HeaderRules& rules) {
  std::string lines;
  for (const config::HeaderRules::Field& field : rules.add) {
    http::AppendField(lines, field.name, field.value);
  }
  return lines;
}

}  // namespace

RouteHeads::RouteHeads(const config::Route& route)
    : request_{route.request_headers.remove, Lines(route.request_headers)},
      response_{route.response_headers.remove, Lines(route.response_headers)} {
  for (const config::HeaderRules::Field& field : route.response_headers.add) {
    if (!IsOfOwnAnswer(field.name)) {
      http::AppendField(own_answer_, field.name, field.value);
    }
  }
}

}  // namespace sluice::session
