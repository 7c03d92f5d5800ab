// Makes a verdict of the results of one backend's checks: down after `fall` failures in a row, up
// again after `rise` successes in a row. Pure.
//
//   up --fall failures--> down --rise successes--> up
#pragma once

namespace sluice::health {

class Judge {
 public:
  // `up`: what counts until enough results speak against it. REQUIRES: rise and fall are > 0.
  Judge(unsigned rise, unsigned fall, bool up) noexcept : rise_(rise), fall_(fall), up_(up) {}

  // Takes the result of one check; true when it has changed the verdict.
  [[nodiscard]] bool Take(bool passed) noexcept;

  [[nodiscard]] bool up() const noexcept { return up_; }

 private:
  unsigned rise_;
  unsigned fall_;
  unsigned against_ = 0;  // results in a row that speak against the verdict
  bool up_;
};

}  // namespace sluice::health
