// Proves that no order of events leaves anything behind: many sessions at a time do what chance
// tells them, on both sides and at every moment; then the proxy must be as empty as at the start.
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"

namespace sluice::test {
namespace {

using std::chrono::steady_clock;

// One end of a session, driven without ever blocking. Errors are part of the game.
class End {
 public:
  End(Stream stream, bool is_client) : stream_(std::move(stream)), is_client_(is_client) {}

  [[nodiscard]] bool open() const { return stream_.open(); }

  // Does one random thing. `upgraded`: frames make sense.
  void Act(std::mt19937& random, bool upgraded) {
    try {
      ActOrThrow(random, upgraded);
    } catch (const Failure&) {
      stream_.Close();  // the peer was faster
    }
  }

  // Drops what has come.
  void Drain() {
    try {
      while (stream_.open() && stream_.HasInput(Millis(0))) {
        if (stream_.ReadSome().empty()) {
          break;
        }
      }
    } catch (const Failure&) {
      stream_.Close();
    }
  }

  void Close() { stream_.Close(); }
  [[nodiscard]] Stream& stream() { return stream_; }

 private:
  void ActOrThrow(std::mt19937& random, bool upgraded) {
    const FrameOptions masked{.masked = is_client_};
    switch (random() % 14) {
      case 0:
      case 1:
      case 2: {
        const std::string frame = BuildFrame(kBinary, std::string(random() % 5000, 'd'), masked);
        static_cast<void>(stream_.SendSome(frame));
        break;
      }
      case 3:
        static_cast<void>(stream_.SendSome(BuildFrame(kPing, "p", masked)));
        break;
      case 4: {
        const std::string frame = BuildFrame(kText, std::string(200, 'h'), masked);
        static_cast<void>(stream_.SendSome(frame.substr(0, 1 + random() % 150)));
        break;
      }
      case 5:
      case 6:
        static_cast<void>(stream_.SendSome(BuildFrame(kClose, ClosePayload(1000), masked)));
        break;
      case 7:
        static_cast<void>(stream_.SendSome(
            BuildFrame(kClose, ClosePayload(4000, "cut"), masked).substr(0, 1 + random() % 6)));
        break;
      case 8:
        stream_.FinishWrite();
        break;
      case 9:
        stream_.Reset();
        break;
      case 10:
        stream_.Close();
        break;
      case 11:
        static_cast<void>(
            stream_.SendSome(upgraded && random() % 4 == 0 ? "\xFF\xFF" : std::string_view("")));
        break;
      case 12:
        static_cast<void>(
            stream_.SendSome(BuildFrame(kText, "part", {.fin = false, .masked = is_client_})));
        break;
      default:
        Drain();
        break;
    }
  }

  Stream stream_;
  bool is_client_;
};

TEST(Teardown, LeavesNothingBehindWhateverHappens) {
  unsigned seed = 20240;
  if (const char* text = std::getenv("SLUICE_TEST_SEED"); text != nullptr) {
    seed = static_cast<unsigned>(std::strtoul(text, nullptr, 10));
  }
  SCOPED_TRACE("SLUICE_TEST_SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .server = "close_timeout = \"200ms\"\nheader_timeout = \"1s\"\n"
                                      "keep_alive_timeout = \"1s\"",
                            .route = "handshake_timeout = \"500ms\"\nretries = 0",
                            .drain = "window = \"0s\"\nmessage_grace = \"100ms\"",
                            .log = "access = \"off\""});
  const std::size_t fds = proxy.OpenFds();

  struct Pair {
    std::unique_ptr<End> client;
    bool asked = false;
  };
  constexpr std::size_t kAtOnce = 40;
  std::vector<Pair> clients;
  std::vector<std::unique_ptr<End>> legs;
  std::size_t made = 0;
  const auto until = steady_clock::now() + std::chrono::seconds(8);
  while (steady_clock::now() < until) {
    while (clients.size() < kAtOnce) {
      Pair pair;
      pair.client = std::make_unique<End>(RawClient(proxy.port()), true);
      ++made;
      try {
        if (random() % 10 != 0) {
          const std::string request = UpgradeRequest();
          pair.asked = random() % 10 != 0;
          pair.client->stream().Send(pair.asked ? request
                                                : request.substr(0, random() % request.size()));
        }
      } catch (const Failure&) {
        pair.client->Close();
      }
      clients.push_back(std::move(pair));
    }
    while (backend.HasConnection(Millis(0))) {
      auto leg = std::make_unique<End>(backend.Accept(), false);
      try {
        if (random() % 10 != 0) {
          // The proxy sends the whole request at once.
          const HttpMessage request = leg->stream().ReadHead();
          const std::string answer = SwitchingProtocols(request.Field("Sec-WebSocket-Key"));
          leg->stream().Send(random() % 10 != 0 ? answer
                                                : answer.substr(0, random() % answer.size()));
        }
      } catch (const Failure&) {
        leg->Close();
      }
      legs.push_back(std::move(leg));
    }
    for (int i = 0; i < 30; ++i) {
      if (!clients.empty() && random() % 2 == 0) {
        Pair& pair = clients[random() % clients.size()];
        pair.client->Act(random, pair.asked);
      } else if (!legs.empty()) {
        legs[random() % legs.size()]->Act(random, true);
      }
    }
    // Now and then an end gives up, so that sessions of every age come and go.
    if (random() % 3 == 0 && !clients.empty()) {
      clients[random() % clients.size()].client->Close();
    }
    if (random() % 3 == 0 && !legs.empty()) {
      legs[random() % legs.size()]->Close();
    }
    std::erase_if(clients, [](const Pair& pair) { return !pair.client->open(); });
    std::erase_if(legs, [](const auto& leg) { return !leg->open(); });
  }
  clients.clear();
  legs.clear();
  EXPECT_GT(made, 200U);
  // Legs that were made but not accepted end with the backend.
  backend.StopListening();
  proxy.AwaitMetric("sluice_sessions_open", 0);
  proxy.AwaitMetric("sluice_connections_open", 0);
  const Deadline deadline;
  while (proxy.OpenFds() > fds && !deadline.passed()) {
  }
  EXPECT_LE(proxy.OpenFds(), fds);
  proxy.AwaitMetric("sluice_out_buffer_bytes", 0);  // told once a second
}

}  // namespace
}  // namespace sluice::test
