// The messages by which a new process takes the place of a running one, as bytes of a unix stream
// socket. Pure: sockets are in channel.h.
//
//     new process                                     old process
//         | hello {version, pid}  ------------------->  |
//         |  <----------  offer, offer more ... or refused, and the connection is closed
//     prepares, starts to accept                        |  accepts as before
//         | ready {pid}  ---------------------------->  |
//         |                                       stops accepting
//         |  <------------------------------------ done |
//     watches for the end of the stream            drains, ends
//
// A message is a head of 12 bytes, all numbers big-endian, and a payload of JSON:
//
//     0       4         5      6             8        12
//     | SLTO  | version | type | descriptors | length | payload ...
//
// The descriptors are attached to the first byte (SCM_RIGHTS, unix(7)).
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "proxy/base/bytes.h"
#include "proxy/base/parse_status.h"
#include "proxy/base/result.h"
#include "proxy/base/unique_fd.h"

namespace sluice::takeover {

enum class MessageType : std::uint8_t {
  kHello = 1,
  kRefused = 2,
  kOffer = 3,
  kOfferMore = 4,
  kReady = 5,
  kDone = 6,
};

struct Message {
  MessageType type = MessageType::kHello;
  std::string payload;
  std::vector<UniqueFd> fds;
};

inline constexpr std::uint8_t kProtocolVersion = 1;
inline constexpr std::size_t kHeadSize = 12;
inline constexpr std::size_t kMostPayload = std::size_t{1} << 20;
// Below SCM_MAX_FD of the kernel, 253.
inline constexpr std::size_t kMostFds = 200;

// Head and payload of `message`. REQUIRES: it is within the limits above.
[[nodiscard]] std::string Encode(const Message& message);

// Makes messages of what a socket brings. Holds no more than one payload and its descriptors.
class MessageDecoder {
 public:
  // So many bytes the next Feed may have at most, at least 1. A read that asks for no more never
  // goes beyond the end of a message, so that its descriptors belong to this message.
  [[nodiscard]] std::size_t wanted() const noexcept;

  // Takes bytes in the order of the stream, with the descriptors that came with them; unexpected
  // ones are closed. kDone: a message is complete, and TakeMessage() is next. After kBad, fault()
  // says why. REQUIRES: bytes.size() <= wanted(); no earlier call returned kBad.
  [[nodiscard]] ParseStatus Feed(Bytes bytes, std::vector<UniqueFd> fds);

  // Makes room for the next message. REQUIRES: the last Feed returned kDone.
  [[nodiscard]] Message TakeMessage();

  // One sentence, lower case, no full stop.
  [[nodiscard]] const std::string& fault() const noexcept { return fault_; }

 private:
  [[nodiscard]] ParseStatus ReadHead();
  [[nodiscard]] ParseStatus Fail(std::string why);

  std::array<unsigned char, kHeadSize> head_{};
  std::size_t head_size_ = 0;  // bytes of head_ that are there
  std::size_t length_ = 0;     // of the payload; known once the head is whole
  Message message_;
  std::string fault_;
};

// What a new process says first.
struct Hello {
  std::string version;  // of the program, for people
  pid_t pid = 0;
};

[[nodiscard]] Message ToMessage(const Hello& hello);
[[nodiscard]] Message RefusedMessage(const std::string& reason);
[[nodiscard]] Message ReadyMessage(pid_t pid);
[[nodiscard]] Message DoneMessage();

// The other way; an error when `message` is of another type or not what it should be.
[[nodiscard]] Result<Hello> ParseHello(const Message& message);
[[nodiscard]] Result<std::string> ParseRefused(const Message& message);  // the reason
[[nodiscard]] Result<pid_t> ParseReady(const Message& message);
[[nodiscard]] Result<void> ParseDone(const Message& message);

}  // namespace sluice::takeover
