#include "proxy/routing/route_table.h"

#include <algorithm>
#include <tuple>

#include "proxy/http/head.h"
#include "proxy/routing/hex.h"

namespace sluice::routing {
namespace {

// Hands out a path byte by byte with percent-encoding undone and "\" turned into "/".
class DecodedPath {
 public:
  explicit DecodedPath(std::string_view path) noexcept : rest_(path) {}

  // False at the end.
  bool Next(char& out) noexcept {
    if (rest_.empty()) {
      return false;
    }
    out = rest_.front();
    std::size_t used = 1;
    if (out == '%' && rest_.size() >= 3) {
      const int high = HexValue(rest_[1]);
      const int low = HexValue(rest_[2]);
      if (high >= 0 && low >= 0) {  // else the sign stands for itself
        out = static_cast<char>(high * 16 + low);
        used = 3;
      }
    }
    if (out == '\\') {
      out = '/';
    }
    rest_.remove_prefix(used);
    return true;
  }

 private:
  std::string_view rest_;
};

// The same, with runs of slashes reduced to one and the parameters of segments left out.
class ReducedPath {
 public:
  explicit ReducedPath(std::string_view path) noexcept : decoded_(path) {}

  // False at the end.
  bool Next(char& out) noexcept {
    while (decoded_.Next(out)) {
      if (out == '/') {
        in_parameters_ = false;
        if (after_slash_) {
          continue;
        }
        after_slash_ = true;
        return true;
      }
      in_parameters_ = in_parameters_ || out == ';';
      if (!in_parameters_) {
        after_slash_ = false;
        return true;
      }
    }
    return false;
  }

 private:
  DecodedPath decoded_;
  bool after_slash_ = false;
  bool in_parameters_ = false;
};

// False for a path with a "." or ".." segment, parameters aside, or with a NUL.
[[nodiscard]] bool IsUnambiguous(std::string_view path) noexcept {
  constexpr unsigned kOther = 3;  // from here on the segment is more than one or two dots
  DecodedPath decoded(path);
  unsigned dots = 0;
  char c = 0;
  while (decoded.Next(c)) {
    if (c == '\0') {
      return false;
    }
    if (c == '/' || c == ';') {
      if (dots == 1 || dots == 2) {
        return false;
      }
      dots = c == '/' ? 0 : kOther;
    } else {
      dots = c == '.' ? dots + 1 : kOther;
    }
  }
  return dots != 1 && dots != 2;
}

[[nodiscard]] bool MatchesPath(std::string_view prefix, std::string_view path) noexcept {
  if (path == "*") {  // RFC 9112 section 3.2.4: the server as a whole
    return prefix.empty();
  }
  ReducedPath reduced(path);
  std::size_t at = 0;
  char c = 0;
  while (reduced.Next(c)) {
    if (at == prefix.size()) {
      return c == '/';
    }
    if (c != prefix[at]) {
      return false;
    }
    ++at;
  }
  return at == prefix.size();
}

// The host of a Host field's value: without brackets, port and trailing dot. Empty when the
// brackets of an address do not match up.
[[nodiscard]] std::string_view HostOf(std::string_view host_field) noexcept {
  if (host_field.starts_with('[')) {
    const std::size_t end = host_field.find(']');
    return end == std::string_view::npos ? std::string_view() : host_field.substr(1, end - 1);
  }
  std::string_view host = host_field.substr(0, host_field.find(':'));
  if (host.ends_with('.')) {
    host.remove_suffix(1);
  }
  return host;
}

}  // namespace

RouteTable::RouteTable(std::span<const RouteRule> rules) {
  for (std::size_t i = 0; i < rules.size(); ++i) {
    std::string_view host = HostOf(rules[i].host);
    HostRank rank = host.empty() ? HostRank::kAny : HostRank::kExact;
    if (host.starts_with("*.")) {
      rank = HostRank::kSuffix;
      host.remove_prefix(1);
    }
    std::string path;
    ReducedPath reduced(rules[i].path);
    for (char c = 0; reduced.Next(c);) {
      path.push_back(c);
    }
    if (path.ends_with('/')) {
      path.pop_back();
    }
    entries_.push_back({rank, std::string(host), std::move(path), i});
  }
  // Exact names need no order among themselves: at most one of them is the request's.
  std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    const std::size_t a_host = a.rank == HostRank::kSuffix ? a.host.size() : 0;
    const std::size_t b_host = b.rank == HostRank::kSuffix ? b.host.size() : 0;
    // Longer comes first, so the sides change places.
    return std::forward_as_tuple(a.rank, b_host, b.path.size()) <
           std::forward_as_tuple(b.rank, a_host, a.path.size());
  });
}

std::optional<std::size_t> RouteTable::Match(std::string_view host_field,
                                             std::string_view path) const noexcept {
  if (path != "*" && (!path.starts_with('/') || !IsUnambiguous(path))) {
    return std::nullopt;
  }
  const std::string_view host = HostOf(host_field);
  for (const Entry& entry : entries_) {
    if (MatchesHost(entry, host) && MatchesPath(entry.path, path)) {
      return entry.index;
    }
  }
  return std::nullopt;
}

bool RouteTable::MatchesHost(const Entry& entry, std::string_view host) noexcept {
  switch (entry.rank) {
    case HostRank::kExact:
      return http::EqualsIgnoreCase(host, entry.host);
    case HostRank::kSuffix:
      return host.size() > entry.host.size() &&
             http::EqualsIgnoreCase(host.substr(host.size() - entry.host.size()), entry.host);
    case HostRank::kAny:
      break;
  }
  return true;
}

}  // namespace sluice::routing
