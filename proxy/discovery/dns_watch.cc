#include "proxy/discovery/dns_watch.h"

#include <utility>

namespace sluice::discovery {

DnsWatch::DnsWatch(net::Loop& loop, DnsQuestion question, RefreshSchedule::Bounds bounds,
                   std::uint64_t seed, Told told)
    : loop_(loop),
      question_(std::move(question)),
      schedule_(bounds),
      random_(seed),
      told_(std::move(told)) {
  OnTimer(0);
}

void DnsWatch::OnTimer(short) noexcept {
  lookup_ = std::make_unique<DnsLookup>(
      loop_, question_, [this](Result<DnsAnswer> outcome) { OnOutcome(std::move(outcome)); });
}

void DnsWatch::OnOutcome(Result<DnsAnswer> outcome) {
  loop_.Bury(std::move(lookup_));  // it is on the stack
  const Millis delay =
      outcome ? schedule_.AfterAnswer(outcome->ttl, random_) : schedule_.AfterFailure(random_);
  timer_.Arm<&DnsWatch::OnTimer>(loop_.base(), delay, this);
  told_(std::move(outcome));
}

}  // namespace sluice::discovery
