#include "proxy/takeover/giver.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <utility>
#include <vector>

#include "proxy/net/event.h"
#include "proxy/takeover/channel.h"

namespace sluice::takeover {
namespace {

// Tells a connection that is not served why. What the socket does not take at once is dropped: the
// other end then learns from the end of the stream.
void TellRefused(UniqueFd fd, const std::string& why) noexcept {
  Channel channel(std::move(fd));
  channel.Queue(RefusedMessage(why));
  static_cast<void>(channel.Flush());
}

std::string Seconds(Millis time) {
  std::string text = std::to_string(time.count() / 1000);
  if (const auto rest = time.count() % 1000; rest != 0) {
    text += "." + std::to_string(1000 + rest).substr(1);
  }
  return text + " s";
}

}  // namespace

// The connection to the one process that takes over.
class Giver::Successor final : public net::Mortal {
 public:
  Successor(Giver& giver, UniqueFd fd, const Peer& peer, bool started_here)
      : giver_(giver), channel_(std::move(fd)), peer_(peer), started_here_(started_here) {
    Register(EV_READ);
    deadline_.Arm<&Successor::OnDeadline>(
        giver_.loop_.base(), started_here ? giver_.limits_.ready : giver_.limits_.hello, this);
  }

  // No callback after this; the connection is closed.
  void End() noexcept {
    event_.Remove();
    deadline_.Cancel();
    channel_.Close();
  }

 private:
  enum class State : std::uint8_t { kHello, kOffered, kDone };

  void Register(short what) noexcept {
    event_.Add<&Successor::OnEvent>(giver_.loop_.base(), channel_.fd(),
                                    static_cast<short>(what | EV_PERSIST), this);
  }

  void OnEvent(short what) noexcept {
    if ((what & EV_WRITE) != 0 && !Flush()) {
      return;
    }
    if ((what & EV_READ) == 0 || state_ == State::kDone) {
      return;
    }
    auto received = channel_.Receive();
    if (!received) {
      OnBroken(received.error());
    } else if (*received) {
      OnMessage(**received);
    }
  }

  void OnMessage(const Message& message) noexcept {
    if (state_ == State::kHello) {
      OnHello(message);
    } else {
      OnReadyMessage(message);
    }
  }

  void OnHello(const Message& message) noexcept {
    const auto hello = ParseHello(message);
    if (!hello) {
      Drop(hello.error().message);
      return;
    }
    // The kernel's word counts more, but of a socketpair it is ourselves, and of a process in
    // another pid namespace it has none.
    if (started_here_ || peer_.pid == 0) {
      peer_.pid = hello->pid;
    }
    hello_pid_ = hello->pid;
    if (const auto why = giver_.sink_.MayTake(peer_.pid, hello->version)) {
      Refuse(*why);
      return;
    }
    auto messages = giver_.PrepareOffer();
    if (!messages) {
      Refuse(messages.error().message);
      return;
    }
    for (Message& one : *messages) {
      channel_.Queue(std::move(one));
    }
    state_ = State::kOffered;
    deadline_.Arm<&Successor::OnDeadline>(giver_.loop_.base(), giver_.limits_.ready, this);
    Flush();
  }

  void OnReadyMessage(const Message& message) noexcept {
    const auto pid = ParseReady(message);
    if (!pid) {
      Drop(pid.error().message);
      return;
    }
    if (*pid != hello_pid_) {
      Drop("process " + std::to_string(*pid) + " says ready, but process " +
           std::to_string(hello_pid_) + " said hello");
      return;
    }
    if (channel_.has_pending()) {
      Drop("it says ready and has not read the offer");
      return;
    }
    // Who said ready and ended must not stop us.
    const auto next = channel_.Receive();
    if (!next) {
      OnBroken(next.error());
      return;
    }
    if (*next) {
      Drop("it says more than ready");
      return;
    }
    deadline_.Cancel();
    giver_.HandOver(peer_.pid);
    state_ = State::kDone;
    channel_.Queue(DoneMessage());
    Flush();
  }

  // False: the connection is gone, and this object buried.
  bool Flush() noexcept {
    switch (channel_.Flush()) {
      case net::IoStatus::kOk:
        if (state_ == State::kDone) {
          event_.Remove();  // nothing is waited for any more; the descriptor stays open
        } else {
          Register(EV_READ);
        }
        return true;
      case net::IoStatus::kWouldBlock:
        Register(state_ == State::kDone ? EV_WRITE : EV_READ | EV_WRITE);
        return true;
      case net::IoStatus::kEof:
      case net::IoStatus::kError:
        break;
    }
    if (state_ == State::kDone) {
      event_.Remove();  // it has the sockets, or they are lost with it; there is no way back
      return true;
    }
    OnBroken({"it closed the connection", ECONNRESET});
    return false;
  }

  void OnBroken(const Error& error) noexcept {
    if (error.sys_errno == 0) {
      Drop(error.message);
      return;
    }
    // Nobody is there to be told. Who has said nothing wanted to know whether anybody listens.
    const bool matters = started_here_ || state_ != State::kHello;
    const pid_t pid = peer_.pid;
    Giver& giver = giver_;
    giver.DropSuccessor();
    if (matters) {
      giver.sink_.OnFailed(
          pid, error.sys_errno == ECONNRESET ? "it ended before it was ready" : error.message);
    }
  }

  void OnDeadline(short) noexcept {
    const bool hello = state_ == State::kHello && !started_here_;
    Drop(std::string("it was not ") + (hello ? "heard of" : "ready") + " within " +
         Seconds(hello ? giver_.limits_.hello : giver_.limits_.ready));
  }

