// A WebSocket backend that answers every message with itself, as cheaply as one thread can: frames
// are unmasked and given their new header inside the input buffer, and everything that one read
// brought leaves in one send.
//
//   bench_echo_backend      prints its port, serves until it is killed
#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "tests/bench/socket.h"
#include "tests/bench/websocket.h"

namespace sluice::bench {
namespace {

constexpr std::size_t kInput = 256 * 1024;
constexpr std::size_t kMaxHead = 32 * 1024;

class Client {
 public:
  Client(int epoll, UniqueFd fd) : epoll_(epoll), fd_(std::move(fd)) {
    Watch(epoll_, EPOLL_CTL_ADD, fd_.get(), EPOLLIN, this);
  }

  // False: the connection is over, free it.
  bool OnEvent(std::uint32_t events) {
    if ((events & EPOLLOUT) != 0) {
      return Flush();
    }
    // The carried start of a header goes in front of what is read.
    static std::array<unsigned char, kMaxHeader + kInput> buffer;
    unsigned char* const read_at = buffer.data() + kMaxHeader;
    const ssize_t got = ::recv(fd_.get(), read_at, kInput, 0);
    if (got <= 0) {
      return got < 0 && errno == EAGAIN;
    }
    unsigned char* begin = read_at;
    std::size_t size = static_cast<std::size_t>(got);
    if (!upgraded_) {
      head_.append(reinterpret_cast<const char*>(begin), size);
      const std::size_t end = head_.find("\r\n\r\n");
      if (end == std::string::npos) {
        return head_.size() < kMaxHead;
      }
      const std::size_t behind = head_.size() - (end + 4);
      begin += size - behind;
      size = behind;
      if (!Answer(std::string_view(head_).substr(0, end + 4))) {
        return false;
      }
      std::string().swap(head_);
      if (size == 0) {
        return !ended_;
      }
    }
    if (carry_size_ > 0) {
      begin -= carry_size_;
      std::memcpy(begin, carry_.data(), carry_size_);
      size += carry_size_;
      carry_size_ = 0;
    }
    return Echo(begin, size);
  }

 private:
  bool Answer(std::string_view head) {
    const std::string_view key = FieldValue(head, "sec-websocket-key");
    if (key.empty()) {
      static constexpr std::string_view kNoUpgrade =
          "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
      ended_ = true;
      return Send(kNoUpgrade.data(), kNoUpgrade.size());
    }
    upgraded_ = true;
    const std::string reply =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: " +
        AcceptKey(key) + "\r\n\r\n";
    return Send(reply.data(), reply.size());
  }

  // Turns the frames of a client into frames for it, in place: a header of ours is 4 bytes shorter,
  // so what is written never overtakes what is read.
  bool Echo(unsigned char* begin, std::size_t size) {
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
      const ssize_t sent = ::send(fd_.get(), from, size, MSG_NOSIGNAL);
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
        Watch(epoll_, EPOLL_CTL_MOD, fd_.get(), EPOLLOUT, this);
      }
      unsent_.append(from, size);
      return true;
    }
    if (ended_ && unsent_.empty()) {
      ::shutdown(fd_.get(), SHUT_WR);  // then the peer's end of stream is waited for
      ended_ = false;
    }
    return true;
  }

  bool Flush() {
    const ssize_t sent = ::send(fd_.get(), unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
    if (sent < 0) {
      return errno == EAGAIN;
    }
    unsent_.erase(0, static_cast<std::size_t>(sent));
    if (unsent_.empty()) {
      std::string().swap(unsent_);
      Watch(epoll_, EPOLL_CTL_MOD, fd_.get(), EPOLLIN, this);
      return Send(nullptr, 0);
    }
    return true;
  }

  int epoll_;
  UniqueFd fd_;
  std::string head_;
  std::string unsent_;
  std::array<unsigned char, kMaxHeader> carry_{};  // the start of a header
  std::size_t carry_size_ = 0;
  std::uint64_t payload_left_ = 0;
  std::size_t phase_ = 0;  // payload bytes of this frame so far
  MaskKey key_{};
  bool upgraded_ = false;
  bool closing_ = false;  // the frame being read is a CLOSE
  bool ended_ = false;    // after what is pending, FIN
};

void Serve() {
  RaiseFdLimit();
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  const UniqueFd listener = ListenAndTell();
  Watch(epoll.get(), EPOLL_CTL_ADD, listener.get(), EPOLLIN, nullptr);
  std::array<epoll_event, 512> events{};
  for (;;) {
    const int count = ::epoll_wait(epoll.get(), events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      if (event.data.ptr == nullptr) {
        for (UniqueFd fd = Accept(listener.get()); fd.valid(); fd = Accept(listener.get())) {
          new Client(epoll.get(), std::move(fd));  // owned by its registration with epoll
        }
        continue;
      }
      auto* client = static_cast<Client*>(event.data.ptr);
      if (!client->OnEvent(event.events)) {
        delete client;
      }
    }
  }
}

}  // namespace
}  // namespace sluice::bench

int main() {
  sluice::bench::Serve();
}
