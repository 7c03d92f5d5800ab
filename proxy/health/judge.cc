#include "proxy/health/judge.h"

namespace sluice::health {

bool Judge::Take(bool passed) noexcept {
  if (passed == up_) {
    against_ = 0;
    return false;
  }
  if (++against_ < (up_ ? fall_ : rise_)) {
    return false;
  }
  against_ = 0;
  up_ = passed;
  return true;
}

}  // namespace sluice::health
