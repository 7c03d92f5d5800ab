// The load of the benchmark: WebSocket clients in one thread over epoll. It believes nothing: the
// 101 is checked, every echoed byte is compared, and the first thing that is not as it must be ends
// the run with one sentence and status 1.
//
//   bench_load echo --port N [--connections 200] [--size 64] [--depth 1] [--seconds 5]
//                   [--warmup 1] [--tls CA.pem] [--cpu-of PID]...
//       Closed loop: every connection keeps `depth` messages under way. Counted is what happens
//       between the end of the warm-up and `seconds` later; --cpu-of adds the CPU time that those
//       processes used in just that time.
//   bench_load idle --port N [--connections 4000] [--tls CA.pem]
//       Opens the sessions, prints "ready" as one line, holds them until its standard input ends.
//
// Either way the last line is one JSON object.
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>

#include "tests/bench/socket.h"
#include "tests/bench/websocket.h"

namespace sluice::bench {
namespace {

using Instant = std::chrono::steady_clock::time_point;
using std::chrono::nanoseconds;

// What the certificate that run.py makes is for.
constexpr const char* kHost = "bench.test";
constexpr std::size_t kInput = 256 * 1024;
constexpr int kPatience = 10;  // seconds without anything from a peer that owes something

struct Options {
  std::string mode;
  std::uint16_t port = 0;
  std::size_t connections = 0;
  std::size_t size = 64;
  std::size_t depth = 1;
  double seconds = 5;
  double warmup = 1;
  std::string ca;  // empty: plain
  std::vector<std::string> cpu_of;
};

template <auto Free>
struct FreeWith {
  template <class T>
  void operator()(T* handle) const noexcept {
    Free(handle);
  }
};
using SslPtr = std::unique_ptr<SSL, FreeWith<SSL_free>>;
using SslCtxPtr = std::unique_ptr<SSL_CTX, FreeWith<SSL_CTX_free>>;

[[noreturn]] void DieSsl(const std::string& what) {
  std::array<char, 256> text{};
  ERR_error_string_n(ERR_get_error(), text.data(), text.size());
  Die(what + ": " + text.data());
}

// Durations in buckets whose width is at most 1/64 of their value.
class Histogram {
 public:
  void Add(nanoseconds duration) {
    const auto value = static_cast<std::uint64_t>(std::max<std::int64_t>(duration.count(), 0));
    ++counts_[Slot(value)];
    ++total_;
  }

  // Upper border, in microseconds, of the bucket that holds the share `q` of all; 0 when empty.
  [[nodiscard]] double Quantile(double q) const {
    const auto wanted = static_cast<std::uint64_t>(q * static_cast<double>(total_));
    std::uint64_t seen = 0;
    for (std::size_t slot = 0; slot < counts_.size(); ++slot) {
      seen += counts_[slot];
      if (seen > wanted) {
        return static_cast<double>(Border(slot)) / 1000.0;
      }
    }
    return 0;
  }

 private:
  static constexpr unsigned kBits = 6;
  static constexpr std::uint64_t kParts = 1U << kBits;

  static std::size_t Slot(std::uint64_t value) {
    if (value < kParts) {
      return value;
    }
    const unsigned shift = static_cast<unsigned>(std::bit_width(value)) - kBits - 1;
    return (shift + 1) * kParts + ((value >> shift) - kParts);
  }
  static std::uint64_t Border(std::size_t slot) {
    if (slot < kParts) {
      return slot;
    }
    const std::size_t shift = slot / kParts - 1;
    return (kParts + slot % kParts + 1) << shift;
  }

