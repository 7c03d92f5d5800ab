// One WebSocket client of the deploy tests, over all its incarnations: one connection after the
// other, each with what there is to say of it. Reads strictly (frame_reader.h), answers a CLOSE at
// once, and judges nothing: how an incarnation went is for its owner to count.
//
//   kIdle --Open--> kConnect --TCP, TLS--> kAnswer --101--> kOpen
//                       |                     |               |--CLOSE comes--> kAnswered --+
//                       |                     |               |--SendClose-----> kClosing --+
//                       +------failure--------+---> kIdle <---+----end of stream, violation-+
#pragma once

#include <array>
#include <optional>
#include <string>

#include "tests/deploy/client/wire.h"
#include "tests/deploy/event_loop.h"
#include "tests/deploy/frame_reader.h"
#include "tests/deploy/outbox.h"

namespace sluice::deploy {

class Session;

struct Target {
  sockaddr_in address{};
  SSL_CTX* tls = nullptr;  // null: plain
  std::string path = "/s";
  bool echo = false;  // asks the backend for a message for each of ours, and no others
  std::size_t size = kNumberedSize;
  Nanoseconds connect_timeout = 10 * kSecond;
  Nanoseconds close_timeout = 10 * kSecond;  // for the answer to a CLOSE, and the end behind it
};

// Times are 0 when it did not come to that.
struct Incarnation {
  std::uint32_t number = 0;
  Nanoseconds started_at = 0;
  Nanoseconds opened_at = 0;
  Nanoseconds close_at = 0;  // the CLOSE of the other side
  Nanoseconds ended_at = 0;
  // Before its 101: "refused", "reset", "fin", "timeout", "tls", "status", "bad" or "system"; then
  // `status` is that of the answer, if there was one.
  const char* failure = nullptr;
  int status = 0;
  Nanoseconds retry_after = 0;  // what that answer asked for
  int close_code = 1006;        // what came; 1006: no CLOSE
  bool closed_by_us = false;
  bool answered = false;            // each side has had the CLOSE of the other
  const char* ended = "";           // "fin", "reset", "timeout", "violation"
  bool torn = false;                // inside a frame
  const char* violation = nullptr;  // what rule was broken
  std::uint64_t sent = 0;
  Sequence received;
};

class SessionOwner {
 public:
  SessionOwner() = default;
  virtual ~SessionOwner() = default;
  SessionOwner(const SessionOwner&) = delete;
  SessionOwner& operator=(const SessionOwner&) = delete;

  virtual void OnOpen(Session& session) = 0;
  virtual void OnNumbered(Session& session, const Numbered& message) = 0;
  // The timer that Wake() set.
  virtual void OnDue(Session& session) = 0;
  // The incarnation is over, whether it was open or not. The session is idle.
  virtual void OnEnd(Session& session, const Incarnation& incarnation) = 0;
};

class Session : public Participant {
 public:
  // All outlive the session.
  Session(EventLoop& loop, const Target& target, SessionOwner& owner, std::uint32_t uid);
  ~Session() override;

  // Begins the next incarnation. REQUIRES: is_idle().
  void Open();
  // REQUIRES: is_open().
  void SendNumbered();
  void SendClose(int code);
  // Ends an incarnation that takes too long, or was not wanted any more.
  void GiveUp(const char* how);
  // OnDue at that time, while idle or open; replaces what was set before. Going from the one state
  // to the other forgets it.
  void Wake(Nanoseconds at);

  [[nodiscard]] std::uint32_t uid() const { return uid_; }
  [[nodiscard]] bool is_idle() const { return phase_ == Phase::kIdle; }
  [[nodiscard]] bool is_open() const { return phase_ == Phase::kOpen; }
  [[nodiscard]] bool is_connecting() const {
    return phase_ == Phase::kConnect || phase_ == Phase::kAnswer;
  }
  // Whether the socket took all that was sent.
  [[nodiscard]] bool has_room() const { return outbox_.empty(); }
  [[nodiscard]] const Incarnation& incarnation() const { return now_; }

  void OnEvent(std::uint32_t events) override;
  void OnTimer() override;

  // For the reader.
  void OnNumbered(const Numbered& message);
  void OnControl(Opcode opcode, const unsigned char* payload, std::size_t size);

 private:
  enum class Phase { kIdle, kConnect, kAnswer, kOpen, kAnswered, kClosing };

  void Advance();
  void SendRequest();
  // What came behind the head of a right 101, or nothing; the incarnation may have failed instead.
  std::optional<std::string> ReadAnswer(std::string_view bytes);
  void Read();
  void Take(unsigned char* bytes, std::size_t size);
  void SendControl(Opcode opcode, const unsigned char* payload, std::size_t size);
  void Send(const Frame& frame);
  ssize_t WriteSome(const unsigned char* bytes, std::size_t size);
  // Waits for these on top of EPOLLIN.
  void WatchAlso(std::uint32_t events);
  void Rearm();
  void SetPhase(Phase phase, Nanoseconds timeout);
  void OnStreamEnd(ssize_t how);
  void Violate(const char* rule);
  void Fail(const char* how);
  void End(const char* how);
  bench::MaskKey NextMask();

  EventLoop& loop_;
  const Target& target_;
  SessionOwner& owner_;
  std::uint32_t uid_;
  std::uint64_t mask_state_;
  Phase phase_ = Phase::kIdle;
  std::uint32_t watched_ = 0;
  Wire wire_;
  Outbox outbox_;
  FrameReader reader_{FrameReader::Masking::kForbidden};
  Incarnation now_;
  std::string key_;
  std::string answer_;
};

}  // namespace sluice::deploy
