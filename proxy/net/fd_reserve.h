// Descriptors that are kept back, so that an operator can still ask what is going on when clients
// have taken all others. Control thread only.
#pragma once

#include <cstddef>
#include <vector>

#include "proxy/base/unique_fd.h"

namespace sluice::net {

class FdReserve {
 public:
  // Holds `count` descriptors, or as many as there are.
  explicit FdReserve(std::size_t count);

  // Lets one go, for the caller to use at once: another thread may be quicker. False: none is left.
  bool Give() noexcept;

  // Takes back what was let go, as far as descriptors are free again.
  void Refill() noexcept;

  [[nodiscard]] std::size_t size() const noexcept { return spare_.size(); }

  // One descriptor free for as long as this lives, whatever it is needed for meanwhile.
  class Loan {
   public:
    explicit Loan(FdReserve& reserve) noexcept : reserve_(reserve) { reserve_.Give(); }
    ~Loan() { reserve_.Refill(); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;

   private:
    FdReserve& reserve_;
  };

 private:
  std::size_t count_;
  std::vector<UniqueFd> spare_;
};

}  // namespace sluice::net
