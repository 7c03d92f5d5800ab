#include "proxy/http/head.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <iterator>

namespace sluice::http {
namespace {

struct KnownName {
  std::string_view name;
  FieldId id;
};

// By length, so that a name is compared with the few that are as long as it is.
constexpr std::array<KnownName, 29> kKnownNames = {{
    {"TE", FieldId::kTe},
    {"Date", FieldId::kDate},
    {"Host", FieldId::kHost},
    {"Accept", FieldId::kAccept},
    {"Cookie", FieldId::kCookie},
    {"Expect", FieldId::kExpect},
    {"Origin", FieldId::kOrigin},
    {"Trailer", FieldId::kTrailer},
    {"Upgrade", FieldId::kUpgrade},
    {"Forwarded", FieldId::kForwarded},
    {"Connection", FieldId::kConnection},
    {"Keep-Alive", FieldId::kKeepAlive},
    {"Set-Cookie", FieldId::kSetCookie},
    {"User-Agent", FieldId::kUserAgent},
    {"Content-Type", FieldId::kContentType},
    {"X-Request-Id", FieldId::kXRequestId},
    {"Authorization", FieldId::kAuthorization},
    {"Content-Length", FieldId::kContentLength},
    {"HTTP2-Settings", FieldId::kHttp2Settings},
    {"X-Forwarded-For", FieldId::kXForwardedFor},
    {"Proxy-Connection", FieldId::kProxyConnection},
    {"X-Forwarded-Host", FieldId::kXForwardedHost},
    {"Sec-WebSocket-Key", FieldId::kSecWebSocketKey},
    {"Transfer-Encoding", FieldId::kTransferEncoding},
    {"X-Forwarded-Proto", FieldId::kXForwardedProto},
    {"Sec-WebSocket-Accept", FieldId::kSecWebSocketAccept},
    {"Sec-WebSocket-Version", FieldId::kSecWebSocketVersion},
    {"Sec-WebSocket-Protocol", FieldId::kSecWebSocketProtocol},
    {"Sec-WebSocket-Extensions", FieldId::kSecWebSocketExtensions},
}};

constexpr std::size_t kLongestKnown = kKnownNames.back().name.size();

// kFirstOfLength[n]: where the names of n bytes begin, which is where those of n - 1 bytes end.
constexpr std::array<std::uint8_t, kLongestKnown + 2> kFirstOfLength = [] {
  std::array<std::uint8_t, kLongestKnown + 2> first{};
  for (std::size_t length = 0; length < first.size(); ++length) {
    std::size_t at = 0;
    while (at < kKnownNames.size() && kKnownNames[at].name.size() < length) {
      ++at;
    }
    first[length] = static_cast<std::uint8_t>(at);
  }
  return first;
}();

constexpr unsigned char Lower(char c) noexcept {
  const auto u = static_cast<unsigned char>(c);
  return u >= 'A' && u <= 'Z' ? static_cast<unsigned char>(u | 0x20) : u;
}

constexpr bool IsLetterOrDigit(char c) noexcept {
  const unsigned char lower = Lower(c);
  return (lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9');
}

constexpr bool IsBlank(char c) noexcept {
  return c == ' ' || c == '\t';
}

// The value of `name` in a list of name=value pairs with `separator` between them.
std::string_view PairValue(std::string_view list, char separator, std::string_view name) noexcept {
  while (!list.empty()) {
    const std::size_t end = list.find(separator);
    const std::string_view pair = Trim(list.substr(0, end));
    if (pair.size() > name.size() && pair[name.size()] == '=' && pair.starts_with(name)) {
      return pair.substr(name.size() + 1);
    }
    list = end == std::string_view::npos ? std::string_view() : list.substr(end + 1);
  }
  return {};
}

}  // namespace

bool EqualsIgnoreCase(std::string_view a, std::string_view b) noexcept {
  if (a.size() != b.size()) {
    return false;
  }
  std::size_t i = 0;
  // Most names are written in the usual case: eight bytes a step as long as they are the same.
  for (std::uint64_t x = 0, y = 0; a.size() - i >= sizeof(x); i += sizeof(x)) {
    std::memcpy(&x, a.data() + i, sizeof(x));
    std::memcpy(&y, b.data() + i, sizeof(y));
    if (x != y) {
      break;
    }
  }
  for (; i < a.size(); ++i) {
    if (a[i] != b[i] && Lower(a[i]) != Lower(b[i])) {
      return false;
    }
  }
  return true;
}

bool MayBeTakenFor(std::string_view name, std::string_view other) noexcept {
  return name.size() == other.size() &&
         std::equal(name.begin(), name.end(), other.begin(), [](char a, char b) {
           return Lower(a) == Lower(b) || !(IsLetterOrDigit(a) || IsLetterOrDigit(b));
         });
}

FieldId IdOf(std::string_view name) noexcept {
  if (name.size() > kLongestKnown || name.empty()) {
    return FieldId::kOther;
  }
  const unsigned char initial = Lower(name.front());
  for (std::size_t i = kFirstOfLength[name.size()]; i < kFirstOfLength[name.size() + 1]; ++i) {
    if (Lower(kKnownNames[i].name.front()) == initial &&
        EqualsIgnoreCase(kKnownNames[i].name, name)) {
      return kKnownNames[i].id;
    }
  }
  return FieldId::kOther;
}

const Field* Find(const Fields& fields, FieldId id) noexcept {
  for (const Field& field : fields) {
    if (field.id == id) {
      return &field;
    }
  }
  return nullptr;
}

std::size_t Count(const Fields& fields, FieldId id) noexcept {
  std::size_t count = 0;
  for (const Field& field : fields) {
    count += field.id == id ? 1U : 0U;
  }
  return count;
}

bool HasToken(const Fields& fields, FieldId id, std::string_view token) {
  bool found = false;
  ForEachListElement(fields, id, [&](std::string_view element) {
    found = found || EqualsIgnoreCase(element, token);
  });
  return found;
}

bool IsHopByHop(FieldId id) noexcept {
  switch (id) {
    case FieldId::kConnection:
    case FieldId::kHttp2Settings:
    case FieldId::kKeepAlive:
    case FieldId::kProxyConnection:
    case FieldId::kTe:
    case FieldId::kTrailer:
    case FieldId::kTransferEncoding:
    case FieldId::kUpgrade:
      return true;
    default:
      return false;
  }
}

bool NamesItsConnection(const Fields& fields) noexcept {
  constexpr std::array<std::string_view, 3> kNames{"Proxy-Authorization", "WWW-Authenticate",
                                                   "Proxy-Authenticate"};
  constexpr std::array<std::string_view, 2> kSchemes{"Negotiate", "NTLM"};
  return std::any_of(fields.begin(), fields.end(), [&](const Field& field) {
    const bool is_credential =
        field.id == FieldId::kAuthorization ||
        (field.id == FieldId::kOther && std::any_of(kNames.begin(), kNames.end(), [&](auto name) {
           return EqualsIgnoreCase(field.name, name);
         }));
    return is_credential &&
           std::any_of(kSchemes.begin(), kSchemes.end(), [&](std::string_view scheme) {
             return EqualsIgnoreCase(field.value.substr(0, scheme.size()), scheme);
           });
  });
}

bool IsNamedByConnection(const Fields& fields, std::string_view name) {
  return HasToken(fields, FieldId::kConnection, name);
}

std::string_view CookieValue(const Fields& fields, std::string_view name) noexcept {
  for (const Field& field : fields) {
    if (field.id == FieldId::kCookie) {
      const std::string_view value = PairValue(field.value, ';', name);
      if (!value.empty()) {
        return value;
      }
    }
  }
  return {};
}

std::string_view QueryValue(std::string_view query, std::string_view name) noexcept {
  return PairValue(query, '&', name);
}

std::optional<std::uint64_t> MaxForwards(const RequestHead& head) noexcept {
  if (head.method != "OPTIONS") {
    return std::nullopt;
  }
  const auto found = std::find_if(head.fields.begin(), head.fields.end(), IsMaxForwards);
  if (found == head.fields.end()) {
    return std::nullopt;
  }
  const bool is_only = std::none_of(std::next(found), head.fields.end(), IsMaxForwards);
  return is_only ? ParseDigits(found->value) : std::nullopt;
}

bool IsMaxForwards(const Field& field) noexcept {
  return field.id == FieldId::kOther && EqualsIgnoreCase(field.name, "Max-Forwards");
}

std::optional<std::uint64_t> ParseDigits(std::string_view text) noexcept {
  std::uint64_t value = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value);
  return error == std::errc() && end == last ? std::optional(value) : std::nullopt;
}

std::string_view Trim(std::string_view text) noexcept {
  while (!text.empty() && IsBlank(text.front())) {
    text.remove_prefix(1);
  }
  while (!text.empty() && IsBlank(text.back())) {
    text.remove_suffix(1);
  }
  return text;
}

}  // namespace sluice::http
