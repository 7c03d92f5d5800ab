// One check of one backend over a connection of its own: connects, carries the bytes of a Dialogue
// and tells what came of it. Lives on the control thread's loop; used once, buried by its owner.
#pragma once

#include <cstdint>
#include <memory>

#include "proxy/base/unique_fd.h"
#include "proxy/health/check.h"
#include "proxy/health/dialogue.h"
#include "proxy/net/address.h"
#include "proxy/net/conn.h"
#include "proxy/net/event.h"
#include "proxy/net/loop.h"

namespace sluice::health {

class ProbeSink {
 public:
  // The probe is over and its connection closed. It is not called again.
  virtual void OnProbeDone(const CheckResult& result) noexcept = 0;

 protected:
  ~ProbeSink() = default;
};

class Probe final : public net::Mortal, private net::ConnSink {
 public:
  // `check` and `sink` outlive the probe.
  Probe(net::Loop& loop, const Check& check, const net::Address& address, ProbeSink& sink);

  // May report at once.
  void Start() noexcept;

 private:
  void OnReadable(net::Conn& conn) noexcept override;
  void OnWritable(net::Conn& conn) noexcept override;
  void OnConnected(net::Conn& conn, int error) noexcept override;

  void Open(UniqueFd fd) noexcept;
  void Step() noexcept;
  void OnTimer(short what) noexcept;
  void Finish(const CheckResult& result) noexcept;

  net::Loop& loop_;
  const Check& check_;
  net::Address address_;
  ProbeSink& sink_;
  Dialogue dialogue_;
  net::Conn conn_;
  net::Timer timer_;
  Instant due_{};
};

}  // namespace sluice::health
