#include "tests/deploy/client/churn.h"

namespace sluice::deploy {
namespace {

constexpr std::size_t kMostUnderWay = 4000;

}  // namespace

Churn::Churn(EventLoop& loop, const Options& options, const Target& target)
    : loop_(loop),
      options_(options),
      target_(target),
      tally_(options.report),
      due_(static_cast<double>(Now())) {
  loop_.wheel().Set(*this, Now());
}

Churn::~Churn() {
  loop_.wheel().Cancel(*this);
}

void Churn::OnEvent(std::uint32_t /*events*/) {}

void Churn::OnTimer() {
  while (!stopping_ && due_ <= static_cast<double>(Now())) {
    due_ += 1e9 / options_.connects_per_second;
    if (idle_.empty()) {
      if (sessions_.size() == kMostUnderWay) {
        ++late_;
        continue;
      }
      const auto uid = options_.first_uid + static_cast<std::uint32_t>(sessions_.size());
      sessions_.push_back(std::make_unique<Session>(loop_, target_, *this, uid));
      idle_.push_back(sessions_.back().get());
    }
    Session& session = *idle_.back();
    idle_.pop_back();
    ++started_;
    session.Open();
  }
  if (!stopping_) {
    loop_.wheel().Set(*this, static_cast<Nanoseconds>(due_));
  }
}

void Churn::OnOpen(Session& session) {
  session.Wake(Now() + options_.connect_timeout);
  session.SendNumbered();
  tally_.CountSent();
}

void Churn::OnNumbered(Session& session, const Numbered& message) {
  tally_.CountReceived(Now() - message.sent_at);
  if (session.is_open()) {
    session.SendClose(1000);
  }
}

void Churn::OnDue(Session& session) {
  session.GiveUp("timeout");
}

void Churn::OnEnd(Session& session, const Incarnation& incarnation) {
  if (incarnation.opened_at != 0) {
    const bool in_order = incarnation.answered && incarnation.violation == nullptr;
    if (in_order && incarnation.closed_by_us) {
      ++ok_;
    } else if (in_order) {
      ++restarted_;
    } else {
      ++broken_;
    }
  }
  tally_.Count(session.uid(), incarnation);
  idle_.push_back(&session);
}

// What is under way comes to its end by itself.
void Churn::Stop() {
  stopping_ = true;
}

std::string Churn::Summary() const {
  return "{\"started\": " + std::to_string(started_) + ", \"ok\": " + std::to_string(ok_) +
         ", \"restarted\": " + std::to_string(restarted_) +
         ", \"broken\": " + std::to_string(broken_) + ", \"late\": " + std::to_string(late_) +
         ", " + tally_.Members() + "}";
}

}  // namespace sluice::deploy
