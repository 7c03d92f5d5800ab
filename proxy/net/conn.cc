#include "proxy/net/conn.h"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cassert>
#include <cerrno>
#include <utility>

#include "proxy/net/socket.h"

namespace sluice::net {

void Conn::Open(UniqueFd fd, std::unique_ptr<Transport> transport) {
  assert(!open());
  fd_ = std::move(fd);
  transport_ = std::move(transport);
  UpdateInterest();
}

void Conn::OpenConnecting(UniqueFd fd) {
  assert(!open());
  fd_ = std::move(fd);
  connecting_ = true;
  UpdateInterest();
}

void Conn::Attach(std::unique_ptr<Transport> transport) noexcept {
  assert(open() && !connecting_ && !transport_ && pending() == 0);
  transport_ = std::move(transport);
}

IoStatus Conn::Handshake() noexcept {
  const IoStatus status = transport_->Handshake();
  NotePending();
  UpdateInterest();
  return status;
}

IoResult Conn::Read(std::span<std::byte> into) noexcept {
  if (!open() || read_ended_) {
    return {IoStatus::kError, 0};
  }
  IoResult result = transport_ ? transport_->Read(into) : Receive(fd_.get(), into);
  if (result.status == IoStatus::kEof || result.status == IoStatus::kError) {
    result.status = EndRead(result.status);
  } else if (transport_) {
    // Reading may have made OpenSSL write (an alert, a KeyUpdate).
    NotePending();
    UpdateInterest();
    ReadHidden();
  }
  return result;
}

IoResult Conn::WriteSome(Bytes bytes) noexcept {
  return transport_ ? transport_->Write(bytes) : Send(fd_.get(), bytes);
}

std::size_t Conn::unacknowledged() const noexcept {
  int queued = 0;
  if (::ioctl(fd_.get(), SIOCOUTQ, &queued) != 0) {
    queued = 0;
  }
  return pending() + static_cast<std::size_t>(queued);
}

bool Conn::HasInput() const noexcept {
  if (transport_ && transport_->HasBuffered()) {
    return true;
  }
  pollfd one{fd_.get(), POLLIN, 0};
  return ::poll(&one, 1, 0) > 0;
}

std::size_t Conn::MostInput() const noexcept {
  return Readable(fd_.get()) + (transport_ ? Transport::kMostBuffered : 0);
}

PeerEnd Conn::peer_end() const noexcept {
  pollfd one{fd_.get(), POLLRDHUP, 0};
  ::poll(&one, 1, 0);
  if ((one.revents & (POLLERR | POLLHUP)) != 0) {
    return PeerEnd::kGone;
  }
  return (one.revents & POLLRDHUP) != 0 ? PeerEnd::kFinished : PeerEnd::kNone;
}

bool Conn::Write(Bytes bytes) noexcept {
  assert(!fin_wanted_);
  if (!open() || write_failed_ || fin_wanted_) {
    return false;
  }
  if (!backlog_ && !connecting_) {
    const IoResult result = WriteSome(bytes);
    if (result.status == IoStatus::kError) {
      FailWrite();
      return false;
    }
    if (result.bytes == bytes.size() && (!transport_ || transport_->pending() == 0)) {
      return true;
    }
    bytes = bytes.subspan(result.bytes);
  }
  Keep(bytes);
  NotePending();
  UpdateInterest();
  return true;
}

std::optional<IoResult> Conn::SpliceTo(Conn& to, std::size_t most) noexcept {
  if (!open() || read_ended_ || transport_ || !to.open() || to.transport_ || to.connecting_ ||
      to.write_failed_ || to.fin_wanted_) {
    return std::nullopt;
  }
  if (!to.backlog_) {
    std::unique_ptr<Pipe> pipe = loop_.pipes().Borrow();
    if (!pipe) {
      return std::nullopt;
    }
    to.backlog_ = std::make_unique<Backlog>();
    to.backlog_->pipe = std::move(pipe);
  } else if (!to.backlog_->pipe || !to.backlog_->bytes.empty()) {
    return std::nullopt;
  }
  std::optional<IoResult> got = to.backlog_->pipe->Fill(fd_.get(), most);
  if (to.backlog_->size() > 0 && to.FlushBacklog() == IoStatus::kError) {
    to.FailWrite();
  } else {
    if (to.backlog_->size() == 0) {
      to.DropBacklog();
    }
    to.NotePending();
    to.UpdateInterest();
  }
  if (got && (got->status == IoStatus::kEof || got->status == IoStatus::kError)) {
    got->status = EndRead(got->status);
  }
  return got;
}

void Conn::Keep(Bytes bytes) {
  if (bytes.empty()) {
    return;  // taken by the transport, which keeps its ciphertext itself
  }
  if (!backlog_) {
    backlog_ = std::make_unique<Backlog>();
  }
  backlog_->bytes.Append(bytes);
}

void Conn::DropBacklog() noexcept {
  if (backlog_ && backlog_->pipe) {
    loop_.pipes().Return(std::move(backlog_->pipe));
  }
  backlog_.reset();
}

void Conn::FinishWrite() noexcept {
  if (fin_wanted_ || !open()) {
    return;
  }
  fin_wanted_ = true;
  if (pending() == 0 && !connecting_) {
    Flush();
    UpdateInterest();
  }
}

void Conn::CutWrite() noexcept {
  if (fin_sent_ || !open()) {
    return;
  }
  fin_wanted_ = true;
  fin_sent_ = true;
  ::shutdown(fd_.get(), SHUT_WR);
  DropWrites();
}

void Conn::Flush() noexcept {
  if (write_failed_ || connecting_) {
    return;
  }
  for (;;) {
    if (transport_ && transport_->pending() > 0) {
      const IoStatus status = transport_->Flush();
      if (status == IoStatus::kError) {
        FailWrite();
        return;
      }
      if (status == IoStatus::kWouldBlock) {
        return;
      }
    }
    if (!backlog_) {
      break;
    }
    const IoStatus status = FlushBacklog();
    if (status == IoStatus::kError) {
      FailWrite();
      return;
    }
    if (status == IoStatus::kWouldBlock) {
      return;
    }
    if (backlog_->size() == 0) {
      DropBacklog();
    }
  }
  if (fin_wanted_ && !fin_sent_) {
    if (transport_ && !notify_written_) {
      notify_written_ = true;
      transport_->Shutdown();
      if (transport_->pending() > 0) {
        return;  // FIN follows it; Flush is called again when the kernel takes more
      }
    }
    fin_sent_ = true;
    ::shutdown(fd_.get(), SHUT_WR);
  }
}

// One step: kOk when something has gone.
IoStatus Conn::FlushBacklog() noexcept {
  if (backlog_->pipe) {
    const IoStatus status = backlog_->pipe->Drain(fd_.get()).status;
    if (backlog_->pipe->size() == 0) {
      loop_.pipes().Return(std::move(backlog_->pipe));
    }
    return status;
  }
  const IoResult result = WriteSome(backlog_->bytes.front());
  backlog_->bytes.Consume(result.bytes);
  return result.status == IoStatus::kOk && result.bytes == 0 ? IoStatus::kWouldBlock
                                                             : result.status;
}

// The kernel tells of a reset once, to whatever call comes first; a read behind that gets the end
// of the stream, as if the peer had sent a FIN.
IoStatus Conn::EndRead(IoStatus end) noexcept {
  read_ended_ = true;
  UpdateInterest();
  return reset_ ? IoStatus::kError : end;
}

// REQUIRES: errno is that of the call that failed. Writing to a peer that has sent its FIN and is
// gone fails with EPIPE: what it sent is whole. With any other error (ECONNRESET, ETIMEDOUT,
// EHOSTUNREACH) the connection is lost.
void Conn::FailWrite() noexcept {
  reset_ = !transport_ && errno != EPIPE;
  DropWrites();
}

// What waits is dropped, and so is what would be written from here on.
void Conn::DropWrites() noexcept {
  write_failed_ = true;
  DropBacklog();
  NotePending();
  UpdateInterest();
}

void Conn::PauseRead(Pause reason) noexcept {
  paused_ = static_cast<std::uint8_t>(paused_ | static_cast<std::uint8_t>(reason));
  UpdateInterest();
}

void Conn::ResumeRead(Pause reason) noexcept {
  const std::uint8_t before = paused_;
  paused_ = static_cast<std::uint8_t>(paused_ & ~static_cast<std::uint8_t>(reason));
  if (before == paused_) {
    return;
  }
  UpdateInterest();
  ReadHidden();
}

// Plaintext that OpenSSL holds does not make the socket readable.
void Conn::ReadHidden() noexcept {
  if ((interest_ & EV_READ) != 0 && transport_ && transport_->HasBuffered()) {
    event_.Activate(EV_READ);
  }
}

void Conn::Close() noexcept {
  if (!open()) {
    return;
  }
  event_.Remove();
  interest_ = 0;
  transport_.reset();
  DropBacklog();
  NotePending();
  fd_.Reset();
  connecting_ = false;
  read_ended_ = true;
}

void Conn::Abort() noexcept {
  if (open()) {
    const linger at_once{1, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    Close();
  }
}

void Conn::NotePending() noexcept {
  const std::size_t now = pending();
  loop_.AddBuffered(static_cast<std::int64_t>(now) - static_cast<std::int64_t>(noted_pending_));
  noted_pending_ = static_cast<std::uint32_t>(now);
}

void Conn::UpdateInterest() noexcept {
  std::uint8_t wanted = 0;
  if (connecting_) {
    wanted = EV_WRITE;
  } else if (open()) {
    const bool read = paused_ == 0 && !read_ended_;
    const bool write = !write_failed_ && pending() > 0;
    wanted = static_cast<std::uint8_t>((read ? EV_READ : 0) | (write ? EV_WRITE : 0));
  }
  if (wanted == interest_) {
    return;
  }
  interest_ = wanted;
  if (wanted == 0) {
    event_.Remove();
  } else {
    event_.Add<&Conn::OnEvent>(loop_.base(), fd_.get(), static_cast<short>(wanted | EV_PERSIST),
                               this);
    ReadHidden();  // registering anew has taken back what was activated
  }
}

void Conn::OnEvent(short what) noexcept {
  if (connecting_) {
    connecting_ = false;
    const int error = ConnectError(fd_.get());
    if (error == 0) {
      Flush();  // also the FIN that FinishWrite could not send yet
      NotePending();
    }
    UpdateInterest();
    sink_->OnConnected(*this, error);
    return;
  }
  if ((what & EV_WRITE) != 0) {
    Flush();
    NotePending();
    UpdateInterest();
    sink_->OnWritable(*this);
  }
  if ((what & EV_READ) != 0 && open() && !read_ended_ && paused_ == 0) {
    sink_->OnReadable(*this);
  }
}

}  // namespace sluice::net
