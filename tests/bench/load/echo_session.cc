#include "tests/bench/load/echo_session.h"

#include <algorithm>

#include <openssl/rand.h>

#include "tests/bench/pattern.h"

namespace sluice::bench {
namespace {

// A masked frame that all sessions copy: masking costs the load nothing per message then.
struct Frame {
  MaskKey key{};
  std::size_t header_size = 0;
  std::vector<unsigned char> bytes;
};

Frame& FrameOf(std::size_t size) {
  static Frame frame;
  if (frame.bytes.size() != frame.header_size + size || frame.bytes.empty()) {
    RAND_bytes(frame.key.data(), static_cast<int>(frame.key.size()));
    frame.bytes.assign(kMaxHeader + size, 0);
    frame.header_size = WriteHeader(frame.bytes.data(), 0x82, size, &frame.key);
    frame.bytes.resize(frame.header_size + size);
    Mask(frame.bytes.data() + frame.header_size, Pattern(size).data(), size, frame.key, 0);
  }
  return frame;
}

}  // namespace

EchoSession::EchoSession(const Target& target, std::uint64_t number, std::size_t size,
                         EchoOwner& owner)
    : Session(target, number), owner_(owner), size_(size) {}

void EchoSession::SendMessages(std::size_t count, Instant due) {
  if (count == 0) {
    return;
  }
  Frame& frame = FrameOf(size_);
  const bool was_flushed = flushed();
  for (; count > 0; --count) {
    const std::array<std::uint64_t, 2> id{number(), sent_};
    Mask(frame.bytes.data() + frame.header_size, reinterpret_cast<const unsigned char*>(id.data()),
         std::min(sizeof(id), size_), frame.key, 0);
    due_.push_back(due);
    ++sent_;
    Queue(frame.bytes.data(), frame.bytes.size());
  }
  if (was_flushed) {
    Flush();
  }
  Rearm();
}

void EchoSession::OnHeader(const FrameHeader& header) {
  if (header.first != 0x82 || header.payload != size_ || due_.empty()) {
    DieHere("was sent a frame that is no echo");
  }
}

void EchoSession::OnPayload(const unsigned char* bytes, std::size_t count, std::size_t offset) {
  const std::array<std::uint64_t, 2> id{number(), answered_};
  if (offset < sizeof(id)) {
    const std::size_t part = std::min(count, sizeof(id) - offset);
    CheckSame(bytes, reinterpret_cast<const unsigned char*>(id.data()) + offset, part);
    bytes += part;
    count -= part;
    offset += part;
  }
  CheckSame(bytes, Pattern(size_).data() + offset, count);
}

void EchoSession::CheckSame(const unsigned char* got, const unsigned char* want,
                            std::size_t count) const {
  if (std::memcmp(got, want, count) != 0) {
    DieHere("message " + std::to_string(answered_) + " came back changed");
  }
}

void EchoSession::OnFrameEnd(Instant now) {
  const Instant due = due_.front();
  due_.pop_front();
  ++answered_;
  ++answered_now_;
  owner_.OnAnswer(*this, due, now);
}

void EchoSession::OnReadDone(Instant now) {
  if (answered_now_ > 0) {
    const std::size_t count = answered_now_;
    answered_now_ = 0;
    owner_.OnAnswers(*this, count, now);
  }
}

}  // namespace sluice::bench
