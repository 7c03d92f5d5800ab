// Which route a request belongs to, by host and path. Pure; immutable after construction, so all
// workers share one. A match allocates nothing.
//
// Of the rules that match, the one with the more exact host wins: an exact name before the longest
// "*.suffix" before any host. Among rules of one host the longest path wins. When no rule of the
// more exact host matches the path, the less exact hosts are asked.
//
// A route decides what is allowed (origins, limits, the pool), so a request must not reach one
// route here and be read as another's path by the backend. Paths are therefore compared in the
// form that a backend may well reduce them to: percent-encoding decoded once, "\" as "/", a run of
// slashes as one, the parameters of a segment (";..." up to the next slash) left out. A path that
// has a "." or ".." segment or a NUL in that form matches nothing: where it leads depends on who
// resolves it. The bytes that are forwarded stay as they came.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::routing {

struct RouteRule {
  std::string host;  // an exact name, "*.suffix" (any depth below it, not itself), or empty: any
  std::string path;  // a prefix on segment borders: "/a" and "/a/" take "/a", "/a/", "/a/b", not
                     // "/ab"; "/" takes all, and alone takes "*"
};

class RouteTable {
 public:
  // Of two rules with the same host and path the first wins. REQUIRES: every path starts with '/'
  // and has no "." or ".." segment.
  explicit RouteTable(std::span<const RouteRule> rules);

  // The index of the rule, or nothing. `host_field` is the Host field's value: a port and one
  // trailing dot are ignored, and so is case. `path` is the request's path without its query,
  // as RequestHead has it.
  [[nodiscard]] std::optional<std::size_t> Match(std::string_view host_field,
                                                 std::string_view path) const noexcept;

 private:
  enum class HostRank : std::uint8_t { kExact, kSuffix, kAny };  // in the order of precedence

  struct Entry {
    HostRank rank;
    std::string host;  // for kSuffix: with the dot, without the star
    std::string path;  // reduced, without the slash at its end: empty for "/"
    std::size_t index;
  };

  [[nodiscard]] static bool MatchesHost(const Entry& entry, std::string_view host) noexcept;

  std::vector<Entry> entries_;  // the first that matches is the one
};

}  // namespace sluice::routing
