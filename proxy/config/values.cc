#include "proxy/config/values.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <limits>
#include <utility>
#include <vector>

#include "proxy/base/unique_fd.h"

namespace sluice::config {
namespace {

constexpr bool IsDigit(char c) noexcept {
  return c >= '0' && c <= '9';
}

constexpr bool IsAlpha(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool AllDigits(std::string_view text) noexcept {
  return !text.empty() && std::all_of(text.begin(), text.end(), IsDigit);
}

constexpr char Upper(char c) noexcept {
  return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
}

// The byte that "%XX" at the start of `text` stands for.
std::optional<char> PercentByte(std::string_view text) noexcept {
  unsigned value = 0;
  if (text.size() < 3) {
    return std::nullopt;
  }
  const auto [end, error] = std::from_chars(text.data() + 1, text.data() + 3, value, 16);
  if (error != std::errc{} || end != text.data() + 3) {
    return std::nullopt;
  }
  return static_cast<char>(value);
}

// The name that CGI and what has come of it take `lower` for: all that is no letter or digit is
// one.
std::string Dashed(std::string lower) {
  std::replace_if(
      lower.begin(), lower.end(), [](char c) { return !IsAlpha(c) && !IsDigit(c); }, '-');
  return lower;
}

template <class T>
std::optional<T> Number(std::string_view digits) noexcept {
  T value{};
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (!AllDigits(digits) || error != std::errc{} || end != digits.data() + digits.size()) {
    return std::nullopt;
  }
  return value;
}

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

// Largest first: the formatters take the first one that divides evenly.
constexpr std::array kDurationUnits{Unit{"d", 86'400'000}, Unit{"h", 3'600'000}, Unit{"m", 60'000},
                                    Unit{"s", 1'000}, Unit{"ms", 1}};
constexpr std::array kSizeUnits{Unit{"GiB", 1ULL << 30},
                                Unit{"GB", 1'000'000'000},
                                Unit{"MiB", 1ULL << 20},
                                Unit{"MB", 1'000'000},
                                Unit{"KiB", 1ULL << 10},
                                Unit{"KB", 1'000},
                                Unit{"B", 1}};

// A whole number and a unit, multiplied out. Everything stays below 2^63, so that the result fits
// signed and unsigned counts alike.
Result<std::uint64_t> ParseWithUnit(std::string_view text, std::span<const Unit> units,
                                    std::string_view noun, std::string_view allowed) {
  std::size_t digits = 0;
  while (digits < text.size() && IsDigit(text[digits])) {
    ++digits;
  }
  const std::string_view unit_name = text.substr(digits);
  std::string hint = "; allowed: " + std::string(allowed);
  if (digits > 0 && unit_name.empty()) {
    return Err(Quoted(text) + " has no unit" + hint);
  }
  const auto* const unit = std::find_if(units.data(), units.data() + units.size(),
                                        [&](const Unit& u) { return u.name == unit_name; });
  if (digits == 0 || unit == units.data() + units.size()) {
    return Err(Quoted(text) + " is not a " + std::string(noun) + hint);
  }
  const auto number = Number<std::uint64_t>(text.substr(0, digits));
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (!number || *number > kMost / unit->factor) {
    return Err(Quoted(text) + " is too large");
  }
  return *number * unit->factor;
}

// The canonical text of a numeric address, or nothing when it is not one.
std::optional<std::string> Canonical(const std::string& host, int family) {
  in6_addr address{};  // the larger of the two
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (inet_pton(family, host.c_str(), &address) != 1 ||
      inet_ntop(family, &address, text.data(), text.size()) == nullptr) {
    return std::nullopt;
  }
  return std::string(text.data());
}

// Labels of letters, digits, '-' and '_' between dots, as DNS and container networks use them.
bool IsHostName(std::string_view text) noexcept {
  if (text.empty() || text.size() > 253) {
    return false;
  }
  std::size_t label = 0;
  char last = '.';
  for (const char c : text) {
    if (c == '.') {
      if (label == 0 || last == '-') {
        return false;
      }
      label = 0;
    } else if (IsAlpha(c) || IsDigit(c) || c == '_' || (c == '-' && label > 0)) {
      if (++label > 63) {
        return false;
      }
    } else {
      return false;
    }
    last = c;
  }
  return label > 0 && last != '-';
}

// A name whose last label is all digits can only be a mistyped IPv4 address: no such domain exists.
bool LooksLikeIpv4(std::string_view text) noexcept {
  return AllDigits(text.substr(text.rfind('.') + 1));
}

struct SplitAddress {
  std::string_view host;  // without brackets
  std::string_view port;
  bool bracketed = false;
};

constexpr std::string_view kAddressForm =
    "allowed: HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080";

Result<SplitAddress> Split(std::string_view text) {
  if (text.find("://") != std::string_view::npos) {
    return Err(Quoted(text) + " is a URL; write HOST:PORT only");
  }
  if (!text.empty() && text.front() == '[') {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) {
      return Err(Quoted(text) + " lacks the closing bracket; " + std::string(kAddressForm));
    }
    const std::string_view rest = text.substr(end + 1);
    if (rest.empty() || rest.front() != ':') {
      return Err(Quoted(text) + " has no port; " + std::string(kAddressForm));
    }
    return SplitAddress{text.substr(1, end - 1), rest.substr(1), true};
  }
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos) {
    return Err(Quoted(text) + " has no port; " + std::string(kAddressForm));
  }
  if (text.find(':', colon + 1) != std::string_view::npos) {
    return Err(Quoted(text) + ": an IPv6 address needs brackets, such as [::1]:8080");
  }
  return SplitAddress{text.substr(0, colon), text.substr(colon + 1), false};
}

Result<std::string> NameOf(std::string_view text, std::string_view marks) {
  const bool fine =
      !text.empty() && text.size() <= 128 && std::all_of(text.begin(), text.end(), [&](char c) {
        return IsAlpha(c) || IsDigit(c) || marks.find(c) != std::string_view::npos;
      });
  if (!fine) {
    return Err(Quoted(text) + " is not a name; allowed: 1 to 128 letters, digits and " +
               std::string(marks));
  }
  return std::string(text);
}

}  // namespace

std::string Quoted(std::string_view text) {
  constexpr std::size_t kMost = 100;  // enough to recognise a value by
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out = "\"";
  std::size_t taken = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    // Never cut inside a UTF-8 sequence.
    if (taken++ >= kMost && (byte & 0xC0U) != 0x80U) {
      out += "...";
      break;
    }
    if (byte < 0x20 || byte == 0x7F) {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 0xFU];
    } else {
      out += c;
    }
  }
  out += '"';
  return out;
}

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return out;
}

std::string Joined(std::span<const std::string_view> words) {
  std::string out;
  for (const std::string_view word : words) {
    out += out.empty() ? "" : ", ";
    out += word;
  }
  return out;
}

std::optional<std::string_view> Nearest(std::string_view text,
                                        std::span<const std::string_view> words) {
  if (text.size() > 64) {
    return std::nullopt;  // not a typing slip any more, and the table below is quadratic
  }
  // One slip in three characters is a typing mistake; more is another word.
  std::size_t best = std::max<std::size_t>(1, text.size() / 3) + 1;
  std::optional<std::string_view> nearest;
  for (const std::string_view word : words) {
    // Optimal string alignment: Levenshtein, plus neighbours swapped ("chta" for "chat").
    std::vector<std::vector<std::size_t>> cost(text.size() + 1,
                                               std::vector<std::size_t>(word.size() + 1));
    for (std::size_t i = 0; i <= text.size(); ++i) {
      for (std::size_t j = 0; j <= word.size(); ++j) {
        if (i == 0 || j == 0) {
          cost[i][j] = i + j;
          continue;
        }
        const std::size_t differs = text[i - 1] == word[j - 1] ? 0 : 1;
        cost[i][j] =
            std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + differs});
        if (i > 1 && j > 1 && text[i - 1] == word[j - 2] && text[i - 2] == word[j - 1]) {
          cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
        }
      }
    }
    // Between words as short as "a" or "1.2" one slip tells nothing.
    if (std::max(text.size(), word.size()) > 3 && cost[text.size()][word.size()] < best) {
      best = cost[text.size()][word.size()];
      nearest = word;
    }
  }
  return nearest;
}

