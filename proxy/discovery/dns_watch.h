// Asks DNS for the backends of one pool, again and again: each outcome goes to the owner, and says
// when the next lookup is due. Belongs to the loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "proxy/base/random.h"
#include "proxy/discovery/dns_lookup.h"
#include "proxy/discovery/refresh_schedule.h"
#include "proxy/net/event.h"
#include "proxy/net/loop.h"

namespace sluice::discovery {

class DnsWatch {
 public:
  using Told = std::function<void(Result<DnsAnswer>)>;

  // Begins to ask. `told` is called from the loop with each outcome, and does not end the watch.
  // `loop` outlives it; `seed` is of the jitter.
  DnsWatch(net::Loop& loop, DnsQuestion question, RefreshSchedule::Bounds bounds,
           std::uint64_t seed, Told told);
  ~DnsWatch() = default;

  DnsWatch(const DnsWatch&) = delete;
  DnsWatch& operator=(const DnsWatch&) = delete;

 private:
  void OnTimer(short what) noexcept;
  void OnOutcome(Result<DnsAnswer> outcome);

  net::Loop& loop_;
  DnsQuestion question_;
  RefreshSchedule schedule_;
  Random random_;
  Told told_;
  net::Timer timer_;
  std::unique_ptr<DnsLookup> lookup_;  // null: none is under way
};

}  // namespace sluice::discovery
