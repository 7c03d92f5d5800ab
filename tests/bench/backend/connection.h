// One connection of the benchmark's backend: reads the head of the first request and answers
// it; what follows is talked by what that asked for.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "tests/bench/socket.h"

namespace sluice::bench {

// What a connection does after its first answer. False from any of them: the connection is over.
class Talk {
 public:
  Talk() = default;
  virtual ~Talk() = default;
  Talk(const Talk&) = delete;
  Talk& operator=(const Talk&) = delete;

  // Bytes that followed the head in the same read, which may be changed in place; `bytes` has room
  // for kMaxHeader bytes in front.
  virtual bool OnEarly(unsigned char* bytes, std::size_t size) = 0;
  virtual bool OnReadable() = 0;
  virtual bool OnWritable() = 0;
};

class Connection {
 public:
  // Registers itself with `epoll`, which owns it from then on: whoever gets false from OnEvent
  // deletes it.
  Connection(int epoll, UniqueFd fd);

  bool OnEvent(std::uint32_t events);

 private:
  bool ReadHead();
  bool Answer(std::string_view head);

  int epoll_;
  UniqueFd fd_;
  std::string head_;
  std::unique_ptr<Talk> talk_;
};

// The value of `name` in the query of a request head, or empty.
std::string_view QueryValue(std::string_view head, std::string_view name);

// Answers plain requests over one connection, each as its query wants; `head` is that of the first.
// Null: it has been answered, and was to be the last.
std::unique_ptr<Talk> MakePlain(int fd, std::string_view head);
// `connection` is the data of the events of `fd`; all outlive the talk.
std::unique_ptr<Talk> MakeEcho(int epoll, int fd, Connection* connection);
// Streams messages of `size` bytes, or swallows and acknowledges them, or both.
std::unique_ptr<Talk> MakeStream(int epoll, int fd, Connection* connection, std::size_t size,
                                 bool source, bool sink);

}  // namespace sluice::bench
