// Mode rate: an open loop. Messages are due at fixed times, one connection after the other, and are
// sent then even when earlier ones are not back. Latency counts from the time a message was due: if
// anything, the load included, holds it up, that is in the figure instead of being left out.
#include <sys/prctl.h>

#include <memory>
#include <vector>

#include "tests/bench/load/echo_session.h"
#include "tests/bench/load/modes.h"
#include "tests/bench/load/pacer.h"
#include "tests/bench/load/window.h"

namespace sluice::bench {
namespace {

class OpenLoop : public EchoOwner {
 public:
  void OnAnswer(EchoSession& /*session*/, Instant due, Instant now) override {
    --under_way_;
    // By the time it was due: one that is answered after the window must not drop out.
    if (due >= begin_ && due < end_) {
      latency_.Add(now - due);
    }
  }

  void Send(EchoSession& session, Instant due) {
    ++under_way_;
    if (due >= begin_) {
      lag_.Add(std::chrono::steady_clock::now() - due);
    }
    session.SendMessages(1, due);
  }

  void Count(const Window& window) {
    begin_ = window.begin();
    end_ = window.end();
  }

  [[nodiscard]] std::size_t under_way() const { return under_way_; }
  [[nodiscard]] const Histogram& latency() const { return latency_; }
  // How late the load itself was.
  [[nodiscard]] const Histogram& lag() const { return lag_; }

 private:
  Histogram latency_;
  Histogram lag_;
  std::size_t under_way_ = 0;
  Instant begin_{};
  Instant end_{};
};

}  // namespace

void RunRate(const Options& options) {
  const SslCtxPtr tls = MakeTls(options.ca, Reading::kRecord);
  const Target target{options.port, tls.get()};
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  OpenLoop loop;
  std::vector<std::unique_ptr<EchoSession>> sessions;
  for (std::size_t i = 0; i < options.connections; ++i) {
    sessions.push_back(std::make_unique<EchoSession>(target, i, options.size, loop));
    sessions.back()->OpenAndWatch(epoll.get());
  }
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // nanoseconds; the default wakes 50 us late
  Instant now = std::chrono::steady_clock::now();
  Window window(options, now);
  loop.Count(window);
  Pacer pacer(now, options.rate);
  Patience patience;
  while (!window.over() || loop.under_way() > 0) {
    while (pacer.due() <= now && pacer.due() < window.end()) {
      loop.Send(*sessions[pacer.number() % sessions.size()], pacer.due());
      pacer.Next();
    }
    const Instant next =
        window.over() ? now + std::chrono::seconds(1) : std::min({pacer.due(), window.end()});
    const int count = RunTurn(epoll.get(), next - std::chrono::steady_clock::now());
    now = std::chrono::steady_clock::now();
    patience.Saw(count, now);
    window.Update(now);
  }
  std::printf("{\"messages\": %llu, %s, %s, \"lag_p99_us\": %.1f, \"errors\": 0}\n",
              static_cast<unsigned long long>(loop.latency().total()),
              LatencyJson(loop.latency()).c_str(), window.Json().c_str(),
              loop.lag().Quantile(0.99));
}

}  // namespace sluice::bench
