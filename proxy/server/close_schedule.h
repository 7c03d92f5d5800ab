// Some sessions of one worker, each with the instant at which a drain closes it: all of them when
// the process drains, those of one backend when that does. A DrainPlan deals the instants; this
// keeps them in order, and forgets a session that ends by itself.
//
// Owned by its Worker, used in its thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "proxy/base/random.h"
#include "proxy/drain/drain_plan.h"
#include "proxy/session/session.h"

namespace sluice::server {

class CloseSchedule {
 public:
  // Takes the sessions that are to be closed now that Closing begins; once.
  void Begin(std::span<session::Session* const> sessions, drain::DrainPlan& plan, Random& random);

  // Takes one that came too late for Begin.
  void AddLate(session::Session& session, drain::DrainPlan& plan, Instant now, Random& random);

  // Forgets a session that has ended. False: it was not here.
  bool Forget(std::uint64_t id) noexcept;

  // Takes out the sessions whose instant has come. They stay members until they have ended.
  [[nodiscard]] std::vector<session::Session*> TakeDue(Instant now);

  // Brings every instant forward to `now`.
  void Hurry(Instant now);

  // The next instant; Instant::max() when none is left.
  [[nodiscard]] Instant next() const noexcept {
    return closes_.empty() ? Instant::max() : closes_.begin()->first;
  }

  // Sessions that were taken and have not ended.
  [[nodiscard]] std::size_t size() const noexcept { return members_.size(); }

 private:
  using Closes = std::multimap<Instant, session::Session*>;

  void Take(session::Session& session, Instant at);

  Closes closes_;
  // By the id of each session: where it stands in closes_; nothing once it was taken out.
  std::unordered_map<std::uint64_t, std::optional<Closes::iterator>> members_;
};

}  // namespace sluice::server
