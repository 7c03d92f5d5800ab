#include "proxy/session/exchange.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "proxy/http/reply.h"
#include "proxy/session/idle_conns.h"
#include "proxy/session/own_answer.h"
#include "proxy/tls/tls_transport.h"

namespace sluice::session {
namespace {

using http::Framing;
using metrics::BackendFailure;
using metrics::UpgradeOutcome;
using net::IoStatus;

// Appends one chunk (RFC 9112 section 7.1). REQUIRES: data is not empty.
void AppendChunk(std::string& out, Bytes data) {
  std::array<char, 16> size{};
  const auto end = std::to_chars(size.data(), size.data() + size.size(), data.size(), 16).ptr;
  out.append(size.data(), end);
  out += "\r\n";
  out += AsText(data);
  out += "\r\n";
}

// A stream of events whose end is not announced, and whose events can be told apart: not
// compressed.
bool IsEndlessEventStream(const http::ResponseHead& head) noexcept {
  const http::Field* type = Find(head.fields, http::FieldId::kContentType);
  const bool endless = head.framing == Framing::kChunked || head.framing == Framing::kUntilClose;
  return endless && type != nullptr && http::IsEventStream(type->value) &&
         std::none_of(head.fields.begin(), head.fields.end(), [](const http::Field& field) {
           return http::EqualsIgnoreCase(field.name, "Content-Encoding");
         });
}

// How long the backend may keep a connection idle without finding it closed: a second less than its
// Keep-Alive field announces. Not standardized; Node, Apache and others send it.
Millis AnnouncedIdle(const http::ResponseHead& head) noexcept {
  constexpr std::string_view kTimeout = "timeout=";
  Millis announced = Millis::max();
  http::ForEachListElement(head.fields, http::FieldId::kKeepAlive, [&](std::string_view element) {
    if (!http::EqualsIgnoreCase(element.substr(0, kTimeout.size()), kTimeout)) {
      return;
    }
    const std::string_view digits = element.substr(kTimeout.size());
    std::uint32_t seconds = 0;
    if (std::from_chars(digits.data(), digits.data() + digits.size(), seconds).ec == std::errc()) {
      announced = std::min(announced, Millis(1000) * std::max<std::int64_t>(0, seconds - 1LL));
    }
  });
  return announced;
}

constexpr std::string_view kLastChunk = "0\r\n\r\n";

// So much content of a request is kept while it may have to be sent again.
constexpr std::size_t kMostResent = 16 * 1024;

constexpr std::string_view kClientGone = "client_gone";

// What such an answer is about may be the request as well as the backend: it is neither a success
// nor a failure of the backend.
bool IsUnavailable(int status) noexcept {
  return status >= 502 && status <= 504;
}

}  // namespace

void Exchange::Begin(const http::RequestHead& head, Admission admission,
                     const ForwardFacts& forward, Bytes rest) noexcept {
  admission_ = std::move(admission);
  upgrade_ = admission_.upgrade;
  head_request_ = head.method == "HEAD";
  safe_method_ = head_request_ || head.method == "GET" || head.method == "OPTIONS";
  idempotent_ = safe_method_ || head.method == "PUT" || head.method == "DELETE";
  client_http10_ = head.minor_version == 0;
  client_keep_alive_ = head.keep_alive && !client_http10_ && !admission_.last;
  client_ended_ = core_.client.read_ended();  // while an auth server was asked
  accepts_events_ = http::AcceptsEventStream(head);
  expects_continue_ = head.expect_continue;
  request_framing_ = upgrade_ ? Framing::kNone : head.framing;
  request_left_ = head.content_length;
  request_done_ = request_framing_ == Framing::kNone ||
                  (request_framing_ == Framing::kLength && request_left_ == 0);
  const config::Pool& pool = core_.pool(facts_).config;
  const bool keeps = pool.keep_alive.max_idle > 0 &&
                     pool.proxy_protocol == config::ProxyProtocol::kOff &&
                     !http::NamesItsConnection(head.fields);
  passage_ = upgrade_ ? Passage::kUpgrade : keeps ? Passage::kKeepAlive : Passage::kClose;
  request_ = BackendRequest(head, forward, passage_);
  progress_ = core_.services.loop.now();
  if (request_done_) {
    Hold(rest);
  } else {
    early_content_.assign(AsText(rest));
    CountBuffered();
  }
  TryNext();
}

// From the client.

void Exchange::OnReadable(Side side) noexcept {
  if (state_ == State::kDone) {
    return;
  }
  if (side == Side::kBackend && state_ == State::kTls) {
    // Under a storm the handshakes take turns; the socket stays readable.
    if (core_.services.backend_handshakes.Take(core_.services.loop.turn())) {
      StepHandshake();
    }
    return;
  }
  if (side == Side::kBackend) {
    const net::IoResult got = core_.backend->Read(core_.services.scratch.first(kUsualRead));
    switch (got.status) {
      case IoStatus::kOk:
        TakeFromBackend(core_.services.scratch.first(got.bytes));
        break;
      case IoStatus::kEof:
        OnBackendEnd(false);
        break;
      case IoStatus::kError:
        OnBackendEnd(true);
        break;
      case IoStatus::kWouldBlock:
        break;
    }
    return;
  }
  std::size_t room = kUsualRead;
  if (request_done_) {
    // What comes now belongs to a state that has not begun. Hold a bounded piece of it, mainly to
    // see the client leave.
    const std::size_t most = core_.config().limits.early_data;
    if (held_.size() >= most) {
      PauseClient(net::Pause::kHandshake);
      return;
    }
    room = most - held_.size();
  }
  const net::IoResult got =
      core_.client.Read(core_.services.scratch.first(std::min(room, kUsualRead)));
  switch (got.status) {
    case IoStatus::kOk:
      TakeFromClient(core_.services.scratch.first(got.bytes));
      break;
    case IoStatus::kEof:
      OnClientEnd(false);
      break;
    case IoStatus::kError:
      OnClientEnd(true);
      break;
    case IoStatus::kWouldBlock:
      break;
  }
}

void Exchange::TakeFromClient(Bytes bytes) noexcept {
  if (request_done_) {
    Hold(bytes);
  } else if (is_connecting()) {
    early_content_ += AsText(bytes);  // the head goes first
    CountBuffered();
  } else {
    ForwardRequestContent(bytes);
  }
}

void Exchange::Hold(Bytes bytes) noexcept {
  held_ += AsText(bytes);
  CountBuffered();
  if (held_.size() >= core_.config().limits.early_data) {
    PauseClient(net::Pause::kHandshake);
  }
}

// What has been given back is counted until the exchange is over, which is soon.
void Exchange::CountBuffered() noexcept {
  buffered_.Set(held_.size() + early_content_.size() + (resend_ ? resend_->size() : 0));
}

// Content that goes out on a connection which may turn out to be stale. All of it, or nothing.
void Exchange::KeepForResend(Bytes bytes) noexcept {
  if (!IsStale() || !idempotent_ || (request_sent_any_ && !resend_)) {
    return;
  }
  if (!resend_) {
    resend_ = std::make_unique<std::string>();
  }
  if (resend_->size() + bytes.size() <= kMostResent) {
    *resend_ += AsText(bytes);
  } else {
    resend_.reset();
  }
  CountBuffered();
}

void Exchange::ForwardRequestContent(Bytes bytes) noexcept {
  progress_ = core_.services.loop.now();
  Bytes rest;
  if (request_framing_ == Framing::kLength) {
    const std::size_t count =
        static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), request_left_));
    request_left_ -= count;
    request_done_ = request_left_ == 0;
    CountContent(Side::kClient, count);
    KeepForResend(bytes.first(count));
    core_.backend->Write(bytes.first(count));
    rest = bytes.subspan(count);
  } else {
    std::string out;
    while (!bytes.empty() && !request_done_) {
      const auto step = request_chunks_.Next(bytes);
      if (step.status == ParseStatus::kBad) {
        client_keep_alive_ = false;
        if (state_ == State::kResponse) {
          Break();
        } else {
          Fail({400, "The chunked content is malformed.", "bad_chunk"},
               UpgradeOutcome::kBadRequest);
        }
        return;
      }
      if (!step.data.empty()) {
        CountContent(Side::kClient, step.data.size());
        AppendChunk(out, step.data);
      }
      bytes = bytes.subspan(step.consumed);
      if (step.status == ParseStatus::kDone) {
        out += kLastChunk;
        request_done_ = true;
      }
    }
    if (!out.empty()) {
      KeepForResend(AsBytes(out));
      core_.backend->Write(AsBytes(out));
    }
    rest = bytes;
  }
  request_sent_any_ = true;
  if (core_.IsFull(*core_.backend)) {
    core_.route_block(facts_).backpressure_pauses[Index(Side::kClient)].Add();
    PauseClient(net::Pause::kPeerFull);
  }
  if (!rest.empty()) {
    Hold(rest);
  }
}

