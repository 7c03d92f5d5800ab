// Asking an auth server about a request, and the end of what it has allowed. Part of Session.
#include <algorithm>
#include <cassert>
#include <chrono>
#include <utility>

#include "proxy/http/expiry.h"
#include "proxy/http/reply.h"
#include "proxy/log/log.h"
#include "proxy/session/session.h"

namespace sluice::session {
namespace {

using metrics::AuthResult;
using metrics::UpgradeOutcome;

bool IsNamed(const http::Field& field, const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return http::EqualsIgnoreCase(field.name, name);
  });
}

bool MayBeTakenFor(const http::Field& field, const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return http::MayBeTakenFor(field.name, name);
  });
}

// When what `answer` allows ends, by its field `name`; Instant::max(): never. Nothing: it says so
// in a way that cannot be read. The wall clock is asked here and no more: it may be set.
std::optional<Instant> ExpiryOf(const http::ResponseHead& answer, std::string_view name) {
  using std::chrono::milliseconds;
  constexpr milliseconds kNever = std::chrono::hours(24 * 3650);
  const auto is_it = [&](const http::Field& field) {
    return http::EqualsIgnoreCase(field.name, name);
  };
  const auto found = std::find_if(answer.fields.begin(), answer.fields.end(), is_it);
  if (found == answer.fields.end()) {
    return Instant::max();
  }
  const auto now = std::chrono::floor<milliseconds>(std::chrono::system_clock::now());
  const auto at = http::ParseExpiry(found->value, now);
  if (!at || std::any_of(std::next(found), answer.fields.end(), is_it)) {
    return std::nullopt;
  }
  const milliseconds left = *at - now;
  if (left <= milliseconds(0)) {
    return Instant::min();  // how long ago may be more than an Instant reaches back
  }
  return left > kNever ? Instant::max() : Now() + left;
}

}  // namespace

Session::Checking::Checking(Session& its_session, Bytes head_bytes, const Sender& its_sender,
                            Admission its_admission, Bytes rest)
    : session(its_session),
      head(AsText(head_bytes)),
      held(AsText(rest)),
      admission(std::move(its_admission)),
      sender(its_sender),
      request_id(sender.request_id),
      buffered(its_session.core_.services.loop),
      began(Now()),
      call(its_session.core_, its_session.core_.route(its_session.facts_), *this) {
  sender.request_id = request_id;
  buffered.Set(head.size() + held.size());
}

void Session::BeginCheck(const http::RequestHead& head, Bytes head_bytes, const Sender& sender,
                         Admission admission, Bytes rest) noexcept {
  core_.timer.Cancel();  // the call has a deadline of its own
  phase_ = Phase::kAuth;
  const bool upgrade = admission.upgrade;
  auto work = std::make_unique<Checking>(*this, head_bytes, sender, std::move(admission), rest);
  work->has_content = http::HasContent(head);
  if (work->has_content || work->held.size() >= core_.config().limits.early_data) {
    PauseForCheck();  // it waits in the kernel
  }
  AuthCall& call = work->call;
  work_ = std::move(work);
  const config::Route& route = core_.route(facts_).config;
  call.Start(
      AuthRequest(head, ForwardFactsOf(sender), *route.auth),
      upgrade ? std::min(route.auth->timeout, route.handshake_timeout) : route.auth->timeout);
}

// What comes now is for later. A bounded piece of it is held, mainly to see the client leave.
void Session::ReadWhileChecking() noexcept {
  Checking& work = checking();
  const std::size_t most = core_.config().limits.early_data;
  if (work.has_content || work.held.size() >= most) {
    PauseForCheck();
    return;
  }
  const std::size_t room = std::min(most - work.held.size(), kUsualRead);
  const net::IoResult got = core_.client.Read(core_.services.scratch.first(room));
  switch (got.status) {
    case net::IoStatus::kOk:
      work.held += AsText(core_.services.scratch.first(got.bytes));
      work.buffered.Set(work.head.size() + work.held.size());
      break;
    case net::IoStatus::kEof:
      OnClientFinishedWhileChecking();
      break;
    case net::IoStatus::kError:
      EndCheckForClient();
      break;
    case net::IoStatus::kWouldBlock:
      break;
  }
}

