// Randomised closes of a proxy, both ends of every session in one process, and strict about all
// that comes. Started by close_storm_test.py.
//
//   close_storm --seed S [--first UID] [--at-once 300] [--only UID] [--causes kick=30,lost=10,...]
//               [--calm 1] [--message-grace MS] [--close-timeout MS]
//
// Prints the ports of its backends on one line. Then each line of standard input,
//
//   PLAIN TLS ADMIN CLOSES REFRAGMENT
//
// is a round with one proxy: addresses of its listeners and its admin listener ("-": it has none),
// how many closes (with --only and --calm: sessions), and its `refragment`. Once there were so
// many, {"full": N} is printed and the proxy is to be told to drain; when all sessions are over,
// the figures of the round are printed. Without an admin listener the round ends by itself. The end
// of standard input ends the program.
#include <csignal>
#include <iostream>
#include <sstream>
#include <vector>

#include "tests/deploy/orders.h"
#include "tests/deploy/storm/storm.h"

namespace sluice::storm {
namespace {

sockaddr_in AddressOf(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) {
    bench::Die("not an address: '" + text + "'");
  }
  return bench::Loopback(bench::PortNumber(text.substr(colon + 1)));
}

Weights WeightsOf(const std::string& text) {
  Weights weights{};
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const std::size_t equals = part.find('=');
    bool known = false;
    for (std::size_t i = 0; i < weights.size() && equals != std::string::npos; ++i) {
      if (part.substr(0, equals) == Name(static_cast<Cause>(i))) {
        weights[i] = static_cast<unsigned>(bench::Number(part.substr(equals + 1)));
        known = true;
      }
    }
    if (!known) {
      bench::Die("no cause with a weight: '" + part + "'");
    }
  }
  return weights;
}

Options ParseOptions(const std::vector<std::string>& words) {
  Options options;
  options.weights = WeightsOf(
      "wait=18,kick=38,max_age=5,lost=14,heartbeat=3,client_violation=6,backend_violation=6,"
      "client_crosses=3,backend_crosses=3,client_lost=4");
  options.message_grace = 500 * deploy::kMillisecond;
  options.close_timeout = 3 * deploy::kSecond;
  if (words.size() % 2 != 0) {
    bench::Die("an option without a value");
  }
  for (std::size_t i = 0; i < words.size(); i += 2) {
    const std::string& name = words[i];
    const std::string& value = words[i + 1];
    if (name == "--seed") {
      options.seed = bench::Number(value);
    } else if (name == "--first") {
      options.first = static_cast<std::uint32_t>(bench::Number(value));
    } else if (name == "--only") {
      options.only = static_cast<std::uint32_t>(bench::Number(value));
    } else if (name == "--at-once") {
      options.at_once = bench::Number(value);
    } else if (name == "--calm") {
      options.calm = bench::Number(value) != 0;
    } else if (name == "--causes") {
      options.weights = WeightsOf(value);
    } else if (name == "--message-grace") {
      options.message_grace = static_cast<Nanoseconds>(bench::Number(value)) * deploy::kMillisecond;
    } else if (name == "--close-timeout") {
      options.close_timeout = static_cast<Nanoseconds>(bench::Number(value)) * deploy::kMillisecond;
    } else {
      bench::Die("no option '" + name + "'");
    }
  }
  return options;
}

Round RoundOf(const std::string& line) {
  std::istringstream words(line);
  std::string plain;
  std::string secure;
  std::string admin;
  Round round;
  words >> plain >> secure >> admin >> round.closes >> round.cut_above;
  if (!words) {
    bench::Die("not a round: '" + line + "'");
  }
  round.plain = AddressOf(plain);
  round.has_tls = secure != "-";
  round.has_admin = admin != "-";
  if (round.has_tls) {
    round.secure = AddressOf(secure);
  }
  if (round.has_admin) {
    round.admin = AddressOf(admin);
  }
  return round;
}

void Run(const Options& options) {
  EventLoop loop;
  Storm storm(loop, options);
  for (std::size_t i = 0; i < Storm::kBackends; ++i) {
    std::cout << (i > 0 ? " " : "") << storm.port(i);
  }
  std::cout << std::endl;
  deploy::Orders orders(loop);
  while (!orders.over()) {
    loop.Turn();
    storm.Step();
    if (const std::string line = orders.Take(); !line.empty()) {
      storm.Begin(RoundOf(line));
    }
    if (storm.TakeFull()) {
      std::cout << "{\"full\": " << storm.open() << "}" << std::endl;
    }
    if (storm.TakeDone()) {
      std::cout << storm.Summary() << std::endl;
    }
  }
}

}  // namespace
}  // namespace sluice::storm

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes without MSG_NOSIGNAL
  sluice::bench::RaiseFdLimit();
  sluice::storm::Run(sluice::storm::ParseOptions({argv + 1, argv + argc}));
}
