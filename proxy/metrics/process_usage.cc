#include "proxy/metrics/process_usage.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

namespace sluice::metrics {

namespace {

// proc(5): positions in /proc/self/stat, counted from the field behind the command name, which is
// field 3 there.
constexpr std::size_t kUserTicks = 14 - 3;
constexpr std::size_t kSystemTicks = 15 - 3;
constexpr std::size_t kThreads = 20 - 3;
constexpr std::size_t kStartTicks = 22 - 3;
constexpr std::size_t kVirtualBytes = 23 - 3;
constexpr std::size_t kResidentPages = 24 - 3;

std::size_t CountOpenFds() {
  std::error_code error;
  std::filesystem::directory_iterator fds("/proc/self/fd", error);
  std::size_t count = 0;
  while (!error && fds != std::filesystem::directory_iterator()) {
    ++count;
    fds.increment(error);
  }
  return count > 0 ? count - 1 : 0;  // one of them is the directory being read
}

// When the machine was booted, Unix time: what start ticks are relative to.
double BootTime() {
  std::ifstream in("/proc/stat");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("btime ")) {
      return std::stod(line.substr(6));
    }
  }
  return 0;
}

// The numbers of /proc/self/stat behind the command name, which may itself hold spaces and ')'.
std::vector<std::string> StatFields() {
  std::ifstream in("/proc/self/stat");
  std::string text;
  std::getline(in, text);
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) {
    return {};
  }
  std::istringstream rest(text.substr(name_end + 1));
  std::vector<std::string> fields;
  for (std::string field; rest >> field;) {
    fields.push_back(field);
  }
  return fields;
}

}  // namespace

ProcessUsage ReadProcessUsage() {
  ProcessUsage usage;
  usage.open_fds = CountOpenFds();
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    usage.max_fds = limit.rlim_cur == RLIM_INFINITY ? std::numeric_limits<double>::infinity()
                                                    : static_cast<double>(limit.rlim_cur);
  }
  const std::vector<std::string> fields = StatFields();
  if (fields.size() > kResidentPages) {
    const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
    const auto page = static_cast<double>(sysconf(_SC_PAGESIZE));
    // Read once: btime follows the clock when that is set, and a start time that moves would look
    // like a restart.
    static const double boot = BootTime();
    usage.cpu_seconds = (std::stod(fields[kUserTicks]) + std::stod(fields[kSystemTicks])) / ticks;
    usage.threads = static_cast<std::size_t>(std::stoul(fields[kThreads]));
    usage.start_time = boot + std::stod(fields[kStartTicks]) / ticks;
    usage.virtual_bytes = std::stod(fields[kVirtualBytes]);
    usage.resident_bytes = std::stod(fields[kResidentPages]) * page;
  }
  return usage;
}

}  // namespace sluice::metrics