// A client that has only finished its own direction still waits for the answer, and one that has
// left looks the same: what comes soon is for it, as with a backend's answer.
void Session::OnClientFinishedWhileChecking() noexcept {
  if (checking().admission.upgrade) {
    EndCheckForClient();
    return;
  }
  core_.timer.Arm<&Session::EndCheckForClientAtLast>(core_.services.loop.base(), kGoneAfter, this);
}

void Session::PauseForCheck() noexcept {
  core_.client.PauseRead(net::Pause::kHandshake);
  core_.timer.Arm<&Session::LookAfterClient>(core_.services.loop.base(), kLookInterval, this);
}

// While it is not read nothing else tells of its end.
void Session::LookAfterClient(short) noexcept {
  switch (core_.client.peer_end()) {
    case net::PeerEnd::kNone:
      PauseForCheck();
      break;
    case net::PeerEnd::kFinished:
      OnClientFinishedWhileChecking();
      break;
    case net::PeerEnd::kGone:
      EndCheckForClient();
      break;
  }
}

void Session::EndCheckForClientAtLast(short) noexcept {
  EndCheckForClient();
}

// What ends before the auth server has answered, if it is an upgrade.
void Session::CountUnchecked(UpgradeOutcome outcome) noexcept {
  if (checking().admission.upgrade) {
    core_.route_block(facts_).upgrades[outcome].Add();
  }
}

void Session::EndCheckForClient() noexcept {
  CountUnchecked(UpgradeOutcome::kClientGone);
  EndCheck("client_gone");
}

void Session::EndCheck(std::string_view why) noexcept {
  checking().call.Cancel();
  LogRequest(why);
  DropWork();
  Close();
}

// The head of the request that was checked. Its views are into `work`. It was within the limits of
// its day, which need not be those of the view: that is of the instant when the head was whole.
// Without a head the session has ended.
std::optional<http::RequestParser> Session::ParseAgain(const Checking& work) noexcept {
  const std::size_t any = work.head.size();
  std::optional<http::RequestParser> parser(http::HeadLimits{any, any, any});
  if (parser->Parse(work.head) != ParseStatus::kDone) {
    assert(false);  // it was parsed once
    LogRequest("broken");
    Close();
    parser.reset();
  }
  return parser;
}

void Session::OnChecked(AuthResult result) noexcept {
  Checking& work = checking();
  core_.timer.Cancel();
  DropWork();  // it is there until the end of the turn
  core_.client.ResumeRead(net::Pause::kHandshake);
  std::string_view failure = work.call.failure();
  bool expired = false;
  if (const std::string& name = core_.route(facts_).config.auth_expires_header;
      result == AuthResult::kAllowed && !name.empty()) {
    const auto expiry = ExpiryOf(work.call.head(), name);
    expired = expiry && *expiry <= Now();
    if (!expiry) {
      result = AuthResult::kBadAnswer;
      failure = "it does not say readably when what it allows expires";
    } else if (expired) {
      result = AuthResult::kDenied;
    } else if (*expiry != Instant::max()) {
      core_.services.auth_expiries.insert_or_assign(core_.id, *expiry);
      expires_ = true;
    }
  }
  metrics::RouteBlock& block = core_.route_block(facts_);
  block.auth_checks[result].Add();
  block.auth_seconds.Observe(std::chrono::duration<double>(Now() - work.began).count());
  const auto parser = ParseAgain(work);
  if (!parser) {
    return;
  }
  if (result == AuthResult::kAllowed) {
    GoOn(parser->head(), work.sender, std::move(work.admission), work.call.head().fields,
         AsBytes(work.held));
  } else if (expired) {
    // RFC 9110 section 15.5.2 wants a challenge; this one makes no browser ask for a password.
    RefuseLate(parser->head(), work,
               Refusal{401, "What was allowed to this request has expired.",
                       "WWW-Authenticate: Bearer error=\"invalid_token\"\r\n", "auth_denied",
                       UpgradeOutcome::kAuthDenied, 0});
  } else if (result == AuthResult::kDenied) {
    RelayDenial(parser->head(), work);
  } else {
    NoteAuthFailure(failure);
    RefuseLate(parser->head(), work,
               Refusal{503, "It cannot be checked now whether this request is allowed.", "",
                       "auth_unavailable", UpgradeOutcome::kAuthUnavailable, 1});
  }
}

