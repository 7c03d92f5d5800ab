// Short sessions at a fixed rate: connect, upgrade, one message each way, CLOSE 1000.
#pragma once

#include <memory>
#include <vector>

#include "tests/deploy/client/crowd.h"
#include "tests/deploy/client/options.h"
#include "tests/deploy/client/session.h"
#include "tests/deploy/client/tally.h"

namespace sluice::deploy {

class Churn : public Crowd, public SessionOwner, public Participant {
 public:
  Churn(EventLoop& loop, const Options& options, const Target& target);
  ~Churn() override;

  void Stop() override;
  [[nodiscard]] bool is_done() const override { return idle_.size() == sessions_.size(); }
  [[nodiscard]] std::string Summary() const override;

  void OnOpen(Session& session) override;
  void OnNumbered(Session& session, const Numbered& message) override;
  void OnDue(Session& session) override;
  void OnEnd(Session& session, const Incarnation& incarnation) override;

  // When the next connection is due.
  void OnEvent(std::uint32_t events) override;
  void OnTimer() override;

 private:
  EventLoop& loop_;
  const Options& options_;
  const Target& target_;
  Tally tally_;
  std::vector<std::unique_ptr<Session>> sessions_;
  std::vector<Session*> idle_;
  double due_;  // nanoseconds
  std::uint64_t started_ = 0;
  std::uint64_t late_ = 0;       // not begun: too many were under way
  std::uint64_t ok_ = 0;         // all of it, and both CLOSEs
  std::uint64_t restarted_ = 0;  // closed in order by the other side before it was through
  std::uint64_t broken_ = 0;     // open, and neither of these
  bool stopping_ = false;
};

}  // namespace sluice::deploy
