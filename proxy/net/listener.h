// A listening socket in one worker's loop. Accepts a bounded number of connections a turn, and
// pauses on a timer instead of spinning when the process or the system is out of descriptors.
#pragma once

#include "proxy/base/unique_fd.h"
#include "proxy/net/address.h"
#include "proxy/net/event.h"
#include "proxy/net/fd_reserve.h"
#include "proxy/net/loop.h"

namespace sluice::net {

class Listener;

class AcceptSink {
 public:
  virtual void OnAccept(Listener& listener, UniqueFd fd, const Address& peer) noexcept = 0;
  // accept(2) failed with EMFILE, ENFILE, ENOBUFS or ENOMEM; the listener rests for a moment.
  virtual void OnAcceptPaused(Listener& listener, int sys_errno) noexcept = 0;

 protected:
  ~AcceptSink() = default;
};

class Listener {
 public:
  // `tag` is the owner's: which of its listeners this is. `reserve`: what is accepted with when the
  // process is out of descriptors; outlives the listener; null: none.
  Listener(Loop& loop, UniqueFd fd, std::size_t tag, AcceptSink& sink,
           FdReserve* reserve = nullptr) noexcept;

  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // Accepts what is queued already, then closes: connections that the kernel has completed are
  // served rather than reset.
  void Close() noexcept;

  // True once Close() was called, also while it accepts the last ones.
  [[nodiscard]] bool closing() const noexcept { return closing_; }

  [[nodiscard]] std::size_t tag() const noexcept { return tag_; }

 private:
  void OnEvent(short what) noexcept;
  void OnRested(short what) noexcept;
  // False: the queue was empty before that many, or accepting failed.
  bool AcceptSome(int most) noexcept;

  Loop& loop_;
  AcceptSink& sink_;
  UniqueFd fd_;
  Event event_;
  Timer rest_;
  std::size_t tag_;
  FdReserve* reserve_;
  int at_once_ = 1;  // so many are accepted in one turn
  bool closing_ = false;
};

}  // namespace sluice::net
