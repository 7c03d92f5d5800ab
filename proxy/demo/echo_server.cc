#include "proxy/demo/echo_server.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

#include "proxy/base/bytes.h"
#include "proxy/base/clock.h"
#include "proxy/demo/page.h"
#include "proxy/http/chunked.h"
#include "proxy/http/parser.h"
#include "proxy/http/reply.h"
#include "proxy/net/conn.h"
#include "proxy/ws/frame_tracker.h"
#include "proxy/ws/frame_writer.h"
#include "proxy/ws/upgrade.h"

namespace sluice::demo {
namespace {

constexpr std::size_t kScratchBytes = std::size_t{64} * 1024;

// A client is not read while more than the first waits for it, until the second is reached.
constexpr std::size_t kHighWatermark = std::size_t{256} * 1024;
constexpr std::size_t kLowWatermark = std::size_t{64} * 1024;

// A message buffer that has grown beyond this is given back when the message is done.
constexpr std::size_t kKeptCapacity = std::size_t{64} * 1024;

constexpr Millis kTick{1000};
constexpr Millis kCloseTimeout{5000};
constexpr Millis kHttpTimeout{60'000};  // without a byte from an HTTP client

// Browsers give a page a clock of 5 us instead of 100 us when no other site can share its process;
// a round trip over loopback takes about 100 us.
constexpr std::string_view kIsolation =
    "Cross-Origin-Opener-Policy: same-origin\r\n"
    "Cross-Origin-Embedder-Policy: require-corp\r\n";

// RFC 6455 section 5.2: the longest header of an unmasked frame.
constexpr std::size_t kMaxOwnHeader = 10;

// RFC 3629 section 4: no overlong forms, no surrogates, nothing above U+10FFFF.
bool IsUtf8(std::string_view text) noexcept {
  std::size_t at = 0;
  while (at < text.size()) {
    const unsigned first = static_cast<unsigned char>(text[at++]);
    if (first < 0x80U) {
      continue;
    }
    std::size_t more = 0;
    unsigned low = 0x80U;  // what the second byte may be
    unsigned high = 0xBFU;
    if (first >= 0xC2U && first <= 0xDFU) {
      more = 1;
    } else if (first >= 0xE0U && first <= 0xEFU) {
      more = 2;
      low = first == 0xE0U ? 0xA0U : low;
      high = first == 0xEDU ? 0x9FU : high;
    } else if (first >= 0xF0U && first <= 0xF4U) {
      more = 3;
      low = first == 0xF0U ? 0x90U : low;
      high = first == 0xF4U ? 0x8FU : high;
    } else {
      return false;
    }
    for (; more > 0; --more) {
      const unsigned next = at < text.size() ? static_cast<unsigned char>(text[at++]) : 0U;
      if (next < low || next > high) {
        return false;
      }
      low = 0x80U;
      high = 0xBFU;
    }
  }
  return true;
}

struct OwnHeader {
  std::array<char, kMaxOwnHeader> bytes{};
  std::size_t size = 0;
};

// The header of an unmasked frame that is a whole message (RFC 6455 section 5.2).
OwnHeader MakeHeader(ws::Opcode opcode, std::uint64_t payload) noexcept {
  OwnHeader header;
  const auto put = [&header](std::uint64_t byte) {
    header.bytes[header.size++] = static_cast<char>(byte & 0xFFU);
  };
  put(0x80U | static_cast<unsigned>(opcode));
  unsigned more = 0;
  if (payload < 126) {
    put(payload);
  } else if (payload <= 0xFFFFU) {
    put(126);
    more = 2;
  } else {
    put(127);
    more = 8;
  }
  for (; more > 0; --more) {
    put(payload >> (8U * (more - 1)));
  }
  return header;
}

std::string MakeFrame(ws::Opcode opcode, std::string_view payload) {
  const OwnHeader header = MakeHeader(opcode, payload.size());
  return std::string(header.bytes.data(), header.size).append(payload);
}

// Takes the payload out of masked frames. It checks nothing: it is given only what a FrameTracker
// has accepted.
class Unmasker {
 public:
  // Appends the payload in `bytes`, which belong to one frame and go on where the last call ended:
  // that of a control frame to `control`, else to `data`.
  void Take(Bytes bytes, std::string& data, std::string& control) {
    while (!bytes.empty() && !HasHeader()) {
      header_[size_++] = std::to_integer<std::uint8_t>(bytes.front());
      bytes = bytes.subspan(1);
    }
    if (bytes.empty()) {
      return;
    }
    std::string& to = (header_[0] & 0x8U) != 0 ? control : data;
    const std::size_t begin = to.size();
    to.append(AsText(bytes));
    const std::uint8_t* mask = header_.data() + size_ - 4;
    for (std::size_t i = begin; i < to.size(); ++i) {
      to[i] = static_cast<char>(static_cast<unsigned char>(to[i]) ^ mask[at_++ % 4]);
    }
  }

  void EndFrame() noexcept {
    size_ = 0;
    at_ = 0;
  }

 private:
  [[nodiscard]] bool HasHeader() const noexcept {
    if (size_ < 2) {
      return false;
    }
    const unsigned length = header_[1] & 0x7FU;
    return size_ == 6U + (length == 126 ? 2U : length == 127 ? 8U : 0U);
  }

  std::array<std::uint8_t, 14> header_{};  // its last four bytes are the masking key
  std::size_t size_ = 0;
  std::size_t at_ = 0;  // payload bytes of this frame so far
};

}  // namespace

bool IsEchoName(std::string_view name) noexcept {
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' ||
           c == '.' || c == '_';
  });
}

