// Large messages at the least cost that a backend can have, so that the proxy is what is measured.
// A source sends one ready-made frame again and again. A sink checks every header and one message
// of kCheckEvery byte by byte, lets the kernel drop the payload of the others, and acknowledges
// each whole message with its number in a text message.
#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <vector>

#include "tests/bench/backend/connection.h"
#include "tests/bench/pattern.h"
#include "tests/bench/websocket.h"

namespace sluice::bench {
namespace {

// What one event may read or write before the next connection has its turn.
constexpr std::size_t kBudget = std::size_t{1} << 20;

const std::vector<unsigned char>& FrameOf(std::size_t size) {
  static std::map<std::size_t, std::vector<unsigned char>> frames;
  std::vector<unsigned char>& frame = frames[size];
  if (frame.empty()) {
    frame.resize(kMaxHeader + size);
    const std::size_t header = WriteHeader(frame.data(), 0x82, size, nullptr);
    std::memcpy(frame.data() + header, Pattern(size).data(), size);
    frame.resize(header + size);
  }
  return frame;
}

class Stream : public Talk {
 public:
  Stream(int epoll, int fd, Connection* connection, std::size_t size, bool source, bool sink)
      : epoll_(epoll),
        fd_(fd),
        connection_(connection),
        size_(size),
        sink_(sink),
        frame_(source ? &FrameOf(size) : nullptr) {
    Rearm();
  }

  bool OnEarly(unsigned char* bytes, std::size_t size) override { return Walk(bytes, size); }

  bool OnReadable() override {
    static std::array<unsigned char, std::size_t{256} * 1024> buffer;
    for (std::size_t done = 0; done < kBudget;) {
      const bool unseen = payload_left_ > 0 && !is_control_ && received_ % kCheckEvery != 0;
      // Only a header at first, so that the payload behind it is still in the socket.
      const std::size_t wanted = payload_left_ > 0 ? payload_left_ : kMaxHeader - carry_size_;
      const ssize_t got = unseen ? ::recv(fd_, nullptr, wanted, MSG_TRUNC)
                                 : ::recv(fd_, buffer.data(), std::min(wanted, buffer.size()), 0);
      if (got <= 0) {
        return got < 0 && errno == EAGAIN && Flush();
      }
      const auto count = static_cast<std::size_t>(got);
      if (unseen) {
        payload_left_ -= count;
        if (payload_left_ == 0) {
          EndFrame();
        }
      } else if (!Walk(buffer.data(), count)) {
        return false;
      }
      done += count;
    }
    return Flush();
  }

  bool OnWritable() override { return Flush(); }

 private:
  bool Walk(const unsigned char* bytes, std::size_t count) {
    while (count > 0 && !ended_) {
      if (payload_left_ == 0) {
        const std::size_t want = std::min(count, carry_.size() - carry_size_);
        std::memcpy(carry_.data() + carry_size_, bytes, want);
        const FrameHeader header = ReadHeader(carry_.data(), carry_size_ + want);
        if (header.size == 0) {
          carry_size_ += want;
          return true;
        }
        bytes += header.size - carry_size_;
        count -= header.size - carry_size_;
        carry_size_ = 0;
        BeginFrame(header);
      }
      const std::size_t part = std::min(count, payload_left_);
      if (is_control_) {
        control_.insert(control_.end(), bytes, bytes + part);
      } else {
        Check(bytes, part);
      }
      bytes += part;
      count -= part;
      payload_left_ -= part;
      if (payload_left_ == 0) {
        EndFrame();
      }
    }
    return true;
  }

  void BeginFrame(const FrameHeader& header) {
    is_control_ = IsControl(header);
    if (!header.masked ||
        (!is_control_ && (!sink_ || header.first != 0x82 || header.payload != size_))) {
      Die("a frame came through that has no place here");
    }
    header_ = header;
    payload_left_ = static_cast<std::size_t>(header.payload);
  }

