// A client and a backend that know of each other, with a proxy between them that does not: whatever
// the two see differently is a fault of the proxy.
//
//   desync_lab [--pairs 20000] [--seed 1] [--only PAIR] [--connections 8] [--patience MS]
//
// Prints the port of its backend, and waits for the address of the proxy, HOST:PORT, as a line of
// standard input. Then so many clients send pairs of requests (request.h), pipelined or one after
// the other, and wait for the answers to each for 20 s, or as their patience is. --only: that one
// pair, which is shown on standard error. At the end, a report as JSON: how much there was of what,
// and each fault in words, with its seed and its pair.
#include <algorithm>
#include <array>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/deploy/address.h"
#include "tests/desync/backend.h"
#include "tests/desync/client.h"

namespace sluice::desync {
namespace {

struct Options {
  std::uint64_t pairs = 20'000;
  std::uint64_t seed = 1;
  std::optional<std::uint64_t> only;
  std::uint64_t connections = 8;
  deploy::Nanoseconds patience = 20 * deploy::kSecond;
};

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) {
      bench::Die(name + " lacks its value");
    }
    const std::uint64_t value = bench::Number(argv[i + 1]);
    if (name == "--pairs") {
      options.pairs = value;
    } else if (name == "--seed") {
      options.seed = value;
    } else if (name == "--only") {
      options.only = value;
    } else if (name == "--connections") {
      options.connections = value;
    } else if (name == "--patience") {
      options.patience = static_cast<deploy::Nanoseconds>(value) * deploy::kMillisecond;
    } else {
      bench::Die("there is no option " + name);
    }
  }
  if (options.connections == 0) {
    bench::Die("--connections is 0");
  }
  return options;
}

// Only quotes, backslashes and control bytes need an escape; other bytes need not be right UTF-8.
std::string Quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
    }
    out += c < ' ' || c > '~' ? '?' : c;
  }
  return out + "\"";
}

std::string Escaped(const std::string& bytes) {
  std::string out;
  for (const char c : bytes) {
    std::array<char, 8> text{};
    if (c == '\r' || c == '\n') {
      out += c == '\r' ? "\\r" : "\\n";
    } else if (c < ' ' || c > '~') {
      std::snprintf(text.data(), text.size(), "\\x%02x", static_cast<unsigned char>(c));
      out += text.data();
    } else {
      out += c;
    }
  }
  return out;
}

std::string Report(const Ledger& ledger, const Backend& backend, double seconds) {
  std::string faults;
  for (const std::string& one : ledger.told()) {
    faults += (faults.empty() ? "" : ", ") + Quoted(one);
  }
  return "{\"faults\": " + std::to_string(ledger.faults()) + ", \"told\": [" + faults +
         "], \"counts\": " + deploy::JsonOf(ledger.counts()) +
         ", \"kinds\": " + deploy::JsonOf(ledger.kinds()) +
         ", \"backend_connections\": " + std::to_string(backend.connections()) +
         ", \"most_requests_of_one\": " + std::to_string(backend.most_requests()) +
         ", \"seconds\": " + std::to_string(seconds) + "}";
}

// What will go over the wire, for whoever wants to see why a pair is a fault.
void Show(const Request& request) {
  std::fprintf(stderr, "%s %s: %s\n", request.kind.c_str(), std::to_string(request.id).c_str(),
               Escaped(request.bytes).c_str());
  if (request.fate == Fate::kServed) {
    const Answer answer =
        MakeAnswer(request.answer_seed, request.id, request.is_head, request.is_upgrade);
    std::fprintf(stderr, "  to be answered: %s\n  and behind it: %s%s\n",
                 Escaped(answer.bytes.substr(0, answer.end)).c_str(),
                 Escaped(answer.bytes.substr(answer.end)).c_str(), answer.closes ? " (end)" : "");
  }
}

void Run(const Options& options) {
  deploy::EventLoop loop;
  Ledger ledger(options.seed);
  Backend backend(loop, ledger, options.seed);
  std::string proxy;
  std::getline(std::cin, proxy);
  const sockaddr_in address = deploy::AddressOf(proxy);
  Work work{options.seed, options.only.value_or(0),
            options.only ? *options.only + 1 : options.pairs, options.patience};
  if (options.only) {
    const Pair pair = MakePair(options.seed, *options.only);
    Show(pair.subject);
    Show(pair.marker);
  }
  std::vector<std::unique_ptr<Client>> clients;
  for (std::uint64_t i = 0; i < options.connections; ++i) {
    clients.push_back(std::make_unique<Client>(loop, ledger, work, address));
  }
  const deploy::Nanoseconds began = deploy::Now();
  for (const auto& client : clients) {
    client->Begin();
  }
  const auto is_idle = [](const auto& client) { return client->is_idle(); };
  while (!std::all_of(clients.begin(), clients.end(), is_idle)) {
    loop.Turn();
    backend.Sweep();
  }
  std::puts(Report(ledger, backend, static_cast<double>(deploy::Now() - began) / 1e9).c_str());
}

}  // namespace
}  // namespace sluice::desync

int main(int argc, char** argv) {
  const sluice::desync::Options options = sluice::desync::ParseOptions(argc, argv);
  sluice::bench::RaiseFdLimit();
  sluice::desync::Run(options);
}
