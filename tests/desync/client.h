// The clients of the laboratory. Each takes one pair after the other, sends it over the connection
// that the pair before has left, and holds what comes against what must come.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "tests/deploy/event_loop.h"
#include "tests/deploy/storm/dice.h"
#include "tests/desync/answer.h"
#include "tests/desync/http_reader.h"
#include "tests/desync/ledger.h"
#include "tests/desync/pieces.h"
#include "tests/desync/request.h"

namespace sluice::desync {

// What the clients take their pairs from.
struct Work {
  std::uint64_t seed = 1;
  std::uint64_t next = 0;
  std::uint64_t end = 0;
  deploy::Nanoseconds patience = 0;  // for a pair
};

//    (no connection) --Begin--> subject [, marker] sent --answers, as expected--> Begin
//                                      |                                           ^
//                                      +--the connection ends, as expected---------+
//                                              (a marker that was not sent goes over a new one)
class Client : public deploy::Participant {
 public:
  Client(deploy::EventLoop& loop, Ledger& ledger, Work& work, const sockaddr_in& address);
  ~Client() override;

  // Takes the next pair, if there is one.
  void Begin();

  void OnEvent(std::uint32_t events) override;
  void OnTimer() override;

  [[nodiscard]] bool is_idle() const { return !pair_; }

 private:
  // One answer that must come.
  struct Expected {
    std::uint64_t id = 0;
    int status = 0;
    bool of_backend = false;    // carries the id, and this content
    std::uint64_t content = 0;  // digest
    unsigned interim = 0;       // so many answers of status 1xx before it
    bool cut = false;           // it begins and does not end
    bool last = false;          // the connection ends behind it
    bool is_repeatable = false;
  };

  void Connect();
  void Send(const Request& request);
  void SendMarker();
  void Expect(const Request& request);
  void SendPieces();
  void Read();
  bool OnAnswer(const Message& answer);
  [[nodiscard]] bool IsLostWithItsConnection(const Expected& one, const Message& answer) const;
  void OnEnd(bool reset);
  void Advance();
  void Blame(const std::string& what);
  void GiveUp(const std::string& what);
  void Drop();

  deploy::EventLoop& loop_;
  Ledger& ledger_;
  Work& work_;
  const sockaddr_in& address_;
  UniqueFd fd_;
  std::unique_ptr<HttpReader> reader_;  // of this connection
  storm::Dice dice_{1};                 // of this pair
  std::uint64_t number_ = 0;
  std::optional<Pair> pair_;
  bool marker_sent_ = false;
  bool marker_due_ = false;  // it will be served, over this connection or another one
  std::string behind_wait_;  // what is sent once the backend says 100
  Pieces pieces_;
  std::deque<Expected> expected_;
  unsigned interim_ = 0;
  bool ends_ = false;  // the connection has nothing more to say
  bool watches_room_ = false;
  bool reset_ = false;  // a write was told so, and a read behind that is not
};

}  // namespace sluice::desync
