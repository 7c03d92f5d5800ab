#include "tests/deploy/backend/session.h"

#include <cstdio>

namespace sluice::deploy {
namespace {

constexpr std::size_t kMaxHead = std::size_t{32} * 1024;
constexpr Nanoseconds kPatience = 10 * kSecond;  // for the end of stream behind our CLOSE

// The value of `name` in the query of a request head, or empty.
std::string_view QueryValue(std::string_view head, std::string_view name) {
  std::string_view target = head.substr(0, head.find(" HTTP/"));
  const std::size_t query = target.find('?');
  if (query == std::string_view::npos) {
    return {};
  }
  target.remove_prefix(query + 1);
  while (!target.empty()) {
    const std::string_view pair = target.substr(0, target.find('&'));
    if (pair.starts_with(name) && pair.substr(name.size()).starts_with('=')) {
      return pair.substr(name.size() + 1);
    }
    target.remove_prefix(std::min(target.size(), pair.size() + 1));
  }
  return {};
}

// When the last bytes came, which may be a while before they are read: a process that is not run
// for a moment sees all that came meanwhile at once. To a tick of the kernel.
Nanoseconds LastBytesAt(int fd) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) {
    bench::DieErrno("getsockopt");
  }
  return Now() - info.tcpi_last_data_recv * kMillisecond;
}

// 0 for what is no number: a stranger, such as a health check.
std::uint32_t QueryNumber(std::string_view head, std::string_view name) {
  return static_cast<std::uint32_t>(
      std::strtoul(std::string(QueryValue(head, name)).c_str(), nullptr, 10));
}

}  // namespace

Session::Session(EventLoop& loop, const Options& options, SessionOwner& owner, UniqueFd fd)
    : loop_(loop), options_(options), owner_(owner), fd_(std::move(fd)) {
  loop_.Add(fd_.get(), EPOLLIN, *this);
}

Session::~Session() {
  loop_.wheel().Cancel(*this);
}

void Session::OnEvent(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) {
    outbox_.Flush([this](const unsigned char* bytes, std::size_t size) {
      const ssize_t sent = ::send(fd_.get(), bytes, size, MSG_NOSIGNAL);
      return sent < 0 && errno == EAGAIN ? 0 : sent;
    });
    Rearm();
    MaybeFinish();
  }
  static std::array<unsigned char, std::size_t{64} * 1024> buffer;
  const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
  if (got < 0) {
    if (errno != EAGAIN) {
      End("reset");
    }
    return;
  }
  if (got == 0) {
    End(phase_ == Phase::kClosed ? "close" : "fin");
  } else if (phase_ == Phase::kHead) {
    ReadHead(reinterpret_cast<const char*>(buffer.data()), static_cast<std::size_t>(got));
  } else {
    Take(buffer.data(), static_cast<std::size_t>(got));
  }
}

void Session::ReadHead(const char* bytes, std::size_t size) {
  head_.append(bytes, size);
  const std::size_t end = head_.find("\r\n\r\n");
  if (end == std::string::npos) {
    if (head_.size() > kMaxHead) {
      End("a request head without an end");
    }
    return;
  }
  const std::string whole = std::move(head_);
  head_ = std::string();
  if (!Answer(std::string_view(whole).substr(0, end + 4))) {
    End("no upgrade");
    return;
  }
  phase_ = Phase::kOpen;
  asked_at_ = LastBytesAt(fd_.get());
  if (options_.rate > 0 && !echoes_) {
    due_ = static_cast<double>(loop_.now());
    OnTimer();
  }
  std::string behind = whole.substr(end + 4);
  Take(reinterpret_cast<unsigned char*>(behind.data()), behind.size());
}