void Exchange::OnClientEnd(bool broken) noexcept {
  client_ended_ = true;
  if (upgrade_) {
    CountUpgrade(UpgradeOutcome::kClientGone);
    reason_ = kClientGone;
    Break();
  } else if (broken || !request_done_) {
    GiveUpForClient();
  } else {
    NoteClientFinished();
  }
}

// A client that has only finished its own direction still waits for the answer, and one that has
// left looks the same until something is sent to it. So it gets what comes soon, see OverallDue.
void Exchange::NoteClientFinished() noexcept {
  client_ended_ = true;
  progress_ = core_.services.loop.now();
  in_flight_ = BytesInFlight();
  ArmTimer();
}

// What Sluice and the kernels hold of the content, on its way to either side.
std::size_t Exchange::BytesInFlight() const noexcept {
  return core_.client.unacknowledged() + (core_.backend ? core_.backend->unacknowledged() : 0);
}

// A peer that reads slowly makes no event until there is room for more: it shows in what is in
// flight, compared with when that was last looked at.
bool Exchange::HasMovedOn() noexcept {
  const std::size_t in_flight = BytesInFlight();
  if (std::exchange(in_flight_, in_flight) == in_flight) {
    return false;
  }
  progress_ = core_.services.loop.now();
  return true;
}

