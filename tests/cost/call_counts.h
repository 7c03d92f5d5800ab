// How often a process has called what: written by call_counter.cc inside the process that is
// watched, read by the test, through a file that both have mapped.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace sluice::test {

enum class Call : std::size_t {
  kRecv,
  kSend,
  kSplice,
  kEpollCtl,
  kEpollWait,
  kClock,   // clock_gettime(2), most often without entering the kernel
  kMemory,  // malloc(3), calloc(3), realloc(3) and what is built on them
  kLock,    // pthread_mutex_lock(3), pthread_rwlock_*lock(3)
  kCount,
};

struct CallCounts {
  std::array<std::atomic<std::uint64_t>, static_cast<std::size_t>(Call::kCount)> calls;
};

// Name of the environment variable that holds the file's path. The file has sizeof(CallCounts).
inline constexpr const char* kCallCountsVariable = "SLUICE_CALL_COUNTS";

}  // namespace sluice::test
