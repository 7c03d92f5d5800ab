// One client of the pressure tests that sends as much, or as little at a time, as it can.
//
//   pressure_flood --connect HOST:PORT --kind KIND --count N [--path /s] [--uid 1] [--rate R]
//                  [--deaf 1]
//
//   pings      N pings, R a second (0: as many as fit); deaf: without reading what is answered
//   fragments  numbered messages of 32 bytes, in fragments of one byte; N is how many of these
//   segments   numbered messages, each byte in a segment of its own; N is how many of these
//   endless    one message in fragments of one byte, N at most
//
// Stops early when it is sent a CLOSE or the connection ends. What came to its end is closed with
// 1000. Prints one JSON object at the end; times are seconds.
#include <poll.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <string>
#include <thread>

#include "tests/deploy/address.h"
#include "tests/deploy/decimal.h"
#include "tests/deploy/event_loop.h"
#include "tests/deploy/frame_reader.h"
#include "tests/deploy/outbox.h"

namespace sluice::pressure {
namespace {

using deploy::Nanoseconds;
using deploy::Now;
using deploy::Opcode;

struct Options {
  std::uint16_t port = 0;
  std::string kind;
  std::string path = "/s";
  std::uint32_t uid = 1;
  std::uint64_t count = 0;
  double rate = 0;
  bool deaf = false;
};

constexpr bench::MaskKey kMask{0x5A, 0xC3, 0x17, 0x99};
constexpr Nanoseconds kPatience =
    5 * deploy::kSecond;  // for the other side to take or say something

class Flood {
 public:
  explicit Flood(const Options& options) : options_(options), fd_(bench::Connect(options.port)) {
    Upgrade();
    bench::SetNonBlocking(fd_.get());
  }

  void Run() {
    began_ = Now();
    if (options_.kind == "pings") {
      SendPings();
    } else if (options_.kind == "fragments") {
      SendMessages(/*in_segments=*/false);
    } else if (options_.kind == "segments") {
      SendMessages(/*in_segments=*/true);
    } else if (options_.kind == "endless") {
      SendEndless();
    } else {
      bench::Die("there is no kind '" + options_.kind + "'");
    }
    sent_for_ = Now() - began_;
    cpu_ = CpuSeconds();
    Finish();
  }

  [[nodiscard]] std::string Summary() const {
    std::array<char, 512> text{};
    std::snprintf(text.data(), text.size(),
                  "{\"sent\": %llu, \"bytes\": %llu, \"messages\": %llu, \"pongs\": %llu, "
                  "\"seconds\": %.3f, \"cpu_seconds\": %.3f, \"close_code\": %d, "
                  "\"closed_after\": %.3f, \"ended\": \"%s\"}",
                  static_cast<unsigned long long>(sent_), static_cast<unsigned long long>(bytes_),
                  static_cast<unsigned long long>(messages_),
                  static_cast<unsigned long long>(pongs_), static_cast<double>(sent_for_) / 1e9,
                  cpu_, close_code_,
                  closed_at_ == 0 ? 0 : static_cast<double>(closed_at_ - began_) / 1e9, ended_);
    return text.data();
  }

  // For the reader.
  void OnNumbered(const deploy::Numbered& /*message*/) {}
  void OnControl(Opcode opcode, const unsigned char* payload, std::size_t size) {
    if (opcode == Opcode::kPong) {
      ++pongs_;
    } else if (opcode == Opcode::kClose) {
      close_code_ = deploy::CloseCode(payload, size);
      closed_at_ = Now();
    }
  }

 private:
  [[nodiscard]] bool is_over() const { return close_code_ != kNone || *ended_ != '\0'; }

  void Upgrade() {
    const std::string request =
        "GET " + options_.path + "?uid=" + std::to_string(options_.uid) +
        "&n=1 HTTP/1.1\r\nHost: pressure.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    if (::send(fd_.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) {
      bench::DieErrno("send");
    }
    std::string answer;
    char byte = 0;
    while (!answer.ends_with("\r\n\r\n")) {
      if (::recv(fd_.get(), &byte, 1, 0) != 1) {
        bench::Die("no answer to the upgrade");
      }
      answer += byte;
    }
    if (!answer.starts_with("HTTP/1.1 101 ")) {
      bench::Die("not upgraded: " + answer.substr(0, answer.find("\r\n")));
    }
  }