Result<Millis> ParseDuration(std::string_view text) {
  return ParseWithUnit(text, kDurationUnits, "duration",
                       "a whole number with ms, s, m, h or d, such as \"30s\"")
      .map([](std::uint64_t ms) { return Millis(static_cast<Millis::rep>(ms)); });
}

std::string FormatDuration(Millis duration) {
  const auto ms = static_cast<std::uint64_t>(duration.count());
  if (ms == 0) {
    return "0s";
  }
  constexpr std::uint64_t kMonth = 31ULL * 86'400'000;
  for (const Unit& unit : kDurationUnits) {
    if (ms % unit.factor == 0 && (unit.name != "d" || ms > kMonth)) {
      return std::to_string(ms / unit.factor) + std::string(unit.name);
    }
  }
  return {};  // never: every number divides by the last unit
}

Result<std::uint64_t> ParseSize(std::string_view text) {
  return ParseWithUnit(text, kSizeUnits, "size",
                       "a whole number with B, KB, KiB, MB, MiB, GB or GiB, such as \"64KiB\"");
}

std::string FormatSize(std::uint64_t bytes) {
  if (bytes == 0) {
    return "0B";
  }
  for (const Unit& unit : kSizeUnits) {
    if (bytes % unit.factor == 0) {
      return std::to_string(bytes / unit.factor) + std::string(unit.name);
    }
  }
  return {};  // never: every number divides by the last unit
}

