// Mode connect: whole short lives, a fixed number at a time: TCP, TLS if asked, upgrade, CLOSE 1000
// and its answer, end of stream. Latency is from the connect to the 101.
//
// The server side closes TCP first, as RFC 6455 (7.1.1) wants it; the load only follows. So the
// TIME_WAIT of its leg is the proxy's, and the load does not run out of ports.
#include <memory>
#include <vector>

#include "tests/bench/load/modes.h"
#include "tests/bench/load/session.h"
#include "tests/bench/load/window.h"

namespace sluice::bench {
namespace {

constexpr std::uint16_t kNormalClosure = 1000;

class ShortSession : public Session {
 public:
  using Session::Session;

  void Start(int epoll) {
    epoll_ = epoll;
    Step(EPOLL_CTL_ADD);
  }

  void OnEvent(std::uint32_t events) override {
    if (opened_) {
      Session::OnEvent(events);
    } else {
      Step(EPOLL_CTL_MOD);
    }
  }

  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] nanoseconds opening() const { return opened_at_ - started_; }

 protected:
  void OnHeader(const FrameHeader& /*header*/) override { DieHere("was sent a message"); }
  void OnPayload(const unsigned char* /*bytes*/, std::size_t /*count*/,
                 std::size_t /*offset*/) override {}
  void OnFrameEnd(Instant /*now*/) override {}

  void OnClose(std::uint16_t code) override {
    if (code != kNormalClosure || closed_) {
      DieHere("was sent CLOSE " + std::to_string(code));
    }
    closed_ = true;
  }

  void OnEnd() override {
    if (!closed_) {
      Session::OnEnd();
    }
    ended_ = true;
    StopWatching();
  }

 private:
  void Step(int operation) {
    const Progress progress = Advance();
    if (progress == Progress::kOpen) {
      opened_ = true;
      opened_at_ = std::chrono::steady_clock::now();
      StartWatching(epoll_, operation);
      SendClose(kNormalClosure);
    } else {
      Watch(epoll_, operation, fd(), progress == Progress::kWantsRead ? EPOLLIN : EPOLLOUT,
            static_cast<Client*>(this));
    }
  }

  int epoll_ = -1;
  bool opened_ = false;
  bool closed_ = false;
  bool ended_ = false;
  Instant started_ = std::chrono::steady_clock::now();
  Instant opened_at_{};
};

}  // namespace

void RunConnect(const Options& options) {
  const SslCtxPtr tls = MakeTls(options.ca, Reading::kRecord);
  const Target target{options.port, tls.get()};
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  std::uint64_t number = 0;
  std::vector<std::unique_ptr<ShortSession>> sessions(options.connections);
  std::unique_ptr<Tickets> tickets;
  if (options.resume) {
    // Full handshakes give the first tickets; then each connection uses one and is given another.
    tickets = std::make_unique<Tickets>(tls.get(), 2 * options.connections);
    for (auto& session : sessions) {
      session = std::make_unique<ShortSession>(target, number++);
      session->Start(epoll.get());
    }
  }
  Patience patience;
  Histogram opening;
  Instant now = std::chrono::steady_clock::now();
  Window window(options, now);
  const auto start = [&](std::unique_ptr<ShortSession>& session) {
    SslSessionPtr ticket = tickets ? tickets->Take() : nullptr;
    if (tickets && !ticket) {
      Die("the other side gave no tickets");
    }
    session = std::make_unique<ShortSession>(target, number++, std::move(ticket));
    session->Start(epoll.get());
  };
  std::size_t living = options.resume ? sessions.size() : 0;
  if (!options.resume) {
    for (auto& session : sessions) {
      start(session);
    }
    living = sessions.size();
  }
  while (living > 0) {
    const int count = RunTurn(epoll.get(), std::chrono::seconds(1));
    now = std::chrono::steady_clock::now();
    patience.Saw(count, now);
    window.Update(now);
    for (auto& session : sessions) {
      if (session == nullptr || !session->ended()) {
        continue;
      }
      if (window.counting()) {
        opening.Add(session->opening());
      }
      session.reset();
      if (window.over()) {
        --living;
      } else {
        start(session);
      }
    }
  }
  std::printf("{\"connections\": %llu, %s, %s, \"tickets_reused\": %llu, \"errors\": 0}\n",
              static_cast<unsigned long long>(opening.total()), LatencyJson(opening).c_str(),
              window.Json().c_str(),
              static_cast<unsigned long long>(tickets ? tickets->reused() : 0));
}

}  // namespace sluice::bench
