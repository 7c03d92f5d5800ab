// A session whose messages come back as they were sent. Payloads begin with the connection's number
// and the message's, so that no message can pass for another one; every byte is compared.
#pragma once

#include <deque>

#include "tests/bench/load/session.h"

namespace sluice::bench {

class EchoSession;

// Who sends: told of answers.
class EchoOwner {
 public:
  virtual ~EchoOwner() = default;
  // One message is back; `due` is the time that it was sent with.
  virtual void OnAnswer(EchoSession& session, Instant due, Instant now) = 0;
  // One read brought `count` answers, more than none.
  virtual void OnAnswers(EchoSession& /*session*/, std::size_t /*count*/, Instant /*now*/) {}
};

class EchoSession : public Session {
 public:
  // `owner` outlives the session.
  EchoSession(const Target& target, std::uint64_t number, std::size_t size, EchoOwner& owner);

  // Sends `count` new messages together; `due` is what their answers are reported with.
  void SendMessages(std::size_t count, Instant due);

  [[nodiscard]] std::size_t under_way() const { return due_.size(); }

 protected:
  void OnHeader(const FrameHeader& header) override;
  void OnPayload(const unsigned char* bytes, std::size_t count, std::size_t offset) override;
  void OnFrameEnd(Instant now) override;
  void OnReadDone(Instant now) override;

 private:
  void CheckSame(const unsigned char* got, const unsigned char* want, std::size_t count) const;

  EchoOwner& owner_;
  std::size_t size_;
  std::deque<Instant> due_;  // of the messages under way
  std::uint64_t sent_ = 0;
  std::uint64_t answered_ = 0;
  std::size_t answered_now_ = 0;  // in this read
};

}  // namespace sluice::bench