std::string HostPort::Text() const {
  const bool v6 = numeric && host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Result<HostPort> ParseHostPort(std::string_view text) {
  const auto split = Split(text);
  if (!split) {
    return tl::unexpected(split.error());
  }
  const auto port = Number<std::uint16_t>(split->port);
  if (!port || split->port.size() > 5) {
    return Err(Quoted(text) + ": " + Quoted(split->port) + " is not a port; allowed: 1 to 65535");
  }
  HostPort out;
  out.port = *port;
  const std::string host(split->host);
  // A NUL would end the text that inet_pton sees.
  if (host.find('\0') == std::string::npos) {
    if (const auto numeric = Canonical(host, split->bracketed ? AF_INET6 : AF_INET)) {
      out.host = *numeric;
      out.numeric = true;
      return out;
    }
  }
  if (split->bracketed) {
    return Err(Quoted(text) + ": " + Quoted(host) + " is not an IPv6 address");
  }
  if (host.empty()) {
    return Err(Quoted(text) + " has no host; " + std::string(kAddressForm));
  }
  if (!IsHostName(host)) {
    return Err(Quoted(text) + ": " + Quoted(host) + " is neither an address nor a host name");
  }
  if (LooksLikeIpv4(host)) {
    return Err(Quoted(text) + ": " + Quoted(host) + " is not an IPv4 address");
  }
  out.host = Lower(host);
  return out;
}

Result<HttpUrl> ParseHttpUrl(std::string_view text) {
  constexpr std::string_view kScheme = "http://";
  constexpr std::string_view kForm =
      "; allowed: an http:// URL, such as \"http://127.0.0.1:9001/check\"";
  if (!text.starts_with(kScheme)) {
    return Err(Quoted(text) + " does not begin with http://" + std::string(kForm));
  }
  std::string_view rest = text.substr(kScheme.size());
  const std::size_t end = std::min(rest.find_first_of("/?#"), rest.size());
  const std::string_view authority = rest.substr(0, end);
  rest.remove_prefix(end);
  if (authority.find('@') != std::string_view::npos) {
    return Err(Quoted(text) + " holds a user, which nobody is sent" + std::string(kForm));
  }
  const bool has_port = authority.rfind(':') != std::string_view::npos && !authority.ends_with(']');
  auto address = ParseHostPort(has_port ? std::string(authority) : std::string(authority) + ":80");
  if (!address) {
    return Err(Quoted(text) + ": " + address.error().message);
  }
  if (address->port == 0) {
    return Err(Quoted(text) + ": 0 is not a port; allowed: 1 to 65535");
  }
  auto target = ParseRequestPath(rest.starts_with('?') ? "/" + std::string(rest)
                                 : rest.empty()        ? "/"
                                                       : std::string(rest));
  if (!target) {
    return Err(Quoted(text) + ": " + target.error().message);
  }
  return HttpUrl{std::move(*address), std::string(authority), std::move(*target)};
}

Result<std::string> ParseFieldName(std::string_view text) {
  if (!IsToken(text)) {
    return Err(Quoted(text) +
               " is not the name of a header field; allowed: letters, digits and "
               "!#$%&'*+-.^_`|~");
  }
  return Lower(text);
}

Result<std::string> ParseForwardedField(std::string_view text) {
  constexpr auto kFraming = std::to_array<std::string_view>(
      {"connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te",
       "trailer", "transfer-encoding", "upgrade"});
  constexpr auto kOurs = std::to_array<std::string_view>(
      {"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-original-method",
       "x-original-uri", "x-request-id", "via"});
  auto name = ParseFieldName(text);
  if (!name) {
    return name;
  }
  const std::string plain = Dashed(*name);
  if (std::find(kFraming.begin(), kFraming.end(), plain) != kFraming.end()) {
    return Err(Quoted(text) +
               " says where a message goes or ends, and is of one connection only; "
               "allowed: fields that are passed on as they are");
  }
  if (std::find(kOurs.begin(), kOurs.end(), plain) != kOurs.end()) {
    return Err(Quoted(text) + " is set by Sluice in any case; allowed: other fields");
  }
  // An application may have its token in the subprotocol; the rest is of the upgrade alone.
  if (plain.starts_with("sec-websocket-") && plain != "sec-websocket-protocol") {
    return Err(Quoted(text) +
               " is a part of the upgrade, and the check is none; allowed: other "
               "fields");
  }
  return name;
}

Result<std::string> ParseCopiedField(std::string_view text) {
  auto name = ParseForwardedField(text);
  if (name && (Dashed(*name).starts_with("sec-websocket-") || *name == "origin")) {
    return Err(Quoted(text) + " is what the request was checked by; allowed: other fields");
  }
  return name;
}

Result<HostPort> ParseDnsServer(std::string_view text) {
  constexpr std::uint16_t kDnsPort = 53;
  const std::string host(text);
  if (host.find('\0') == std::string::npos) {
    for (const int family : {AF_INET, AF_INET6}) {
      if (const auto numeric = Canonical(host, family)) {
        return HostPort{*numeric, kDnsPort, true};
      }
    }
  }
  auto parsed = ParseHostPort(text);
  if (!parsed || !parsed->numeric || parsed->port == 0) {
    return Err(Quoted(text) +
               " is not the address of a DNS server; allowed: a numeric address, with a port or "
               "without, such as \"10.0.0.53\" or \"[fd00::53]:53\"");
  }
  return parsed;
}

Result<std::string> ParseDnsName(std::string_view text) {
  const std::string_view name = text.substr(0, text.size() - (text.ends_with('.') ? 1 : 0));
  if (!IsHostName(name) || LooksLikeIpv4(name)) {
    return Err(Quoted(text) +
               " is not a name to ask DNS for; allowed: labels of letters, digits, - and _, such "
               "as \"chat.internal\"");
  }
  return Lower(name);
}

bool IsLoopback(std::string_view host) noexcept {
  return host == "::1" || (host.starts_with("127.") && host.find(':') == std::string_view::npos);
}

Result<std::string> ParseCidr(std::string_view text) {
  constexpr std::string_view kForm = "allowed: ADDRESS/BITS, such as 10.0.0.0/8 or fd00::/8";
  const std::size_t slash = text.find('/');
  const std::string host(text.substr(0, slash));
  const bool v6 = host.find(':') != std::string::npos;
  const int family = v6 ? AF_INET6 : AF_INET;
  const unsigned most = v6 ? 128 : 32;
  std::array<unsigned char, sizeof(in6_addr)> bytes{};
  if (host.find('\0') != std::string::npos || inet_pton(family, host.c_str(), bytes.data()) != 1) {
    return Err(Quoted(text) + " is not a block of addresses; " + std::string(kForm));
  }
  if (slash == std::string_view::npos) {
    return Err(Quoted(text) + " has no prefix length; for this one address write " +
               Quoted(host + "/" + std::to_string(most)));
  }
  const auto bits = Number<unsigned>(text.substr(slash + 1));
  if (!bits || *bits > most) {
    return Err(Quoted(text) + " has a bad prefix length; allowed: 0 to " + std::to_string(most));
  }
  std::array<unsigned char, sizeof(in6_addr)> masked = bytes;
  for (unsigned bit = *bits; bit < most; ++bit) {
    masked[bit / 8] &= static_cast<unsigned char>(~(0x80U >> (bit % 8)));
  }
  std::array<char, INET6_ADDRSTRLEN> canonical{};
  if (inet_ntop(family, masked.data(), canonical.data(), canonical.size()) == nullptr) {
    return Err(Quoted(text) + " is not a block of addresses; " + std::string(kForm));
  }
  std::string block = std::string(canonical.data()) + "/" + std::to_string(*bits);
  if (masked != bytes) {
    return Err(Quoted(text) + " has bits set behind its prefix; the block is " + Quoted(block));
  }
  return block;
}

Result<std::string> ParseServerName(std::string_view text) {
  if (text.find('\0') == std::string_view::npos) {
    for (const int family : {AF_INET, AF_INET6}) {
      if (auto numeric = Canonical(std::string(text), family)) {
        return *std::move(numeric);
      }
    }
  }
  if (!IsHostName(text) || LooksLikeIpv4(text)) {
    return Err(Quoted(text) +
               " is not a name of a server; allowed: a host name or a numeric address, without a "
               "port");
  }
  return Lower(text);
}

Result<std::string> ParseRouteHost(std::string_view text) {
  constexpr std::string_view kForm = "allowed: an exact name, *.suffix, or no host at all for any";
  if (text.empty()) {
    return std::string();
  }
  if (text == "*") {
    return Err("\"*\" is not a host; leave the key out to take any host");
  }
  if (text.find("://") != std::string_view::npos || text.find('/') != std::string_view::npos) {
    return Err(Quoted(text) + " is a URL; " + std::string(kForm));
  }
  if (text.front() == '[' && text.back() == ']' && text.find('\0') == std::string_view::npos) {
    if (const auto address = Canonical(std::string(text.substr(1, text.size() - 2)), AF_INET6)) {
      return "[" + *address + "]";
    }
  }
  const std::size_t colon = text.rfind(':');
  if (colon != std::string_view::npos && AllDigits(text.substr(colon + 1)) &&
      text.find(':') == colon) {
    return Err(Quoted(text) + " carries a port; a host matches on every port, write " +
               Quoted(text.substr(0, colon)));
  }
  const std::string_view name = text.starts_with("*.") ? text.substr(2) : text;
  if (name.find('*') != std::string_view::npos) {
    return Err(Quoted(text) + ": a star may only stand for the whole first label; " +
               std::string(kForm));
  }
  if (!IsHostName(name)) {
    return Err(Quoted(text) + " is not a host name; " + std::string(kForm));
  }
  return Lower(text);
}

Result<std::string> ParseRoutePath(std::string_view text) {
  if (text.empty() || text.front() != '/') {
    return Err(Quoted(text) + " does not start with a slash; allowed: a path such as \"/socket\"");
  }
  if (text.ends_with("/*")) {
    return Err(Quoted(text) + ": a path is a prefix already; write " +
               Quoted(text.size() > 2 ? text.substr(0, text.size() - 2) : "/"));
  }
  for (const char c : text) {
    if (c <= 0x20 || c >= 0x7F) {
      return Err(Quoted(text) +
                 " has a character that no URL path holds; percent-encode it, such as %20");
    }
    if (c == '?' || c == '#') {
      return Err(Quoted(text) + " has a query or fragment; a route looks at the path only");
    }
    if (c == '\\' || c == ';') {
      return Err(Quoted(text) +
                 " has a \"\\\" or \";\", which a route does not look at; write the plain path");
    }
  }
  std::string path(text);
  for (std::size_t at = path.find('%'); at != std::string::npos; at = path.find('%', at + 1)) {
    const auto byte = PercentByte(std::string_view(path).substr(at));
    if (!byte) {
      return Err(Quoted(text) + " has a \"%\" without two hexadecimal digits behind it");
    }
    // Separators, dots and NUL in disguise are read in different ways by different backends, and
    // what needs no encoding would give one path two spellings.
    if (IsAlpha(*byte) || IsDigit(*byte) ||
        std::string_view("-._~/\\;%\0", 9).find(*byte) != std::string_view::npos) {
      return Err(Quoted(text) + ": " + Quoted(path.substr(at, 3)) +
                 " may not be encoded in a path; write the plain path");
    }
    path[at + 1] = Upper(path[at + 1]);
    path[at + 2] = Upper(path[at + 2]);
  }
  text = path;
  while (text.size() > 1 && text.back() == '/') {
    text.remove_suffix(1);
  }
  for (std::size_t i = 1; i < text.size();) {
    const std::size_t end = std::min(text.find('/', i), text.size());
    const std::string_view segment = text.substr(i, end - i);
    if (segment.empty() || segment == "." || segment == "..") {
      return Err(Quoted(text) + " has an empty segment, \".\" or \"..\"; write the plain path");
    }
    i = end + 1;
  }
  return std::string(text);
}

Result<std::string> ParseOrigin(std::string_view text) {
  constexpr std::string_view kForm =
      "allowed: scheme://host or scheme://host:port, such as https://chat.example.com";
  if (text == "*") {
    return Err("\"*\" is not an origin; leave the key out to allow any origin");
  }
  const std::size_t mark = text.find("://");
  if (mark == std::string_view::npos || mark == 0) {
    return Err(Quoted(text) + " has no scheme; " + std::string(kForm));
  }
  const std::string_view scheme = text.substr(0, mark);
  const bool scheme_ok =
      IsAlpha(scheme.front()) && std::all_of(scheme.begin(), scheme.end(), [](char c) {
        return IsAlpha(c) || IsDigit(c) || c == '+' || c == '-' || c == '.';
      });
  std::string_view host = text.substr(mark + 3);
  if (host.find_first_of("/?#@") != std::string_view::npos) {
    return Err(Quoted(text) + " has more than scheme, host and port; " + std::string(kForm));
  }
  std::string_view port;
  const std::size_t colon = host.rfind(':');
  if (colon != std::string_view::npos && (host.empty() || host.back() != ']')) {
    port = host.substr(colon + 1);
    host = host.substr(0, colon);
    const auto number = Number<std::uint16_t>(port);
    if (!number || *number == 0 || port.size() > 5) {
      return Err(Quoted(text) + ": " + Quoted(port) + " is not a port; allowed: 1 to 65535");
    }
  }
  const bool v6 = host.size() > 2 && host.front() == '[' && host.back() == ']' &&
                  host.find('\0') == std::string_view::npos &&
                  Canonical(std::string(host.substr(1, host.size() - 2)), AF_INET6).has_value();
  if (!scheme_ok || !(v6 || IsHostName(host))) {
    return Err(Quoted(text) + " is not an origin; " + std::string(kForm));
  }
  const std::string lower_scheme = Lower(scheme);
  if ((lower_scheme == "https" && port == "443") || (lower_scheme == "http" && port == "80")) {
    return Err(Quoted(text) + ": browsers leave out the default port; write " +
               Quoted(text.substr(0, text.rfind(':'))));
  }
  return Lower(text);
}

Result<std::string> ParsePathEnd(std::string_view text) {
  if (text.empty() || text.front() != '/') {
    return Err(Quoted(text) +
               " does not start with a slash; allowed: the end of a path, such as \"/negotiate\"");
  }
  const bool bad = std::any_of(text.begin(), text.end(), [](char c) {
    return c <= 0x20 || c >= 0x7F || c == '?' || c == '#';
  });
  if (bad) {
    return Err(Quoted(text) +
               " is not the end of a path; write it as it is sent, without ? # or spaces");
  }
  return std::string(text);
}

Result<AffinityRule> ParseAffinity(std::string_view text) {
  constexpr std::string_view kForm = "allowed: cookie:NAME, header:NAME, query:NAME, path:N, ip";
  if (text == "ip") {
    return AffinityRule{};
  }
  const std::size_t colon = text.find(':');
  const std::string_view source = text.substr(0, colon);
  const std::string_view name =
      colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  AffinityRule rule;
  rule.name = name;
  if (source == "cookie" || source == "header") {
    rule.source = source == "cookie" ? AffinitySource::kCookie : AffinitySource::kHeader;
    if (!IsToken(name)) {
      return Err(Quoted(text) + " does not name a " + std::string(source) +
                 "; allowed in a name: letters, digits and !#$%&'*+-.^_`|~");
    }
    return rule;
  }
  if (source == "query") {
    rule.source = AffinitySource::kQuery;
    const bool bad = name.empty() || std::any_of(name.begin(), name.end(), [](char c) {
                       return c <= 0x20 || c >= 0x7F || c == '&' || c == '=' || c == '#';
                     });
    if (bad) {
      return Err(Quoted(text) + " does not name a query parameter; write the name as it stands " +
                 "in the URL, without & = # or spaces");
    }
    return rule;
  }
  if (source == "path") {
    const auto segment = Number<std::size_t>(name);
    if (!segment || *segment < 1 || *segment > 32) {
      return Err(Quoted(text) + " does not name a path segment; allowed: path:1 to path:32");
    }
    rule.source = AffinitySource::kPath;
    rule.name.clear();
    rule.segment = *segment;
    return rule;
  }
  return Err(Quoted(text) + " is not an affinity rule; " + std::string(kForm));
}

bool IsToken(std::string_view text) noexcept {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return IsAlpha(c) || IsDigit(c) || kMarks.find(c) != std::string_view::npos;
  });
}

