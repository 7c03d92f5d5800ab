// What a running process hands to the one that takes its place, and that as messages.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "proxy/base/parse_status.h"
#include "proxy/base/result.h"
#include "proxy/base/unique_fd.h"
#include "proxy/takeover/message.h"

namespace sluice::takeover {

// A listening socket that clients ("listener"), an operator ("admin") or the next successor
// ("takeover", a unix socket) connects to. A listener has one for each worker.
struct Socket {
  std::string kind;
  std::string name;     // of the listener in the configuration
  std::string address;  // as the old process writes it
  UniqueFd fd;
};

// Name, AES key and HMAC key, one behind the other: the fields of a tls::TicketKey.
using TicketKeyBytes = std::array<unsigned char, 80>;

struct Offer {
  pid_t pid = 0;  // of the old process
  std::vector<Socket> sockets;
  std::vector<TicketKeyBytes> ticket_keys;                             // newest first
  std::vector<std::pair<std::string, std::string>> draining_backends;  // pool and name
  unsigned generation = 1;  // of the old process: how many took over before it, and one
};

inline constexpr std::size_t kMostSockets = 16'384;
inline constexpr std::size_t kMostTicketKeys = 16;

// One message for each 200 sockets, at least one. An error when the offer has a field that no
// successor would take, or does not fit.
[[nodiscard]] Result<std::vector<Message>> ToMessages(Offer offer);

// Puts an offer together again. Holds at most kMostSockets sockets.
class OfferReader {
 public:
  // The next message. kDone: the offer is complete, and TakeOffer() is next. After kBad, fault()
  // says why, and what came is closed.
  [[nodiscard]] ParseStatus Add(Message message);

  [[nodiscard]] Offer TakeOffer() { return std::exchange(offer_, {}); }

  // One sentence, lower case, no full stop.
  [[nodiscard]] const std::string& fault() const noexcept { return fault_; }

 private:
  [[nodiscard]] ParseStatus Fail(std::string why);

  Offer offer_;
  bool begun_ = false;
  std::string fault_;
};

}  // namespace sluice::takeover
