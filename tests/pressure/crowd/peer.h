// One connection of a crowd: does what its script says and takes what comes for that. Never begins
// again.
#pragma once

#include "tests/deploy/client/wire.h"
#include "tests/pressure/crowd/script.h"

namespace sluice::pressure {

class Peer : public deploy::Participant {
 public:
  enum class State { kWaits, kConnects, kConnected, kEnded };

  Peer(deploy::EventLoop& loop, const Options& options, std::size_t index);
  ~Peer() override;

  void BeginAt(Nanoseconds when) { loop_.wheel().Set(*this, when); }
  // Closes the connection, whatever it is doing.
  void Close();

  [[nodiscard]] State state() const { return state_; }
  // The status of what it was answered; 0: nothing that has one.
  [[nodiscard]] int status() const { return status_; }
  // "fin", "reset" or "closed" (by us), or why there was no connection.
  [[nodiscard]] const char* ended() const { return ended_; }
  // From the connection to its end.
  [[nodiscard]] Nanoseconds lifetime() const { return ended_at_ - connected_at_; }
  [[nodiscard]] std::uint64_t bytes_read() const { return bytes_read_; }

  void OnEvent(std::uint32_t events) override;
  void OnTimer() override;

 private:
  void Connect();
  void Speak();
  void ReadSome(std::size_t most);
  void TakeAnswer(std::string_view bytes);
  void Watch(std::uint32_t events);
  void End(const char* how);

  deploy::EventLoop& loop_;
  const Options& options_;
  std::size_t index_;
  Script script_;
  deploy::Wire wire_;
  State state_ = State::kWaits;
  std::size_t said_ = 0;  // of begin and then of rest
  std::string answer_;    // up to the end of its head
  bool answered_ = false;
  int status_ = 0;
  const char* ended_ = "";
  Nanoseconds connected_at_ = 0;
  Nanoseconds ended_at_ = 0;
  std::uint64_t bytes_read_ = 0;
};

}  // namespace sluice::pressure
