#include "proxy/health/ejection.h"

#include <algorithm>
#include <cassert>

namespace sluice::health {

Millis Ejection::Begin(const Rule& rule, bool grows, Instant now) noexcept {
  assert(!on_);
  on_ = true;
  if (now - ended_ >= rule.most_time) {
    doublings_ = 0;
  }
  if (!grows) {
    return rule.time;
  }
  Millis length = rule.time;
  for (unsigned i = 0; i < doublings_ && length < rule.most_time; ++i) {
    length *= 2;
  }
  if (length < rule.most_time) {
    ++doublings_;
  }
  return std::min(length, rule.most_time);
}

void Ejection::End(Instant now) noexcept {
  on_ = false;
  ended_ = now;
}

bool MayEject(const PoolShape& pool, double max_ejected) noexcept {
  const auto share = static_cast<std::size_t>(max_ejected * static_cast<double>(pool.backends));
  return pool.others > 0 && pool.ejected < std::max<std::size_t>(1, share);
}

}  // namespace sluice::health
