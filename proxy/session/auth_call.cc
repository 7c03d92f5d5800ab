#include "proxy/session/auth_call.h"

#include <algorithm>
#include <utility>

#include "proxy/net/socket.h"
#include "proxy/session/idle_conns.h"

namespace sluice::session {
namespace {

using http::Framing;
using metrics::AuthResult;
using net::IoStatus;

// Of the answer. A page that says why somebody may not come in is smaller.
constexpr std::size_t kMostContent = 64 * 1024;

// Connections that wait for the next question of one route.
constexpr std::size_t kMostIdle = 16;

// Node.js, the most impatient of the usual servers, ends a connection after 5 s of silence.
constexpr Millis kIdleTime{4'000};

constexpr std::size_t kRead = 16 * 1024;

}  // namespace

void AuthCall::Start(std::string request, Millis timeout) noexcept {
  request_ = std::move(request);
  timer_.Arm<&AuthCall::OnTimeout>(services_.loop.base(), timeout, this);
  if (!TakeIdle()) {
    Connect();
  }
}

// Asks over a connection that an earlier question has left, if there is one.
bool AuthCall::TakeIdle() noexcept {
  if (!core_.has_todays_view()) {
    return false;
  }
  conn_ = services_.idle_conns->Take(route_.state.get(), *this, services_.loop.now());
  if (!conn_) {
    return false;
  }
  reused_ = true;
  SendRequest();
  return true;
}

void AuthCall::Connect() noexcept {
  stage_ = Stage::kConnecting;
  reused_ = false;
  auto fd = services_.idle_conns->StartConnect(route_.auth);
  if (!fd) {
    Fail(AuthResult::kUnreachable, "it cannot be connected to");
    return;
  }
  net::ConnSink& conn_sink = *this;  // privately ours: make_unique could not convert it
  conn_ = std::make_unique<net::Conn>(services_.loop, conn_sink);
  if (net::IsConnected(fd->get())) {
    conn_->Open(std::move(*fd), nullptr);
    SendRequest();
  } else {
    conn_->OpenConnecting(std::move(*fd));
  }
}

void AuthCall::OnConnected(net::Conn&, int error) noexcept {
  if (error != 0) {
    Fail(AuthResult::kUnreachable, "it cannot be connected to");
  } else {
    SendRequest();
  }
}

void AuthCall::SendRequest() noexcept {
  stage_ = Stage::kHead;
  if (!conn_->Write(AsBytes(request_))) {
    OnEnd(true);
  }
}

void AuthCall::OnWritable(net::Conn& conn) noexcept {
  if (conn.write_failed()) {
    OnEnd(true);
  }
}

void AuthCall::OnReadable(net::Conn& conn) noexcept {
  const net::IoResult got = conn.Read(services_.scratch.first(kRead));
  switch (got.status) {
    case IoStatus::kOk: {
      answered_any_ = true;
      const Bytes bytes = services_.scratch.first(got.bytes);
      if (stage_ == Stage::kHead) {
        TakeHead(bytes);
      } else {
        TakeContent(bytes);
      }
      break;
    }
    case IoStatus::kEof:
      OnEnd(false);
      break;
    case IoStatus::kError:
      OnEnd(true);
      break;
    case IoStatus::kWouldBlock:
      break;
  }
}

void AuthCall::TakeHead(Bytes bytes) noexcept {
  answer_ += AsText(bytes);
  for (;;) {
    switch (parser_.Parse(answer_, false)) {
      case ParseStatus::kNeedMore:
        return;
      case ParseStatus::kBad:
        FailAnswer("its answer is not valid HTTP");
        return;
      case ParseStatus::kDone:
        break;
    }
    if (head().status >= 200) {
      OnHead();
      return;
    }
    if (head().status == 101 || ++interim_ > http::kMostInterimAnswers) {
      FailAnswer("it does not answer what it was asked");
      return;
    }
    answer_.erase(0, parser_.head_size());
    parser_.Reset();
  }
}

void AuthCall::OnHead() noexcept {
  if (head().framing == Framing::kLength && head().content_length > kMostContent) {
    FailAnswer("its answer is too large");
    return;
  }
  stage_ = Stage::kContent;
  TakeContent(AsBytes(answer_).subspan(parser_.head_size()));
}

void AuthCall::TakeContent(Bytes bytes) noexcept {
  bool ended = false;
  switch (head().framing) {
    case Framing::kNone:
      ended = true;
      break;
    case Framing::kLength: {
      const auto length = static_cast<std::size_t>(head().content_length);
      const std::size_t count = std::min(bytes.size(), length - content_.size());
      content_ += AsText(bytes.first(count));
      bytes = bytes.subspan(count);
      ended = content_.size() == length;
      break;
    }
    case Framing::kChunked:
      while (!bytes.empty() && !ended && content_.size() <= kMostContent) {
        const auto step = chunks_.Next(bytes);
        if (step.status == ParseStatus::kBad) {
          FailAnswer("its chunked content is malformed");
          return;
        }
        content_ += AsText(step.data);
        bytes = bytes.subspan(step.consumed);
        ended = step.status == ParseStatus::kDone;
      }
      break;
    case Framing::kUntilClose:
      content_ += AsText(bytes);
      break;
  }
  if (content_.size() > kMostContent) {
    FailAnswer("its answer is too large");
  } else if (ended) {
    OnWholeAnswer(head().keep_alive && bytes.empty());
  }
}

void AuthCall::OnEnd(bool broken) noexcept {
  if (reused_ && !answered_any_) {
    // It has given the connection up while it waited, and heard nothing of this.
    DropConn();
    Connect();
  } else if (stage_ == Stage::kContent && head().framing == Framing::kUntilClose && !broken) {
    OnWholeAnswer(false);
  } else {
    FailAnswer("it closed before its answer was whole");
  }
}

void AuthCall::OnTimeout(short) noexcept {
  Fail(AuthResult::kTimeout, stage_ == Stage::kConnecting ? "it cannot be connected to in time"
                                                          : "it did not answer in time");
}

void AuthCall::DropConn() noexcept {
  if (conn_) {
    conn_->Close();
    services_.loop.Bury(std::move(conn_));  // it may be on the stack
  }
}

void AuthCall::Cancel() noexcept {
  stage_ = Stage::kDone;
  timer_.Cancel();
  DropConn();
}

void AuthCall::OnWholeAnswer(bool reusable) noexcept {
  if (reusable && core_.has_todays_view()) {
    services_.idle_conns->Keep(route_.state.get(), std::move(conn_),
                               {services_.loop.now() + kIdleTime, kMostIdle});
  }
  Cancel();
  const int status = head().status;
  sink_.OnAuthCallDone(status < 300 ? AuthResult::kAllowed : AuthResult::kDenied);
}

void AuthCall::Fail(AuthResult result, std::string_view why) noexcept {
  Cancel();
  failure_ = why;
  sink_.OnAuthCallDone(result);
}

}  // namespace sluice::session
