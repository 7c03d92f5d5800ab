#include "proxy/session/rewrite.h"

#include <algorithm>

#include "proxy/http/forwarded.h"
#include "proxy/http/reply.h"

namespace sluice::session {
namespace {

using http::AppendField;
using http::FieldId;

// Tells which fields of one head go no further: those of one hop, and those that its Connection
// field names besides.
class Filter {
 public:
  explicit Filter(const http::Fields& fields) noexcept : fields_(fields) {
    http::ForEachListElement(fields, FieldId::kConnection, [&](std::string_view option) {
      names_more_ = names_more_ || !http::IsHopByHop(http::IdOf(option));
    });
  }

  [[nodiscard]] bool Drops(const http::Field& field) const {
    return http::IsHopByHop(field.id) ||
           (names_more_ && MayBeNamed(field) && http::IsNamedByConnection(fields_, field.name));
  }

 private:
  // What routing, framing and the handshake were decided by cannot be taken off by naming it in
  // Connection: the other end must see what was checked here.
  static bool MayBeNamed(const http::Field& field) noexcept {
    constexpr std::string_view kWebSocket = "sec-websocket-";
    switch (field.id) {
      case FieldId::kAuthorization:
      case FieldId::kContentLength:
      case FieldId::kContentType:
      case FieldId::kCookie:
      case FieldId::kHost:
      case FieldId::kOrigin:
      case FieldId::kSetCookie:
      case FieldId::kXRequestId:
        return false;
      default:
        return !http::EqualsIgnoreCase(field.name.substr(0, kWebSocket.size()), kWebSocket);
    }
  }

  const http::Fields& fields_;
  bool names_more_ = false;  // than what is dropped anyway; seldom
};

// What Sluice writes itself, from what it knows.
bool IsReplaced(FieldId id) noexcept {
  switch (id) {
    case FieldId::kContentLength:
    case FieldId::kForwarded:
    case FieldId::kHost:
    case FieldId::kXForwardedFor:
    case FieldId::kXForwardedHost:
    case FieldId::kXForwardedProto:
    case FieldId::kXRequestId:
      return true;
    default:
      return false;
  }
}

// True for what the route takes off, also when it is spelled in another way: it is not wanted
// behind here.
bool IsRemoved(const HeadChange& change, const http::Field& field) noexcept {
  return !change.removed.empty() &&
         std::any_of(change.removed.begin(), change.removed.end(), [&](const std::string& name) {
           return http::MayBeTakenFor(field.name, name);
         });
}

// What others believe about the client as they believe the fields above. Of a peer that is not
// trusted no copy goes further, nor what may be taken for one.
bool SpeaksForTheClient(const http::Field& field) noexcept {
  constexpr std::string_view kPrefix = "X-Forwarded-";
  return field.id == FieldId::kOther &&
         (http::MayBeTakenFor(field.name.substr(0, kPrefix.size()), kPrefix) ||
          http::MayBeTakenFor(field.name, "X-Real-IP"));
}

// All fields of that name as one list, with ", " behind it unless it is empty.
void AppendInherited(std::string& out, const http::Fields& fields, FieldId id) {
  http::ForEachListElement(fields, id, [&](std::string_view element) {
    out += element;
    out += ", ";
  });
}

// RFC 9110 section 7.6.3: the version that the message came in, and who passes it on. Others'
// entries were copied before, so the list is in order.
void AppendVia(std::string& out, int minor_version) {
  out += minor_version == 0 ? "Via: 1.0 sluice\r\n" : "Via: 1.1 sluice\r\n";
}

// RFC 7239 section 4: what is not a token goes into quotes, IPv6 into brackets too.
void AppendForwardedElement(std::string& out, const http::RequestHead& head,
                            const ForwardFacts& facts) {
  out += "for=";
  if (facts.peer_ip.find(':') == std::string_view::npos) {
    out += facts.peer_ip;
  } else {
    out += "\"[";
    out += facts.peer_ip;
    out += "]\"";
  }
  if (!head.host.empty()) {
    out += ";host=\"";
    out += head.host;  // checked: it has no quote in it
    out += '"';
  }
  out += facts.tls ? ";proto=https" : ";proto=http";
}

void AppendForwarding(std::string& out, const http::RequestHead& head, const ForwardFacts& facts) {
  out += "X-Forwarded-For: ";
  if (facts.peer_trusted) {
    AppendInherited(out, head.fields, FieldId::kXForwardedFor);
  }
  out += facts.peer_ip;
  out += "\r\n";

  const auto first_or = [&](FieldId id, std::string_view otherwise) {
    const http::Field* field = facts.peer_trusted ? Find(head.fields, id) : nullptr;
    return field == nullptr ? otherwise : field->value;
  };
  AppendField(out, "X-Forwarded-Proto",
              first_or(FieldId::kXForwardedProto, facts.tls ? "https" : "http"));
  if (const std::string_view host = first_or(FieldId::kXForwardedHost, head.host); !host.empty()) {
    AppendField(out, "X-Forwarded-Host", host);
  }
  out += "Forwarded: ";
  // Behind an open quote our own element would be a part of somebody else's.
  if (facts.peer_trusted && http::ForwardedNodes(head.fields)) {
    AppendInherited(out, head.fields, FieldId::kForwarded);
  }
  AppendForwardedElement(out, head, facts);
  out += "\r\n";
}

// In origin-form.
void AppendTarget(std::string& out, const http::RequestHead& head) {
  out += head.path;
  // "/?" and "/" are different targets (RFC 3986 section 6.2.3), so an empty query stays one.
  if (head.target.find('?') != std::string_view::npos) {
    out += '?';
    out += head.query;
  }
}

}  // namespace

std::string OriginalClient(const http::RequestHead& head, const net::Address& peer,
                           const std::function<bool(const net::Address&)>& is_trusted) {
  std::string client = peer.Ip();
  if (!is_trusted(peer)) {
    return client;
  }
  std::vector<std::string> hops;
  http::ForEachListElement(head.fields, FieldId::kXForwardedFor,
                           [&](std::string_view element) { hops.emplace_back(element); });
  if (hops.empty()) {
    hops = http::ForwardedNodes(head.fields).value_or(std::vector<std::string>());
  }
  for (auto hop = hops.rbegin(); hop != hops.rend(); ++hop) {
    const auto address = net::Address::FromNumeric(std::string(http::AddressOfNode(*hop)), 0);
    if (!address) {
      break;
    }
    client = address->Ip();
    if (!is_trusted(*address)) {
      break;
    }
  }
  return client;
}

bool IsUsableRequestId(std::string_view id) noexcept {
  constexpr std::size_t kLongest = 128;
  return !id.empty() && id.size() <= kLongest &&
         std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < 0x7F; });
}