void Session::NoteAuthFailure(std::string_view why) noexcept {
  const Route& route = core_.route(facts_);
  if (route.state->auth_failures.IsNews(why, core_.services.loop.now())) {
    spdlog::warn("no answer of an auth server route={} server={} why=\"{}\"", route.config.name,
                 route.auth.Text(), why);
  }
}

// A request of a route with auth goes on to a backend, which believes the fields that auth.copy
// names: those of the client are dropped, those of `answer` put in.
void Session::GoOn(const http::RequestHead& head, const Sender& sender, Admission admission,
                   const http::Fields& answer, Bytes rest) noexcept {
  const std::vector<std::string>& copy = core_.route(facts_).config.auth->copy;
  http::RequestHead own = head;
  std::erase_if(own.fields, [&](const http::Field& field) { return MayBeTakenFor(field, copy); });
  const auto sent = static_cast<std::ptrdiff_t>(own.fields.size());
  std::string added;
  for (const http::Field& field : answer) {
    // What its Connection field names was for us alone (RFC 9110 section 7.6.1).
    if (IsNamed(field, copy) && !http::IsNamedByConnection(answer, field.name)) {
      own.fields.push_back(field);
      http::AppendField(added, field.name, field.value);
    }
  }
  // Once more: the affinity key may be one of these fields. All else stays decided.
  ChooseKey(own, *core_.view->snapshot, sender.client_ip, core_.services.loop.now(), admission);
  if (core_.services.access_log.enabled()) {
    FactTexts::Views texts = facts_.texts.All();
    texts[static_cast<std::size_t>(FactText::kAffinity)] = admission.key_source;
    facts_.texts.Store(texts);
  }
  // They go out whatever the client's Connection field names.
  own.fields.erase(own.fields.begin() + sent, own.fields.end());
  ForwardFacts forward = ForwardFactsOf(sender);
  forward.added = added;
  BeginExchange(own, forward, std::move(admission), rest);
}

// What Refuse does for a request that was admitted once.
void Session::RefuseLate(const http::RequestHead& head, Checking& work, Refusal refusal) noexcept {
  if (!work.admission.upgrade) {
    refusal.outcome.reset();
  }
  EndCounts();
  if (Refuse(head, refusal)) {
    TakeHeld(work.held);
  }
}

// Passes the auth server's own answer on.
void Session::RelayDenial(const http::RequestHead& head, Checking& work) noexcept {
  constexpr int kNotModified = 304;  // has no content, and its length is that of another answer
  if (work.admission.upgrade) {
    core_.route_block(facts_).upgrades[UpgradeOutcome::kAuthDenied].Add();
  }
  EndCounts();
  const std::string_view content = work.call.content();
  const std::string length = std::to_string(content.size());
  http::ResponseHead answer = work.call.head();
  std::erase_if(answer.fields,
                [](const http::Field& field) { return field.id == http::FieldId::kContentLength; });
  if (answer.status != kNotModified) {
    answer.fields.emplace_back("Content-Length", length);
  }
  const bool reusable = IsReusable(head, answer.status);
  ClientResponse how;
  how.close = !reusable;
  how.date = core_.services.date.Text(core_.services.loop.now());
  how.change = core_.route(facts_).heads.response(core_.listener->is_tls());
  std::string out = ClientHead(answer, how);
  if (head.method != "HEAD") {
    out += content;
  }
  core_.client.Write(AsBytes(out));
  if (FinishRefusal(answer.status, "auth_denied", reusable)) {
    TakeHeld(work.held);
  }
}

// A drain of the process, which refuses upgrades that are not accepted yet.
void Session::DrainCheck(bool refuse_upgrade) noexcept {
  Checking& work = checking();
  if (!work.admission.upgrade || !refuse_upgrade) {
    return;
  }
  work.call.Cancel();
  core_.timer.Cancel();
  DropWork();
  core_.client.ResumeRead(net::Pause::kHandshake);
  if (const auto parser = ParseAgain(work)) {
    RefuseLate(
        parser->head(), work,
        Refusal{503, "This server is draining.", "", "draining", UpgradeOutcome::kDraining, 1});
  }
}

// What was allowed, and until when.

Instant Session::ExpiryDue() const noexcept {
  return expires_ ? core_.services.auth_expiries.find(core_.id)->second : Instant::max();
}

void Session::ForgetExpiry() noexcept {
  if (expires_) {
    expires_ = false;
    core_.services.auth_expiries.erase(core_.id);
  }
}

}  // namespace sluice::session
