#include "proxy/admin/probe.h"

#include <poll.h>

#include <array>
#include <cerrno>
#include <utility>

#include "proxy/http/parser.h"
#include "proxy/net/socket.h"

namespace sluice::admin {
namespace {

// Waits until `fd` is ready for `events`; false when the deadline comes first.
bool Await(int fd, short events, Instant deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<Millis>(deadline - Now()).count();
    if (left <= 0) {
      return false;
    }
    pollfd one{fd, events, 0};
    const int ready = ::poll(&one, 1, static_cast<int>(left));
    if (ready > 0) {
      return true;
    }
    if (ready < 0 && errno != EINTR) {
      return false;
    }
  }
}

}  // namespace

Result<int> ProbeStatus(const net::Address& address, const std::string& path, Millis patience) {
  const Instant deadline = Now() + patience;
  auto fd = net::StartConnect(address);
  if (!fd) {
    return tl::unexpected(fd.error());
  }
  const Error late{"no answer from " + address.Text() + " in time", 0};
  if (!Await(fd->get(), POLLOUT, deadline)) {
    return tl::unexpected(late);
  }
  if (const int error = net::ConnectError(fd->get()); error != 0) {
    return SysErr("cannot connect to " + address.Text(), error);
  }
  const std::string request =
      "GET " + path + " HTTP/1.1\r\nHost: " + address.Text() + "\r\nConnection: close\r\n\r\n";
  if (net::Send(fd->get(), AsBytes(request)).bytes != request.size()) {
    return Err("cannot write to " + address.Text());
  }
  http::ResponseParser parser;
  std::string bytes;
  for (;;) {
    if (!Await(fd->get(), POLLIN, deadline)) {
      return tl::unexpected(late);
    }
    std::array<std::byte, 2048> scratch;
    const net::IoResult got = net::Receive(fd->get(), scratch);
    if (got.status == net::IoStatus::kWouldBlock) {
      continue;
    }
    if (got.status != net::IoStatus::kOk) {
      return Err(address.Text() + " closed without an answer");
    }
    bytes += AsText(Bytes(scratch).first(got.bytes));
    switch (parser.Parse(bytes, false)) {
      case ParseStatus::kNeedMore:
        break;
      case ParseStatus::kBad:
        return Err(address.Text() + " does not speak HTTP");
      case ParseStatus::kDone:
        return parser.head().status;
    }
  }
}

}  // namespace sluice::admin