void Exchange::GiveUpForClient() noexcept {
  reason_ = kClientGone;
  if (core_.backend && (!request_done_ || core_.backend->pending() > 0)) {
    core_.backend->Abort();  // before it reads what the kernel has of the request
  }
  Break();
}

void Exchange::PauseClient(net::Pause reason) noexcept {
  core_.client.PauseRead(reason);
  ArmTimer();
}

// A client that is not read tells nothing of its end.
void Exchange::LookAfterClient() noexcept {
  switch (core_.client.peer_end()) {
    case net::PeerEnd::kNone:
      static_cast<void>(HasMovedOn());
      ArmTimer();
      break;
    case net::PeerEnd::kFinished:
      if (upgrade_) {
        OnClientEnd(false);
        break;
      }
      if (request_framing_ == Framing::kLength &&
          early_content_.size() + core_.client.MostInput() < request_left_) {
        OnClientEnd(true);  // the rest of the content does not come any more
        break;
      }
      // Perhaps it has only sent all that it had, and the backend does not take it yet.
      NoteClientFinished();
      break;
    case net::PeerEnd::kGone:
      OnClientEnd(true);
      break;
  }
}

// From the backend.

void Exchange::TakeFromBackend(Bytes bytes) noexcept {
  progress_ = core_.services.loop.now();
  if (state_ == State::kResponse) {
    ForwardResponseContent(bytes);
    return;
  }
  const std::unique_ptr<PartialHead> kept = std::move(partial_);  // outlives the views of the head
  http::ResponseParser* parser = &core_.services.response_parser;
  if (kept) {
    kept->bytes += AsText(bytes);
    bytes = AsBytes(kept->bytes);
    parser = &kept->parser;
  } else {
    parser->Reset();
  }
  // Interim answers come before the final one, so there may be several heads.
  for (;;) {
    switch (parser->Parse(AsText(bytes), head_request_)) {
      case ParseStatus::kNeedMore:
        partial_ = std::make_unique<PartialHead>(
            PartialHead{std::string(AsText(bytes)), std::move(*parser)});
        return;
      case ParseStatus::kBad:
        AttemptFailed(BackendFailure::kBadAnswer,
                      {502, "The backend's answer is not valid HTTP.", "bad_answer"});
        return;
      case ParseStatus::kDone:
        break;
    }
    const http::ResponseHead& head = parser->head();
    bytes = bytes.subspan(parser->head_size());
    if (head.status >= 200 || head.status == 101) {
      OnResponseHead(head, bytes);
      return;
    }
    if (++interim_ > http::kMostInterimAnswers) {
      AttemptFailed(BackendFailure::kBadAnswer,
                    {502, "The backend sent too many interim answers.", "bad_answer"});
      return;
    }
    if (!upgrade_ && !client_http10_) {
      ClientResponse how;
      how.change.removed = core_.route(facts_).heads.response(core_.listener->is_tls()).removed;
      core_.client.Write(AsBytes(ClientHead(head, how)));
    }
    parser->Reset();
    if (bytes.empty()) {
      return;
    }
  }
}