std::string BackendRequest(const http::RequestHead& head, const ForwardFacts& facts,
                           Passage passage) {
  std::string out;
  out.reserve(1024);
  out += head.method;
  out += ' ';
  AppendTarget(out, head);
  out += " HTTP/1.1\r\n";
  // Empty when HTTP/1.0 named none: HTTP/1.1 wants the field all the same (RFC 9110 section 7.2).
  AppendField(out, "Host", head.host);
  const Filter filter(head.fields);
  const auto max_forwards = http::MaxForwards(head);
  for (const http::Field& field : head.fields) {
    const bool believed = facts.peer_trusted || !SpeaksForTheClient(field);
    // RFC 9110 section 10.1.1: HTTP/1.0 has no such expectation.
    const bool means_nothing = head.minor_version == 0 && field.id == FieldId::kExpect;
    const bool is_counted = max_forwards && http::IsMaxForwards(field);
    const bool withheld = facts.readable && http::EqualsIgnoreCase(field.name, "Accept-Encoding");
    if (believed && !withheld && !is_counted && !means_nothing && !IsReplaced(field.id) &&
        !filter.Drops(field) && !IsRemoved(facts.change, field)) {
      AppendField(out, field.name, field.value);
    }
  }
  if (max_forwards) {
    AppendField(out, "Max-Forwards", std::to_string(*max_forwards - 1));
  }
  AppendForwarding(out, head, facts);
  AppendField(out, "X-Request-Id", facts.request_id);
  out += facts.added;
  AppendVia(out, head.minor_version);
  out += facts.change.added;
  if (passage == Passage::kUpgrade) {
    out += "Connection: Upgrade\r\nUpgrade: websocket\r\n";
  } else {
    // From what was parsed, not from what was sent: this decides where the request ends.
    if (head.framing == http::Framing::kChunked) {
      out += "Transfer-Encoding: chunked\r\n";
    } else if (head.framing == http::Framing::kLength) {
      AppendField(out, "Content-Length", std::to_string(head.content_length));
    }
    const bool close = passage == Passage::kClose;
    // The one word of TE that goes on: what it allows the backend to send is dropped here, but some
    // backends want to be allowed (RFC 9110 section 10.1.4). It is of this hop, so it is named.
    if (http::HasToken(head.fields, FieldId::kTe, "trailers")) {
      out += close ? "TE: trailers\r\nConnection: TE, close\r\n"
                   : "TE: trailers\r\nConnection: TE\r\n";
    } else if (close) {
      out += "Connection: close\r\n";
    }
  }
  out += "\r\n";
  return out;
}

std::string AuthRequest(const http::RequestHead& head, const ForwardFacts& facts,
                        const config::Auth& auth) {
  std::string out;
  out.reserve(1024);
  out.append("GET ").append(auth.target).append(" HTTP/1.1\r\n");
  AppendField(out, "Host", auth.authority);
  const Filter filter(head.fields);  // as for the backend: both see the same request
  for (const http::Field& field : head.fields) {
    const bool wanted = std::any_of(
        auth.forward.begin(), auth.forward.end(),
        [&](const std::string& name) { return http::EqualsIgnoreCase(field.name, name); });
    if (wanted && !filter.Drops(field) && (facts.peer_trusted || !SpeaksForTheClient(field))) {
      AppendField(out, field.name, field.value);
    }
  }
  AppendField(out, "X-Original-Method", head.method);
  out += "X-Original-URI: ";
  AppendTarget(out, head);
  out += "\r\n";
  AppendForwarding(out, head, facts);
  AppendField(out, "X-Request-Id", facts.request_id);
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
  // RFC 9110 section 8.6: no Content-Length in a 1xx or 204.
  const bool drop_length = head.status < 200 || head.status == 204;
  const Filter filter(head.fields);
  for (const http::Field& field : head.fields) {
    if (keep_upgrade && field.id == FieldId::kUpgrade) {
      has_upgrade = true;
    } else if (filter.Drops(field) || (drop_length && field.id == FieldId::kContentLength) ||
               IsRemoved(how.change, field)) {
      continue;
    }
    AppendField(out, field.name, field.value);
  }
  if (!how.set_cookie.empty()) {
    AppendField(out, "Set-Cookie", how.set_cookie);
  }
  if (head.status >= 200) {
    if (!how.date.empty() && Find(head.fields, FieldId::kDate) == nullptr) {
      AppendField(out, "Date", how.date);
    }
    AppendVia(out, head.minor_version);
  }
  out += how.change.added;
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