  // Against the pattern, masked as the frame is; the load masks all its frames alike.
  void Check(const unsigned char* bytes, std::size_t count) const {
    static std::map<std::pair<MaskKey, std::size_t>, std::vector<unsigned char>> masked;
    std::vector<unsigned char>& wanted = masked[{header_.key, size_}];
    if (wanted.empty()) {
      wanted.resize(size_);
      Mask(wanted.data(), Pattern(size_).data(), size_, header_.key, 0);
    }
    if (std::memcmp(bytes, wanted.data() + (size_ - payload_left_), count) != 0) {
      Die("message " + std::to_string(received_) + " was changed");
    }
  }

  void EndFrame() {
    if (!is_control_) {
      const std::string number = std::to_string(++received_);
      Queue(0x81, reinterpret_cast<const unsigned char*>(number.data()), number.size());
      return;
    }
    Mask(control_.data(), control_.data(), control_.size(), header_.key, 0);
    const unsigned opcode = header_.first & 0x0FU;
    if (opcode == 0x9) {
      Queue(0x8A, control_.data(), control_.size());
    } else if (opcode == 0x8) {
      Queue(0x88, control_.data(), control_.size());
      ended_ = true;
    }
    control_.clear();
  }

  // Sent as soon as no frame of the stream is in the way.
  void Queue(unsigned char first, const unsigned char* payload, std::size_t count) {
    std::array<unsigned char, kMaxHeader> header{};
    const std::size_t size = WriteHeader(header.data(), first, count, nullptr);
    small_.append(reinterpret_cast<const char*>(header.data()), size);
    small_.append(reinterpret_cast<const char*>(payload), count);
  }

  bool Flush() {
    for (std::size_t done = 0; done < kBudget;) {
      const bool small = sent_ == 0 && !small_.empty();
      if (!small && (frame_ == nullptr || (sent_ == 0 && ended_))) {
        break;
      }
      const ssize_t sent =
          small ? ::send(fd_, small_.data(), small_.size(), MSG_NOSIGNAL)
                : ::send(fd_, frame_->data() + sent_, frame_->size() - sent_, MSG_NOSIGNAL);
      if (sent < 0) {
        if (errno != EAGAIN) {
          return false;
        }
        break;
      }
      const auto count = static_cast<std::size_t>(sent);
      done += count;
      if (small) {
        small_.erase(0, count);
      } else {
        sent_ = (sent_ + count) % frame_->size();
      }
    }
    if (ended_ && sent_ == 0 && small_.empty() && !shut_) {
      shut_ = true;
      ::shutdown(fd_, SHUT_WR);  // then the peer's end of stream is waited for
    }
    Rearm();
    return true;
  }

  void Rearm() {
    const bool wants_write = !shut_ && (frame_ != nullptr || !small_.empty());
    if (wants_write != write_armed_) {
      write_armed_ = wants_write;
      Watch(epoll_, EPOLL_CTL_MOD, fd_, wants_write ? EPOLLIN | EPOLLOUT : EPOLLIN, connection_);
    }
  }

  int epoll_;
  int fd_;
  Connection* connection_;
  std::size_t size_;
  bool sink_;
  const std::vector<unsigned char>* frame_;        // null: no source
  std::size_t sent_ = 0;                           // of the frame being sent
  std::string small_;                              // whole frames: acknowledgements, PONG, CLOSE
  std::array<unsigned char, kMaxHeader> carry_{};  // the start of a header
  std::size_t carry_size_ = 0;
  FrameHeader header_;
  std::size_t payload_left_ = 0;
  bool is_control_ = false;
  std::vector<unsigned char> control_;
  std::uint64_t received_ = 0;
  bool ended_ = false;  // CLOSE has come; after what is pending, FIN
  bool shut_ = false;
  bool write_armed_ = false;
};

}  // namespace

std::unique_ptr<Talk> MakeStream(int epoll, int fd, Connection* connection, std::size_t size,
                                 bool source, bool sink) {
  return std::make_unique<Stream>(epoll, fd, connection, size, source, sink);
}

}  // namespace sluice::bench