Result<std::string> ParseChangedField(std::string_view text) {
  struct Kept {
    std::string_view name;  // in lower case; a dash at its end stands for all that begin so
    std::string_view why;
  };
  constexpr std::string_view kHop = "is about one connection, which Sluice looks after itself";
  constexpr std::string_view kClient = "tells who the client is, which Sluice writes itself";
  constexpr std::array kKept{
      Kept{"connection", kHop},
      Kept{"keep-alive", kHop},
      Kept{"proxy-connection", kHop},
      Kept{"te", kHop},
      Kept{"trailer", kHop},
      Kept{"transfer-encoding", kHop},
      Kept{"upgrade", kHop},
      Kept{"expect", "asks whether content may come, which Sluice passes on as it is"},
      Kept{"content-length", "tells where content ends, which Sluice finds out itself"},
      Kept{"host", "is what routes are chosen by, and backends have to see the same"},
      Kept{"sec-websocket-", "is a part of the WebSocket handshake, which Sluice checks"},
      Kept{"x-forwarded-", kClient},
      Kept{"forwarded", kClient},
      Kept{"x-request-id", "is what a request is found by in logs, and Sluice writes it itself"},
      Kept{"date", "tells when an answer was given, which is its giver's to say"},
      Kept{"via", "tells which proxies a message has passed, and Sluice writes it itself"},
  };
  if (!IsToken(text)) {
    return Err(Quoted(text) +
               " is not the name of a field; allowed: letters, digits and !#$%&'*+-.^_`|~");
  }
  const std::string lower = Dashed(Lower(text));
  for (const Kept& kept : kKept) {
    if (kept.name.back() == '-' ? lower.starts_with(kept.name) : lower == kept.name) {
      return Err(Quoted(text) + " " + std::string(kept.why) + "; allowed: any other field");
    }
  }
  return std::string(text);
}

