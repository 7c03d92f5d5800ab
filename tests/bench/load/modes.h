// What bench_load can do, one function for each mode; main.cc describes them. Each prints its
// result as one JSON object on a line of its own and ends the program when anything is wrong.
#pragma once

#include "tests/bench/load/options.h"

namespace sluice::bench {

void RunEcho(const Options& options);
void RunRate(const Options& options);
void RunBulk(const Options& options);
void RunConnect(const Options& options);
void RunIdle(const Options& options);
void RunDrain(const Options& options);
void RunHttp(const Options& options);
void RunEvents(const Options& options);

}  // namespace sluice::bench
