// Proves the order of a turn: calls from other threads in the order they were posted, the dead
// freed when the turn is over and not before; and that events and timers stop with their owner.
#include "proxy/net/loop.h"

#include <sys/eventfd.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace sluice::net {
namespace {

class Witness final : public Mortal {
 public:
  explicit Witness(std::function<void()> at_death) : at_death_(std::move(at_death)) {}
  ~Witness() override { at_death_(); }

 private:
  std::function<void()> at_death_;
};

// Calls a function when its timer fires.
class Alarm {
 public:
  Alarm(Loop& loop, std::function<void()> call) : loop_(loop), call_(std::move(call)) {}
  void Set(Millis delay) { timer_.Arm<&Alarm::OnTimer>(loop_.base(), delay, this); }
  void Cancel() { timer_.Cancel(); }

 private:
  void OnTimer(short) noexcept { call_(); }

  Loop& loop_;
  std::function<void()> call_;
  Timer timer_;
};

TEST(Loop, RunsPostedCallsInOrder) {
  Loop loop;
  std::string order;
  loop.Post([&] { order += 'a'; });
  loop.Post([&] { order += 'b'; });
  loop.Post([&] {
    order += 'c';
    loop.Stop();
  });
  loop.Run();
  EXPECT_EQ(order, "abc");
}

TEST(Loop, TakesTurnsUntilSomethingIsSoAndRunsAfterwards) {
  Loop loop;
  int calls = 0;
  loop.Post([&] { ++calls; });
  loop.RunUntil([&] { return calls > 0; }, Millis(10'000));
  EXPECT_EQ(calls, 1);
  const Instant began = Now();
  loop.RunUntil([] { return false; }, Millis(30));
  EXPECT_GE(Now() - began, Millis(30));
  loop.RunUntil([] { return true; }, Millis(10'000));
  EXPECT_LT(Now() - began, Millis(5'000));
  loop.Post([&] {
    ++calls;
    loop.Stop();
  });
  loop.Run();
  EXPECT_EQ(calls, 2);
}

TEST(Loop, RunsACallPostedFromACall) {
  Loop loop;
  int calls = 0;
  loop.Post([&] {
    ++calls;
    loop.Post([&] {
      ++calls;
      loop.Stop();
    });
  });
  loop.Run();
  EXPECT_EQ(calls, 2);
}

TEST(Loop, RunsEveryCallOfManyThreadsInTheLoopsThread) {
  constexpr int kThreads = 4;
  constexpr int kCalls = 500;
  Loop loop;
  const auto own = std::this_thread::get_id();
  std::vector<std::vector<int>> seen(kThreads);
  int total = 0;
  bool elsewhere = false;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kCalls; ++i) {
        loop.Post([&, t, i] {
          elsewhere = elsewhere || std::this_thread::get_id() != own;
          seen[static_cast<std::size_t>(t)].push_back(i);
          if (++total == kThreads * kCalls) {
            loop.Stop();
          }
        });
      }
    });
  }
  loop.Run();
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_FALSE(elsewhere);
  for (const auto& calls : seen) {
    ASSERT_EQ(calls.size(), static_cast<std::size_t>(kCalls));
    for (int i = 0; i < kCalls; ++i) {
      EXPECT_EQ(calls[static_cast<std::size_t>(i)], i);
    }
  }
}

TEST(Loop, FreesTheDeadAfterTheTurnThatBuriedThem) {
  Loop loop;
  std::string order;
  loop.Post([&] {
    loop.Bury(std::make_unique<Witness>([&] { order += 'd'; }));
    order += '1';
  });
  loop.Post([&] {  // same turn: posted before the loop ran
    order += '2';
    loop.Post([&] {
      order += '3';
      loop.Stop();
    });
  });
  loop.Run();
  EXPECT_EQ(order, "12d3");
}

TEST(Loop, FreesWhatADyingObjectBuries) {
  Loop loop;
  std::string order;
  loop.Post([&] {
    loop.Bury(std::make_unique<Witness>([&] {
      order += 'a';
      loop.Bury(std::make_unique<Witness>([&] { order += 'b'; }));
    }));
    loop.Stop();
  });
  loop.Run();
  EXPECT_EQ(order, "ab");
}

TEST(Loop, ClockStandsStillWithinATurn) {
  Loop loop;
  loop.Post([&] {
    const Instant first = loop.now();
    while (Now() == first) {
    }
    EXPECT_EQ(loop.now(), first);
    loop.Post([&, first] {
      EXPECT_GT(loop.now(), first);
      loop.Stop();
    });
  });
  loop.Run();
}

TEST(Timer, FiresOnceAfterItsDelay) {
  Loop loop;
  const Instant before = Now();
  int fired = 0;
  Alarm stop(loop, [&] { loop.Stop(); });
  Alarm alarm(loop, [&] {
    ++fired;
    stop.Set(Millis(20));
  });
  alarm.Set(Millis(15));
  loop.Run();
  EXPECT_EQ(fired, 1);
  EXPECT_GE(Now() - before, Millis(15));
}

TEST(Timer, ArmingAgainStartsOver) {
  Loop loop;
  std::string order;
  Alarm first(loop, [&] { order += '1'; });
  Alarm second(loop, [&] {
    order += '2';
    loop.Stop();
  });
  first.Set(Millis(1));
  first.Set(Millis(60'000));
  second.Set(Millis(10));
  loop.Run();
  EXPECT_EQ(order, "2");
}

TEST(Timer, DoesNotFireWhenCancelledOrGone) {
  Loop loop;
  int fired = 0;
  Alarm cancelled(loop, [&] { ++fired; });
  cancelled.Set(Millis(1));
  cancelled.Cancel();
  {
    Alarm gone(loop, [&] { ++fired; });
    gone.Set(Millis(1));
  }
  Alarm stop(loop, [&] { loop.Stop(); });
  stop.Set(Millis(10));
  loop.Run();
  EXPECT_EQ(fired, 0);
}

TEST(Timer, TakesANegativeDelayForNow) {
  Loop loop;
  int fired = 0;
  Alarm alarm(loop, [&] { ++fired; });
  alarm.Set(Millis(-5));
  Alarm stop(loop, [&] { loop.Stop(); });
  stop.Set(Millis(10));
  loop.Run();
  EXPECT_EQ(fired, 1);
}

// Two descriptors become readable in one turn; whichever is served first frees both owners. The
// other's callback must not run.
class Twin final : public Mortal {
 public:
  Twin(Loop& loop, int fd, std::function<void()> call) : call_(std::move(call)) {
    event_.Add<&Twin::OnEvent>(loop.base(), fd, EV_READ | EV_PERSIST, this);
  }
  void Die() { event_.Remove(); }

 private:
  void OnEvent(short) noexcept { call_(); }

  std::function<void()> call_;
  Event event_;
};

TEST(Event, DoesNotFireAfterItWasRemovedInTheSameTurn) {
  Loop loop;
  const UniqueFd one(::eventfd(1, EFD_NONBLOCK));
  const UniqueFd two(::eventfd(1, EFD_NONBLOCK));
  int fired = 0;
  std::unique_ptr<Twin> a;
  std::unique_ptr<Twin> b;
  const auto bury_both = [&] {
    ++fired;
    for (std::unique_ptr<Twin>* twin : {&a, &b}) {
      (*twin)->Die();
      loop.Bury(std::move(*twin));
    }
    loop.Stop();
  };
  a = std::make_unique<Twin>(loop, one.get(), bury_both);
  b = std::make_unique<Twin>(loop, two.get(), bury_both);
  loop.Run();
  EXPECT_EQ(fired, 1);
}

}  // namespace
}  // namespace sluice::net
