#include "tests/bench/backend/connection.h"

#include <array>

#include "tests/bench/websocket.h"

namespace sluice::bench {
namespace {

constexpr std::size_t kMaxHead = std::size_t{32} * 1024;
constexpr std::size_t kDefaultSize = std::size_t{1} << 20;

}  // namespace

std::string_view QueryValue(std::string_view head, std::string_view name) {
  const std::string_view line = head.substr(0, head.find("\r\n"));
  const std::string_view target = line.substr(0, line.rfind(' '));
  std::size_t at = target.find('?');
  while (at != std::string_view::npos) {
    const std::size_t end = target.find('&', at + 1);
    const std::string_view pair = target.substr(at + 1, end - at - 1);
    if (pair.starts_with(name) && pair.substr(name.size()).starts_with('=')) {
      return pair.substr(name.size() + 1);
    }
    at = end;
  }
  return {};
}

Connection::Connection(int epoll, UniqueFd fd) : epoll_(epoll), fd_(std::move(fd)) {
  Watch(epoll_, EPOLL_CTL_ADD, fd_.get(), EPOLLIN, this);
}

bool Connection::OnEvent(std::uint32_t events) {
  if (!talk_) {
    return ReadHead();
  }
  if ((events & EPOLLOUT) != 0 && !talk_->OnWritable()) {
    return false;
  }
  return (events & ~static_cast<std::uint32_t>(EPOLLOUT)) == 0 || talk_->OnReadable();
}

bool Connection::ReadHead() {
  std::array<unsigned char, kMaxHeader + 4096> buffer{};
  unsigned char* const read_at = buffer.data() + kMaxHeader;
  const ssize_t got = ::recv(fd_.get(), read_at, buffer.size() - kMaxHeader, 0);
  if (got <= 0) {
    return got < 0 && errno == EAGAIN;
  }
  const auto size = static_cast<std::size_t>(got);
  head_.append(reinterpret_cast<const char*>(read_at), size);
  const std::size_t end = head_.find("\r\n\r\n");
  if (end == std::string::npos) {
    return head_.size() < kMaxHead;
  }
  const std::size_t behind = head_.size() - (end + 4);
  if (!Answer(std::string_view(head_).substr(0, end + 4))) {
    return false;
  }
  std::string().swap(head_);
  return behind == 0 || talk_->OnEarly(read_at + size - behind, behind);
}

bool Connection::Answer(std::string_view head) {
  const auto send_all = [this](std::string_view bytes) {
    return ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  };
  const std::string_view key = FieldValue(head, "sec-websocket-key");
  const std::string_view mode = QueryValue(head, "mode");
  if (mode == "page" || mode == "events") {
    talk_ = MakePlain(fd_.get(), head);
    return talk_ != nullptr;
  }
  if (key.empty()) {
    send_all("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    return false;
  }
  if (!send_all("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Accept: " +
                AcceptKey(key) + "\r\n\r\n")) {
    return false;
  }
  if (mode == "source" || mode == "sink" || mode == "both") {
    const std::string size(QueryValue(head, "size"));
    talk_ = MakeStream(epoll_, fd_.get(), this, size.empty() ? kDefaultSize : Number(size),
                       mode != "sink", mode != "source");
  } else {
    talk_ = MakeEcho(epoll_, fd_.get(), this);
  }
  return true;
}

}  // namespace sluice::bench
