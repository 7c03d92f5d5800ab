// What TLS costs the server's side alone: the CPU time inside TlsTransport is counted, that of the
// client, which is in the same thread at the other end of a socketpair, is not. The CPU column of
// these has both; Time is the one to read.
#include <sys/socket.h>
#include <time.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include <benchmark/benchmark.h>

#include "tests/unit/tls/tls_pair.h"

namespace sluice::tls {
namespace {

using net::IoStatus;

struct Fixture {
  Files files;
  TicketKeys keys;
  SharedBuffers buffers;
  std::unique_ptr<ServerContext> context =
      MakeContext({.certificates = {files.Certificate({"bench.test"})}}, keys);
};

std::int64_t ThreadNanos() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
}

// What a pair of readings costs: this clock is a system call.
std::int64_t NanosOfReading() {
  static const std::int64_t nanos = [] {
    constexpr int kReadings = 10'000;
    const std::int64_t begin = ThreadNanos();
    for (int i = 0; i < kReadings; ++i) {
      static_cast<void>(ThreadNanos());
    }
    return (ThreadNanos() - begin) / kReadings;
  }();
  return nanos;
}

// Adds up the time of pieces of work.
class Stopwatch {
 public:
  template <class Work>
  auto Time(Work&& work) {
    const std::int64_t begin = ThreadNanos();
    auto result = work();
    spent_ += ThreadNanos() - begin - NanosOfReading();
    return result;
  }
  [[nodiscard]] double seconds() const noexcept { return static_cast<double>(spent_) * 1e-9; }

 private:
  std::int64_t spent_ = 0;
};

// A whole life of a session: accept, handshake, free.
void Handshakes(benchmark::State& state, SSL_SESSION* resume, Fixture& fixture) {
  for (auto _ : state) {
    Stopwatch watch;
    TlsPair pair(*fixture.context, fixture.buffers,
                 {.sni = "bench.test", .alpn = {"http/1.1"}, .resume = resume});
    pair.server.reset();
    pair.server = watch.Time([&] {
      return TlsTransport::Accept(*fixture.context, pair.server_fd.get(), fixture.buffers);
    });
    for (int turn = 0; turn < 4 && !(pair.client_done && pair.server_status == IoStatus::kOk);
         ++turn) {
      pair.client_done = SSL_do_handshake(pair.client.get()) == 1;
      if (pair.server_status == IoStatus::kWouldBlock) {
        pair.server_status = watch.Time([&] { return pair.server->Handshake(); });
      }
    }
    if (pair.server_status != IoStatus::kOk || !pair.server->is_tls13() ||
        pair.server->resumed() != (resume != nullptr)) {
      state.SkipWithError("not the handshake that was meant");
      break;
    }
    watch.Time([&] {
      pair.server.reset();
      return 0;
    });
    // Leaves in order: freed without, the client's SSL would mark `resume` as bad.
    SSL_set_shutdown(pair.client.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    state.SetIterationTime(watch.seconds());
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
  EXPECT_EQ(pair->server->Write(AsBytes("first")).status, IoStatus::kOk);
  EXPECT_EQ(pair->ClientReads(), "first");  // the ticket came with it
  return pair;
}

// One message from plaintext to the socket; Arg: its bytes. The client drops the ciphertext.
void TlsWrite(benchmark::State& state) {
  Fixture fixture;
  const auto pair = Established(fixture);
  const std::string message(static_cast<std::size_t>(state.range(0)), 'x');
  std::array<char, 64 * 1024> dropped{};
  for (auto _ : state) {
    Stopwatch watch;
    std::size_t taken = 0;
    while (taken < message.size()) {
      const net::IoResult wrote =
          watch.Time([&] { return pair->server->Write(AsBytes(message).subspan(taken)); });
      taken += wrote.bytes;
      if (wrote.status != IoStatus::kOk || pair->server->pending() != 0) {
        state.SkipWithError("the socket refused bytes");
        return;
      }
      while (::recv(pair->client_fd.get(), dropped.data(), dropped.size(), 0) > 0) {
      }
    }
    state.SetIterationTime(watch.seconds());
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
    Stopwatch watch;
    pair->ClientWrites(message);
    std::size_t got = 0;
    while (got < message.size()) {
      const net::IoResult read = watch.Time([&] { return pair->server->Read(scratch); });
      if (read.status != IoStatus::kOk) {
        state.SkipWithError("the message did not arrive");
        return;
      }
      got += read.bytes;
    }
    state.SetIterationTime(watch.seconds());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(message.size()));
}

BENCHMARK(TlsHandshakeFull)->UseManualTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(TlsHandshakeResumed)->UseManualTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(TlsWrite)->Arg(64)->Arg(4096)->Arg(1024 * 1024)->UseManualTime();
BENCHMARK(TlsRead)->Arg(64)->Arg(4096)->Arg(1024 * 1024)->UseManualTime();

}  // namespace
}  // namespace sluice::tls
