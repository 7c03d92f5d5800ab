// Plain HTTP at the least cost that a backend can have: a page is one send of ready-made bytes.
#include <array>
#include <string>

#include "tests/bench/backend/connection.h"
#include "tests/bench/pattern.h"
#include "tests/bench/websocket.h"

namespace sluice::bench {
namespace {

constexpr std::size_t kMaxHead = std::size_t{32} * 1024;

bool SendAll(int fd, std::string_view bytes) {
  return ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
}

// The answer with so many bytes, made once.
const std::string& PageOf(std::size_t size, bool last) {
  struct Made {
    std::size_t size = SIZE_MAX;
    std::string bytes;
  };
  static std::array<Made, 2> pages;
  Made& page = pages[last ? 1 : 0];
  if (page.size != size) {
    page.size = size;
    page.bytes = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: " +
                 std::to_string(size) + (last ? "\r\nConnection: close\r\n\r\n" : "\r\n\r\n");
    page.bytes.append(reinterpret_cast<const char*>(Pattern(size).data()), size);
  }
  return page.bytes;
}

// Answers one request. False: the connection is over.
bool AnswerPlain(int fd, std::string_view head) {
  if (QueryValue(head, "mode") == "events") {
    // Without the last field nginx would keep the event until it has a buffer full of them.
    return SendAll(fd,
                   "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                   "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n"
                   "X-Accel-Buffering: no\r\n\r\nD\r\ndata: first\n\n\r\n");
  }
  const std::string size(QueryValue(head, "size"));
  const bool last = FieldValue(head, "connection") == "close";
  return SendAll(fd, PageOf(Number(size), last)) && !last;
}

class Plain : public Talk {
 public:
  explicit Plain(int fd) : fd_(fd) {}

  bool OnEarly(unsigned char* bytes, std::size_t size) override {
    heads_.append(reinterpret_cast<const char*>(bytes), size);
    for (;;) {
      const std::size_t end = heads_.find("\r\n\r\n");
      if (end == std::string::npos) {
        return heads_.size() < kMaxHead;
      }
      if (!AnswerPlain(fd_, std::string_view(heads_).substr(0, end + 4))) {
        return false;
      }
      heads_.erase(0, end + 4);
    }
  }

  bool OnReadable() override {
    std::array<unsigned char, 4096> buffer;
    const ssize_t got = ::recv(fd_, buffer.data(), buffer.size(), 0);
    if (got <= 0) {
      return got < 0 && errno == EAGAIN;
    }
    return OnEarly(buffer.data(), static_cast<std::size_t>(got));
  }

  bool OnWritable() override { return true; }

 private:
  int fd_;
  std::string heads_;  // what has come of requests that are not answered
};

}  // namespace

std::unique_ptr<Talk> MakePlain(int fd, std::string_view head) {
  return AnswerPlain(fd, head) ? std::make_unique<Plain>(fd) : nullptr;
}

}  // namespace sluice::bench
