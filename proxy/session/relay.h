// A session after its 101: forwards frames both ways as they come and ends the session in order
// (RFC 6455 sections 5.5.1 and 7).
//
// Each direction is walked by a FrameTracker. Whole frames are forwarded at once; of a frame whose
// header is not complete, and of an incomplete control frame, nothing is forwarded until it is. So
// the far side is between frames, or inside the payload of a frame that the tracker knows, and a
// CLOSE of ours is never written inside a frame. Where the route says so, large frames of the
// backend go on in fragments, and there the client is between frames all the time.
//
// A CLOSE of either side is relayed as it came. One of ours goes in steps:
//
//   kOpen --BeginClose--> kFinishMessage   the client's message in flight is finished, no new one
//         --boundary--->  kAwaitBackend    CLOSE to the backend; what it still sends is forwarded
//         --its CLOSE-->  kAwaitBoundary   the backend's last message ends
//         --boundary--->  kAwaitClient     CLOSE to the client; what it still sends is discarded
//         --its CLOSE-->  (FIN both ways, linger, done)
//
// Every step has a deadline. Owned by Session; buried by it at the end.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "proxy/session/client_rates.h"
#include "proxy/session/core.h"
#include "proxy/ws/frame_tracker.h"
#include "proxy/ws/refragmenter.h"

namespace sluice::session {

class RelaySink {
 public:
  // Both legs are over. The relay is not called again.
  virtual void OnRelayDone() noexcept = 0;

 protected:
  ~RelaySink() = default;
};

struct Upgraded;  // exchange.h

// A CLOSE that Sluice itself begins.
struct OurClose {
  std::uint16_t client_code = 1012;
  std::uint16_t backend_code = 1001;
  std::string reason;
  std::string_view why;                                 // static word for the access log
  metrics::OwnClose cause = metrics::OwnClose::kCount;  // kCount: a side broke the rules
  bool await_backend = true;   // what the backend sends until it answers is still the client's
  bool finish_message = true;  // wait for the end of the client's message, not only of its frame
};

// What has been forwarded so far.
struct RelayTotals {
  std::uint64_t bytes_in = 0;  // from the client
  std::uint64_t bytes_out = 0;
  std::uint64_t messages_in = 0;
  std::uint64_t messages_out = 0;
};

class Relay final : public net::Mortal {
 public:
  // `facts` outlives the relay. REQUIRES: the 101 was sent, core.backend is open.
  Relay(Core& core, RelaySink& sink, RequestFacts& facts, const Upgraded& upgraded) noexcept;

  // Forwards what came early, then begins to relay. May end the session at once.
  void Start(Bytes early_client, Bytes early_backend) noexcept;

  void OnReadable(Side side) noexcept;
  void OnWritable(Side side) noexcept;

  // Ends the session with a CLOSE of ours, in order. Does nothing when it is ending already.
  void BeginClose(const OurClose& close) noexcept;

  // What a session needs from time to time: pings for a side that is silent, the end of one that
  // does not answer, of a session in which nothing passes, and of one whose client is too slow.
  // Returns when the next call is due.
  [[nodiscard]] Instant LookAfter(Instant now) noexcept;
  // When the first call is due.
  [[nodiscard]] Instant FirstLook() const noexcept;

  [[nodiscard]] std::uint64_t key_hash() const noexcept { return key_hash_; }
  [[nodiscard]] RelayTotals totals() const noexcept;
  // A side or Sluice has begun to end it.
  [[nodiscard]] bool is_ending() const noexcept;

  // Ends the session now: CLOSE to the client if it can be written, then the sockets are closed.
  void Cut(std::string_view why) noexcept;

  // After the end: a deadline ended it, not the two sides.
  [[nodiscard]] bool was_forced() const noexcept { return forced_; }

 private:
  enum class Stage : std::uint8_t {
    kOpen,
    kFinishMessage,
    kAwaitBackend,
    kAwaitBoundary,
    kAwaitClient,
  };

  // One side: what comes from it and what has gone to it.
  struct Leg {
    explicit Leg(const ws::FrameRules& rules) noexcept : tracker(rules) {}

    ws::FrameTracker tracker;            // of what comes from this side
    std::unique_ptr<std::string> carry;  // the start of a frame from this side, not forwarded yet
    std::uint64_t bytes = 0;             // forwarded from this side
    std::uint64_t messages = 0;
    // When it is looked whether the side is silent; with `pinged`, until when it may answer.
    Instant beat_due{};
    std::uint16_t code = 0;             // of the first CLOSE seen on this leg, either way
    bool bulk : 1 = false;              // the last read or splice brought a lot at once
    bool spliced : 1 = false;           // the last bytes from it were spliced
    bool close_in : 1 = false;          // a CLOSE came from this side
    bool close_out : 1 = false;         // a CLOSE went to this side
    bool lost : 1 = false;              // the side ended without a CLOSE
    bool bad : 1 = false;               // it broke the frame rules; it is not parsed any more
    bool heard : 1 = false;             // something came from this side since the last beat
    bool pinged : 1 = false;            // a ping of ours to this side waits for its pong
    bool awaits_reading : 1 = false;    // with pinged: bytes waited for the side at that time
    bool hung : 1 = false;              // the side did not answer the ping
    bool discard : 1 = false;           // what still comes from this side is read and dropped
    bool stopped_at_frame : 1 = false;  // with discard: where forwarding stopped
    bool stopped_at_message : 1 = false;
  };

