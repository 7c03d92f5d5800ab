#include "proxy/session/settled_keys.h"

#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <new>
#include <span>

namespace sluice::session {
namespace {

constexpr std::uint64_t kTag = 0xffffffff00000000U;

std::uint64_t SecondOf(Instant now) noexcept {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(now.time_since_epoch()).count();
  return static_cast<std::uint64_t>(seconds) & ~kTag;
}

std::uint64_t Load(std::uint64_t& slot) noexcept {
  return std::atomic_ref(slot).load(std::memory_order_relaxed);
}

// `noted` is what a slot holds of this key.
bool IsOf(std::uint64_t noted, std::uint64_t key_hash) noexcept {
  return noted != 0 && (noted & kTag) == (key_hash & kTag);
}

}  // namespace

void SettledKeys::Unmap::operator()(std::uint64_t* slots) const noexcept {
  ::munmap(slots, kBytes);
}

// Not from the heap: pages that were never written to are not there.
SettledKeys::SettledKeys() {
  void* const pages =
      ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) {
    throw std::bad_alloc();
  }
  slots_.reset(static_cast<std::uint64_t*>(pages));
}

void SettledKeys::Note(std::uint64_t key_hash, Instant now) noexcept {
  const std::uint64_t noted = (key_hash & kTag) | SecondOf(now);
  const std::span<std::uint64_t> bucket(BucketOf(key_hash), kPerBucket);
  std::uint64_t* place = &bucket.front();  // its own, or that of the oldest
  for (std::uint64_t& slot : bucket) {
    const std::uint64_t seen = Load(slot);
    if (seen == noted) {
      return;
    }
    if (IsOf(seen, key_hash)) {
      place = &slot;
      break;
    }
    if ((seen & ~kTag) < (Load(*place) & ~kTag)) {
      place = &slot;
    }
  }
  std::atomic_ref(*place).store(noted, std::memory_order_relaxed);
}

bool SettledKeys::Knows(std::uint64_t key_hash, Instant now) const noexcept {
  const std::span<std::uint64_t> bucket(BucketOf(key_hash), kPerBucket);
  for (std::uint64_t& slot : bucket) {
    const std::uint64_t seen = Load(slot);
    if (IsOf(seen, key_hash)) {
      // The worker that has noted it may be a second ahead.
      return SecondOf(now) <= (seen & ~kTag) + kFor / std::chrono::seconds(1);
    }
  }
  return false;
}

}  // namespace sluice::session
