// Clients of the pressure tests that misbehave, by the thousand, in one thread.
//
//   pressure_crowd --connect HOST:PORT --kind KIND [--connections 100] [--ramp 2000] [--path /s]
//                  [--every MS] [--read BYTES] [--seed 1] [--first-uid 1]
//
//   silent       connects and says nothing
//   slow-head    a right upgrade request, a byte each --every
//   half-hello   the first half of a ClientHello, and nothing more
//   slow-reader  upgrades, and reads --read bytes a second of what follows
//   garbage      random bytes, prefixes of a request, requests with random bytes, upgrades followed
//                by random bytes or random frames; half of them end their stream behind it
//
// Nobody comes again. Each line of standard input is an order:
//
//   report    how it stands, as JSON
//   close     closes all connections, then a report
//
// The end of standard input ends the program. Times are seconds, moments of the steady clock.
#include <memory>
#include <vector>

#include "tests/deploy/address.h"
#include "tests/deploy/counts.h"
#include "tests/deploy/decimal.h"
#include "tests/deploy/orders.h"
#include "tests/pressure/crowd/peer.h"

namespace sluice::pressure {
namespace {

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) {
      bench::Die(name + " lacks its value");
    }
    const std::string value = argv[i + 1];
    if (name == "--connect") {
      options.address = deploy::AddressOf(value);
    } else if (name == "--kind") {
      options.kind = value;
    } else if (name == "--path") {
      options.path = value;
    } else if (name == "--connections") {
      options.connections = bench::Number(value);
    } else if (name == "--ramp") {
      options.ramp = deploy::Decimal(value);
    } else if (name == "--every") {
      options.every = static_cast<Nanoseconds>(bench::Number(value)) * deploy::kMillisecond;
    } else if (name == "--read") {
      options.read_rate = bench::Number(value);
    } else if (name == "--seed") {
      options.seed = bench::Number(value);
    } else if (name == "--first-uid") {
      options.first_uid = static_cast<std::uint32_t>(bench::Number(value));
    } else {
      bench::Die("there is no option " + name);
    }
  }
  if (options.address.sin_port == 0 || !IsKind(options.kind) || options.ramp <= 0) {
    bench::Die("--connect or a --kind that there is are missing, or --ramp is 0");
  }
  return options;
}

class Crowd {
 public:
  Crowd(deploy::EventLoop& loop, const Options& options) {
    const double start = static_cast<double>(deploy::Now());
    for (std::size_t i = 0; i < options.connections; ++i) {
      peers_.push_back(std::make_unique<Peer>(loop, options, i));
      peers_.back()->BeginAt(
          static_cast<Nanoseconds>(start + 1e9 * static_cast<double>(i) / options.ramp));
    }
  }

  void CloseAll() {
    for (const auto& peer : peers_) {
      peer->Close();
    }
  }

  [[nodiscard]] std::string Report() const {
    std::size_t to_come = 0;
    std::size_t connected = 0;
    std::uint64_t bytes_read = 0;
    deploy::Counts ended;
    deploy::Counts statuses;
    Nanoseconds shortest = INT64_MAX;
    Nanoseconds longest = 0;
    for (const auto& peer : peers_) {
      bytes_read += peer->bytes_read();
      if (peer->status() != 0) {
        ++statuses[std::to_string(peer->status())];
      }
      if (peer->state() == Peer::State::kConnected) {
        ++connected;
      } else if (peer->state() == Peer::State::kEnded) {
        ++ended[peer->ended()];
        shortest = std::min(shortest, peer->lifetime());
        longest = std::max(longest, peer->lifetime());
      } else {
        ++to_come;
      }
    }
    std::array<char, 256> text{};
    std::snprintf(text.data(), text.size(),
                  "{\"at\": %.6f, \"to_come\": %zu, \"connected\": %zu, \"bytes_read\": %llu, "
                  "\"shortest\": %.3f, "
                  "\"longest\": %.3f, ",
                  static_cast<double>(deploy::Now()) / 1e9, to_come, connected,
                  static_cast<unsigned long long>(bytes_read),
                  ended.empty() ? 0 : static_cast<double>(shortest) / 1e9,
                  static_cast<double>(longest) / 1e9);
    return text.data() + ("\"ended\": " + deploy::JsonOf(ended)) +
           ", \"statuses\": " + deploy::JsonOf(statuses) + "}";
  }

 private:
  std::vector<std::unique_ptr<Peer>> peers_;
};

void Run(const Options& options) {
  deploy::EventLoop loop;
  Crowd crowd(loop, options);
  deploy::Orders orders(loop);
  while (!orders.over()) {
    loop.Turn();
    for (std::string order = orders.Take(); !order.empty(); order = orders.Take()) {
      if (order == "close") {
        crowd.CloseAll();
      } else if (order != "report") {
        bench::Die("no order '" + order + "'");
      }
      std::puts(crowd.Report().c_str());
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace sluice::pressure

int main(int argc, char** argv) {
  const sluice::pressure::Options options = sluice::pressure::ParseOptions(argc, argv);
  sluice::bench::RaiseFdLimit();
  sluice::pressure::Run(options);
}
