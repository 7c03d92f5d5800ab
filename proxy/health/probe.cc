#include "proxy/health/probe.h"

#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include <openssl/rand.h>

#include "proxy/net/socket.h"

namespace sluice::health {
namespace {

// A deadline that is noticed so late was missed by this thread, which a reload may keep busy with
// looking names up, and tells nothing of the backend.
constexpr Millis kStall{1'000};

Nonces DrawNonces() noexcept {
  Nonces nonces;
  const auto fill = [](std::span<std::byte> out) {
    // OpenSSL's generator seeds itself from the kernel and does not fail once it is seeded.
    static_cast<void>(
        RAND_bytes(reinterpret_cast<unsigned char*>(out.data()), static_cast<int>(out.size())));
  };
  fill(nonces.key);
  fill(nonces.ping);
  for (ws::MaskKey& mask : nonces.masks) {
    fill(mask);
  }
  return nonces;
}

std::string ConnectFailed(int sys_errno) {
  return "connect: " + std::string(std::strerror(sys_errno));
}

}  // namespace

Probe::Probe(net::Loop& loop, const Check& check, const ProbeTls& tls, const net::Address& address,
             ProbeSink& sink)
    : loop_(loop),
      check_(check),
      tls_(tls),
      address_(address),
      sink_(sink),
      dialogue_(check, DrawNonces()),
      conn_(loop, *this) {}

void Probe::Start() noexcept {
  due_ = Now() + check_.timeout;
  timer_.Arm<&Probe::OnTimer>(loop_.base(), check_.timeout, this);
  auto fd = net::StartConnect(address_);
  if (!fd) {
    const int error = fd.error().sys_errno;
    Finish({false, ConnectFailed(error), !net::IsOwnShortage(error)});
    return;
  }
  conn_.OpenConnecting(std::move(*fd));
}

void Probe::OnConnected(net::Conn&, int error) noexcept {
  if (error != 0) {
    Finish({false, ConnectFailed(error)});
    return;
  }
  if (check_.tls && check_.type != CheckType::kTcp) {
    BeginHandshake();
  } else {
    BeginDialogue();
  }
}

// The preamble goes in clear: it is for whoever takes the connection, before TLS.
void Probe::BeginHandshake() noexcept {
  if (!check_.preamble.empty() && (!conn_.Write(AsBytes(check_.preamble)) || conn_.pending() > 0)) {
    Finish({false, "connect: the connection takes nothing"});
    return;
  }
  auto transport = tls_.connect(conn_.fd());
  if (!transport) {
    Finish({false, "TLS: out of memory", false});
    return;
  }
  conn_.Attach(std::move(transport));
  handshaking_ = true;
  StepHandshake();
}

void Probe::StepHandshake() noexcept {
  switch (conn_.Handshake()) {
    case net::IoStatus::kWouldBlock:
      return;
    case net::IoStatus::kEof:
    case net::IoStatus::kError: {
      const std::string_view why = tls_.failure();
      Finish({false, "TLS: " + std::string(why.empty() ? "the connection ended" : why)});
      return;
    }
    case net::IoStatus::kOk:
      break;
  }
  handshaking_ = false;
  BeginDialogue();
}

void Probe::BeginDialogue() noexcept {
  dialogue_.OnConnected();
  Step();
}

void Probe::OnReadable(net::Conn& conn) noexcept {
  if (handshaking_) {
    StepHandshake();
    return;
  }
  std::array<std::byte, 16 * 1024> scratch;
  const net::IoResult got = conn.Read(scratch);
  switch (got.status) {
    case net::IoStatus::kOk:
      dialogue_.Take(Bytes(scratch).first(got.bytes));
      break;
    case net::IoStatus::kEof:
      dialogue_.OnEnd(false);
      break;
    case net::IoStatus::kError:
      dialogue_.OnEnd(true);
      break;
    case net::IoStatus::kWouldBlock:
      return;
  }
  Step();
}

void Probe::OnWritable(net::Conn& conn) noexcept {
  if (conn.write_failed()) {
    dialogue_.OnEnd(true);
    Step();
  }
}

void Probe::Step() noexcept {
  if (!dialogue_.result()) {
    if (const std::string out = dialogue_.TakeOutput();
        !out.empty() && !conn_.Write(AsBytes(out))) {
      dialogue_.OnEnd(true);
    }
  }
  if (dialogue_.result()) {
    Finish(*dialogue_.result());
  }
}

void Probe::OnTimer(short) noexcept {
  if (Now() - due_ > kStall) {
    due_ = Now() + check_.timeout;
    timer_.Arm<&Probe::OnTimer>(loop_.base(), check_.timeout, this);
    return;
  }
  dialogue_.OnTimeout();
  Step();
}

void Probe::Finish(const CheckResult& result) noexcept {
  timer_.Cancel();
  conn_.Close();
  sink_.OnProbeDone(result);
}

}  // namespace sluice::health