// One client connection.
//
//   kHead --request--> kBody --answered--> kHead      while it is kept alive
//   kHead --upgrade--> kFrames
//   any   ----------->  kEnding                       the last byte was given to conn_; FIN follows
//
// What comes in kEnding is read and thrown away: closing a socket with unread bytes would reset
// the connection, and the client might lose what was sent last.
class EchoServer::Session final : public net::Mortal, private net::ConnSink {
 public:
  Session(EchoServer& server, UniqueFd fd, std::size_t index)
      : index_(index), server_(server), conn_(server.loop_, *this) {
    ExtendHttp();
    conn_.Open(std::move(fd), nullptr);
  }

  void CutIfLate(Instant now) noexcept {
    if (now >= deadline_) {
      Retire();
    }
  }

  // Ends the session as soon as what is under way is done.
  void Drain() noexcept {
    if (state_ == State::kFrames) {
      SendClose(1001, "going away");
    } else if (state_ == State::kHead && in_.empty()) {
      End();
    } else {
      Extend(kCloseTimeout);
    }
  }

  void Close() noexcept { conn_.Close(); }

  std::size_t index_;  // in EchoServer::sessions_, which keeps it right

 private:
  enum class State : std::uint8_t { kHead, kBody, kFrames, kEnding };
  enum class Target : std::uint8_t { kPage, kWhoAmI, kHealth, kEcho, kNothing };

  void OnReadable(net::Conn& conn) noexcept override;
  void OnWritable(net::Conn& conn) noexcept override;
  void OnConnected(net::Conn&, int) noexcept override {}

  void Process();
  [[nodiscard]] bool TakeHead();
  [[nodiscard]] bool TakeBody();
  void BeginBody(const http::RequestHead& head);
  void Upgrade(const ws::UpgradeOffer& offer);
  void Answer();
  void Respond(std::string_view content_type, std::string_view body,
               std::string_view extra_fields = {});
  void Refuse(int status, std::string_view text, std::string_view extra_fields = {});

  void TakeFrames(Bytes bytes);
  void EchoMessage();
  void AnswerClose();
  void SendClose(std::uint16_t code, std::string_view reason);

  void Write(std::string_view bytes) noexcept;
  void End() noexcept;
  void Retire() noexcept { server_.Retire(*this); }
  void Extend(Millis by) noexcept { deadline_ = server_.loop_.now() + by; }
  void ExtendHttp() noexcept { Extend(server_.draining_ ? kCloseTimeout : kHttpTimeout); }
  [[nodiscard]] std::string_view Unread() const noexcept {
    return std::string_view(in_).substr(in_at_);
  }

