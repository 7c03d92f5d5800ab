#include "tests/deploy/storm/pair.h"

namespace sluice::storm {
namespace {

using deploy::kMillisecond;
using deploy::Now;

constexpr const char* kLostReason = "service restart";
constexpr int kRestart = 1012;
constexpr int kGoingAway = 1001;
constexpr int kNormal = 1000;

std::string KeyOf(std::uint32_t uid) {
  Dice dice(uid);
  std::array<std::uint64_t, 2> raw{dice.Next(), dice.Next()};
  std::array<unsigned char, 25> text{};
  EVP_EncodeBlock(text.data(), reinterpret_cast<const unsigned char*>(raw.data()), sizeof(raw));
  return reinterpret_cast<const char*>(text.data());
}

std::string Quoted(int code, std::string_view reason) {
  return std::to_string(code) + " \"" + std::string(reason) + "\"";
}

}  // namespace

const char* Name(Closed closed) {
  static constexpr std::array kNames = {
      "kick",      "backend_drain",    "process_drain",     "max_age", "lost",
      "heartbeat", "client_violation", "backend_violation", "relayed"};
  static_assert(kNames.size() == static_cast<std::size_t>(Closed::kCount));
  return kNames[static_cast<std::size_t>(closed)];
}

const char* Name(Place place) {
  static constexpr std::array kNames = {"in_header", "in_payload", "in_message", "between"};
  static_assert(kNames.size() == static_cast<std::size_t>(Place::kCount));
  return kNames[static_cast<std::size_t>(place)];
}

Place PlaceOf(const Speaker& said) {
  if (said.inside_frame()) {
    return said.offset() < said.header_size() ? Place::kInHeader : Place::kInPayload;
  }
  return said.in_message() ? Place::kInMessage : Place::kBetween;
}

Pair::Pair(EventLoop& loop, PairOwner& owner, const Plan& plan, const Rules& rules)
    : owner_(owner),
      plan_(plan),
      rules_(rules),
      key_(KeyOf(plan.uid)),
      client_(loop, *this, kClient, plan_,
              {.masked = false, .cut_above = plan_.cut ? rules.cut_above : 0, .pings = false}),
      backend_(loop, *this, kBackend, plan_,
               {.masked = true, .cut_above = 0, .pings = plan_.cause == Cause::kHeartbeat}) {}

void Pair::Start(const sockaddr_in& address, SSL_CTX* tls) {
  started_at_ = Now();
  client_.Connect(address, plan_.tls ? tls : nullptr,
                  "GET " + std::string(plan_.path()) + "?uid=" + std::to_string(plan_.uid) +
                      " HTTP/1.1\r\nHost: storm.test\r\nConnection: Upgrade\r\n"
                      "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
                      (plan_.deflate ? "Sec-WebSocket-Extensions: permessage-deflate\r\n" : "") +
                      "Sec-WebSocket-Key: " + key_ + "\r\n\r\n");
}

void Pair::Adopt(UniqueFd fd, const std::string& head, std::size_t backend) {
  if (backend_index_) {
    failure_ = "a second leg";
    return;
  }
  backend_index_ = backend;
  backend_.Adopt(
      std::move(fd),
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
      "Connection: Upgrade\r\n" +
          std::string(plan_.deflate ? "Sec-WebSocket-Extensions: permessage-deflate\r\n" : "") +
          "Sec-WebSocket-Accept: " +
          bench::AcceptKey(bench::FieldValue(head, "sec-websocket-key")) + "\r\n\r\n");
}

void Pair::OnHead(End& /*end*/, const std::string& head) {
  const bool agreed = !bench::FieldValue(head, "sec-websocket-extensions").empty();
  if (!head.starts_with("HTTP/1.1 101 ") ||
      bench::FieldValue(head, "sec-websocket-accept") != bench::AcceptKey(key_) ||
      agreed != plan_.deflate) {
    failure_ = "status " + head.substr(9, 3);
    client_.Abandon("no upgrade");
    return;
  }
  opened_ = true;
  client_.Open();
  backend_.Open();
}

// What ends it.

void Pair::NoteOwn() {
  if (own_at_ == 0) {
    own_at_ = Now();
  }
}

void Pair::NoteKick() {
  kicked_ = true;
  NoteOwn();
}

void Pair::NoteBackendDrain() {
  backend_drained_ = true;
  NoteOwn();
}

void Pair::NoteProcessDrain() {
  process_drained_ = true;
  NoteOwn();
}

void Pair::OnTrigger(End& end) {
  at_trigger_ = PlaceOf(end.said());
  switch (plan_.cause) {
    case Cause::kKick:
    case Cause::kWait:
      if (plan_.voices[other(end).side()].stalls) {
        other(end).Stall(plan_.voices[other(end).side()].stall_for);
      } else if (plan_.cause == Cause::kKick) {
        owner_.Kick(*this);
      }
      break;
    case Cause::kMaxAge:
      break;
    case Cause::kLost:
    case Cause::kClientLost:
      at_close_ = PlaceOf(backend_.said());
      end.Die(plan_.by_reset);
      return;
    case Cause::kHeartbeat:
      at_close_ = PlaceOf(backend_.said());
      end.FallSilent();
      return;
    case Cause::kClientViolation:
    case Cause::kBackendViolation:
      end.Violate();
      return;
    case Cause::kClientCrosses:
    case Cause::kBackendCrosses:
      owner_.Kick(*this);
      end.CloseFirst(kNormal);
      return;
    case Cause::kCount:
      break;
  }
  if (plan_.hold != Plan::Hold::kNone) {
    // Where nothing asks for a CLOSE now, it may be long until one comes.
    const bool short_hold = plan_.hold == Plan::Hold::kShort || plan_.cause != Cause::kKick;
    end.Hold(short_hold ? plan_.hold_for : 0, plan_.hold == Plan::Hold::kForever);
  }
}

void Pair::OnStalled(End& end) {
  if (own_at_ == 0) {
    was_full_ = other(end).is_full();
    if (plan_.cause == Cause::kKick) {
      owner_.Kick(*this);
    }
  }
}

void Pair::OnClose(End& end) {
  if (end.side() == kClient) {
    client_in_frame_ = client_.said().inside_frame();
    return;
  }
  at_close_ = PlaceOf(backend_.said());
  // A message that the client has begun is finished, unless it takes too long. A CLOSE that the
  // client sent itself may stand anywhere between its frames. Half of the grace: the timers of a
  // busy loop are early by a turn.
  Nanoseconds asked = own_at_;
  if (plan_.cause == Cause::kMaxAge) {
    const Nanoseconds of_age = started_at_ + rules_.max_age * 9 / 10;
    asked = asked == 0 ? of_age : std::min(asked, of_age);
  }
  if (asked != 0 && backend_.heard().in_message() && backend_.heard().close_code() == kGoingAway &&
      client_.closed_at() == 0 && !client_.violated() && !backend_.violated() &&
      Now() - asked < rules_.message_grace / 2) {
    early_ = "a CLOSE inside a message of the client, after " +
             std::to_string((Now() - asked) / kMillisecond) + " ms";
  }
}

void Pair::OnOver(End& end) {
  if (end.side() == kClient) {
    backend_.Wake();
    if (!backend_index_) {
      backend_.Abandon("never came");
    }
  }
  if (client_.is_over() && backend_.is_over() && !told_) {
    told_ = true;
    owner_.OnOver(*this);
  }
}

void Pair::Abandon() {
  client_.Abandon("it did not end");
  backend_.Abandon("it did not end");
}

// The verdict.

bool Pair::Drained() const {
  return backend_drained_ || process_drained_ || plan_.cause == Cause::kMaxAge;
}

// It is not waited for until it answers.
bool Pair::BackendWasLate() const {
  return backend_.closed_at() != 0 && backend_.close_came_at() != 0 &&
         backend_.closed_at() - backend_.close_came_at() > rules_.close_timeout * 7 / 10;
}

Verdict Pair::Judge() const {
  Verdict verdict;
  if (!failure_.empty() || !opened_) {
    verdict.failure = failure_.empty() ? client_.how() : failure_;
    return verdict;
  }
  for (const End* end : {&client_, &backend_}) {
    if (end->wrong() != nullptr) {
      verdict.problems.push_back(std::string(end->side() == kClient ? "client: " : "backend: ") +
                                 end->wrong());
    }
  }
  if (!early_.empty()) {
    verdict.problems.push_back(early_);
  }
  if (verdict.problems.empty()) {
    JudgeClient(verdict);
    JudgeBackend(verdict);
    JudgeContent(verdict);
  }
  return verdict;
}

void Pair::JudgeClient(Verdict& verdict) const {
  const Listener& heard = client_.heard();
  if (heard.closed()) {
    const int code = heard.close_code();
    const std::string_view reason = heard.close_reason();
    if (kicked_ && code == plan_.kick_code && reason == plan_.kick_reason()) {
      verdict.closed = Closed::kKick;
    } else if (Drained() && code == kRestart && reason == kDrainReason) {
      verdict.closed = process_drained_   ? Closed::kProcessDrain
                       : backend_drained_ ? Closed::kBackendDrain
                                          : Closed::kMaxAge;
    } else if ((client_.violated() || backend_.violated()) && code == CodeOf(plan_.fault) &&
               reason == ReasonOf(plan_.fault, plan_.trigger_side)) {
      verdict.closed = client_.violated() ? Closed::kClientViolation : Closed::kBackendViolation;
    } else if (code == kRestart && reason == kLostReason &&
               (backend_.died() || plan_.cause == Cause::kHeartbeat || client_.died())) {
      verdict.closed = plan_.cause == Cause::kHeartbeat ? Closed::kHeartbeat : Closed::kLost;
    } else if (code == kNormal && reason.empty() &&
               (plan_.cause == Cause::kClientCrosses || plan_.cause == Cause::kBackendCrosses)) {
      verdict.closed = Closed::kRelayed;
    } else {
      verdict.problems.push_back("client: a CLOSE that nobody asked for: " + Quoted(code, reason));
    }
    if (client_.how() != "fin" && client_.how() != "self" && !client_.violated()) {
      verdict.problems.push_back("client: behind the CLOSE the connection ended by " +
                                 client_.how());
    }
    return;
  }
  if (client_.died_by_reset() || (client_.died() && !heard.inside_frame())) {
    return;
  }
  if (!heard.inside_frame()) {
    verdict.problems.push_back("client: cut between two frames without a CLOSE, by " +
                               client_.how());
    return;
  }
  verdict.torn_client = true;
  if (!backend_.said().inside_frame() && !backend_.died_by_reset() && !BackendWasLate() &&
      plan_.voices[kBackend].answer != Answer::kDeaf) {
    verdict.problems.push_back("client: torn inside a frame that the backend finished");
  }
}

void Pair::JudgeBackend(Verdict& verdict) const {
  const Listener& heard = backend_.heard();
  if (heard.closed()) {
    const int code = heard.close_code();
    const std::string_view reason = heard.close_reason();
    const bool asked =
        (kicked_ && code == kGoingAway && reason == plan_.kick_reason()) ||
        (Drained() && code == kGoingAway && reason == kDrainReason) ||
        ((client_.violated() || backend_.violated()) && code == CodeOf(plan_.fault) &&
         reason == ReasonOf(plan_.fault, plan_.trigger_side));
    verdict.closed_backend = asked;
    // What the client answers to a CLOSE of the proxy is relayed to a backend that only finished
    // its own direction.
    const int relayed_code =
        client_.heard().closed() && backend_.died() ? client_.heard().close_code() : kNormal;
    const bool relayed = (client_.closed_at() != 0 || backend_.closed_at() != 0) &&
                         code == relayed_code && reason.empty();
    if (!asked && !relayed) {
      verdict.problems.push_back("backend: a CLOSE that nobody asked for: " + Quoted(code, reason));
    }
    return;
  }
  if (backend_.died_by_reset() || backend_.fell_silent()) {
    // It did not look: whether the client's frame would have been torn is not to be seen.
    verdict.maybe_torn = heard.inside_frame() && own_at_ != 0;
    return;
  }
  if (heard.inside_frame()) {
    verdict.torn_backend = true;
    if (!client_.said().inside_frame() && !client_in_frame_ && !client_.died_by_reset() &&
        client_.slowest_frame() < rules_.message_grace) {
      verdict.problems.push_back("backend: torn inside a frame that the client finished");
    }
    return;
  }
  const bool left_alone = backend_.died() || plan_.cause == Cause::kHeartbeat || client_.died() ||
                          plan_.cause == Cause::kBackendCrosses;
  if (!left_alone) {
    verdict.problems.push_back("backend: cut between two frames without a CLOSE, by " +
                               backend_.how());
  }
}

void Pair::JudgeContent(Verdict& verdict) const {
  const std::uint64_t said = backend_.said().frames_done();
  const std::uint64_t came = client_.heard().frames_done();
  // One that answers late is not waited for.
  const bool in_time =
      backend_.closed_at() != 0 &&
      (backend_.close_came_at() == 0 ||
       backend_.closed_at() - backend_.close_came_at() < rules_.close_timeout * 7 / 10);
  const bool ended = backend_.died() && !backend_.died_by_reset();
  if (client_.died() || backend_.fell_silent() || !(in_time || ended || backend_.violated())) {
    return;
  }
  verdict.complete = came == said;
  if (!verdict.complete) {
    verdict.problems.push_back("client: " + std::to_string(came) + " of " + std::to_string(said) +
                               " frames of the backend came");
  }
  if (plan_.cause == Cause::kClientCrosses && backend_.heard().closed() &&
      backend_.heard().close_code() == kNormal &&
      backend_.heard().frames_done() != client_.said().frames_done()) {
    verdict.problems.push_back("backend: " + std::to_string(backend_.heard().frames_done()) +
                               " of " + std::to_string(client_.said().frames_done()) +
                               " frames of the client came before its CLOSE");
  }
}

}  // namespace sluice::storm