void Exchange::OnResponseHead(const http::ResponseHead& head, Bytes rest) noexcept {
  if (head.status == 101) {
    if (upgrade_) {
      AcceptUpgrade(head, rest);
    } else {
      AttemptFailed(BackendFailure::kBadAnswer,
                    {502, "The backend switched protocols without being asked.", "unasked_101"});
    }
    return;
  }
  if (upgrade_ && IsUnavailable(head.status)) {
    core_.backend_block(facts_).failures[BackendFailure::kStatus].Add();
    if (MayRetry(BackendFailure::kStatus) && ChooseBackend().has_value()) {
      core_.DropBackend();
      TryNext();
      return;
    }
  }
  if (upgrade_) {
    CountUpgrade(UpgradeOutcome::kBackendRefused);
    // From here on it is a plain response, and waits like one.
    upgrade_ = false;
    sink_.OnNotUpgraded();
    ArmTimer();
  }
  state_ = State::kResponse;
  if (resend_) {
    resend_.reset();
    CountBuffered();
  }
  behind_others_ = core_.client.pending() > 0;
  facts_.status = static_cast<std::uint16_t>(head.status);
  response_framing_ = head.framing;
  response_left_ = head.content_length;
  client_chunked_ = !client_http10_ &&
                    (head.framing == Framing::kChunked || head.framing == Framing::kUntilClose);
  client_keep_alive_ = client_keep_alive_ && MayTakeAnother() && KeepsAlive(core_.services.intake);
  if (passage_ == Passage::kKeepAlive && head.keep_alive && head.framing != Framing::kUntilClose &&
      !http::NamesItsConnection(head.fields)) {
    idle_for_ = std::min(core_.pool(facts_).config.keep_alive.idle_timeout, AnnouncedIdle(head));
  }
  ClientResponse how;
  how.chunked = client_chunked_;
  how.close = !client_keep_alive_;
  const std::string cookie = CookieToIssue();
  how.set_cookie = cookie;
  how.date = core_.services.date.Text(core_.services.loop.now());
  how.change = core_.route(facts_).heads.response(core_.listener->is_tls());
  std::string out = ClientHead(head, how);
  if (admission_.may_teach) {
    lesson_ = TokenLesson::Begin(head, core_.route(facts_),
                                 core_.pool(facts_).backends.backends()[facts_.backend].state,
                                 core_.route_block(facts_));
  }
  if (IsEndlessEventStream(head)) {
    core_.client.Write(AsBytes(std::exchange(out, {})));
    NoteGoodAnswer();
    events_ = std::make_unique<http::EventBoundary>();
    sink_.OnEventStream();
  }
  if (head.framing == Framing::kNone ||
      (head.framing == Framing::kLength && head.content_length == 0)) {
    NoteGoodAnswer();
    core_.client.Write(AsBytes(out));
    FinishResponse(rest.empty() ? Ended::kInOrder : Ended::kOtherwise);
  } else {
    ForwardResponseContent(rest, std::move(out));
    if (state_ == State::kResponse) {
      ArmTimer();  // by response_idle_timeout
    }
  }
}

// The answer has begun, and is none that another backend is asked for after all.
void Exchange::NoteGoodAnswer() noexcept {
  if (!IsUnavailable(facts_.status)) {
    core_.NoteSuccess(facts_);
  }
}

