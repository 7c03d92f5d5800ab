// Checks the WebSocket opening handshake in both directions (RFC 6455 sections 4.1, 4.2).
// Pure: verdicts only; session answers, counts and logs them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "proxy/http/head.h"

namespace sluice::ws {

// RFC 6455 section 4.2.2 item 5.4: base64(SHA-1(key + GUID)), 28 characters. Empty if libcrypto
// has no SHA-1, which then matches no answer.
[[nodiscard]] std::string AcceptKey(std::string_view key);

// What a client offered and the backend's 101 is checked against. Owns its strings: it outlives
// the request head.
struct UpgradeOffer {
  std::string accept;                   // the Sec-WebSocket-Accept that must come back
  std::vector<std::string> protocols;   // offered subprotocols, as sent; at most 64
  std::vector<std::string> extensions;  // names of offered extensions, each once; at most 64
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
// Of several things that are wrong the first is told, in this order of labels: method 405,
// http_version 400, body 400, key 400, version 426 (400 when it is there twice), protocol 400,
// extensions 400. An answer of 426 names Upgrade; the caller writes the Connection field.
// Takes time linear in the size of the head.
[[nodiscard]] UpgradeVerdict CheckUpgradeRequest(const http::RequestHead& head);

struct UpgradeAgreement {
  bool ok = false;
  bool rsv1 = false;            // permessage-deflate was agreed
  bool all_known = true;        // and no extension but that
  std::string_view protocol;    // the agreed subprotocol: a view into the head, or empty
  std::string_view extensions;  // the agreed extensions' field value: a view, or empty
  std::string_view reason;      // static: why not ok, half a sentence for the log
};

// Checks the backend's answer against the offer: status 101, Upgrade and Connection, the one right
// Sec-WebSocket-Accept, no subprotocol or extension that was not offered (compared exactly), no
// content. A Content-Length of 0 is let pass; it is best not forwarded.
// Any other status is not ok, whatever its fields say: it is to be relayed as plain HTTP.
[[nodiscard]] UpgradeAgreement CheckUpgradeResponse(const http::ResponseHead& head,
                                                    const UpgradeOffer& offer);

}  // namespace sluice::ws
