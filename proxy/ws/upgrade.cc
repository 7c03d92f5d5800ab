#include "proxy/ws/upgrade.h"

#include <algorithm>
#include <array>

#include <openssl/evp.h>

#include "proxy/base/base64.h"
#include "proxy/base/bytes.h"
#include "proxy/base/c_handle.h"

namespace sluice::ws {
namespace {

using http::FieldId;
using http::Fields;

// No client offers near as many subprotocols or extensions; the bound keeps every comparison of
// the lists, and the strings that an offer owns, small whatever a 32 KiB head holds.
constexpr std::size_t kMaxOffered = 64;

// RFC 9110 section 5.6.2.
constexpr std::array<bool, 256> kTokenChars = [] {
  std::array<bool, 256> table{};
  for (const char c : std::string_view("!#$%&'*+-.^_`|~0123456789"
                                       "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")) {
    table[static_cast<unsigned char>(c)] = true;
  }
  return table;
}();

constexpr bool IsTokenChar(char c) noexcept {
  return kTokenChars[static_cast<unsigned char>(c)];
}

bool IsToken(std::string_view text) noexcept {
  return !text.empty() && std::all_of(text.begin(), text.end(), IsTokenChar);
}

// Reads one Sec-WebSocket-Extensions value (RFC 6455 section 9.1) from left to right, each byte
// once: list = extension *( "," extension ), extension = token *( ";" token [ "=" value ] ).
class ExtensionReader {
 public:
  explicit ExtensionReader(std::string_view text) noexcept : rest_(text) {}

  // Calls `visit(name)` for each extension; false when the syntax is broken.
  template <class Visit>
  [[nodiscard]] bool ReadList(Visit&& visit) {
    for (;;) {
      SkipSpace();
      if (rest_.empty()) {
        return true;
      }
      // RFC 9110 section 5.6.1.2: empty elements are ignored.
      if (Take(',')) {
        continue;
      }
      const std::string_view name = TakeToken();
      if (name.empty() || !ReadParameters()) {
        return false;
      }
      visit(name);
      if (!rest_.empty() && !Take(',')) {
        return false;
      }
    }
  }

 private:
  [[nodiscard]] bool ReadParameters() noexcept {
    for (SkipSpace(); Take(';'); SkipSpace()) {
      SkipSpace();
      if (TakeToken().empty()) {
        return false;
      }
      SkipSpace();
      if (Take('=')) {
        SkipSpace();
        if (Take('"') ? !ReadQuotedToken() : TakeToken().empty()) {
          return false;
        }
      }
    }
    return true;
  }

  // What follows the opening quote. Section 9.1: unquoted, the value must be a token.
  [[nodiscard]] bool ReadQuotedToken() noexcept {
    bool some = false;
    while (!Take('"')) {
      Take('\\');
      if (rest_.empty() || !IsTokenChar(rest_.front())) {
        return false;
      }
      rest_.remove_prefix(1);
      some = true;
    }
    return some;
  }

  std::string_view TakeToken() noexcept {
    std::size_t size = 0;
    while (size < rest_.size() && IsTokenChar(rest_[size])) {
      ++size;
    }
    const std::string_view token = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return token;
  }

  bool Take(char c) noexcept {
    if (rest_.empty() || rest_.front() != c) {
      return false;
    }
    rest_.remove_prefix(1);
    return true;
  }

  void SkipSpace() noexcept {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t')) {
      rest_.remove_prefix(1);
    }
  }

