// The old process as these tests need it: a giver in a loop and thread of its own, whose sink notes
// what it is told.
#pragma once

#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/net/loop.h"
#include "proxy/takeover/giver.h"

#include "tests/support/deadline.h"
#include "tests/unit/takeover/sockets.h"

namespace sluice::takeover {

class OldProcess final : private GiverSink {
 public:
  explicit OldProcess(GiverLimits limits = {})
      : giver_(new Giver(loop_, *this, limits)), thread_([this] { loop_.Run(); }) {}

  ~OldProcess() { End(); }

  OldProcess(const OldProcess&) = delete;
  OldProcess& operator=(const OldProcess&) = delete;

  // As when the process ends: the giver is gone.
  void End() {
    if (thread_.joinable()) {
      loop_.Post([this] {
        giver_.reset();
        loop_.Stop();
      });
      thread_.join();
    }
  }

  // What `call` returns for the giver, in its thread.
  template <class Call>
  auto Do(Call call) {
    std::promise<decltype(call(*giver_))> result;
    loop_.Post([&] { result.set_value(call(*giver_)); });
    return result.get_future().get();
  }

  Result<void> Listen(const std::string& path) {
    return Do([&](Giver& giver) { return giver.Listen(path); });
  }

  // What happened, in order: "offer", "ready PID", "failed PID: WHY", "refused UID: WHY".
  std::vector<std::string> events() {
    const std::lock_guard lock(mutex_);
    return events_;
  }

  // Waits until so many things have happened, and returns the last of them.
  std::string AwaitEvent(std::size_t count) {
    std::unique_lock lock(mutex_);
    if (!happened_.wait_for(lock, test::kPatience, [&] { return events_.size() >= count; })) {
      throw test::Failure("nothing more happened after " + std::to_string(events_.size()));
    }
    return events_[count - 1];
  }

  // Waits until the giver has seen everything that was sent to it by now, and more.
  void AwaitIdle() {
    const test::Deadline deadline;
    while (Do([](Giver& giver) { return giver.busy(); })) {
      if (deadline.passed()) {
        throw test::Failure("the giver stays busy");
      }
      std::this_thread::yield();
    }
  }

  // To be set before a successor comes.
  std::optional<std::string> refusal;
  std::optional<std::string> offer_error;
  std::vector<Socket> sockets;  // each offer has duplicates of these
  std::function<void()> on_ready;

  // What MayTake was asked; to be read after an event that follows it.
  pid_t asked_pid = 0;
  std::string asked_version;

 private:
  std::optional<std::string> MayTake(pid_t pid, const std::string& version) noexcept override {
    asked_pid = pid;
    asked_version = version;
    return refusal;
  }

  Result<Offer> MakeOffer() noexcept override {
    Note("offer");
    if (offer_error) {
      return Err(*offer_error);
    }
    Offer offer;
    offer.pid = ::getpid();
    offer.generation = 1;
    for (const Socket& socket : sockets) {
      offer.sockets.push_back({socket.kind, socket.name, socket.address, Duplicate(socket.fd)});
    }
    if (!giver_->path().empty()) {
      auto own = giver_->DuplicateListener();
      if (!own) {
        return tl::unexpected(own.error());
      }
      offer.sockets.push_back({"takeover", "takeover", giver_->path(), std::move(*own)});
    }
    return offer;
  }

  void OnReady(pid_t successor) noexcept override {
    if (on_ready) {
      on_ready();
    }
    Note("ready " + std::to_string(successor));
  }

  void OnFailed(pid_t successor, const std::string& why) noexcept override {
    Note("failed " + std::to_string(successor) + ": " + why);
  }

  void OnRefused(uid_t uid, pid_t, const std::string& why) noexcept override {
    Note("refused " + std::to_string(uid) + ": " + why);
  }

  void Note(std::string what) {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(what));
    happened_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable happened_;
  std::vector<std::string> events_;
  net::Loop loop_;
  std::unique_ptr<Giver> giver_;
  std::thread thread_;
};

}  // namespace sluice::takeover
