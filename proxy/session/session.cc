#include "proxy/session/session.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "proxy/http/reply.h"
#include "proxy/net/socket.h"
#include "proxy/proxy_protocol/header_parser.h"
#include "proxy/session/affinity_cookie.h"
#include "proxy/session/own_answer.h"
#include "proxy/session/proxy_header.h"
#include "proxy/session/redirect.h"
#include "proxy/session/rewrite.h"
#include "proxy/tls/tls_transport.h"

namespace sluice::session {
namespace {

using metrics::TlsResult;
using net::IoStatus;

// One read while waiting for a head takes at most this much: what comes behind the head is held,
// and held bytes are bounded.
constexpr std::size_t kHeadRead = 16 * 1024;

// Perhaps the beginning of an empty line.
constexpr std::string_view kHalfLine = "\r";

// How long the end of a response may take to a client that reads slowly.
constexpr Millis kLingerMost{120'000};

// How long it may seem to take nothing meanwhile. A kernel tells of room in steps of as much as
// half of its buffer.
constexpr Millis kLingerStill{30'000};

// A connection above a limit is there only to be told so.
constexpr Millis kSurplusPatience{1'000};

// A duration in seconds, rounded up, within what a client can be told.
unsigned SecondsUp(Instant::duration wait) noexcept {
  constexpr std::int64_t kMost = 3600;
  return static_cast<unsigned>(
      std::clamp<std::int64_t>(std::chrono::ceil<std::chrono::seconds>(wait).count(), 1, kMost));
}

std::string_view FieldValue(const http::RequestHead& head, http::FieldId id) noexcept {
  const http::Field* field = Find(head.fields, id);
  return field == nullptr ? std::string_view() : field->value;
}

}  // namespace

Session::Session(Services& services, std::uint64_t id, LocalPtr<const ListenerView> listener,
                 const net::Address& peer, bool over_limit)
    : over_limit_(over_limit), core_(services, std::move(listener), *this) {
  core_.id = id;
  core_.peer = peer;
  core_.listener->block->connections_open.Add(1);
  if (!core_.listener->proxy_protocol) {
    CountAddress();
  }
}

Session::~Session() {
  assert(phase_ == Phase::kClosed);
}

void Session::Start(UniqueFd fd) noexcept {
  if (IsSurplus()) {
    fd.Reset();
    Close();
    return;
  }
  if (!core_.listener->proxy_protocol) {
    core_.client.Open(std::move(fd), nullptr);
    BeginSpeaking();
    return;
  }
  phase_ = Phase::kProxy;
  if (!core_.view->snapshot->IsTrusted(core_.peer)) {
    fd.Reset();
    RefuseProxy(metrics::ProxyHeader::kUntrusted);
    return;
  }
  core_.client.Open(std::move(fd), nullptr);
  ArmTimer(FirstHeadPatience());
}

void Session::CountAddress() {
  // A trusted proxy comes with the connections of many clients.
  if (const std::size_t most = core_.config().limits.connections_per_ip;
      most > 0 && !core_.view->snapshot->IsTrusted(core_.peer)) {
    ip_counted_ = true;
    const std::size_t now = core_.services.ips.AddConnection(core_.peer);
    over_ip_limit_ = now > most;
    surplus_ = now > most * 2;
  }
}

// True, and counted, when there are so many of the address already that it is not even told so.
bool Session::IsSurplus() noexcept {
  if (surplus_) {
    core_.services.block.rate_limited[metrics::Refused::kConnectionsPerIp].Add();
  }
  return surplus_;
}

// From here on the bytes are the client's own.
void Session::BeginSpeaking() noexcept {
  if (core_.listener->is_tls()) {
    phase_ = Phase::kTls;
    work_ = std::make_unique<Handshake>(core_.services.loop.now());
    ArmTimer(core_.config().server.tls_timeout);
  } else {
    AwaitHead(FirstHeadPatience());
  }
}

// How long a new connection may take to say what it wants.
Millis Session::FirstHeadPatience() const noexcept {
  const config::Server& server = core_.config().server;
  if (over_limit_ || over_ip_limit_) {
    return std::min(server.header_timeout, kSurplusPatience);
  }
  if (!KeepsAlive(core_.services.intake)) {
    // Taken from the queue while the listener closed: there is no time left to be silent.
    return std::min(server.header_timeout, server.close_timeout);
  }
  return server.header_timeout;
}

// Dispatch.

void Session::OnReadable(net::Conn& conn) noexcept {
  switch (phase_) {
    case Phase::kProxy:
      ReadProxyHeader();
      break;
    case Phase::kTls:
      StepHandshake();
      break;
    case Phase::kHead:
      ReadHead();
      break;
    case Phase::kAuth:
      ReadWhileChecking();
      break;
    case Phase::kExchange:
      exchange().OnReadable(SideOf(conn));
      break;
    case Phase::kRelay:
      relay().OnReadable(SideOf(conn));
      break;
    case Phase::kLinger: {
      const net::IoResult got = conn.Read(core_.services.scratch);
      farewell().talks = farewell().talks || got.status == IoStatus::kOk;
      if (got.status == IoStatus::kError || (got.status == IoStatus::kEof && conn.pending() == 0)) {
        Close();
      }
      break;
    }
    case Phase::kClosed:
      break;
  }
}

void Session::OnWritable(net::Conn& conn) noexcept {
  switch (phase_) {
    case Phase::kAuth:
      if (conn.write_failed()) {
        EndCheckForClient();
      }
      break;
    case Phase::kExchange:
      exchange().OnWritable(SideOf(conn));
      break;
    case Phase::kRelay:
      relay().OnWritable(SideOf(conn));
      break;
    case Phase::kHead:
      if (conn.write_failed()) {
        Close();
      } else if (core_.HasRoom(conn) && conn.IsPaused(net::Pause::kPeerFull)) {
        conn.ResumeRead(net::Pause::kPeerFull);
        if (has_partial()) {
          TakeHead({});
        }
      }
      break;
    case Phase::kLinger:
      if (conn.write_failed() || (conn.write_finished() && conn.read_ended())) {
        Close();
      } else if (conn.write_finished()) {
        // All is sent; from here the client has its time to close.
        ArmTimer(core_.config().server.close_timeout);
      }
      break;
    case Phase::kProxy:
    case Phase::kTls:
    case Phase::kClosed:
      break;
  }
}

void Session::OnConnected(net::Conn&, int error) noexcept {
  if (phase_ == Phase::kExchange) {
    exchange().OnConnected(error);
  }
}

// PROXY header.

// What comes behind the header is for TLS or HTTP, and their reads are the ones to find it: so the
// bytes are looked at first, and those of the header alone are taken off the socket.
void Session::ReadProxyHeader() noexcept {
  using metrics::ProxyHeader;
  const std::span<std::byte> bytes = core_.services.scratch.first(proxy_protocol::kMostHeader);
  std::size_t had = 0;
  if (work_) {
    const Bytes kept = AsBytes(partial_proxy().bytes);
    std::copy(kept.begin(), kept.end(), bytes.begin());
    had = kept.size();
  }
  const int fd = core_.client.fd();
  const net::IoResult seen = net::Peek(fd, bytes.subspan(had));
  switch (seen.status) {
    case IoStatus::kWouldBlock:
      return;
    case IoStatus::kEof:
    case IoStatus::kError:
      RefuseProxy(ProxyHeader::kEnded);
      return;
    case IoStatus::kOk:
      break;
  }
  const proxy_protocol::Parsed parsed = proxy_protocol::Parse(bytes.first(had + seen.bytes));
  if (parsed.status == ParseStatus::kBad) {
    RefuseProxy(ProxyHeader::kBad);
    return;
  }
  const bool done = parsed.status == ParseStatus::kDone;
  const std::size_t end = done ? parsed.size : had + seen.bytes;
  if (net::Receive(fd, bytes.subspan(had, end - had)).bytes != end - had) {
    RefuseProxy(ProxyHeader::kEnded);  // not what it was a moment ago: reset
    return;
  }
  if (!done) {
    work_ = std::make_unique<PartialProxy>(bytes.first(end));
    return;
  }
  work_.reset();
  TakeProxyHeader(parsed.header);
}

// Without an answer: nobody knows what the other end speaks.
void Session::RefuseProxy(metrics::ProxyHeader result) noexcept {
  core_.listener->block->proxy_headers[result].Add();
  Close();
}

void Session::TakeProxyHeader(const proxy_protocol::Header& header) noexcept {
  using metrics::ProxyHeader;
  using proxy_protocol::Subject;
  auto& count = core_.listener->block->proxy_headers;
  switch (header.subject) {
    case Subject::kClient:
      count[header.version == proxy_protocol::Version::kV1 ? ProxyHeader::kV1 : ProxyHeader::kV2]
          .Add();
      core_.services.introductions.try_emplace(
          core_.id, Introduction{core_.peer.Text(), AddressOf(header.destination)});
      core_.introduced = true;
      core_.peer = AddressOf(header.source);
      break;
    case Subject::kUnknown:
      count[ProxyHeader::kUnknown].Add();
      core_.peer_unknown = true;
      break;
    case Subject::kLocal:
      count[ProxyHeader::kLocal].Add();
      break;
  }
  CountAddress();
  if (IsSurplus()) {
    Close();
    return;
  }
  BeginSpeaking();
  if (phase_ == Phase::kTls) {
    // A check whether somebody is there may be content with this much.
    handshake().may_leave = header.subject == Subject::kLocal;
  }
}

// TLS.

void Session::StepHandshake() noexcept {
  // Under a storm the handshakes take turns: the socket stays readable, so one that is left out now
  // comes back in the next turn, after the sessions that live already.
  if (!core_.services.handshakes.HasLeft(core_.services.loop.turn())) {
    return;
  }
  const bool begun = core_.client.transport() != nullptr;
  if (!begun && !HasHello()) {
    return;
  }
  if (!core_.services.handshakes.Take(core_.services.loop.turn())) {
    return;
  }
  if (!begun) {
    auto made = tls::TlsTransport::Accept(*core_.listener->tls, core_.client.fd(),
                                          *core_.services.tls_buffers);
    if (!made) {
      Close();  // out of memory for this one
      return;
    }
    core_.client.Attach(std::move(made));
  }
  auto& tls = static_cast<tls::TlsTransport&>(*core_.client.transport());
  metrics::ListenerBlock& block = *core_.listener->block;
  switch (core_.client.Handshake()) {
    case IoStatus::kWouldBlock:
      return;
    case IoStatus::kEof:
    case IoStatus::kError:
      block.tls_failed[TlsResult::kFailed].Add();
      Close();
      return;
    case IoStatus::kOk:
      break;
  }
  (tls.resumed() ? block.tls_resumed : block.tls_full)[tls.is_tls13() ? 1 : 0].Add();
  block.tls_handshake_seconds.Observe(
      std::chrono::duration<double>(Now() - handshake().began).count());
  work_.reset();
  AwaitHead(FirstHeadPatience());
  if (tls.HasBuffered()) {
    ReadHead();
  }
}

// A hello that stops half way would cost an SSL object with its buffers, 46 KiB, for as long as
// tls_timeout. So it waits in the kernel until the record that it begins with is there. False: not
// yet, or the session has ended.
bool Session::HasHello() noexcept {
  constexpr std::size_t kRecordHeader = 5;  // RFC 8446 section 5.1
  constexpr std::size_t kMostRecord = 16 * 1024;
  constexpr std::byte kHandshakeRecord{22};
  std::array<std::byte, kRecordHeader> header{};
  const int fd = core_.client.fd();
  const net::IoResult seen = net::Peek(fd, header);
  if (seen.status == IoStatus::kWouldBlock) {
    return false;
  }
  if (seen.status != IoStatus::kOk) {
    if (!handshake().may_leave) {
      core_.listener->block->tls_failed[TlsResult::kFailed].Add();
    }
    Close();
    return false;
  }
  handshake().may_leave = false;
  std::size_t wanted = kRecordHeader;
  if (seen.bytes == kRecordHeader) {
    const std::size_t length =
        std::to_integer<std::size_t>(header[3]) << 8U | std::to_integer<std::size_t>(header[4]);
    if (header[0] != kHandshakeRecord || length > kMostRecord) {
      net::WakeFrom(fd, 1);
      return true;  // OpenSSL says what is wrong with it
    }
    wanted += length;
  }
  const std::size_t waiting = net::Readable(fd);
  // Woken without anything new its end has come, or the kernel holds no more than this.
  if ((waiting >= wanted && seen.bytes == kRecordHeader) || waiting == handshake().waiting) {
    if (handshake().waiting > 0) {
      net::WakeFrom(fd, 1);
    }
    return true;
  }
  handshake().waiting = waiting;
  net::WakeFrom(fd, wanted);
  return false;
}

// Request heads.

void Session::AwaitHead(Millis patience) noexcept {
  phase_ = Phase::kHead;
  ArmTimer(patience);
}

void Session::ArmTimer(Millis delay) noexcept {
  core_.timer.Arm<&Session::OnDeadline>(core_.services.loop.base(), delay, this);
}

void Session::ReadHead() noexcept {
  const net::IoResult got = core_.client.Read(core_.services.scratch.first(kHeadRead));
  switch (got.status) {
    case IoStatus::kOk:
      TakeHead(core_.services.scratch.first(got.bytes));
      break;
    case IoStatus::kEof:
      Linger();  // the end of an earlier answer may still be on its way
      break;
    case IoStatus::kError:
      Close();
      break;
    case IoStatus::kWouldBlock:
      break;
  }
}

// Serves requests from the bytes of the client, one after the other. In a loop and not by calls of
// each from the one before: a client may send hundreds in one packet.
void Session::TakeHead(Bytes bytes) noexcept {
  std::unique_ptr<PartialHead> kept = TakePartial();
  http::RequestParser* own_parser = nullptr;  // knows the start of `bytes`, if set
  // What was kept has not been waited for yet.
  bool is_new = bytes.empty() || (kept && kept->bytes == kHalfLine && facts_.number > 0);
  if (kept) {
    kept->Append(bytes);
    bytes = AsBytes(kept->bytes);
    own_parser = &kept->parser;
  }
  serving_ = true;
  while (phase_ == Phase::kHead) {
    if (bytes.empty()) {
      if (!has_partial()) {
        break;
      }
      // An exchange has ended within the loop and left what it held.
      kept = TakePartial();
      bytes = AsBytes(kept->bytes);
      own_parser = &kept->parser;
      is_new = true;
      continue;
    }
    if (core_.IsFull(core_.client)) {
      // The client does not read its answers: it gets no further ones, and we hold no more.
      KeepHead(bytes);
      core_.client.PauseRead(net::Pause::kPeerFull);
      break;
    }
    if (own_parser == nullptr) {
      core_.services.request_parser.Reset();
    }
    if (AsText(bytes) == "\r\n") {
      break;  // behind a request, as some clients send it: no start of a head (RFC 9112
              // section 2.2)
    }
    const Taken taken =
        TakeRequest(own_parser != nullptr ? *own_parser : core_.services.request_parser, bytes);
    if (taken == Taken::kIncomplete) {
      if (core_.client.read_ended()) {
        Linger();  // the rest does not come
        break;
      }
      if (own_parser != nullptr) {
        work_ = std::move(kept);
      } else {
        KeepHead(bytes);
        is_new = facts_.number > 0;
      }
      if (is_new && HasBegunHead()) {
        // Until now the patience was for an idle connection, from here it is for a head.
        AwaitHead(core_.config().server.header_timeout);
      }
      break;
    }
    own_parser = nullptr;
    if (taken == Taken::kElsewhere) {
      bytes = {};
    }
  }
  serving_ = false;
  if (phase_ == Phase::kHead && !has_partial() && core_.client.read_ended()) {
    Linger();  // that was all
  }
}

void Session::KeepHead(Bytes bytes) noexcept {
  work_ =
      std::make_unique<PartialHead>(core_.services.loop, bytes, core_.view->snapshot->head_limits);
}

// Takes one request from the front of `bytes`.
Session::Taken Session::TakeRequest(http::RequestParser& parser, Bytes& bytes) noexcept {
  switch (parser.Parse(AsText(bytes))) {
    case ParseStatus::kNeedMore:
      return Taken::kIncomplete;
    case ParseStatus::kBad:
      RefuseHead(parser.fault());
      return Taken::kElsewhere;
    case ParseStatus::kDone:
      break;
  }
  const http::RequestHead& head = parser.head();
  const Bytes head_bytes = bytes.first(parser.head_size());
  bytes = bytes.subspan(parser.head_size());
  // A connection that is kept alive asks by the configuration of today.
  core_.view = core_.services.view;
  Sender sender;
  FindSender(head, sender);
  std::string location;
  Admission admission =
      core_.listener->redirect
          ? AdmitToRedirect(head, *core_.view->snapshot, *core_.listener->redirect, location)
          : Admit(head, *core_.view->snapshot, core_.services.intake, sender.client_ip,
                  core_.services.loop.now());
  if (admission.left) {
    FollowToFormerView(head, sender.client_ip, admission);
  }
  const std::uint32_t number = std::max(facts_.number, facts_.number + 1);  // stays at its most
  facts_ = RequestFacts();
  facts_.number = number;
  facts_.began = core_.services.loop.now();
  if (admission.route) {
    facts_.route = static_cast<std::uint32_t>(*admission.route);
    facts_.has_route = true;
  }
  const bool over = over_limit_ || over_ip_limit_;
  if (core_.services.access_log.enabled()) {
    KeepTexts(head, sender, over ? std::string_view() : admission.key_source);
  } else if (sender.client_ip != sender.peer_ip) {
    // Sessions are looked up by it.
    FactTexts::Views texts;
    texts[static_cast<std::size_t>(FactText::kClientIp)] = sender.client_ip;
    facts_.texts.Store(texts);
  }
  if (over) {
    const Refusal limit = over_limit_ ? Refusal{503,
                                                "This server has all the connections it may have.",
                                                "",
                                                "max_connections",
                                                metrics::UpgradeOutcome::kLimit,
                                                1}
                                      : Refusal{429,
                                                "Too many connections from this address.",
                                                "",
                                                "connections_per_ip",
                                                metrics::UpgradeOutcome::kLimit,
                                                1};
    core_.services.block
        .rate_limited[over_limit_ ? metrics::Refused::kConnections
                                  : metrics::Refused::kConnectionsPerIp]
        .Add();
    ending_ = true;
    return Refuse(head, limit) ? Taken::kAnswered : Taken::kElsewhere;
  }
  if (admission.refusal) {
    if (admission.refusal->outcome == metrics::UpgradeOutcome::kDraining) {
      core_.services.block.rate_limited[metrics::Refused::kDraining].Add();
    }
    return Refuse(head, *admission.refusal) ? Taken::kAnswered : Taken::kElsewhere;
  }
  if (admission.upgrade) {
    if (const auto limit = LimitOf(sender)) {
      return Refuse(head, *limit) ? Taken::kAnswered : Taken::kElsewhere;
    }
  }
  if (!admission.upgrade) {
    http_count_.Begin(core_.route_block(facts_));
  }
  const std::optional<config::Auth>& auth = core_.route(facts_).config.auth;
  if (!auth) {
    BeginExchange(head, ForwardFactsOf(sender), std::move(admission), bytes);
  } else if (admission.upgrade || auth->on == config::AuthOn::kAll) {
    BeginCheck(head, head_bytes, sender, std::move(admission), bytes);
  } else {
    // Nobody is asked, and nobody says who it is.
    GoOn(head, sender, std::move(admission), {}, bytes);
  }
  return Taken::kElsewhere;
}

// The backend that knows the session has left the configuration: as long as it drains it is asked
// by the one that had it.
void Session::FollowToFormerView(const http::RequestHead& head, std::string_view client_ip,
                                 Admission& admission) noexcept {
  const auto& views = core_.services.former_views;
  for (auto view = views.rbegin(); view != views.rend(); ++view) {
    Admission former = Admit(head, *(*view)->snapshot, core_.services.intake, client_ip,
                             core_.services.loop.now());
    if (former.learned) {
      core_.view = *view;
      admission = std::move(former);
      return;
    }
  }
}

// The limit that an upgrade would go beyond. Without one it is counted; see EndCounts.
std::optional<Refusal> Session::LimitOf(const Sender& sender) noexcept {
  using metrics::Refused;
  using metrics::UpgradeOutcome;
  const config::Limits& limits = core_.config().limits;
  const Route& route = core_.route(facts_);
  const auto count = [this](Refused reason) { core_.services.block.rate_limited[reason].Add(); };
  if (limits.upgrades_per_ip > 0) {
    const auto forwarded = sender.client_ip == sender.peer_ip
                               ? Result<net::Address>(core_.peer)
                               : net::Address::FromNumeric(sender.client_ip, 0);
    const TokenRate rate{limits.upgrades_per_ip, static_cast<double>(limits.upgrades_per_ip_burst)};
    const auto wait = core_.services.ips.TakeUpgrade(forwarded ? *forwarded : core_.peer, rate,
                                                     core_.services.loop.now());
    if (wait) {
      count(Refused::kUpgradesPerIp);
      return Refusal{429,
                     "Too many upgrades from this address.",
                     "",
                     "upgrades_per_ip",
                     UpgradeOutcome::kLimit,
                     SecondsUp(*wait)};
    }
  }
  if (core_.is_memory_short()) {
    count(Refused::kMemory);
    return Refusal{
        503, "This server is short of memory.", "", "max_buffered", UpgradeOutcome::kLimit, 1};
  }
  // Counted first and asked then, so that several workers together let in no more.
  handshake_counted_ = true;
  route_counted_ = true;
  const std::size_t handshakes =
      core_.services.in_use.handshakes.fetch_add(1, std::memory_order_relaxed);
  const std::size_t open = route.state->open.fetch_add(1, std::memory_order_relaxed);
  if (limits.max_handshakes > 0 && handshakes >= limits.max_handshakes) {
    EndCounts();
    count(Refused::kHandshakes);
    return Refusal{
        503, "Too many upgrades are under way.", "", "max_handshakes", UpgradeOutcome::kLimit, 1};
  }
  if (const std::size_t most = route.config.limits.max_connections; most > 0 && open >= most) {
    EndCounts();
    count(Refused::kRouteConnections);
    return Refusal{503,
                   "This route has all the sessions it may have.",
                   "",
                   "route_max_connections",
                   UpgradeOutcome::kLimit,
                   1};
  }
  return std::nullopt;
}

// The connection has carried as many as it may.
bool Session::IsLastRequest() const noexcept {
  const std::uint32_t most = core_.config().server.keep_alive_requests;
  return most > 0 && facts_.number >= most;
}

void Session::EndHandshakeCount() noexcept {
  if (handshake_counted_) {
    handshake_counted_ = false;
    core_.services.in_use.handshakes.fetch_sub(1, std::memory_order_relaxed);
  }
}

void Session::EndCounts() noexcept {
  EndHandshakeCount();
  if (route_counted_) {
    route_counted_ = false;
    core_.route(facts_).state->open.fetch_sub(1, std::memory_order_relaxed);
  }
}

void Session::FindSender(const http::RequestHead& head, Sender& sender) const {
  const Snapshot& snapshot = *core_.view->snapshot;
  sender.peer_ip = core_.peer.Ip();
  sender.peer_trusted = !core_.peer_unknown && snapshot.IsTrusted(core_.peer);
  sender.client_ip =
      sender.peer_trusted
          ? OriginalClient(head, core_.peer,
                           [&](const net::Address& address) { return snapshot.IsTrusted(address); })
          : sender.peer_ip;
  sender.request_id = FieldValue(head, http::FieldId::kXRequestId);
  if (!IsUsableRequestId(sender.request_id)) {
    sender.made_id = RandomId();
    sender.request_id = {sender.made_id.data(), sender.made_id.size()};
  }
}

// What only the access log will ask for, which outlives the head.
void Session::KeepTexts(const http::RequestHead& head, const Sender& sender,
                        std::string_view affinity) {
  FactTexts::Views texts;
  const auto set = [&texts](FactText which, std::string_view text) {
    texts[static_cast<std::size_t>(which)] = text;
  };
  set(FactText::kMethod, head.method);
  set(FactText::kHost, head.host);
  set(FactText::kPath, head.path);
  // Tokens travel in queries: one that will not be shown is not held either, but for its presence.
  set(FactText::kQuery,
      core_.services.access_log.keeps_query() ? head.query : head.query.substr(0, 1));
  set(FactText::kOrigin, FieldValue(head, http::FieldId::kOrigin));
  set(FactText::kUserAgent, FieldValue(head, http::FieldId::kUserAgent));
  set(FactText::kForwardedFor, FieldValue(head, http::FieldId::kXForwardedFor));
  set(FactText::kRequestId, sender.request_id);
  set(FactText::kClientIp, sender.client_ip);
  set(FactText::kAffinity, affinity);
  facts_.texts.Store(texts);
}

// The views are into `sender`.
ForwardFacts Session::ForwardFactsOf(const Sender& sender) const noexcept {
  ForwardFacts forward;
  forward.peer_ip = sender.peer_ip;
  forward.tls = core_.listener->is_tls();
  forward.peer_trusted = sender.peer_trusted;
  forward.request_id = sender.request_id;
  forward.change = core_.route(facts_).heads.request();
  return forward;
}

void Session::BeginExchange(const http::RequestHead& head, const ForwardFacts& forward,
                            Admission admission, Bytes rest) noexcept {
  admission.last = IsLastRequest();
  phase_ = Phase::kExchange;
  ExchangeSink& sink = *this;  // privately ours: make_unique could not convert it
  net::ConnSink& conn_sink = *this;
  work_ = std::make_unique<Exchange>(core_, sink, conn_sink, facts_);
  ForwardFacts facts = forward;
  facts.readable = admission.may_teach;
  exchange().Begin(head, std::move(admission), facts, rest);
}

// Whether the connection may carry another request behind an answer of ours to this one.
bool Session::IsReusable(const http::RequestHead& head, int status) const noexcept {
  // Content that nobody will read would be taken for the next request.
  return head.keep_alive && head.minor_version == 1 && !http::HasContent(head) && status != 400 &&
         !ending_ && !IsLastRequest() && KeepsAlive(core_.services.intake);
}

// Answers a request that goes no further. True when the connection may carry another one.
bool Session::Refuse(const http::RequestHead& head, const Refusal& refusal) noexcept {
  if (refusal.outcome && facts_.has_route) {
    core_.route_block(facts_).upgrades[*refusal.outcome].Add();
  }
  std::string extra(refusal.extra);
  if (refusal.retry_after != 0) {
    extra += RetryAfter(core_.services.random, refusal.retry_after);
  }
  const bool reusable = IsReusable(head, refusal.status);
  if (refusal.status == 426) {
    extra += "Connection: Upgrade\r\n";  // RFC 9110 section 7.8: it goes with the Upgrade field
  }
  http::Reply reply;
  reply.status = refusal.status;
  reply.text = refusal.text;
  reply.extra_fields = extra;
  reply.close = !reusable;
  reply.head_only = head.method == "HEAD";
  reply.lasting = refusal.status == 301 || refusal.status == 308;
  core_.client.Write(AsBytes(OwnAnswer(core_, facts_, reply)));
  return FinishRefusal(refusal.status, refusal.label, reusable);
}

// The answer is written. Returns `reusable`.
bool Session::FinishRefusal(int status, std::string_view label, bool reusable) noexcept {
  facts_.status = static_cast<std::uint16_t>(status);
  LogRequest(label);
  if (!reusable) {
    Linger();
    return false;
  }
  AwaitHead(core_.config().server.keep_alive_timeout);
  return true;
}

void Session::RefuseHead(const http::HeadFault& fault) noexcept {
  core_.services.block.http_parse_errors.Add(fault.label);
  facts_ = RequestFacts();
  facts_.began = core_.services.loop.now();
  facts_.status = static_cast<std::uint16_t>(fault.status);
  if (core_.services.access_log.enabled()) {
    const std::string peer_ip = core_.peer.Ip();
    FactTexts::Views texts;
    texts[static_cast<std::size_t>(FactText::kClientIp)] = peer_ip;
    facts_.texts.Store(texts);
  }
  http::Reply reply;
  reply.status = fault.status;
  reply.text = fault.reason;
  core_.client.Write(AsBytes(OwnAnswer(core_, facts_, reply)));
  LogRequest(fault.label);
  Linger();
}

void Session::LogRequest(std::string_view reason) noexcept {
  const Instant now = core_.services.loop.now();
  const bool event_stream = http_count_.is_event_stream();
  if (facts_.has_route && facts_.status != 101) {
    http_count_.End(core_.route_block(facts_), facts_.status,
                    std::chrono::duration<double>(now - facts_.began).count());
  }
  if (!core_.services.access_log.enabled()) {
    return;
  }
  log::AccessRecord record = BaseRecord(core_, facts_, now);
  record.event = event_stream ? "event_stream" : "http";
  if (phase_ == Phase::kExchange) {
    record.bytes_in = exchange().bytes_in();
    record.bytes_out = exchange().bytes_out();
  }
  record.reason = reason;
  core_.services.access_log.Write(record);
}

// What the phases report.

// Its methods may still be on the stack.
void Session::DropWork() noexcept {
  core_.services.loop.Bury(std::move(work_));
}

void Session::EndExchange() noexcept {
  const bool lasted = lasting();
  EndCounts();
  ForgetExpiry();
  DropWork();
  if (lasted) {
    core_.services.owner.OnLastingOver(*this);
  }
}

void Session::OnExchangeDone(bool reusable, std::string held) noexcept {
  LogRequest(exchange().reason());
  EndExchange();
  if (!reusable || ending_) {
    Linger();
    return;
  }
  AwaitHead(core_.config().server.keep_alive_timeout);
  TakeHeld(held);
}

// Goes on with what the client has sent behind a request that is answered.
void Session::TakeHeld(const std::string& held) noexcept {
  if (!held.empty()) {
    KeepHead(AsBytes(held));
  }
  if (!serving_) {
    TakeHead({});
  }
}

void Session::OnUpgraded(const Upgraded& upgraded, std::string early_client,
                         Bytes early_backend) noexcept {
  EndHandshakeCount();
  DropWork();
  phase_ = Phase::kRelay;
  RelaySink& sink = *this;
  work_ = std::make_unique<Relay>(core_, sink, facts_, upgraded);
  core_.services.owner.OnLasting(*this);
  relay().Start(AsBytes(early_client), early_backend);
  if (phase_ == Phase::kRelay && ending_) {
    Drain();
  }
}

void Session::OnExchangeBroken() noexcept {
  const std::string_view reason = exchange().reason();
  LogRequest(reason.empty() ? "broken" : reason);
  if (exchange().ends_with_connection()) {
    core_.client.Abort();  // an end in order would make what there is of the answer the whole
  }
  const bool earlier_wait_here = exchange().may_stand_behind_others();
  EndExchange();
  // Earlier answers are whole, and may be on their way still.
  const bool may_owe = facts_.number > 1 && core_.client.open() && !forced_;
  if (may_owe && (core_.client.unacknowledged() > 0 || core_.client.HasInput())) {
    if (!earlier_wait_here) {
      core_.client.CutWrite();
    }
    Linger();
  } else {
    Close();
  }
}

void Session::OnRelayDone() noexcept {
  forced_ = forced_ || relay().was_forced();
  DropWork();
  Close();
}

// Endings.

// A head that is not complete says already that it wants a stream of events.
bool Session::AsksForEvents() const noexcept {
  constexpr std::string_view kType = "text/event-stream";
  const std::string_view bytes = static_cast<const PartialHead&>(*work_).bytes;
  for (std::size_t i = 0; i + kType.size() <= bytes.size(); ++i) {
    if (http::EqualsIgnoreCase(bytes.substr(i, kType.size()), kType)) {
      return true;
    }
  }
  return false;
}

void Session::Drain() noexcept {
  // The connections that were accepted while the listeners went to another process cannot know of
  // it: what they ask for they get, and if it lasts, an instant of its own for its end.
  const bool handed_over = core_.services.intake == Intake::kLastRequest;
  ending_ = ending_ || !handed_over;
  switch (phase_) {
    case Phase::kProxy:
    case Phase::kTls:
      break;  // it gets its answer, once it can ask; the handshake has its deadline
    case Phase::kHead:
      if (handed_over && (facts_.number == 0 || has_partial())) {
        break;  // its first request has its deadline
      }
      ending_ = true;
      if (!has_partial()) {
        // A request may have arrived that was not read yet. It is answered, not met with a FIN.
        ReadHead();
      }
      if (phase_ != Phase::kHead) {
        break;
      }
      if (HasBegunHead() && !AsksForEvents()) {
        RefuseHead({503, "This server is draining.", "draining"});
      } else {
        // To an EventSource a 503 is the end for good, and a connection that closes is a reason to
        // come back (HTML, section 9.2.2).
        Linger();
      }
      break;
    case Phase::kAuth:
      DrainCheck(!handed_over);
      break;
    case Phase::kExchange:
      exchange().Drain(!handed_over);
      CloseInOrder(metrics::OwnClose::kDrain);
      break;
    case Phase::kRelay:
      CloseInOrder(metrics::OwnClose::kDrain);
      break;
    case Phase::kLinger:
    case Phase::kClosed:
      break;
  }
}

void Session::CloseInOrder(metrics::OwnClose cause) noexcept {
  if (phase_ == Phase::kRelay) {
    const bool expired = cause == metrics::OwnClose::kAuthExpired;
    const Route& route = core_.route(facts_);
    OurClose close;
    close.client_code = expired ? route.config.auth_expires_code : route.close_code;
    close.reason = expired ? "token expired" : core_.config().drain.reason;
    close.cause = cause;
    close.why = metrics::Name(cause);
    close.await_backend = !expired;
    relay().BeginClose(close);
  } else if (lasting()) {
    exchange().EndEventStream(metrics::Name(cause));
  }
}

void Session::Kick(std::uint16_t code, const std::string& reason) noexcept {
  OurClose close;
  close.client_code = code != 0 ? code : core_.route(facts_).close_code;
  close.reason = reason;
  close.cause = metrics::OwnClose::kKick;
  close.why = metrics::Name(close.cause);
  relay().BeginClose(close);
}

// Age and heartbeats.

Millis Session::MaxAge() const noexcept {
  const std::optional<Millis>& own = core_.route(facts_).config.limits.max_connection_age;
  return own ? *own : core_.config().limits.max_connection_age;
}

// 10 % about the configured age, drawn by the id: sessions that came together, as after a restart,
// do not leave together, and nothing has to be kept for it.
Instant Session::AgeDue() const noexcept {
  const Millis age = MaxAge();
  if (age == Millis(0)) {
    return Instant::max();
  }
  const std::string_view id(reinterpret_cast<const char*>(&core_.id), sizeof(core_.id));
  const double unit = static_cast<double>(balance::HashKey(id) >> 11U) * 0x1p-53;
  const double millis = static_cast<double>(age.count()) * (0.9 + 0.2 * unit);
  return facts_.began + Millis(static_cast<Millis::rep>(millis));
}

Instant Session::FirstLook() const noexcept {
  const Instant due = std::min(AgeDue(), ExpiryDue());
  return phase_ == Phase::kRelay ? std::min(due, relay().FirstLook()) : due;
}

Instant Session::LookAfter(Instant now) noexcept {
  if (!lasting()) {
    return Instant::max();
  }
  const bool expired = ExpiryDue() <= now;
  Instant next = std::min(AgeDue(), ExpiryDue());
  if (next <= now) {
    const metrics::OwnClose cause =
        expired ? metrics::OwnClose::kAuthExpired : metrics::OwnClose::kMaxAge;
    if (phase_ == Phase::kRelay) {
      CloseInOrder(cause);
      return Instant::max();  // from here on its ending has deadlines of its own
    }
    ending_ = ending_ || expired;  // whoever it was, it says so anew by a connection of its own
    CloseInOrder(cause);
    if (!lasting()) {
      return Instant::max();  // it stood between two events; its connection may go on
    }
    const Instant cut_due = exchange().end_begun() + core_.config().drain.grace;
    if (now >= cut_due) {
      Cut(expired ? metrics::Name(cause) : "max_age_deadline");  // no event has ended since
      return Instant::max();
    }
    return ExpiryDue() > now ? std::min(cut_due, ExpiryDue()) : cut_due;
  }
  if (phase_ == Phase::kRelay) {
    next = std::min(next, relay().LookAfter(now));
  }
  return next;
}

Session::Description Session::Describe() const {
  Description about;
  about.peer = core_.peer.Text();
  about.client_ip = facts_.texts.Get(FactText::kClientIp);
  if (about.client_ip.empty()) {
    about.client_ip = core_.peer.Ip();
  }
  if (const Introduction* introduction = core_.introduction()) {
    about.proxy = introduction->proxy;
  }
  about.listener = core_.listener->name;
  about.route = core_.route(facts_).config.name;
  about.pool = core_.pool(facts_).config.name;
  about.backend = core_.pool(facts_).config.backends[facts_.backend].name;
  about.key_hash = relay().key_hash();
  about.totals = relay().totals();
  about.began = facts_.began;
  about.closing = relay().is_ending();
  return about;
}

void Session::Cut(std::string_view why) noexcept {
  forced_ = phase_ != Phase::kClosed && phase_ != Phase::kLinger;
  switch (phase_) {
    case Phase::kAuth:
      CountUnchecked(metrics::UpgradeOutcome::kDraining);
      EndCheck(why);
      break;
    case Phase::kExchange:
      exchange().Abandon(why);
      OnExchangeBroken();
      break;
    case Phase::kRelay:
      relay().Cut(why);
      break;
    case Phase::kProxy:
    case Phase::kTls:
    case Phase::kHead:
    case Phase::kLinger:
      Close();
      break;
    case Phase::kClosed:
      break;
  }
}

void Session::Linger() noexcept {
  // Closing with unread bytes would send RST, which may overtake the answer: read to the end first.
  phase_ = Phase::kLinger;
  core_.client.FinishWrite();
  work_ = std::make_unique<Farewell>(core_.services.loop.now(), core_.client.unacknowledged());
  core_.client.ResumeRead(net::Pause::kHandshake);
  core_.client.ResumeRead(net::Pause::kPeerFull);
  if (core_.client.read_ended()) {
    if (core_.client.write_finished() || core_.client.write_failed()) {
      Close();
      return;
    }
  }
  ArmTimer(core_.config().server.close_timeout);
}

void Session::Close() noexcept {
  if (phase_ == Phase::kClosed) {
    return;
  }
  phase_ = Phase::kClosed;
  EndCounts();
  ForgetExpiry();
  core_.timer.Cancel();
  core_.DropBackend();
  core_.client.Close();
  core_.listener->block->connections_open.Add(-1);
  if (ip_counted_) {
    core_.services.ips.RemoveConnection(core_.peer);
  }
  if (core_.introduced) {
    core_.introduced = false;
    core_.services.introductions.erase(core_.id);
  }
  core_.services.owner.Retire(*this);
}

// Whole requests wait here because the client does not read its answers. It is waited for as long
// as it takes something now and then. What is written is its own: it gets that in any case.
void Session::AwaitSlowReader() noexcept {
  const std::size_t untaken = core_.client.unacknowledged();
  if (!has_partial() || untaken >= partial().untaken) {
    Linger();
    return;
  }
  partial().untaken = untaken;
  ArmTimer(core_.config().server.keep_alive_timeout);
}

// A slow client that still takes bytes is waited for, within reason. What the kernel has reaches it
// after a close too, unless it sends on.
void Session::AwaitEndOfClient() noexcept {
  Farewell& end = farewell();
  const Instant now = core_.services.loop.now();
  const std::size_t untaken = core_.client.unacknowledged();
  if (untaken < end.untaken) {
    end.untaken = untaken;
    end.moved = now;
  }
  const bool matters = core_.client.pending() > 0 || (end.talks && untaken > 0);
  if (matters && now - end.moved < kLingerStill && now - end.began < kLingerMost) {
    ArmTimer(core_.config().server.close_timeout);
  } else {
    Close();
  }
}

// More is kept than what may become an empty line (RFC 9112 section 2.2).
bool Session::HasBegunHead() const noexcept {
  return has_partial() && partial().bytes != kHalfLine;
}

void Session::OnDeadline(short) noexcept {
  switch (phase_) {
    case Phase::kProxy:
      RefuseProxy(metrics::ProxyHeader::kTimeout);
      break;
    case Phase::kTls:
      core_.listener->block->tls_failed[TlsResult::kTimeout].Add();
      Close();
      break;
    case Phase::kHead:
      if (core_.client.IsPaused(net::Pause::kPeerFull)) {
        AwaitSlowReader();
      } else if (HasBegunHead()) {
        RefuseHead({408, "The request head was not complete in time.", "header_timeout"});
      } else {
        // Nothing was asked: an idle connection is closed without a word (RFC 9112 section 9.8).
        Linger();
      }
      break;
    case Phase::kLinger:
      AwaitEndOfClient();
      break;
    case Phase::kAuth:
    case Phase::kExchange:
    case Phase::kRelay:
    case Phase::kClosed:
      break;
  }
}

}  // namespace sluice::session