  EchoServer& server_;
  net::Conn conn_;
  State state_ = State::kHead;
  Instant deadline_{};

  // HTTP. `in_` holds at most one read more than a head may take.
  std::string in_;
  std::size_t in_at_ = 0;  // what lies before was used
  http::RequestParser parser_;
  http::ChunkedDecoder chunked_;
  std::uint64_t body_left_ = 0;  // of a body with a Content-Length
  std::size_t body_bytes_ = 0;   // taken so far
  std::string body_;             // kept for kEcho only
  Target target_ = Target::kNothing;
  bool is_chunked_ = false;
  bool head_only_ = false;
  bool keep_alive_ = false;
  bool http_1_0_ = false;

  // WebSocket.
  ws::FrameTracker tracker_{
      ws::FrameRules{.from = Side::kClient, .max_message_bytes = kMaxMessageBytes}};
  Unmasker unmasker_;
  std::string message_;  // empty, or room for a header and behind it the payload
  std::string control_;  // payload of the control frame that is being read
};

void EchoServer::Session::OnReadable(net::Conn&) noexcept {
  const std::span<std::byte> scratch(server_.scratch_.get(), kScratchBytes);
  const net::IoResult result = conn_.Read(scratch);
  if (result.status == net::IoStatus::kWouldBlock) {
    return;
  }
  if (result.status == net::IoStatus::kError) {
    Retire();
    return;
  }
  if (result.status == net::IoStatus::kEof) {
    // Nothing more can be asked, and an answer that still waits is owed. A client that left in
    // the middle of something is owed nothing but that.
    End();
    return;
  }
  const Bytes bytes = scratch.first(result.bytes);
  switch (state_) {
    case State::kHead:
    case State::kBody:
      ExtendHttp();
      in_.append(AsText(bytes));
      Process();
      break;
    case State::kFrames:
      TakeFrames(bytes);
      break;
    case State::kEnding:
      break;
  }
}

void EchoServer::Session::OnWritable(net::Conn&) noexcept {
  if (conn_.write_failed() || (conn_.write_finished() && conn_.read_ended())) {
    Retire();
    return;
  }
  if (state_ == State::kEnding) {
    Extend(kCloseTimeout);
  } else if (state_ != State::kFrames) {
    ExtendHttp();
  }
  if (conn_.IsPaused(net::Pause::kPeerFull) && conn_.pending() <= kLowWatermark) {
    conn_.ResumeRead(net::Pause::kPeerFull);
    Process();
  }
}

// Uses up in_ as far as it goes, or until the client has to take something first.
void EchoServer::Session::Process() {
  bool go_on = true;
  while (go_on && !conn_.IsPaused(net::Pause::kPeerFull)) {
    switch (state_) {
      case State::kHead:
        go_on = !Unread().empty() && TakeHead();
        break;
      case State::kBody:
        go_on = TakeBody();
        break;
      case State::kFrames: {
        // What came behind the upgrade request. The buffer is given back: frames need none.
        const std::string early = std::exchange(in_, {});
        TakeFrames(AsBytes(early).subspan(std::exchange(in_at_, 0)));
        return;
      }
      case State::kEnding:
        in_at_ = in_.size();
        go_on = false;
        break;
    }
  }
  in_.erase(0, in_at_);
  in_at_ = 0;
}