void Exchange::AcceptUpgrade(const http::ResponseHead& head, Bytes rest) noexcept {
  const ws::UpgradeAgreement agreement = CheckUpgradeResponse(head, admission_.offer);
  if (!agreement.ok) {
    core_.backend_block(facts_).failures[BackendFailure::kBadAnswer].Add();
    core_.NoteFailure(facts_, BackendFailure::kBadAnswer);
    const std::string text = "The upgrade failed: " + std::string(agreement.reason) + '.';
    Fail({502, text, "bad_101"}, UpgradeOutcome::kBackendError);
    return;
  }
  ClientResponse how;
  const std::string cookie = CookieToIssue();
  how.set_cookie = cookie;
  how.change = core_.route(facts_).heads.response(core_.listener->is_tls());
  core_.NoteSuccess(facts_);
  facts_.status = 101;
  if (facts_.texts.stored() && !(agreement.protocol.empty() && agreement.extensions.empty())) {
    FactTexts::Views texts = facts_.texts.All();
    texts[static_cast<std::size_t>(FactText::kSubprotocol)] = agreement.protocol;
    texts[static_cast<std::size_t>(FactText::kExtensions)] = agreement.extensions;
    facts_.texts.Store(texts);
  }
  core_.client.Write(AsBytes(ClientHead(head, how)));
  const Instant now = Now();  // once a session: this one is worth the exact time
  facts_.handshake = std::chrono::duration_cast<RequestFacts::ShortMillis>(now - facts_.began);
  core_.route_block(facts_).upgrade_seconds.Observe(
      std::chrono::duration<double>(now - facts_.began).count());
  CountUpgrade(UpgradeOutcome::kAccepted);
  state_ = State::kDone;
  core_.timer.Cancel();
  core_.client.ResumeRead(net::Pause::kHandshake);
  sink_.OnUpgraded({agreement.rsv1, agreement.all_known, admission_.key_hash}, std::move(held_),
                   rest);
}

void Exchange::ForwardResponseContent(Bytes bytes, std::string out) noexcept {
  const bool has_begun = out.empty();  // the head of the answer has gone out
  bool ended = false;
  std::size_t content = 0;  // bytes of it that go out
  if (response_framing_ == Framing::kLength) {
    const std::size_t count =
        static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), response_left_));
    response_left_ -= count;
    ended = response_left_ == 0;
    content = count;
    if (lesson_) {
      lesson_->Take(bytes.first(count), core_.services.loop.now());
    }
    if (out.empty()) {
      core_.client.Write(bytes.first(count));
    } else {
      out += AsText(bytes.first(count));
      core_.client.Write(AsBytes(out));
    }
    bytes = bytes.subspan(count);  // was not announced, and goes no further
  } else {
    const auto append = [&](Bytes data) {
      if (events_ && end_events_) {
        data = data.first(events_->AdvanceToBoundary(data));
        ended = ended || events_->at_boundary();
      } else if (events_) {
        events_->Advance(data);
      }
      if (data.empty()) {
        return;
      }
      content += data.size();
      if (lesson_) {
        lesson_->Take(data, core_.services.loop.now());
      }
      if (client_chunked_) {
        AppendChunk(out, data);
      } else {
        out += AsText(data);
      }
    };
    if (response_framing_ == Framing::kUntilClose) {
      append(std::exchange(bytes, {}));
    }
    while (response_framing_ == Framing::kChunked && !bytes.empty() && !ended) {
      const auto step = response_chunks_.Next(bytes);
      if (step.status == ParseStatus::kBad) {
        if (has_begun) {
          core_.backend_block(facts_).failures[BackendFailure::kBadAnswer].Add();
          Break();
        } else {
          client_keep_alive_ = false;  // it ends here, as it would behind a first piece
          AttemptFailed(BackendFailure::kBadAnswer,
                        {502, "The backend's answer is malformed.", "bad_answer"});
        }
        return;
      }
      bytes = bytes.subspan(step.consumed);
      ended = step.status == ParseStatus::kDone;
      append(step.data);
    }
    if (ended) {
      EndSessionOfEvents();
      out += EndOfEvents();
    }
    if (ended && client_chunked_) {
      out += kLastChunk;
    }
    if (!out.empty()) {
      core_.client.Write(AsBytes(out));
    }
  }
  CountContent(Side::kBackend, content);
  if (!has_begun) {
    NoteGoodAnswer();
  }
  if (core_.client.write_failed()) {
    GiveUpForClient();
    return;
  }
  if (ended) {
    // An event stream that we end goes on at the backend.
    FinishResponse(bytes.empty() && !end_events_ ? Ended::kInOrder : Ended::kOtherwise);
  } else if (core_.IsFull(core_.client)) {
    core_.route_block(facts_).backpressure_pauses[Index(Side::kBackend)].Add();
    core_.backend->PauseRead(net::Pause::kPeerFull);
    if (std::exchange(in_flight_, BytesInFlight()) == 0) {
      ArmTimer();  // from here on it looks
    }
  }
}

