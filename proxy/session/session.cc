#include "proxy/session/session.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "proxy/http/reply.h"
#include "proxy/session/affinity_cookie.h"
#include "proxy/session/rewrite.h"
#include "proxy/tls/tls_transport.h"

namespace sluice::session {
namespace {

using metrics::TlsResult;
using net::IoStatus;

// One read while waiting for a head takes at most this much: what comes behind the head is held,
// and held bytes are bounded.
constexpr std::size_t kHeadRead = 16 * 1024;

// How long the end of a response may take to a client that reads slowly.
constexpr Millis kLingerMost{120'000};

// A connection above a limit is there only to be told so.
constexpr Millis kSurplusPatience{1'000};

std::string_view FieldValue(const http::RequestHead& head, http::FieldId id) noexcept {
  const http::Field* field = Find(head.fields, id);
  return field == nullptr ? std::string_view() : field->value;
}

}  // namespace

Session::Session(Services& services, std::uint64_t id, std::size_t listener,
                 const net::Address& peer, bool over_limit)
    : core_(services, *this), over_limit_(over_limit) {
  core_.id = id;
  core_.listener = listener;
  core_.peer = peer;
  core_.view->listeners[listener]->connections_open.Add(1);
  if (const std::size_t most = core_.config().limits.connections_per_ip; most > 0) {
    ip_counted_ = true;
    const std::size_t now = services.ips.Add(peer.Ip());
    over_ip_limit_ = now > most;
    surplus_ = now > most * 2;
  }
}

Session::~Session() {
  assert(phase_ == Phase::kClosed);
}

void Session::Start(UniqueFd fd, std::unique_ptr<net::Transport> transport) noexcept {
  const bool tls = transport != nullptr;
  if (surplus_) {
    core_.services.block.rate_limited[metrics::Refused::kConnectionsPerIp].Add();
    fd.Reset();
    Close();
    return;
  }
  core_.client.Open(std::move(fd), std::move(transport));
  if (tls) {
    phase_ = Phase::kTls;
    phase_began_ = core_.services.loop.now();
    deadline_.Arm<&Session::OnDeadline>(core_.services.loop.base(),
                                        core_.config().server.tls_timeout, this);
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
  if (core_.services.intake == Intake::kClosing) {
    // Taken from the queue while the listener closed: there is no time left to be silent.
    return std::min(server.header_timeout, server.close_timeout);
  }
  return server.header_timeout;
}

// Dispatch.

void Session::OnReadable(net::Conn& conn) noexcept {
  switch (phase_) {
    case Phase::kTls:
      StepHandshake();
      break;
    case Phase::kHead:
      ReadHead();
      break;
    case Phase::kExchange:
      exchange_->OnReadable(SideOf(conn));
      break;
    case Phase::kRelay:
      relay_->OnReadable(SideOf(conn));
      break;
    case Phase::kLinger: {
      const net::IoResult got = conn.Read(core_.services.scratch);
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
    case Phase::kExchange:
      exchange_->OnWritable(SideOf(conn));
      break;
    case Phase::kRelay:
      relay_->OnWritable(SideOf(conn));
      break;
    case Phase::kHead:
      if (conn.write_failed()) {
        Close();
      } else if (conn.pending() <= core_.low_watermark() && conn.IsPaused(net::Pause::kPeerFull)) {
        conn.ResumeRead(net::Pause::kPeerFull);
        if (partial_) {
          TakeHead({});
        }
      }
      break;
    case Phase::kLinger:
      if (conn.write_failed() || (conn.write_finished() && conn.read_ended())) {
        Close();
      } else if (conn.write_finished()) {
        // All is sent; from here the client has its time to close.
        deadline_.Arm<&Session::OnDeadline>(core_.services.loop.base(),
                                            core_.config().server.close_timeout, this);
      }
      break;
    case Phase::kTls:
    case Phase::kClosed:
      break;
  }
}

void Session::OnConnected(net::Conn&, int error) noexcept {
  if (phase_ == Phase::kExchange) {
    exchange_->OnConnected(error);
  }
}

// TLS.

void Session::StepHandshake() noexcept {
  // Under a storm the handshakes take turns: the socket stays readable, so one that is left out now
  // comes back in the next turn, after the sessions that live already.
  if (!core_.services.handshakes.Take(core_.services.loop.turn())) {
    return;
  }
  auto& tls = static_cast<tls::TlsTransport&>(*core_.client.transport());
  metrics::ListenerBlock& block = *core_.view->listeners[core_.listener];
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
  block.tls_handshake_seconds.Observe(std::chrono::duration<double>(Now() - phase_began_).count());
  AwaitHead(FirstHeadPatience());
  if (tls.HasBuffered()) {
    ReadHead();
  }
}

// Request heads.

void Session::AwaitHead(Millis patience) noexcept {
  phase_ = Phase::kHead;
  deadline_.Arm<&Session::OnDeadline>(core_.services.loop.base(), patience, this);
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
  std::unique_ptr<PartialHead> kept = std::move(partial_);
  http::RequestParser* own_parser = nullptr;  // knows the start of `bytes`, if set
  if (kept) {
    kept->bytes += AsText(bytes);
    bytes = AsBytes(kept->bytes);
    own_parser = &kept->parser;
  }
  serving_ = true;
  while (phase_ == Phase::kHead) {
    if (bytes.empty()) {
      if (!partial_) {
        break;
      }
      // An exchange has ended within the loop and left what it held.
      kept = std::move(partial_);
      bytes = AsBytes(kept->bytes);
      own_parser = &kept->parser;
      continue;
    }
    if (core_.client.pending() > core_.high_watermark()) {
      // The client does not read its answers: it gets no further ones, and we hold no more.
      KeepHead(bytes);
      core_.client.PauseRead(net::Pause::kPeerFull);
      break;
    }
    if (own_parser == nullptr) {
      core_.services.request_parser.Reset();
    }
    const Taken taken =
        TakeRequest(own_parser != nullptr ? *own_parser : core_.services.request_parser, bytes);
    if (taken == Taken::kIncomplete) {
      if (own_parser != nullptr) {
        partial_ = std::move(kept);
      } else {
        KeepHead(bytes);
        if (served_any_) {
          // Until now the patience was for an idle connection, from here it is for a head.
          AwaitHead(core_.config().server.header_timeout);
        }
      }
      break;
    }
    own_parser = nullptr;
    if (taken == Taken::kElsewhere) {
      bytes = {};
    }
  }
  serving_ = false;
}

void Session::KeepHead(Bytes bytes) noexcept {
  partial_ = std::make_unique<PartialHead>(PartialHead{
      std::string(AsText(bytes)), http::RequestParser(core_.view->snapshot->head_limits)});
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
  bytes = bytes.subspan(parser.head_size());
  deadline_.Cancel();
  served_any_ = true;
  FillFacts(head);
  Admission admission =
      Admit(head, *core_.view->snapshot, core_.services.intake, facts_->client_ip);
  if (admission.route) {
    facts_->route = *admission.route;
    facts_->has_route = true;
  }
  if (over_limit_ || over_ip_limit_) {
    const Refusal limit = over_limit_ ? Refusal{503,
                                                "This server has all the connections it may have.",
                                                "",
                                                "max_connections",
                                                metrics::UpgradeOutcome::kLimit,
                                                true}
                                      : Refusal{429,
                                                "Too many connections from this address.",
                                                "",
                                                "connections_per_ip",
                                                metrics::UpgradeOutcome::kLimit,
                                                true};
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
  facts_->affinity = admission.key_source;
  BeginExchange(head, std::move(admission), bytes);
  return Taken::kElsewhere;
}

void Session::FillFacts(const http::RequestHead& head) noexcept {
  facts_ = std::make_unique<RequestFacts>();
  facts_->method = head.method;
  facts_->host = head.host;
  facts_->path = head.path;
  facts_->query = head.query;
  facts_->origin = FieldValue(head, http::FieldId::kOrigin);
  facts_->user_agent = FieldValue(head, http::FieldId::kUserAgent);
  facts_->forwarded_for = FieldValue(head, http::FieldId::kXForwardedFor);
  facts_->began = core_.services.loop.now();
  const auto is_trusted = [&](const std::string& ip) {
    const auto address = net::Address::FromNumeric(ip, 0);
    return address && core_.view->snapshot->IsTrusted(*address);
  };
  facts_->client_ip = OriginalClient(head, core_.peer.Ip(), is_trusted);
  const std::string_view id = FieldValue(head, http::FieldId::kXRequestId);
  facts_->request_id = IsUsableRequestId(id) ? std::string(id) : RandomId();
}

void Session::BeginExchange(const http::RequestHead& head, Admission admission,
                            Bytes rest) noexcept {
  const std::string peer_ip = core_.peer.Ip();
  ForwardFacts forward;
  forward.peer_ip = peer_ip;
  forward.tls = core_.listener_config().is_tls();
  forward.peer_trusted = core_.view->snapshot->IsTrusted(core_.peer);
  forward.request_id = facts_->request_id;
  phase_ = Phase::kExchange;
  ExchangeSink& sink = *this;  // privately ours: make_unique could not convert it
  exchange_ = std::make_unique<Exchange>(core_, sink, *facts_);
  exchange_->Begin(head, std::move(admission), forward, rest);
}

// Answers a request that goes no further. True when the connection may carry another one.
bool Session::Refuse(const http::RequestHead& head, const Refusal& refusal) noexcept {
  if (refusal.outcome && facts_->has_route) {
    core_.route_block(*facts_).upgrades[*refusal.outcome].Add();
  }
  std::string extra(refusal.extra);
  if (refusal.retry_after) {
    extra += RetryAfter(core_.services.random);
  }
  // Content that nobody will read would be taken for the next request.
  const bool has_content = head.framing == http::Framing::kChunked ||
                           (head.framing == http::Framing::kLength && head.content_length > 0);
  const bool reusable = head.keep_alive && head.minor_version == 1 && !has_content &&
                        refusal.status != 400 && !ending_ &&
                        core_.services.intake != Intake::kClosing;
  if (refusal.status == 426) {
    extra += "Connection: Upgrade\r\n";  // RFC 9110 section 7.8: it goes with the Upgrade field
  }
  http::Reply reply;
  reply.status = refusal.status;
  reply.text = refusal.text;
  reply.extra_fields = extra;
  reply.close = !reusable;
  reply.head_only = head.method == "HEAD";
  core_.client.Write(AsBytes(Serialize(reply)));
  facts_->status = refusal.status;
  LogRequest(refusal.label);
  if (!reusable) {
    Linger();
    return false;
  }
  AwaitHead(core_.config().server.keep_alive_timeout);
  return true;
}

void Session::RefuseHead(const http::HeadFault& fault) noexcept {
  core_.services.block.http_parse_errors.Add(fault.label);
  facts_ = std::make_unique<RequestFacts>();
  facts_->began = core_.services.loop.now();
  facts_->status = fault.status;
  http::Reply reply;
  reply.status = fault.status;
  reply.text = fault.reason;
  core_.client.Write(AsBytes(Serialize(reply)));
  LogRequest(fault.label);
  Linger();
}

void Session::LogRequest(std::string_view reason) noexcept {
  const Instant now = core_.services.loop.now();
  if (facts_->has_route && facts_->status != 101) {
    metrics::RouteBlock& block = core_.route_block(*facts_);
    block.http_requests[static_cast<std::size_t>(facts_->status / 100)].Add();
    block.http_request_seconds.Observe(std::chrono::duration<double>(now - facts_->began).count());
  }
  const std::string peer_ip = core_.peer.Ip();
  log::AccessRecord record = BaseRecord(core_, *facts_, peer_ip, now);
  record.event = "http";
  record.bytes_in = facts_->bytes_in;
  record.bytes_out = facts_->bytes_out;
  record.reason = reason;
  core_.services.access_log.Write(record);
}

// What the phases report.

void Session::DropExchange() noexcept {
  if (exchange_) {
    core_.services.loop.Bury(std::move(exchange_));
  }
}

void Session::OnExchangeDone(bool reusable, std::string held) noexcept {
  LogRequest(facts_->reason);
  DropExchange();
  if (!reusable || ending_) {
    Linger();
    return;
  }
  AwaitHead(core_.config().server.keep_alive_timeout);
  if (!held.empty()) {
    KeepHead(AsBytes(held));
    if (!serving_) {
      TakeHead({});
    }
  }
}

void Session::OnUpgraded(bool rsv1, std::string early_client, Bytes early_backend) noexcept {
  DropExchange();
  phase_ = Phase::kRelay;
  RelaySink& sink = *this;
  relay_ = std::make_unique<Relay>(core_, sink, *facts_, rsv1);
  relay_->Start(AsBytes(early_client), early_backend);
  if (relay_ && ending_) {
    Drain();
  }
}

void Session::OnExchangeBroken() noexcept {
  if (facts_->reason.empty()) {
    facts_->reason = "broken";
  }
  LogRequest(facts_->reason);
  DropExchange();
  Close();
}

void Session::OnRelayDone() noexcept {
  forced_ = forced_ || relay_->was_forced();
  core_.services.loop.Bury(std::move(relay_));
  Close();
}

// Endings.

void Session::Drain() noexcept {
  ending_ = true;
  switch (phase_) {
    case Phase::kTls:
      break;  // it gets its answer, once it can ask; the handshake has its deadline
    case Phase::kHead:
      if (!partial_) {
        // A request may have arrived that was not read yet. It is answered, not met with a FIN.
        ReadHead();
      }
      if (phase_ != Phase::kHead) {
        break;
      }
      if (partial_) {
        RefuseHead({503, "This server is draining.", "draining"});
      } else {
        Linger();
      }
      break;
    case Phase::kExchange:
      exchange_->Drain();
      break;
    case Phase::kRelay: {
      OurClose close;
      close.client_code = core_.route(*facts_).close_code;
      close.reason = core_.config().drain.reason;
      close.why = "drain";
      relay_->BeginClose(close);
      break;
    }
    case Phase::kLinger:
    case Phase::kClosed:
      break;
  }
}

void Session::Cut() noexcept {
  forced_ = phase_ != Phase::kClosed && phase_ != Phase::kLinger;
  switch (phase_) {
    case Phase::kExchange:
      exchange_->Abandon();
      OnExchangeBroken();
      break;
    case Phase::kRelay:
      relay_->Cut("drain_deadline");
      break;
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
  phase_began_ = core_.services.loop.now();
  core_.client.FinishWrite();
  linger_pending_ = core_.client.pending();
  core_.client.ResumeRead(net::Pause::kHandshake);
  core_.client.ResumeRead(net::Pause::kPeerFull);
  if (core_.client.read_ended()) {
    if (core_.client.write_finished() || core_.client.write_failed()) {
      Close();
      return;
    }
  }
  deadline_.Arm<&Session::OnDeadline>(core_.services.loop.base(),
                                      core_.config().server.close_timeout, this);
}

void Session::Close() noexcept {
  if (phase_ == Phase::kClosed) {
    return;
  }
  phase_ = Phase::kClosed;
  deadline_.Cancel();
  core_.DropBackend();
  core_.client.Close();
  core_.view->listeners[core_.listener]->connections_open.Add(-1);
  if (ip_counted_) {
    core_.services.ips.Remove(core_.peer.Ip());
  }
  core_.services.owner.Retire(*this);
}

void Session::OnDeadline(short) noexcept {
  switch (phase_) {
    case Phase::kTls:
      core_.view->listeners[core_.listener]->tls_failed[TlsResult::kTimeout].Add();
      Close();
      break;
    case Phase::kHead:
      if (partial_) {
        RefuseHead({408, "The request head was not complete in time.", "header_timeout"});
      } else {
        // Nothing was asked: an idle connection is closed without a word (RFC 9112 section 9.8).
        Linger();
      }
      break;
    case Phase::kLinger: {
      // A slow client that still takes bytes is waited for, within reason.
      const std::size_t pending = core_.client.pending();
      if (pending < linger_pending_ && core_.services.loop.now() - phase_began_ < kLingerMost) {
        linger_pending_ = pending;
        deadline_.Arm<&Session::OnDeadline>(core_.services.loop.base(),
                                            core_.config().server.close_timeout, this);
      } else {
        Close();
      }
      break;
    }
    case Phase::kExchange:
    case Phase::kRelay:
    case Phase::kClosed:
      break;
  }
}

}  // namespace sluice::session