// False: more bytes are needed.
bool EchoServer::Session::TakeHead() {
  const ParseStatus status = parser_.Parse(Unread());
  if (status == ParseStatus::kNeedMore) {
    return false;
  }
  if (status == ParseStatus::kBad) {
    head_only_ = false;
    Refuse(parser_.fault().status, parser_.fault().reason);
    return true;
  }
  const http::RequestHead& head = parser_.head();
  head_only_ = head.method == "HEAD";
  const ws::UpgradeVerdict verdict = ws::CheckUpgradeRequest(head);
  switch (verdict.kind) {
    case ws::UpgradeVerdict::Kind::kRefuse: {
      // RFC 9110 section 7.8: who sends Upgrade names it in Connection.
      std::string extra(verdict.extra_fields);
      if (verdict.status == 426) {
        http::AppendField(extra, "Connection", "upgrade");
      }
      Refuse(verdict.status, verdict.text, extra);
      break;
    }
    case ws::UpgradeVerdict::Kind::kUpgrade:
      if (server_.draining_) {
        Refuse(503, "this backend is shutting down");
      } else {
        Upgrade(verdict.offer);
      }
      break;
    case ws::UpgradeVerdict::Kind::kPlainHttp:
      BeginBody(head);
      break;
  }
  in_at_ += parser_.head_size();
  parser_.Reset();
  return true;
}

void EchoServer::Session::BeginBody(const http::RequestHead& head) {
  const bool reads = head.method == "GET" || head_only_;
  if (reads && head.path == "/") {
    target_ = Target::kPage;
  } else if (reads && head.path == "/whoami") {
    target_ = Target::kWhoAmI;
  } else if (reads && head.path == "/healthz") {
    target_ = Target::kHealth;
  } else if (head.method == "POST" && head.path == "/echo") {
    target_ = Target::kEcho;
  } else {
    target_ = Target::kNothing;
  }
  keep_alive_ = head.keep_alive;
  http_1_0_ = head.minor_version == 0;
  is_chunked_ = head.framing == http::Framing::kChunked;
  chunked_ = {};
  body_left_ = head.framing == http::Framing::kLength ? head.content_length : 0;
  body_bytes_ = 0;
  if (body_left_ > kMaxBodyBytes) {
    Refuse(413, "the body is larger than 1 MiB");
    return;
  }
  // RFC 9110 section 10.1.1: not to a client of HTTP/1.0.
  if (head.expect_continue && !http_1_0_ && (is_chunked_ || body_left_ > 0)) {
    Write("HTTP/1.1 100 Continue\r\n\r\n");
  }
  state_ = State::kBody;
}

// False: more bytes are needed.
bool EchoServer::Session::TakeBody() {
  bool done = false;
  while (!done) {
    std::string_view data;
    if (is_chunked_) {
      const http::ChunkedDecoder::Step step = chunked_.Next(AsBytes(Unread()));
      if (step.status == ParseStatus::kBad) {
        Refuse(400, "the chunked coding of the body is broken");
        return true;
      }
      data = AsText(step.data);
      in_at_ += step.consumed;
      done = step.status == ParseStatus::kDone;
    } else {
      data = Unread().substr(0, static_cast<std::size_t>(body_left_));
      in_at_ += data.size();
      body_left_ -= data.size();
      done = body_left_ == 0;
    }
    body_bytes_ += data.size();
    if (body_bytes_ > kMaxBodyBytes) {
      Refuse(413, "the body is larger than 1 MiB");
      return true;
    }
    if (target_ == Target::kEcho) {
      body_.append(data);
    }
    if (!done && Unread().empty()) {
      return false;
    }
  }
  Answer();
  return true;
}

void EchoServer::Session::Answer() {
  keep_alive_ = keep_alive_ && !server_.draining_;
  state_ = State::kHead;
  switch (target_) {
    case Target::kPage:
      Respond("text/html; charset=utf-8", Page(), kIsolation);
      break;
    case Target::kWhoAmI:
      Respond("application/json", "{\"backend\":\"" + server_.name_ + "\"}\n");
      break;
    case Target::kHealth:
      Respond("text/plain; charset=utf-8", "ok\n");
      break;
    case Target::kEcho:
      Respond("application/octet-stream", std::exchange(body_, {}));
      break;
    case Target::kNothing:
      Write(http::Serialize({.status = 404,
                             .text = "there is nothing here",
                             .extra_fields = keep_alive_ && http_1_0_ ? "Connection: keep-alive\r\n"
                                                                      : std::string_view(),
                             .close = !keep_alive_,
                             .head_only = head_only_}));
      break;
  }
  if (!keep_alive_) {
    End();
  }
}

