#include "tests/support/raw_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace sluice::test {
namespace {

UniqueFd Connect(std::uint16_t port, const ClientOptions& options) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (options.small_buffers) {
    const int size = 4096;  // before connect: the window is agreed from it
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  ::inet_pton(AF_INET, options.source.c_str(), &address.sin_addr);
  if (options.source != "127.0.0.1" &&
      ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    throw Failure("cannot bind to " + options.source);
  }
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    throw Failure("cannot connect to port " + std::to_string(port) + ": " + std::strerror(errno));
  }
  return fd;
}

}  // namespace

RawClient::RawClient(std::uint16_t port, const ClientOptions& options)
    : Stream(Connect(port, options), "client") {}

RawClient::RawClient(std::uint16_t port, const TlsClientOptions& tls, const ClientOptions& options)
    : RawClient(port, options) {
  StartTls(tls);
}

HttpMessage RawClient::Upgrade(std::string_view target, std::string_view more) {
  Send(UpgradeRequest(target, more));
  return ReadResponse();
}

Frame RawClient::CloseAndAwait(std::uint16_t code) {
  SendFrame(kClose, ClosePayload(code));
  Frame frame = ReadFrame();
  while (frame.opcode != kClose) {
    frame = ReadFrame();
  }
  return frame;
}

RawClient ConnectWebSocket(std::uint16_t port, std::string_view target, std::string_view more) {
  RawClient client(port);
  const HttpMessage answer = client.Upgrade(target, more);
  if (answer.status != 101) {
    throw Failure("upgrade answered: " + answer.start_line + " " + answer.body);
  }
  return client;
}

}  // namespace sluice::test
