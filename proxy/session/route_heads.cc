#include "proxy/session/route_heads.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "proxy/http/head.h"
#include "proxy/http/reply.h"

namespace sluice::session {
namespace {

// What Sluice writes into its own answers, from what it knows about them.
bool IsOfOwnAnswer(std::string_view name) noexcept {
  constexpr std::array<std::string_view, 6> kNames{"Allow",    "Cache-Control", "Content-Type",
                                                   "Location", "Retry-After",   "WWW-Authenticate"};
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

// RFC 6797 section 6.1.
std::string HstsValue(const config::Hsts& hsts) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(hsts.max_age).count();
  std::string value = "max-age=" + std::to_string(seconds);
  value += hsts.include_subdomains ? "; includeSubDomains" : "";
  value += hsts.preload ? "; preload" : "";
  return value;
}

}  // namespace

RouteHeads::RouteHeads(const config::Route& route)
    : request_{route.request_headers.remove, Lines(route.request_headers)} {
  Change& plain = response_[false];
  plain = {route.response_headers.remove, Lines(route.response_headers)};
  for (const config::HeaderRules::Field& field : route.response_headers.add) {
    if (!IsOfOwnAnswer(field.name)) {
      http::AppendField(own_answer_[false], field.name, field.value);
    }
  }
  constexpr std::string_view kName = "Strict-Transport-Security";
  if (route.hsts) {
    // One over TLS, and none in plain text (RFC 6797 section 7): that of the backend goes.
    plain.removed.emplace_back(kName);
  }
  response_[true] = plain;
  own_answer_[true] = own_answer_[false];
  if (route.hsts) {
    const std::string value = HstsValue(*route.hsts);
    http::AppendField(response_[true].added, kName, value);
    http::AppendField(own_answer_[true], kName, value);
  }
}

}  // namespace sluice::session
