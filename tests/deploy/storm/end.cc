#include "tests/deploy/storm/end.h"

#include <utility>

namespace sluice::storm {
namespace {

using deploy::kMillisecond;
using deploy::Now;
using deploy::Wire;

constexpr std::size_t kMaxHead = std::size_t{16} * 1024;
// A stalled end is sent this much at most: more than all buffers on the way hold as a rule.
constexpr std::uint64_t kLoudEnough = 2'500'000;
constexpr std::uint64_t kFramesAtPace = 2;  // after the trigger; then it talks slowly
constexpr unsigned kSlower = 60;
constexpr std::uint64_t kTooBig = std::uint64_t{2} << 20U;

}  // namespace

End::End(EventLoop& loop, EndOwner& owner, Side side, const Plan& plan,
         const Listener::Rules& rules)
    : loop_(loop),
      owner_(owner),
      side_(side),
      plan_(plan),
      voice_(plan.voices[side]),
      dice_(plan.voices[side].shape.seed + 1),
      speaker_(voice_.shape, side == kClient),
      listener_(plan.voices[side == kClient ? kBackend : kClient].shape, rules) {}

End::~End() {
  loop_.wheel().Cancel(*this);
}

// Until it is open.

void End::Connect(const sockaddr_in& address, SSL_CTX* tls, std::string request) {
  out_ = std::move(request);
  phase_ = Phase::kConnect;
  if (wire_.Connect(address, tls, plan_.stalls()) != 0) {
    Over("connect");
    return;
  }
  watched_ = EPOLLIN | EPOLLOUT;
  loop_.Add(wire_.fd(), watched_, *this);
}

void End::Advance() {
  switch (wire_.Advance()) {
    case Wire::Step::kWantsRead:
    case Wire::Step::kWantsWrite:
      return;  // level-triggered, and little is lost by asking once more
    case Wire::Step::kFailed:
      Over(wire_.failure());
      return;
    case Wire::Step::kDone:
      break;
  }
  phase_ = Phase::kHead;
  if (voice_.early) {
    const auto rest = speaker_.Rest();
    out_.append(reinterpret_cast<const char*>(rest.data()), rest.size());
    speaker_.Took(rest.size());
  }
  Flush();
}

void End::Adopt(UniqueFd fd, const std::string& answer) {
  wire_.Adopt(std::move(fd));
  phase_ = Phase::kOpen;
  watched_ = EPOLLIN;
  loop_.Change(wire_.fd(), watched_, *this);
  out_ = answer;
  if (voice_.early) {
    const auto rest = speaker_.Rest();
    out_.append(reinterpret_cast<const char*>(rest.data()), rest.size());
    speaker_.Took(rest.size());
  }
  Flush();
  Read();  // what came behind the request is still in the socket
}

void End::ReadHead(unsigned char* bytes, std::size_t size) {
  head_.append(reinterpret_cast<const char*>(bytes), size);
  const std::size_t end = head_.find("\r\n\r\n");
  if (end == std::string::npos) {
    if (head_.size() > kMaxHead) {
      Over("head");
    }
    return;
  }
  std::string behind = head_.substr(end + 4);
  head_.resize(end + 4);
  phase_ = Phase::kOpen;
  owner_.OnHead(*this, head_);
  if (phase_ == Phase::kOpen) {
    Take(reinterpret_cast<unsigned char*>(behind.data()), behind.size());
  }
}

void End::Open() {
  if (phase_ == Phase::kOpen) {
    Schedule();
  }
}

// What it says.

bool End::MaySpeak() const {
  return phase_ == Phase::kOpen && !held_ && !silent_ && !done_speaking_ && out_.empty();
}

void End::Pump() {
  const unsigned writes = IsWaiting() ? 1 : voice_.writes;
  for (unsigned i = 0; i < writes && MaySpeak(); ++i) {
    PumpOnce();
  }
}

void End::PumpOnce() {
  // Long before the trigger there is nothing to see.
  const bool hurries = plan_.trigger_side == side_ && !triggered_ &&
                       speaker_.frame().number + 1 < plan_.trigger_frame;
  const std::size_t chunk =
      hurries ? static_cast<std::size_t>(-1) : dice_.Between(voice_.least, voice_.most);
  if (!bad_.empty()) {
    const std::string part = bad_.substr(0, chunk);
    bad_.erase(0, part.size());
    done_speaking_ = bad_.empty();
    Put(reinterpret_cast<const unsigned char*>(part.data()), part.size());
    return;
  }
  if (voice_.shape.large_only && written_ > kLoudEnough && close_came_at_ == 0 &&
      !speaker_.inside_frame()) {
    held_ = true;  // until the CLOSE
    return;
  }
  if (!speaker_.inside_frame() && !pong_.empty()) {
    PutControl(0x8A, std::exchange(pong_, {}), false);
    return;
  }
  const std::size_t until = UntilTrigger();
  if (until == 0) {
    triggered_ = true;
    owner_.OnTrigger(*this);
    return;
  }
  const auto rest = speaker_.Rest();
  // Long after it, a frame goes out in a few pieces.
  const std::size_t least = IsWaiting() ? dice_.Between(1, rest.size()) : 1;
  const auto part = rest.first(std::min({rest.size(), std::max(chunk, least), until}));
  if (!speaker_.inside_frame()) {
    frame_began_at_ = Now();
  }
  Put(part.data(), part.size());
  speaker_.Took(part.size());
  if (!speaker_.inside_frame()) {
    slowest_frame_ = std::max(slowest_frame_, Now() - frame_began_at_);
    AtBoundary();
  }
}

std::size_t End::UntilTrigger() {
  constexpr auto kFar = static_cast<std::size_t>(-1);
  const ScriptFrame& frame = speaker_.frame();
  if (triggered_ || plan_.trigger_side != side_) {
    return kFar;
  }
  if (plan_.cause == Cause::kClientViolation || plan_.cause == Cause::kBackendViolation) {
    if (speaker_.inside_frame()) {
      return kFar;
    }
    bool here = frame.number >= plan_.trigger_frame;
    switch (plan_.fault) {
      case Fault::kTooManyFrames:
        here = frame.fragment > kMaxFragments;
        break;
      case Fault::kContinuationWithoutStart:
        here = here && !speaker_.in_message();
        break;
      case Fault::kDataInsideMessage:
        here = here && speaker_.in_message();
        break;
      default:
        break;
    }
    return here ? 0 : kFar;
  }
  if (frame.number < plan_.trigger_frame) {
    return kFar;
  }
  const std::size_t whole = speaker_.header_size() + frame.size;
  const std::size_t at = plan_.trigger_spot < 1024
                             ? plan_.trigger_spot * whole / 1024
                             : std::min<std::size_t>(plan_.trigger_spot - 1024, whole - 1);
  return at > speaker_.offset() ? at - speaker_.offset() : 0;
}

void End::AtBoundary() {
  switch (next_) {
    case Next::kNothing:
      break;
    case Next::kClose:
      if (more_ == 0) {
        SendClose();
      } else {
        --more_;
      }
      break;
    case Next::kCloseAtMessage:
      if (!speaker_.in_message()) {
        SendClose();
      }
      break;
  }
}

void End::FinishFrame() {
  if (speaker_.inside_frame()) {
    const auto rest = speaker_.Rest();
    Put(rest.data(), rest.size());
    speaker_.Took(rest.size());
    slowest_frame_ = std::max(slowest_frame_, Now() - frame_began_at_);
  }
}

void End::CloseFirst(int code) {
  close_code_ = code;
  FinishFrame();
  SendClose();
}

void End::SendClose() {
  std::string payload;
  if (close_code_ != 1005) {
    payload = {static_cast<char>(close_code_ >> 8), static_cast<char>(close_code_ & 0xFF)};
  }
  closed_at_ = Now();
  done_speaking_ = true;
  PutControl(0x88, payload, voice_.close_in_bytes);
  if (side_ == kBackend && dice_.Percent(60)) {
    Finish();  // section 7.1.1: the server ends the stream first
  }
}

void End::Finish() {
  finishing_ = true;
  Flush();
}

void End::Die(bool by_reset) {
  died_ = true;
  died_by_reset_ = by_reset;
  done_speaking_ = true;
  if (by_reset) {
    wire_.Reset();
    Over("self");
  } else {
    Finish();
  }
}

void End::Violate() {
  violated_ = true;
  std::string bad;
  bool masked = side_ == kClient;
  const auto start = static_cast<unsigned char>(speaker_.in_message() ? 0x80 : 0x82);
  const auto header = [&](unsigned first, unsigned length, unsigned bytes, std::uint64_t value) {
    bad += static_cast<char>(first);
    bad += static_cast<char>(length | (masked ? 0x80U : 0U));
    for (unsigned i = bytes; i > 0; --i) {
      bad += static_cast<char>(value >> (8 * (i - 1)));
    }
    if (masked) {
      const bench::MaskKey key = speaker_.NextMask();
      bad.append(reinterpret_cast<const char*>(key.data()), key.size());
    }
  };
  switch (plan_.fault) {
    case Fault::kReservedOpcode:
      header(dice_.Percent(50) ? 0x83 : 0x8B, 3, 0, 0);
      break;
    case Fault::kRsv2OrRsv3:
      header(start | (dice_.Percent(50) ? 0x20U : 0x10U), 3, 0, 0);
      break;
    case Fault::kRsv1NotAgreed:
      header(start | 0x40U, 3, 0, 0);
      break;
    case Fault::kRsv1OnControl:
      header(0xC9, 3, 0, 0);
      break;
    case Fault::kFragmentedControl:
      header(0x09, 3, 0, 0);
      break;
    case Fault::kContinuationWithoutStart:
      header(0x80, 3, 0, 0);
      break;
    case Fault::kDataInsideMessage:
      header(0x82, 3, 0, 0);
      break;
    case Fault::kTooManyFrames: {
      const auto rest = speaker_.Rest();
      bad.assign(reinterpret_cast<const char*>(rest.data()), rest.size());
      break;
    }
    case Fault::kWrongMask:
      masked = !masked;
      header(start, 3, 0, 0);
      break;
    case Fault::kControlTooLong:
      header(0x89, 126, 2, 200);
      break;
    case Fault::kCloseLengthOne:
      header(0x88, 1, 0, 0);
      break;
    case Fault::kLengthNotMinimal:
      header(start, 126, 2, dice_.Below(126));
      break;
    case Fault::kLengthTopBit:
      header(start, 127, 8, std::uint64_t{1} << 63U);
      break;
    case Fault::kMessageTooBig:
      header(start, 127, 8, kTooBig);
      break;
    case Fault::kCount:
      break;
  }
  bad.append(dice_.Below(40), 'x');
  bad_ = std::move(bad);
}

void End::PutControl(unsigned char first, const std::string& payload, bool in_bytes) {
  std::array<unsigned char, bench::kMaxHeader + 125> frame{};
  const bench::MaskKey key = speaker_.NextMask();
  const bool masked = side_ == kClient;
  const std::size_t head =
      bench::WriteHeader(frame.data(), first, payload.size(), masked ? &key : nullptr);
  std::memcpy(frame.data() + head, payload.data(), payload.size());
  if (masked) {
    bench::Mask(frame.data() + head, frame.data() + head, payload.size(), key, 0);
  }
  const std::size_t size = head + payload.size();
  const std::size_t step = in_bytes ? 1 : size;
  for (std::size_t at = 0; at < size && phase_ != Phase::kOver; at += step) {
    Put(frame.data() + at, step);
  }
}

void End::Put(const unsigned char* bytes, std::size_t size) {
  out_.append(reinterpret_cast<const char*>(bytes), size);
  written_ += size;
  Flush();
}

void End::Flush() {
  while (!out_.empty() && wire_.is_open()) {
    const ssize_t taken =
        wire_.Write(reinterpret_cast<const unsigned char*>(out_.data()), out_.size());
    if (taken == Wire::kNothing) {
      break;
    }
    if (taken < 0) {
      out_.clear();  // that nobody takes it shows when reading, behind what can still be read
      done_speaking_ = true;
      break;
    }
    out_.erase(0, static_cast<std::size_t>(taken));
  }
  if (out_.empty() && finishing_ && wire_.is_open()) {
    ::shutdown(wire_.fd(), SHUT_WR);
  }
  Rearm();
}

// What it hears.

void End::OnEvent(std::uint32_t events) {
  if (phase_ == Phase::kOver) {
    return;
  }
  if (phase_ == Phase::kConnect) {
    Advance();
    return;
  }
  if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
    deaf_ = false;  // what is left is read to its end
  }
  if ((events & EPOLLOUT) != 0) {
    Flush();
  }
  if (!deaf_) {
    Read();
  }
}

