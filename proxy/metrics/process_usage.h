// What the kernel says about this process, for the process_* metrics. Read at scrape time on the
// control thread.
#pragma once

#include <cstddef>

namespace sluice::metrics {

struct ProcessUsage {
  std::size_t open_fds = 0;
  double max_fds = 0;  // soft limit; +Inf when there is none
  double resident_bytes = 0;
  double virtual_bytes = 0;
  double cpu_seconds = 0;  // user and system, all threads
  double start_time = 0;   // Unix time
  std::size_t threads = 0;
};

// A part of /proc that cannot be read leaves its fields 0.
[[nodiscard]] ProcessUsage ReadProcessUsage();

}  // namespace sluice::metrics