  // Messages that came one after the other and are counted alike, and so together: a sender that
  // pipelines often sends one kind.
  struct MessageRun {
    ws::Opcode opcode{};
    std::uint64_t bytes = 0;  // of each
    std::uint64_t count = 0;

    // False: the message is of another kind.
    [[nodiscard]] bool Extend(ws::Opcode its_opcode, std::uint64_t its_bytes) noexcept {
      const bool same = its_opcode == opcode && its_bytes == bytes;
      count += same ? 1 : 0;
      return same;
    }
  };

  // Where the route ends sessions that are idle, or whose clients are slow.
  struct Watch {
    std::uint64_t seen = 0;  // bytes forwarded so far, at the last look
    Instant moved_at{};      // the first look that saw so much
    Instant full_since{};    // since when the backend is not read for the client's sake; or none
  };

  // What only a session that is about to end, or in trouble, has to know.
  struct Ending {
    OurClose ours;
    std::string_view why;             // static word for the access log
    std::uint64_t seen_at_timer = 0;  // bytes forwarded so far, at the last deadline
    // Of the bytes forwarded to a side when it was pinged: all, and those that had arrived there.
    std::array<std::uint64_t, kSides> sent_at_ping{};
    std::array<std::uint64_t, kSides> taken_at_ping{};
    std::size_t untaken_at_timer = static_cast<std::size_t>(-1);
    unsigned extensions = 0;
  };

  [[nodiscard]] Leg& leg(Side side) noexcept { return legs_[Index(side)]; }
  [[nodiscard]] const Leg& leg(Side side) const noexcept { return legs_[Index(side)]; }
  [[nodiscard]] Ending& ending() noexcept;

  [[nodiscard]] const config::Heartbeat& heartbeat(Side side) const noexcept;
  [[nodiscard]] Instant NextBeat(Side side, Instant from) const noexcept;
  [[nodiscard]] Instant Beat(Side side, Instant now) noexcept;
  void Ping(Side to, Instant now) noexcept;
  void OnPingDue(Side side, Instant now) noexcept;
  [[nodiscard]] bool IsReadingOn(Side side) noexcept;
  void OnHungClient() noexcept;
  [[nodiscard]] bool SwallowPong(Side from, Bytes frame_end) noexcept;
  [[nodiscard]] Instant WatchOver(Instant now) noexcept;
  void CloseFor(metrics::OwnClose cause, std::uint16_t code, std::string_view reason) noexcept;
  [[nodiscard]] ClientRates& rates() noexcept;
  [[nodiscard]] bool MayPass(ws::Opcode opcode) noexcept;
  void KeepRates(std::size_t count) noexcept;
  void OnWithinRates(short what) noexcept;
  [[nodiscard]] std::size_t ReadSize(Side side) noexcept;
  [[nodiscard]] bool Splice(Side from) noexcept;
  void Take(Side from, Bytes bytes) noexcept;
  void CountMessages(Side from, const MessageRun& run) noexcept;
  void Forward(Side from, Bytes bytes) noexcept;
  void CountForwarded(Side from, std::size_t count) noexcept;
  void HoldBack(Side from) noexcept;
  void OnCloseFrame(Side from) noexcept;
  void StopForwarding(Side from) noexcept;
  void OnEnd(Side side, bool broken) noexcept;
  void OnLost(Side side) noexcept;
  void OnViolation(Side from) noexcept;

  // What has been forwarded from `from` ends with a whole frame, or a whole message.
  [[nodiscard]] bool AtFrameBoundary(Side from) const noexcept;
  [[nodiscard]] bool AtMessageBoundary(Side from) const noexcept;
  // A CLOSE has passed on either leg, in either direction.
  [[nodiscard]] bool IsClosing() const noexcept;
  // A boundary that the current step of our closing waits for has been reached on `from`.
  [[nodiscard]] bool MustStopAt(Side from) const noexcept;

  bool WriteClose(Side to, std::uint16_t code, std::string_view reason) noexcept;
  void Advance() noexcept;        // the steps of our closing
  void AnswerMissing() noexcept;  // answers a CLOSE that the other side did not answer in time
  void Settle() noexcept;         // FIN where a leg is complete; done when both are
  void Initiate(metrics::ClosedBy by, std::uint16_t code) noexcept;
  void EnterStage(Stage stage, Millis deadline) noexcept;
  void ArmTimer(Millis delay) noexcept;
  void OnTimer(short what) noexcept;
  void Finish() noexcept;

  Core& core_;
  RelaySink& sink_;
  RequestFacts& facts_;
  metrics::RouteBlock& block_;  // of the session's route
  std::array<Leg, kSides> legs_;
  net::Timer timer_;
  std::unique_ptr<ws::Refragmenter> refragmenter_;  // of what goes to the client; null: as it comes
  std::unique_ptr<Ending> ending_;                  // made when it is first asked for: see ending()
  std::unique_ptr<ClientRates> rates_;              // the same: see rates()
  std::unique_ptr<Watch> watch_;                    // null: the route does not ask for it
  Instant began_;
  std::uint64_t key_hash_;
  unsigned reads_ = 0;                                // for sampling relay_seconds
  std::uint16_t code_ = 0;                            // what closes_total says
  metrics::ClosedBy by_ = metrics::ClosedBy::kCount;  // kCount: nobody yet
  Stage stage_ = Stage::kOpen;
  std::uint8_t patience_ = 0;     // deadlines that have passed in this stage
  bool limits_rate_ : 1 = false;  // the route limits messages or bytes
  bool forced_ : 1 = false;
  bool done_ : 1 = false;
};

}  // namespace sluice::session