void Exchange::OnBackendEnd(bool broken) noexcept {
  const auto* tls = static_cast<const tls::TlsTransport*>(core_.backend->transport());
  if (state_ == State::kAwaitHead && tls != nullptr &&
      !core_.services.tls_buffers->failure.empty()) {
    // In TLS 1.3 a backend tells only now that it wants another certificate of ours, or any.
    LogTlsFailure(core_.services.tls_buffers->failure);
    AttemptFailed(BackendFailure::kTls, {502, "The backend broke off TLS.", "backend_tls"});
    return;
  }
  if (IsStale() && idempotent_ && (!request_sent_any_ || resend_)) {
    ConnectAnew();
    return;
  }
  if (state_ == State::kAwaitHead) {
    unanswered_ = true;
    AttemptFailed(BackendFailure::kReset, kUnanswered, IsStale() ? Blame::kUs : Blame::kBackend);
    return;
  }
  // Without TLS's own end it may be somebody on the way who has cut the answer.
  const bool truncated = tls != nullptr && tls->was_truncated();
  if (response_framing_ == Framing::kUntilClose && !broken && !truncated) {
    EndSessionOfEvents();
    if (client_chunked_) {
      core_.client.Write(AsBytes(kLastChunk));
    }
    FinishResponse(Ended::kOtherwise);
    return;
  }
  core_.backend_block(facts_).failures[BackendFailure::kLost].Add();
  Break();  // the client must not take what it has for the whole
}

void Exchange::OnWritable(Side side) noexcept {
  if (state_ == State::kDone) {
    return;
  }
  net::Conn& conn = core_.conn(side);
  progress_ = core_.services.loop.now();
  if (side == Side::kClient) {
    behind_others_ = behind_others_ && conn.pending() > 0;
  }
  if (side == Side::kClient && conn.write_failed()) {
    if (upgrade_) {
      CountUpgrade(UpgradeOutcome::kClientGone);
    }
    GiveUpForClient();
    return;
  }
  if (!core_.HasRoom(conn)) {
    return;
  }
  if (side == Side::kClient) {
    if (core_.backend) {
      core_.backend->ResumeRead(net::Pause::kPeerFull);
    }
  } else {
    core_.client.ResumeRead(net::Pause::kPeerFull);
  }
}

// Endings.

void Exchange::FinishResponse(Ended how) noexcept {
  if (lesson_) {
    lesson_->End();
  }
  if (IsAtHomeThatDrains()) {
    NoteSessionAnswered();
  }
  if (how == Ended::kInOrder && idle_for_ > Millis(0) && request_done_ && core_.has_todays_view()) {
    KeepBackend();
  }
  Abandon();
  Report(client_keep_alive_ && MayTakeAnother());
}

// A drain waits for the next request of the session.
void Exchange::NoteSessionAnswered() noexcept {
  core_.pool(facts_).backends.backends()[facts_.backend].state->NoteAnswered(
      core_.services.loop.now());
}

// The request is of a session that was learned, and the backend that it is at drains. One that has
// gone elsewhere for once says nothing of its session.
bool Exchange::IsAtHomeThatDrains() const noexcept {
  return admission_.learned == facts_.backend &&
         core_.pool(facts_).backends.backends()[facts_.backend].state->draining.load(
             std::memory_order_relaxed);
}

// For another request. REQUIRES: the answer has ended in order.
void Exchange::KeepBackend() noexcept {
  core_.backend->ResumeRead(net::Pause::kPeerFull);
  const balance::BackendState* backend = core_.leg_count.state();
  core_.services.idle_conns->Keep(
      backend, std::move(core_.backend),
      {core_.services.loop.now() + idle_for_, core_.pool(facts_).config.keep_alive.max_idle,
       &core_.backend_block(facts_).idle, backend});
}

// Gives the client connection back. REQUIRES: Abandon() was called.
void Exchange::Report(bool reusable) noexcept {
  core_.client.ResumeRead(net::Pause::kHandshake);
  core_.client.ResumeRead(net::Pause::kPeerFull);
  sink_.OnExchangeDone(reusable, std::move(held_));
}

