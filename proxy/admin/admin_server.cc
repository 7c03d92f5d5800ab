#include "proxy/admin/admin_server.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstdint>
#include <string>
#include <utility>

#include "proxy/http/chunked.h"
#include "proxy/http/date.h"
#include "proxy/http/parser.h"
#include "proxy/http/reply.h"
#include "proxy/log/log.h"
#include "proxy/net/conn.h"

namespace sluice::admin {
namespace {

// Prometheus, a probe or two and some people; more than this is a mistake or an attack.
constexpr std::size_t kMostClients = 64;
constexpr Millis kIdle{30'000};  // from one answer to the next one
constexpr Millis kHandshake{5'000};
constexpr Millis kLinger{5'000};  // from a last answer to the client's end of the connection
constexpr std::size_t kRead = 4096;

Problem ProblemOf(int status, std::string_view detail) {
  Problem problem;
  problem.status = status;
  problem.detail = detail;
  return problem;
}

}  // namespace

// One connection:
//
//   kTls -> kHead -> kContent -> kAnswer -> kHead ...
//                                        -> kFinish -> kClosed
//
// Requests are answered in order: while one is with the handler, no other is parsed. kTls only with
// TLS, kContent only with content; anything may lead to kClosed.
class AdminServer::Client final : public net::Mortal, private net::ConnSink {
 public:
  Client(AdminServer& server, UniqueFd fd, const net::Address& peer)
      : server_(server), tls_(server.tls_), conn_(server.loop_, *this), peer_(peer.Text()) {
    std::unique_ptr<net::Transport> transport;
    if (tls_) {
      transport = tls::TlsTransport::Accept(*tls_, fd.get(), *server_.buffers_);
      phase_ = transport ? Phase::kTls : Phase::kClosed;
    }
    if (phase_ == Phase::kClosed) {
      return;  // out of memory; the descriptor closes with `fd`
    }
    Arm(tls_ ? kHandshake : kIdle);
    conn_.Open(std::move(fd), std::move(transport));
  }

  ~Client() override { Detach(); }

  [[nodiscard]] bool closed() const noexcept { return phase_ == Phase::kClosed; }

  // Lets the request that has begun be the last one.
  void FinishSoon() noexcept {
    if (phase_ == Phase::kTls) {
      Close();
    } else if (phase_ == Phase::kHead && bytes_.empty() && answered_) {
      Finish();
    } else if (phase_ == Phase::kHead) {
      Arm(kLinger);  // its first request is on its way, or it has come to say nothing
    }
  }

 private:
  enum class Phase : std::uint8_t { kTls, kHead, kContent, kAnswer, kFinish, kClosed };

  // What an answer that comes later finds its client by.
  struct Link {
    Client* client;
  };

  void OnConnected(net::Conn&, int) noexcept override {}

  void OnWritable(net::Conn& conn) noexcept override {
    if (conn.write_failed()) {
      Close();
    } else if (conn.pending() == 0) {
      conn.ResumeRead(net::Pause::kPeerFull);
      Serve();
    }
  }

  void OnReadable(net::Conn& conn) noexcept override {
    if (phase_ == Phase::kTls && !StepHandshake()) {
      return;
    }
    std::array<std::byte, kRead> scratch;
    const net::IoResult got = conn.Read(scratch);
    switch (got.status) {
      case net::IoStatus::kOk:
        break;
      case net::IoStatus::kWouldBlock:
        return;
      case net::IoStatus::kEof:
      case net::IoStatus::kError:
        Close();
        return;
    }
    if (phase_ == Phase::kFinish) {
      return;  // the rest is read so that closing does not reset the answer
    }
    bytes_ += AsText(Bytes(scratch).first(got.bytes));
    Serve();
  }

  // True once the handshake is done and there may be something to read behind it.
  bool StepHandshake() noexcept {
    switch (conn_.Handshake()) {
      case net::IoStatus::kWouldBlock:
        return false;
      case net::IoStatus::kEof:
      case net::IoStatus::kError:
        Close();
        return false;
      case net::IoStatus::kOk:
        break;
    }
    phase_ = Phase::kHead;
    Arm(kIdle);
    return conn_.transport()->HasBuffered();
  }

  // Goes as far as what was read allows, and never ahead of the client that reads the answers.
  void Serve() noexcept {
    if (serving_) {
      return;  // an answer was given at once: the loop below goes on
    }
    serving_ = true;
    bool went_on = true;
    while (went_on && !conn_.IsPaused(net::Pause::kPeerFull)) {
      went_on = phase_ == Phase::kHead      ? TakeHead()
                : phase_ == Phase::kContent ? TakeContent()
                                            : false;
    }
    serving_ = false;
  }

  // Both return whether something may follow at once.
  bool TakeHead() noexcept {
    if (bytes_.empty()) {
      return false;
    }
    switch (parser_.Parse(bytes_)) {
      case ParseStatus::kNeedMore:
        return false;
      case ParseStatus::kBad:
        last_ = true;
        head_only_ = false;
        Write(ProblemReply(ProblemOf(parser_.fault().status, parser_.fault().reason)));
        return false;
      case ParseStatus::kDone:
        break;
    }
    const bool accepted = Begin(parser_.head());
    bytes_.erase(0, parser_.head_size());
    parser_.Reset();
    return accepted;
  }

  // False: the request was refused, and with it the connection, for its content is not read.
  bool Begin(const http::RequestHead& head) noexcept {
    last_ = !head.keep_alive || head.minor_version == 0;
    head_only_ = head.method == "HEAD";
    framing_ = head.framing;
    left_ = framing_ == http::Framing::kLength ? head.content_length : 0;
    chunks_ = {};
    request_ = {};
    request_.method = head_only_ ? std::string_view("GET") : head.method;
    request_.path = head.path;
    request_.query = head.query;
    request_.peer = peer_;
    if (const http::Field* type = http::Find(head.fields, http::FieldId::kContentType)) {
      request_.content_type = type->value;
    }
    if (const auto problem = RefuseAccess(server_.access_, head)) {
      spdlog::warn("admin refused method={} path={} status={} peer={}", LogValue(head.method),
                   LogValue(head.path), problem->status, peer_);
      AdminReply reply = ProblemReply(*problem);
      if (problem->status == 401) {
        reply.extra_fields = "WWW-Authenticate: Bearer\r\n";
      }
      last_ = true;
      Write(reply);
      return false;
    }
    if (left_ > kMostContent) {
      RefuseContent();
      return false;
    }
    if (head.expect_continue && (left_ > 0 || framing_ == http::Framing::kChunked)) {
      conn_.Write(AsBytes("HTTP/1.1 100 Continue\r\n\r\n"));
    }
    phase_ = Phase::kContent;
    return true;
  }

  bool TakeContent() noexcept {
    if (framing_ == http::Framing::kChunked) {
      std::size_t used = 0;
      ParseStatus status = ParseStatus::kNeedMore;
      while (status == ParseStatus::kNeedMore && used < bytes_.size()) {
        const auto step = chunks_.Next(AsBytes(bytes_).subspan(used));
        status = step.status;
        used += step.consumed;
        if (request_.body.size() + step.data.size() > kMostContent) {
          RefuseContent();
          return false;
        }
        request_.body += AsText(step.data);
      }
      bytes_.erase(0, used);
      if (status == ParseStatus::kBad) {
        last_ = true;
        Write(ProblemReply(ProblemOf(400, "The content is not valid in its chunked coding.")));
        return false;
      }
      if (status == ParseStatus::kNeedMore) {
        return false;
      }
    } else {
      const auto take = static_cast<std::size_t>(std::min<std::uint64_t>(left_, bytes_.size()));
      request_.body.append(bytes_, 0, take);
      bytes_.erase(0, take);
      left_ -= take;
      if (left_ > 0) {
        return false;
      }
    }
    Ask();
    return phase_ == Phase::kHead;
  }

  void RefuseContent() noexcept {
    last_ = true;
    Write(ProblemReply(ProblemOf(413, "A request here has at most 64 KiB of content.")));
  }

  void Ask() noexcept {
    phase_ = Phase::kAnswer;
    link_ = std::make_shared<Link>(Link{this});
    // What is asked may have to read files, at worst those that tell that no descriptor is left.
    const net::FdReserve::Loan loan(server_.reserve_);
    server_.handler_(request_, [link = link_](const AdminReply& reply) {
      if (Client* client = std::exchange(link->client, nullptr)) {
        client->OnAnswer(reply);
      }
    });
    if (phase_ == Phase::kAnswer) {
      conn_.PauseRead(net::Pause::kHandshake);
    }
  }

  void OnAnswer(const AdminReply& reply) noexcept {
    link_.reset();
    answered_ = true;
    last_ = last_ || !server_.listener_;
    phase_ = Phase::kHead;
    Arm(kIdle);
    Write(reply);
    conn_.ResumeRead(net::Pause::kHandshake);
    Serve();
  }

  void Write(const AdminReply& reply) noexcept {
    std::string out = "HTTP/1.1 " + std::to_string(reply.status) + " ";
    out += http::ReasonPhrase(reply.status);
    out += "\r\n";
    http::AppendField(out, "Date", http::CurrentDate());
    http::AppendField(out, "Content-Type", reply.content_type);
    http::AppendField(out, "Content-Length", std::to_string(reply.body.size()));
    http::AppendField(out, "Cache-Control", "no-store");
    out += reply.extra_fields;
    if (last_) {
      http::AppendField(out, "Connection", "close");
    }
    out += "\r\n";
    if (!head_only_) {
      out += reply.body;
    }
    if (!conn_.Write(AsBytes(out))) {
      Close();
      return;
    }
    if (conn_.pending() > 0 && !last_) {
      conn_.PauseRead(net::Pause::kPeerFull);
    }
    if (last_) {
      Finish();
    }
  }

  void Finish() noexcept {
    phase_ = Phase::kFinish;
    bytes_.clear();
    conn_.FinishWrite();
    Arm(kLinger);
  }

  void Arm(Millis patience) noexcept {
    timer_.Arm<&Client::OnDeadline>(server_.loop_.base(), patience, this);
  }

  void OnDeadline(short) noexcept { Close(); }

  void Detach() noexcept {
    if (link_) {
      link_->client = nullptr;
      link_.reset();
    }
  }

  void Close() noexcept {
    if (phase_ == Phase::kClosed) {
      return;
    }
    phase_ = Phase::kClosed;
    Detach();
    timer_.Cancel();
    conn_.Close();
    server_.Remove(*this);
  }

  AdminServer& server_;
  std::shared_ptr<const tls::ServerContext> tls_;  // before conn_, whose transport refers to it
  net::Conn conn_;
  net::Timer timer_;
  std::string peer_;
  std::string bytes_;  // not parsed yet; bounded: the parser refuses a head above its limit, and
                       // nothing is read while an answer is owed
  http::RequestParser parser_;
  http::ChunkedDecoder chunks_;
  AdminRequest request_;
  std::shared_ptr<Link> link_;  // null: no answer is owed
  std::uint64_t left_ = 0;      // of the content, when its length is known
  http::Framing framing_ = http::Framing::kNone;
  Phase phase_ = Phase::kHead;
  bool head_only_ = false;
  bool last_ = false;      // the connection ends with this answer
  bool answered_ = false;  // at least one request
  bool serving_ = false;   // Serve() is running
};

AdminServer::AdminServer(net::Loop& loop, UniqueFd socket, AdminAccess access,
                         std::shared_ptr<const tls::ServerContext> tls, AdminHandler handler)
    : loop_(loop),
      access_(std::move(access)),
      handler_(std::move(handler)),
      tls_(std::move(tls)),
      buffers_(tls_ ? std::make_unique<tls::SharedBuffers>() : nullptr),
      socket_(socket.get()),
      listener_(std::make_unique<net::Listener>(loop, std::move(socket), std::size_t{0},
                                                static_cast<net::AcceptSink&>(*this), &reserve_)) {}

AdminServer::~AdminServer() = default;

void AdminServer::Renew(AdminAccess access, std::shared_ptr<const tls::ServerContext> tls) {
  assert((tls == nullptr) == (tls_ == nullptr));
  access_ = std::move(access);
  tls_ = std::move(tls);
}

void AdminServer::StopAccepting() noexcept {
  listener_.reset();
  socket_ = -1;
  // From the end, for those that close at once remove themselves.
  for (std::size_t i = clients_.size(); i > 0; --i) {
    clients_[i - 1]->FinishSoon();
  }
}

void AdminServer::OnAccept(net::Listener&, UniqueFd fd, const net::Address& peer) noexcept {
  if (clients_.size() == kMostClients) {
    return;
  }
  auto client = std::make_unique<Client>(*this, std::move(fd), peer);
  if (!client->closed()) {
    clients_.push_back(std::move(client));
  }
}

void AdminServer::OnAcceptPaused(net::Listener&, int) noexcept {}

void AdminServer::Remove(Client& client) noexcept {
  const auto found = std::find_if(clients_.begin(), clients_.end(),
                                  [&](const auto& one) { return one.get() == &client; });
  if (found != clients_.end()) {
    loop_.Bury(std::move(*found));
    clients_.erase(found);
    reserve_.Refill();
  }
}

}  // namespace sluice::admin
