// The few system calls on unix sockets that a takeover needs.
#pragma once

#include <sys/types.h>

#include <string>

#include "proxy/base/result.h"
#include "proxy/base/unique_fd.h"

namespace sluice::takeover {

// The value of a socket's option (SOL_SOCKET); -1 when it has none, or is no socket.
[[nodiscard]] int OptionOf(int fd, int name) noexcept;

// Who is at the other end of a connection (SO_PEERCRED, unix(7)). Of a connecting socket it is who
// listened, of a socketpair who made it. `pid` is 0 for a process of another pid namespace.
struct Peer {
  uid_t uid = 0;
  pid_t pid = 0;
};

[[nodiscard]] Result<Peer> PeerOf(int fd);

// Connects without blocking. The errno tells: ENOENT or ECONNREFUSED, nobody listens there;
// EAGAIN, somebody does, but his queue is full.
[[nodiscard]] Result<UniqueFd> ConnectTo(const std::string& path);

// Listens on a file that nobody but this user may open, from the first moment on. A file that a
// process has left behind is replaced; an error when somebody answers there, or it is no socket.
[[nodiscard]] Result<UniqueFd> ListenOn(const std::string& path);

// The path that a listening unix stream socket is bound to; an error when `fd` is none.
[[nodiscard]] Result<std::string> PathOfListener(int fd);

// An error unless `fd` is a unix stream socket that does not listen.
[[nodiscard]] Result<void> CheckConnection(int fd);

}  // namespace sluice::takeover