  std::string_view rest_;
};

// True if the Upgrade lines together hold `websocket` and nothing else. Every line counts: a
// second one with another protocol must not slip past a look at the first.
bool UpgradesToWebSocketOnly(const Fields& fields) {
  std::size_t tokens = 0;
  bool websocket = false;
  http::ForEachListElement(fields, FieldId::kUpgrade, [&](std::string_view token) {
    ++tokens;
    websocket = http::EqualsIgnoreCase(token, "websocket");
  });
  return tokens == 1 && websocket;
}

bool IsUpgradeKey(std::string_view value) noexcept {
  return Base64DecodedSize(value) == std::size_t{16};
}

// Fills `protocols`; false if one is not a token, comes twice, or there are too many.
bool ReadProtocols(const Fields& fields, std::vector<std::string>& protocols) {
  bool good = true;
  http::ForEachListElement(fields, FieldId::kSecWebSocketProtocol, [&](std::string_view protocol) {
    good = good && protocols.size() < kMaxOffered && IsToken(protocol) &&
           std::find(protocols.begin(), protocols.end(), protocol) == protocols.end();
    if (good) {
      protocols.emplace_back(protocol);
    }
  });
  return good;
}

// Fills `extensions` with each name once; false on bad syntax or too many.
bool ReadExtensions(const Fields& fields, std::vector<std::string>& extensions) {
  bool few = true;
  for (const http::Field& field : fields) {
    if (field.id != FieldId::kSecWebSocketExtensions) {
      continue;
    }
    const bool good = ExtensionReader(field.value).ReadList([&](std::string_view name) {
      // A client may offer one extension several times with other parameters (RFC 7692 section 5).
      if (!few || std::find(extensions.begin(), extensions.end(), name) != extensions.end()) {
        return;
      }
      few = extensions.size() < kMaxOffered;
      if (few) {
        extensions.emplace_back(name);
      }
    });
    if (!good || !few) {
      return false;
    }
  }
  return true;
}

UpgradeVerdict Refuse(int status, std::string_view label, std::string_view text,
                      std::string_view extra_fields = {}) {
  UpgradeVerdict verdict;
  verdict.kind = UpgradeVerdict::Kind::kRefuse;
  verdict.status = status;
  verdict.label = label;
  verdict.text = text;
  verdict.extra_fields = extra_fields;
  return verdict;
}

UpgradeVerdict RefuseVersion() {
  // RFC 9110 section 15.5.22 wants Upgrade in a 426. The Connection field that goes with it is
  // left to the session, which writes `Connection: close` in every refusal.
  return Refuse(426, "version", "The only WebSocket version spoken here is 13.",
                "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n");
}

UpgradeAgreement Disagree(std::string_view reason) {
  UpgradeAgreement agreement;
  agreement.reason = reason;
  return agreement;
}

// True if the head announces content, which a 101 cannot have (RFC 9110 sections 8.6, 15.2). A
// Content-Length of 0 is as wrong, but harmless and seen.
bool AnnouncesContent(const Fields& fields) noexcept {
  return std::any_of(fields.begin(), fields.end(), [](const http::Field& field) {
    return field.id == FieldId::kTransferEncoding ||
           (field.id == FieldId::kContentLength && field.value != "0");
  });
}

template <class Strings>
bool Contains(const Strings& strings, std::string_view text) noexcept {
  return std::find(strings.begin(), strings.end(), text) != strings.end();
}

}  // namespace

std::string AcceptKey(std::string_view key) {
  constexpr std::string_view kGuid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";  // section 1.3
  // To look the algorithm up and to set a context up costs more than the digest itself.
  static const CHandle<EVP_MD, EVP_MD_free> sha1(EVP_MD_fetch(nullptr, "SHA1", nullptr));
  thread_local const CHandle<EVP_MD_CTX, EVP_MD_CTX_free> context(EVP_MD_CTX_new());
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  if (!sha1 || !context || EVP_DigestInit_ex(context.get(), sha1.get(), nullptr) != 1 ||
      EVP_DigestUpdate(context.get(), key.data(), key.size()) != 1 ||
      EVP_DigestUpdate(context.get(), kGuid.data(), kGuid.size()) != 1 ||
      EVP_DigestFinal_ex(context.get(), digest.data(), &size) != 1) {
    return {};
  }
  return Base64Encode(std::as_bytes(std::span(digest.data(), size)));
}

