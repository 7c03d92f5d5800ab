// What reading the head of an upgrade request costs, as Chrome sends it.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <benchmark/benchmark.h>

#include "proxy/http/parser.h"

namespace sluice::http {
namespace {

constexpr std::string_view kChromeUpgrade =
    "GET /chat?room=1&token=a%2Fb HTTP/1.1\r\n"
    "Host: chat.example.com\r\n"
    "Connection: Upgrade\r\n"
    "Pragma: no-cache\r\n"
    "Cache-Control: no-cache\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/126.0.0.0 Safari/537.36\r\n"
    "Upgrade: websocket\r\n"
    "Origin: https://chat.example.com\r\n"
    "Sec-WebSocket-Version: 13\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"
    "Cookie: sid=3f9b2c1e-8a77-4d1a-9f2e-0123456789ab; theme=dark\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    "\r\n";

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
