#include "proxy/takeover/offer.h"

#include <sys/socket.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <optional>
#include <string_view>

#include "proxy/takeover/json.h"
#include "proxy/takeover/unix_socket.h"

namespace sluice::takeover {
namespace {

using nlohmann::json;

constexpr std::string_view kHexDigits = "0123456789abcdef";

std::string ToHex(const TicketKeyBytes& key) {
  std::string out;
  for (const unsigned char byte : key) {
    out += kHexDigits[byte >> 4];
    out += kHexDigits[byte & 0xf];
  }
  return out;
}

std::optional<TicketKeyBytes> FromHex(const std::string& text) {
  TicketKeyBytes key{};
  if (text.size() != 2 * key.size()) {
    return std::nullopt;
  }
  for (std::size_t i = 0; i < key.size(); ++i) {
    const std::size_t high = kHexDigits.find(text[2 * i]);
    const std::size_t low = kHexDigits.find(text[2 * i + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) {
      return std::nullopt;
    }
    key[i] = static_cast<unsigned char>(high << 4 | low);
  }
  return key;
}

// Nothing when `socket` is one that a successor can accept from, else what is wrong with it.
std::optional<std::string> FaultOf(const Socket& socket) {
  const bool is_unix = socket.kind == "takeover";
  if (!is_unix && socket.kind != "listener" && socket.kind != "admin") {
    return "a socket of the unknown kind \"" + socket.kind + "\"";
  }
  if (!IsPlainText(socket.kind) || !IsPlainText(socket.name) || !IsPlainText(socket.address) ||
      socket.address.empty()) {
    return "a socket of kind \"" + socket.kind + "\" without a valid name and address";
  }
  const int domain = OptionOf(socket.fd.get(), SO_DOMAIN);
  const bool fits = is_unix ? domain == AF_UNIX : domain == AF_INET || domain == AF_INET6;
  if (!fits || OptionOf(socket.fd.get(), SO_TYPE) != SOCK_STREAM ||
      OptionOf(socket.fd.get(), SO_ACCEPTCONN) != 1) {
    return "a descriptor for " + socket.kind + " " + socket.address +
           " that is no listening stream socket of its kind";
  }
  return std::nullopt;
}

// What the first message says besides the sockets.
json FactsOf(const Offer& offer) {
  json facts{{"pid", offer.pid}, {"generation", offer.generation}};
  json& keys = facts["ticket_keys"] = json::array();
  for (const TicketKeyBytes& key : offer.ticket_keys) {
    keys.push_back(ToHex(key));
  }
  json& backends = facts["draining_backends"] = json::array();
  for (const auto& [pool, name] : offer.draining_backends) {
    backends.push_back(json::array({pool, name}));
  }
  return facts;
}

// The other way. Nothing when all is there and valid, else the field that is not.
std::optional<std::string> ReadFacts(const json& facts, Offer& offer) {
  const auto pid = PidOf(Member(facts, "pid"));
  if (!pid) {
    return "pid";
  }
  offer.pid = *pid;
  const auto generation =
      NumberOf(Member(facts, "generation"), std::numeric_limits<unsigned>::max() - 1);
  if (!generation) {
    return "generation";
  }
  offer.generation = static_cast<unsigned>(*generation);

  const json* keys = Member(facts, "ticket_keys");
  if (keys == nullptr || !keys->is_array() || keys->size() > kMostTicketKeys) {
    return "ticket_keys";
  }
  for (const json& entry : *keys) {
    const auto text = TextOf(&entry);
    const auto key = text ? FromHex(*text) : std::nullopt;
    if (!key) {
      return "ticket_keys";
    }
    offer.ticket_keys.push_back(*key);
  }

  const json* backends = Member(facts, "draining_backends");
  if (backends == nullptr || !backends->is_array()) {
    return "draining_backends";
  }
  for (const json& entry : *backends) {
    const bool is_pair = entry.is_array() && entry.size() == 2;
    auto pool = is_pair ? TextOf(&entry[0]) : std::nullopt;
    auto name = is_pair ? TextOf(&entry[1]) : std::nullopt;
    if (!pool || pool->empty() || !name || name->empty()) {
      return "draining_backends";
    }
    offer.draining_backends.emplace_back(std::move(*pool), std::move(*name));
  }
  return std::nullopt;
}

}  // namespace

Result<std::vector<Message>> ToMessages(Offer offer) {
  if (offer.sockets.size() > kMostSockets) {
    return Err("the offer has " + std::to_string(offer.sockets.size()) + " sockets; at most " +
               std::to_string(kMostSockets) + " can be handed over");
  }
  json facts = FactsOf(offer);
  // Read as the successor will: what it would refuse is better told here, and by name.
  Offer as_read;
  if (const auto field = ReadFacts(facts, as_read)) {
    return Err("\"" + *field + "\" of the offer is not valid");
  }
  std::vector<Message> messages;
  std::size_t next = 0;
  do {
    Message message;
    message.type = messages.empty() ? MessageType::kOffer : MessageType::kOfferMore;
    json payload = std::exchange(facts, json::object());
    json& sockets = payload["sockets"] = json::array();
    for (; next < offer.sockets.size() && message.fds.size() < kMostFds; ++next) {
      Socket& socket = offer.sockets[next];
      if (const auto fault = FaultOf(socket)) {
        return Err("the offer has " + *fault);
      }
      sockets.push_back(
          {{"kind", socket.kind}, {"name", socket.name}, {"address", socket.address}});
      message.fds.push_back(std::move(socket.fd));
    }
    payload["more"] = next < offer.sockets.size();
    message.payload = Dump(payload);
    if (message.payload.size() > kMostPayload) {
      return Err("the offer is too large: " + std::to_string(message.payload.size()) + " bytes");
    }
    messages.push_back(std::move(message));
  } while (next < offer.sockets.size());
  return messages;
}

ParseStatus OfferReader::Fail(std::string why) {
  fault_ = std::move(why);
  offer_ = {};
  return ParseStatus::kBad;
}

ParseStatus OfferReader::Add(Message message) {
  if (message.type != (begun_ ? MessageType::kOfferMore : MessageType::kOffer)) {
    return Fail("a message came that does not belong into an offer");
  }
  const auto payload = ParseObject(message.payload);
  if (!payload) {
    return Fail("the offer is not a JSON object");
  }
  if (!begun_) {
    begun_ = true;
    if (const auto field = ReadFacts(*payload, offer_)) {
      return Fail("\"" + *field + "\" in the offer is missing or not valid");
    }
  }
  const json* sockets = Member(*payload, "sockets");
  const json* more = Member(*payload, "more");
  if (sockets == nullptr || !sockets->is_array() || more == nullptr || !more->is_boolean()) {
    return Fail("the offer does not tell its sockets");
  }
  if (sockets->size() != message.fds.size()) {
    return Fail("the offer tells " + std::to_string(sockets->size()) + " sockets and brings " +
                std::to_string(message.fds.size()));
  }
  if (offer_.sockets.size() + sockets->size() > kMostSockets) {
    return Fail("the offer has more than " + std::to_string(kMostSockets) + " sockets");
  }
  if (*more && sockets->empty()) {
    return Fail("the offer does not get on");
  }
  for (std::size_t i = 0; i < message.fds.size(); ++i) {
    const json& entry = (*sockets)[i];
    auto kind = entry.is_object() ? TextOf(Member(entry, "kind")) : std::nullopt;
    auto name = entry.is_object() ? TextOf(Member(entry, "name")) : std::nullopt;
    auto address = entry.is_object() ? TextOf(Member(entry, "address")) : std::nullopt;
    if (!kind || !name || !address) {
      return Fail("the offer has a socket without a valid kind, name and address");
    }
    Socket socket{std::move(*kind), std::move(*name), std::move(*address),
                  std::move(message.fds[i])};
    if (const auto fault = FaultOf(socket)) {
      return Fail("the offer has " + *fault);
    }
    offer_.sockets.push_back(std::move(socket));
  }
  return *more ? ParseStatus::kNeedMore : ParseStatus::kDone;
}

}  // namespace sluice::takeover