  std::vector<std::uint64_t> counts_ = std::vector<std::uint64_t>(64 * kParts);
  std::uint64_t total_ = 0;
};

// What processes have used so far, all threads of theirs together.
struct CpuTime {
  double total = 0;  // seconds; from the scheduler, in nanoseconds
  double user = 0;   // seconds; in clock ticks
  double system = 0;
};

CpuTime CpuOf(const std::vector<std::string>& pids) {
  CpuTime sum;
  const double tick = static_cast<double>(::sysconf(_SC_CLK_TCK));
  for (const std::string& pid : pids) {
    std::error_code error;
    for (const auto& task : std::filesystem::directory_iterator("/proc/" + pid + "/task", error)) {
      double ran = 0;
      std::ifstream(task.path() / "schedstat") >> ran;
      sum.total += ran / 1e9;
    }
    std::ifstream file("/proc/" + pid + "/stat");
    std::string line;
    if (error || !std::getline(file, line)) {
      Die("process " + pid + " is not there any more");
    }
    // The name, field 2, is in brackets and may hold anything; utime and stime are 14 and 15.
    char* at = line.data() + line.rfind(')') + 2;
    for (int field = 3; field < 14; ++field) {
      at = std::strchr(at, ' ') + 1;
    }
    sum.user += std::strtod(at, &at) / tick;
    sum.system += std::strtod(at, &at) / tick;
  }
  return sum;
}

// One client. Payloads begin with the connection's number and the message's, so that no message can
// pass for another one.
class Client {
 public:
  Client(std::uint16_t port, SSL_CTX* tls, std::uint64_t number) : number_(number) {
    fd_ = Connect(port);
    const timeval patience{kPatience, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (tls != nullptr) {
      ssl_.reset(SSL_new(tls));
      SSL_set_fd(ssl_.get(), fd_.get());
      // What the macro SSL_set_tlsext_host_name does, without its C cast.
      SSL_ctrl(ssl_.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
               const_cast<char*>(kHost));
      SSL_set1_host(ssl_.get(), kHost);
      ERR_clear_error();
      if (SSL_connect(ssl_.get()) != 1) {
        DieSsl("TLS handshake");
      }
    }
    Upgrade();
    SetNonBlocking(fd_.get());
  }

  [[nodiscard]] int fd() const { return fd_.get(); }

  // Reads once; -1: nothing there. An end of stream or an error ends the program.
  ssize_t Read(unsigned char* into, std::size_t size) {
    if (ssl_) {
      ERR_clear_error();
      std::size_t got = 0;
      const int result = SSL_read_ex(ssl_.get(), into, size, &got);
      if (result == 1) {
        return static_cast<ssize_t>(got);
      }
      if (SSL_get_error(ssl_.get(), result) == SSL_ERROR_WANT_READ) {
        return -1;
      }
      DieSsl("connection " + std::to_string(number_) + " ended while reading");
    }
    const ssize_t got = ::recv(fd_.get(), into, size, 0);
    if (got > 0 || (got < 0 && errno == EAGAIN)) {
      return got;
    }
    if (got == 0) {
      Die("connection " + std::to_string(number_) + " was closed by the other side");
    }
    DieErrno("connection " + std::to_string(number_));
  }

  // Whether TLS holds more that has been read from the socket already.
  [[nodiscard]] bool HasBuffered() const { return ssl_ && SSL_has_pending(ssl_.get()) == 1; }

 protected:
  // Writes once; 0: no room now.
  std::size_t Write(const unsigned char* from, std::size_t size) {
    if (ssl_) {
      ERR_clear_error();
      std::size_t sent = 0;
      const int result = SSL_write_ex(ssl_.get(), from, size, &sent);
      if (result == 1) {
        return sent;
      }
      if (SSL_get_error(ssl_.get(), result) == SSL_ERROR_WANT_WRITE) {
        return 0;
      }
      DieSsl("connection " + std::to_string(number_) + " ended while writing");
    }
    const ssize_t sent = ::send(fd_.get(), from, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
      DieErrno("connection " + std::to_string(number_));
    }
    return sent < 0 ? 0 : static_cast<std::size_t>(sent);
  }

  [[nodiscard]] std::uint64_t number() const { return number_; }

 private:
  // The head of a browser's upgrade, so that parsing it costs what it costs in life.
  void Upgrade() {
    std::array<unsigned char, 16> raw{};
    RAND_bytes(raw.data(), static_cast<int>(raw.size()));
    std::array<unsigned char, 25> key{};
    EVP_EncodeBlock(key.data(), raw.data(), static_cast<int>(raw.size()));
    const std::string key_text = reinterpret_cast<const char*>(key.data());
    const std::string scheme = ssl_ ? "https://" : "http://";
    const std::string head =
        "GET /socket?room=lobby HTTP/1.1\r\nHost: " + std::string(kHost) +
        "\r\nConnection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/131.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\nOrigin: " +
        scheme + kHost +
        "\r\nSec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
        "Accept-Language: en-GB,en;q=0.9\r\nCookie: sid=4c1f9a7be2d05a3388b1c6d7e0f92a41\r\n"
        "Sec-WebSocket-Key: " +
        key_text + "\r\n\r\n";
    if (Write(reinterpret_cast<const unsigned char*>(head.data()), head.size()) != head.size()) {
      Die("the upgrade request was not taken");
    }
    std::string answer;
    while (answer.find("\r\n\r\n") == std::string::npos) {
      std::array<unsigned char, 4096> bytes{};
      const ssize_t got = Read(bytes.data(), bytes.size());
      if (got < 0) {
        Die("no answer to the upgrade in " + std::to_string(kPatience) + " s");
      }
      answer.append(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(got));
    }
    if (!answer.starts_with("HTTP/1.1 101 ")) {
      Die("the upgrade was answered '" + answer.substr(0, answer.find("\r\n")) + "'");
    }
    if (FieldValue(answer, "sec-websocket-accept") != AcceptKey(key_text)) {
      Die("the upgrade was answered with the wrong Sec-WebSocket-Accept");
    }
    if (!answer.ends_with("\r\n\r\n")) {
      Die("bytes that nobody asked for follow the 101");
    }
  }

  std::uint64_t number_;
  UniqueFd fd_;
  SslPtr ssl_;
};

// Payload bytes behind the two numbers; the same for all messages.
const std::vector<unsigned char>& Pattern(std::size_t size) {
  static std::vector<unsigned char> pattern;
  if (pattern.size() < size) {
    pattern.resize(size);
    RAND_bytes(pattern.data(), static_cast<int>(size));
  }
  return pattern;
}

struct Tally {
  std::uint64_t messages = 0;
  Histogram latency;
  bool counting = false;
};

class EchoClient : public Client {
 public:
  EchoClient(std::uint16_t port, SSL_CTX* tls, std::uint64_t number, const Options& options,
             Tally& tally)
      : Client(port, tls, number), tally_(tally), size_(options.size), sent_at_(options.depth) {
    RAND_bytes(key_.data(), static_cast<int>(key_.size()));
    std::array<unsigned char, kMaxHeader> header{};
    header_size_ = WriteHeader(header.data(), 0x82, size_, &key_);
    frame_.assign(header.begin(), header.begin() + static_cast<std::ptrdiff_t>(header_size_));
    frame_.resize(header_size_ + size_);
    Mask(frame_.data() + header_size_, Pattern(size_).data(), size_, key_, 0);
  }

