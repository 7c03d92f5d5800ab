#include "proxy/health/dialogue.h"

#include <algorithm>
#include <utility>

#include "proxy/base/base64.h"

namespace sluice::health {
namespace {

// Of an answer to a check: what a session takes at most, and less.
constexpr http::HeadLimits kHeadLimits{16 * 1024, 100, 4 * 1024};

// What a backend may say of its own accord before it answers the ping or the CLOSE. A greeting is
// fine; one that never ends would keep the control thread busy.
constexpr std::size_t kMostTalk = 256 * 1024;

constexpr std::uint16_t kNormalClosure = 1000;  // RFC 6455 section 7.4.1

constexpr ws::FrameRules kFrameRules{Side::kBackend, false, kMostTalk, 0};

}  // namespace

Dialogue::Dialogue(const Check& check, const Nonces& nonces)
    : check_(check), nonces_(nonces), parser_(kHeadLimits), frames_(kFrameRules) {}

std::string Dialogue::Request() const {
  std::string out = "GET " + check_.path + " HTTP/1.1\r\nHost: " + check_.host +
                    "\r\nUser-Agent: sluice-health-check\r\n";
  if (check_.type == CheckType::kHttp) {
    return out + "Accept: */*\r\nConnection: close\r\n\r\n";
  }
  return out +
         "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
         "Sec-WebSocket-Key: " +
         Base64Encode(nonces_.key) + "\r\n\r\n";
}

void Dialogue::OnConnected() {
  if (check_.type == CheckType::kTcp) {
    Pass();
    return;
  }
  stage_ = Stage::kHead;
  offer_.accept = ws::AcceptKey(Base64Encode(nonces_.key));
  output_ = (check_.tls ? std::string() : check_.preamble) + Request();  // else it was sent before
}

void Dialogue::Take(Bytes bytes) {
  if (stage_ == Stage::kHead) {
    TakeHead(bytes);
  } else {
    TakeFrames(bytes);
  }
}

void Dialogue::TakeHead(Bytes bytes) {
  head_ += AsText(bytes);
  for (;;) {
    switch (parser_.Parse(head_, false)) {
      case ParseStatus::kNeedMore:
        return;
      case ParseStatus::kBad:
        Fail("the answer is not valid HTTP: " + std::string(parser_.fault().reason));
        return;
      case ParseStatus::kDone:
        break;
    }
    const int status = parser_.head().status;
    if (status >= 200 || status == 101) {
      OnHead(parser_.head());
      break;
    }
    if (++interim_ > http::kMostInterimAnswers) {
      Fail("too many interim answers");
      return;
    }
    head_.erase(0, parser_.head_size());
    parser_.Reset();
  }
  if (!result_) {
    const std::string rest = std::exchange(head_, {}).substr(parser_.head_size());
    if (!rest.empty()) {
      TakeFrames(AsBytes(rest));
    }
  }
}

void Dialogue::OnHead(const http::ResponseHead& head) {
  const auto status = static_cast<unsigned>(head.status);
  if (check_.type == CheckType::kHttp) {
    if (status >= check_.least_status && status <= check_.most_status) {
      Pass();
    } else {
      Fail("answered " + std::to_string(status));
    }
    return;
  }
  if (status != 101) {
    Fail("answered " + std::to_string(status) + " to an upgrade");
    return;
  }
  if (const ws::UpgradeAgreement agreement = CheckUpgradeResponse(head, offer_); !agreement.ok) {
    Fail(std::string(agreement.reason));
    return;
  }
  if (check_.ping) {
    stage_ = Stage::kPong;
    output_ += AsText(ws::MakePing(nonces_.ping, nonces_.masks[0]).bytes());
  } else {
    BeginClose();
  }
}

void Dialogue::BeginClose() {
  stage_ = Stage::kClose;
  output_ += AsText(ws::MakeClose(kNormalClosure, {}, nonces_.masks[1]).bytes());
}

void Dialogue::TakeFrames(Bytes bytes) {
  using Event = ws::FrameTracker::Event;
  taken_ += bytes.size();
  while (!result_) {
    const ws::FrameTracker::Step step = frames_.Next(bytes);
    // The tail is what an 8-byte payload was, wherever it was cut.
    const Bytes last = bytes.first(step.consumed);
    const std::size_t fresh = std::min(last.size(), tail_.size());
    std::shift_left(tail_.begin(), tail_.end(), static_cast<std::ptrdiff_t>(fresh));
    std::copy(last.end() - static_cast<std::ptrdiff_t>(fresh), last.end(),
              tail_.end() - static_cast<std::ptrdiff_t>(fresh));
    bytes = bytes.subspan(step.consumed);
    if (step.event == Event::kBad) {
      Fail("a frame breaks the protocol: " + std::string(frames_.fault().reason));
    } else if (step.event == Event::kMessageEnd) {
      OnFrame();
    } else if (step.event == Event::kNeedMore) {
      break;
    }
  }
  if (!result_ && taken_ > kMostTalk) {
    Fail("it goes on sending, without an answer");
  }
}

void Dialogue::OnFrame() {
  if (frames_.opcode() == ws::Opcode::kClose) {
    if (stage_ == Stage::kClose) {
      Pass();
    } else {
      Fail("closed with " + std::to_string(frames_.close_code()) + " before the pong");
    }
  } else if (stage_ == Stage::kPong && IsOurPong()) {
    BeginClose();
  }
  // Whatever else it says is not what was asked. A ping would be owed an answer by who stays.
}

bool Dialogue::IsOurPong() const noexcept {
  return frames_.opcode() == ws::Opcode::kPong && frames_.message_bytes() == tail_.size() &&
         tail_ == nonces_.ping;
}

void Dialogue::OnEnd(bool reset) {
  const std::string how = reset ? "reset" : "closed";
  switch (stage_) {
    case Stage::kConnect:
      Fail(how);
      break;
    case Stage::kHead:
      Fail(how + (head_.empty() ? " without an answer" : " inside its answer"));
      break;
    case Stage::kPong:
      Fail(how + " before the pong");
      break;
    case Stage::kClose:
      Fail(how + " without a CLOSE");
      break;
  }
}

void Dialogue::OnTimeout() {
  switch (stage_) {
    case Stage::kConnect:
      Fail("not connected in time");
      break;
    case Stage::kHead:
      Fail("no answer in time");
      break;
    case Stage::kPong:
      Fail("no pong in time");
      break;
    case Stage::kClose:
      Fail("no answer to CLOSE in time");
      break;
  }
}

}  // namespace sluice::health
