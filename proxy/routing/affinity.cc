#include "proxy/routing/affinity.h"

#include "proxy/routing/hex.h"

namespace sluice::routing {
namespace {

// The first value of that name that is not empty.
[[nodiscard]] std::string_view HeaderValue(const http::Fields& fields,
                                           std::string_view name) noexcept {
  for (const http::Field& field : fields) {
    if (!field.value.empty() && http::EqualsIgnoreCase(field.name, name)) {
      return field.value;
    }
  }
  return {};
}

// Segment 1 is what stands behind the first slash. Empty when there are fewer.
[[nodiscard]] std::string_view PathSegment(std::string_view path, std::size_t segment) noexcept {
  for (; segment > 0 && path.starts_with('/'); --segment) {
    path.remove_prefix(1);
    const std::size_t end = path.find('/');
    if (segment == 1) {
      return path.substr(0, end);
    }
    path = end == std::string_view::npos ? std::string_view() : path.substr(end);
  }
  return {};
}

[[nodiscard]] std::string_view ValueOf(const AffinityRule& rule, const http::RequestHead& head,
                                       std::string_view client_ip) noexcept {
  switch (rule.source) {
    case AffinityRule::Source::kCookie:
      return http::CookieValue(head.fields, rule.name);
    case AffinityRule::Source::kHeader:
      return HeaderValue(head.fields, rule.name);
    case AffinityRule::Source::kQuery:
      return http::QueryValue(head.query, rule.name);
    case AffinityRule::Source::kPath:
      return PathSegment(head.path, rule.segment);
    case AffinityRule::Source::kIp:
      break;
  }
  return client_ip;
}

}  // namespace

std::string_view AffinityKey(std::span<const AffinityRule> rules, const http::RequestHead& head,
                             std::string_view client_ip) noexcept {
  for (const AffinityRule& rule : rules) {
    const std::string_view value = ValueOf(rule, head, client_ip);
    if (!value.empty()) {
      return value;
    }
  }
  return client_ip;
}

std::string_view DecodePercent(std::string_view value, std::string& space) {
  if (value.find('%') == std::string_view::npos) {
    return value;
  }
  space.clear();
  while (!value.empty()) {
    const bool whole = value.front() == '%' && value.size() >= 3;
    const int high = whole ? HexValue(value[1]) : -1;
    const int low = whole ? HexValue(value[2]) : -1;
    const bool encoded = high >= 0 && low >= 0;
    space += encoded ? static_cast<char>(high << 4 | low) : value.front();
    value.remove_prefix(encoded ? 3 : 1);
  }
  return space;
}

}  // namespace sluice::routing
