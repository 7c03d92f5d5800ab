// A parsed HTTP/1.1 message head: views into the bytes it was parsed from.
//
// The views live as long as those bytes stay where they are; a head is looked at inside the call
// that parsed it and copied from when something must outlive it. Pure: no I/O.
// Source: RFC 9110 (semantics), RFC 9112 (HTTP/1.1 messages).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace sluice::http {

// 100, 102 and 103 come once or a few times before an answer (RFC 9110 section 15.2); a stream of
// them is a fault or an attack.
inline constexpr unsigned kMostInterimAnswers = 16;

// The fields that Sluice itself looks at. A name is recognised once, when its field is read; from
// then on it is told apart by its id, which costs one comparison of a byte.
enum class FieldId : std::uint8_t {
  kOther,
  kAccept,
  kAuthorization,
  kConnection,
  kContentLength,
  kContentType,
  kCookie,
  kDate,
  kExpect,
  kForwarded,
  kHost,
  kHttp2Settings,
  kKeepAlive,
  kOrigin,
  kProxyConnection,
  kSecWebSocketAccept,
  kSecWebSocketExtensions,
  kSecWebSocketKey,
  kSecWebSocketProtocol,
  kSecWebSocketVersion,
  kSetCookie,
  kTe,
  kTrailer,
  kTransferEncoding,
  kUpgrade,
  kUserAgent,
  kXForwardedFor,
  kXForwardedHost,
  kXForwardedProto,
  kXRequestId,
};

// Case does not matter.
[[nodiscard]] FieldId IdOf(std::string_view name) noexcept;

struct Field {
  Field(std::string_view its_name, std::string_view its_value) noexcept
      : name(its_name), value(its_value), id(IdOf(its_name)) {}

  std::string_view name;   // as it was sent; compare with EqualsIgnoreCase, or by `id`
  std::string_view value;  // without surrounding spaces and tabs; may be empty
  FieldId id;              // of `name`
};

using Fields = std::vector<Field>;

// How the end of a message's content is found (RFC 9112 section 6).
enum class Framing : std::uint8_t {
  kNone,        // there is no content
  kLength,      // Content-Length bytes, which may be 0
  kChunked,     // Transfer-Encoding: chunked
  kUntilClose,  // responses only: the rest of the connection
};

struct RequestHead {
  std::string_view method;  // a token, at most 32 bytes
  std::string_view target;  // origin-form, absolute-form, authority-form (CONNECT) or "*"
  std::string_view path;    // the target's absolute path without the query: starts with '/',
                            // or is "*"; for absolute-form what follows the authority ("/" if
                            // nothing does); empty for authority-form
  std::string_view query;   // what follows '?', without it; empty when there is none
  std::string_view host;    // the Host field's value, valid as host[:port]; when HTTP/1.0 sent
                            // none, the authority of an absolute-form target, or empty
  int minor_version = 1;    // HTTP/1.x
  bool keep_alive = true;   // RFC 9112 section 9.3
  Framing framing = Framing::kNone;
  std::uint64_t content_length = 0;  // for kLength
  bool expect_continue = false;      // Expect: 100-continue
  Fields fields;
};

// Content follows the head.
[[nodiscard]] inline bool HasContent(const RequestHead& head) noexcept {
  return head.framing == Framing::kChunked ||
         (head.framing == Framing::kLength && head.content_length > 0);
}

struct ResponseHead {
  int status = 0;  // 100 to 599
  std::string_view reason;
  int minor_version = 1;
  bool keep_alive = true;
  Framing framing = Framing::kNone;
  std::uint64_t content_length = 0;  // for kLength; also what a HEAD answer announces
  Fields fields;
};

[[nodiscard]] bool EqualsIgnoreCase(std::string_view a, std::string_view b) noexcept;  // ASCII

// True when the field name `name` is the same as `other` to CGI (RFC 3875 section 4.1.18) and what
// has come of it, to whom all that is no letter or digit is one: "X_User" or "x.user" for "X-User".
[[nodiscard]] bool MayBeTakenFor(std::string_view name, std::string_view other) noexcept;

// The first field of that name, or null. The pointer lives as long as `fields`.
[[nodiscard]] const Field* Find(const Fields& fields, FieldId id) noexcept;

[[nodiscard]] std::size_t Count(const Fields& fields, FieldId id) noexcept;

// Calls `visit(element)` for each non-empty element of the comma-separated list that all fields
// of that name make up together (RFC 9110 section 5.6.1). An element is trimmed, not unquoted.
template <class Visit>
void ForEachListElement(const Fields& fields, FieldId id, Visit&& visit);

// True if the list that all fields of that name make up has `token`, ignoring case.
[[nodiscard]] bool HasToken(const Fields& fields, FieldId id, std::string_view token);

// True for the fields that belong to one connection and are never forwarded: Connection,
// HTTP2-Settings (RFC 7540 section 3.2.1), Keep-Alive, Proxy-Connection, TE, Trailer,
// Transfer-Encoding, Upgrade (RFC 9110 section 7.6.1). What the Connection field names besides is
// the caller's to drop too (IsNamedByConnection).
[[nodiscard]] bool IsHopByHop(FieldId id) noexcept;

// True if a Connection field of `fields` lists `name`.
[[nodiscard]] bool IsNamedByConnection(const Fields& fields, std::string_view name);

// True if the head has to do with authentication that holds for the connection and not for the
// message (Negotiate, RFC 4559; NTLM): whoever used such a connection afterwards would be taken for
// who was authenticated. The schemes of (Proxy-)Authorization and (WWW-, Proxy-)Authenticate.
[[nodiscard]] bool NamesItsConnection(const Fields& fields) noexcept;

// The value of cookie `name` in the Cookie fields, or an empty view (RFC 6265 section 5.4).
[[nodiscard]] std::string_view CookieValue(const Fields& fields, std::string_view name) noexcept;

// The raw value of parameter `name` in a query string, or an empty view. Nothing is decoded.
[[nodiscard]] std::string_view QueryValue(std::string_view query, std::string_view name) noexcept;

// How many more proxies may pass the request on, as its one Max-Forwards field says: OPTIONS alone
// is held to it, TRACE being refused. Nothing when it does not say, or not in digits (RFC 9110
// section 7.6.2).
[[nodiscard]] std::optional<std::uint64_t> MaxForwards(const RequestHead& head) noexcept;

[[nodiscard]] bool IsMaxForwards(const Field& field) noexcept;

// Digits alone: no sign, no blank. Nothing when there is anything else, or too much for 64 bits.
[[nodiscard]] std::optional<std::uint64_t> ParseDigits(std::string_view text) noexcept;

// `text` without leading and trailing spaces and tabs.
[[nodiscard]] std::string_view Trim(std::string_view text) noexcept;

template <class Visit>
void ForEachListElement(const Fields& fields, FieldId id, Visit&& visit) {
  for (const Field& field : fields) {
    if (field.id != id) {
      continue;
    }
    std::string_view rest = field.value;
    while (!rest.empty()) {
      const std::size_t comma = rest.find(',');
      const std::string_view element = Trim(rest.substr(0, comma));
      if (!element.empty()) {
        visit(element);
      }
      rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
    }
  }
}

}  // namespace sluice::http
