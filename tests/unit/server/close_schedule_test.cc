// Proves that each session of a drain is closed once, at its instant, in their order; that one that
// ends by itself is forgotten; and that late ones and a hurry fit in.
#include "proxy/server/close_schedule.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/metrics/exporter.h"

namespace sluice::server {
namespace {

constexpr Instant kStart{std::chrono::hours(1000)};
constexpr drain::DrainOptions kOptions{Millis(0), Millis(10'000), Millis(5'000), 0};

// Sessions that are only there: connected, and nobody says anything.
class CloseScheduleTest : public testing::Test, private session::SessionOwner {
 protected:
  CloseScheduleTest() {
    auto listener = std::make_unique<session::ListenerView>();
    listener->block = &exporter_.Listener(0, "plain", false);
    listener_ = LocalPtr<const session::ListenerView>(listener.release());
    plan_.Start(kStart);
  }

  ~CloseScheduleTest() override {
    for (const auto& session : sessions_) {
      session->Cut();
    }
  }

  session::Session& Add() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()), 0);
    peers_.emplace_back(ends[1]);
    sessions_.push_back(std::make_unique<session::Session>(services_, sessions_.size() + 1,
                                                           listener_, net::Address(), false));
    sessions_.back()->Start(UniqueFd(ends[0]));
    return *sessions_.back();
  }

  std::vector<session::Session*> Add(std::size_t count) {
    std::vector<session::Session*> all;
    for (std::size_t i = 0; i < count; ++i) {
      all.push_back(&Add());
    }
    return all;
  }

  static LocalPtr<const session::View> MakeView() {
    config::Config config;
    auto view = std::make_unique<session::View>();
    view->snapshot = *session::Snapshot::Make(config);
    return LocalPtr<const session::View>(view.release());
  }

  net::Loop loop_;
  metrics::Exporter exporter_{1, {}};
  log::AccessLog access_log_{log::AccessFormat::kOff, 16, false};
  session::IpTable ips_;
  session::InUse in_use_;
  std::vector<std::byte> scratch_ = std::vector<std::byte>(64 * 1024);
  Random random_{1};
  session::Services services_{loop_,
                              scratch_,
                              http::RequestParser(),
                              http::ResponseParser(),
                              random_,
                              access_log_,
                              ips_,
                              in_use_,
                              exporter_.Worker(0),
                              *this,
                              MakeView()};
  LocalPtr<const session::ListenerView> listener_;
  std::vector<UniqueFd> peers_;
  std::vector<std::unique_ptr<session::Session>> sessions_;
  drain::DrainPlan plan_{kOptions};
  CloseSchedule schedule_;

 private:
  void Retire(session::Session&) noexcept override {}
  void OnLasting(session::Session&) noexcept override {}
  void OnLastingOver(session::Session&) noexcept override {}
  void OnFailing(const std::shared_ptr<balance::BackendState>&,
                 metrics::BackendFailure) noexcept override {}
};

TEST_F(CloseScheduleTest, IsEmptyAtFirst) {
  EXPECT_EQ(schedule_.next(), Instant::max());
  EXPECT_EQ(schedule_.size(), 0U);
  EXPECT_TRUE(schedule_.TakeDue(Instant::max()).empty());
  EXPECT_FALSE(schedule_.Forget(1));
}

