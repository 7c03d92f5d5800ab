#include "proxy/session/redirect.h"

#include <string_view>

#include "proxy/http/reply.h"

namespace sluice::session {
namespace {

// A checked Host value without its port.
std::string_view WithoutPort(std::string_view host) noexcept {
  const std::size_t bracket = host.find(']');  // of an IPv6 address, whose colons are its own
  return host.substr(0, host.find(':', bracket == std::string_view::npos ? 0 : bracket));
}

}  // namespace

std::string HttpsUrl(const http::RequestHead& head, std::uint16_t port) {
  constexpr std::uint16_t kHttpsPort = 443;
  std::string url("https://");
  url += WithoutPort(head.host);
  if (port != kHttpsPort) {
    url += ':';
    url += std::to_string(port);
  }
  url += head.path;
  if (head.target.find('?') != std::string_view::npos) {
    url += '?';
    url += head.query;
  }
  return url;
}

Admission AdmitToRedirect(const http::RequestHead& head, const Snapshot& snapshot,
                          const config::Redirect& redirect, std::string& location) {
  Admission admission = FindRoute(head, snapshot);
  if (admission.refusal) {
    return admission;
  }
  if (head.host.empty()) {  // HTTP/1.0
    admission.refusal = Refusal{
        400, "Without a Host field it is not known where to send you.", "", "missing_host", {}, 0};
    return admission;
  }
  if (!head.path.starts_with('/')) {  // "*" is no part of a URL
    admission.route.reset();
    admission.refusal =
        Refusal{404, "No route serves this host and path.", "", "no_route", std::nullopt, 0};
    return admission;
  }
  location.clear();
  http::AppendField(location, "Location", HttpsUrl(head, redirect.port));
  admission.refusal =
      Refusal{redirect.status, "This is served over https.", location, "redirect", std::nullopt, 0};
  return admission;
}

}  // namespace sluice::session
