// What reading the head of an upgrade request costs, as Chrome sends it.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <benchmark/benchmark.h>

#include "proxy/http/parser.h"

#include "tests/support/chrome_upgrade.h"

namespace sluice::http {
namespace {

using test::kChromeUpgrade;

// Arg: how many bytes come at a time; 0 for the head in one piece.
void ParseChromeUpgrade(benchmark::State& state) {
  const auto piece =
      state.range(0) == 0 ? kChromeUpgrade.size() : static_cast<std::size_t>(state.range(0));
  RequestParser parser;
  ParseStatus status = ParseStatus::kNeedMore;
  const auto parse = [&] {
    parser.Reset();
    std::size_t given = 0;
    do {
      given += piece;
      status = parser.Parse(kChromeUpgrade.substr(0, given));
    } while (status == ParseStatus::kNeedMore && given < kChromeUpgrade.size());
  };
  parse();
  if (status != ParseStatus::kDone || parser.head().fields.size() != 13) {
    state.SkipWithError("the head was not parsed");
  }
  for (auto _ : state) {
    parse();
    benchmark::DoNotOptimize(parser.head().path.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kChromeUpgrade.size()));
}

BENCHMARK(ParseChromeUpgrade)->Arg(0)->Arg(100)->ArgName("piece");

}  // namespace
}  // namespace sluice::http
