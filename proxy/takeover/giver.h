// The old process's side of a takeover: lets one successor at a time have the listening sockets,
// and stops accepting only when the successor does. Until then nothing changes for the clients,
// and a successor that fails leaves no trace but a line in the log.
//
// One for the process, in the control thread's loop. message.h has the conversation.
//
//     kHello --hello, may take--> kOffered --ready--> kDone: the connection stays open, so that its
//        |                           |                       end tells when this process has ended
//        +-- refused, gone, late ----+--> dropped; the next may try
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "proxy/base/clock.h"
#include "proxy/base/result.h"
#include "proxy/base/unique_fd.h"
#include "proxy/net/listener.h"
#include "proxy/net/loop.h"
#include "proxy/takeover/offer.h"
#include "proxy/takeover/unix_socket.h"

namespace sluice::takeover {

// What the giver asks and tells the process. Called in the loop's thread; none may free the giver.
class GiverSink {
 public:
  // Why this process is not to be taken over now, as a sentence that the other is told; nothing:
  // it may be. `version` is what the other says of its program.
  [[nodiscard]] virtual std::optional<std::string> MayTake(pid_t pid,
                                                           const std::string& version) noexcept = 0;

  // Duplicates of all listening sockets, and the facts. The takeover socket itself belongs to it
  // too: Giver::DuplicateListener().
  [[nodiscard]] virtual Result<Offer> MakeOffer() noexcept = 0;

  // The successor accepts: accepting here may end. When it returns, the successor is told, and
  // nobody else can take over.
  virtual void OnReady(pid_t successor) noexcept = 0;

  // A successor to which an offer was made, or which this process has started, ended or was dropped
  // before it was ready. Nothing has changed.
  virtual void OnFailed(pid_t successor, const std::string& why) noexcept = 0;

  // A connection was refused. `pid` is 0 when it is not known.
  virtual void OnRefused(uid_t uid, pid_t pid, const std::string& why) noexcept = 0;

 protected:
  ~GiverSink() = default;
};

struct GiverLimits {
  Millis hello{2'000};   // from a connection to its hello
  Millis ready{60'000};  // from the offer to the ready; also for the hello of a process that this
                         // one has started, which has to start first
};

class Giver final : private net::AcceptSink {
 public:
  // Serves nobody before one of the next three.
  Giver(net::Loop& loop, GiverSink& sink, GiverLimits limits = {});
  // Removes the file of the takeover socket if it is this process's: not when a successor has it,
  // nor while the predecessor still does.
  ~Giver();

  Giver(const Giver&) = delete;
  Giver& operator=(const Giver&) = delete;

  // Listens on a unix socket that only this user may open. A file that a dead process left behind
  // is replaced. An error when somebody answers there, it is no socket, or the path is too long.
  [[nodiscard]] Result<void> Listen(const std::string& path);

  // Goes on with the listening socket of the predecessor: the file never disappears. It stays the
  // predecessor's until TakeFile(), which is called when that has let go of everything.
  [[nodiscard]] Result<void> AdoptListener(UniqueFd fd);
  void TakeFile() noexcept { owns_file_ = true; }

  // Serves a process that this one has started (SpawnSuccessor): `fd` is our end of its socketpair.
  // An error when another takeover is under way or done.
  [[nodiscard]] Result<void> AdoptConnection(UniqueFd fd, pid_t pid);

  // The takeover socket once more, for the offer. When the successor gets ready, the file is its.
  // REQUIRES: path() is not empty.
  [[nodiscard]] Result<UniqueFd> DuplicateListener();

  // Where it listens; empty when it does not.
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

  // A successor is being served and has not been ready yet.
  [[nodiscard]] bool busy() const noexcept { return successor_ != nullptr && !handed_over_; }

  // A successor has been ready and was told so.
  [[nodiscard]] bool handed_over() const noexcept { return handed_over_; }

 private:
  class Successor;

  void OnAccept(net::Listener& listener, UniqueFd fd, const net::Address& peer) noexcept override;
  void OnAcceptPaused(net::Listener& listener, int sys_errno) noexcept override;

  [[nodiscard]] Result<void> Use(UniqueFd listening, std::string path);
  [[nodiscard]] std::optional<std::string> ReasonToRefuse(const Peer& peer) const;
  [[nodiscard]] Result<std::vector<Message>> PrepareOffer() noexcept;
  void HandOver(pid_t successor) noexcept;
  void StopListening(bool remove_file) noexcept;
  void DropSuccessor() noexcept;

  net::Loop& loop_;
  GiverSink& sink_;
  GiverLimits limits_;
  std::unique_ptr<net::Listener> listener_;
  int listening_ = -1;  // owned by listener_
  std::string path_;
  dev_t file_device_ = 0;  // of the file at path_, so that only our own is removed
  ino_t file_inode_ = 0;
  bool owns_file_ = false;
  std::unique_ptr<Successor> successor_;
  bool offered_listener_ = false;  // the offer that was made last has the takeover socket
  bool handed_over_ = false;
};

}  // namespace sluice::takeover
