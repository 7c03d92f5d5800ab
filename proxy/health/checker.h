// Checks one backend again and again, one check at a time, and keeps the verdict. Lives on the
// control thread's loop.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "proxy/base/random.h"
#include "proxy/health/check.h"
#include "proxy/health/judge.h"
#include "proxy/health/probe.h"
#include "proxy/net/address.h"
#include "proxy/net/event.h"
#include "proxy/net/loop.h"

namespace sluice::health {

class Checker;

class CheckerSink {
 public:
  // A check is over. `changed`: and with it the verdict, see Checker::up.
  virtual void OnChecked(Checker& checker, const CheckResult& result, bool changed) noexcept = 0;

 protected:
  ~CheckerSink() = default;
};

class Checker final : private ProbeSink {
 public:
  // `up`: the verdict to begin with. `random` and `sink` outlive the checker.
  Checker(net::Loop& loop, Random& random, Check check, ProbeTls tls, const net::Address& address,
          bool up, CheckerSink& sink);
  ~Checker();

  Checker(const Checker&) = delete;  // a probe keeps its address
  Checker& operator=(const Checker&) = delete;

  // Begins at an instant of its own within the interval, so that the backends of a large pool, and
  // Sluices that are started together, do not check in step.
  void Start() noexcept;

  // Gives up the check that is under way, without a result, and begins the next one at once.
  void Restart() noexcept;

  [[nodiscard]] bool up() const noexcept { return judge_.up(); }
  [[nodiscard]] const Check& check() const noexcept { return check_; }
  [[nodiscard]] const net::Address& address() const noexcept { return address_; }

 private:
  void OnTimer(short what) noexcept;
  void OnProbeDone(const CheckResult& result) noexcept override;

  net::Loop& loop_;
  Random& random_;
  Check check_;
  ProbeTls tls_;
  net::Address address_;
  CheckerSink& sink_;
  Judge judge_;
  std::unique_ptr<Probe> probe_;  // null: none is on
  Instant began_{};               // the last check
  net::Timer timer_;
};

// From the start of one check to the start of the next, for a `draw` in [0, 1): the interval, +-10
// %.
[[nodiscard]] Millis Jittered(Millis interval, double draw) noexcept;

}  // namespace sluice::health
