// The admin API over one connection: one request at a time, answers in order.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <string_view>

#include "tests/bench/socket.h"
#include "tests/deploy/event_loop.h"

namespace sluice::storm {

class Admin : public deploy::Participant {
 public:
  using Done = std::function<void(int status, std::string_view body)>;

  explicit Admin(deploy::EventLoop& loop) : loop_(loop) {}

  void SetAddress(const sockaddr_in& address) {
    address_ = address;
    fd_.Reset();
  }
  // `request`: method and target. The body lives for the call of `done`.
  void Ask(std::string request, Done done);

  void OnEvent(std::uint32_t events) override;
  void OnTimer() override {}

 private:
  struct Waiting {
    std::string request;
    Done done;
  };

  void SendNext();

  deploy::EventLoop& loop_;
  sockaddr_in address_{};
  UniqueFd fd_;
  std::deque<Waiting> queue_;  // the first has been sent, if busy_
  bool busy_ = false;
  std::string answer_;
};

}  // namespace sluice::storm
