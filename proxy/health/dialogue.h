// What is said in one check once the connection is made: the bytes to send, and what to make of
// those that come back (RFC 9112; RFC 6455 sections 4.1, 5.5 and 7.1). Pure: no socket, no time;
// what has to be unpredictable is an argument.
//
//   kConnect --> passed                                              (tcp)
//   kConnect --> kHead --a good status--> passed                     (http)
//   kConnect --> kHead --101--> kPong --its pong--> kClose --CLOSE--> passed    (websocket)
//                           \----- without ping ----^
//
// It is as strict as a session is, and keeps nothing of what comes but a head that is not whole.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "proxy/base/bytes.h"
#include "proxy/health/check.h"
#include "proxy/http/parser.h"
#include "proxy/ws/frame_tracker.h"
#include "proxy/ws/frame_writer.h"
#include "proxy/ws/upgrade.h"

namespace sluice::health {

// From a CSPRNG, drawn for one check (RFC 6455 sections 4.1 and 10.3).
struct Nonces {
  std::array<std::byte, 16> key{};     // of the upgrade
  std::array<std::byte, 8> ping{};     // the payload that has to come back
  std::array<ws::MaskKey, 2> masks{};  // of the ping, of the CLOSE
};

class Dialogue {
 public:
  // `check` outlives this.
  Dialogue(const Check& check, const Nonces& nonces);

  // The check is over when result() is set; until then what is to be sent is in TakeOutput().

  // The connection is made.
  void OnConnected();
  // Bytes of the backend. REQUIRES: no result yet.
  void Take(Bytes bytes);
  // The backend has ended the connection, in order or by a reset. REQUIRES: no result yet.
  void OnEnd(bool reset);
  // The time is up. REQUIRES: no result yet.
  void OnTimeout();

  [[nodiscard]] const std::optional<CheckResult>& result() const noexcept { return result_; }

  // What is to be sent now, in order; empty when nothing is.
  [[nodiscard]] std::string TakeOutput() { return std::exchange(output_, {}); }

 private:
  enum class Stage : std::uint8_t { kConnect, kHead, kPong, kClose };

  void Pass() { result_ = CheckResult{true}; }
  void Fail(std::string error) { result_ = CheckResult{false, std::move(error)}; }

  [[nodiscard]] std::string Request() const;
  void TakeHead(Bytes bytes);
  void OnHead(const http::ResponseHead& head);
  void TakeFrames(Bytes bytes);
  void OnFrame();
  [[nodiscard]] bool IsOurPong() const noexcept;
  void BeginClose();

  const Check& check_;
  Nonces nonces_;
  ws::UpgradeOffer offer_;
  std::string output_;
  std::string head_;  // what has come of it
  http::ResponseParser parser_;
  ws::FrameTracker frames_;
  std::array<std::byte, 8> tail_{};  // the last bytes that came, the newest at the end
  std::size_t taken_ = 0;            // bytes after the 101
  unsigned interim_ = 0;
  Stage stage_ = Stage::kConnect;
  std::optional<CheckResult> result_;
};

}  // namespace sluice::health
