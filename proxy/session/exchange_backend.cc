// The backend of an exchange: which one gets the request, how it is reached, and what becomes of
// the request when one fails.
#include <algorithm>
#include <utility>

#include "proxy/log/log.h"
#include "proxy/net/socket.h"
#include "proxy/session/affinity_cookie.h"
#include "proxy/session/exchange.h"
#include "proxy/session/idle_conns.h"
#include "proxy/session/proxy_header.h"
#include "proxy/tls/tls_transport.h"

namespace sluice::session {
namespace {

using balance::Want;
using metrics::BackendFailure;
using metrics::BackendTlsResult;
using metrics::UpgradeOutcome;
using net::IoStatus;

}  // namespace

// Notes a client that asks in plain requests, and tells one whose upgrade follows upon such.
// Whoever gets a cookie or a token with this answer has none of it yet, and is not to be told apart
// from others at its address.
balance::Want Exchange::WantFor(Instant now) noexcept {
  SettledKeys& settled = core_.route(facts_).state->settled;
  const bool has_homes = core_.pool(facts_).backends.has_homes();
  if (upgrade_) {
    return has_homes && settled.Knows(admission_.key_hash, now) ? Want::kSettled : Want::kHandshake;
  }
  if (!has_homes || admission_.issue_cookie || admission_.may_teach) {
    return Want::kRequest;
  }
  settled.Note(admission_.key_hash, now);
  return Want::kSettled;
}

std::optional<balance::Pick> Exchange::ChooseBackend() noexcept {
  const balance::BackendSet& backends = core_.pool(facts_).backends;
  if (admission_.learned) {
    if (const auto known = backends.ChooseThis(*admission_.learned, tried(), admission_.drain_part,
                                               core_.services.loop.now())) {
      return known;
    }
    if (backends.backends()[*admission_.learned].state->draining.load(std::memory_order_relaxed)) {
      // Elsewhere nobody knows the session. It is over when its backend takes it no more; one whose
      // request has just failed there may come again.
      admission_.ended = !IsTried(*admission_.learned);
      return std::nullopt;
    }
  }
  if (admission_.ended) {
    return std::nullopt;
  }
  const Instant now = core_.services.loop.now();
  return admission_.sticky ? backends.ChooseHome(admission_.key_hash, tried())
                           : backends.Choose(admission_.key_hash, tried(), now,
                                             core_.services.random, WantFor(now));
}

// Chooses a backend, counts the leg there and takes what the rate allows of new sessions. When
// there is none the request has been answered.
std::optional<balance::Pick> Exchange::TakeBackend() noexcept {
  const balance::BackendSet& backends = core_.pool(facts_).backends;
  while (const auto pick = ChooseBackend()) {
    const balance::Backend& backend = backends.backends()[pick->index];
    LegCount leg(*backend.state, backend.max_connections);
    if (leg.state() == nullptr) {
      continue;  // another worker took the last place, so that it is passed over now
    }
    const Instant now = upgrade_ ? Now() : Instant{};  // a turn of the loop is long in a storm
    if (!upgrade_ || backends.TakeHandshake(pick->index, now)) {
      core_.leg_count = std::move(leg);
      return pick;
    }
    if (admission_.sticky || backends.has_homes() || pick->index == admission_.learned) {
      // Elsewhere the clients of one backend would displace those of all others.
      FailForRate(pick->index, now);
      return std::nullopt;
    }
  }
  FailForWantOfBackend();
  return std::nullopt;
}

// The session that the request belongs to has ended with a drain. Its client begins another one.
void Exchange::FailForDrain() noexcept {
  core_.route_block(facts_).learned_picks[metrics::LearnedPick::kEnded].Add();
  core_.route(facts_).learned->End(admission_.token, core_.services.loop.now());
  Fail({503, "This session has ended with a drain of its backend.", "session_drained"},
       UpgradeOutcome::kDraining);
}

void Exchange::FailForWantOfBackend() noexcept {
  if (admission_.ended) {
    FailForDrain();
    return;
  }
  if (admission_.learned && IsTried(*admission_.learned)) {
    FailAtLast(kUnreachable);
    return;
  }
  const Instant now = core_.services.loop.now();
  const bool choosy = upgrade_ && !admission_.sticky;
  const balance::Shortage why =
      core_.pool(facts_).backends.WhyNone(tried(), now, choosy ? Want::kHandshake : Want::kRequest);
  switch (why.cause) {
    case balance::Shortage::Cause::kOutOfService:
      FailAtLast(kUnreachable);
      break;
    case balance::Shortage::Cause::kFull:
      core_.services.block.rate_limited[metrics::Refused::kBackendFull].Add();
      Fail({503, "The backends of this route have all the connections they may have.",
            "backend_full"},
           UpgradeOutcome::kLimit);
      break;
    case balance::Shortage::Cause::kRate:
      FailForRate(why.index, now);
      break;
  }
}

void Exchange::FailForRate(std::size_t backend, Instant now) noexcept {
  core_.services.block.rate_limited[metrics::Refused::kBackendRate].Add();
  Fail({503, "The backend takes no more new sessions at the moment.", "backend_rate"},
       UpgradeOutcome::kLimit,
       RetryAfter(core_.services.random, core_.pool(facts_).backends.QueueComeback(backend, now)));
}

// The Set-Cookie for this answer, or empty. By now it is known which backend gave it. A client
// whose home could not serve it gets another cookie: what it does in several requests, such as
// polling, has begun at the backend that answered, and must not be torn when its home is back. A
// WebSocket session is one request, and goes home the next time.
std::string Exchange::CookieToIssue() const {
  const balance::BackendSet& backends = core_.pool(facts_).backends;
  const bool moved = admission_.sticky && !admission_.upgrade &&
                     !backends.LeadsTo(admission_.key_hash, facts_.backend);
  if (!admission_.issue_cookie && !moved) {
    return {};
  }
  return AffinityCookie(core_.route(facts_).config.affinity_cookie,
                        DrawAffinityId(backends, facts_.backend), core_.listener->is_tls());
}

void Exchange::CountPick(const balance::Pick& pick) noexcept {
  core_.backend_block(facts_).picks[static_cast<metrics::PickHow>(pick.how)].Add();
  if (admission_.learned) {
    using metrics::LearnedPick;
    const bool home = pick.index == admission_.learned;
    core_.route_block(facts_)
        .learned_picks[home ? LearnedPick::kHome : LearnedPick::kFallback]
        .Add();
  }
}

void Exchange::TryNext() noexcept {
  const std::size_t most =
      std::min<std::size_t>(core_.route(facts_).config.retries + 1, kMostAttempts);
  while (tried_count_ < most) {
    const auto pick = TakeBackend();
    if (!pick) {
      return;
    }
    facts_.backend = static_cast<std::uint32_t>(pick->index);
    facts_.has_backend = true;
    ++facts_.attempts;
    tried_[tried_count_++] = pick->index;
    CountPick(*pick);
    if (tried_count_ > 1) {
      // Told of the one that failed: it is the one to look at.
      core_.view->backends[core_.route(facts_).pool][tried_[tried_count_ - 2]]->retries.Add();
    }
    if (TakeIdle() || Connect()) {
      return;
    }
  }
  FailAtLast(kUnreachable);
}

// No further backend is tried. One that was reached is told apart from none.
void Exchange::FailAtLast(const Failure& last) noexcept {
  const Failure& told = unanswered_ && last.status == 503 ? kUnanswered : last;
  Fail(told, told.status == 503 ? UpgradeOutcome::kNoBackend : UpgradeOutcome::kBackendError);
}

// Begins a connection to the backend that was taken. False when that fails at once, which then has
// been counted.
bool Exchange::Connect() noexcept {
  const net::Address& address = core_.pool(facts_).addresses[facts_.backend];
  reused_ = false;
  connect_began_ = core_.services.loop.now();
  auto fd = core_.services.idle_conns->StartConnect(address);
  if (!fd) {
    core_.backend_block(facts_).failures[BackendFailure::kRefused].Add();
    if (!net::IsOwnShortage(fd.error().sys_errno)) {
      core_.NoteFailure(facts_, BackendFailure::kRefused);
    }
    core_.leg_count.Reset();
    return false;
  }
  core_.backend = std::make_unique<net::Conn>(core_.services.loop, conn_sink_);
  state_ = State::kConnecting;
  ArmTimer();
  if (net::IsConnected(fd->get())) {
    // As it is at once on the same host: no need to wait, nor to register for writing first.
    core_.backend->Open(std::move(*fd), nullptr);
    OnConnected(0);
    return true;
  }
  core_.backend->OpenConnecting(std::move(*fd));
  if (!request_done_) {
    PauseClient(net::Pause::kHandshake);  // content waits in the kernel
  }
  return true;
}

// Sends the request over a connection that an earlier one has left, if there is one. An upgrade
// gets a connection of its own.
bool Exchange::TakeIdle() noexcept {
  if (passage_ != Passage::kKeepAlive || !core_.has_todays_view()) {
    return false;
  }
  const Instant now = core_.services.loop.now();
  if (auto conn = core_.services.idle_conns->Take(core_.leg_count.state(), conn_sink_, now)) {
    core_.backend = std::move(conn);
    core_.backend_block(facts_).reused.Add();
    reused_ = true;
    state_ = State::kAwaitHead;
    facts_.backend_connect = RequestFacts::ShortMillis(0);
    ArmTimer();
    SendRequest();
    return true;
  }
  return false;
}

// The connection that was reused has ended before a byte of an answer came: most likely its idle
// time was over. What may be repeated then is sent again.
bool Exchange::IsStale() const noexcept {
  return reused_ && state_ == State::kAwaitHead && partial_ == nullptr && interim_ == 0;
}

void Exchange::ConnectAnew() noexcept {
  core_.backend_block(facts_).stale.Add();
  LegCount leg = std::move(core_.leg_count);
  core_.DropBackend();
  core_.leg_count = std::move(leg);
  core_.client.ResumeRead(net::Pause::kPeerFull);  // it was of the connection that is gone
  if (!Connect()) {
    TryNext();
  }
}

void Exchange::OnConnected(int error) noexcept {
  if (error != 0) {
    AttemptFailed(BackendFailure::kRefused, kUnreachable);
    return;
  }
  WriteProxyHeader();
  if (core_.backend->pending() > 0 || core_.backend->write_failed()) {
    // A socket without room for a header is none to begin TLS on.
    AttemptFailed(BackendFailure::kReset, kUnreachable);
    return;
  }
  if (core_.pool_tls(facts_).is_tls()) {
    StartTls();
  } else {
    OnBackendReady();
  }
}

// The first step sends our hello only. It is not rationed: nothing would call us again for it.
void Exchange::StartTls() noexcept {
  const PoolTls& pool = core_.pool_tls(facts_);
  auto transport = tls::TlsTransport::Connect(*pool.context, *pool.destinations[facts_.backend],
                                              core_.backend->fd(), *core_.services.tls_buffers);
  if (!transport) {
    NoteTlsFailure("out of memory");
    AttemptFailed(BackendFailure::kTls, kNoTls, Blame::kUs);
    return;
  }
  core_.backend->Attach(std::move(transport));
  state_ = State::kTls;
  if (!request_done_) {
    PauseClient(net::Pause::kHandshake);  // content waits in the kernel
  }
  StepHandshake();
}

void Exchange::StepHandshake() noexcept {
  const auto& tls = static_cast<const tls::TlsTransport&>(*core_.backend->transport());
  const IoStatus status = core_.backend->Handshake();
  if (status == IoStatus::kWouldBlock) {
    return;
  }
  if (status != IoStatus::kOk) {
    const std::string& why = core_.services.tls_buffers->failure;
    NoteTlsFailure(why.empty() ? "the connection ended in the handshake" : std::string_view(why));
    AttemptFailed(BackendFailure::kTls, kNoTls);
    return;
  }
  core_.backend_block(facts_)
      .tls_handshakes[tls.resumed() ? BackendTlsResult::kResumed : BackendTlsResult::kOk]
      .Add();
  OnBackendReady();
  if (state_ == State::kAwaitHead && tls.HasBuffered()) {
    OnReadable(Side::kBackend);  // the socket does not become readable for it
  }
}

// A handshake failed; nothing of the request was sent.
void Exchange::NoteTlsFailure(std::string_view why) noexcept {
  core_.backend_block(facts_).tls_handshakes[BackendTlsResult::kFailed].Add();
  core_.pool_tls(facts_).destinations[facts_.backend]->ForgetSession();
  LogTlsFailure(why);
}

void Exchange::LogTlsFailure(std::string_view why) noexcept {
  const Pool& pool = core_.pool(facts_);
  if (pool.tls_failures[facts_.backend].IsNews(why, core_.services.loop.now())) {
    spdlog::warn("no TLS with a backend pool={} backend={} server_name={} why=\"{}\"",
                 pool.config.name, pool.config.backends[facts_.backend].name,
                 core_.pool_tls(facts_).destinations[facts_.backend]->server_name(), why);
  }
}

// The connection is made, and nobody but the backend hears what is sent.
void Exchange::OnBackendReady() noexcept {
  const Instant now = core_.services.loop.now();
  core_.backend_block(facts_).connect_seconds.Observe(
      std::chrono::duration<double>(now - connect_began_).count());
  facts_.backend_connect =
      std::chrono::duration_cast<RequestFacts::ShortMillis>(now - connect_began_);
  state_ = State::kAwaitHead;
  progress_ = now;
  SendRequest();
}

void Exchange::SendRequest() noexcept {
  interim_ = 0;
  partial_.reset();
  core_.backend->Write(AsBytes(request_));
  if (const auto resent = std::move(resend_)) {
    core_.backend->Write(AsBytes(*resent));
    CountBuffered();
  }
  if (!request_done_) {
    const std::string early = std::exchange(early_content_, {});
    core_.client.ResumeRead(net::Pause::kHandshake);
    if (!early.empty()) {
      ForwardRequestContent(AsBytes(early));
    }
  }
}

// Before everything else on the connection, TLS included.
void Exchange::WriteProxyHeader() noexcept {
  switch (core_.pool(facts_).config.proxy_protocol) {
    case config::ProxyProtocol::kOff:
      break;
    case config::ProxyProtocol::kV1:
      core_.backend->Write(AsBytes(HeaderForBackend(core_, proxy_protocol::Version::kV1)));
      break;
    case config::ProxyProtocol::kV2:
      core_.backend->Write(AsBytes(HeaderForBackend(core_, proxy_protocol::Version::kV2)));
      break;
  }
}

// Whether the request may go to another backend after this one failed so. Once a request was sent
// only one without content and without effects may be sent again (RFC 9110 section 9.2.2), and an
// answer that breaks the protocol is not a reason to ask somebody else.
bool Exchange::MayRetry(BackendFailure why) const noexcept {
  if (request_sent_any_ || why == BackendFailure::kBadAnswer ||
      tried_count_ >= core_.route(facts_).config.retries + 1) {
    return false;
  }
  return is_connecting() || safe_method_;
}

// The current backend failed before anything of its answer reached the client.
void Exchange::AttemptFailed(BackendFailure why, const Failure& told, Blame blame) noexcept {
  core_.backend_block(facts_).failures[why].Add();
  if (blame == Blame::kBackend) {
    core_.NoteFailure(facts_, why);
  }
  core_.DropBackend();
  if (MayRetry(why)) {
    TryNext();
    return;
  }
  FailAtLast(told);
}

}  // namespace sluice::session
