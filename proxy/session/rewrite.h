// Rewrites heads on their way through: a request for the backend, a response for the client.
// Hop-by-hop fields are replaced (RFC 9110 section 7.6.1), forwarding fields are set.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "proxy/config/config.h"
#include "proxy/http/head.h"
#include "proxy/net/address.h"

namespace sluice::session {

// What a route changes in a head. Names are taken off what was sent, then whole lines put on,
// behind all of it. Views into the snapshot, where they were made once.
struct HeadChange {
  std::span<const std::string> removed;
  std::string_view added;
};

struct ForwardFacts {
  std::string_view peer_ip;     // the client's end of the connection
  bool tls = false;             // the client came over TLS
  bool peer_trusted = false;    // the peer's own forwarding fields are believed and added to
  std::string_view request_id;  // replaces X-Request-Id
  HeadChange change = {};
  std::string_view added = {};  // whole field lines that go out as they are, or empty
  bool readable = false;        // Accept-Encoding goes no further: the answer is to be read here
};

// What a request makes of the connection that takes it to its backend.
enum class Passage : std::uint8_t {
  kUpgrade,    // a checked WebSocket upgrade; in any other every Upgrade field is dropped
  kKeepAlive,  // the connection may carry further requests
  kClose,      // the backend is asked to close it behind its answer
};

// The head that a backend is sent, ending with the empty line. The target is in origin-form.
[[nodiscard]] std::string BackendRequest(const http::RequestHead& head, const ForwardFacts& facts,
                                         Passage passage);

// The head that asks an auth server about the request `head`.
[[nodiscard]] std::string AuthRequest(const http::RequestHead& head, const ForwardFacts& facts,
                                      const config::Auth& auth);

struct ClientResponse {
  bool chunked = false;         // add Transfer-Encoding: chunked
  bool close = false;           // add Connection: close
  std::string_view set_cookie;  // a whole Set-Cookie value, or empty
  std::string_view date;        // of now; goes into a final answer that has none (RFC 9110 section
                                // 6.6.1); empty: nothing does
  HeadChange change = {};
};

// The head that a client is sent. The version is always HTTP/1.1.
[[nodiscard]] std::string ClientHead(const http::ResponseHead& head, const ClientResponse& how);

// The address that the request comes from: the peer, or, when `is_trusted(peer)`, the rightmost
// one of X-Forwarded-For that is not trusted; of Forwarded, when there is no X-Forwarded-For. Each
// hop is believed about the one to the left of it for as long as all are trusted: the list ends
// where one hides its client or names what is no address.
[[nodiscard]] std::string OriginalClient(
    const http::RequestHead& head, const net::Address& peer,
    const std::function<bool(const net::Address&)>& is_trusted);

// True for a request id that is worth keeping: 1 to 128 visible ASCII characters.
[[nodiscard]] bool IsUsableRequestId(std::string_view id) noexcept;

}  // namespace sluice::session
