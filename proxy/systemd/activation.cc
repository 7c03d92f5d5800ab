#include "proxy/systemd/activation.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

#include <systemd/sd-daemon.h>

namespace sluice::systemd {
namespace {

struct FreeText {
  void operator()(char* text) const noexcept { std::free(text); }
};

bool IsListeningTcp(int fd) noexcept {
  return ::sd_is_socket_inet(fd, AF_UNSPEC, SOCK_STREAM, /*listening=*/1, /*port=*/0) > 0;
}

}  // namespace

Result<std::vector<ActivatedSocket>> TakeActivatedSockets() {
  char** names = nullptr;
  const int count = ::sd_listen_fds_with_names(/*unset_environment=*/1, &names);
  if (count < 0) {
    return SysErr("cannot use the sockets of systemd (LISTEN_FDS)", -count);
  }
  std::vector<ActivatedSocket> sockets;
  for (int i = 0; i < count; ++i) {
    const std::unique_ptr<char, FreeText> name(names[i]);
    sockets.push_back({name.get(), UniqueFd(SD_LISTEN_FDS_START + i)});
  }
  std::free(names);
  for (const ActivatedSocket& socket : sockets) {
    const int fd = socket.fd.get();
    if (!IsListeningTcp(fd)) {
      return Err("socket \"" + socket.name + "\" of systemd (descriptor " + std::to_string(fd) +
                 ") is no listening TCP socket");
    }
    if (::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK) != 0) {
      return SysErr("cannot use socket \"" + socket.name + "\" of systemd", errno);
    }
  }
  return sockets;
}

}  // namespace sluice::systemd
