#include "proxy/takeover/channel.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace sluice::takeover {
namespace {

// What the kernel passes at most in one message (SCM_MAX_FD). There is room for more than we take,
// so that MSG_CTRUNC has one meaning: this process has no descriptor left.
constexpr std::size_t kKernelMostFds = 253;

constexpr std::size_t kControlSize = CMSG_SPACE(sizeof(int) * kKernelMostFds);

constexpr std::size_t kRead = 16 * 1024;

// One sendmsg(2), with `fds` on its first byte.
ssize_t SendWith(int fd, std::string_view bytes, const std::vector<UniqueFd>& fds) noexcept {
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) std::array<unsigned char, kControlSize> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    unsigned char* at = CMSG_DATA(head);
    for (const UniqueFd& one : fds) {
      const int number = one.get();
      std::memcpy(at, &number, sizeof(number));
      at += sizeof(number);
    }
  }
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(fd, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent;
}

struct Read {
  ssize_t bytes = 0;  // as recvmsg(2) returns it
  std::vector<UniqueFd> fds;
  bool truncated = false;  // descriptors were lost
};

Read ReceiveWith(int fd, std::span<std::byte> into) {
  iovec part{into.data(), into.size()};
  alignas(cmsghdr) std::array<unsigned char, kControlSize> control;
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  Read read;
  do {
    read.bytes = ::recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
  } while (read.bytes < 0 && errno == EINTR);
  if (read.bytes < 0) {
    return read;
  }
  for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr;
       head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const std::size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(head) + i * sizeof(number), sizeof(number));
      read.fds.emplace_back(number);
    }
  }
  read.truncated = (message.msg_flags & MSG_CTRUNC) != 0;
  return read;
}

}  // namespace

Channel::Channel(UniqueFd fd) noexcept : fd_(std::move(fd)) {
  ::fcntl(fd_.get(), F_SETFL, ::fcntl(fd_.get(), F_GETFL) | O_NONBLOCK);
  ::fcntl(fd_.get(), F_SETFD, FD_CLOEXEC);
}

void Channel::Queue(Message message) {
  std::string bytes = Encode(message);
  pending_.push_back({std::move(bytes), std::move(message.fds), 0});
}

net::IoStatus Channel::Flush() {
  while (!pending_.empty()) {
    Outgoing& next = pending_.front();
    const ssize_t sent =
        SendWith(fd_.get(), std::string_view(next.bytes).substr(next.sent), next.fds);
    if (sent < 0) {
      if (errno == EAGAIN) {
        return net::IoStatus::kWouldBlock;
      }
      pending_.clear();
      return net::IoStatus::kError;
    }
    next.fds.clear();  // they went with the first byte
    next.sent += static_cast<std::size_t>(sent);
    if (next.sent == next.bytes.size()) {
      pending_.pop_front();
    }
  }
  return net::IoStatus::kOk;
}

Result<std::optional<Message>> Channel::Receive() {
  std::array<std::byte, kRead> scratch;
  for (;;) {
    const std::span<std::byte> into(scratch.data(), std::min(decoder_.wanted(), scratch.size()));
    Read read = ReceiveWith(fd_.get(), into);
    if (read.bytes < 0) {
      if (errno == EAGAIN) {
        return std::optional<Message>();
      }
      return SysErr("the takeover connection broke", errno);
    }
    if (read.truncated) {
      return Err("descriptors were lost on their way: the limit of open files is too low");
    }
    if (read.bytes == 0) {
      return tl::unexpected(Error{"the other process closed the takeover connection", ECONNRESET});
    }
    const auto size = static_cast<std::size_t>(read.bytes);
    switch (decoder_.Feed(Bytes(scratch).first(size), std::move(read.fds))) {
      case ParseStatus::kNeedMore:
        break;
      case ParseStatus::kBad:
        return Err(decoder_.fault());
      case ParseStatus::kDone:
        return std::optional<Message>(decoder_.TakeMessage());
    }
  }
}

}  // namespace sluice::takeover
