#include "tests/bench/load/session.h"

#include <algorithm>

#include <openssl/rand.h>

namespace sluice::bench {
namespace {

constexpr std::size_t kInput = std::size_t{256} * 1024;
// Thousands of sessions that have sent something large once give its memory back.
constexpr std::size_t kKeptOutput = std::size_t{16} * 1024;
constexpr unsigned char kCloseOpcode = 0x8;
constexpr unsigned char kPingOpcode = 0x9;
constexpr unsigned char kPongOpcode = 0xA;

}  // namespace

void Session::OpenAndWatch(int epoll) {
  Open();
  StartWatching(epoll, EPOLL_CTL_ADD);
}

void Session::StartWatching(int epoll, int operation) {
  epoll_ = epoll;
  write_armed_ = wants_write();
  Watch(epoll_, operation, fd(), write_armed_ ? EPOLLIN | EPOLLOUT : EPOLLIN,
        static_cast<Client*>(this));
  const std::string early = TakeEarly();
  if (!early.empty()) {
    const Instant now = std::chrono::steady_clock::now();
    Walk(reinterpret_cast<const unsigned char*>(early.data()), early.size(), now);
    OnReadDone(now);
  }
  if (HasBuffered()) {
    ReadSome();
  }
}

void Session::OnEvent(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) {
    Flush();
  }
  if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) {
    ReadSome();
  }
  Rearm();
}

void Session::Rearm() {
  if (epoll_ >= 0 && wants_write() != write_armed_) {
    write_armed_ = !write_armed_;
    Watch(epoll_, EPOLL_CTL_MOD, fd(), write_armed_ ? EPOLLIN | EPOLLOUT : EPOLLIN,
          static_cast<Client*>(this));
  }
}

void Session::StopWatching() {
  if (epoll_ >= 0) {
    Watch(epoll_, EPOLL_CTL_DEL, fd(), 0, nullptr);
    epoll_ = -1;
  }
}

void Session::ReadSome() {
  static std::array<unsigned char, kInput> buffer;
  do {
    const ssize_t got = Read(buffer.data(), buffer.size());
    if (got == kNothing) {
      return;
    }
    if (got == kEnded) {
      OnEnd();
      return;
    }
    const Instant now = std::chrono::steady_clock::now();
    Walk(buffer.data(), static_cast<std::size_t>(got), now);
    OnReadDone(now);
  } while (HasBuffered());
}

void Session::Walk(const unsigned char* bytes, std::size_t count, Instant now) {
  while (count > 0) {
    if (!in_frame_) {
      const std::size_t want = std::min(count, carry_.size() - carry_size_);
      std::memcpy(carry_.data() + carry_size_, bytes, want);
      header_ = ReadHeader(carry_.data(), carry_size_ + want);
      if (header_.size == 0) {
        carry_size_ += want;
        return;
      }
      bytes += header_.size - carry_size_;
      count -= header_.size - carry_size_;
      carry_size_ = 0;
      offset_ = 0;
      in_frame_ = true;
      if (header_.masked) {
        DieHere("was sent a masked frame");
      }
      if (!IsControl(header_)) {
        OnHeader(header_);
      } else if (header_.payload > control_.size()) {
        DieHere("was sent a control frame of more than 125 bytes");
      }
    }
    const std::size_t part =
        static_cast<std::size_t>(std::min<std::uint64_t>(count, header_.payload - offset_));
    if (IsControl(header_)) {
      std::memcpy(control_.data() + offset_, bytes, part);
    } else if (part > 0) {
      OnPayload(bytes, part, offset_);
    }
    bytes += part;
    count -= part;
    offset_ += part;
    EndFrame(now);
  }
}

std::size_t Session::data_left() const {
  return in_frame_ && !IsControl(header_) ? static_cast<std::size_t>(header_.payload) - offset_ : 0;
}

void Session::SkipPayload(std::size_t count, Instant now) {
  offset_ += count;
  EndFrame(now);
}

void Session::EndFrame(Instant now) {
  if (offset_ < header_.payload) {
    return;
  }
  in_frame_ = false;
  if (IsControl(header_)) {
    OnControl();
  } else {
    OnFrameEnd(now);
  }
}

void Session::OnControl() {
  const auto size = static_cast<std::size_t>(header_.payload);
  switch (header_.first & 0x0FU) {
    case kPingOpcode:
      SendControl(kPongOpcode, control_.data(), size);
      break;
    case kPongOpcode:
      break;
    case kCloseOpcode:
      OnClose(size < 2 ? std::uint16_t{1005}
                       : static_cast<std::uint16_t>(control_[0] << 8U | control_[1]));
      break;
    default:
      DieHere("was sent a control frame that does not exist");
  }
}

void Session::OnClose(std::uint16_t code) {
  DieHere("was sent CLOSE " + std::to_string(code));
}

void Session::OnEnd() {
  DieHere("was closed by the other side: " + std::string(end()));
}

void Session::SendClose(std::uint16_t code) {
  const std::array<unsigned char, 2> payload{static_cast<unsigned char>(code >> 8U),
                                             static_cast<unsigned char>(code & 0xFFU)};
  SendControl(kCloseOpcode, payload.data(), code == 1005 ? 0 : payload.size());
}

void Session::SendControl(unsigned char opcode, const unsigned char* payload, std::size_t count) {
  MaskKey key{};
  RAND_bytes(key.data(), static_cast<int>(key.size()));
  std::array<unsigned char, kMaxHeader + 125> frame{};
  const std::size_t header =
      WriteHeader(frame.data(), static_cast<unsigned char>(0x80U | opcode), count, &key);
  Mask(frame.data() + header, payload, count, key, 0);
  Queue(frame.data(), header + count);
  Flush();
  Rearm();
}

void Session::Queue(const unsigned char* bytes, std::size_t count) {
  out_.insert(out_.end(), bytes, bytes + count);
}

bool Session::Flush() {
  while (out_begin_ < out_.size()) {
    const ssize_t sent = Write(out_.data() + out_begin_, out_.size() - out_begin_);
    if (sent == kNothing) {
      return false;
    }
    if (sent == kEnded) {
      OnEnd();
      return false;
    }
    out_begin_ += static_cast<std::size_t>(sent);
  }
  if (out_.capacity() > kKeptOutput) {
    std::vector<unsigned char>().swap(out_);
  }
  out_.clear();
  out_begin_ = 0;
  return true;
}

int RunTurn(int epoll, nanoseconds patience, bool* foreign) {
  static std::array<epoll_event, 512> events{};
  const nanoseconds wait = std::max(patience, nanoseconds::zero());
  const timespec timeout{static_cast<time_t>(wait.count() / 1'000'000'000),
                         static_cast<long>(wait.count() % 1'000'000'000)};
  // To the nanosecond, for the sake of an open loop; Linux 5.11.
  const int count =
      ::epoll_pwait2(epoll, events.data(), static_cast<int>(events.size()), &timeout, nullptr);
  if (count < 0 && errno != EINTR) {
    DieErrno("epoll_pwait2");
  }
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    if (event.data.ptr != nullptr) {
      static_cast<Client*>(event.data.ptr)->OnEvent(event.events);
    } else if (foreign != nullptr) {
      *foreign = true;
    }
  }
  return count;
}

}  // namespace sluice::bench
