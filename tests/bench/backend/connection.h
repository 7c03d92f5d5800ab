// One connection of the benchmark's backend: reads the head of the upgrade and answers it; what
// follows is talked by what the upgrade asked for.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "tests/bench/socket.h"

namespace sluice::bench {

// What a connection does after its 101. False from any of them: the connection is over.
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

// `connection` is the data of the events of `fd`; all outlive the talk.
std::unique_ptr<Talk> MakeEcho(int epoll, int fd, Connection* connection);
// Streams messages of `size` bytes, or swallows and acknowledges them, or both.
std::unique_ptr<Talk> MakeStream(int epoll, int fd, Connection* connection, std::size_t size,
                                 bool source, bool sink);

}  // namespace sluice::bench
