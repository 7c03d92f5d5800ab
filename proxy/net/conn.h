// One socket with its transport: reads for its owner, writes first and keeps what the kernel
// refuses, pauses reading for reasons, finishes the write direction after the last byte.
//
// Owned by a session (or by whoever speaks over it), used in its loop's thread only.
//
// The socket is registered level-triggered: EV_READ while reading is not paused, EV_WRITE only
// while something waits to be written. A message that the peer takes at once costs one recv and
// one send and no epoll_ctl. Edge-triggered registration makes the same calls, but through
// libevent 2.1 it cannot tell a reset that arrives together with data from plain readiness
// (EPOLLERR comes out as EV_READ|EV_WRITE), so a short read would have to be followed by a second
// recv each time, or such a session would stay open for ever.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "proxy/base/unique_fd.h"
#include "proxy/net/event.h"
#include "proxy/net/io_result.h"
#include "proxy/net/loop.h"
#include "proxy/net/out_buffer.h"
#include "proxy/net/transport.h"

namespace sluice::net {

class Conn;

// What a Conn tells its owner. Any of these may close the conn or retire the owner; memory stays
// valid until the end of the turn, so the caller only has to look at open() afterwards.
class ConnSink {
 public:
  // There is something to Read(): bytes, the peer's EOF or an error.
  virtual void OnReadable(Conn& conn) noexcept = 0;
  // Something that waited was written, or writing failed for good (write_failed()).
  virtual void OnWritable(Conn& conn) noexcept = 0;
  // The connection that OpenConnecting began is made (0) or has failed (an errno).
  virtual void OnConnected(Conn& conn, int error) noexcept = 0;

 protected:
  ~ConnSink() = default;
};

// Why a conn is not read. It is read again when the last reason is gone.
enum class Pause : std::uint8_t {
  kPeerFull = 1,   // the other side's out buffer is above its high watermark
  kHandshake = 2,  // what comes now belongs to a state that has not begun
  kDraining = 4,   // no new message is to be started
  kRate = 8,       // it sends faster than it may
};

enum class PeerEnd : std::uint8_t {
  kNone,
  kFinished,  // its direction: a FIN has come
  kGone,      // a reset, or both directions are over
};

class Conn final : public Mortal {
 public:
  Conn(Loop& loop, ConnSink& sink) noexcept : loop_(loop), sink_(&sink) {}
  ~Conn() override { Close(); }

  // Takes over a connected socket and begins to read. `transport` may be null: plain.
  void Open(UniqueFd fd, std::unique_ptr<Transport> transport);

  // Takes over a socket whose connect is under way; OnConnected tells how it ended.
  void OpenConnecting(UniqueFd fd);

  // From here on everything goes through `transport`. What was written before it goes in plain
  // text. REQUIRES: open(), not connecting(), nothing is pending, and nothing has been read.
  void Attach(std::unique_ptr<Transport> transport) noexcept;

  // Takes the transport's handshake one step further; see Transport::Handshake.
  // REQUIRES: there is a transport, and its handshake is not done.
  [[nodiscard]] IoStatus Handshake() noexcept;

  // From here on `sink` is told: the conn has another owner.
  void ReportTo(ConnSink& sink) noexcept { sink_ = &sink; }

  // One read of at most into.size() bytes. After kEof or kError the conn is not read again. Without
  // a transport kEof is the peer's FIN, and a reset is kError although writing has noticed it
  // first.
  [[nodiscard]] IoResult Read(std::span<std::byte> into) noexcept;

  // Sends what the kernel takes now and keeps the rest; false when writing has failed for good
  // (then and from then on bytes are dropped). May leave pending() above any watermark: the owner
  // stops reading the source.
  bool Write(Bytes bytes) noexcept;

  // pending(), and what the kernel has of it that the peer has not acknowledged. Asks the kernel.
  // Under TLS that part is of the stream as it is encrypted. REQUIRES: open().
  [[nodiscard]] std::size_t unacknowledged() const noexcept;

  // Something waits to be read, if only the end of the stream. Asks the kernel, so it
  // tells also what was not read because of a pause. REQUIRES: open().
  [[nodiscard]] bool HasInput() const noexcept;

  // No more than this waits to be read; less than TLS makes of it. Asks the kernel.
  // REQUIRES: open().
  [[nodiscard]] std::size_t MostInput() const noexcept;

  // How far the peer has ended, also behind bytes that were not read. Asks the kernel.
  // REQUIRES: open().
  [[nodiscard]] PeerEnd peer_end() const noexcept;