void Exchange::Abandon(std::string_view why) noexcept {
  if (!why.empty()) {
    reason_ = why;
    if (upgrade_ && state_ != State::kDone) {
      CountUpgrade(UpgradeOutcome::kDraining);
    }
  }
  state_ = State::kDone;
  core_.timer.Cancel();
  core_.DropBackend();
}

void Exchange::Break() noexcept {
  Abandon();
  sink_.OnExchangeBroken();
}

void Exchange::Fail(const Failure& told, UpgradeOutcome outcome, std::string retry_after) noexcept {
  if (upgrade_) {
    CountUpgrade(outcome);
    sink_.OnNotUpgraded();
  }
  Abandon();
  reason_ = told.label;
  if ((told.status == 503 || told.label == kUnanswered.label) && accepts_events_ &&
      !admission_.ended && IsDrainToBlame()) {
    // An EventSource that is told so does not come back; one whose connection ends does. It is not
    // to come back with a token that nobody knows any more, nor to a backend that answers badly.
    sink_.OnExchangeBroken();
    return;
  }
  facts_.status = static_cast<std::uint16_t>(told.status);
  http::Reply reply;
  reply.status = told.status;
  reply.text = told.text;
  if (told.status == 503) {
    if (retry_after.empty()) {
      retry_after = RetryAfter(core_.services.random);
    }
    reply.extra_fields = retry_after;
  }
  const bool reusable = client_keep_alive_ && MayTakeAnother() && KeepsAlive(core_.services.intake);
  reply.close = !reusable;
  reply.head_only = head_request_;
  core_.client.Write(AsBytes(OwnAnswer(core_, facts_, reply)));
  Report(reusable);
}

void Exchange::CountContent(Side from, std::size_t bytes) noexcept {
  (from == Side::kClient ? bytes_in_ : bytes_out_) += bytes;
  core_.route_block(facts_).http_bytes[Index(from)].Add(bytes);
}

void Exchange::CountUpgrade(UpgradeOutcome outcome) noexcept {
  core_.route_block(facts_).upgrades[outcome].Add();
}

void Exchange::EndEventStream(std::string_view why) noexcept {
  if (!end_events_) {
    end_events_ = true;
    end_begun_ = core_.services.loop.now();
    reason_ = why;
  }
  if (events_->at_boundary()) {
    EndSessionOfEvents();
    std::string out = EndOfEvents();
    if (client_chunked_) {
      out += kLastChunk;
    }
    if (!out.empty()) {
      core_.client.Write(AsBytes(out));
    }
    FinishResponse(Ended::kOtherwise);
  }
}

// The backend forgets the session with its stream: what is said beside it comes too late. To be
// called before the client is told that the stream is over.
void Exchange::EndSessionOfEvents() noexcept {
  if (end_events_ && IsAtHomeThatDrains()) {
    core_.route(facts_).learned->End(admission_.token, core_.services.loop.now());
  }
}

// What a stream of events that we end says before: when its client is to come back (HTML, section
// 9.2.6). Drawn, so that those who are ended together do not come back together. Framed like
// content.
std::string Exchange::EndOfEvents() const {
  const Millis retry = core_.config().drain.event_retry;
  if (!end_events_ || retry == Millis(0) || !events_->at_boundary()) {
    return {};
  }
  const double drawn = static_cast<double>(retry.count()) * (0.5 + core_.services.random.Unit());
  std::string field = "retry: " + std::to_string(static_cast<std::int64_t>(drawn)) + "\n\n";
  if (!client_chunked_) {
    return field;
  }
  std::string out;
  AppendChunk(out, AsBytes(field));
  return out;
}

// True when it is a drain that leaves no backend for the request, of the process or of the pool.
bool Exchange::IsDrainToBlame() const noexcept {
  const auto& backends = core_.pool(facts_).backends.backends();
  return core_.services.intake != Intake::kOpen ||
         std::any_of(backends.begin(), backends.end(), [](const balance::Backend& backend) {
           return backend.state->draining.load(std::memory_order_relaxed);
         });
}

void Exchange::Drain(bool refuse_upgrade) noexcept {
  client_keep_alive_ = false;
  if (upgrade_ && refuse_upgrade && state_ != State::kDone) {
    Fail({503, "This server is draining.", "draining"}, UpgradeOutcome::kDraining);
  }
}

// Deadlines. One timer serves both of them, and is not set anew each time that one moves away: when
// it fires it looks again.