  // Sends `count` new messages, together.
  void SendMessages(std::size_t count, Instant now) {
    if (count == 0) {
      return;
    }
    const bool idle = out_.empty();
    for (; count > 0; --count) {
      const std::array<std::uint64_t, 2> id{number(), sent_};
      const std::size_t part = std::min(sizeof(id), size_);
      Mask(frame_.data() + header_size_, reinterpret_cast<const unsigned char*>(id.data()), part,
           key_, 0);
      sent_at_[sent_ % sent_at_.size()] = now;
      ++sent_;
      out_.insert(out_.end(), frame_.begin(), frame_.end());
    }
    if (idle) {
      Flush();
    }
  }

  // True when everything is written.
  bool Flush() {
    while (out_begin_ < out_.size()) {
      const std::size_t sent = Write(out_.data() + out_begin_, out_.size() - out_begin_);
      if (sent == 0) {
        return false;
      }
      out_begin_ += sent;
    }
    out_.clear();
    out_begin_ = 0;
    return true;
  }

  [[nodiscard]] bool flushed() const { return out_.empty(); }
  [[nodiscard]] bool all_answered() const { return answered_ == sent_; }

  // Checks what came; returns how many messages it completed.
  std::size_t Take(const unsigned char* bytes, std::size_t count, Instant now) {
    std::size_t done = 0;
    while (count > 0) {
      if (!in_payload_) {
        const std::size_t want = std::min(count, carry_.size() - carry_size_);
        std::memcpy(carry_.data() + carry_size_, bytes, want);
        const FrameHeader header = ReadHeader(carry_.data(), carry_size_ + want);
        if (header.size == 0) {
          carry_size_ += want;
          return done;
        }
        if (header.first != 0x82 || header.masked || header.payload != size_ || all_answered()) {
          Die("connection " + std::to_string(number()) + " was sent a frame that is no echo");
        }
        bytes += header.size - carry_size_;
        count -= header.size - carry_size_;
        carry_size_ = 0;
        offset_ = 0;
        in_payload_ = true;
      }
      const std::size_t part = std::min(count, size_ - offset_);
      Check(bytes, part);
      bytes += part;
      count -= part;
      offset_ += part;
      if (offset_ == size_) {
        in_payload_ = false;
        if (tally_.counting) {
          ++tally_.messages;
          tally_.latency.Add(now - sent_at_[answered_ % sent_at_.size()]);
        }
        ++answered_;
        ++done;
      }
    }
    return done;
  }