  void SendPings() {
    constexpr std::array<unsigned char, 8> kPayload{'p', 'r', 'e', 's', 's', 'u', 'r', 'e'};
    const deploy::Frame frame =
        deploy::ControlFrame(Opcode::kPing, kPayload.data(), kPayload.size(), &kMask);
    const std::string one(reinterpret_cast<const char*>(frame.bytes), frame.size);
    std::string many;
    constexpr std::uint64_t kAtOnce = 100;
    for (std::uint64_t i = 0; i < kAtOnce; ++i) {
      many += one;
    }
    while (sent_ < options_.count && !is_over()) {
      if (options_.rate > 0) {
        const Nanoseconds due =
            began_ + static_cast<Nanoseconds>(static_cast<double>(sent_) * 1e9 / options_.rate);
        std::this_thread::sleep_for(
            std::chrono::nanoseconds(std::max<Nanoseconds>(due - Now(), 0)));
      }
      const std::uint64_t count = std::min(kAtOnce, options_.count - sent_);
      if (!Send(many.data(), count * one.size())) {
        return;
      }
      sent_ += count;
      Read();
    }
  }

  void SendMessages(bool in_segments) {
    std::uint64_t number = 0;
    while (sent_ < options_.count && !is_over()) {
      const deploy::Numbered message{.from = deploy::Numbered::kFromClient,
                                     .uid = options_.uid,
                                     .incarnation = 1,
                                     .number = ++number,
                                     .sent_at = Now()};
      std::string frames;
      if (in_segments) {
        const deploy::Frame frame = deploy::NumberedFrame(message, deploy::kNumberedSize, &kMask);
        frames.assign(reinterpret_cast<const char*>(frame.bytes), frame.size);
      } else {
        std::array<unsigned char, deploy::kNumberedSize> payload{};
        deploy::WritePayload(payload.data(), message, payload.size());
        for (std::size_t i = 0; i < payload.size(); ++i) {
          AppendFragment(frames, payload[i], i == 0, i + 1 == payload.size());
        }
      }
      if (in_segments) {
        for (const char& byte : frames) {
          if (!Send(&byte, 1)) {
            return;
          }
        }
        sent_ += frames.size();
      } else {
        if (!Send(frames.data(), frames.size())) {
          return;
        }
        sent_ += deploy::kNumberedSize;
      }
      ++messages_;
      Read();
    }
  }

  void SendEndless() {
    static std::array<unsigned char, deploy::kMaxMessage> payload;
    deploy::WritePayload(payload.data(),
                         {.from = deploy::Numbered::kFromClient,
                          .uid = options_.uid,
                          .incarnation = 1,
                          .number = 1,
                          .sent_at = Now()},
                         payload.size());
    while (sent_ < options_.count && !is_over()) {
      std::string frame;
      AppendFragment(frame, payload[sent_ % payload.size()], sent_ == 0, /*fin=*/false);
      if (!Send(frame.data(), frame.size())) {
        return;
      }
      ++sent_;
      Read();
    }
  }

  static void AppendFragment(std::string& to, unsigned char byte, bool first, bool fin) {
    std::array<unsigned char, bench::kMaxHeader> header{};
    const Opcode opcode = first ? Opcode::kBinary : Opcode::kContinuation;
    const std::size_t size = bench::WriteHeader(
        header.data(), (fin ? 0x80U : 0U) | static_cast<unsigned char>(opcode), 1, &kMask);
    to.append(reinterpret_cast<const char*>(header.data()), size);
    to += static_cast<char>(byte ^ kMask[0]);
  }

