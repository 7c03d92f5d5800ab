// The good clients of the pressure tests: how an echo takes on sessions that are open, and whether
// new ones are taken, while others misbehave.
//
//   pressure_probe --connect HOST:PORT [--path /s] [--sessions 50] [--rate 20] [--upgrades 0]
//                  [--first-uid 1]
//
// N sessions ask for R echoes a second each, whether the last one has come or not. U new ones begin
// each second: upgrade, one echo, CLOSE 1000. Standard output gets {"open": N} once all N are open.
// Each line of standard input is an order:
//
//   window    figures since the order before, as JSON
//   upgrade   one new session now; when it was asked for and when it was open, as JSON
//
// The end of standard input ends the program. Times are seconds of the steady clock.
#include <array>
#include <deque>
#include <memory>
#include <vector>

#include "tests/bench/load/histogram.h"
#include "tests/deploy/address.h"
#include "tests/deploy/client/session.h"
#include "tests/deploy/counts.h"
#include "tests/deploy/decimal.h"
#include "tests/deploy/orders.h"

namespace sluice::pressure {
namespace {

using deploy::EventLoop;
using deploy::Incarnation;
using deploy::Nanoseconds;
using deploy::Now;
using deploy::Session;

struct Options {
  deploy::Target target{.echo = true};
  std::size_t sessions = 50;
  double rate = 20;     // echoes a second of each session
  double upgrades = 0;  // new sessions a second
  std::uint32_t first_uid = 1;
};

// What is counted from one look to the next.
struct Window {
  bench::Histogram echoes;
  Nanoseconds slowest_echo = 0;
  bench::Histogram upgrades;  // from connect() to the 101
  deploy::Counts failures;
  deploy::Counts closes;  // of the N, by code: they were not to end
};

void Print(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

class Probe : public deploy::SessionOwner, public deploy::Participant {
 public:
  Probe(EventLoop& loop, const Options& options)
      : loop_(loop), options_(options), due_(static_cast<double>(Now())) {
    constexpr Nanoseconds kBetween = deploy::kMillisecond;  // two of them begin
    for (std::size_t i = 0; i < options.sessions; ++i) {
      AddMember().session->Wake(Now() + static_cast<Nanoseconds>(i) * kBetween);
    }
    if (options.upgrades > 0) {
      loop.wheel().Set(*this, Now());
    }
  }
  ~Probe() override { loop_.wheel().Cancel(*this); }

  void OnOrder(const std::string& order) {
    if (order == "window") {
      Print(Summary());
      window_ = Window();
    } else if (order == "upgrade") {
      ordered_ = &Begin();
    } else {
      bench::Die("no order '" + order + "'");
    }
  }

  void OnOpen(Session& session) override {
    Member& member = member_of(session);
    if (IsShort(session)) {
      const Incarnation& now = session.incarnation();
      window_.upgrades.Add(std::chrono::nanoseconds(now.opened_at - now.started_at));
      Tell(session, now);
      session.Wake(Now() + options_.target.connect_timeout);
      Ask(member);
      return;
    }
    if (++open_ == options_.sessions) {
      Print("{\"open\": " + std::to_string(open_) + "}");
    }
    // Spread over one period.
    member.due = static_cast<double>(Now()) + 1e9 / options_.rate *
                                                  static_cast<double>(IndexOf(session)) /
                                                  static_cast<double>(options_.sessions);
    session.Wake(static_cast<Nanoseconds>(member.due));
  }

  void OnNumbered(Session& session, const deploy::Numbered& /*message*/) override {
    Member& member = member_of(session);
    if (member.asked.empty()) {
      ++window_.failures["an echo of nothing"];
      return;
    }
    const Nanoseconds took = Now() - member.asked.front();
    member.asked.pop_front();
    if (IsShort(session)) {
      if (session.is_open()) {
        session.SendClose(1000);
      }
      return;
    }
    window_.echoes.Add(std::chrono::nanoseconds(took));
    window_.slowest_echo = std::max(window_.slowest_echo, took);
  }

  void OnDue(Session& session) override {
    if (IsShort(session)) {
      session.GiveUp("timeout");
      return;
    }
    if (session.is_idle()) {
      session.Open();
      return;
    }
    Member& member = member_of(session);
    Ask(member);
    member.due += 1e9 / options_.rate;
    session.Wake(static_cast<Nanoseconds>(member.due));
  }

  void OnEnd(Session& session, const Incarnation& one) override {
    Member& member = member_of(session);
    member.asked.clear();
    if (one.failure != nullptr) {
      ++window_.failures[one.status == 0 ? one.failure : std::to_string(one.status)];
    } else if (one.violation != nullptr) {
      ++window_.failures[one.violation];
    } else if (!IsShort(session)) {
      ++window_.closes[std::to_string(one.close_code)];
      --open_;
    } else if (!one.closed_by_us || !one.answered) {
      ++window_.failures["closed with " + std::to_string(one.close_code)];
    }
    Tell(session, one);
    if (IsShort(session)) {
      idle_.push_back(&session);
    }
  }

  // When the next new session is due.
  void OnEvent(std::uint32_t /*events*/) override {}
  void OnTimer() override {
    while (due_ <= static_cast<double>(Now())) {
      due_ += 1e9 / options_.upgrades;
      Begin();
    }
    loop_.wheel().Set(*this, static_cast<Nanoseconds>(due_));
  }

 private:
  struct Member {
    std::unique_ptr<Session> session;
    std::deque<Nanoseconds> asked;  // echoes that have not come
    double due = 0;                 // nanoseconds
  };

  [[nodiscard]] std::size_t IndexOf(const Session& session) const {
    return session.uid() - options_.first_uid;
  }
  Member& member_of(const Session& session) { return members_[IndexOf(session)]; }
  [[nodiscard]] bool IsShort(const Session& session) const {
    return IndexOf(session) >= options_.sessions;
  }

  Member& AddMember() {
    const auto uid = options_.first_uid + static_cast<std::uint32_t>(members_.size());
    members_.push_back({std::make_unique<Session>(loop_, options_.target, *this, uid), {}, 0});
    return members_.back();
  }

  Session& Begin() {
    if (idle_.empty()) {
      idle_.push_back(AddMember().session.get());
    }
    Session& session = *idle_.back();
    idle_.pop_back();
    session.Open();
    return session;
  }

  static void Ask(Member& member) {
    member.asked.push_back(Now());
    member.session->SendNumbered();
  }

  // Of the session that was ordered.
  void Tell(const Session& session, const Incarnation& one) {
    if (ordered_ != &session) {
      return;
    }
    ordered_ = nullptr;
    std::array<char, 160> line{};
    std::snprintf(line.data(), line.size(),
                  "{\"started_at\": %.6f, \"opened_at\": %.6f, \"failure\": \"%s\"}",
                  static_cast<double>(one.started_at) / 1e9,
                  static_cast<double>(one.opened_at) / 1e9,
                  one.failure == nullptr ? "" : one.failure);
    Print(line.data());
  }

  [[nodiscard]] std::string Summary() const {
    std::uint64_t waiting = 0;
    Nanoseconds oldest = Now();
    for (std::size_t i = 0; i < options_.sessions; ++i) {
      waiting += members_[i].asked.size();
      oldest = members_[i].asked.empty() ? oldest : std::min(oldest, members_[i].asked.front());
    }
    std::array<char, 512> text{};
    std::snprintf(text.data(), text.size(),
                  "{\"open\": %zu, \"echoes\": %llu, \"p50_ms\": %.3f, \"p99_ms\": %.3f, "
                  "\"max_ms\": %.3f, \"waiting\": %llu, \"oldest_ms\": %.3f, \"upgrades\": %llu, "
                  "\"upgrade_p50_ms\": %.3f, \"upgrade_p99_ms\": %.3f, ",
                  open_, static_cast<unsigned long long>(window_.echoes.total()),
                  window_.echoes.Quantile(0.5) / 1e3, window_.echoes.Quantile(0.99) / 1e3,
                  static_cast<double>(window_.slowest_echo) / 1e6,
                  static_cast<unsigned long long>(waiting),
                  static_cast<double>(Now() - oldest) / 1e6,
                  static_cast<unsigned long long>(window_.upgrades.total()),
                  window_.upgrades.Quantile(0.5) / 1e3, window_.upgrades.Quantile(0.99) / 1e3);
    return text.data() + ("\"failures\": " + deploy::JsonOf(window_.failures)) +
           ", \"closes\": " + deploy::JsonOf(window_.closes) + "}";
  }

  EventLoop& loop_;
  const Options& options_;
  std::vector<Member> members_;  // the N, and behind them the short ones
  std::vector<Session*> idle_;   // of the short ones
  Session* ordered_ = nullptr;
  double due_;  // nanoseconds
  std::size_t open_ = 0;
  Window window_;
};

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) {
      bench::Die(name + " lacks its value");
    }
    const std::string value = argv[i + 1];
    if (name == "--connect") {
      options.target.address = deploy::AddressOf(value);
    } else if (name == "--path") {
      options.target.path = value;
    } else if (name == "--sessions") {
      options.sessions = bench::Number(value);
    } else if (name == "--rate") {
      options.rate = deploy::Decimal(value);
    } else if (name == "--upgrades") {
      options.upgrades = deploy::Decimal(value);
    } else if (name == "--first-uid") {
      options.first_uid = static_cast<std::uint32_t>(bench::Number(value));
    } else {
      bench::Die("there is no option " + name);
    }
  }
  if (options.target.address.sin_port == 0 || options.sessions == 0 || options.rate <= 0) {
    bench::Die("--connect is missing, or --sessions or --rate is 0");
  }
  return options;
}

}  // namespace
}  // namespace sluice::pressure

int main(int argc, char** argv) {
  using namespace sluice;
  const pressure::Options options = pressure::ParseOptions(argc, argv);
  bench::RaiseFdLimit();
  deploy::EventLoop loop;
  pressure::Probe probe(loop, options);
  deploy::Orders orders(loop);
  while (!orders.over()) {
    loop.Turn();
    for (std::string order = orders.Take(); !order.empty(); order = orders.Take()) {
      probe.OnOrder(order);
    }
  }
}