UpgradeVerdict CheckUpgradeRequest(const http::RequestHead& head) {
  const Fields& fields = head.fields;
  if (!UpgradesToWebSocketOnly(fields) ||
      !http::HasToken(fields, FieldId::kConnection, "upgrade")) {
    return {};
  }
  if (head.method != "GET") {
    return Refuse(405, "method", "A WebSocket upgrade must be a GET request.", "Allow: GET\r\n");
  }
  if (head.minor_version < 1) {
    return Refuse(400, "http_version", "A WebSocket upgrade needs HTTP/1.1.");
  }
  if (head.framing == http::Framing::kChunked || head.content_length > 0 ||
      http::Find(fields, FieldId::kTransferEncoding) != nullptr) {
    return Refuse(400, "body", "A WebSocket upgrade must not have a body.");
  }
  const http::Field* key = http::Find(fields, FieldId::kSecWebSocketKey);
  if (key == nullptr || http::Count(fields, FieldId::kSecWebSocketKey) != 1 ||
      !IsUpgradeKey(key->value)) {
    return Refuse(400, "key", "Sec-WebSocket-Key must appear once and be base64 of 16 bytes.");
  }
  std::size_t versions = 0;
  for (const http::Field& field : fields) {
    if (field.id == FieldId::kSecWebSocketVersion) {
      ++versions;
      if (field.value != "13") {
        return RefuseVersion();
      }
    }
  }
  if (versions == 0) {
    return RefuseVersion();
  }
  if (versions > 1) {
    return Refuse(400, "version", "Sec-WebSocket-Version must appear once.");  // section 11.3.5
  }
  UpgradeVerdict verdict;
  if (!ReadProtocols(fields, verdict.offer.protocols)) {
    return Refuse(400, "protocol",
                  "Sec-WebSocket-Protocol must be a list of at most 64 different tokens.");
  }
  if (!ReadExtensions(fields, verdict.offer.extensions)) {
    return Refuse(400, "extensions", "Sec-WebSocket-Extensions is malformed or too long.");
  }
  verdict.kind = UpgradeVerdict::Kind::kUpgrade;
  verdict.offer.accept = AcceptKey(key->value);
  return verdict;
}

UpgradeAgreement CheckUpgradeResponse(const http::ResponseHead& head, const UpgradeOffer& offer) {
  // Section 4.1, the numbered steps that a client takes with the server's answer.
  const Fields& fields = head.fields;
  if (head.status != 101) {
    return Disagree("the backend did not answer 101");
  }
  if (!UpgradesToWebSocketOnly(fields)) {
    return Disagree("the backend's 101 does not upgrade to websocket");
  }
  if (!http::HasToken(fields, FieldId::kConnection, "upgrade")) {
    return Disagree("the backend's 101 lacks Connection: upgrade");
  }
  const http::Field* accept = http::Find(fields, FieldId::kSecWebSocketAccept);
  if (accept == nullptr || http::Count(fields, FieldId::kSecWebSocketAccept) != 1) {
    return Disagree("the backend's 101 must have one Sec-WebSocket-Accept");
  }
  if (offer.accept.empty() || accept->value != offer.accept) {
    return Disagree("the backend's Sec-WebSocket-Accept does not match the key");
  }
  if (AnnouncesContent(fields)) {
    return Disagree("the backend's 101 announces a body");
  }
  UpgradeAgreement agreement;
  // Sections 11.3.2 and 11.3.4: neither field may appear twice in a response.
  if (const http::Field* protocol = http::Find(fields, FieldId::kSecWebSocketProtocol);
      protocol != nullptr) {
    if (http::Count(fields, FieldId::kSecWebSocketProtocol) != 1) {
      return Disagree("the backend's 101 has several Sec-WebSocket-Protocol fields");
    }
    if (!Contains(offer.protocols, protocol->value)) {
      return Disagree("the backend chose a subprotocol that was not offered");
    }
    agreement.protocol = protocol->value;
  }
  if (const http::Field* extensions = http::Find(fields, FieldId::kSecWebSocketExtensions);
      extensions != nullptr) {
    if (http::Count(fields, FieldId::kSecWebSocketExtensions) != 1) {
      return Disagree("the backend's 101 has several Sec-WebSocket-Extensions fields");
    }
    bool offered = true;
    const bool good = ExtensionReader(extensions->value).ReadList([&](std::string_view name) {
      offered = offered && Contains(offer.extensions, name);
      const bool known = name == "permessage-deflate";
      agreement.rsv1 = agreement.rsv1 || known;
      agreement.all_known = agreement.all_known && known;
    });
    if (!good) {
      return Disagree("the backend's Sec-WebSocket-Extensions is malformed");
    }
    if (!offered) {
      return Disagree("the backend agreed an extension that was not offered");
    }
    agreement.extensions = extensions->value;
  }
  agreement.ok = true;
  return agreement;
}

}  // namespace sluice::ws
