#include "proxy/takeover/message.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "proxy/takeover/json.h"

namespace sluice::takeover {
namespace {

constexpr std::array<unsigned char, 4> kMagic{'S', 'L', 'T', 'O'};

void AppendNumber(std::string& out, std::size_t value, int bytes) {
  for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) {
    out += static_cast<char>(value >> shift & 0xff);
  }
}

std::size_t ReadNumber(const unsigned char* from, int bytes) noexcept {
  std::size_t value = 0;
  for (int i = 0; i < bytes; ++i) {
    value = value << 8 | from[i];
  }
  return value;
}

bool IsKnown(unsigned type) noexcept {
  return type >= static_cast<unsigned>(MessageType::kHello) &&
         type <= static_cast<unsigned>(MessageType::kDone);
}

bool MayCarryFds(MessageType type) noexcept {
  return type == MessageType::kOffer || type == MessageType::kOfferMore;
}

const char* Name(MessageType type) noexcept {
  switch (type) {
    case MessageType::kHello:
      return "hello";
    case MessageType::kRefused:
      return "refused";
    case MessageType::kOffer:
      return "offer";
    case MessageType::kOfferMore:
      return "offer more";
    case MessageType::kReady:
      return "ready";
    case MessageType::kDone:
      return "done";
  }
  return "?";
}

Message MakeMessage(MessageType type, const nlohmann::json& payload) {
  return {type, Dump(payload), {}};
}

// The payload of a message of that type.
Result<nlohmann::json> Expect(MessageType type, const Message& message) {
  if (message.type != type) {
    return Err(std::string("a message \"") + Name(message.type) + "\" came instead of \"" +
               Name(type) + "\"");
  }
  auto payload = ParseObject(message.payload);
  if (!payload) {
    return Err(std::string("the payload of \"") + Name(type) + "\" is not a JSON object");
  }
  return std::move(*payload);
}

tl::unexpected<Error> BadField(MessageType type, const char* field) {
  return Err(std::string("\"") + field + "\" in a message \"" + Name(type) +
             "\" is missing or not valid");
}

}  // namespace

std::string Encode(const Message& message) {
  assert(message.payload.size() <= kMostPayload && message.fds.size() <= kMostFds);
  std::string out(kMagic.begin(), kMagic.end());
  AppendNumber(out, kProtocolVersion, 1);
  AppendNumber(out, static_cast<std::size_t>(message.type), 1);
  AppendNumber(out, message.fds.size(), 2);
  AppendNumber(out, message.payload.size(), 4);
  out += message.payload;
  return out;
}

std::size_t MessageDecoder::wanted() const noexcept {
  return head_size_ < kHeadSize ? kHeadSize - head_size_ : length_ - message_.payload.size();
}

ParseStatus MessageDecoder::Feed(Bytes bytes, std::vector<UniqueFd> fds) {
  assert(bytes.size() <= wanted());
  if (!fds.empty()) {
    if (head_size_ > 0) {
      return Fail("descriptors came in the middle of a message");
    }
    message_.fds = std::move(fds);
  }
  if (bytes.empty()) {
    return ParseStatus::kNeedMore;
  }
  if (head_size_ == kHeadSize) {
    message_.payload += AsText(bytes);
    return wanted() == 0 ? ParseStatus::kDone : ParseStatus::kNeedMore;
  }
  std::memcpy(head_.data() + head_size_, bytes.data(), bytes.size());
  head_size_ += bytes.size();
  // Told from the first byte on: a peer of another kind may never send as much as a head.
  const std::size_t magic = std::min(head_size_, kMagic.size());
  if (!std::equal(kMagic.begin(), kMagic.begin() + magic, head_.begin())) {
    return Fail("the other end does not speak the takeover protocol");
  }
  return head_size_ < kHeadSize ? ParseStatus::kNeedMore : ReadHead();
}

ParseStatus MessageDecoder::ReadHead() {
  if (const unsigned version = head_[4]; version != kProtocolVersion) {
    return Fail("the other end speaks version " + std::to_string(version) +
                " of the takeover protocol, this one version " + std::to_string(kProtocolVersion));
  }
  if (!IsKnown(head_[5])) {
    return Fail("a message of the unknown type " + std::to_string(head_[5]) + " came");
  }
  message_.type = static_cast<MessageType>(head_[5]);
  const std::size_t fds = ReadNumber(&head_[6], 2);
  length_ = ReadNumber(&head_[8], 4);
  if (length_ > kMostPayload) {
    return Fail("a message of " + std::to_string(length_) + " bytes is announced; at most " +
                std::to_string(kMostPayload) + " are taken");
  }
  if (fds > (MayCarryFds(message_.type) ? kMostFds : 0)) {
    return Fail("a message \"" + std::string(Name(message_.type)) + "\" with " +
                std::to_string(fds) + " descriptors is announced");
  }
  if (fds != message_.fds.size()) {
    return Fail(std::to_string(fds) + " descriptors are announced and " +
                std::to_string(message_.fds.size()) + " came");
  }
  return length_ == 0 ? ParseStatus::kDone : ParseStatus::kNeedMore;
}

ParseStatus MessageDecoder::Fail(std::string why) {
  fault_ = std::move(why);
  message_ = {};  // closes what came
  return ParseStatus::kBad;
}

Message MessageDecoder::TakeMessage() {
  head_size_ = 0;
  length_ = 0;
  return std::exchange(message_, {});
}

Message ToMessage(const Hello& hello) {
  return MakeMessage(MessageType::kHello, {{"version", hello.version}, {"pid", hello.pid}});
}

Message RefusedMessage(const std::string& reason) {
  // A sentence may quote what a configuration or the system says; it has to arrive in any case.
  std::string plain = reason.substr(0, kMostText / 2);
  std::replace_if(
      plain.begin(), plain.end(), [](char c) { return IsControl(c); }, ' ');
  return MakeMessage(MessageType::kRefused, {{"reason", plain}});
}

Message ReadyMessage(pid_t pid) {
  return MakeMessage(MessageType::kReady, {{"pid", pid}});
}

Message DoneMessage() {
  return MakeMessage(MessageType::kDone, nlohmann::json::object());
}

Result<Hello> ParseHello(const Message& message) {
  const auto payload = Expect(MessageType::kHello, message);
  if (!payload) {
    return tl::unexpected(payload.error());
  }
  const auto version = TextOf(Member(*payload, "version"));
  if (!version) {
    return BadField(MessageType::kHello, "version");
  }
  const auto pid = PidOf(Member(*payload, "pid"));
  if (!pid) {
    return BadField(MessageType::kHello, "pid");
  }
  return Hello{*version, *pid};
}

Result<std::string> ParseRefused(const Message& message) {
  const auto payload = Expect(MessageType::kRefused, message);
  if (!payload) {
    return tl::unexpected(payload.error());
  }
  auto reason = TextOf(Member(*payload, "reason"));
  if (!reason) {
    return BadField(MessageType::kRefused, "reason");
  }
  return std::move(*reason);
}

Result<pid_t> ParseReady(const Message& message) {
  const auto payload = Expect(MessageType::kReady, message);
  if (!payload) {
    return tl::unexpected(payload.error());
  }
  const auto pid = PidOf(Member(*payload, "pid"));
  if (!pid) {
    return BadField(MessageType::kReady, "pid");
  }
  return *pid;
}

Result<void> ParseDone(const Message& message) {
  if (const auto payload = Expect(MessageType::kDone, message); !payload) {
    return tl::unexpected(payload.error());
  }
  return {};
}

}  // namespace sluice::takeover
