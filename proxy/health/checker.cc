#include "proxy/health/checker.h"

#include <algorithm>
#include <utility>

namespace sluice::health {

Millis Jittered(Millis interval, double draw) noexcept {
  const auto whole = static_cast<double>(interval.count());
  return Millis(static_cast<Millis::rep>(whole * (0.9 + 0.2 * draw)));
}

Checker::Checker(net::Loop& loop, Random& random, Check check, ProbeTls tls,
                 const net::Address& address, bool up, CheckerSink& sink)
    : loop_(loop),
      random_(random),
      check_(std::move(check)),
      tls_(std::move(tls)),
      address_(address),
      sink_(sink),
      judge_(check_.rise, check_.fall, up) {}

Checker::~Checker() = default;

void Checker::Start() noexcept {
  const auto within = static_cast<double>(check_.interval.count()) * random_.Unit();
  timer_.Arm<&Checker::OnTimer>(loop_.base(), Millis(static_cast<Millis::rep>(within)), this);
}

void Checker::Restart() noexcept {
  if (probe_) {
    probe_.reset();
    timer_.Arm<&Checker::OnTimer>(loop_.base(), Millis(0), this);
  }
}

void Checker::OnTimer(short) noexcept {
  began_ = Now();
  probe_ = std::make_unique<Probe>(loop_, check_, tls_, address_, static_cast<ProbeSink&>(*this));
  probe_->Start();
}

void Checker::OnProbeDone(const CheckResult& result) noexcept {
  // It is still on the stack.
  loop_.Bury(std::move(probe_));
  // One that took longer than the interval is followed by the next at once.
  const auto passed = std::chrono::duration_cast<Millis>(Now() - began_);
  timer_.Arm<&Checker::OnTimer>(loop_.base(), Jittered(check_.interval, random_.Unit()) - passed,
                                this);
  const bool changed = result.counts && judge_.Take(result.passed);
  sink_.OnChecked(*this, result, changed);
}

}  // namespace sluice::health
