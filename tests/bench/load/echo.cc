// Mode echo: a closed loop. Every connection keeps `depth` messages under way, and counted is what
// is answered within the window.
#include <memory>
#include <vector>

#include "tests/bench/load/echo_session.h"
#include "tests/bench/load/modes.h"
#include "tests/bench/load/window.h"

namespace sluice::bench {
namespace {

class ClosedLoop : public EchoOwner {
 public:
  void OnAnswer(EchoSession& /*session*/, Instant due, Instant now) override {
    --under_way_;
    if (counting_) {
      latency_.Add(now - due);
    }
  }

  // What one read answered is sent anew by one write.
  void OnAnswers(EchoSession& session, std::size_t count, Instant now) override {
    if (!ending_) {
      Send(session, count, now);
    }
  }

  void Send(EchoSession& session, std::size_t count, Instant now) {
    under_way_ += count;
    session.SendMessages(count, now);
  }

  void Follow(const Window& window) {
    counting_ = window.counting();
    ending_ = window.over();
  }

  [[nodiscard]] std::size_t under_way() const { return under_way_; }
  [[nodiscard]] const Histogram& latency() const { return latency_; }

 private:
  Histogram latency_;
  std::size_t under_way_ = 0;
  bool counting_ = false;
  bool ending_ = false;
};

}  // namespace

void RunEcho(const Options& options) {
  const SslCtxPtr tls = MakeTls(options.ca, Reading::kRecord);
  const Target target{options.port, tls.get()};
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  ClosedLoop loop;
  std::vector<std::unique_ptr<EchoSession>> sessions;
  for (std::size_t i = 0; i < options.connections; ++i) {
    sessions.push_back(std::make_unique<EchoSession>(target, i, options.size, loop));
    sessions.back()->OpenAndWatch(epoll.get());
  }
  Instant now = std::chrono::steady_clock::now();
  Window window(options, now);
  Patience patience;
  for (const auto& session : sessions) {
    loop.Send(*session, options.depth, now);
  }
  while (!window.over() || loop.under_way() > 0) {
    const int count = RunTurn(epoll.get(), std::chrono::seconds(1));
    now = std::chrono::steady_clock::now();
    patience.Saw(count, now);
    window.Update(now);
    loop.Follow(window);
  }
  std::printf("{\"messages\": %llu, %s, %s, \"errors\": 0}\n",
              static_cast<unsigned long long>(loop.latency().total()),
              LatencyJson(loop.latency()).c_str(), window.Json().c_str());
}

}  // namespace sluice::bench