Result<std::string> ParseFieldValue(std::string_view text) {
  constexpr std::size_t kMost = 4096;
  if (text.size() > kMost) {
    return Err("is " + std::to_string(text.size()) + " bytes long; allowed: at most " +
               std::to_string(kMost));
  }
  const auto is_blank = [](char c) { return c == ' ' || c == '\t'; };
  const bool good = !text.empty() && !is_blank(text.front()) && !is_blank(text.back()) &&
                    std::all_of(text.begin(), text.end(),
                                [&](char c) { return is_blank(c) || (c > 0x20 && c < 0x7F); });
  if (!good) {
    return Err(Quoted(text) +
               " is not the value of a field; allowed: visible ASCII characters, with blanks "
               "between them");
  }
  return std::string(text);
}

Result<std::string> ParseName(std::string_view text) {
  return NameOf(text, "-_.:[]");
}

Result<std::string> ParseRouteName(std::string_view text) {
  return NameOf(text, "-_.:[]/*");
}

Result<std::string> ParseRequestPath(std::string_view text) {
  constexpr std::size_t kMost = 1024;
  if (text.empty() || text.front() != '/') {
    return Err(Quoted(text) + " does not start with a slash; allowed: a path such as \"/socket\"");
  }
  if (text.size() > kMost) {
    return Err("is " + std::to_string(text.size()) + " bytes long; allowed: at most " +
               std::to_string(kMost));
  }
  if (std::any_of(text.begin(), text.end(),
                  [](char c) { return c <= 0x20 || c >= 0x7F || c == '#'; })) {
    return Err(Quoted(text) +
               " has a character that no request holds; percent-encode it, such as %20");
  }
  return std::string(text);
}

