// The clients of the deploy tests: WebSocket sessions in one thread that believe nothing, and tell
// of each of their connections how it went.
//
//   deploy_client --connect HOST:PORT [--tls] [--path /s] --sessions N [--rate R] [--size 32]
//                 [--policy immediate|fixed:MS|exponential[:BASE,CAP]|jitter:LEAST,MOST]
//                 [--ramp 1000]
//       N sessions that send R messages a second each and connect again when they are closed.
//       exponential doubles BASE up to CAP, in ms, and draws the delay from 0 to that; jitter comes
//       back at once, and after a refusal LEAST to MOST ms behind its Retry-After
//   deploy_client --connect HOST:PORT ... --connects-per-second K
//       new sessions only, K a second: upgrade, one message each way, CLOSE 1000
//
//   both: [--seconds S] (until SIGTERM) [--report FILE] [--first-uid 1]
//         [--connect-timeout MS] [--close-timeout MS]
//
// The upgrade asks for PATH?uid=U&n=I: the session and which of its incarnations. FILE gets a line
// of JSON for each incarnation. Standard output gets {"begun": true} when signals are taken,
// {"open": N} once all N have been open, a summary at each SIGUSR1, and one at the end, after the
// sessions were closed with 1000. Times are seconds of the steady clock.
#include <memory>

#include "tests/deploy/client/churn.h"
#include "tests/deploy/client/fleet.h"
#include "tests/deploy/signals.h"

namespace sluice::deploy {
namespace {

std::unique_ptr<Crowd> MakeCrowd(EventLoop& loop, const Options& options, const Target& target) {
  if (options.connects_per_second > 0) {
    return std::make_unique<Churn>(loop, options, target);
  }
  return std::make_unique<Fleet>(loop, options, target);
}

void Print(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

void Run(const Options& options) {
  const bench::SslCtxPtr tls = options.tls ? MakeTls() : nullptr;
  const Target target{.address = options.address,
                      .tls = tls.get(),
                      .path = options.path,
                      .echo = options.connects_per_second > 0,
                      .size = options.size,
                      .connect_timeout = options.connect_timeout,
                      .close_timeout = options.close_timeout};
  EventLoop loop;
  Signals signals(loop, {SIGTERM, SIGINT, SIGUSR1});
  const std::unique_ptr<Crowd> crowd = MakeCrowd(loop, options, target);
  Print("{\"begun\": true}");  // from here on signals are taken
  const Nanoseconds start = Now();
  bool stopping = false;
  while (!stopping || !crowd->is_done()) {
    loop.Turn();
    const int signal = signals.Take();
    if (signal == SIGUSR1) {
      Print(crowd->Summary());
    }
    const bool over =
        options.seconds && loop.now() - start >= static_cast<Nanoseconds>(*options.seconds * 1e9);
    if (!stopping && (over || signal == SIGTERM || signal == SIGINT)) {
      stopping = true;
      crowd->Stop();
    }
  }
  Print(crowd->Summary());
}

}  // namespace
}  // namespace sluice::deploy

int main(int argc, char** argv) {
  const sluice::deploy::Options options = sluice::deploy::ParseOptions(argc, argv);
  sluice::bench::RaiseFdLimit();
  sluice::deploy::Run(options);
}
