// Checks the WebSocket opening handshake in both directions (RFC 6455 sections 4.1, 4.2).
// Pure: verdicts only; session answers, counts and logs them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "proxy/http/head.h"

namespace sluice::ws {

// RFC 6455 section 4.2.2 item 4: base64(SHA-1(key + GUID)), 28 characters.
[[nodiscard]] std::string AcceptKey(std::string_view key);

// What a client offered and the backend's 101 is checked against. Owns its strings: it outlives
// the request head.
struct UpgradeOffer {
  std::string accept;                    // the Sec-WebSocket-Accept that must come back
  std::vector<std::string> protocols;    // offered subprotocols, as sent
  std::vector<std::string> extensions;   // names of offered extensions, without parameters
};

struct UpgradeVerdict {
  enum class Kind {
    kPlainHttp,  // not a WebSocket upgrade: Upgrade and its Connection token are to be dropped
    kUpgrade,    // a valid one: `offer` is set
    kRefuse,     // one that must be refused: `status`, `text` and `extra_fields` are set
  };
  Kind kind = Kind::kPlainHttp;
  UpgradeOffer offer;
  int status = 0;
  std::string_view text;          // static: what is wrong, one sentence for the answer's body
  std::string_view extra_fields;  // static: whole field lines with CRLF, or empty
  std::string_view label;         // static: a word from a closed set for the metric
};

// A request is an upgrade when Connection lists `upgrade` and the Upgrade fields together hold
// exactly the one token `websocket`. Everything else is plain HTTP.
[[nodiscard]] UpgradeVerdict CheckUpgradeRequest(const http::RequestHead& head);

struct UpgradeAgreement {
  bool ok = false;
  bool rsv1 = false;            // permessage-deflate was agreed
  std::string_view protocol;    // the agreed subprotocol: a view into the head, or empty
  std::string_view extensions;  // the agreed extensions' field value: a view, or empty
  std::string_view reason;      // static: why not ok
};

// Checks a 101 against the offer.
// REQUIRES: head.status == 101.
[[nodiscard]] UpgradeAgreement CheckUpgradeResponse(const http::ResponseHead& head,
                                                    const UpgradeOffer& offer);

}  // namespace sluice::ws