void End::Read() {
  static std::array<unsigned char, std::size_t{64} * 1024> buffer;
  for (int i = 0; i < 4 || (wire_.is_open() && wire_.HasBuffered()); ++i) {
    if (!wire_.is_open() || deaf_) {
      return;
    }
    const ssize_t got = wire_.Read(buffer.data(), buffer.size());
    if (got == Wire::kNothing) {
      return;
    }
    if (got < 0) {
      Over(got == Wire::kFin ? "fin" : "reset");
    } else if (phase_ == Phase::kHead) {
      ReadHead(buffer.data(), static_cast<std::size_t>(got));
    } else {
      Take(buffer.data(), static_cast<std::size_t>(got));
    }
  }
}

void End::Take(unsigned char* bytes, std::size_t size) {
  if (const char* wrong = listener_.Take(bytes, size)) {
    wrong_ = wrong;
    Over("wrong");
    return;
  }
  if (std::string ping = listener_.TakePing(); !ping.empty()) {
    pong_ = std::move(ping);
  }
  if (listener_.closed() && close_came_at_ == 0) {
    TakeClose();
  }
}

void End::TakeClose() {
  close_came_at_ = Now();
  owner_.OnClose(*this);
  if (phase_ == Phase::kOver || closed_at_ != 0 || violated_ || died_ || silent_ ||
      held_for_ever_) {
    return;
  }
  held_ = false;
  close_code_ = listener_.close_code();
  switch (voice_.answer) {
    case Answer::kPrompt:
      FinishFrame();
      SendClose();
      break;
    case Answer::kMore:
      more_ = voice_.answer_after;
      next_ = Next::kClose;
      break;
    case Answer::kSlow:
      next_ = Next::kCloseAtMessage;
      if (!speaker_.inside_frame()) {
        AtBoundary();
      }
      break;
    case Answer::kLate:
      held_ = true;
      hold_until_ = 0;
      answer_at_ = Now() + voice_.answer_after * kMillisecond;
      break;
    case Answer::kFin:
      FinishFrame();
      Die(false);
      break;
    case Answer::kTear:
      Die(false);
      break;
    case Answer::kReset:
      Die(true);
      break;
    case Answer::kMute:
      done_speaking_ = true;
      break;
    case Answer::kDeaf:
      break;
  }
  if (phase_ == Phase::kOpen) {
    Schedule();
  }
}

