// Signals as events of the loop.
#pragma once

#include <sys/signalfd.h>

#include <csignal>
#include <initializer_list>

#include "tests/deploy/event_loop.h"

namespace sluice::deploy {

class Signals : public Participant {
 public:
  Signals(EventLoop& loop, std::initializer_list<int> signals) {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : signals) {
      sigaddset(&set, signal);
    }
    sigprocmask(SIG_BLOCK, &set, nullptr);
    fd_ = UniqueFd(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    if (!fd_.valid()) {
      bench::DieErrno("signalfd");
    }
    loop.Add(fd_.get(), EPOLLIN, *this);
  }

  void OnEvent(std::uint32_t /*events*/) override { waits_ = true; }
  void OnTimer() override {}

  // One that has come, or 0.
  int Take() {
    signalfd_siginfo info{};
    if (!waits_ || ::read(fd_.get(), &info, sizeof(info)) != sizeof(info)) {
      waits_ = false;
      return 0;
    }
    return static_cast<int>(info.ssi_signo);
  }

 private:
  UniqueFd fd_;
  bool waits_ = false;
};

}  // namespace sluice::deploy
