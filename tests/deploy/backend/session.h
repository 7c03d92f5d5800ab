// One session of the deploy backend: sends numbered messages at a rate, follows those it is sent,
// and when it is closed still says a few words before it answers: they must reach the client.
#pragma once

#include <string>

#include "tests/deploy/event_loop.h"
#include "tests/deploy/frame_reader.h"
#include "tests/deploy/outbox.h"

namespace sluice::deploy {

class Session;

struct Options {
  std::string name = "backend";
  std::string report;  // file that gets a line for each session; empty: none
  double rate = 0;     // messages a second to each session
  std::uint64_t after_close = 2;
  std::size_t size = kNumberedSize;
};

class SessionOwner {
 public:
  SessionOwner() = default;
  virtual ~SessionOwner() = default;
  SessionOwner(const SessionOwner&) = delete;
  SessionOwner& operator=(const SessionOwner&) = delete;

  // The session is over; it is destroyed once the turn is.
  virtual void OnEnd(Session& session) = 0;
};

class Session : public Participant {
 public:
  Session(EventLoop& loop, const Options& options, SessionOwner& owner, UniqueFd fd);
  ~Session() override;

  void OnEvent(std::uint32_t events) override;
  void OnTimer() override;

  // Ends the connection by RST.
  void Cut();

  // What there is to say of it as a line of JSON; `ended` in place of how it ended. Empty before
  // its upgrade.
  [[nodiscard]] std::string Line(const char* ended) const;
  // "close", "fin", "reset", "cut" (by us), or what rule the other side broke.
  [[nodiscard]] const char* ended() const { return ended_; }

  // For the reader.
  void OnNumbered(const Numbered& message);
  void OnControl(Opcode opcode, const unsigned char* payload, std::size_t size);

 private:
  enum class Phase { kHead, kOpen, kClosed };

  void ReadHead(const char* bytes, std::size_t size);
  // False: it was no upgrade, and the connection is to be closed.
  bool Answer(std::string_view head);
  void Take(unsigned char* bytes, std::size_t size);
  void SendNumbered();
  void SendControl(Opcode opcode, const unsigned char* payload, std::size_t size);
  void Send(const Frame& frame);
  void Rearm();
  void MaybeFinish();
  void End(const char* how);

  EventLoop& loop_;
  const Options& options_;
  SessionOwner& owner_;
  UniqueFd fd_;
  Phase phase_ = Phase::kHead;
  const char* ended_ = nullptr;
  bool wants_write_ = false;
  bool echoes_ = false;
  std::uint32_t uid_ = 0;
  std::uint32_t incarnation_ = 0;
  Nanoseconds asked_at_ = 0;  // when its request came
  int close_code_ = 0;        // of the CLOSE that came; 0: none
  std::uint64_t sent_ = 0;
  double due_ = 0;  // nanoseconds; when the next message is
  Sequence received_;
  std::string head_;
  FrameReader reader_{FrameReader::Masking::kWanted};
  Outbox outbox_;
};

}  // namespace sluice::deploy