Result<std::string> ParseHostField(std::string_view text) {
  constexpr std::size_t kMost = 255;
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
    return IsAlpha(c) || IsDigit(c) || std::string_view("-._:[]").find(c) != std::string_view::npos;
  });
  if (!plain || text.size() > kMost) {
    return Err(
        Quoted(text) +
        " is not a host; allowed: a name or an address, with or without a port, of at most " +
        std::to_string(kMost) + " characters");
  }
  return std::string(text);
}

std::string StatusRange::Text() const {
  return least == most ? std::to_string(least) : std::to_string(least) + "-" + std::to_string(most);
}

Result<StatusRange> ParseStatusRange(std::string_view text) {
  const auto number = [](std::string_view digits) -> std::optional<unsigned> {
    unsigned value = 0;
    const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    const bool good = digits.size() == 3 && end.ptr == digits.data() + digits.size() &&
                      end.ec == std::errc() && value >= kLeastStatus && value <= kMostStatus;
    return good ? std::optional(value) : std::nullopt;
  };
  const std::size_t dash = text.find('-');
  const auto least = number(text.substr(0, dash));
  const auto most = dash == std::string_view::npos ? least : number(text.substr(dash + 1));
  if (!least || !most || *least > *most) {
    return Err(Quoted(text) +
               " is not a range of statuses; allowed: one of 200 to 599, or two with the lower "
               "first, such as \"200-399\"");
  }
  return StatusRange{*least, *most};
}

