#include "proxy/session/relay.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "proxy/session/exchange.h"
#include "proxy/session/secure_random.h"
#include "proxy/ws/frame_writer.h"

namespace sluice::session {
namespace {

using metrics::ClosedBy;
using metrics::MessageKind;
using metrics::TornReason;
using net::IoStatus;
using net::Pause;

// How many times the end of a session is put off while a slow side takes its last bytes.
constexpr unsigned kMostExtensions = 12;

// What a side has not taken while some of it waits here. The kernel is asked: it tells of room in
// steps of as much as half of its buffer, so that what waits here may stand still meanwhile.
std::size_t Untaken(const net::Conn& conn) noexcept {
  return conn.pending() > 0 ? conn.unacknowledged() : 0;
}

// One read in so many is timed for relay_seconds: often enough for a histogram, too seldom to cost.
constexpr unsigned kSampleEvery = 64;

// A frame with at least this much to come is spliced. Messages of 100,000 bytes cost a third less
// so than copied; well below that, two more system calls and a pipe would not pay.
constexpr std::uint64_t kSpliceLeast = 64 * 1024;

// One splice at most, so that a fast sender does not keep the loop from the others.
constexpr std::uint64_t kSpliceMost = 1024 * 1024;

// A stall is noticed by a timer that is late, at the latest one tick after it began.
constexpr Millis kStallSlack{1'000};

constexpr std::size_t kReadAfterSplice = 4 * 1024;

// While bytes wait for the other side, or above max_buffered: less than this at a time does not
// pay.
constexpr std::size_t kLeastRead = 4 * 1024;

// When a splice finds less than this, the sender is slow and is read like any other.
constexpr std::size_t kSpliceWorth = 16 * 1024;

// What 1012 is registered as. drain.reason may speak of a deploy, and this is none.
constexpr std::string_view kBackendLostReason = "service restart";

// RFC 6455 section 7.4.1.
constexpr std::uint16_t kGoingAway = 1001;
constexpr std::uint16_t kPolicyViolation = 1008;
constexpr std::string_view kClientLostReason = "client lost";

MessageKind KindOf(ws::Opcode opcode) noexcept {
  switch (opcode) {
    case ws::Opcode::kText:
      return MessageKind::kText;
    case ws::Opcode::kClose:
      return MessageKind::kClose;
    case ws::Opcode::kPing:
      return MessageKind::kPing;
    case ws::Opcode::kPong:
      return MessageKind::kPong;
    case ws::Opcode::kBinary:
    case ws::Opcode::kContinuation:
      break;
  }
  return MessageKind::kBinary;
}

ws::FrameRules RulesFor(Side from, bool rsv1, const config::RouteLimits& limits) noexcept {
  return {from, rsv1, limits.max_message_bytes, limits.max_frames_per_message,
          limits.max_frame_bytes};
}

// What a CLOSE with `code` is answered with when the other side does not answer it.
std::uint16_t AnswerTo(std::uint16_t code) noexcept {
  constexpr std::uint16_t kNormal = 1000;
  return ws::IsSendableCloseCode(code) ? code : kNormal;
}

// What our own pings carry: when they were sent, and a number that nobody else can make from it. A
// peer does not send a pong with it unless it answers one of them. Nothing is kept for it.
using PingPayload = std::array<std::byte, 16>;

std::uint64_t SealOf(const Core& core, Side side, std::uint64_t sent_at) noexcept {
  const std::array<std::uint64_t, 4> words{core.services.ping_secret, core.id, Index(side),
                                           sent_at};
  return balance::HashKey(AsText(std::as_bytes(std::span(words))));
}

PingPayload MakePingPayload(const Core& core, Side side) noexcept {
  const auto sent_at = static_cast<std::uint64_t>(Now().time_since_epoch().count());
  const std::array<std::uint64_t, 2> words{sent_at, SealOf(core, side, sent_at)};
  PingPayload payload;
  static_assert(sizeof(payload) == sizeof(words));
  std::memcpy(payload.data(), words.data(), payload.size());
  return payload;
}

// When the ping was sent that a pong of `side` answers; nothing when it is none of ours. `frame`
// ends with the pong, whose payload is as long as that of our pings.
std::optional<Instant> ReadPong(const Core& core, Side side, Bytes frame) noexcept {
  std::array<std::uint64_t, 2> words{};
  std::array<std::byte, sizeof(words)> payload;
  const Bytes end = frame.last(payload.size());
  std::copy(end.begin(), end.end(), payload.begin());
  if (side == Side::kClient) {
    // RFC 6455 section 5.3: the four bytes before the payload mask it.
    const Bytes mask = frame.last(payload.size() + 4).first(4);
    for (std::size_t i = 0; i < payload.size(); ++i) {
      payload[i] ^= mask[i % 4];
    }
  }
  std::memcpy(words.data(), payload.data(), payload.size());
  if (words[1] != SealOf(core, side, words[0])) {
    return std::nullopt;
  }
  return Instant(Instant::duration(static_cast<Instant::rep>(words[0])));
}

// How often an idle or slow session is looked at.
Millis WatchGrain(const config::Route& route) noexcept {
  constexpr int kParts = 8;
  Millis grain = Millis::max();
  if (route.idle_timeout > Millis(0)) {
    grain = route.idle_timeout / kParts;
  }
  return route.on_slow == config::OnSlow::kClose ? std::min(grain, route.slow_timeout / kParts)
                                                 : grain;
}

ws::MaskKey RandomMask() noexcept {
  // RFC 6455 section 10.3: a mask must be unpredictable.
  ws::MaskKey key{};
  FillRandom({reinterpret_cast<unsigned char*>(key.data()), key.size()});
  return key;
}

}  // namespace

Relay::Relay(Core& core, RelaySink& sink, RequestFacts& facts, const Upgraded& upgraded) noexcept
    : core_(core),
      sink_(sink),
      facts_(facts),
      block_(core.route_block(facts)),
      legs_{Leg(RulesFor(Side::kClient, upgraded.rsv1, core.route(facts).config.limits)),
            Leg(RulesFor(Side::kBackend, upgraded.rsv1, core.route(facts).config.limits))},
      began_(core.services.loop.now()),
      key_hash_(upgraded.key_hash) {
  if (const std::uint64_t limit = core.route(facts).config.refragment;
      limit > 0 && upgraded.may_refragment) {
    refragmenter_ = std::make_unique<ws::Refragmenter>(limit);
  }
  core_.view->routes[facts_.route].sessions_open[facts_.backend]->Add(1);
  const config::Route& route = core.route(facts).config;
  limits_rate_ = route.limits.messages_per_second > 0 || route.limits.bytes_per_second > 0;
  if (route.idle_timeout > Millis(0) || route.on_slow == config::OnSlow::kClose) {
    watch_ = std::make_unique<Watch>();
    watch_->moved_at = began_;
  }
  for (const Side side : {Side::kClient, Side::kBackend}) {
    leg(side).beat_due = NextBeat(side, began_);
  }
}

void Relay::Start(Bytes early_client, Bytes early_backend) noexcept {
  if (!early_client.empty()) {
    Take(Side::kClient, early_client);
  }
  if (!done_ && !early_backend.empty()) {
    Take(Side::kBackend, early_backend);
  }
}

RelayTotals Relay::totals() const noexcept {
  const Leg& client = leg(Side::kClient);
  const Leg& backend = leg(Side::kBackend);
  return {client.bytes, backend.bytes, client.messages, backend.messages};
}

bool Relay::is_ending() const noexcept {
  return done_ || stage_ != Stage::kOpen || IsClosing() || leg(Side::kClient).lost ||
         leg(Side::kBackend).lost;
}

Relay::Ending& Relay::ending() noexcept {
  if (!ending_) {
    ending_ = std::make_unique<Ending>();
  }
  return *ending_;
}

// The path of every byte.

void Relay::OnReadable(Side side) noexcept {
  if (done_) {
    return;
  }
  const bool sample = ++reads_ % kSampleEvery == 0;
  const Instant before = sample ? Now() : Instant();
  const auto note_time = [&] {
    if (sample) {
      core_.services.block.relay_seconds.Observe(
          std::chrono::duration<double>(Now() - before).count());
    }
  };
  leg(side).heard = true;
  if (leg(side).bulk && Splice(side)) {
    note_time();
    return;
  }
  const std::span<std::byte> into = core_.services.scratch.first(ReadSize(side));
  const net::IoResult got = core_.conn(side).Read(into);
  switch (got.status) {
    case IoStatus::kOk:
      leg(side).bulk = got.bytes >= into.size() / 2;
      Take(side, core_.services.scratch.first(got.bytes));
      note_time();
      break;
    case IoStatus::kEof:
      OnEnd(side, false);
      break;
    case IoStatus::kError:
      OnEnd(side, true);
      break;
    case IoStatus::kWouldBlock:
      break;
  }
}

// How much is read at once: as much as there is room for while the other side takes it all.
std::size_t Relay::ReadSize(Side side) noexcept {
  Leg& source = leg(side);
  const std::size_t waiting = core_.conn(Other(side)).pending();
  std::size_t most = source.bulk ? core_.services.scratch.size() : kUsualRead;
  if (waiting > 0) {
    // No more than fills up what may wait: what is read now is kept in memory.
    const std::size_t high = core_.high_watermark();
    most = std::min(kUsualRead, std::max(kLeastRead, waiting < high ? high - waiting : 0));
  }
  if (limits_rate_ && side == Side::kClient) {
    most = std::min(most, ClientRates::ReadMost(core_.route(facts_).config.limits,
                                                source.tracker.payload_left()));
  }
  if (core_.is_memory_short()) {
    most = std::min(most, kLeastRead);
  }
  if (!source.spliced) {
    return most;
  }
  // After a frame that was spliced another one is likely: of that one only the header is read.
  source.spliced = false;
  return static_cast<std::size_t>(
      std::min<std::uint64_t>(source.tracker.payload_left() + kReadAfterSplice, most));
}

// Moves a piece of a large frame past us instead of through us. False: not now, read it.
bool Relay::Splice(Side from) noexcept {
  Leg& source = leg(from);
  const std::uint64_t left = source.tracker.payload_left();
  // With discard nothing is forwarded; a side that has closed is not sent anything.
  if (left < kSpliceLeast || source.discard || leg(Other(from)).close_out ||
      (refragmenter_ && from == Side::kBackend)) {
    return false;
  }
  net::Conn& destination = core_.conn(Other(from));
  // The last byte of a frame is read, so that its end is seen where all ends are seen.
  std::uint64_t most = std::min<std::uint64_t>(left - 1, kSpliceMost);
  if (limits_rate_ && from == Side::kClient) {
    most = std::min<std::uint64_t>(most,
                                   ClientRates::ReadMost(core_.route(facts_).config.limits, left));
  }
  const auto moved = core_.conn(from).SpliceTo(destination, static_cast<std::size_t>(most));
  if (!moved) {
    return false;
  }
  switch (moved->status) {
    case IoStatus::kOk:
      source.tracker.Skip(moved->bytes);
      source.spliced = true;
      source.bulk = moved->bytes >= kSpliceWorth;
      CountForwarded(from, moved->bytes);
      if (limits_rate_ && from == Side::kClient) {
        KeepRates(moved->bytes);
      }
      break;
    case IoStatus::kWouldBlock:
      source.bulk = destination.pending() > 0;  // else it is the source that has run dry
      break;
    case IoStatus::kEof:
      OnEnd(from, false);
      return true;
    case IoStatus::kError:
      OnEnd(from, true);
      return true;
  }
  if (destination.write_failed()) {
    StopForwarding(from);
  } else if (core_.IsFull(destination) ||
             (destination.pending() > 0 && moved->status == IoStatus::kWouldBlock)) {
    HoldBack(from);
  }
  return true;
}

void Relay::Take(Side from, Bytes bytes) noexcept {
  using Event = ws::FrameTracker::Event;
  Leg& source = leg(from);
  if (source.close_in || source.bad) {
    return;  // RFC 6455 section 5.5.1: nothing follows a CLOSE
  }
  MessageRun run;
  std::size_t whole = 0;  // of `bytes`: what belongs to frames that are complete
  std::size_t sent = 0;   // of those: what has been forwarded or dropped
  const auto forward_whole = [&] {
    if (whole > sent) {
      Forward(from, bytes.subspan(sent, whole - sent));
      sent = whole;
    }
  };
  for (;;) {
    const auto step = source.tracker.Next(bytes.subspan(whole));
    if (step.event == Event::kBad) {
      CountMessages(from, run);
      forward_whole();
      OnViolation(from);
      return;
    }
    if (step.event == Event::kNeedMore) {
      if (source.tracker.in_header_or_control()) {
        // Forward up to the frame that is not decided yet and keep its start.
        forward_whole();
        if (!source.discard) {
          if (!source.carry) {
            source.carry = std::make_unique<std::string>();
          }
          *source.carry += AsText(bytes.subspan(whole));
        }
      } else {
        Forward(from, bytes.subspan(sent));
      }
      break;
    }
    if (step.event == Event::kMessageEnd) {
      const ws::Opcode opcode = source.tracker.opcode();
      if (opcode == ws::Opcode::kPong) {
        forward_whole();  // what was held back may be the start of a frame before the pong
      }
      if (opcode == ws::Opcode::kPong && SwallowPong(from, bytes.subspan(whole, step.consumed))) {
        whole += step.consumed;
        sent = whole;
        if (whole == bytes.size()) {
          break;
        }
        continue;
      }
      if (from == Side::kClient && !MayPass(opcode)) {
        forward_whole();
        StopForwarding(from);
        CloseFor(metrics::OwnClose::kRate, kPolicyViolation, "too many control frames");
        // Walked on, so that the answer to our CLOSE is seen when it comes.
        whole += step.consumed;
        sent = whole;
        if (whole == bytes.size()) {
          break;
        }
        continue;
      }
      if (!run.Extend(opcode, source.tracker.message_bytes())) {
        CountMessages(from, run);
        run = {opcode, source.tracker.message_bytes(), 1};
      }
      if (opcode == ws::Opcode::kClose) {
        // In a closing of ours this one is an answer, or crossed with ours: it stays here.
        if (stage_ == Stage::kOpen) {
          whole += step.consumed;
        }
        forward_whole();
        source.carry.reset();
        OnCloseFrame(from);
        break;
      }
    }
    whole += step.consumed;
    if (stage_ != Stage::kOpen) {
      forward_whole();  // the boundary is that of what has gone out
      if (MustStopAt(from)) {
        // What follows is walked on, so that a CLOSE in it is seen, but goes no further.
        StopForwarding(from);
      }
    }
    if (whole == bytes.size()) {
      forward_whole();
      break;
    }
  }
  CountMessages(from, run);
  if (limits_rate_ && from == Side::kClient) {
    KeepRates(bytes.size());
  }
  if (stage_ != Stage::kOpen && !done_) {
    Advance();
  } else if (source.close_in && !done_) {
    Settle();
  }
}

// Heartbeats (RFC 6455 section 5.5.2).

const config::Heartbeat& Relay::heartbeat(Side side) const noexcept {
  const config::Heartbeats& both = core_.route(facts_).config.heartbeat;
  return side == Side::kClient ? both.client : both.backend;
}

// Silence is looked for in halves of the interval, so that it is noticed when it has lasted for one
// and not for nearly two. Somewhat less than a half, drawn: the sessions that came back together
// after a restart do not ping together.
Instant Relay::NextBeat(Side side, Instant from) const noexcept {
  const double half = static_cast<double>(heartbeat(side).interval.count()) / 2;
  return from + Millis(static_cast<Millis::rep>(half * (0.9 + 0.1 * core_.services.random.Unit())));
}

Instant Relay::FirstLook() const noexcept {
  Instant first = Instant::max();
  for (const Side side : {Side::kClient, Side::kBackend}) {
    if (heartbeat(side).interval > Millis(0)) {
      first = std::min(first, leg(side).beat_due);
    }
  }
  return watch_ ? std::min(first, began_ + WatchGrain(core_.route(facts_).config)) : first;
}

Instant Relay::LookAfter(Instant now) noexcept {
  Instant next = Instant::max();
  for (const Side side : {Side::kClient, Side::kBackend}) {
    if (is_ending()) {
      return Instant::max();  // from here on it has deadlines of its own
    }
    next = std::min(next, Beat(side, now));
  }
  return watch_ && !is_ending() ? std::min(next, WatchOver(now)) : next;
}

// Returns when to look at the side again.
Instant Relay::Beat(Side side, Instant now) noexcept {
  const config::Heartbeat& beat = heartbeat(side);
  if (beat.interval == Millis(0)) {
    return Instant::max();
  }
  Leg& one = leg(side);
  if (now >= one.beat_due) {
    if (one.pinged) {
      OnPingDue(side, now);
    } else if (!one.heard) {
      Ping(side, now);
    } else {
      one.heard = false;
    }
    if (!one.pinged) {
      one.beat_due = NextBeat(side, now);
    }
  }
  // The answer to a ping is not waited for to the last: after it the side is to be looked at when
  // it has been silent again.
  return one.pinged ? std::min(one.beat_due, now + beat.interval / 2) : one.beat_due;
}

void Relay::Ping(Side to, Instant now) noexcept {
  if (leg(Other(to)).discard) {
    return;
  }
  Leg& one = leg(to);
  net::Conn& conn = core_.conn(to);
  // Where bytes are on their way to the side the ping comes behind them, or has no place inside a
  // frame that does not move on: then that the side reads is a sign of life too.
  const std::size_t ahead = conn.unacknowledged();
  if (AtFrameBoundary(Other(to))) {
    const PingPayload payload = MakePingPayload(core_, to);
    const auto mask = to == Side::kBackend ? std::optional(RandomMask()) : std::nullopt;
    conn.Write(ws::MakePing(payload, mask).bytes());
  } else if (conn.pending() == 0) {
    return;  // it takes what comes of the other side's frame; the next beat comes soon
  }
  one.awaits_reading = ahead > 0;
  if (one.awaits_reading) {
    const std::uint64_t sent = leg(Other(to)).bytes;
    ending().sent_at_ping[Index(to)] = sent;
    ending().taken_at_ping[Index(to)] = sent - ahead;
  }
  one.pinged = true;
  one.heard = false;
  one.beat_due = now + heartbeat(to).timeout;
}

// True for the answer to a ping of ours, which goes no further. `frame_end`: the frame, or, when
// its start was held back, what has come of it now.
bool Relay::SwallowPong(Side from, Bytes frame_end) noexcept {
  Leg& source = leg(from);
  // With discard nothing goes further anyway, and the start of the frame was not kept.
  if (source.discard || source.tracker.message_bytes() != std::tuple_size_v<PingPayload>) {
    return false;
  }
  std::string whole;
  if (source.carry) {
    whole = *source.carry;
  }
  whole += AsText(frame_end);
  const std::optional<Instant> sent_at = ReadPong(core_, from, AsBytes(whole));
  if (!sent_at) {
    return false;
  }
  source.carry.reset();
  if (!source.pinged && from == Side::kClient && !MayPass(ws::Opcode::kPong)) {
    // An answer that was given before, again and again: it is counted like any other pong.
    CloseFor(metrics::OwnClose::kRate, kPolicyViolation, "too many control frames");
  }
  if (source.pinged) {
    source.pinged = false;
    source.beat_due = NextBeat(from, core_.services.loop.now());
    block_.pings[Index(from)][0].Add();
    block_.rtt_seconds[Index(from)].Observe(
        std::chrono::duration<double>(Now() - *sent_at).count());
  }
  return true;
}

// True for a side that was pinged while bytes were on their way to it, has taken some of them
// since, and has not come to the ping yet. One whose kernel has taken the ping could have answered
// it.
bool Relay::IsReadingOn(Side side) noexcept {
  // What is on its way may be more than has come from the other side: our own frames, and what TLS
  // adds.
  const auto taken =
      static_cast<std::int64_t>(leg(Other(side)).bytes - core_.conn(side).unacknowledged());
  return taken > static_cast<std::int64_t>(ending().taken_at_ping[Index(side)]) &&
         taken < static_cast<std::int64_t>(ending().sent_at_ping[Index(side)]);
}

// The time for an answer is over.
void Relay::OnPingDue(Side side, Instant now) noexcept {
  Leg& one = leg(side);
  net::Conn& conn = core_.conn(side);
  one.pinged = false;
  if (one.heard || conn.HasInput()) {
    // It says something, if not what was asked. What waits to be read counts too: the other side
    // may be too slow for it, or we ourselves.
    block_.pings[Index(side)][0].Add();
    return;
  }
  if (one.awaits_reading && IsReadingOn(side)) {
    Ping(side, now);  // asked anew, from where it is now
    return;
  }
  // After a pause the timers run by their due times: ours may come before the one that notes it.
  if (now - core_.services.tick_due > kStall ||
      now - core_.services.stalled_at < heartbeat(side).timeout + kStallSlack) {
    Ping(side, now);  // we have stood still ourselves: it gets another chance, if not now, with the
                      // next beat
    return;
  }
  block_.pings[Index(side)][1].Add();
  one.hung = true;
  if (side == Side::kBackend) {
    OnEnd(side, true);
  } else {
    OnHungClient();
  }
}

// Nobody is there who could take a CLOSE or answer it: the client is cut. Its backend is told.
void Relay::OnHungClient() noexcept {
  ending().why = "ping_timeout";
  Initiate(ClosedBy::kClient, 0);
  if (AtFrameBoundary(Side::kClient)) {
    WriteClose(Side::kBackend, kGoingAway, kClientLostReason);
  }
  core_.client.Abort();
  OnEnd(Side::kClient, true);
}

// Idle sessions and slow clients.

Instant Relay::WatchOver(Instant now) noexcept {
  const config::Route& route = core_.route(facts_).config;
  const std::uint64_t seen = leg(Side::kClient).bytes + leg(Side::kBackend).bytes;
  if (seen != watch_->seen) {
    watch_->seen = seen;
    watch_->moved_at = now;
  }
  if (route.idle_timeout > Millis(0) && now - watch_->moved_at >= route.idle_timeout) {
    CloseFor(metrics::OwnClose::kIdle, kGoingAway, "idle timeout");
    return Instant::max();
  }
  if (route.on_slow == config::OnSlow::kClose && watch_->full_since != Instant() &&
      now - watch_->full_since >= route.slow_timeout) {
    CloseFor(metrics::OwnClose::kSlow, kPolicyViolation, "too slow");
    return Instant::max();
  }
  return now + WatchGrain(route);
}

void Relay::CloseFor(metrics::OwnClose cause, std::uint16_t code,
                     std::string_view reason) noexcept {
  OurClose close;
  close.client_code = code;
  close.reason = reason;
  close.why = metrics::Name(cause);
  close.cause = cause;
  close.finish_message = cause == metrics::OwnClose::kIdle;
  BeginClose(close);
}

// What a client may send.

ClientRates& Relay::rates() noexcept {
  if (!rates_) {
    rates_ = std::make_unique<ClientRates>();
  }
  return *rates_;
}

// False for a control frame of the client that is one too many: it ends the session.
bool Relay::MayPass(ws::Opcode opcode) noexcept {
  if (opcode != ws::Opcode::kPing && opcode != ws::Opcode::kPong) {
    return true;
  }
  const config::RouteLimits& limits = core_.route(facts_).config.limits;
  if (is_ending() || limits.control_frames_per_second == 0 ||
      rates().TakeControlFrame(limits, core_.services.loop.now())) {
    return true;
  }
  core_.services.block.rate_limited[metrics::Refused::kControlFrames].Add();
  return false;
}

// Called when `count` bytes have come of a client whose messages or bytes are limited, and the
// messages in them were noted.
void Relay::KeepRates(std::size_t count) noexcept {
  const Instant now = core_.services.loop.now();
  const config::RouteLimits& limits = core_.route(facts_).config.limits;
  rates().NoteBytes(limits, now, count);
  const Instant within_at = rates().within_at();
  if (within_at <= now || is_ending()) {
    return;
  }
  if (!core_.client.IsPaused(Pause::kRate)) {
    using metrics::Refused;
    core_.services.block
        .rate_limited[rates().is_over_by_bytes() ? Refused::kBytes : Refused::kMessages]
        .Add();
  }
  if (limits.on_limit == config::OnLimit::kClose) {
    CloseFor(metrics::OwnClose::kRate, kPolicyViolation, "too much at once");
    return;
  }
  core_.client.PauseRead(Pause::kRate);
  rates().resume.Arm<&Relay::OnWithinRates>(core_.services.loop.base(),
                                            std::chrono::ceil<Millis>(within_at - now), this);
}

void Relay::OnWithinRates(short) noexcept {
  core_.client.ResumeRead(Pause::kRate);
}

void Relay::CountMessages(Side from, const MessageRun& run) noexcept {
  if (run.count == 0) {
    return;
  }
  block_.messages[Index(from)][KindOf(run.opcode)].Add(run.count);
  leg(from).messages += run.count;
  if (run.opcode == ws::Opcode::kText || run.opcode == ws::Opcode::kBinary) {
    block_.message_bytes[Index(from)].Observe(run.bytes, run.count);
    if (limits_rate_ && from == Side::kClient) {
      rates().NoteMessages(core_.route(facts_).config.limits, core_.services.loop.now(), run.count);
    }
  }
}

void Relay::Forward(Side from, Bytes bytes) noexcept {
  Leg& source = leg(from);
  const Side to = Other(from);
  if (source.discard || leg(to).close_out) {
    return;
  }
  net::Conn& destination = core_.conn(to);
  if (destination.write_finishing()) {
    return;
  }
  const std::unique_ptr<std::string> joined = std::move(source.carry);
  if (joined) {
    *joined += AsText(bytes);
    bytes = AsBytes(*joined);
  }
  std::string cut;
  if (refragmenter_ && from == Side::kBackend) {
    bytes = refragmenter_->Feed(bytes, cut);
  }
  if (bytes.empty()) {
    return;
  }
  if (!destination.Write(bytes)) {
    // Nobody hears it any more. Said here because a side that had finished its own direction is
    // not read again, so nothing else would tell; the deadline of its end then runs out.
    StopForwarding(from);
    return;
  }
  CountForwarded(from, bytes.size());
  if (core_.IsFull(destination)) {
    HoldBack(from);
  }
}

void Relay::CountForwarded(Side from, std::size_t count) noexcept {
  leg(from).bytes += count;
  block_.bytes[Index(from)].Add(count);
}

// Does not read `from` until the other side has taken what waits for it.
void Relay::HoldBack(Side from) noexcept {
  net::Conn& conn = core_.conn(from);
  if (!conn.IsPaused(Pause::kPeerFull)) {
    block_.backpressure_pauses[Index(from)].Add();
    conn.PauseRead(Pause::kPeerFull);
    if (watch_ && from == Side::kBackend) {
      watch_->full_since = core_.services.loop.now();
    }
  }
}

void Relay::OnWritable(Side side) noexcept {
  if (done_) {
    return;
  }
  const net::Conn& conn = core_.conn(side);
  if (conn.write_failed()) {
    StopForwarding(Other(side));
  }
  if (core_.HasRoom(conn)) {
    if (watch_ && side == Side::kClient) {
      watch_->full_since = Instant();
    }
    // Also when writing has failed: what the other side still says must be read to its end.
    core_.conn(Other(side)).ResumeRead(Pause::kPeerFull);
  }
  if (conn.pending() == 0) {
    Settle();
  }
}

// Boundaries.

bool Relay::AtFrameBoundary(Side from) const noexcept {
  const Leg& source = leg(from);
  if (source.discard) {
    return source.stopped_at_frame;
  }
  if (refragmenter_ && from == Side::kBackend) {
    return refragmenter_->at_frame_boundary();
  }
  // Bytes held back were not forwarded: to the far side the frame has not begun.
  return source.tracker.at_frame_boundary() || source.carry;
}

bool Relay::AtMessageBoundary(Side from) const noexcept {
  const Leg& source = leg(from);
  if (source.discard) {
    return source.stopped_at_message;
  }
  // By the tracker also where frames are cut: a message of which nothing has gone out yet has
  // begun.
  return AtFrameBoundary(from) && !source.tracker.in_message() &&
         (source.tracker.at_frame_boundary() || source.carry);
}

void Relay::StopForwarding(Side from) noexcept {
  Leg& source = leg(from);
  if (!source.discard) {
    source.stopped_at_frame = AtFrameBoundary(from);
    source.stopped_at_message = AtMessageBoundary(from);
    source.discard = true;
    source.carry.reset();
  }
}

bool Relay::MustStopAt(Side from) const noexcept {
  switch (stage_) {
    case Stage::kFinishMessage:
      return from == Side::kClient &&
             (ending_->ours.finish_message && patience_ == 0 ? AtMessageBoundary(from)
                                                             : AtFrameBoundary(from));
    case Stage::kAwaitBoundary:
      return from == Side::kBackend &&
             (patience_ == 0 ? AtMessageBoundary(from) : AtFrameBoundary(from));
    default:
      return false;
  }
}

// Closing begun by one of the sides.

void Relay::OnCloseFrame(Side from) noexcept {
  Leg& source = leg(from);
  Leg& other = leg(Other(from));
  source.close_in = true;
  core_.client.ResumeRead(Pause::kRate);  // what it answers must be read
  const std::uint16_t code = source.tracker.close_code();
  if (source.code == 0) {
    source.code = code;
  }
  if (stage_ == Stage::kOpen && !other.close_out && !other.lost) {
    other.close_out = true;
    if (other.code == 0) {
      other.code = code;
    }
    if (!other.close_in) {
      Initiate(from == Side::kClient ? ClosedBy::kClient : ClosedBy::kBackend, code);
      ArmTimer(core_.config().server.close_timeout);
    }
  }
}

void Relay::OnEnd(Side side, bool broken) noexcept {
  Leg& source = leg(side);
  net::Conn& here = core_.conn(side);
  net::Conn& there = core_.conn(Other(side));
  if (!source.close_in) {
    OnLost(side);
  }
  if (broken) {
    here.Close();
    // Nobody is left to read what the other side says; it is read to its end and dropped.
    StopForwarding(Other(side));
    there.ResumeRead(Pause::kPeerFull);
    there.ResumeRead(Pause::kRate);
  }
  if (stage_ != Stage::kOpen) {
    Advance();
  }
  Settle();
}

// A side ended without a CLOSE.
void Relay::OnLost(Side side) noexcept {
  Leg& source = leg(side);
  Leg& other = leg(Other(side));
  net::Conn& there = core_.conn(Other(side));
  const bool was_read = !source.discard;
  StopForwarding(side);
  source.lost = true;
  const bool torn = was_read && !other.close_out && !AtFrameBoundary(side);
  if (torn) {
    block_.torn[side == Side::kClient ? TornReason::kClientLost : TornReason::kBackendLost].Add();
  }
  if (side == Side::kClient) {
    Initiate(ClosedBy::kClient, 0);
    if (ending().why.empty()) {
      ending().why = "client_lost";
    }
    if (!source.hung || !other.close_out) {
      // The backend learns it as it would without us: by the end of the stream.
      there.FinishWrite();
    }
  } else {
    const std::uint16_t code = core_.route(facts_).close_code;
    if (by_ == ClosedBy::kCount) {
      using metrics::BackendFailure;
      const BackendFailure how = source.hung ? BackendFailure::kHung : BackendFailure::kLost;
      core_.backend_block(facts_).failures[how].Add();
      core_.NoteLoss(facts_, how);
      ending().why = torn ? "backend_lost_in_frame" : source.hung ? "ping_timeout" : "backend_lost";
      Initiate(ClosedBy::kBackend, torn ? 0 : code);
    }
    there.ResumeRead(Pause::kRate);
    if (stage_ == Stage::kOpen && !other.close_out) {
      if (torn) {
        // A frame that cannot be finished leaves no place for a CLOSE: TCP has to be cut.
        there.FinishWrite();
      } else {
        WriteClose(Side::kClient, other.close_in ? AnswerTo(other.code) : code,
                   other.close_in ? "" : kBackendLostReason);
      }
    }
  }
  if (stage_ == Stage::kOpen) {
    ending().seen_at_timer = leg(Side::kClient).bytes + leg(Side::kBackend).bytes;
    ArmTimer(core_.config().server.close_timeout);
  }
}

void Relay::OnViolation(Side from) noexcept {
  const ws::FrameFault& fault = leg(from).tracker.fault();
  core_.services.block.protocol_errors[Index(from)].Add(fault.reason);
  StopForwarding(from);
  leg(from).bad = true;
  if (by_ == ClosedBy::kCount) {
    OurClose close;
    close.client_code = fault.close_code;
    close.backend_code = fault.close_code;
    close.reason = fault.reason;
    close.why = fault.reason;
    close.finish_message = false;
    BeginClose(close);
    return;
  }
  // A closing is under way already and waited for this side only: it has said its last.
  leg(from).close_in = true;
  if (stage_ != Stage::kOpen) {
    Advance();
  }
  Settle();
}

bool Relay::IsClosing() const noexcept {
  return leg(Side::kClient).close_in || leg(Side::kBackend).close_in ||
         leg(Side::kClient).close_out || leg(Side::kBackend).close_out;
}

// Closing begun by us.

void Relay::Initiate(ClosedBy by, std::uint16_t code) noexcept {
  if (by_ == ClosedBy::kCount) {
    by_ = by;
    code_ = code;
  }
}

void Relay::BeginClose(const OurClose& close) noexcept {
  if (done_ || stage_ != Stage::kOpen || IsClosing()) {
    return;  // it ends in order already, with a deadline of its own
  }
  ending().ours = close;
  ending().why = close.why;
  if (close.cause != metrics::OwnClose::kCount) {
    block_.own_closes[close.cause].Add();
  }
  Initiate(ClosedBy::kSluice, close.client_code);
  EnterStage(Stage::kFinishMessage, core_.config().drain.message_grace);
  Advance();
}

bool Relay::WriteClose(Side to, std::uint16_t code, std::string_view reason) noexcept {
  Leg& destination = leg(to);
  net::Conn& conn = core_.conn(to);
  destination.close_out = true;
  if (destination.code == 0) {
    destination.code = code;
  }
  if (!conn.open() || conn.write_finishing()) {
    return false;
  }
  const auto mask = to == Side::kBackend ? std::optional(RandomMask()) : std::nullopt;
  return conn.Write(ws::MakeClose(code, reason, mask).bytes());
}

void Relay::EnterStage(Stage stage, Millis deadline) noexcept {
  stage_ = stage;
  patience_ = 0;
  ArmTimer(deadline);
}

void Relay::Advance() noexcept {
  const Millis close_timeout = core_.config().server.close_timeout;
  const Millis message_grace = core_.config().drain.message_grace;
  Leg& client = leg(Side::kClient);
  Leg& backend = leg(Side::kBackend);
  net::Conn& client_conn = core_.client;
  net::Conn& backend_conn = *core_.backend;

  if (stage_ == Stage::kFinishMessage) {
    const bool client_over = client.close_in || client.lost || client.bad;
    const bool boundary = patience_ > 0 || !ending().ours.finish_message
                              ? AtFrameBoundary(Side::kClient)
                              : AtMessageBoundary(Side::kClient);
    if (!boundary && !client_over && patience_ < 2) {
      return;
    }
    client_conn.PauseRead(Pause::kDraining);
    if (!backend.lost && !backend.close_out) {
      if (AtFrameBoundary(Side::kClient)) {
        WriteClose(Side::kBackend, ending().ours.backend_code, ending().ours.reason);
      } else {
        // The client's frame did not end: there is no place for a CLOSE on the backend's side.
        if (!client.lost) {  // else it was counted when it was lost
          block_.torn[TornReason::kDeadline].Add();
        }
        backend.close_out = true;
        backend_conn.FinishWrite();
      }
    }
    StopForwarding(Side::kClient);
    EnterStage(Stage::kAwaitBackend, close_timeout);
  }
  if (stage_ == Stage::kAwaitBackend) {
    // A backend that broke the rules has no answer that could be told from garbage.
    if (ending().ours.await_backend && !backend.close_in && !backend.lost && !backend.bad &&
        patience_ == 0) {
      return;
    }
    EnterStage(Stage::kAwaitBoundary, message_grace);
  }
  if (stage_ == Stage::kAwaitBoundary) {
    const bool backend_over = backend.close_in || backend.lost || backend.bad;
    const bool boundary = patience_ > 0 || backend_over ? AtFrameBoundary(Side::kBackend)
                                                        : AtMessageBoundary(Side::kBackend);
    if (!boundary && !backend_over && patience_ < 2) {
      return;
    }
    StopForwarding(Side::kBackend);
    if (!client.lost && !client.close_out) {
      if (boundary) {
        WriteClose(Side::kClient, ending().ours.client_code, ending().ours.reason);
      } else {
        if (!backend.lost) {  // else it was counted when it was lost
          block_.torn[TornReason::kDeadline].Add();
        }
        client.close_out = true;
        client_conn.FinishWrite();
      }
    }
    // From here on both sides are read to their end.
    client_conn.ResumeRead(Pause::kDraining);
    client_conn.ResumeRead(Pause::kRate);
    client_conn.ResumeRead(Pause::kPeerFull);
    backend_conn.ResumeRead(Pause::kPeerFull);
    EnterStage(Stage::kAwaitClient, close_timeout);
  }
  Settle();
}

void Relay::AnswerMissing() noexcept {
  for (const Side side : {Side::kClient, Side::kBackend}) {
    Leg& one = leg(side);
    net::Conn& conn = core_.conn(side);
    if (!one.close_out && conn.open() && !conn.write_finishing()) {
      if (!AtFrameBoundary(Other(side))) {
        block_.torn[TornReason::kDeadline].Add();
        one.close_out = true;  // there is no place for one any more
      } else if (one.close_in) {
        WriteClose(side, AnswerTo(one.code), "");
      }
    }
    conn.FinishWrite();
  }
}

void Relay::ArmTimer(Millis delay) noexcept {
  timer_.Arm<&Relay::OnTimer>(core_.services.loop.base(), delay, this);
}

void Relay::OnTimer(short) noexcept {
  switch (stage_) {
    case Stage::kFinishMessage:
    case Stage::kAwaitBackend:
    case Stage::kAwaitBoundary:
      ++patience_;
      ArmTimer(core_.config().drain.message_grace);
      Advance();
      return;
    case Stage::kOpen:
    case Stage::kAwaitClient:
      break;
  }
  // One side is gone or has closed, and the rest did not come in time. As long as data still moves
  // towards a side that only finished its own direction, wait on.
  const std::uint64_t seen = leg(Side::kClient).bytes + leg(Side::kBackend).bytes;
  if (!IsClosing() && seen != ending().seen_at_timer) {
    ending().seen_at_timer = seen;
    ArmTimer(core_.config().server.close_timeout);
    return;
  }
  // A slow side that still takes what was written before its CLOSE is waited for, within reason.
  const std::size_t untaken = Untaken(core_.client) + Untaken(*core_.backend);
  const bool takes = untaken < std::exchange(ending().untaken_at_timer, untaken);
  if (takes && ++ending().extensions < kMostExtensions) {
    ArmTimer(core_.config().server.close_timeout);
    return;
  }
  if (++patience_ == 1) {
    AnswerMissing();
    ArmTimer(core_.config().server.close_timeout);
    Settle();
    return;
  }
  forced_ = true;
  Finish();
}

// The end.

void Relay::Settle() noexcept {
  if (done_) {
    return;
  }
  bool both_over = true;
  for (const Side side : {Side::kClient, Side::kBackend}) {
    const Leg& one = leg(side);
    net::Conn& conn = core_.conn(side);
    if (!conn.open()) {
      continue;
    }
    // Nothing follows a CLOSE, and nothing comes from a side that has closed or is lost. A side
    // that still owes an answer is not sent a FIN before it; one that broke the rules owes nothing
    // that could be read any more (RFC 6455 section 7.1.7).
    const Leg& other = leg(Other(side));
    if ((one.close_out || other.lost || other.close_in) && (one.close_in || one.lost || one.bad)) {
      conn.FinishWrite();
    }
    const bool written = conn.write_finished() || conn.write_failed();
    if (!conn.read_ended() || !written) {
      both_over = false;
    }
  }
  if (both_over) {
    Finish();
  }
}

void Relay::Cut(std::string_view why) noexcept {
  if (done_) {
    return;
  }
  if (ending().why.empty()) {
    ending().why = why;
  }
  const std::uint16_t code = core_.route(facts_).close_code;
  Initiate(ClosedBy::kSluice, code);
  if (!leg(Side::kBackend).close_out && AtFrameBoundary(Side::kClient)) {
    WriteClose(Side::kBackend, ending().ours.backend_code, core_.config().drain.reason);
  }
  if (!leg(Side::kClient).close_out && AtFrameBoundary(Side::kBackend)) {
    WriteClose(Side::kClient, code, core_.config().drain.reason);
  }
  forced_ = true;
  Finish();
}

void Relay::Finish() noexcept {
  if (done_) {
    return;
  }
  done_ = true;
  timer_.Cancel();
  const Leg& client = leg(Side::kClient);
  const Leg& backend = leg(Side::kBackend);
  Initiate(ClosedBy::kSluice, 0);

  const Instant now = core_.services.loop.now();
  block_.closes[metrics::CloseSlot(code_)][by_].Add();
  block_.session_seconds.Observe(std::chrono::duration<double>(now - began_).count());
  core_.view->routes[facts_.route].sessions_open[facts_.backend]->Add(-1);
  if (backend.close_in) {
    core_.NoteOrderlyEnd(facts_);
  }

  if (core_.services.access_log.enabled()) {
    log::AccessRecord record = BaseRecord(core_, facts_, now);
    record.event = "ws_close";
    record.bytes_in = client.bytes;
    record.bytes_out = backend.bytes;
    record.msgs_in = client.messages;
    record.msgs_out = backend.messages;
    record.close_code_client = client.code;
    record.close_code_backend = backend.code;
    record.closed_by = metrics::Name(by_);
    record.close_reason = ending().ours.reason;
    record.reason = ending().why;
    core_.services.access_log.Write(record);
  }

  core_.DropBackend();
  sink_.OnRelayDone();
}

}  // namespace sluice::session
