#include "tests/deploy/client/fleet.h"

#include <algorithm>

namespace sluice::deploy {
namespace {

// Who is refused does not try again at once, whatever the policy: that would be a loop.
constexpr Nanoseconds kLeastAfterFailure = 20 * kMillisecond;

}  // namespace

Fleet::Fleet(EventLoop& loop, const Options& options, const Target& target)
    : loop_(loop), options_(options), tally_(options.report), idle_(options.sessions) {
  members_.resize(options.sessions);
  const double start = static_cast<double>(Now());
  for (std::size_t i = 0; i < members_.size(); ++i) {
    members_[i].session = std::make_unique<Session>(
        loop, target, *this, options.first_uid + static_cast<std::uint32_t>(i));
    members_[i].session->Wake(
        static_cast<Nanoseconds>(start + 1e9 * static_cast<double>(i) / options.ramp));
  }
}

void Fleet::OnOpen(Session& session) {
  Member& member = member_of(session);
  ++open_;
  member.failures = 0;
  if (!member.was_open) {
    member.was_open = true;
    if (++ever_open_ == members_.size()) {
      std::printf("{\"open\": %zu}\n", ever_open_);
      std::fflush(stdout);
    }
  }
  if (stopping_) {
    session.SendClose(1000);
  } else if (options_.rate > 0) {
    // Not all at the same moment, though they may have been opened so.
    std::uniform_real_distribution<double> within(0, 1e9 / options_.rate);
    member.due = static_cast<double>(Now()) + within(random_);
    session.Wake(static_cast<Nanoseconds>(member.due));
  }
}

void Fleet::OnNumbered(Session& /*session*/, const Numbered& message) {
  tally_.CountReceived(Now() - message.sent_at);
}

void Fleet::OnDue(Session& session) {
  if (stopping_) {
    return;
  }
  Member& member = member_of(session);
  if (session.is_idle()) {
    if (member.lost_its_session) {
      member.lost_its_session = false;
      tally_.CountReconnect(Now());
    }
    --idle_;
    session.Open();
    return;
  }
  if (session.has_room()) {
    session.SendNumbered();
    tally_.CountSent();
  }
  member.due += 1e9 / options_.rate;
  session.Wake(static_cast<Nanoseconds>(member.due));
}

void Fleet::OnEnd(Session& session, const Incarnation& incarnation) {
  Member& member = member_of(session);
  ++idle_;
  if (incarnation.opened_at != 0) {
    --open_;
    member.lost_its_session = true;
  } else {
    ++member.failures;
  }
  member.retry_after = incarnation.retry_after;
  tally_.Count(session.uid(), incarnation);
  if (!stopping_) {
    session.Wake(Now() + Delay(member));
  }
}

Nanoseconds Fleet::Delay(const Member& member) {
  const Policy& policy = options_.policy;
  Nanoseconds delay = 0;
  if (policy.kind == Policy::Kind::kFixed) {
    delay = policy.base;
  } else if (policy.kind == Policy::Kind::kExponential) {
    constexpr unsigned kMostDoublings = 20;
    const Nanoseconds most =
        std::min(policy.cap, policy.base << std::min(member.failures, kMostDoublings));
    delay = std::uniform_int_distribution<Nanoseconds>(0, most)(random_);
  } else if (policy.kind == Policy::Kind::kJitter && member.failures > 0) {
    delay = member.retry_after +
            std::uniform_int_distribution<Nanoseconds>(policy.base, policy.cap)(random_);
  }
  return member.failures == 0 ? delay : std::max(delay, kLeastAfterFailure);
}

void Fleet::Stop() {
  stopping_ = true;
  for (const Member& member : members_) {
    Session& session = *member.session;
    if (session.is_open()) {
      session.SendClose(1000);
    } else if (session.is_connecting()) {
      session.GiveUp("abandoned");
    }
  }
}

std::string Fleet::Summary() const {
  return "{\"sessions\": " + std::to_string(members_.size()) +
         ", \"open\": " + std::to_string(open_) + ", " + tally_.Members() + "}";
}

}  // namespace sluice::deploy
