#include "proxy/takeover/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace sluice::takeover {
namespace {

// One successor is served at a time; others wait to be refused.
constexpr int kBacklog = 16;

Result<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.front() == '\0') {
    return Err("the takeover socket has no path");
  }
  if (path.size() >= sizeof(address.sun_path)) {
    return Err("the path of the takeover socket is too long: " + std::to_string(path.size()) +
               " bytes of at most " + std::to_string(sizeof(address.sun_path) - 1) + ": " + path);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

const sockaddr* Raw(const sockaddr_un& address) noexcept {
  return reinterpret_cast<const sockaddr*>(&address);
}

UniqueFd MakeSocket() noexcept {
  return UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

bool IsUnixStream(int fd) noexcept {
  return OptionOf(fd, SO_DOMAIN) == AF_UNIX && OptionOf(fd, SO_TYPE) == SOCK_STREAM;
}

// Makes way for a new socket at `path`.
Result<void> RemoveStale(const std::string& path) {
  struct stat file {};
  if (::lstat(path.c_str(), &file) != 0) {
    if (errno == ENOENT) {
      return {};
    }
    return SysErr("cannot listen on " + path, errno);
  }
  if (!S_ISSOCK(file.st_mode)) {
    return Err("cannot listen on " + path + ": it exists and is no socket");
  }
  const auto probe = ConnectTo(path);
  if (probe || probe.error().sys_errno == EAGAIN) {
    return Err("cannot listen on " + path + ": another process does already");
  }
  if (probe.error().sys_errno == ENOENT) {
    return {};
  }
  if (probe.error().sys_errno != ECONNREFUSED) {
    return tl::unexpected(probe.error());
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return SysErr("cannot remove the stale socket " + path, errno);
  }
  return {};
}

}  // namespace

int OptionOf(int fd, int name) noexcept {
  int value = -1;
  socklen_t size = sizeof(value);
  return ::getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
}

Result<Peer> PeerOf(int fd) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return SysErr("cannot tell who is at the other end of the takeover socket", errno);
  }
  return Peer{credentials.uid, credentials.pid};
}

Result<UniqueFd> ConnectTo(const std::string& path) {
  const auto address = AddressOf(path);
  if (!address) {
    return tl::unexpected(address.error());
  }
  UniqueFd fd = MakeSocket();
  if (!fd.valid() || ::connect(fd.get(), Raw(*address), sizeof(*address)) != 0) {
    return SysErr("cannot connect to " + path, errno);
  }
  return fd;
}

Result<UniqueFd> ListenOn(const std::string& path) {
  const auto address = AddressOf(path);
  if (!address) {
    return tl::unexpected(address.error());
  }
  if (const auto removed = RemoveStale(path); !removed) {
    return tl::unexpected(removed.error());
  }
  UniqueFd fd = MakeSocket();
  // Linux gives the file the mode of the socket, less the umask: so no moment passes in which
  // others may connect, and no other thread sees a umask of ours.
  if (!fd.valid() || ::fchmod(fd.get(), S_IRUSR | S_IWUSR) != 0 ||
      ::bind(fd.get(), Raw(*address), sizeof(*address)) != 0 || ::listen(fd.get(), kBacklog) != 0) {
    return SysErr("cannot listen on " + path, errno);
  }
  return fd;
}

Result<std::string> PathOfListener(int fd) {
  if (!IsUnixStream(fd) || OptionOf(fd, SO_ACCEPTCONN) != 1) {
    return Err("the takeover socket that was handed over does not listen");
  }
  sockaddr_un address{};
  socklen_t size = sizeof(address);
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return SysErr("cannot tell the path of the takeover socket", errno);
  }
  if (size <= offsetof(sockaddr_un, sun_path) || address.sun_path[0] == '\0') {
    return Err("the takeover socket that was handed over has no path");
  }
  const std::size_t length = size - offsetof(sockaddr_un, sun_path);
  return std::string(address.sun_path, ::strnlen(address.sun_path, length));
}

Result<void> CheckConnection(int fd) {
  if (!IsUnixStream(fd) || OptionOf(fd, SO_ACCEPTCONN) != 0) {
    return Err("descriptor " + std::to_string(fd) + " is no connected unix stream socket");
  }
  return {};
}

}  // namespace sluice::takeover
