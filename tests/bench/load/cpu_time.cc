#include "tests/bench/load/cpu_time.h"

#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/bench/socket.h"

namespace sluice::bench {
namespace {

// `pid` and the processes that it and its descendants started.
std::vector<pid_t> TreeOf(const std::vector<pid_t>& roots) {
  std::vector<pid_t> found = roots;
  for (std::size_t i = 0; i < found.size(); ++i) {
    std::error_code error;  // one that has just ended has no children
    const std::string tasks = "/proc/" + std::to_string(found[i]) + "/task";
    for (const auto& task : std::filesystem::directory_iterator(tasks, error)) {
      std::ifstream children(task.path() / "children");
      for (pid_t child = 0; children >> child;) {
        found.push_back(child);
      }
    }
  }
  return found;
}

}  // namespace

CpuTime CpuOf(const std::vector<pid_t>& roots) {
  CpuTime sum;
  const double tick = static_cast<double>(::sysconf(_SC_CLK_TCK));
  for (const pid_t pid : TreeOf(roots)) {
    // The same count as the sum over /proc/PID/task/*/schedstat, and threads that ended are in it.
    clockid_t clock{};
    timespec ran{};
    std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
    std::string line;
    if (::clock_getcpuclockid(pid, &clock) != 0 || ::clock_gettime(clock, &ran) != 0 ||
        !std::getline(file, line)) {
      Die("process " + std::to_string(pid) + " is not there any more");
    }
    sum.total += static_cast<double>(ran.tv_sec) + static_cast<double>(ran.tv_nsec) / 1e9;
    // The name, field 2, is in brackets and may hold anything; utime, stime, cutime and cstime are
    // 14 to 17.
    char* at = line.data() + line.rfind(')') + 2;
    for (int field = 3; field < 14; ++field) {
      at = std::strchr(at, ' ') + 1;
    }
    sum.user += std::strtod(at, &at) / tick;
    sum.system += std::strtod(at, &at) / tick;
    const double ended_user = std::strtod(at, &at) / tick;
    const double ended_system = std::strtod(at, &at) / tick;
    sum.user += ended_user;
    sum.system += ended_system;
    sum.total += ended_user + ended_system;
  }
  return sum;
}

}  // namespace sluice::bench