  // All of it. False: the connection has ended, or was closed meanwhile.
  bool Send(const char* bytes, std::size_t size) {
    while (size > 0) {
      const ssize_t sent = ::send(fd_.get(), bytes, size, MSG_NOSIGNAL);
      if (sent > 0) {
        bytes += sent;
        bytes_ += static_cast<std::uint64_t>(sent);
        size -= static_cast<std::size_t>(sent);
        continue;
      }
      if (errno != EAGAIN) {
        ReadToEnd();
        return false;
      }
      if (!Wait(POLLOUT)) {
        ended_ = "stuck";
        return false;
      }
      Read();
      if (is_over()) {
        return false;
      }
    }
    return true;
  }

  // True when there is something to do; false after a time in which there was nothing.
  bool Wait(short more) {
    pollfd one{.fd = fd_.get(),
               .events = static_cast<short>(more | (options_.deaf && more != 0 ? 0 : POLLIN)),
               .revents = 0};
    return ::poll(&one, 1, static_cast<int>(kPatience / deploy::kMillisecond)) > 0;
  }

  void Read() {
    if (!options_.deaf) {
      ReadNow();
    }
  }

  // What there is. Ends the connection when it is broken.
  void ReadNow() {
    static std::array<unsigned char, std::size_t{64} * 1024> buffer;
    for (;;) {
      const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
      if (got < 0 && errno == EAGAIN) {
        return;
      }
      if (got <= 0) {
        ended_ = got == 0 ? "fin" : "reset";
        return;
      }
      if (const char* broken = reader_.Take(buffer.data(), static_cast<std::size_t>(got), *this)) {
        ended_ = broken;
        return;
      }
    }
  }

  void ReadToEnd() {
    for (ReadNow(); *ended_ == '\0'; ReadNow()) {
      if (!Wait(0)) {
        ended_ = "no end of stream";
      }
    }
  }

  // The closing handshake, whoever begins it.
  void Finish() {
    if (*ended_ != '\0') {
      return;
    }
    options_.deaf = false;
    ReadNow();
    const int code = close_code_ == kNone ? 1000 : close_code_;
    const deploy::CloseFramePayload payload(code);
    const deploy::Frame frame =
        deploy::ControlFrame(Opcode::kClose, payload.data(), payload.size(), &kMask);
    const std::string close(reinterpret_cast<const char*>(frame.bytes), frame.size);
    if (*ended_ == '\0') {
      ::send(fd_.get(), close.data(), close.size(), MSG_NOSIGNAL);
    }
    ReadToEnd();
  }

  static double CpuSeconds() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
  }

  static constexpr int kNone = 1006;

  Options options_;
  UniqueFd fd_;
  deploy::FrameReader reader_{deploy::FrameReader::Masking::kForbidden};
  Nanoseconds began_ = 0;
  Nanoseconds sent_for_ = 0;
  Nanoseconds closed_at_ = 0;
  double cpu_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t bytes_ = 0;
  std::uint64_t messages_ = 0;
  std::uint64_t pongs_ = 0;
  int close_code_ = kNone;
  const char* ended_ = "";
};

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) {
      bench::Die(name + " lacks its value");
    }
    const std::string value = argv[i + 1];
    if (name == "--connect") {
      options.port = ntohs(deploy::AddressOf(value).sin_port);
    } else if (name == "--kind") {
      options.kind = value;
    } else if (name == "--path") {
      options.path = value;
    } else if (name == "--uid") {
      options.uid = static_cast<std::uint32_t>(bench::Number(value));
    } else if (name == "--count") {
      options.count = bench::Number(value);
    } else if (name == "--rate") {
      options.rate = deploy::Decimal(value);
    } else if (name == "--deaf") {
      options.deaf = bench::Number(value) != 0;
    } else {
      bench::Die("there is no option " + name);
    }
  }
  if (options.port == 0 || options.count == 0) {
    bench::Die("--connect or --count is missing");
  }
  return options;
}

}  // namespace
}  // namespace sluice::pressure

int main(int argc, char** argv) {
  sluice::pressure::Flood flood(sluice::pressure::ParseOptions(argc, argv));
  flood.Run();
  std::puts(flood.Summary().c_str());
}