void EchoServer::Session::Respond(std::string_view content_type, std::string_view body,
                                  std::string_view extra_fields) {
  std::string out = "HTTP/1.1 200 OK\r\n";
  http::AppendField(out, "Content-Type", content_type);
  http::AppendField(out, "Content-Length", std::to_string(body.size()));
  http::AppendField(out, "Cache-Control", "no-store");
  http::AppendField(out, "X-Backend", server_.name_);
  out.append(extra_fields);
  if (!keep_alive_) {
    http::AppendField(out, "Connection", "close");
  } else if (http_1_0_) {
    http::AppendField(out, "Connection", "keep-alive");
  }
  out.append("\r\n");
  if (!head_only_) {
    out.append(body);
  }
  Write(out);
}

void EchoServer::Session::Refuse(int status, std::string_view text, std::string_view extra_fields) {
  Write(http::Serialize(
      {.status = status, .text = text, .extra_fields = extra_fields, .head_only = head_only_}));
  End();
}

void EchoServer::Session::Upgrade(const ws::UpgradeOffer& offer) {
  const bool is_demo = std::find(offer.protocols.begin(), offer.protocols.end(), kDemoProtocol) !=
                       offer.protocols.end();
  std::string out = "HTTP/1.1 101 Switching Protocols\r\n";
  http::AppendField(out, "Upgrade", "websocket");
  http::AppendField(out, "Connection", "Upgrade");
  http::AppendField(out, "Sec-WebSocket-Accept", offer.accept);
  if (is_demo) {
    http::AppendField(out, "Sec-WebSocket-Protocol", kDemoProtocol);
  }
  http::AppendField(out, "X-Backend", server_.name_);
  out.append("\r\n");
  if (is_demo) {
    out.append(MakeFrame(ws::Opcode::kText, "{\"backend\":\"" + server_.name_ + "\"}"));
  }
  state_ = State::kFrames;
  deadline_ = Instant::max();
  Write(out);
}

void EchoServer::Session::TakeFrames(Bytes bytes) {
  // Each input byte makes at most one output byte, but for messages that were held back, so a
  // read is worked off whole before the watermark is looked at again.
  while (state_ == State::kFrames) {
    const ws::FrameTracker::Step step = tracker_.Next(bytes);
    if (step.event == ws::FrameTracker::Event::kBad) {
      SendClose(tracker_.fault().close_code, tracker_.fault().reason);
      return;
    }
    if (message_.empty()) {
      message_.resize(kMaxOwnHeader);
    }
    unmasker_.Take(bytes.first(step.consumed), message_, control_);
    bytes = bytes.subspan(step.consumed);
    if (step.event == ws::FrameTracker::Event::kNeedMore) {
      break;
    }
    unmasker_.EndFrame();
    if (step.event == ws::FrameTracker::Event::kFrameEnd) {
      continue;
    }
    switch (tracker_.opcode()) {
      case ws::Opcode::kClose:
        AnswerClose();
        break;
      case ws::Opcode::kPing:
        Write(MakeFrame(ws::Opcode::kPong, control_));
        control_.clear();
        break;
      case ws::Opcode::kPong:
        control_.clear();
        break;
      case ws::Opcode::kText:
      case ws::Opcode::kBinary:
      case ws::Opcode::kContinuation:
        EchoMessage();
        break;
    }
  }
  if (message_.size() == kMaxOwnHeader && message_.capacity() > kKeptCapacity) {
    message_ = {};
  }
}

void EchoServer::Session::EchoMessage() {
  const std::string_view payload = std::string_view(message_).substr(kMaxOwnHeader);
  if (tracker_.opcode() == ws::Opcode::kText && !IsUtf8(payload)) {
    SendClose(1007, "a text message is not UTF-8");
    return;
  }
  // The header goes right in front of the payload: one write, and nothing is moved.
  const OwnHeader header = MakeHeader(tracker_.opcode(), payload.size());
  const std::size_t begin = kMaxOwnHeader - header.size;
  std::memcpy(message_.data() + begin, header.bytes.data(), header.size);
  Write(std::string_view(message_).substr(begin));
  message_.resize(kMaxOwnHeader);
}