Result<unsigned> ParseErrorStatus(std::string_view text) {
  const auto status = Number<unsigned>(text);
  if (text.size() != 3 || !status || *status < 400 || *status > 599) {
    return Err(Quoted(text) + " is not the status of an error; allowed: 400 to 599");
  }
  return *status;
}

Result<std::string> ParseCloseReason(std::string_view text) {
  if (text.size() > 123) {
    return Err("is " + std::to_string(text.size()) +
               " bytes long; allowed: at most 123, because a CLOSE frame holds no more");
  }
  if (std::any_of(text.begin(), text.end(),
                  [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; })) {
    return Err(Quoted(text) + " has control characters; allowed: plain words");
  }
  const std::size_t start = text.find_first_not_of(' ');
  const char first = start == std::string_view::npos ? 'x' : text[start];
  if (AllDigits(text) || first == '{' || first == '[' || first == '"') {
    return Err(Quoted(text) +
               " looks like a number or JSON, which some clients parse; allowed: plain words");
  }
  return std::string(text);
}

Result<void> CheckReadable(const std::string& path) {
  // O_NONBLOCK: a named pipe must not hang the check.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) {
    return SysErr("cannot read " + Quoted(path), errno);
  }
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) {
    return SysErr("cannot read " + Quoted(path), errno);
  }
  if (!S_ISREG(info.st_mode)) {
    return Err("cannot read " + Quoted(path) + ": not a regular file");
  }
  return {};
}

}  // namespace sluice::config