 private:
  void Check(const unsigned char* bytes, std::size_t count) const {
    const std::array<std::uint64_t, 2> id{number(), answered_};
    std::size_t at = offset_;
    if (at < sizeof(id)) {
      const std::size_t part = std::min(count, sizeof(id) - at);
      CheckSame(bytes, reinterpret_cast<const unsigned char*>(id.data()) + at, part);
      bytes += part;
      count -= part;
      at += part;
    }
    CheckSame(bytes, Pattern(size_).data() + at, count);
  }

  void CheckSame(const unsigned char* got, const unsigned char* want, std::size_t count) const {
    if (std::memcmp(got, want, count) != 0) {
      Die("connection " + std::to_string(number()) + ": message " + std::to_string(answered_) +
          " came back changed");
    }
  }

  Tally& tally_;
  std::size_t size_;
  MaskKey key_{};
  std::vector<unsigned char> frame_;
  std::size_t header_size_ = 0;
  std::vector<unsigned char> out_;
  std::size_t out_begin_ = 0;
  std::vector<Instant> sent_at_;  // a ring: at most `depth` messages are under way
  std::uint64_t sent_ = 0;
  std::uint64_t answered_ = 0;
  std::array<unsigned char, kMaxHeader> carry_{};
  std::size_t carry_size_ = 0;
  std::size_t offset_ = 0;  // payload bytes of the message being read
  bool in_payload_ = false;
};

SslCtxPtr MakeTls(const Options& options) {
  if (options.ca.empty()) {
    return nullptr;
  }
  SslCtxPtr context(SSL_CTX_new(TLS_client_method()));
  if (SSL_CTX_load_verify_file(context.get(), options.ca.c_str()) != 1) {
    DieSsl("cannot use " + options.ca);
  }
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
  // One recv for each record instead of two. Costs a buffer, which thousands of idle sessions do
  // not need.
  SSL_CTX_set_read_ahead(context.get(), options.mode == "echo" ? 1 : 0);
  return context;
}

void RunEcho(const Options& options) {
  const SslCtxPtr tls = MakeTls(options);
  Tally tally;
  std::vector<std::unique_ptr<EchoClient>> clients;
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  for (std::size_t i = 0; i < options.connections; ++i) {
    clients.push_back(std::make_unique<EchoClient>(options.port, tls.get(), i, options, tally));
    Watch(epoll.get(), EPOLL_CTL_ADD, clients.back()->fd(), EPOLLIN, clients.back().get());
  }

  const auto seconds = [](double count) {
    return std::chrono::duration_cast<nanoseconds>(std::chrono::duration<double>(count));
  };
  enum class Phase { kWarmUp, kCount, kEnd };
  Phase phase = Phase::kWarmUp;
  Instant now = std::chrono::steady_clock::now();
  Instant phase_end = now + seconds(options.warmup);
  Instant began{};
  CpuTime cpu_before;
  CpuTime cpu_after;
  double lasted = 0;
  std::size_t waiting = clients.size();  // in the end phase: who has not been answered
  for (const auto& client : clients) {
    client->SendMessages(options.depth, now);
  }
  static std::array<unsigned char, kInput> buffer;
  std::array<epoll_event, 512> events{};
  while (phase != Phase::kEnd || waiting > 0) {
    const int count =
        ::epoll_wait(epoll.get(), events.data(), static_cast<int>(events.size()), kPatience * 1000);
    if (count == 0) {
      Die("nothing came back for " + std::to_string(kPatience) + " s");
    }
    now = std::chrono::steady_clock::now();
    if (now >= phase_end && phase == Phase::kWarmUp) {
      phase = Phase::kCount;
      cpu_before = CpuOf(options.cpu_of);
      tally.counting = true;
      began = now = std::chrono::steady_clock::now();
      phase_end = began + seconds(options.seconds);
    } else if (now >= phase_end && phase == Phase::kCount) {
      phase = Phase::kEnd;
      tally.counting = false;
      lasted = std::chrono::duration<double>(now - began).count();
      cpu_after = CpuOf(options.cpu_of);
      waiting = static_cast<std::size_t>(
          std::count_if(clients.begin(), clients.end(),
                        [](const auto& client) { return !client->all_answered(); }));
    }
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      auto& client = *static_cast<EchoClient*>(event.data.ptr);
      const bool was_flushed = client.flushed();
      if ((event.events & EPOLLOUT) != 0) {
        client.Flush();
      }
      if ((event.events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) {
        do {
          const ssize_t got = client.Read(buffer.data(), buffer.size());
          if (got < 0) {
            break;
          }
          now = std::chrono::steady_clock::now();
          const std::size_t done = client.Take(buffer.data(), static_cast<std::size_t>(got), now);
          if (phase != Phase::kEnd) {
            client.SendMessages(done, now);
          } else if (done > 0 && client.all_answered()) {
            --waiting;
          }
        } while (client.HasBuffered());
      }
      if (client.flushed() != was_flushed) {
        Watch(epoll.get(), EPOLL_CTL_MOD, client.fd(),
              client.flushed() ? EPOLLIN : EPOLLIN | EPOLLOUT, &client);
      }
    }
  }
  std::printf(
      "{\"messages\": %llu, \"seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
      "\"p999_us\": %.1f, \"cpu_seconds\": %.6f, \"user_seconds\": %.2f, "
      "\"system_seconds\": %.2f, \"errors\": 0}\n",
      static_cast<unsigned long long>(tally.messages), lasted, tally.latency.Quantile(0.5),
      tally.latency.Quantile(0.99), tally.latency.Quantile(0.999),
      cpu_after.total - cpu_before.total, cpu_after.user - cpu_before.user,
      cpu_after.system - cpu_before.system);
}

void RunIdle(const Options& options) {
  const SslCtxPtr tls = MakeTls(options);
  std::vector<std::unique_ptr<Client>> clients;
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  for (std::size_t i = 0; i < options.connections; ++i) {
    clients.push_back(std::make_unique<Client>(options.port, tls.get(), i));
    Watch(epoll.get(), EPOLL_CTL_ADD, clients.back()->fd(), EPOLLIN, clients.back().get());
  }
  Watch(epoll.get(), EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, nullptr);
  std::puts("ready");
  std::fflush(stdout);
  for (;;) {
    epoll_event event{};
    if (::epoll_wait(epoll.get(), &event, 1, -1) != 1) {
      continue;
    }
    std::array<unsigned char, 4096> bytes{};
    if (event.data.ptr == nullptr) {
      if (::read(STDIN_FILENO, bytes.data(), bytes.size()) <= 0) {
        break;
      }
      continue;
    }
    // A TLS ticket is no message; anything that is one has no place here.
    if (static_cast<Client*>(event.data.ptr)->Read(bytes.data(), bytes.size()) > 0) {
      Die("an idle session was sent something");
    }
  }
  std::printf("{\"sessions\": %zu, \"errors\": 0}\n", clients.size());
}

Options Parse(int argc, char** argv) {
  if (argc < 2) {
    Die("usage: bench_load echo|idle --port N [OPTION VALUE]...");
  }
  Options options;
  options.mode = argv[1];
  options.connections = options.mode == "idle" ? 4000 : 200;
  for (int i = 2; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) {
      Die(name + " lacks its value");
    }
    const std::string value = argv[i + 1];
    if (name == "--port") {
      options.port = PortNumber(value);
    } else if (name == "--connections") {
      options.connections = Number(value);
    } else if (name == "--size") {
      options.size = Number(value);
    } else if (name == "--depth") {
      options.depth = Number(value);
    } else if (name == "--seconds") {
      options.seconds = std::strtod(value.c_str(), nullptr);
    } else if (name == "--warmup") {
      options.warmup = std::strtod(value.c_str(), nullptr);
    } else if (name == "--tls") {
      options.ca = value;
    } else if (name == "--cpu-of") {
      options.cpu_of.push_back(value);
    } else {
      Die("there is no option " + name);
    }
  }
  if (options.port == 0 || options.connections == 0 || options.depth == 0 || options.size == 0 ||
      options.seconds <= 0) {
    Die("--port is required; counts, sizes and durations are more than 0");
  }
  return options;
}

}  // namespace
}  // namespace sluice::bench

int main(int argc, char** argv) {
  using namespace sluice::bench;
  const Options options = Parse(argc, argv);
  RaiseFdLimit();
  if (options.mode == "echo") {
    RunEcho(options);
  } else if (options.mode == "idle") {
    RunIdle(options);
  } else {
    Die("there is no mode '" + options.mode + "'");
  }
}
