#include "proxy/systemd/notifier.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <string>

#include <systemd/sd-daemon.h>

namespace sluice::systemd {
namespace {

Result<void> Send(const std::string& state) {
  if (const int sent = ::sd_notify(/*unset_environment=*/0, state.c_str()); sent < 0) {
    return SysErr("cannot notify systemd", -sent);
  }
  return {};
}

// A line break would begin another assignment.
std::string StatusLine(std::string_view text) {
  std::string line = "STATUS=";
  line += text;
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

}  // namespace

Result<void> NotifyReady(std::string_view status) {
  return Send("READY=1\n" + StatusLine(status));
}

Result<void> NotifyReloading() {
  // systemd 253 and later pairs the reload that it asked for with this by the time.
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const auto since_boot = std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(since_boot).count();
  return Send("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(micros));
}

Result<void> NotifyStopping() {
  return Send("STOPPING=1");
}

Result<void> NotifyStatus(std::string_view text) {
  return Send(StatusLine(text));
}

Result<void> NotifyMainPid(pid_t pid) {
  return Send("MAINPID=" + std::to_string(pid));
}

std::optional<Millis> WatchdogPeriod() {
  std::uint64_t micros = 0;
  if (::sd_watchdog_enabled(/*unset_environment=*/0, &micros) <= 0) {
    return std::nullopt;
  }
  return Millis(std::max<std::uint64_t>(1, micros / 2 / 1000));
}

Result<void> NotifyWatchdog() {
  return Send("WATCHDOG=1");
}

}  // namespace sluice::systemd
