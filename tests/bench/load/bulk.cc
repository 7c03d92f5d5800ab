// Mode bulk: a few connections that carry large messages as fast as they go: down, up, or a stream
// each way at once. The backend streams or swallows them by the mode in the upgrade's query.
//
// Every header is checked, and one message of kCheckEvery byte by byte, by both ends; the others
// are dropped inside the kernel where they are plain, because a load that is slower than the proxy
// measures itself. A byte too many or too few shows at the next header in any case.
#include <charconv>
#include <memory>
#include <vector>

#include <openssl/rand.h>

#include "tests/bench/load/modes.h"
#include "tests/bench/load/session.h"
#include "tests/bench/load/window.h"
#include "tests/bench/pattern.h"

namespace sluice::bench {
namespace {

// What one event may read or write before the next connection has its turn.
constexpr std::size_t kBudget = std::size_t{1} << 20;

struct Totals {
  bool counting = false;
  std::uint64_t bytes = 0;  // payload that has arrived, either way
  std::uint64_t messages = 0;
};

// The frame that every connection sends again and again.
std::vector<unsigned char> MaskedFrame(std::size_t size) {
  MaskKey key{};
  RAND_bytes(key.data(), static_cast<int>(key.size()));
  std::vector<unsigned char> frame(kMaxHeader + size);
  const std::size_t header = WriteHeader(frame.data(), 0x82, size, &key);
  Mask(frame.data() + header, Pattern(size).data(), size, key, 0);
  frame.resize(header + size);
  return frame;
}

class BulkSession : public Session {
 public:
  // `frame`: what to send, or null; outlives the session like `totals`.
  BulkSession(const Target& target, std::uint64_t number, std::size_t size, bool reads,
              const std::vector<unsigned char>* frame, Totals& totals)
      : Session(target, number), size_(size), reads_(reads), frame_(frame), totals_(totals) {}

 protected:
  void OnHeader(const FrameHeader& header) override {
    is_ack_ = header.first == 0x81 && frame_ != nullptr && header.payload <= ack_.size();
    ack_size_ = 0;
    if (!is_ack_ && (header.first != 0x82 || header.payload != size_ || !reads_)) {
      DieHere("was sent a frame that has no place here");
    }
  }

  void OnPayload(const unsigned char* bytes, std::size_t count, std::size_t offset) override {
    if (is_ack_) {
      std::memcpy(ack_.data() + offset, bytes, count);
      ack_size_ += count;
      return;
    }
    if (std::memcmp(bytes, Pattern(size_).data() + offset, count) != 0) {
      DieHere("message " + std::to_string(received_) + " was changed");
    }
    Arrived(count);
  }

  void OnFrameEnd(Instant /*now*/) override {
    if (!is_ack_) {
      ++received_;
      totals_.messages += totals_.counting ? 1U : 0U;
      return;
    }
    std::uint64_t number = 0;
    std::from_chars(ack_.data(), ack_.data() + ack_size_, number);
    if (number != ++acknowledged_) {
      DieHere("message " + std::to_string(acknowledged_) + " was not acknowledged in its turn");
    }
    Arrived(size_);
    totals_.messages += totals_.counting ? 1U : 0U;
  }

  void ReadSome() override {
    if (is_tls()) {
      Session::ReadSome();
      return;
    }
    static std::array<unsigned char, std::size_t{256} * 1024> buffer;
    for (std::size_t done = 0; done < kBudget;) {
      const bool unseen = data_left() > 0 && !is_ack_ && received_ % kCheckEvery != 0;
      // Only the header at first, so that the payload behind it is still in the socket.
      const std::size_t wanted = data_left() > 0 ? data_left() : kServerHeader;
      const ssize_t got =
          unseen ? Discard(wanted) : Read(buffer.data(), std::min(wanted, buffer.size()));
      if (got == kNothing) {
        return;
      }
      if (got == kEnded) {
        OnEnd();
        return;
      }
      const auto count = static_cast<std::size_t>(got);
      if (unseen) {
        Arrived(count);
        SkipPayload(count, Instant{});
      } else {
        Walk(buffer.data(), count, Instant{});
      }
      done += count;
    }
  }

  bool Flush() override {
    // Control frames between messages, never inside one.
    if (sent_ == 0 && !Session::Flush()) {
      return false;
    }
    for (std::size_t done = 0; frame_ != nullptr && done < kBudget;) {
      const ssize_t sent = Write(frame_->data() + sent_, frame_->size() - sent_);
      if (sent == kNothing) {
        return false;
      }
      if (sent == kEnded) {
        OnEnd();
        return false;
      }
      done += static_cast<std::size_t>(sent);
      sent_ += static_cast<std::size_t>(sent);
      if (sent_ == frame_->size()) {
        sent_ = 0;
        if (!Session::Flush()) {
          return false;
        }
      }
    }
    return true;
  }

  [[nodiscard]] bool wants_write() const override { return frame_ != nullptr || !flushed(); }

 private:
  static constexpr std::size_t kServerHeader = 10;  // of a large frame without a mask
  void Arrived(std::size_t count) { totals_.bytes += totals_.counting ? count : 0; }

  std::size_t size_;
  bool reads_;
  const std::vector<unsigned char>* frame_;
  Totals& totals_;
  std::size_t sent_ = 0;  // of the frame being sent
  std::uint64_t received_ = 0;
  std::uint64_t acknowledged_ = 0;
  bool is_ack_ = false;
  std::array<char, 20> ack_{};
  std::size_t ack_size_ = 0;
};

}  // namespace

void RunBulk(const Options& options) {
  const SslCtxPtr tls = MakeTls(options.ca, Reading::kBulk);
  const bool down = options.direction != "up";
  const bool up = options.direction != "down";
  const Target target{options.port, tls.get(),
                      std::string("/socket?mode=") +
                          (down && up ? "both"
                           : down     ? "source"
                                      : "sink") +
                          "&size=" + std::to_string(options.size)};
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  const std::vector<unsigned char> frame = MaskedFrame(options.size);
  Totals totals;
  std::vector<std::unique_ptr<BulkSession>> sessions;
  for (std::size_t i = 0; i < options.connections; ++i) {
    sessions.push_back(std::make_unique<BulkSession>(target, i, options.size, down,
                                                     up ? &frame : nullptr, totals));
    sessions.back()->OpenAndWatch(epoll.get());
  }
  Instant now = std::chrono::steady_clock::now();
  Window window(options, now);
  Patience patience;
  while (!window.over()) {
    const int count = RunTurn(epoll.get(), std::chrono::seconds(1));
    now = std::chrono::steady_clock::now();
    patience.Saw(count, now);
    window.Update(now);
    totals.counting = window.counting();
  }
  std::printf("{\"messages\": %llu, \"bytes\": %llu, %s, \"errors\": 0}\n",
              static_cast<unsigned long long>(totals.messages),
              static_cast<unsigned long long>(totals.bytes), window.Json().c_str());
}

}  // namespace sluice::bench