Instant Exchange::ConnectDue() const noexcept {
  return connect_began_ + core_.pool(facts_).config.connect_timeout;
}

// An upgrade has a limit for the whole of it; a plain request may go on as long as content moves.
Instant Exchange::OverallDue() const noexcept {
  if (upgrade_) {
    return facts_.began + core_.route(facts_).config.handshake_timeout;
  }
  return progress_ + (client_ended_ ? std::min(Patience(), kGoneAfter) : Patience());
}

// How long a plain request may stand still.
Millis Exchange::Patience() const noexcept {
  const config::Route& route = core_.route(facts_).config;
  return state_ == State::kResponse ? route.response_idle_timeout : route.response_timeout;
}

void Exchange::ArmTimer() noexcept {
  Instant due = is_connecting() ? std::min(ConnectDue(), OverallDue()) : OverallDue();
  if (MayEndUnseen()) {
    due = std::min(due, core_.services.loop.now() + kLookInterval);
  }
  if (in_flight_ > 0) {
    // Only a look tells when it has moved last.
    due = std::min(due, core_.services.loop.now() + std::max(Patience() / 4, Millis(1)));
  }
  core_.timer.Arm<&Exchange::OnTimer>(
      core_.services.loop.base(), std::chrono::ceil<Millis>(due - core_.services.loop.now()), this);
}

void Exchange::OnTimer(short) noexcept {
  const Instant now = core_.services.loop.now();
  if (now >= OverallDue()) {
    OnOverallDue();
  } else if (is_connecting() && now >= ConnectDue()) {
    if (state_ == State::kTls) {
      NoteTlsFailure("no end of the handshake in connect_timeout");
    }
    AttemptFailed(BackendFailure::kTimeout, kUnreachable, BlameForTime());
  } else if (MayEndUnseen()) {
    LookAfterClient();
  } else {
    static_cast<void>(in_flight_ > 0 && HasMovedOn());
    ArmTimer();
  }
}

// Whose fault it is that time has passed. Not the backend's when it has answered and the answer
// waits for us, nor when the loop has stood still.
Exchange::Blame Exchange::BlameForTime() const noexcept {
  const Instant now = core_.services.loop.now();
  const bool stood_still =
      now - core_.services.tick_due > kStall || core_.services.stalled_at >= connect_began_;
  const bool answered = core_.backend && !core_.backend->connecting() && core_.backend->HasInput();
  return stood_still || answered ? Blame::kUs : Blame::kBackend;
}

// Nothing has come for kGoneAfter since the client's end. As long as something is on its way that
// is no reason to take the client for gone: one that is gone answers what it gets with a reset,
// which has to be looked for, since the client is not read any more.
void Exchange::OnSilenceBehindClientEnd(bool moved) noexcept {
  const bool waits =
      moved || (in_flight_ > 0 && core_.services.loop.now() < progress_ + Patience());
  if (waits && core_.client.peer_end() != net::PeerEnd::kGone) {
    core_.timer.Arm<&Exchange::OnTimer>(core_.services.loop.base(), kGoneAfter, this);
  } else {
    GiveUpForClient();
  }
}

void Exchange::OnOverallDue() noexcept {
  if (upgrade_) {
    if (state_ == State::kAwaitHead && BlameForTime() == Blame::kBackend) {
      core_.NoteFailure(facts_, BackendFailure::kTimeout);
    }
    Fail({504, "The backend did not answer in time.", "handshake_timeout"},
         UpgradeOutcome::kTimeout);
    return;
  }
  const bool moved = HasMovedOn();
  if (client_ended_) {
    OnSilenceBehindClientEnd(moved);
    return;
  }
  if (moved) {
    ArmTimer();
    return;
  }
  if (state_ == State::kResponse) {
    reason_ = "response_idle_timeout";
    Break();
    return;
  }
  // Else it is the backend that does not take it, or has not asked for it.
  const bool is_up_to_client =
      !core_.client.is_paused() && !(expects_continue_ && interim_ == 0 && bytes_in_ == 0);
  if (!request_done_ && is_up_to_client) {
    Fail({408, "The request's content did not arrive in time.", "content_timeout"},
         UpgradeOutcome::kTimeout);
    return;
  }
  Fail({504, "The backend did not answer in time.", "response_timeout"}, UpgradeOutcome::kTimeout);
}

}  // namespace sluice::session
