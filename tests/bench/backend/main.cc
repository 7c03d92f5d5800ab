// The backend of the benchmark: WebSocket and plain HTTP in one thread over epoll. What a
// connection does is in the query of its first request. After an upgrade:
//
//   (nothing)                       answers every message with itself
//   ?mode=source|sink|both&size=N   streams messages of N bytes, swallows and acknowledges them,
//   both
//
// Without one, each request over the connection by its own query:
//
//   ?mode=page&size=N               answers with N bytes
//   ?mode=events                    begins a stream of events, and is silent after the first one
//
//   bench_echo_backend      prints its port, serves until it is killed
#include <array>

#include "tests/bench/backend/connection.h"
#include "tests/bench/socket.h"

namespace sluice::bench {
namespace {

[[noreturn]] void Serve() {
  RaiseFdLimit();
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  const UniqueFd listener = ListenAndTell();
  Watch(epoll.get(), EPOLL_CTL_ADD, listener.get(), EPOLLIN, nullptr);
  std::array<epoll_event, 512> events{};
  for (;;) {
    const int count = ::epoll_wait(epoll.get(), events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      if (event.data.ptr == nullptr) {
        for (UniqueFd fd = Accept(listener.get()); fd.valid(); fd = Accept(listener.get())) {
          new Connection(epoll.get(), std::move(fd));  // owned by its registration with epoll
        }
        continue;
      }
      auto* connection = static_cast<Connection*>(event.data.ptr);
      if (!connection->OnEvent(event.events)) {
        delete connection;
      }
    }
  }
}

}  // namespace
}  // namespace sluice::bench

int main() {
  sluice::bench::Serve();
}
