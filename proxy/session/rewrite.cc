#include "proxy/session/rewrite.h"

#include <algorithm>
#include <array>

#include "proxy/http/reply.h"

namespace sluice::session {
namespace {

using http::AppendField;
using http::EqualsIgnoreCase;

bool IsForwarding(std::string_view name) noexcept {
  return EqualsIgnoreCase(name, "x-forwarded-for") || EqualsIgnoreCase(name, "x-forwarded-proto") ||
         EqualsIgnoreCase(name, "x-forwarded-host") || EqualsIgnoreCase(name, "forwarded");
}

// True if the Connection field takes this one off. What routing, framing and the handshake were
// decided by cannot be taken off that way: the other end must see what was checked here.
bool IsDropped(const http::Fields& fields, std::string_view name) {
  if (http::IsHopByHop(name)) {
    return true;
  }
  constexpr std::array<std::string_view, 8> kKept{"content-length", "host",        "origin",
                                                  "cookie",         "set-cookie",  "authorization",
                                                  "content-type",   "x-request-id"};
  constexpr std::string_view kWebSocket = "sec-websocket-";
  if (std::any_of(kKept.begin(), kKept.end(),
                  [&](std::string_view kept) { return EqualsIgnoreCase(kept, name); }) ||
      EqualsIgnoreCase(name.substr(0, kWebSocket.size()), kWebSocket)) {
    return false;
  }
  return IsNamedByConnection(fields, name);
}

// All fields of that name as one list, with ", " behind it unless it is empty.
std::string Inherited(const http::Fields& fields, std::string_view name) {
  std::string list;
  http::ForEachListElement(fields, name, [&](std::string_view element) {
    list += element;
    list += ", ";
  });
  return list;
}

// RFC 7239 section 4: what is not a token goes into quotes, IPv6 into brackets too.
std::string ForwardedElement(const http::RequestHead& head, const ForwardFacts& facts) {
  std::string element = "for=";
  if (facts.peer_ip.find(':') == std::string_view::npos) {
    element += facts.peer_ip;
  } else {
    element += "\"[";
    element += facts.peer_ip;
    element += "]\"";
  }
  if (!head.host.empty()) {
    element += ";host=\"";
    element += head.host;  // checked: it has no quote in it
    element += '"';
  }
  element += facts.tls ? ";proto=https" : ";proto=http";
  return element;
}

void AppendForwarding(std::string& out, const http::RequestHead& head, const ForwardFacts& facts) {
  const auto inherited = [&](std::string_view name) {
    return facts.peer_trusted ? Inherited(head.fields, name) : std::string();
  };
  std::string list = inherited("x-forwarded-for");
  list += facts.peer_ip;
  AppendField(out, "X-Forwarded-For", list);

  const auto first_or = [&](std::string_view name, std::string_view otherwise) {
    const http::Field* field = facts.peer_trusted ? Find(head.fields, name) : nullptr;
    return field == nullptr ? otherwise : field->value;
  };
  AppendField(out, "X-Forwarded-Proto",
              first_or("x-forwarded-proto", facts.tls ? "https" : "http"));
  if (const std::string_view host = first_or("x-forwarded-host", head.host); !host.empty()) {
    AppendField(out, "X-Forwarded-Host", host);
  }
  AppendField(out, "Forwarded", inherited("forwarded") + ForwardedElement(head, facts));
}

}  // namespace

bool IsUsableRequestId(std::string_view id) noexcept {
  constexpr std::size_t kLongest = 128;
  return !id.empty() && id.size() <= kLongest &&
         std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < 0x7F; });
}

std::string BackendRequest(const http::RequestHead& head, const ForwardFacts& facts, bool upgrade) {
  std::string out;
  out.reserve(1024);
  out += head.method;
  out += ' ';
  out += head.path;
  // "/?" and "/" are different targets (RFC 3986 section 6.2.3), so an empty query stays one.
  if (head.target.find('?') != std::string_view::npos) {
    out += '?';
    out += head.query;
  }
  out += " HTTP/1.1\r\n";
  // Empty when HTTP/1.0 named none: HTTP/1.1 wants the field all the same (RFC 9110 section 7.2).
  AppendField(out, "Host", head.host);
  for (const http::Field& field : head.fields) {
    if (IsDropped(head.fields, field.name) || IsForwarding(field.name) ||
        EqualsIgnoreCase(field.name, "host") || EqualsIgnoreCase(field.name, "x-request-id") ||
        EqualsIgnoreCase(field.name, "content-length")) {
      continue;
    }
    AppendField(out, field.name, field.value);
  }
  AppendForwarding(out, head, facts);
  AppendField(out, "X-Request-Id", facts.request_id);
  if (upgrade) {
    out += "Connection: Upgrade\r\nUpgrade: websocket\r\n";
  } else {
    // From what was parsed, not from what was sent: this decides where the request ends.
    if (head.framing == http::Framing::kChunked) {
      out += "Transfer-Encoding: chunked\r\n";
    } else if (head.framing == http::Framing::kLength) {
      AppendField(out, "Content-Length", std::to_string(head.content_length));
    }
    out += "Connection: close\r\n";
  }
  out += "\r\n";
  return out;
}

std::string ClientHead(const http::ResponseHead& head, const ClientResponse& how) {
  std::string out;
  out.reserve(512);
  out += "HTTP/1.1 ";
  out += std::to_string(head.status);
  out += ' ';
  out += head.reason.empty() ? http::ReasonPhrase(head.status) : head.reason;
  out += "\r\n";
  // 101 and 426 speak about this hop: there Upgrade is the message (RFC 9110 sections 15.2.2,
  // 15.5.22). Anywhere else it would offer what is not on offer.
  const bool keep_upgrade = head.status == 101 || head.status == 426;
  bool has_upgrade = false;
  for (const http::Field& field : head.fields) {
    const bool is_upgrade = EqualsIgnoreCase(field.name, "upgrade");
    if (is_upgrade && keep_upgrade) {
      has_upgrade = true;
    } else if (IsDropped(head.fields, field.name) ||
               ((head.status < 200 || head.status == 204) &&
                EqualsIgnoreCase(field.name, "content-length"))) {
      continue;  // RFC 9110 section 8.6: no Content-Length in a 1xx or 204
    }
    AppendField(out, field.name, field.value);
  }
  if (!how.set_cookie.empty()) {
    AppendField(out, "Set-Cookie", how.set_cookie);
  }
  if (how.chunked) {
    out += "Transfer-Encoding: chunked\r\n";
  }
  if (has_upgrade) {
    out += how.close ? "Connection: Upgrade, close\r\n" : "Connection: Upgrade\r\n";
  } else if (how.close) {
    out += "Connection: close\r\n";
  }
  out += "\r\n";
  return out;
}

}  // namespace sluice::session
