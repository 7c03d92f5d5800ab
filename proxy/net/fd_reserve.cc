#include "proxy/net/fd_reserve.h"

#include <sys/eventfd.h>

#include <utility>

namespace sluice::net {

FdReserve::FdReserve(std::size_t count) : count_(count) {
  spare_.reserve(count);
  Refill();
}

bool FdReserve::Give() noexcept {
  if (spare_.empty()) {
    return false;
  }
  spare_.pop_back();
  return true;
}

void FdReserve::Refill() noexcept {
  while (spare_.size() < count_) {
    UniqueFd fd(::eventfd(0, EFD_CLOEXEC));
    if (!fd.valid()) {
      return;
    }
    spare_.push_back(std::move(fd));
  }
}

}  // namespace sluice::net
