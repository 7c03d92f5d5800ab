#include "tests/bench/load/plain_client.h"

#include <array>
#include <chrono>

namespace sluice::bench {

void PlainClient::OpenAndWatch(int epoll) {
  Open();
  Watch(epoll, EPOLL_CTL_ADD, fd(), EPOLLIN, static_cast<Client*>(this));
}

// The head of a browser's request, so that parsing it costs what it costs in life.
void PlainClient::Ask(std::string_view fields) {
  if (request_.empty()) {
    request_ =
        "GET " + path() + " HTTP/1.1\r\nHost: " + kHost +
        "\r\nConnection: keep-alive\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/131.0.0.0 Safari/537.36\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
        "Accept-Language: en-GB,en;q=0.9\r\nCookie: sid=4c1f9a7be2d05a3388b1c6d7e0f92a41\r\n";
    request_ += fields;
    request_ += "\r\n";
  }
  // Some 400 bytes behind an answer that has been read always fit.
  if (Write(reinterpret_cast<const unsigned char*>(request_.data()), request_.size()) !=
      static_cast<ssize_t>(request_.size())) {
    DieHere("a request was not taken");
  }
}

void PlainClient::OnEvent(std::uint32_t /*events*/) {
  static std::array<unsigned char, std::size_t{64} * 1024> buffer;
  do {
    const ssize_t got = Read(buffer.data(), buffer.size());
    if (got == kNothing) {
      return;
    }
    if (got == kEnded) {
      DieHere("was closed by the other side: " + std::string(end()));
    }
    answer_.append(reinterpret_cast<const char*>(buffer.data()), static_cast<std::size_t>(got));
    OnBytes(answer_);
  } while (HasBuffered());
}

}  // namespace sluice::bench