// Time.

void End::Hold(unsigned milliseconds, bool for_ever) {
  held_ = true;
  held_for_ever_ = for_ever;
  hold_until_ = milliseconds > 0 ? Now() + milliseconds * kMillisecond : 0;
}

void End::Stall(unsigned milliseconds) {
  if (phase_ != Phase::kOpen) {
    return;
  }
  deaf_ = true;
  deaf_until_ = Now() + milliseconds * kMillisecond;
  stalled_at_ = Now() + milliseconds * kMillisecond / 2;
  Rearm();
  Schedule();
}

void End::FallSilent() {
  silent_ = true;
  deaf_ = true;
  deaf_until_ = 0;
  Rearm();
}

void End::Wake() {
  if (phase_ == Phase::kOpen && deaf_) {
    deaf_ = false;
    Rearm();
    Read();
  }
}

void End::Abandon(const char* how) {
  if (phase_ != Phase::kOver) {
    wrong_ = how;
    Over("abandoned");
  }
}

bool End::IsWaiting() const {
  return (triggered_ || plan_.trigger_side != side_) && close_came_at_ == 0 && bad_.empty() &&
         !voice_.shape.large_only && !plan_.calm &&
         speaker_.frames_done() > plan_.trigger_frame + kFramesAtPace;
}

