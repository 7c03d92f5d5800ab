// The new process's side of a takeover, at start-up: finds the running process, takes its offer,
// and tells it when to stop accepting. Blocks, but never beyond a deadline. message.h has the
// conversation.
//
// How a call failed is in sys_errno: ECONNRESET, the old process has closed without a reason;
// ETIMEDOUT, it does not answer; 0, it has refused, or what answers is not Sluice.
#pragma once

#include <optional>
#include <string>

#include "proxy/base/clock.h"
#include "proxy/base/result.h"
#include "proxy/base/unique_fd.h"
#include "proxy/takeover/channel.h"
#include "proxy/takeover/offer.h"

namespace sluice::takeover {

class Taker {
 public:
  // Connects to the process that listens at `path`; nothing when there is none. An error when it
  // belongs to another user.
  [[nodiscard]] static Result<std::optional<Taker>> Connect(const std::string& path);

  // Uses a connection to the old process.
  [[nodiscard]] static Result<Taker> Adopt(UniqueFd fd);

  // Adopts what the old process has started this one with (kTakeoverVariable, spawn.h); nothing
  // when it has not. The variable is removed: start-up, before there are threads.
  [[nodiscard]] static Result<std::optional<Taker>> FromEnvironment();

  // Says hello with the `version` of this program, and waits for the whole offer. Once.
  [[nodiscard]] Result<Offer> Receive(const std::string& version, Instant deadline);

  // Says that this process accepts, and waits until the old one has stopped to. Once, after
  // Receive. When it fails with ECONNRESET, the old process has ended, and this one may go on.
  // After any other failure the old one still accepts, and this one has to end.
  [[nodiscard]] Result<void> SayReady(Instant deadline);

  // The connection, non-blocking: at its end of stream the old process has ended. Nothing else
  // comes. REQUIRES: SayReady succeeded.
  [[nodiscard]] UniqueFd TakeConnection() noexcept { return channel_.TakeFd(); }

 private:
  explicit Taker(UniqueFd fd) noexcept : channel_(std::move(fd)) {}

  // The next message, which is none that refuses.
  [[nodiscard]] Result<Message> Next(Instant deadline);

  Channel channel_;
};

}  // namespace sluice::takeover