  // Moves at most `most` bytes from this socket to `to` without bringing them into memory, for
  // pieces so large that copying them costs more than two calls of splice(2). Read() and Write() in
  // one: what the kernel of `to` refuses waits in a pipe and counts as its pending(), and writing
  // may fail for good (to.write_failed()). kOk with bytes > 0: so many have left this socket.
  // kWouldBlock: nothing is there, or `to` has no room; with to.pending() > 0 the caller stops
  // reading until that is gone. Nothing at all: not possible now (TLS, bytes that wait in memory,
  // no pipe to be had), so the bytes have to be copied.
  [[nodiscard]] std::optional<IoResult> SpliceTo(Conn& to, std::size_t most) noexcept;

  // After everything pending: close_notify if there is TLS, then FIN. Nothing may be written
  // afterwards. Idempotent.
  void FinishWrite() noexcept;

  // Ends the write direction as it stands: FIN behind what the kernel has, and what is pending is
  // dropped, without TLS's own end too, so that the peer sees that something is missing. Nothing
  // may be written afterwards. Idempotent.
  void CutWrite() noexcept;

  void PauseRead(Pause reason) noexcept;
  void ResumeRead(Pause reason) noexcept;
  [[nodiscard]] bool IsPaused(Pause reason) const noexcept {
    return (paused_ & static_cast<std::uint8_t>(reason)) != 0;
  }
  // For whatever reason.
  [[nodiscard]] bool is_paused() const noexcept { return paused_ != 0; }

  // Closes the socket at once, what is pending is dropped. Idempotent.
  void Close() noexcept;

  // Close() towards a peer that is not there any more: what the kernel still holds for it is
  // dropped too, instead of being sent again and again for a quarter of an hour.
  void Abort() noexcept;

  [[nodiscard]] bool open() const noexcept { return fd_.valid(); }
  [[nodiscard]] bool connecting() const noexcept { return connecting_; }
  [[nodiscard]] bool read_ended() const noexcept { return read_ended_; }
  [[nodiscard]] bool write_failed() const noexcept { return write_failed_; }
  [[nodiscard]] bool write_finished() const noexcept { return fin_sent_; }
  // FinishWrite was called.
  [[nodiscard]] bool write_finishing() const noexcept { return fin_wanted_; }

  // Bytes that wait for the kernel; none once writing has failed.
  [[nodiscard]] std::size_t pending() const noexcept {
    return write_failed_
               ? 0
               : (backlog_ ? backlog_->size() : 0) + (transport_ ? transport_->pending() : 0);
  }

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] Transport* transport() const noexcept { return transport_.get(); }

 private:
  // What the kernel has refused, in this order.
  struct Backlog {
    std::unique_ptr<Pipe> pipe;  // spliced bytes; null: none
    OutBuffer bytes;

    [[nodiscard]] std::size_t size() const noexcept {
      return bytes.size() + (pipe ? pipe->size() : 0);
    }
  };

  void OnEvent(short what) noexcept;
  void Flush() noexcept;
  [[nodiscard]] IoStatus FlushBacklog() noexcept;
  [[nodiscard]] IoResult WriteSome(Bytes bytes) noexcept;
  void Keep(Bytes bytes);
  void DropBacklog() noexcept;
  void FailWrite() noexcept;
  void DropWrites() noexcept;
  [[nodiscard]] IoStatus EndRead(IoStatus end) noexcept;
  void NotePending() noexcept;
  void UpdateInterest() noexcept;
  void ReadHidden() noexcept;

  // Two of these make most of an idle session's memory.
  Loop& loop_;
  ConnSink* sink_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Backlog> backlog_;  // null: nothing waits here
  UniqueFd fd_;
  std::uint32_t noted_pending_ = 0;  // what loop_'s total counts for this conn
  std::uint8_t interest_ = 0;        // EV_READ, EV_WRITE: what event_ is registered for
  std::uint8_t paused_ = 0;          // bits of Pause
  bool connecting_ : 1 = false;
  bool read_ended_ : 1 = false;
  bool write_failed_ : 1 = false;
  bool reset_ : 1 = false;  // writing was told that the connection is lost
  bool fin_wanted_ : 1 = false;
  bool notify_written_ : 1 = false;  // the transport has written its own end
  bool fin_sent_ : 1 = false;
  Event event_;  // after fd_: removed before the descriptor closes
};

}  // namespace sluice::net
