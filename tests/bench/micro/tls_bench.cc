// What TLS costs the server's side alone: the time inside TlsTransport is counted, that of the
// client, which is in the same thread at the other end of a socketpair, is not. The CPU column of
// these has both; Time is the one to read.
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include <benchmark/benchmark.h>

#include "tests/unit/tls/tls_pair.h"

namespace sluice::tls {
namespace {

using net::IoStatus;
using Clock = std::chrono::steady_clock;

struct Fixture {
  Files files;
  TicketKeys keys;
  SharedBuffers buffers;
  std::unique_ptr<ServerContext> context =
      MakeContext({.certificates = {files.Certificate({"bench.test"})}}, keys);
};

// Adds the time of `work` to `spent`.
template <class Work>
auto Timed(Clock::duration& spent, Work&& work) {
  const auto begin = Clock::now();
  auto result = work();
  spent += Clock::now() - begin;
  return result;
}

double Seconds(Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

// A whole life of a session: accept, handshake, free.
void Handshakes(benchmark::State& state, SSL_SESSION* resume, Fixture& fixture) {
  for (auto _ : state) {
    Clock::duration spent{};
    TlsPair pair(*fixture.context, fixture.buffers,
                 {.sni = "bench.test", .alpn = {"http/1.1"}, .resume = resume});
    pair.server.reset();
    pair.server = Timed(spent, [&] {
      return TlsTransport::Accept(*fixture.context, pair.server_fd.get(), fixture.buffers);
    });
    for (int turn = 0; turn < 4 && !(pair.client_done && pair.server_status == IoStatus::kOk);
         ++turn) {
      pair.client_done = SSL_do_handshake(pair.client.get()) == 1;
      if (pair.server_status == IoStatus::kWouldBlock) {
        pair.server_status = Timed(spent, [&] { return pair.server->Handshake(); });
      }
    }
    if (pair.server_status != IoStatus::kOk || !pair.server->is_tls13() ||
        pair.server->resumed() != (resume != nullptr)) {
      state.SkipWithError("not the handshake that was meant");
      break;
    }
    Timed(spent, [&] {
      pair.server.reset();
      return 0;
    });
    static_cast<void>(pair.Ticket());  // leaves in order, so that `resume` stays good
    state.SetIterationTime(Seconds(spent));
  }
}

void TlsHandshakeFull(benchmark::State& state) {
  Fixture fixture;
  Handshakes(state, nullptr, fixture);
}

void TlsHandshakeResumed(benchmark::State& state) {
  Fixture fixture;
  TlsPair first(*fixture.context, fixture.buffers);
  const bool done = first.Handshake();
  const SessionPtr ticket = first.Ticket();
  if (!done) {
    state.SkipWithError("no first handshake");
  }
  Handshakes(state, ticket.get(), fixture);
}

std::unique_ptr<TlsPair> Established(Fixture& fixture) {
  constexpr int kSocketBuffer = 4 * 1024 * 1024;
  auto pair =
      std::make_unique<TlsPair>(*fixture.context, fixture.buffers, ClientOptions{}, kSocketBuffer);
  EXPECT_TRUE(pair->Handshake());
  static_cast<void>(pair->ClientReads());  // the ticket
  return pair;
}

// One message from plaintext to the socket; Arg: its bytes. The client drops the ciphertext.
void TlsWrite(benchmark::State& state) {
  Fixture fixture;
  const auto pair = Established(fixture);
  const std::string message(static_cast<std::size_t>(state.range(0)), 'x');
  std::array<char, 64 * 1024> dropped{};
  for (auto _ : state) {
    Clock::duration spent{};
    std::size_t taken = 0;
    while (taken < message.size()) {
      const net::IoResult wrote =
          Timed(spent, [&] { return pair->server->Write(AsBytes(message).subspan(taken)); });
      taken += wrote.bytes;
      if (wrote.status != IoStatus::kOk || pair->server->pending() != 0) {
        state.SkipWithError("the socket refused bytes");
        return;
      }
      while (::recv(pair->client_fd.get(), dropped.data(), dropped.size(), 0) > 0) {
      }
    }
    state.SetIterationTime(Seconds(spent));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(message.size()));
}

// One message from the socket to plaintext, in reads as the proxy makes them; Arg: its bytes.
void TlsRead(benchmark::State& state) {
  Fixture fixture;
  const auto pair = Established(fixture);
  const std::string message(static_cast<std::size_t>(state.range(0)), 'x');
  std::array<std::byte, 64 * 1024> scratch{};
  for (auto _ : state) {
    Clock::duration spent{};
    pair->ClientWrites(message);
    std::size_t got = 0;
    while (got < message.size()) {
      const net::IoResult read = Timed(spent, [&] { return pair->server->Read(scratch); });
      if (read.status != IoStatus::kOk) {
        state.SkipWithError("the message did not arrive");
        return;
      }
      got += read.bytes;
    }
    state.SetIterationTime(Seconds(spent));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(message.size()));
}

BENCHMARK(TlsHandshakeFull)->UseManualTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(TlsHandshakeResumed)->UseManualTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(TlsWrite)->Arg(64)->Arg(4096)->Arg(1024 * 1024)->UseManualTime();
BENCHMARK(TlsRead)->Arg(64)->Arg(4096)->Arg(1024 * 1024)->UseManualTime();

}  // namespace
}  // namespace sluice::tls