  // The other end did something wrong: it is told what, and so is the process.
  void Drop(const std::string& why) noexcept {
    if (state_ == State::kHello && !started_here_) {
      Refuse(why);
      return;
    }
    const pid_t pid = peer_.pid;
    Giver& giver = giver_;
    TellAndEnd(why);
    giver.sink_.OnFailed(pid, why);
  }

  void Refuse(const std::string& why) noexcept {
    const Peer peer = peer_;
    Giver& giver = giver_;
    TellAndEnd(why);
    giver.sink_.OnRefused(peer.uid, peer.pid, why);
  }

  void TellAndEnd(const std::string& why) noexcept {
    // Behind a half-sent offer it would be read as a part of it.
    if (!channel_.has_pending()) {
      channel_.Queue(RefusedMessage(why));
      static_cast<void>(channel_.Flush());
    }
    giver_.DropSuccessor();
  }

  Giver& giver_;
  Channel channel_;
  Peer peer_;
  bool started_here_;
  State state_ = State::kHello;
  pid_t hello_pid_ = 0;
  net::Event event_;
  net::Timer deadline_;
};

Giver::Giver(net::Loop& loop, GiverSink& sink, GiverLimits limits)
    : loop_(loop), sink_(sink), limits_(limits) {}

Giver::~Giver() {
  StopListening(/*remove_file=*/true);
}

Result<void> Giver::Listen(const std::string& path) {
  auto fd = ListenOn(path);
  if (!fd) {
    return tl::unexpected(fd.error());
  }
  owns_file_ = true;
  return Use(std::move(*fd), path);
}

Result<void> Giver::AdoptListener(UniqueFd fd) {
  auto path = PathOfListener(fd.get());
  if (!path) {
    return tl::unexpected(path.error());
  }
  owns_file_ = false;
  return Use(std::move(fd), std::move(*path));
}

Result<void> Giver::Use(UniqueFd listening, std::string path) {
  assert(listener_ == nullptr && !handed_over_);
  struct stat file {};
  if (::lstat(path.c_str(), &file) != 0) {
    return SysErr("cannot find the takeover socket " + path, errno);
  }
  file_device_ = file.st_dev;
  file_inode_ = file.st_ino;
  path_ = std::move(path);
  listening_ = listening.get();
  ::fcntl(listening_, F_SETFL, ::fcntl(listening_, F_GETFL) | O_NONBLOCK);
  net::AcceptSink& sink = *this;  // a private base: make_unique cannot convert to it
  listener_ = std::make_unique<net::Listener>(loop_, std::move(listening), 0, sink);
  return {};
}

Result<void> Giver::AdoptConnection(UniqueFd fd, pid_t pid) {
  if (const auto valid = CheckConnection(fd.get()); !valid) {
    return tl::unexpected(valid.error());
  }
  const auto peer = PeerOf(fd.get());
  if (!peer) {
    return tl::unexpected(peer.error());
  }
  if (auto why = ReasonToRefuse(*peer)) {
    TellRefused(std::move(fd), *why);
    return Err(std::move(*why));
  }
  successor_ = std::make_unique<Successor>(*this, std::move(fd), Peer{peer->uid, pid},
                                           /*started_here=*/true);
  return {};
}

Result<UniqueFd> Giver::DuplicateListener() {
  assert(listener_ != nullptr);
  UniqueFd fd(::fcntl(listening_, F_DUPFD_CLOEXEC, 0));
  if (!fd.valid()) {
    return SysErr("cannot duplicate the takeover socket " + path_, errno);
  }
  offered_listener_ = true;
  return fd;
}

void Giver::OnAccept(net::Listener&, UniqueFd fd, const net::Address&) noexcept {
  const auto peer = PeerOf(fd.get());
  if (!peer) {
    return;  // without an identity it is nobody
  }
  if (const auto why = ReasonToRefuse(*peer)) {
    TellRefused(std::move(fd), *why);
    sink_.OnRefused(peer->uid, peer->pid, *why);
    return;
  }
  successor_ = std::make_unique<Successor>(*this, std::move(fd), *peer, /*started_here=*/false);
}

void Giver::OnAcceptPaused(net::Listener&, int) noexcept {}

std::optional<std::string> Giver::ReasonToRefuse(const Peer& peer) const {
  if (peer.uid != ::geteuid()) {
    return "user " + std::to_string(peer.uid) + " may not take over a process of user " +
           std::to_string(::geteuid());
  }
  if (handed_over_) {
    return "this process was taken over already";
  }
  if (successor_) {
    return "another process is taking over right now";
  }
  return std::nullopt;
}

Result<std::vector<Message>> Giver::PrepareOffer() noexcept {
  offered_listener_ = false;
  auto offer = sink_.MakeOffer();
  if (!offer) {
    return tl::unexpected(offer.error());
  }
  return ToMessages(std::move(*offer));
}

void Giver::HandOver(pid_t successor) noexcept {
  sink_.OnReady(successor);
  handed_over_ = true;
  // Connections that are queued wait for the successor, which has the same socket.
  StopListening(/*remove_file=*/!offered_listener_);
}

void Giver::StopListening(bool remove_file) noexcept {
  if (!listener_) {
    return;
  }
  struct stat file {};
  if (remove_file && owns_file_ && ::lstat(path_.c_str(), &file) == 0 &&
      file.st_dev == file_device_ && file.st_ino == file_inode_) {
    ::unlink(path_.c_str());
  }
  listener_.reset();
  listening_ = -1;
  path_.clear();
}

void Giver::DropSuccessor() noexcept {
  successor_->End();
  loop_.Bury(std::move(successor_));
}

}  // namespace sluice::takeover