void EchoServer::Session::AnswerClose() {
  const std::string payload = std::exchange(control_, {});
  if (payload.empty()) {
    // RFC 6455 section 7.1.5: a CLOSE without a code is answered in kind.
    Write(MakeFrame(ws::Opcode::kClose, {}));
    End();
  } else if (payload.size() == 1 || !ws::IsSendableCloseCode(tracker_.close_code())) {
    SendClose(1002, "not a close code");
  } else if (!IsUtf8(std::string_view(payload).substr(2))) {
    SendClose(1007, "a close reason is not UTF-8");
  } else {
    SendClose(tracker_.close_code(), {});
  }
}

void EchoServer::Session::SendClose(std::uint16_t code, std::string_view reason) {
  Write(AsText(ws::MakeClose(code, reason, std::nullopt).bytes()));
  End();
}

void EchoServer::Session::Write(std::string_view bytes) noexcept {
  if (!conn_.Write(AsBytes(bytes))) {
    return;  // the socket is broken: End() or the next event finds out
  }
  if (conn_.pending() > kHighWatermark) {
    conn_.PauseRead(net::Pause::kPeerFull);
  }
}

// Nothing more is written; what the client still sends is thrown away until its FIN.
void EchoServer::Session::End() noexcept {
  if (state_ != State::kEnding) {
    state_ = State::kEnding;
    message_ = {};
    body_ = {};
    Extend(kCloseTimeout);
    conn_.FinishWrite();
  }
  // A client that only sends must not wait for what it will not take.
  conn_.ResumeRead(net::Pause::kPeerFull);
  if (conn_.write_failed() || (conn_.read_ended() && conn_.write_finished())) {
    Retire();
  }
}

EchoServer::EchoServer(net::Loop& loop, std::string name, UniqueFd listening)
    : loop_(loop),
      name_(std::move(name)),
      scratch_(std::make_unique_for_overwrite<std::byte[]>(kScratchBytes)),
      listener_(loop, std::move(listening), 0, *this) {
  assert(IsEchoName(name_));
}

EchoServer::~EchoServer() = default;

void EchoServer::Drain(std::function<void()> on_empty) {
  on_empty_ = std::move(on_empty);
  draining_ = true;
  // A session that retires gives its place to the last one, so the list is walked backwards.
  for (std::size_t i = sessions_.size(); i > 0; --i) {
    sessions_[i - 1]->Drain();
  }
  // After them: a connection that waited in the queue has a request to come, and gets its answer.
  listener_.Close();
  if (sessions_.empty() && on_empty_) {
    std::exchange(on_empty_, nullptr)();
  }
}

void EchoServer::OnAccept(net::Listener&, UniqueFd fd, const net::Address&) noexcept {
  if (sessions_.empty()) {
    tick_.Arm<&EchoServer::OnTick>(loop_.base(), kTick, this);
  }
  sessions_.push_back(std::make_unique<Session>(*this, std::move(fd), sessions_.size()));
}

void EchoServer::OnAcceptPaused(net::Listener&, int) noexcept {}

void EchoServer::OnTick(short) noexcept {
  const Instant now = loop_.now();
  for (std::size_t i = sessions_.size(); i > 0; --i) {
    sessions_[i - 1]->CutIfLate(now);
  }
  if (!sessions_.empty()) {
    tick_.Arm<&EchoServer::OnTick>(loop_.base(), kTick, this);
  }
}

void EchoServer::Retire(Session& session) noexcept {
  const std::size_t index = session.index_;
  if (index >= sessions_.size() || sessions_[index].get() != &session) {
    return;  // retired already; its memory lives until the end of the turn
  }
  session.Close();
  std::swap(sessions_[index], sessions_.back());
  sessions_[index]->index_ = index;
  loop_.Bury(std::move(sessions_.back()));
  sessions_.pop_back();
  if (sessions_.empty()) {
    tick_.Cancel();
    if (draining_ && on_empty_) {
      std::exchange(on_empty_, nullptr)();
    }
  }
}

}  // namespace sluice::demo
