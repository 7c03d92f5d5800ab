// What a service of Type=notify tells systemd (sd_notify(3)). Without NOTIFY_SOCKET each of these
// does nothing and succeeds. Never blocks for long: one datagram each. Control thread.
//
// An error need not stop anybody: whether the service got ready in time is for systemd to decide.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string_view>

#include "proxy/base/clock.h"
#include "proxy/base/result.h"

namespace sluice::systemd {

// Start-up is over, or a reload that was announced with NotifyReloading().
Result<void> NotifyReady(std::string_view status);

// The configuration is being loaded anew. NotifyReady() has to follow, also when it was not taken.
Result<void> NotifyReloading();

// The drain has begun.
Result<void> NotifyStopping();

// A line for `systemctl status`.
Result<void> NotifyStatus(std::string_view text);

// From now on the service is process `pid`. With NotifyAccess=main systemd takes it from the
// process that has been the service until now, and listens to the new one from then on.
Result<void> NotifyMainPid(pid_t pid);

// How often systemd wants to hear NotifyWatchdog(): half of what it waits. Nothing when it does not
// watch this process.
[[nodiscard]] std::optional<Millis> WatchdogPeriod();
Result<void> NotifyWatchdog();

}  // namespace sluice::systemd
