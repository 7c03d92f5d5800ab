#include "proxy/takeover/taker.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "proxy/net/socket.h"
#include "proxy/takeover/message.h"
#include "proxy/takeover/spawn.h"
#include "proxy/takeover/unix_socket.h"

namespace sluice::takeover {

Result<std::optional<Taker>> Taker::Connect(const std::string& path) {
  auto fd = ConnectTo(path);
  if (!fd) {
    if (fd.error().sys_errno == ENOENT || fd.error().sys_errno == ECONNREFUSED) {
      return std::optional<Taker>();
    }
    return tl::unexpected(fd.error());
  }
  auto taker = Adopt(std::move(*fd));
  if (!taker) {
    return Err(path + ": " + taker.error().message);
  }
  return std::optional<Taker>(std::move(*taker));
}

Result<Taker> Taker::Adopt(UniqueFd fd) {
  if (const auto valid = CheckConnection(fd.get()); !valid) {
    return tl::unexpected(valid.error());
  }
  const auto peer = PeerOf(fd.get());
  if (!peer) {
    return tl::unexpected(peer.error());
  }
  if (peer->uid != ::geteuid()) {
    return Err("the running process belongs to user " + std::to_string(peer->uid) +
               ", this one to user " + std::to_string(::geteuid()));
  }
  return Taker(std::move(fd));
}

Result<std::optional<Taker>> Taker::FromEnvironment() {
  const char* value = std::getenv(kTakeoverVariable);
  if (value == nullptr) {
    return std::optional<Taker>();
  }
  const std::string text = value;
  ::unsetenv(kTakeoverVariable);
  int number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number <= STDERR_FILENO) {
    return Err(std::string(kTakeoverVariable) + " is \"" + text + "\", not a descriptor");
  }
  // Looked at before it is owned: a stray number must not close what belongs to somebody else.
  if (const auto valid = CheckConnection(number); !valid) {
    return Err(std::string(kTakeoverVariable) + ": " + valid.error().message);
  }
  auto taker = Adopt(UniqueFd(number));
  if (!taker) {
    return tl::unexpected(taker.error());
  }
  return std::optional<Taker>(std::move(*taker));
}

Result<Offer> Taker::Receive(const std::string& version, Instant deadline) {
  channel_.Queue(ToMessage(Hello{version, ::getpid()}));
  OfferReader reader;
  for (;;) {
    auto message = Next(deadline);
    if (!message) {
      return tl::unexpected(message.error());
    }
    switch (reader.Add(std::move(*message))) {
      case ParseStatus::kNeedMore:
        break;
      case ParseStatus::kBad:
        return Err(reader.fault());
      case ParseStatus::kDone:
        return reader.TakeOffer();
    }
  }
}

Result<void> Taker::SayReady(Instant deadline) {
  channel_.Queue(ReadyMessage(::getpid()));
  const auto message = Next(deadline);
  if (!message) {
    return tl::unexpected(message.error());
  }
  return ParseDone(*message);
}

Result<Message> Taker::Next(Instant deadline) {
  for (;;) {
    // When it cannot be sent any more, the reason may still be there to be read.
    static_cast<void>(channel_.Flush());
    auto received = channel_.Receive();
    if (!received) {
      return tl::unexpected(received.error());
    }
    if (*received) {
      if ((*received)->type != MessageType::kRefused) {
        return std::move(**received);
      }
      const auto reason = ParseRefused(**received);
      if (!reason) {
        return tl::unexpected(reason.error());
      }
      return Err("the running process refuses: " + *reason);
    }
    const auto events = static_cast<short>(channel_.has_pending() ? POLLIN | POLLOUT : POLLIN);
    if (!net::Await(channel_.fd(), events, deadline)) {
      return tl::unexpected(Error{"no answer from the running process in time", ETIMEDOUT});
    }
  }
}

}  // namespace sluice::takeover
