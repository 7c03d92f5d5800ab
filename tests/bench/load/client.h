// One client up to its 101: TCP, TLS, upgrade; or without the last. Never blocks unless asked to.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "tests/bench/load/tls.h"
#include "tests/bench/socket.h"

namespace sluice::bench {

using Instant = std::chrono::steady_clock::time_point;
using std::chrono::nanoseconds;

// How long a peer that owes something may be silent.
inline constexpr int kPatienceSeconds = 10;

struct Target {
  std::uint16_t port = 0;
  SSL_CTX* tls = nullptr;  // null: plain
  std::string path = "/socket?room=lobby";
  bool upgrade = true;  // false: it is open once a request can be sent
};

class Client {
 public:
  enum class Progress { kWantsRead, kWantsWrite, kOpen };

  // Begins to connect. `number` names the client in messages; `resume`, which is used up, is a
  // ticket to offer, and the server has to take it.
  Client(const Target& target, std::uint64_t number, SslSessionPtr resume = nullptr);
  virtual ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::uint64_t number() const { return number_; }

  // Does what can be done towards the 101 without waiting. Anything but a right 101 ends the
  // program with one sentence.
  Progress Advance();
  // Waits until it is open.
  void Open();

  // Handles what epoll tells, of whose events it is the data as a Client*.
  virtual void OnEvent(std::uint32_t events) = 0;

 protected:
  static constexpr ssize_t kNothing = -1;
  static constexpr ssize_t kEnded = 0;

  // Reads or writes once; the number of bytes, kNothing when the socket has none or no room, or
  // kEnded when the connection is over, with its reason in end().
  ssize_t Read(unsigned char* into, std::size_t size);
  ssize_t Write(const unsigned char* from, std::size_t size);
  // Of a plain connection: takes up to `size` bytes out of the socket without copying them.
  ssize_t Discard(std::size_t size);

  [[nodiscard]] const std::string& path() const { return path_; }
  // Whether TLS holds more that has been read from the socket already.
  [[nodiscard]] bool HasBuffered() const { return ssl_ && SSL_has_pending(ssl_.get()) == 1; }
  [[nodiscard]] bool is_tls() const { return ssl_ != nullptr; }
  [[nodiscard]] std::string_view end() const { return end_; }
  // What followed the 101 in the same read.
  [[nodiscard]] std::string TakeEarly() { return std::move(answer_); }

  [[noreturn]] void DieHere(const std::string& what) const;

 private:
  enum class Stage { kConnect, kTls, kRequest, kAnswer, kOpen };

  void StartTls();
  Progress AdvanceTls();
  void MakeRequest();
  // True when the 101 is whole and right.
  bool TakeAnswer(std::string_view bytes);
  ssize_t TlsOutcome(int result, std::size_t count);
  ssize_t SocketOutcome(ssize_t result);

  std::uint64_t number_;
  SSL_CTX* tls_;
  bool upgrade_;
  SslSessionPtr resume_;
  bool must_resume_;
  Stage stage_ = Stage::kConnect;
  UniqueFd fd_;
  SslPtr ssl_;
  std::string path_;
  std::string request_;
  std::string key_;
  std::string answer_;
  std::string end_;
};

}  // namespace sluice::bench
