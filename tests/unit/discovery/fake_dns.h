// A DNS server on the loop of the test that says whatever the test wants, over UDP and TCP.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/base/unique_fd.h"
#include "proxy/net/address.h"
#include "proxy/net/event.h"
#include "proxy/net/loop.h"

#include "tests/unit/discovery/dns_message.h"

namespace sluice::discovery {

class FakeDns {
 public:
  struct Question {
    std::uint16_t id = 0;
    std::string name;
    std::uint16_t type = 0;
    bool tcp = false;
  };
  // The datagrams that are sent back; over TCP, the messages.
  using Answer = std::function<std::vector<std::string>(const Question&)>;

  FakeDns(net::Loop& loop, Answer answer) : loop_(loop), answer_(std::move(answer)) {
    // TCP first: its port is then likely free for UDP.
    for (int attempt = 0; attempt < 20 && !udp_.valid(); ++attempt) {
      tcp_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      auto address = *net::Address::FromNumeric("127.0.0.1", 0);
      if (::bind(tcp_.get(), address.raw(), address.raw_size()) != 0 ||
          ::listen(tcp_.get(), 8) != 0) {
        continue;
      }
      address = net::Address::OfSocket(tcp_.get());
      UniqueFd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      if (::bind(udp.get(), address.raw(), address.raw_size()) == 0) {
        udp_ = std::move(udp);
        address_ = address.Text();
      }
    }
    EXPECT_TRUE(udp_.valid());
    udp_event_.Add<&FakeDns::OnDatagram>(loop_.base(), udp_.get(), EV_READ | EV_PERSIST, this);
    tcp_event_.Add<&FakeDns::OnAccept>(loop_.base(), tcp_.get(), EV_READ | EV_PERSIST, this);
  }

  [[nodiscard]] const std::string& address() const { return address_; }
  [[nodiscard]] const std::vector<Question>& questions() const { return questions_; }

 private:
  static Question Parse(const std::string& bytes) {
    Question question;
    const auto at = [&](std::size_t i) {
      return i < bytes.size() ? static_cast<std::uint8_t>(bytes[i]) : std::uint8_t{0};
    };
    question.id = static_cast<std::uint16_t>(at(0) << 8U | at(1));
    std::size_t i = 12;
    while (at(i) != 0) {
      question.name += (question.name.empty() ? "" : ".") + bytes.substr(i + 1, at(i));
      i += 1U + at(i);
    }
    question.type = static_cast<std::uint16_t>(at(i + 1) << 8U | at(i + 2));
    return question;
  }

  std::vector<std::string> Ask(const std::string& bytes, bool tcp) {
    questions_.push_back(Parse(bytes));
    questions_.back().tcp = tcp;
    return answer_(questions_.back());
  }

  void OnDatagram(short) noexcept {
    std::array<char, 1024> buffer{};
    net::Address from;
    socklen_t size = net::Address::kMaxSize;
    const ssize_t got = ::recvfrom(udp_.get(), buffer.data(), buffer.size(), 0, from.raw(), &size);
    if (got <= 0) {
      return;
    }
    for (const std::string& one : Ask({buffer.data(), static_cast<std::size_t>(got)}, false)) {
      ::sendto(udp_.get(), one.data(), one.size(), 0, from.raw(), from.raw_size());
    }
  }

  void OnAccept(short) noexcept {
    peer_ = UniqueFd(::accept4(tcp_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    peer_event_.Add<&FakeDns::OnPeer>(loop_.base(), peer_.get(), EV_READ | EV_PERSIST, this);
  }

  void OnPeer(short) noexcept {
    std::array<char, 1024> buffer{};
    const ssize_t got = ::read(peer_.get(), buffer.data(), buffer.size());
    if (got <= 2) {
      peer_event_.Remove();
      peer_.Reset();
      return;
    }
    for (const std::string& one :
         Ask({buffer.data() + 2, static_cast<std::size_t>(got) - 2}, true)) {
      const std::string framed = Wire16(static_cast<std::uint16_t>(one.size())) + one;
      EXPECT_EQ(::send(peer_.get(), framed.data(), framed.size(), MSG_NOSIGNAL),
                static_cast<ssize_t>(framed.size()));
    }
  }

  net::Loop& loop_;
  Answer answer_;
  UniqueFd udp_;
  UniqueFd tcp_;
  UniqueFd peer_;
  net::Event udp_event_;
  net::Event tcp_event_;
  net::Event peer_event_;
  std::string address_;
  std::vector<Question> questions_;
};

// The beginning of an answer to `question`.
inline Message AnswerTo(const FakeDns::Question& question, std::uint16_t status = 0) {
  Message message;
  message.id = question.id;
  message.name = question.name;
  message.type = question.type;
  message.flags = static_cast<std::uint16_t>(message.flags | status);
  return message;
}

}  // namespace sluice::discovery
