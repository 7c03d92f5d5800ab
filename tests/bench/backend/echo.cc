// Answers every message with itself, as cheaply as one thread can: frames are unmasked and given
// their new header inside the input buffer, and everything that one read brought leaves in one
// send.
#include <algorithm>
#include <array>
#include <string>

#include "tests/bench/backend/connection.h"
#include "tests/bench/websocket.h"

namespace sluice::bench {
namespace {

constexpr std::size_t kInput = std::size_t{256} * 1024;

class Echo : public Talk {
 public:
  Echo(int epoll, int fd, Connection* connection)
      : epoll_(epoll), fd_(fd), connection_(connection) {}

  bool OnEarly(unsigned char* bytes, std::size_t size) override { return Answer(bytes, size); }

  bool OnReadable() override {
    // The carried start of a header goes in front of what is read.
    static std::array<unsigned char, kMaxHeader + kInput> buffer;
    unsigned char* begin = buffer.data() + kMaxHeader;
    const ssize_t got = ::recv(fd_, begin, kInput, 0);
    if (got <= 0) {
      return got < 0 && errno == EAGAIN;
    }
    return Answer(begin, static_cast<std::size_t>(got));
  }

  bool OnWritable() override {
    const ssize_t sent = ::send(fd_, unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
    if (sent < 0) {
      return errno == EAGAIN;
    }
    unsent_.erase(0, static_cast<std::size_t>(sent));
    if (unsent_.empty()) {
      std::string().swap(unsent_);
      Watch(epoll_, EPOLL_CTL_MOD, fd_, EPOLLIN, connection_);
      return Send(nullptr, 0);
    }
    return true;
  }

 private:
  // Turns the frames of a client into frames for it, in place: a header of ours is 4 bytes shorter,
  // so what is written never overtakes what is read.
  bool Answer(unsigned char* begin, std::size_t size) {
    begin -= carry_size_;
    std::memcpy(begin, carry_.data(), carry_size_);
    size += carry_size_;
    carry_size_ = 0;
    unsigned char* out = begin;
    const unsigned char* in = begin;
    const unsigned char* const end = begin + size;
    while (in < end && !ended_) {
      if (payload_left_ == 0) {
        const std::size_t have = static_cast<std::size_t>(end - in);
        const FrameHeader header = ReadHeader(in, have);
        if (header.size == 0) {
          std::memcpy(carry_.data(), in, have);
          carry_size_ = have;
          break;
        }
        if (!header.masked) {
          Die("a frame without a mask came through");
        }
        in += header.size;
        const unsigned opcode = header.first & 0x0FU;
        closing_ = opcode == 0x8;
        // A PING is answered with a PONG, everything else with itself.
        const unsigned first = opcode == 0x9 ? (header.first & 0xF0U) | 0xAU : header.first;
        out += WriteHeader(out, static_cast<unsigned char>(first), header.payload, nullptr);
        key_ = header.key;
        phase_ = 0;
        payload_left_ = header.payload;
      }
      const std::size_t count = static_cast<std::size_t>(
          std::min<std::uint64_t>(payload_left_, static_cast<std::uint64_t>(end - in)));
      Mask(out, in, count, key_, phase_);
      in += count;
      out += count;
      phase_ += count;
      payload_left_ -= count;
      ended_ = closing_ && payload_left_ == 0;
    }
    return Send(begin, static_cast<std::size_t>(out - begin));
  }

  // Sends, or keeps what the kernel refuses and stops reading until it has gone.
  bool Send(const void* bytes, std::size_t size) {
    const char* from = static_cast<const char*>(bytes);
    if (unsent_.empty() && size > 0) {
      const ssize_t sent = ::send(fd_, from, size, MSG_NOSIGNAL);
      if (sent < 0 && errno != EAGAIN) {
        return false;
      }
      if (sent > 0) {
        from += sent;
        size -= static_cast<std::size_t>(sent);
      }
    }
    if (size > 0) {
      if (unsent_.empty()) {
        Watch(epoll_, EPOLL_CTL_MOD, fd_, EPOLLOUT, connection_);
      }
      unsent_.append(from, size);
      return true;
    }
    if (ended_ && unsent_.empty()) {
      ::shutdown(fd_, SHUT_WR);  // then the peer's end of stream is waited for
      ended_ = false;
    }
    return true;
  }

  int epoll_;
  int fd_;
  Connection* connection_;
  std::string unsent_;
  std::array<unsigned char, kMaxHeader> carry_{};  // the start of a header
  std::size_t carry_size_ = 0;
  std::uint64_t payload_left_ = 0;
  std::size_t phase_ = 0;  // payload bytes of this frame so far
  MaskKey key_{};
  bool closing_ = false;  // the frame being read is a CLOSE
  bool ended_ = false;    // after what is pending, FIN
};

}  // namespace

std::unique_ptr<Talk> MakeEcho(int epoll, int fd, Connection* connection) {
  return std::make_unique<Echo>(epoll, fd, connection);
}

}  // namespace sluice::bench
