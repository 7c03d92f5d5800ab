// Starts the program anew, as the successor of this process.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "proxy/base/result.h"
#include "proxy/base/unique_fd.h"

namespace sluice::takeover {

// Tells a process that its predecessor has started it: the number of its end of the connection.
inline constexpr const char* kTakeoverVariable = "SLUICE_TAKEOVER_FD";

struct Spawned {
  pid_t pid = 0;
  UniqueFd connection;  // our end
};

// Starts `executable` with a connection to this process. The new one inherits standard input,
// output and error, the working directory and the environment, but no other descriptor, no blocked
// signal, and none of what systemd meant for this process alone. Somebody has to wait for its pid.
[[nodiscard]] Result<Spawned> SpawnSuccessor(const std::string& executable,
                                             const std::vector<std::string>& argv);

// The absolute path by which this program was started; empty when it cannot be told. To be asked at
// start-up: the path may lead to another file later, and that is the one to start then. Symbolic
// links stay in it.
[[nodiscard]] std::string ExecutablePath();

}  // namespace sluice::takeover
