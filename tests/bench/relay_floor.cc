// The floor: a relay that knows nothing of HTTP or WebSocket. One recv and one send for each small
// message, two descriptors and one small struct for each session. No proxy that runs in user space
// and relays one message at a time can cost much less.
//
//   bench_relay_floor --backend PORT      prints its port, serves until it is killed
#include <array>
#include <string>
#include <vector>

#include "tests/bench/socket.h"

namespace sluice::bench {
namespace {

struct Pair;

struct End {
  Pair* pair = nullptr;
  UniqueFd fd;
  std::string unsent;  // of what goes to this end
  bool ended = false;  // this end has sent its last byte
  bool writable_wanted = false;
  bool read_paused = false;
};

struct Pair {
  std::array<End, 2> ends;
  bool dead = false;
};

class Relay {
 public:
  explicit Relay(std::uint16_t backend)
      : backend_(backend), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}

  [[noreturn]] void Serve() {
    const UniqueFd listener = ListenAndTell();
    Watch(epoll_.get(), EPOLL_CTL_ADD, listener.get(), EPOLLIN, nullptr);
    std::array<epoll_event, 512> events{};
    for (;;) {
      const int count =
          ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
      for (int i = 0; i < count; ++i) {
        const epoll_event& event = events[static_cast<std::size_t>(i)];
        if (event.data.ptr == nullptr) {
          for (UniqueFd fd = Accept(listener.get()); fd.valid(); fd = Accept(listener.get())) {
            Open(std::move(fd));
          }
          continue;
        }
        End& end = *static_cast<End*>(event.data.ptr);
        if (!end.pair->dead && !OnEvent(end, event.events)) {
          // Both ends may have an event in this turn: the memory goes at its end.
          end.pair->dead = true;
          dead_.push_back(end.pair);
        }
      }
      for (Pair* pair : dead_) {
        delete pair;
      }
      dead_.clear();
    }
  }

 private:
  void Open(UniqueFd client) {
    auto* pair = new Pair;  // owned by its registration with epoll
    pair->ends[0].fd = std::move(client);
    pair->ends[1].fd = Connect(backend_);
    for (End& end : pair->ends) {
      end.pair = pair;
      SetNonBlocking(end.fd.get());
      Watch(epoll_.get(), EPOLL_CTL_ADD, end.fd.get(), EPOLLIN, &end);
    }
  }

  static End& Other(End& end) {
    return &end == end.pair->ends.data() ? end.pair->ends[1] : end.pair->ends[0];
  }

  void Rearm(End& end) {
    std::uint32_t events = 0;
    events |= end.ended || end.read_paused ? 0U : static_cast<std::uint32_t>(EPOLLIN);
    events |= end.writable_wanted ? static_cast<std::uint32_t>(EPOLLOUT) : 0U;
    Watch(epoll_.get(), EPOLL_CTL_MOD, end.fd.get(), events, &end);
  }

  // False: the pair is over.
  bool OnEvent(End& from, std::uint32_t events) {
    End& to = Other(from);
    if ((events & EPOLLOUT) != 0) {
      const ssize_t sent =
          ::send(from.fd.get(), from.unsent.data(), from.unsent.size(), MSG_NOSIGNAL);
      if (sent < 0) {
        return errno == EAGAIN;
      }
      from.unsent.erase(0, static_cast<std::size_t>(sent));
      if (from.unsent.empty()) {
        std::string().swap(from.unsent);  // gives the memory back
        from.writable_wanted = false;
        to.read_paused = false;
        Rearm(from);
        Rearm(to);
        if (to.ended) {
          ::shutdown(from.fd.get(), SHUT_WR);
        }
      }
      return true;
    }
    const ssize_t got = ::recv(from.fd.get(), buffer_.data(), buffer_.size(), 0);
    if (got < 0) {
      return errno == EAGAIN;
    }
    if (got == 0) {
      from.ended = true;
      if (to.ended) {
        return false;
      }
      Rearm(from);
      if (to.unsent.empty()) {
        ::shutdown(to.fd.get(), SHUT_WR);
      }
      return true;
    }
    const std::size_t size = static_cast<std::size_t>(got);
    const ssize_t sent = ::send(to.fd.get(), buffer_.data(), size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
      return false;
    }
    const std::size_t done = sent < 0 ? 0 : static_cast<std::size_t>(sent);
    if (done < size) {
      to.unsent.assign(buffer_.data() + done, size - done);
      to.writable_wanted = true;
      from.read_paused = true;
      Rearm(to);
      Rearm(from);
    }
    return true;
  }

  std::uint16_t backend_;
  UniqueFd epoll_;
  std::array<char, 64 * 1024> buffer_{};
  std::vector<Pair*> dead_;
};

}  // namespace
}  // namespace sluice::bench

int main(int argc, char** argv) {
  using namespace sluice::bench;
  if (argc != 3 || std::string(argv[1]) != "--backend") {
    Die("usage: bench_relay_floor --backend PORT");
  }
  RaiseFdLimit();
  static Relay relay(PortNumber(argv[2]));
  relay.Serve();
}
