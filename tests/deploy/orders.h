// Lines of standard input as events of the loop.
#pragma once

#include <unistd.h>

#include <string>

#include "tests/deploy/event_loop.h"

namespace sluice::deploy {

class Orders : public Participant {
 public:
  explicit Orders(EventLoop& loop) {
    bench::SetNonBlocking(STDIN_FILENO);
    loop.Add(STDIN_FILENO, EPOLLIN, *this);
  }

  void OnEvent(std::uint32_t /*events*/) override {
    std::array<char, 1024> buffer{};
    const ssize_t got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got <= 0) {
      over_ = got == 0 || errno != EAGAIN;
    } else {
      text_.append(buffer.data(), static_cast<std::size_t>(got));
    }
  }
  void OnTimer() override {}

  [[nodiscard]] bool over() const { return over_; }

  // A whole line, or nothing.
  std::string Take() {
    const std::size_t end = text_.find('\n');
    if (end == std::string::npos) {
      return {};
    }
    std::string line = text_.substr(0, end);
    text_.erase(0, end + 1);
    return line;
  }

 private:
  std::string text_;
  bool over_ = false;
};

}  // namespace sluice::deploy
