// Mode events: streams of server-sent events that have had their first event and get no other, held
// for as long as standard input is open.
#include <unistd.h>

#include <memory>
#include <vector>

#include "tests/bench/load/modes.h"
#include "tests/bench/load/plain_client.h"
#include "tests/bench/load/session.h"
#include "tests/bench/load/window.h"
#include "tests/bench/websocket.h"

namespace sluice::bench {
namespace {

class Stream : public PlainClient {
 public:
  Stream(const Target& target, std::uint64_t number, std::size_t& to_begin)
      : PlainClient(target, number), to_begin_(to_begin) {}

 protected:
  void OnBytes(std::string_view answer) override {
    if (begun_) {
      DieHere("an event came that nobody has sent");
    }
    const std::size_t end = answer.find("\r\n\r\n");
    if (end == std::string_view::npos) {
      return;
    }
    const std::string_view head = answer.substr(0, end + 4);
    if (!head.starts_with("HTTP/1.1 200 ") ||
        FieldValue(head, "content-type") != "text/event-stream") {
      DieHere("a stream was answered '" + std::string(head.substr(0, head.find("\r\n"))) + "'");
    }
    // In one chunk or more, whose end comes with it or a moment later.
    begun_ = answer.find("data: first\n\n\r\n", end) != std::string_view::npos;
    if (begun_) {
      --to_begin_;
    }
  }

 private:
  std::size_t& to_begin_;
  bool begun_ = false;
};

}  // namespace

void RunEvents(const Options& options) {
  const SslCtxPtr tls = MakeTls(options.ca, Reading::kLean);
  const Target target{options.port, tls.get(), "/socket/events?mode=events", false};
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  std::size_t to_begin = options.connections;
  std::vector<std::unique_ptr<Stream>> streams;
  for (std::size_t i = 0; i < options.connections; ++i) {
    streams.push_back(std::make_unique<Stream>(target, i, to_begin));
    streams.back()->OpenAndWatch(epoll.get());
    streams.back()->Ask("Accept: text/event-stream\r\n");
  }
  Patience patience;
  while (to_begin > 0) {
    const int count = RunTurn(epoll.get(), std::chrono::seconds(1));
    patience.Saw(count, std::chrono::steady_clock::now());
  }
  Watch(epoll.get(), EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, nullptr);
  std::puts("ready");
  std::fflush(stdout);
  for (bool held = true; held;) {
    bool asked = false;
    RunTurn(epoll.get(), std::chrono::hours(1), &asked);
    char line = 0;
    held = !asked || ::read(STDIN_FILENO, &line, 1) > 0;
  }
  std::printf("{\"sessions\": %zu, \"errors\": 0}\n", streams.size());
}

}  // namespace sluice::bench
