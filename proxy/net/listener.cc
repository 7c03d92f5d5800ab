#include "proxy/net/listener.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace sluice::net {
namespace {

// More would let a reconnect storm keep live sessions waiting for a whole queue of accepts.
constexpr int kAcceptsPerTurn = 64;

// Long enough not to spin, short enough that freed descriptors are used within 100 ms, also when
// the first try after they are free finds them taken by connections to backends.
constexpr Millis kRest{20};

}  // namespace

Listener::Listener(Loop& loop, UniqueFd fd, std::size_t tag, AcceptSink& sink,
                   FdReserve* reserve) noexcept
    : loop_(loop), sink_(sink), fd_(std::move(fd)), tag_(tag), reserve_(reserve) {
  event_.Add<&Listener::OnEvent>(loop_.base(), fd_.get(), EV_READ | EV_PERSIST, this);
}

void Listener::Close() noexcept {
  if (closing_) {
    return;
  }
  closing_ = true;
  event_.Remove();
  rest_.Cancel();
  // Bounded by the queue's length: nothing is added for long once we hold the processor here.
  constexpr int kQueueMost = 8192;
  AcceptSome(kQueueMost);
  fd_.Reset();
}

// One connection, and as long as more are waiting twice as many each turn: so a storm is taken in
// few turns, and outside of one no call is spent on learning that the queue is empty.
void Listener::OnEvent(short) noexcept {
  at_once_ = AcceptSome(at_once_) ? std::min(at_once_ * 2, kAcceptsPerTurn) : 1;
}

void Listener::OnRested(short) noexcept {
  event_.Add<&Listener::OnEvent>(loop_.base(), fd_.get(), EV_READ | EV_PERSIST, this);
}

bool Listener::AcceptSome(int most) noexcept {
  for (int i = 0; i < most; ++i) {
    Address peer;
    socklen_t size = Address::kMaxSize;
    UniqueFd fd(::accept4(fd_.get(), peer.raw(), &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.valid()) {
      if (errno == EMFILE && reserve_ != nullptr && reserve_->Give()) {
        --i;
        continue;
      }
      switch (errno) {
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
          sink_.OnAcceptPaused(*this, errno);
          if (!closing_) {
            event_.Remove();
            rest_.Arm<&Listener::OnRested>(loop_.base(), kRest, this);
          }
          return false;
        case EAGAIN:
          return false;
        default:
          continue;  // ECONNABORTED and the like concern that one connection only
      }
    }
    sink_.OnAccept(*this, std::move(fd), peer);
  }
  return true;
}

}  // namespace sluice::net
