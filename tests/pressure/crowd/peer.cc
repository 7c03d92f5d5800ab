#include "tests/pressure/crowd/peer.h"

#include <array>
#include <utility>

namespace sluice::pressure {
namespace {

constexpr Nanoseconds kBetweenReads = 250 * deploy::kMillisecond;
constexpr std::size_t kMaxHead = std::size_t{32} * 1024;

}  // namespace

Peer::Peer(deploy::EventLoop& loop, const Options& options, std::size_t index)
    : loop_(loop), options_(options), index_(index) {}

Peer::~Peer() {
  loop_.wheel().Cancel(*this);
}

void Peer::Connect() {
  script_ = MakeScript(options_, index_);
  state_ = State::kConnects;
  const int error = wire_.Connect(options_.address, nullptr, script_.read_rate.has_value());
  if (error != 0) {
    End(deploy::FailureOf(error));
    return;
  }
  loop_.Add(wire_.fd(), EPOLLIN | EPOLLOUT, *this);
}

void Peer::OnEvent(std::uint32_t events) {
  if (state_ == State::kConnects) {
    switch (wire_.Advance()) {
      case deploy::Wire::Step::kFailed:
        End(wire_.failure());
        return;
      case deploy::Wire::Step::kDone:
        state_ = State::kConnected;
        connected_at_ = loop_.now();
        Speak();
        break;
      default:
        return;
    }
  } else if ((events & EPOLLOUT) != 0) {
    Speak();
  }
  if (state_ == State::kConnected && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    ReadSome(script_.read_rate && !answered_ ? 1 : SIZE_MAX);
  }
}

void Peer::OnTimer() {
  switch (state_) {
    case State::kWaits:
      Connect();
      break;
    case State::kConnected:
      if (said_ < script_.begin.size() + script_.rest.size()) {
        Speak();
      } else if (answered_ && script_.read_rate.value_or(0) > 0) {
        ReadSome(*script_.read_rate * kBetweenReads / deploy::kSecond);
        loop_.wheel().Set(*this, loop_.now() + kBetweenReads);
      }
      break;
    default:
      break;
  }
}

void Peer::Speak() {
  const std::size_t first = script_.begin.size();
  while (said_ < first) {
    const ssize_t sent = wire_.Write(
        reinterpret_cast<const unsigned char*>(script_.begin.data()) + said_, first - said_);
    if (sent == deploy::Wire::kNothing) {
      Watch(EPOLLIN | EPOLLOUT);
      return;
    }
    if (sent < 0) {
      break;  // what there is to read tells how it ended
    }
    said_ += static_cast<std::size_t>(sent);
  }
  Watch(EPOLLIN);
  if (said_ >= first && said_ < first + script_.rest.size()) {
    const auto byte = static_cast<unsigned char>(script_.rest[said_ - first]);
    if (wire_.Write(&byte, 1) == 1) {
      ++said_;
    }
    loop_.wheel().Set(*this, loop_.now() + script_.every);
  } else if (script_.ends) {
    ::shutdown(wire_.fd(), SHUT_WR);
  }
}

// One byte at a time of a head, when what is behind it is not to be read.
void Peer::ReadSome(std::size_t most) {
  static std::array<unsigned char, std::size_t{64} * 1024> buffer;
  const bool was_answered = answered_;
  do {
    const ssize_t got = wire_.Read(buffer.data(), std::min(most, buffer.size()));
    if (got == deploy::Wire::kNothing) {
      return;
    }
    if (got < 0) {
      End(got == deploy::Wire::kFin ? "fin" : "reset");
      return;
    }
    bytes_read_ += static_cast<std::uint64_t>(got);
    if (!answered_) {
      TakeAnswer({reinterpret_cast<const char*>(buffer.data()), static_cast<std::size_t>(got)});
    }
  } while (!answered_);
  if (!was_answered && script_.read_rate) {
    Watch(0);
    loop_.wheel().Set(*this, loop_.now() + kBetweenReads);
  }
}

void Peer::TakeAnswer(std::string_view bytes) {
  answer_.append(bytes);
  if (answer_.find("\r\n\r\n") == std::string::npos && answer_.size() <= kMaxHead) {
    return;
  }
  answered_ = true;
  status_ = answer_.starts_with("HTTP/1.1 ") ? std::atoi(answer_.c_str() + 9) : 0;
  answer_ = std::string();
}

void Peer::Watch(std::uint32_t events) {
  loop_.Change(wire_.fd(), events, *this);
}

void Peer::Close() {
  if (state_ != State::kEnded) {
    End("closed");
  }
}

void Peer::End(const char* how) {
  ended_ = how;
  ended_at_ = deploy::Now();
  state_ = State::kEnded;
  loop_.wheel().Cancel(*this);
  wire_.Close();
}

}  // namespace sluice::pressure
