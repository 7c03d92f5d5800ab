// One end of a session, client or backend: says its script at its pace, hears the other's, and
// takes a CLOSE as the plan wants. What it notices it tells the pair it belongs to.
//
//   client:   kIdle --Connect--> kConnect --TCP, TLS--> kHead --101--> kOpen ---+
//   backend:  kIdle --Adopt----------------------------------------> kOpen ---+--end--> kOver
#pragma once

#include <string>

#include "tests/deploy/client/wire.h"
#include "tests/deploy/event_loop.h"
#include "tests/deploy/storm/listener.h"
#include "tests/deploy/storm/plan.h"

namespace sluice::storm {

using deploy::EventLoop;
using deploy::Nanoseconds;

class End;

class EndOwner {
 public:
  EndOwner() = default;
  virtual ~EndOwner() = default;
  EndOwner(const EndOwner&) = delete;
  EndOwner& operator=(const EndOwner&) = delete;

  virtual void OnHead(End& end, const std::string& head) = 0;  // the client's end: an answer
  virtual void OnTrigger(End& end) = 0;
  virtual void OnStalled(End& end) = 0;  // half of the time of its Stall() is over
  virtual void OnClose(End& end) = 0;
  virtual void OnOver(End& end) = 0;
};

class End : public deploy::Participant {
 public:
  End(EventLoop& loop, EndOwner& owner, Side side, const Plan& plan, const Listener::Rules& rules);
  ~End() override;

  // The client's end: connects, sends `request`, hands over the head of the answer.
  void Connect(const sockaddr_in& address, SSL_CTX* tls, std::string request);
  // The backend's end: takes over a connection whose request was read; `answer` is its 101.
  void Adopt(UniqueFd fd, const std::string& answer);
  // From here on it talks and hears.
  void Open();
  // The CLOSE of its own, once its frame has ended.
  void CloseFirst(int code);
  // Vanishes: FIN behind what was said, or RST.
  void Die(bool by_reset);
  // Breaks the rules. REQUIRES: between two frames.
  void Violate();
  // Neither hears nor says anything more.
  void FallSilent();
  // Says nothing for so long; 0: until a CLOSE comes, and for_ever: not even then.
  void Hold(unsigned milliseconds, bool for_ever);
  void Stall(unsigned milliseconds);
  // What was silent or stalled hears again: the session is over elsewhere.
  void Wake();
  void Abandon(const char* how);

  void OnEvent(std::uint32_t events) override;
  void OnTimer() override;

  [[nodiscard]] Side side() const { return side_; }
  [[nodiscard]] bool is_over() const { return phase_ == Phase::kOver; }
  [[nodiscard]] bool is_open() const { return phase_ == Phase::kOpen; }
  [[nodiscard]] const Listener& heard() const { return listener_; }
  [[nodiscard]] const Speaker& said() const { return speaker_; }
  // "fin", "reset": of the other side; "self": it went by itself; else what is wrong.
  [[nodiscard]] const std::string& how() const { return how_; }
  [[nodiscard]] const char* wrong() const { return wrong_; }
  [[nodiscard]] bool died() const { return died_; }
  [[nodiscard]] bool died_by_reset() const { return died_by_reset_; }
  [[nodiscard]] bool fell_silent() const { return silent_; }
  [[nodiscard]] bool is_full() const { return !out_.empty(); }
  // The CLOSE of this end is out. 0: it is not.
  [[nodiscard]] Nanoseconds closed_at() const { return closed_at_; }
  [[nodiscard]] Nanoseconds close_came_at() const { return close_came_at_; }
  // How long it was inside the frame that took it longest; one that it never finished is not one.
  [[nodiscard]] Nanoseconds slowest_frame() const { return slowest_frame_; }
  [[nodiscard]] bool violated() const { return violated_; }

 private:
  enum class Phase { kIdle, kConnect, kHead, kOpen, kOver };
  // What becomes of it when it next stands between two frames, or two messages.
  enum class Next { kNothing, kClose, kCloseAtMessage };

  void Advance();
  void ReadHead(unsigned char* bytes, std::size_t size);
  void Take(unsigned char* bytes, std::size_t size);
  void Pump();
  void PumpOnce();
  // Bytes of the frame whose turn it is that may go out before the trigger; 0: it is here.
  std::size_t UntilTrigger();
  void AtBoundary();
  void FinishFrame();
  void TakeClose();
  void SendClose();
  void Finish();
  void PutControl(unsigned char first, const std::string& payload, bool in_bytes);
  void Put(const unsigned char* bytes, std::size_t size);
  void Flush();
  void Read();
  void Rearm();
  void Schedule();
  void Over(const char* how);
  [[nodiscard]] bool MaySpeak() const;
  // Nothing is in store for it but a CLOSE that comes by itself.
  [[nodiscard]] bool IsWaiting() const;
  [[nodiscard]] Nanoseconds Pause();

  EventLoop& loop_;
  EndOwner& owner_;
  Side side_;
  const Plan& plan_;
  const Voice& voice_;
  Dice dice_;
  Speaker speaker_;
  Listener listener_;
  deploy::Wire wire_;
  Phase phase_ = Phase::kIdle;
  Next next_ = Next::kNothing;
  std::uint32_t watched_ = 0;
  std::string out_;  // what the kernel did not take yet
  std::string head_;
  std::string bad_;   // what breaks the rules, and is still to be said
  std::string pong_;  // that it owes the proxy
  std::string how_;
  const char* wrong_ = nullptr;
  int close_code_ = 1000;  // of its CLOSE
  unsigned more_ = 0;      // frames before its CLOSE
  bool triggered_ = false;
  bool held_ = false;
  bool held_for_ever_ = false;
  bool deaf_ = false;  // does not read for now
  bool silent_ = false;
  bool done_speaking_ = false;
  bool finishing_ = false;  // FIN once all is out
  bool died_ = false;
  bool died_by_reset_ = false;
  bool violated_ = false;
  Nanoseconds hold_until_ = 0;  // 0: no time
  Nanoseconds deaf_until_ = 0;
  Nanoseconds stalled_at_ = 0;  // when to say that it is
  Nanoseconds answer_at_ = 0;
  Nanoseconds closed_at_ = 0;
  Nanoseconds close_came_at_ = 0;
  Nanoseconds frame_began_at_ = 0;
  Nanoseconds slowest_frame_ = 0;
  std::uint64_t written_ = 0;
};

}  // namespace sluice::storm
