// The small languages inside the strings of a configuration file: durations, sizes, addresses,
// origins, CIDR blocks, affinity rules. Each function takes the text of one value and returns what
// it means or one sentence that says what is wrong and what is allowed. Pure but for CheckReadable.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "proxy/base/clock.h"
#include "proxy/base/result.h"
#include "proxy/config/config.h"

namespace sluice::config {

// The text between double quotes; control characters become \xNN and the far end of a long text
// is cut, so that a message stays one line whatever a file holds.
[[nodiscard]] std::string Quoted(std::string_view text);

// ASCII letters in lower case, the rest as it is.
[[nodiscard]] std::string Lower(std::string_view text);

// "a, b, c".
[[nodiscard]] std::string Joined(std::span<const std::string_view> words);

// The word that `text` probably meant, or nothing when none is near.
[[nodiscard]] std::optional<std::string_view> Nearest(std::string_view text,
                                                      std::span<const std::string_view> words);

// "500ms", "30s", "2m", "1h", "365d": a whole number and one unit.
[[nodiscard]] Result<Millis> ParseDuration(std::string_view text);
// The same in reverse, with the largest unit that needs no fraction; days only above a month.
[[nodiscard]] std::string FormatDuration(Millis duration);

// "100B", "16KB", "64KiB", "1MiB", "2GB": a whole number and one unit; KB is 1000, KiB 1024 bytes.
[[nodiscard]] Result<std::uint64_t> ParseSize(std::string_view text);
[[nodiscard]] std::string FormatSize(std::uint64_t bytes);

struct HostPort {
  std::string host;  // a numeric address in its canonical form and without brackets, or a name
  std::uint16_t port = 0;
  bool numeric = false;

  // "127.0.0.1:80", "[::1]:80", "db.local:80".
  [[nodiscard]] std::string Text() const;
};

// "10.0.0.1:80", "[::1]:80" or "name:80"; port 0 to 65535.
[[nodiscard]] Result<HostPort> ParseHostPort(std::string_view text);

struct HttpUrl {
  HostPort address;       // port 80 unless it says another
  std::string authority;  // host and port as they stand there, what the Host field holds
  std::string target;     // path and query; "/" when there is none
};

// "http://127.0.0.1:9001/check?a=b", "http://auth.local".
[[nodiscard]] Result<HttpUrl> ParseHttpUrl(std::string_view text);

// The name of a header field; comes back in lower case.
[[nodiscard]] Result<std::string> ParseFieldName(std::string_view text);

// The same of a client's field that an auth server is shown: not one that frames a message, or that
// Sluice sets itself.
[[nodiscard]] Result<std::string> ParseForwardedField(std::string_view text);

// The same of a field of its answer that a backend is shown: not one, either, by which a request is
// checked or upgraded.
[[nodiscard]] Result<std::string> ParseCopiedField(std::string_view text);

// A DNS server: "10.0.0.53", "10.0.0.53:5353", "[fd00::53]:5353"; port 53 unless it says another.
[[nodiscard]] Result<HostPort> ParseDnsServer(std::string_view text);

// A name to ask DNS for, "chat.internal" or "_ws._tcp.chat.internal"; comes back in lower case and
// without a dot at its end.
[[nodiscard]] Result<std::string> ParseDnsName(std::string_view text);

// For a numeric address in its canonical form: 127.0.0.0/8 or ::1.
[[nodiscard]] bool IsLoopback(std::string_view host) noexcept;

// What the certificate of a backend is for: a host name in lower case, or a numeric address in its
// canonical form and without brackets.
[[nodiscard]] Result<std::string> ParseServerName(std::string_view text);

// "10.0.0.0/8" or "fd00::/8", with no bit set behind the prefix.
[[nodiscard]] Result<std::string> ParseCidr(std::string_view text);

// What a route matches the Host field with, in lower case: "chat.example.com", "*.example.com", a
// numeric address (IPv6 in brackets), or "" for any.
[[nodiscard]] Result<std::string> ParseRouteHost(std::string_view text);

// A path prefix; comes back without slashes at its end ("/" stays).
[[nodiscard]] Result<std::string> ParseRoutePath(std::string_view text);

// What the path of a request may end with, from a slash on; comes back as it is.
[[nodiscard]] Result<std::string> ParsePathEnd(std::string_view text);

// scheme://host[:port] as browsers send it in Origin (RFC 6454 section 7); lower case.
[[nodiscard]] Result<std::string> ParseOrigin(std::string_view text);

// "cookie:NAME", "header:NAME", "query:NAME", "path:N" or "ip".
[[nodiscard]] Result<AffinityRule> ParseAffinity(std::string_view text);

// RFC 9110 section 5.6.2: what the names of header fields and cookies are made of.
[[nodiscard]] bool IsToken(std::string_view text) noexcept;

// The name of a field that a route may add or remove: not one by which messages are delimited,
// routed, upgraded or traced, all of which Sluice writes itself.
[[nodiscard]] Result<std::string> ParseChangedField(std::string_view text);

// The value of a field that a route adds: visible ASCII characters, blanks between them.
[[nodiscard]] Result<std::string> ParseFieldValue(std::string_view text);

// Names of listeners, pools and backends: metric labels, and segments of URLs.
[[nodiscard]] Result<std::string> ParseName(std::string_view text);
// Names of routes, which may look like a host and path: metric labels.
[[nodiscard]] Result<std::string> ParseRouteName(std::string_view text);

// What stands in a request line: a path with or without a query, as it is sent.
[[nodiscard]] Result<std::string> ParseRequestPath(std::string_view text);

// What stands in a Host field: a name or an address, with or without a port; "" for none.
[[nodiscard]] Result<std::string> ParseHostField(std::string_view text);

// Statuses of HTTP that may end a request.
inline constexpr unsigned kLeastStatus = 200;
inline constexpr unsigned kMostStatus = 599;

struct StatusRange {
  unsigned least = kLeastStatus;
  unsigned most = kMostStatus;

  // "200", "200-399".
  [[nodiscard]] std::string Text() const;
};

// "200-399" or "200".
[[nodiscard]] Result<StatusRange> ParseStatusRange(std::string_view text);

// A status that tells of an error: "400" to "599".
[[nodiscard]] Result<unsigned> ParseErrorStatus(std::string_view text);

// RFC 6455 section 5.5: a CLOSE holds two bytes of code and at most 123 of reason.
[[nodiscard]] Result<std::string> ParseCloseReason(std::string_view text);

// Opens the file for reading and closes it again.
[[nodiscard]] Result<void> CheckReadable(const std::string& path);

}  // namespace sluice::config
