// The CPU time of a proxy, all its processes and threads together.
#pragma once

#include <sys/types.h>

#include <vector>

namespace sluice::bench {

struct CpuTime {
  double total = 0;   // seconds; counted by the scheduler in nanoseconds
  double user = 0;    // seconds; in clock ticks
  double system = 0;  // seconds; in clock ticks
};

// What the processes `roots` and all their descendants have used so far. Threads that have ended
// count, and children that have ended and were waited for. A root that is gone ends the program.
CpuTime CpuOf(const std::vector<pid_t>& roots);

}  // namespace sluice::bench