Nanoseconds End::Pause() {
  unsigned most = close_came_at_ != 0 ? 2 : voice_.pause;
  if (IsWaiting() && !speaker_.inside_frame() && !speaker_.in_message()) {
    most = 100 + voice_.pause * kSlower;
  }
  return static_cast<Nanoseconds>(dice_.Between(1, most)) * kMillisecond;
}

void End::Schedule() {
  Nanoseconds due = 0;
  const auto also = [&](Nanoseconds at) { due = due == 0 ? at : std::min(due, at); };
  if (MaySpeak()) {
    also(Now() + Pause());
  }
  if (held_ && hold_until_ != 0) {
    also(hold_until_);
  }
  for (const Nanoseconds at : {deaf_until_, stalled_at_, answer_at_}) {
    if (at != 0) {
      also(at);
    }
  }
  if (due != 0) {
    loop_.wheel().Set(*this, due);
  } else {
    loop_.wheel().Cancel(*this);
  }
}

void End::OnTimer() {
  const Nanoseconds now = Now();
  if (stalled_at_ != 0 && now >= stalled_at_) {
    stalled_at_ = 0;
    owner_.OnStalled(*this);
  }
  if (deaf_until_ != 0 && now >= deaf_until_) {
    deaf_until_ = 0;
    Wake();
  }
  if (held_ && hold_until_ != 0 && now >= hold_until_) {
    held_ = false;
  }
  if (phase_ == Phase::kOpen && answer_at_ != 0 && now >= answer_at_) {
    answer_at_ = 0;
    FinishFrame();
    SendClose();
  }
  if (phase_ == Phase::kOpen) {
    Pump();
  }
  if (phase_ == Phase::kOpen) {
    Schedule();
  }
}

void End::Rearm() {
  const std::uint32_t wanted =
      (deaf_ ? 0U : std::uint32_t{EPOLLIN}) | (out_.empty() ? 0U : std::uint32_t{EPOLLOUT});
  if (wire_.is_open() && wanted != watched_ && phase_ != Phase::kConnect) {
    const bool had_room = (watched_ & EPOLLOUT) == 0;
    watched_ = wanted;
    loop_.Change(wire_.fd(), watched_, *this);
    if (!had_room && out_.empty() && phase_ == Phase::kOpen) {
      Schedule();  // it was kept from speaking
    }
  }
}

void End::Over(const char* how) {
  if (phase_ != Phase::kOver) {
    how_ = how;
    phase_ = Phase::kOver;
    wire_.Close();
    loop_.wheel().Cancel(*this);
    owner_.OnOver(*this);
  }
}

}  // namespace sluice::storm
