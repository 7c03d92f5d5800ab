// The load of the benchmark: clients in one thread over epoll, of WebSocket and of plain HTTP. It
// believes nothing: the certificate, the 101, every head, every frame header and the bytes of the
// messages are checked, and the first thing that is not as it must be ends the run with one
// sentence and status 1.
//
//   bench_load MODE --port N [--tls CA.pem] [--cpu-of PID]... [OPTION VALUE]...
//
//   echo     --connections 200 --size 64 --depth 1
//            closed loop, `depth` messages under way on each
//   rate     --connections 1000 --size 64 --rate 10000
//            open loop, latency from when each was due
//   bulk     --connections 8 --size 1048576 --direction down|up|both
//            large messages
//   connect  --connections 16 --handshake full|resumed
//            connect, upgrade, CLOSE; so many at a time
//   idle     --connections 4000 --burst 0 --size 65536
//            says "ready" and holds sessions until its standard input ends; after each line on it
//            all send `burst` messages, then "done"
//   drain    --connections 1000 --rate 1000 --seconds 5
//            says "ready"; a line on standard input says that the proxy was told to go; ends when
//            all sessions have, `seconds` later at most
//   http     --connections 100 --size 1024
//            closed loop of GET for `size` bytes over connections that are kept
//   events   --connections 4000
//            asks for streams of events, says "ready" when each has its first one, and holds them
//            until its standard input ends
//
// Counted is what happens between the end of --warmup (1 second) and --seconds (5) later; --cpu-of
// adds the CPU time that those processes and their descendants used in just that time. The last
// line is one JSON object.
#include "tests/bench/load/modes.h"
#include "tests/bench/socket.h"

int main(int argc, char** argv) {
  using namespace sluice::bench;
  const Options options = ParseOptions(argc, argv);
  RaiseFdLimit();
  if (options.mode == "echo") {
    RunEcho(options);
  } else if (options.mode == "rate") {
    RunRate(options);
  } else if (options.mode == "bulk") {
    RunBulk(options);
  } else if (options.mode == "connect") {
    RunConnect(options);
  } else if (options.mode == "idle") {
    RunIdle(options);
  } else if (options.mode == "http") {
    RunHttp(options);
  } else if (options.mode == "events") {
    RunEvents(options);
  } else {
    RunDrain(options);
  }
}
