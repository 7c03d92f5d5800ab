#include "tests/deploy/client/session.h"

#include <cstdlib>

namespace sluice::deploy {
namespace {

constexpr std::size_t kMaxHead = std::size_t{32} * 1024;

std::uint64_t SplitMix(std::uint64_t* state) {
  *state += 0x9E3779B97F4A7C15U;
  std::uint64_t word = *state;
  word = (word ^ (word >> 30U)) * 0xBF58476D1CE4E5B9U;
  word = (word ^ (word >> 27U)) * 0x94D049BB133111EBU;
  return word ^ (word >> 31U);
}

std::string NextKey(std::uint64_t* state) {
  std::array<std::uint64_t, 2> raw{SplitMix(state), SplitMix(state)};
  std::array<unsigned char, 25> text{};
  EVP_EncodeBlock(text.data(), reinterpret_cast<const unsigned char*>(raw.data()), sizeof(raw));
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

Session::Session(EventLoop& loop, const Target& target, SessionOwner& owner, std::uint32_t uid)
    : loop_(loop), target_(target), owner_(owner), uid_(uid), mask_state_(uid) {}

Session::~Session() {
  loop_.wheel().Cancel(*this);
}

void Session::Open() {
  const std::uint32_t number = now_.number + 1;
  now_ = Incarnation();
  now_.number = number;
  now_.started_at = Now();
  reader_ = FrameReader(FrameReader::Masking::kForbidden);
  outbox_.Clear();
  answer_.clear();
  watched_ = 0;
  SetPhase(Phase::kConnect, target_.connect_timeout);
  const int error = wire_.Connect(target_.address, target_.tls);
  if (error != 0) {
    Fail(FailureOf(error));
    return;
  }
  watched_ = EPOLLIN | EPOLLOUT;
  loop_.Add(wire_.fd(), watched_, *this);
}

void Session::OnEvent(std::uint32_t events) {
  if (phase_ == Phase::kConnect) {
    Advance();
    return;
  }
  if ((events & EPOLLOUT) != 0) {
    outbox_.Flush([this](const unsigned char* b, std::size_t n) { return WriteSome(b, n); });
    Rearm();
  }
  Read();
}

void Session::Advance() {
  switch (wire_.Advance()) {
    case Wire::Step::kWantsRead:
      WatchAlso(0);
      return;
    case Wire::Step::kWantsWrite:
      WatchAlso(EPOLLOUT);
      return;
    case Wire::Step::kFailed:
      Fail(wire_.failure());
      return;
    case Wire::Step::kDone:
      break;
  }
  phase_ = Phase::kAnswer;  // within the same timeout
  SendRequest();
  Rearm();
  if (wire_.HasBuffered()) {
    Read();
  }
}

void Session::SendRequest() {
  key_ = NextKey(&mask_state_);
  const std::string request =
      "GET " + target_.path + "?uid=" + std::to_string(uid_) + "&n=" + std::to_string(now_.number) +
      (target_.echo ? "&echo=1" : "") +
      " HTTP/1.1\r\nHost: deploy.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " +
      key_ + "\r\n\r\n";
  outbox_.Send(reinterpret_cast<const unsigned char*>(request.data()), request.size(),
               [this](const unsigned char* b, std::size_t n) { return WriteSome(b, n); });
}

void Session::Read() {
  static std::array<unsigned char, std::size_t{64} * 1024> buffer;
  do {
    const ssize_t got = wire_.Read(buffer.data(), buffer.size());
    if (got == Wire::kNothing) {
      return;
    }
    if (got < 0) {
      OnStreamEnd(got);
      return;
    }
    const auto size = static_cast<std::size_t>(got);
    if (phase_ != Phase::kAnswer) {
      Take(buffer.data(), size);
      continue;
    }
    std::optional<std::string> behind =
        ReadAnswer({reinterpret_cast<const char*>(buffer.data()), size});
    if (behind) {
      Take(reinterpret_cast<unsigned char*>(behind->data()), behind->size());
    }
  } while (wire_.is_open() && wire_.HasBuffered());
}

std::optional<std::string> Session::ReadAnswer(std::string_view bytes) {
  answer_.append(bytes);
  const std::size_t end = answer_.find("\r\n\r\n");
  if (end == std::string::npos) {
    if (answer_.size() > kMaxHead) {
      Fail("bad");
    }
    return std::nullopt;
  }
  const std::string_view head = std::string_view(answer_).substr(0, end + 4);
  std::string behind = answer_.substr(end + 4);
  now_.status = head.starts_with("HTTP/1.1 ") ? std::atoi(answer_.c_str() + 9) : 0;
  if (now_.status != 101) {
    now_.retry_after =
        std::atoi(std::string(bench::FieldValue(head, "retry-after")).c_str()) * kSecond;
    Fail(now_.status == 0 ? "bad" : "status");
    return std::nullopt;
  }
  if (bench::FieldValue(head, "sec-websocket-accept") != bench::AcceptKey(key_) ||
      !bench::FieldValue(head, "sec-websocket-extensions").empty()) {
    Fail("bad");
    return std::nullopt;
  }
  now_.opened_at = Now();
  answer_.clear();
  phase_ = Phase::kOpen;
  loop_.wheel().Cancel(*this);
  owner_.OnOpen(*this);
  return behind;
}

void Session::Take(unsigned char* bytes, std::size_t size) {
  const char* broken = reader_.Take(bytes, size, *this);
  if (broken != nullptr) {
    Violate(broken);
  }
}

void Session::OnNumbered(const Numbered& message) {
  if (is_idle()) {
    return;  // given up while reading
  }
  if (message.uid != uid_ || message.incarnation != now_.number) {
    Violate("a message of another session");
    return;
  }
  now_.received.Take(message.number);
  owner_.OnNumbered(*this, message);
}

void Session::OnControl(Opcode opcode, const unsigned char* payload, std::size_t size) {
  if (opcode == Opcode::kPing && phase_ == Phase::kOpen) {
    SendControl(Opcode::kPong, payload, size);
  }
  if (opcode != Opcode::kClose || is_idle()) {
    return;
  }
  now_.close_at = Now();
  now_.close_code = CloseCode(payload, size);
  now_.answered = true;
  if (phase_ == Phase::kOpen) {
    const CloseFramePayload answer(now_.close_code);
    SendControl(Opcode::kClose, answer.data(), answer.size());
  }
  SetPhase(Phase::kAnswered, target_.close_timeout);
}

void Session::SendNumbered() {
  const bench::MaskKey mask = NextMask();
  Send(NumberedFrame({.from = Numbered::kFromClient,
                      .uid = uid_,
                      .incarnation = now_.number,
                      .number = ++now_.sent,
                      .sent_at = Now()},
                     target_.size, &mask));
}

void Session::SendClose(int code) {
  now_.closed_by_us = true;
  SetPhase(Phase::kClosing, target_.close_timeout);
  const CloseFramePayload payload(code);
  SendControl(Opcode::kClose, payload.data(), payload.size());
}

void Session::SendControl(Opcode opcode, const unsigned char* payload, std::size_t size) {
  const bench::MaskKey mask = NextMask();
  Send(ControlFrame(opcode, payload, size, &mask));
}

void Session::Send(const Frame& frame) {
  outbox_.Send(frame.bytes, frame.size,
               [this](const unsigned char* b, std::size_t n) { return WriteSome(b, n); });
  Rearm();
}

ssize_t Session::WriteSome(const unsigned char* bytes, std::size_t size) {
  // That nobody takes it any more shows when reading, behind what can still be read.
  const ssize_t sent = wire_.Write(bytes, size);
  return sent < 0 ? -1 : sent;
}

void Session::WatchAlso(std::uint32_t events) {
  const std::uint32_t wanted = EPOLLIN | events;
  if (wire_.is_open() && wanted != watched_) {
    watched_ = wanted;
    loop_.Change(wire_.fd(), watched_, *this);
  }
}

void Session::Rearm() {
  WatchAlso(outbox_.empty() ? 0U : std::uint32_t{EPOLLOUT});
}

void Session::SetPhase(Phase phase, Nanoseconds timeout) {
  phase_ = phase;
  loop_.wheel().Set(*this, Now() + timeout);
}

void Session::Wake(Nanoseconds at) {
  loop_.wheel().Set(*this, at);
}

void Session::OnTimer() {
  switch (phase_) {
    case Phase::kIdle:
    case Phase::kOpen:
      owner_.OnDue(*this);
      break;
    default:
      GiveUp("timeout");
  }
}

void Session::GiveUp(const char* how) {
  if (is_connecting()) {
    Fail(how);
  } else if (!is_idle()) {
    End(how);
  }
}

void Session::OnStreamEnd(ssize_t how) {
  const char* const word = how == Wire::kFin ? "fin" : "reset";
  if (is_connecting()) {
    Fail(word);
  } else {
    now_.torn = reader_.inside_frame();
    End(word);
  }
}

void Session::Violate(const char* rule) {
  if (!is_idle()) {
    now_.violation = rule;
    End("violation");
  }
}

void Session::Fail(const char* how) {
  now_.failure = how;
  End(how);
}

void Session::End(const char* how) {
  now_.ended = how;
  now_.ended_at = Now();
  wire_.Close();
  loop_.wheel().Cancel(*this);
  phase_ = Phase::kIdle;
  owner_.OnEnd(*this, now_);
}

// A test does not need a key that nobody can guess, but a new one for each frame.
bench::MaskKey Session::NextMask() {
  const std::uint64_t word = SplitMix(&mask_state_);
  bench::MaskKey key{};
  std::memcpy(key.data(), &word, key.size());
  return key;
}

}  // namespace sluice::deploy
