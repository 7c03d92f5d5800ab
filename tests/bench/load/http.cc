// Mode http: a closed loop of plain requests. Every connection has one GET under way all the time
// and is never closed; counted is what is answered within the window.
#include <memory>
#include <string>
#include <vector>

#include "tests/bench/load/modes.h"
#include "tests/bench/load/plain_client.h"
#include "tests/bench/load/session.h"
#include "tests/bench/load/window.h"
#include "tests/bench/pattern.h"
#include "tests/bench/websocket.h"

namespace sluice::bench {
namespace {

class PageLoop;

class PageClient : public PlainClient {
 public:
  PageClient(const Target& target, std::uint64_t number, std::size_t size, PageLoop& loop)
      : PlainClient(target, number), size_(size), loop_(loop) {}

  void AskNow() {
    asked_ = std::chrono::steady_clock::now();
    Ask("Accept: */*\r\n");
  }

 protected:
  void OnBytes(std::string_view answer) override;

 private:
  std::size_t size_;
  PageLoop& loop_;
  Instant asked_{};
};

class PageLoop {
 public:
  void Ask(PageClient& client) {
    ++under_way_;
    client.AskNow();
  }

  void OnPage(PageClient& client, nanoseconds latency) {
    --under_way_;
    if (counting_) {
      latency_.Add(latency);
    }
    if (!ending_) {
      Ask(client);
    }
  }

  void Follow(const Window& window) {
    counting_ = window.counting();
    ending_ = window.over();
  }

  [[nodiscard]] std::size_t under_way() const { return under_way_; }
  [[nodiscard]] const Histogram& latency() const { return latency_; }

 private:
  Histogram latency_;
  std::size_t under_way_ = 0;
  bool counting_ = false;
  bool ending_ = false;
};

void PageClient::OnBytes(std::string_view answer) {
  const std::size_t end = answer.find("\r\n\r\n");
  if (end == std::string_view::npos) {
    return;
  }
  const std::string_view head = answer.substr(0, end + 4);
  const std::string_view content = answer.substr(end + 4);
  if (!head.starts_with("HTTP/1.1 200 ")) {
    DieHere("a page was answered '" + std::string(head.substr(0, head.find("\r\n"))) + "'");
  }
  if (FieldValue(head, "content-length") != std::to_string(size_)) {
    DieHere("a page came without the right Content-Length");
  }
  if (FieldValue(head, "connection") == "close") {
    DieHere("a connection is not kept");
  }
  if (content.size() < size_) {
    return;
  }
  if (content.size() > size_ || std::memcmp(content.data(), Pattern(size_).data(), size_) != 0) {
    DieHere("a page is not what the backend sent");
  }
  TakeAnswer();
  loop_.OnPage(*this, std::chrono::steady_clock::now() - asked_);
}

}  // namespace

void RunHttp(const Options& options) {
  const SslCtxPtr tls = MakeTls(options.ca, Reading::kRecord);
  const Target target{options.port, tls.get(),
                      "/socket/page?mode=page&size=" + std::to_string(options.size), false};
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  PageLoop loop;
  std::vector<std::unique_ptr<PageClient>> clients;
  for (std::size_t i = 0; i < options.connections; ++i) {
    clients.push_back(std::make_unique<PageClient>(target, i, options.size, loop));
    clients.back()->OpenAndWatch(epoll.get());
  }
  Instant now = std::chrono::steady_clock::now();
  Window window(options, now);
  Patience patience;
  for (const auto& client : clients) {
    loop.Ask(*client);
  }
  while (!window.over() || loop.under_way() > 0) {
    const int count = RunTurn(epoll.get(), std::chrono::seconds(1));
    now = std::chrono::steady_clock::now();
    patience.Saw(count, now);
    window.Update(now);
    loop.Follow(window);
  }
  std::printf("{\"messages\": %llu, %s, %s, \"errors\": 0}\n",
              static_cast<unsigned long long>(loop.latency().total()),
              LatencyJson(loop.latency()).c_str(), window.Json().c_str());
}

}  // namespace sluice::bench
