// Mode drain: sessions under light traffic at a fixed rate while the proxy is told to go. A line on
// standard input marks that moment. Noted for each session: how it ended, when, and how many of its
// messages were never answered.
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "tests/bench/load/echo_session.h"
#include "tests/bench/load/modes.h"
#include "tests/bench/load/pacer.h"
#include "tests/bench/load/window.h"

namespace sluice::bench {
namespace {

constexpr std::size_t kSlices = 10;  // of the time between the first end and the last

class WatchedSession : public EchoSession {
 public:
  using EchoSession::EchoSession;

  // "1012" and the like for a CLOSE, otherwise what the socket said; empty while it is open.
  [[nodiscard]] const std::string& outcome() const { return outcome_; }
  [[nodiscard]] Instant ended_at() const { return ended_at_; }
  [[nodiscard]] bool gone() const { return gone_; }
  [[nodiscard]] bool takes_messages() const { return outcome_.empty(); }
  [[nodiscard]] std::size_t unanswered() const { return under_way(); }

 protected:
  void OnClose(std::uint16_t code) override {
    if (!takes_messages()) {
      DieHere("was sent a second CLOSE");
    }
    Note(std::to_string(code));
    SendClose(code);
  }

  void OnEnd() override {
    if (takes_messages()) {
      Note(std::string(end()));
    }
    gone_ = true;
    StopWatching();
  }

 private:
  void Note(std::string outcome) {
    outcome_ = std::move(outcome);
    ended_at_ = std::chrono::steady_clock::now();
  }

  std::string outcome_;
  Instant ended_at_{};
  bool gone_ = false;
};

class Traffic : public EchoOwner {
 public:
  void OnAnswer(EchoSession& /*session*/, Instant /*due*/, Instant /*now*/) override {
    ++answered_;
  }
  [[nodiscard]] std::uint64_t answered() const { return answered_; }

 private:
  std::uint64_t answered_ = 0;
};

void Report(const std::vector<std::unique_ptr<WatchedSession>>& sessions, Instant told,
            std::uint64_t answered) {
  std::map<std::string, std::size_t> outcomes;
  std::vector<double> at;  // milliseconds after the proxy was told
  std::size_t unanswered = 0;
  std::size_t open = 0;
  for (const auto& session : sessions) {
    unanswered += session->unanswered();
    if (session->outcome().empty()) {
      ++open;
      continue;
    }
    ++outcomes[session->outcome()];
    at.push_back(std::chrono::duration<double, std::milli>(session->ended_at() - told).count());
  }
  std::sort(at.begin(), at.end());
  std::array<std::size_t, kSlices> slices{};
  const double span = at.empty() ? 0 : std::max(at.back() - at.front(), 0.001);
  for (const double one : at) {
    ++slices[std::min(kSlices - 1, static_cast<std::size_t>((one - at.front()) / span * kSlices))];
  }
  const auto quantile = [&at](double q) {
    return at.empty() ? 0.0 : at[static_cast<std::size_t>(q * static_cast<double>(at.size() - 1))];
  };
  std::string codes;
  for (const auto& [outcome, count] : outcomes) {
    codes += (codes.empty() ? "\"" : ", \"") + outcome + "\": " + std::to_string(count);
  }
  std::string spread;
  for (const std::size_t slice : slices) {
    spread += (spread.empty() ? "" : ", ") + std::to_string(slice);
  }
  std::printf(
      "{\"sessions\": %zu, \"open\": %zu, \"codes\": {%s}, \"answered\": %llu, "
      "\"unanswered\": %zu, \"first_ms\": %.1f, \"p50_ms\": %.1f, \"p99_ms\": %.1f, "
      "\"last_ms\": %.1f, \"spread\": [%s], \"errors\": 0}\n",
      sessions.size(), open, codes.c_str(), static_cast<unsigned long long>(answered), unanswered,
      quantile(0), quantile(0.5), quantile(0.99), quantile(1), spread.c_str());
}

}  // namespace

void RunDrain(const Options& options) {
  const SslCtxPtr tls = MakeTls(options.ca, Reading::kRecord);
  const Target target{options.port, tls.get()};
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  Traffic traffic;
  std::vector<std::unique_ptr<WatchedSession>> sessions;
  for (std::size_t i = 0; i < options.connections; ++i) {
    sessions.push_back(std::make_unique<WatchedSession>(target, i, options.size, traffic));
    sessions.back()->OpenAndWatch(epoll.get());
  }
  Watch(epoll.get(), EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, nullptr);
  std::puts("ready");
  std::fflush(stdout);
  Instant now = std::chrono::steady_clock::now();
  Pacer pacer(now, options.rate);
  bool was_told = false;
  Instant told{};
  const auto is_gone = [](const auto& session) { return session->gone(); };
  while (!was_told || now < told + Seconds(options.seconds)) {
    for (; pacer.due() <= now; pacer.Next()) {
      WatchedSession& session = *sessions[pacer.number() % sessions.size()];
      if (session.takes_messages()) {
        session.SendMessages(1, pacer.due());
      }
    }
    bool asked = false;
    RunTurn(epoll.get(), pacer.due() - std::chrono::steady_clock::now(), &asked);
    now = std::chrono::steady_clock::now();
    if (asked) {
      char line = 0;
      if (::read(STDIN_FILENO, &line, 1) <= 0) {
        Watch(epoll.get(), EPOLL_CTL_DEL, STDIN_FILENO, 0, nullptr);
        break;
      }
      if (line == '\n' && !was_told) {
        was_told = true;
        told = now;
      }
    }
    if (std::all_of(sessions.begin(), sessions.end(), is_gone)) {
      break;
    }
  }
  Report(sessions, was_told ? told : now, traffic.answered());
}

}  // namespace sluice::bench