TEST_F(CloseScheduleTest, TakesEachOutOnceAtItsInstant) {
  const auto sessions = Add(50);
  schedule_.Begin(sessions, plan_, random_);
  EXPECT_EQ(schedule_.size(), 50U);
  EXPECT_GE(schedule_.next(), kStart);
  std::vector<session::Session*> taken;
  while (schedule_.next() != Instant::max()) {
    const Instant next = schedule_.next();
    EXPECT_LE(next, kStart + kOptions.window);
    EXPECT_TRUE(schedule_.TakeDue(next - std::chrono::nanoseconds(1)).empty());
    const auto due = schedule_.TakeDue(next);
    ASSERT_FALSE(due.empty());
    taken.insert(taken.end(), due.begin(), due.end());
    EXPECT_GT(schedule_.next(), next);
  }
  EXPECT_EQ(taken.size(), 50U);
  EXPECT_EQ(std::set(taken.begin(), taken.end()), std::set(sessions.begin(), sessions.end()));
  EXPECT_EQ(schedule_.size(), 50U) << "members until they have ended";
  for (const session::Session* session : sessions) {
    EXPECT_TRUE(schedule_.Forget(session->id()));
    EXPECT_FALSE(schedule_.Forget(session->id()));
  }
  EXPECT_EQ(schedule_.size(), 0U);
}

TEST_F(CloseScheduleTest, OneThatHasEndedIsNotTaken) {
  const auto sessions = Add(10);
  schedule_.Begin(sessions, plan_, random_);
  EXPECT_TRUE(schedule_.Forget(sessions[3]->id()));
  EXPECT_TRUE(schedule_.Forget(sessions[7]->id()));
  const auto due = schedule_.TakeDue(kStart + kOptions.window);
  EXPECT_EQ(due.size(), 8U);
  EXPECT_EQ(std::count(due.begin(), due.end(), sessions[3]), 0);
  EXPECT_EQ(std::count(due.begin(), due.end(), sessions[7]), 0);
  EXPECT_EQ(schedule_.next(), Instant::max());
  EXPECT_EQ(schedule_.size(), due.size());
}

TEST_F(CloseScheduleTest, ALateOneIsClosedInWhatIsLeftOfTheWindow) {
  schedule_.Begin({}, plan_, random_);
  EXPECT_EQ(schedule_.next(), Instant::max());
  const Instant late = kStart + Millis(9'000);
  session::Session& session = Add();
  schedule_.AddLate(session, plan_, late, random_);
  EXPECT_GE(schedule_.next(), late);
  EXPECT_LE(schedule_.next(), kStart + kOptions.window);
  // Told of twice, it is there once: a keep-alive connection may last more than once.
  schedule_.AddLate(session, plan_, late, random_);
  EXPECT_EQ(schedule_.size(), 1U);
  EXPECT_EQ(schedule_.TakeDue(kStart + kOptions.window).size(), 1U);
  // Forgotten, it may come again.
  EXPECT_TRUE(schedule_.Forget(session.id()));
  schedule_.AddLate(session, plan_, kStart + kOptions.window, random_);
  EXPECT_EQ(schedule_.TakeDue(kStart + kOptions.window).size(), 1U);
}

// A connection whose stream has ended and that carries another one begins anew.
TEST_F(CloseScheduleTest, OneThatIsForgottenLeavesNoInstant) {
  schedule_.Begin({}, plan_, random_);
  session::Session& session = Add();
  schedule_.AddLate(session, plan_, kStart, random_);
  const Instant former = schedule_.next();
  EXPECT_TRUE(schedule_.Forget(session.id()));
  EXPECT_EQ(schedule_.next(), Instant::max());
  const Instant late = kStart + kOptions.window - Millis(1);
  schedule_.AddLate(session, plan_, late, random_);
  EXPECT_GE(schedule_.next(), late);
  EXPECT_TRUE(schedule_.TakeDue(std::max(former, kStart)).empty());
}

TEST_F(CloseScheduleTest, AHurryMakesAllDue) {
  const auto sessions = Add(20);
  schedule_.Begin(sessions, plan_, random_);
  const Instant now = kStart + Millis(2'000);
  const std::size_t before = schedule_.TakeDue(now).size();
  EXPECT_GT(before, 0U);
  EXPECT_LT(before, 20U);
  schedule_.Hurry(now);
  EXPECT_EQ(schedule_.next(), now);
  EXPECT_EQ(schedule_.TakeDue(now).size(), 20 - before);
  EXPECT_EQ(schedule_.next(), Instant::max());
}

}  // namespace
}  // namespace sluice::server
