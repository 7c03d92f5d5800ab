// Mode idle: sessions that say nothing, held for as long as standard input is open. Each line on it
// makes every session send `burst` messages, which come back and are checked; some sessions at a
// time, because the kernel's memory for sockets is not what is measured.
#include <unistd.h>

#include <memory>
#include <vector>

#include "tests/bench/load/echo_session.h"
#include "tests/bench/load/modes.h"
#include "tests/bench/load/window.h"

namespace sluice::bench {
namespace {

constexpr std::size_t kAtATime = 200;

class Burst : public EchoOwner {
 public:
  void OnAnswer(EchoSession& /*session*/, Instant /*due*/, Instant /*now*/) override {
    --under_way_;
    ++messages_;
  }

  void Send(EchoSession& session, std::size_t count, Instant now) {
    under_way_ += count;
    session.SendMessages(count, now);
  }

  [[nodiscard]] std::size_t under_way() const { return under_way_; }
  [[nodiscard]] std::uint64_t messages() const { return messages_; }

 private:
  std::size_t under_way_ = 0;
  std::uint64_t messages_ = 0;
};

void Say(const char* line) {
  std::puts(line);
  std::fflush(stdout);
}

}  // namespace

void RunIdle(const Options& options) {
  const SslCtxPtr tls = MakeTls(options.ca, Reading::kLean);
  const Target target{options.port, tls.get()};
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  Burst burst;
  std::vector<std::unique_ptr<EchoSession>> sessions;
  for (std::size_t i = 0; i < options.connections; ++i) {
    sessions.push_back(std::make_unique<EchoSession>(target, i, options.size, burst));
    sessions.back()->OpenAndWatch(epoll.get());
  }
  Watch(epoll.get(), EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, nullptr);
  Say("ready");
  for (;;) {
    bool asked = false;
    RunTurn(epoll.get(), std::chrono::hours(1), &asked);
    if (!asked) {
      continue;
    }
    char line = 0;
    if (::read(STDIN_FILENO, &line, 1) <= 0) {
      break;
    }
    if (line != '\n') {
      continue;
    }
    Patience patience;
    for (std::size_t first = 0; first < sessions.size(); first += kAtATime) {
      for (std::size_t i = first; i < std::min(first + kAtATime, sessions.size()); ++i) {
        burst.Send(*sessions[i], options.burst, std::chrono::steady_clock::now());
      }
      while (burst.under_way() > 0) {
        const int count = RunTurn(epoll.get(), std::chrono::seconds(1));
        patience.Saw(count, std::chrono::steady_clock::now());
      }
    }
    Say("done");
  }
  std::printf("{\"sessions\": %zu, \"messages\": %llu, \"errors\": 0}\n", sessions.size(),
              static_cast<unsigned long long>(burst.messages()));
}

}  // namespace sluice::bench
