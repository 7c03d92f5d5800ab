// One check of one backend over a connection of its own: connects, carries the bytes of a Dialogue
// and tells what came of it. Lives on the control thread's loop; used once, buried by its owner.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "proxy/base/unique_fd.h"
#include "proxy/health/check.h"
#include "proxy/health/dialogue.h"
#include "proxy/net/address.h"
#include "proxy/net/conn.h"
#include "proxy/net/event.h"
#include "proxy/net/loop.h"

namespace sluice::health {

// TLS to the backend that is checked, by whoever has its authorities and certificates.
struct ProbeTls {
  // The client's side of TLS over a connected socket; null: memory is out.
  std::function<std::unique_ptr<net::Transport>(int fd)> connect;
  // Why the last handshake over one of those failed; empty: the connection ended.
  std::function<std::string_view()> failure;
};

class ProbeSink {
 public:
  // The probe is over and its connection closed. It is not called again.
  virtual void OnProbeDone(const CheckResult& result) noexcept = 0;

 protected:
  ~ProbeSink() = default;
};

class Probe final : public net::Mortal, private net::ConnSink {
 public:
  // `check`, `tls` and `sink` outlive the probe; `tls` is used if the check asks for it.
  Probe(net::Loop& loop, const Check& check, const ProbeTls& tls, const net::Address& address,
        ProbeSink& sink);

  // May report at once.
  void Start() noexcept;

 private:
  void OnReadable(net::Conn& conn) noexcept override;
  void OnWritable(net::Conn& conn) noexcept override;
  void OnConnected(net::Conn& conn, int error) noexcept override;

  void BeginHandshake() noexcept;
  void StepHandshake() noexcept;
  void BeginDialogue() noexcept;
  void Step() noexcept;
  void OnTimer(short what) noexcept;
  void Finish(const CheckResult& result) noexcept;

  net::Loop& loop_;
  const Check& check_;
  const ProbeTls& tls_;
  net::Address address_;
  ProbeSink& sink_;
  Dialogue dialogue_;
  net::Conn conn_;
  net::Timer timer_;
  Instant due_{};
  bool handshaking_ = false;
};

}  // namespace sluice::health
