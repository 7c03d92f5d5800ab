// The listening sockets that systemd has opened for this process (sd_listen_fds(3)). Start-up only.
#pragma once

#include <string>
#include <vector>

#include "proxy/base/result.h"
#include "proxy/base/unique_fd.h"

namespace sluice::systemd {

struct ActivatedSocket {
  std::string name;  // FileDescriptorName= of the socket unit, by default the unit's name
  UniqueFd fd;       // non-blocking, close-on-exec
};

// Takes what LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES tell, and removes these variables; none when
// they are meant for another process or not there. An error, and all are closed, when one is no
// listening TCP socket. REQUIRES: there are no threads, and nobody else uses these descriptors.
[[nodiscard]] Result<std::vector<ActivatedSocket>> TakeActivatedSockets();

}  // namespace sluice::systemd