bool Session::Answer(std::string_view head) {
  const auto send_all = [this](const std::string& text) {
    return ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(text.size());
  };
  const std::string_view key = bench::FieldValue(head, "sec-websocket-key");
  if (key.empty()) {
    send_all("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    return false;
  }
  uid_ = QueryNumber(head, "uid");
  incarnation_ = QueryNumber(head, "n");
  echoes_ = QueryNumber(head, "echo") == 1;
  return send_all(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Accept: " +
      bench::AcceptKey(key) + "\r\n\r\n");
}

void Session::Take(unsigned char* bytes, std::size_t size) {
  const char* broken = reader_.Take(bytes, size, *this);
  if (broken != nullptr) {
    End(broken);
  }
}

void Session::OnNumbered(const Numbered& message) {
  if (message.uid != uid_ || message.incarnation != incarnation_) {
    End("a message of another session");
    return;
  }
  received_.Take(message.number);
  if (echoes_) {
    SendNumbered();
  }
}

void Session::OnControl(Opcode opcode, const unsigned char* payload, std::size_t size) {
  if (opcode == Opcode::kPing) {
    SendControl(Opcode::kPong, payload, size);
  } else if (opcode == Opcode::kClose) {
    close_code_ = CloseCode(payload, size);
    for (std::uint64_t i = 0; i < options_.after_close && uid_ != 0 && !echoes_; ++i) {
      SendNumbered();
    }
    const CloseFramePayload answer(close_code_);
    SendControl(Opcode::kClose, answer.data(), answer.size());
    phase_ = Phase::kClosed;
    MaybeFinish();
    loop_.wheel().Set(*this, loop_.now() + kPatience);
  }
}

void Session::OnTimer() {
  if (phase_ == Phase::kClosed) {
    End("no end of stream behind the CLOSE");
    return;
  }
  // A client that does not read is not sent more; it does not get what it missed at once later.
  if (outbox_.empty()) {
    SendNumbered();
  }
  due_ += 1e9 / options_.rate;
  loop_.wheel().Set(*this, static_cast<Nanoseconds>(due_));
}

void Session::SendNumbered() {
  Send(NumberedFrame({.from = Numbered::kFromBackend,
                      .uid = uid_,
                      .incarnation = incarnation_,
                      .number = ++sent_,
                      .sent_at = Now()},
                     options_.size, nullptr));
}

void Session::SendControl(Opcode opcode, const unsigned char* payload, std::size_t size) {
  Send(ControlFrame(opcode, payload, size, nullptr));
}

void Session::Send(const Frame& frame) {
  // A reset shows when reading, behind what can still be read.
  outbox_.Send(frame.bytes, frame.size, [this](const unsigned char* bytes, std::size_t size) {
    const ssize_t sent = ::send(fd_.get(), bytes, size, MSG_NOSIGNAL);
    return sent < 0 && errno == EAGAIN ? 0 : sent;
  });
  Rearm();
}

void Session::Rearm() {
  if (fd_.valid() && wants_write_ == outbox_.empty()) {
    wants_write_ = !outbox_.empty();
    loop_.Change(fd_.get(), EPOLLIN | (wants_write_ ? std::uint32_t{EPOLLOUT} : 0U), *this);
  }
}

// RFC 6455 7.1.1: the server closes first.
void Session::MaybeFinish() {
  if (phase_ == Phase::kClosed && outbox_.empty()) {
    ::shutdown(fd_.get(), SHUT_WR);
  }
}

void Session::Cut() {
  const linger now{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  End("cut");
}

void Session::End(const char* how) {
  if (ended_ == nullptr) {
    ended_ = how;
    loop_.wheel().Cancel(*this);
    fd_.Reset();
    owner_.OnEnd(*this);
  }
}

std::string Session::Line(const char* ended) const {
  if (phase_ == Phase::kHead || uid_ == 0) {
    return {};
  }
  std::array<char, 512> line{};
  std::snprintf(
      line.data(), line.size(),
      "{\"uid\": %u, \"n\": %u, \"backend\": \"%s\", \"asked_at\": %.6f, \"sent_last\": %llu, "
      "\"received_last\": %llu, \"received_count\": %llu, \"gaps\": %llu, "
      "\"duplicates\": %llu, \"reordered\": %llu, \"close_code\": %d, "
      "\"ended\": \"%s\"}\n",
      uid_, incarnation_, options_.name.c_str(), static_cast<double>(asked_at_) / 1e9,
      static_cast<unsigned long long>(sent_), static_cast<unsigned long long>(received_.highest()),
      static_cast<unsigned long long>(received_.count()),
      static_cast<unsigned long long>(received_.gaps()),
      static_cast<unsigned long long>(received_.duplicates()),
      static_cast<unsigned long long>(received_.reordered()), close_code_, ended);
  return line.data();
}

}  // namespace sluice::deploy
