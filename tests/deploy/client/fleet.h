// Long-lived sessions that talk at a rate and connect again by a policy whenever they are closed.
#pragma once

#include <memory>
#include <random>
#include <vector>

#include "tests/deploy/client/crowd.h"
#include "tests/deploy/client/options.h"
#include "tests/deploy/client/session.h"
#include "tests/deploy/client/tally.h"

namespace sluice::deploy {

class Fleet : public Crowd, public SessionOwner {
 public:
  Fleet(EventLoop& loop, const Options& options, const Target& target);

  void Stop() override;
  [[nodiscard]] bool is_done() const override { return idle_ == members_.size(); }
  [[nodiscard]] std::string Summary() const override;

  void OnOpen(Session& session) override;
  void OnNumbered(Session& session, const Numbered& message) override;
  void OnDue(Session& session) override;
  void OnEnd(Session& session, const Incarnation& incarnation) override;

 private:
  struct Member {
    std::unique_ptr<Session> session;
    double due = 0;                 // nanoseconds; when the next message is
    unsigned failures = 0;          // since it was open last
    Nanoseconds retry_after = 0;    // what the last refusal asked for
    bool was_open = false;          // ever
    bool lost_its_session = false;  // and has not begun to connect again
  };

  Member& member_of(const Session& session) { return members_[session.uid() - options_.first_uid]; }
  Nanoseconds Delay(const Member& member);

  EventLoop& loop_;
  const Options& options_;
  Tally tally_;
  std::mt19937_64 random_{std::random_device{}()};
  std::vector<Member> members_;
  std::size_t idle_;
  std::size_t open_ = 0;
  std::size_t ever_open_ = 0;
  bool stopping_ = false;
};

}  // namespace sluice::deploy
