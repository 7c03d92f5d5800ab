// A client after its 101: walks the frames that come, answers PING, and queues what goes out.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tests/bench/load/client.h"
#include "tests/bench/websocket.h"

namespace sluice::bench {

class Session : public Client {
 public:
  using Client::Client;

  // Opens it, waiting, and registers it with `epoll`, where it is the data of its events. `epoll`
  // outlives the session.
  void OpenAndWatch(int epoll);
  // The same for one that is open, whose socket may be registered already.
  void StartWatching(int epoll, int operation);
  // Handles what epoll tells.
  void OnEvent(std::uint32_t events) override;

  // Sends a CLOSE frame with this code; 1005: without one.
  void SendClose(std::uint16_t code);

  [[nodiscard]] bool flushed() const { return out_begin_ == out_.size(); }

 protected:
  // A data frame begins, and pieces of its payload, `offset` bytes into it, and its end.
  virtual void OnHeader(const FrameHeader& header) = 0;
  virtual void OnPayload(const unsigned char* bytes, std::size_t count, std::size_t offset) = 0;
  virtual void OnFrameEnd(Instant now) = 0;
  // What one read brought has been walked.
  virtual void OnReadDone(Instant /*now*/) {}
  // The peer's CLOSE, with 1005 for one without a code (RFC 6455, 7.1.5), and the end of the
  // connection. Unless a class knows better, neither is allowed.
  virtual void OnClose(std::uint16_t code);
  virtual void OnEnd();

  // Writes what waits; false when the socket has no more room.
  virtual bool Flush();
  [[nodiscard]] virtual bool wants_write() const { return !flushed(); }
  // Reads once, or until TLS holds nothing.
  virtual void ReadSome();

  // Walks bytes that came.
  void Walk(const unsigned char* bytes, std::size_t count, Instant now);
  // Whether the next byte that comes begins a frame.
  [[nodiscard]] bool at_boundary() const { return !in_frame_ && carry_size_ == 0; }
  // Payload that is missing of the data frame being read; 0 within a control frame.
  [[nodiscard]] std::size_t data_left() const;
  // Counts payload that was taken out of the socket unseen. REQUIRES: no more than data_left().
  void SkipPayload(std::size_t count, Instant now);

  void Queue(const unsigned char* bytes, std::size_t count);
  void Rearm();
  // No event reaches it any more.
  void StopWatching();

 private:
  void OnControl();
  void SendControl(unsigned char opcode, const unsigned char* payload, std::size_t count);
  void EndFrame(Instant now);

  int epoll_ = -1;
  bool write_armed_ = false;
  std::vector<unsigned char> out_;
  std::size_t out_begin_ = 0;
  std::array<unsigned char, kMaxHeader> carry_{};  // the start of a header
  std::size_t carry_size_ = 0;
  FrameHeader header_;
  std::size_t offset_ = 0;  // payload bytes of the frame being read
  bool in_frame_ = false;
  std::array<unsigned char, 125> control_{};
};

// The event loop's one turn: waits for at most `patience` and lets the clients handle their
// events. Returns the number of events; those whose data is null are left to the caller, told by
// `foreign`.
int RunTurn(int epoll, nanoseconds patience, bool* foreign = nullptr);

}  // namespace sluice::bench
