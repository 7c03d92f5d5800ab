// Taking over from the process before this one, and being taken over by the next. Part of Server.
//
//   new: TakeOffer, bind what is missing, load all --> workers accept --> FinishTakeover (ready)
//   old: MakeOffer ----------------------------------------------------> OnReady: stops accepting,
//                                                                        drains, ends
//
// Both accept from the same sockets until the old one stops, so that nobody is refused or reset. At
// most two generations: while the old one drains, nobody else takes over.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <utility>

#include "proxy/log/log.h"
#include "proxy/net/socket.h"
#include "proxy/server/server.h"
#include "proxy/systemd/notifier.h"
#include "proxy/takeover/spawn.h"

namespace sluice::server {
namespace {

// For the old process to make its offer, and to stop accepting: both are a few milliseconds of
// work.
constexpr Millis kPatience{10'000};

// For a successor that has failed to end by itself.
constexpr Millis kChildPatience{2'000};

// Of an error: another process is in the way, which is no mistake in the configuration.
constexpr int kNotNow = EBUSY;

constexpr std::string_view kListenerKind = "listener";
constexpr std::string_view kAdminKind = "admin";
constexpr std::string_view kTakeoverKind = "takeover";

takeover::TicketKeyBytes ToBytes(const tls::TicketKey& key) {
  takeover::TicketKeyBytes bytes{};
  auto* at = bytes.data();
  static_assert(sizeof(bytes) == sizeof(key.name) + sizeof(key.aes) + sizeof(key.hmac));
  at = std::copy(key.name.begin(), key.name.end(), at);
  at = std::copy(key.aes.begin(), key.aes.end(), at);
  std::copy(key.hmac.begin(), key.hmac.end(), at);
  return bytes;
}

tls::TicketKey FromBytes(const takeover::TicketKeyBytes& bytes) {
  tls::TicketKey key;
  const auto* at = bytes.data();
  std::copy_n(at, key.name.size(), key.name.begin());
  std::copy_n(at + key.name.size(), key.aes.size(), key.aes.begin());
  std::copy_n(at + key.name.size() + key.aes.size(), key.hmac.size(), key.hmac.begin());
  return key;
}

}  // namespace

// The new process.

// What the running process offers, or nothing when there is none.
Result<std::vector<PassedSocket>> Server::TakeOffer() {
  std::vector<PassedSocket> passed;
  const std::string& path = config_.server.takeover_socket;
  if (!launch_.predecessor && !path.empty()) {
    auto connected = takeover::Taker::Connect(path);
    if (!connected) {
      return tl::unexpected(connected.error());
    }
    launch_.predecessor = std::move(*connected);
  }
  for (systemd::ActivatedSocket& socket : launch_.activated) {
    const net::Address address = net::Address::OfSocket(socket.fd.get());
    if (socket.name == kAdminKind) {
      admin_socket_ = std::move(socket.fd);
    } else {
      passed.push_back({std::move(socket.name), address.Text(), address, std::move(socket.fd),
                        /*by_name=*/true});
    }
  }
  if (!launch_.predecessor) {
    return passed;
  }
  auto offer = launch_.predecessor->Receive(std::string(kVersion), Now() + kPatience);
  if (!offer) {
    return tl::unexpected(Error{offer.error().message, kNotNow});
  }
  predecessor_pid_ = offer->pid;
  generation_ = offer->generation + 1;
  for (takeover::Socket& socket : offer->sockets) {
    if (socket.kind == kListenerKind) {
      const net::Address address = net::Address::OfSocket(socket.fd.get());
      passed.push_back(
          {std::move(socket.name), std::move(socket.address), address, std::move(socket.fd)});
    } else if (socket.kind == kAdminKind) {
      admin_socket_ = std::move(socket.fd);
    } else if (socket.kind == kTakeoverKind) {
      passed_takeover_ = std::move(socket.fd);
      passed_path_ = std::move(socket.address);
    }
  }
  std::vector<tls::TicketKey> keys;
  for (const takeover::TicketKeyBytes& bytes : offer->ticket_keys) {
    keys.push_back(FromBytes(bytes));
  }
  if (!keys.empty()) {
    ticket_keys_.Replace(keys);
  }
  for (const auto& [pool_name, name] : offer->draining_backends) {
    const session::Pool* pool = snapshot_->FindPool(pool_name);
    const balance::Backend* backend = pool == nullptr ? nullptr : pool->FindBackend(name);
    if (backend != nullptr) {
      // Nobody is there yet to be drained, and nobody is to come.
      backend->state->BeginDrain(Now(), Millis(0));
    }
  }
  spdlog::info("taking over from pid={} sockets={} generation={}", predecessor_pid_, passed.size(),
               generation_);
  return passed;
}

// Lets the next one take over.
Result<void> Server::ServeTakeover() {
  takeover::GiverSink& sink = *this;
  giver_ = std::make_unique<takeover::Giver>(loop_, sink);
  const std::string& path = config_.server.takeover_socket;
  if (passed_takeover_.valid() && passed_path_ == path) {
    if (giver_->AdoptListener(std::move(passed_takeover_))) {
      return {};
    }
    spdlog::warn("the takeover socket of the predecessor is not there any more path={}", path);
  }
  return path.empty() ? Result<void>() : giver_->Listen(path);
}

// The workers accept by now: tells the old process to stop.
Result<void> Server::FinishTakeover() {
  if (!launch_.predecessor) {
    return {};
  }
  takeover::Taker taker = std::move(*launch_.predecessor);
  launch_.predecessor.reset();
  if (auto done = taker.SayReady(Now() + kPatience); !done) {
    if (done.error().sys_errno == ECONNRESET) {
      spdlog::warn("the process before this one has ended pid={}", predecessor_pid_);
      OwnTakeoverSocket();
      return {};
    }
    return done;
  }
  OwnTakeoverSocket();
  predecessor_ = taker.TakeConnection();
  predecessor_event_.Add<&Server::OnPredecessor>(loop_.base(), predecessor_.get(),
                                                 EV_READ | EV_PERSIST, this);
  spdlog::info("took over from pid={} generation={}", predecessor_pid_, generation_);
  return {};
}

// The predecessor has let go of everything, so its files are ours.
void Server::OwnTakeoverSocket() {
  ++takeovers_done_;
  giver_->TakeFile();
  if (!passed_takeover_.valid()) {
    return;
  }
  // The path has changed: whoever owns the old file removes it when it goes.
  takeover::GiverSink& sink = *this;
  takeover::Giver old(loop_, sink);
  if (auto adopted = old.AdoptListener(std::move(passed_takeover_)); !adopted) {
    spdlog::warn("the takeover socket of the predecessor stays path={}: {}", passed_path_,
                 adopted.error().message);
    return;
  }
  old.TakeFile();
}

void Server::OnPredecessor(short) noexcept {
  std::array<std::byte, 64> ignored;
  const net::IoResult got = net::Receive(predecessor_.get(), ignored);
  if (got.status == net::IoStatus::kEof || got.status == net::IoStatus::kError) {
    predecessor_event_.Remove();
    predecessor_.Reset();
    spdlog::info("the process before this one has ended pid={}", predecessor_pid_);
  }
}

// The old process.

std::optional<std::string> Server::ReasonAgainstTakeover() const {
  if (draining_) {
    return "process " + std::to_string(::getpid()) + " drains already";
  }
  if (predecessor_.valid() || launch_.predecessor) {
    return "process " + std::to_string(predecessor_pid_) +
           ", from which this one took over, still drains: there are at most two generations";
  }
  return std::nullopt;
}

void Server::OnTakeoverSignal() noexcept {
  auto reason = ReasonAgainstTakeover();
  if (!reason && giver_->busy()) {
    reason = "another takeover is under way";
  }
  if (!reason && child_ != 0) {
    reason = "the last successor has not ended yet";
  }
  if (!reason && launch_.executable.empty()) {
    reason = "this process cannot be started again";
  }
  if (reason) {
    ++takeovers_refused_;
    spdlog::warn("SIGUSR2: no successor is started: {}", *reason);
    return;
  }
  auto spawned = takeover::SpawnSuccessor(launch_.executable, launch_.arguments);
  if (!spawned) {
    ++takeovers_failed_;
    spdlog::error("SIGUSR2: {}", spawned.error().message);
    return;
  }
  child_ = spawned->pid;
  spdlog::info("started a successor pid={} executable={}", child_, launch_.executable);
  if (auto adopted = giver_->AdoptConnection(std::move(spawned->connection), child_); !adopted) {
    ++takeovers_failed_;
    spdlog::error("SIGUSR2: {}", adopted.error().message);
  }
}

void Server::OnChildSignal() noexcept {
  int status = 0;
  if (child_ != 0 && ::waitpid(child_, &status, WNOHANG) == child_) {
    spdlog::warn("the successor has ended pid={} status={}", child_,
                 WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    child_ = 0;
  }
}

void Server::OnChildTimer(short) noexcept {
  child_timer_.Cancel();
  if (child_ != 0) {
    spdlog::warn("ending the successor that did not get ready pid={}", child_);
    ::kill(child_, SIGTERM);
  }
}

std::optional<std::string> Server::MayTake(pid_t pid, const std::string& version) noexcept {
  auto reason = ReasonAgainstTakeover();
  if (!reason) {
    spdlog::info("a successor wants to take over pid={} version={}", pid, version);
  }
  return reason;
}

Result<takeover::Offer> Server::MakeOffer() noexcept {
  takeover::Offer offer;
  offer.pid = ::getpid();
  offer.generation = generation_;
  auto sockets = listeners_.Duplicate();
  if (!sockets) {
    return tl::unexpected(sockets.error());
  }
  for (PassedSocket& one : *sockets) {
    offer.sockets.push_back(
        {std::string(kListenerKind), one.name, one.configured, std::move(one.fd)});
  }
  if (admin_ && admin_->socket() >= 0) {
    auto copy = net::Duplicate(admin_->socket());
    if (!copy) {
      return tl::unexpected(copy.error());
    }
    offer.sockets.push_back(
        {std::string(kAdminKind), "admin", admin_address_.Text(), std::move(*copy)});
  }
  if (!giver_->path().empty()) {
    auto copy = giver_->DuplicateListener();
    if (!copy) {
      return tl::unexpected(copy.error());
    }
    offer.sockets.push_back(
        {std::string(kTakeoverKind), "takeover", giver_->path(), std::move(*copy)});
  }
  for (const tls::TicketKey& key : ticket_keys_.All()) {
    offer.ticket_keys.push_back(ToBytes(key));
  }
  for (const auto& pool : snapshot_->pools) {
    for (const balance::Backend& backend : pool->backends.backends()) {
      // What drains for being down is for the successor's own checks to find out.
      if (backend.state->draining.load(std::memory_order_relaxed) &&
          !health_.IsDraining(*backend.state)) {
        offer.draining_backends.emplace_back(pool->config.name, backend.name);
      }
    }
  }
  return offer;
}

void Server::OnReady(pid_t successor) noexcept {
  successor_pid_ = successor;
  spdlog::info("taken over by pid={}: draining connections={} window_ms={}", successor,
               shared_.connections.load(std::memory_order_relaxed), config_.drain.window.count());
  if (admin_) {
    admin_->StopAccepting();
  }
  systemd::NotifyMainPid(successor);
  drain::DrainOptions options = DrainOptionsOf(config_.drain);
  options.ready_delay = Millis(0);  // whoever comes is served, by the other one
  DrainWorkers(options, Worker::Leave::kHandOver);
}

void Server::OnFailed(pid_t successor, const std::string& why) noexcept {
  ++takeovers_failed_;
  spdlog::warn("takeover by pid={} failed, this process goes on: {}", successor, why);
  if (child_ != 0 && successor == child_) {
    // It ends by itself, unless it is only slow: then it must not serve beside this process.
    child_timer_.Arm<&Server::OnChildTimer>(loop_.base(), kChildPatience, this);
  }
}

void Server::OnRefused(uid_t uid, pid_t pid, const std::string& why) noexcept {
  ++takeovers_refused_;
  spdlog::warn("takeover refused uid={} pid={}: {}", uid, pid, why);
}

}  // namespace sluice::server
