#include "proxy/admin/admin_server.h"

#include <algorithm>
#include <array>
#include <utility>

#include "proxy/http/parser.h"
#include "proxy/http/reply.h"
#include "proxy/net/conn.h"

namespace sluice::admin {
namespace {

// Prometheus, a probe or two and a person; more than this is a mistake or an attack.
constexpr std::size_t kMostClients = 64;
constexpr Millis kIdle{30'000};
constexpr std::size_t kRead = 4096;

}  // namespace

// One connection: reads a head, answers, reads the next.
class AdminServer::Client final : public net::Mortal, private net::ConnSink {
 public:
  Client(AdminServer& server, UniqueFd fd) : server_(server), conn_(server.loop_, *this) {
    conn_.Open(std::move(fd), nullptr);
    ArmIdle();
  }

 private:
  void OnConnected(net::Conn&, int) noexcept override {}

  void OnWritable(net::Conn& conn) noexcept override {
    if (conn.write_failed()) {
      Close();
    } else if (conn.pending() == 0) {
      conn.ResumeRead(net::Pause::kPeerFull);
    }
  }

  void OnReadable(net::Conn& conn) noexcept override {
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
    if (finishing_) {
      return;  // the rest is read so that closing does not reset the answer
    }
    bytes_ += AsText(Bytes(scratch).first(got.bytes));
    Serve();
  }

  void Serve() noexcept {
    while (!bytes_.empty() && !finishing_) {
      switch (parser_.Parse(bytes_)) {
        case ParseStatus::kNeedMore:
          return;
        case ParseStatus::kBad:
          Refuse(parser_.fault().status, parser_.fault().reason, "");
          return;
        case ParseStatus::kDone:
          break;
      }
      Answer(parser_.head());
      bytes_.erase(0, parser_.head_size());
      parser_.Reset();
      ArmIdle();
    }
  }

  void Answer(const http::RequestHead& head) noexcept {
    const bool content = head.framing == http::Framing::kChunked ||
                         (head.framing == http::Framing::kLength && head.content_length > 0);
    if (head.method != "GET" && head.method != "HEAD") {
      Refuse(405, "This path is only read.", "Allow: GET, HEAD\r\n");
      return;
    }
    if (content) {
      Refuse(400, "A request here has no content.", "");
      return;
    }
    const AdminReply reply = server_.handler_(head.path);
    const bool close = !head.keep_alive || head.minor_version == 0;
    std::string out = "HTTP/1.1 " + std::to_string(reply.status) + " ";
    out += http::ReasonPhrase(reply.status);
    out += "\r\n";
    http::AppendField(out, "Content-Type", reply.content_type);
    http::AppendField(out, "Content-Length", std::to_string(reply.body.size()));
    http::AppendField(out, "Cache-Control", "no-store");
    if (close) {
      http::AppendField(out, "Connection", "close");
    }
    out += "\r\n";
    if (head.method != "HEAD") {
      out += reply.body;
    }
    conn_.Write(AsBytes(out));
    if (conn_.pending() > 0) {
      conn_.PauseRead(net::Pause::kPeerFull);
    }
    if (close) {
      Finish();
    }
  }

  void Refuse(int status, std::string_view text, std::string_view extra) noexcept {
    http::Reply reply;
    reply.status = status;
    reply.text = text;
    reply.extra_fields = extra;
    conn_.Write(AsBytes(http::Serialize(reply)));
    Finish();
  }

  void Finish() noexcept {
    finishing_ = true;
    conn_.FinishWrite();
  }

  void ArmIdle() noexcept { idle_.Arm<&Client::OnIdle>(server_.loop_.base(), kIdle, this); }

  void OnIdle(short) noexcept { Close(); }

  void Close() noexcept {
    idle_.Cancel();
    conn_.Close();
    server_.Remove(*this);
  }

  AdminServer& server_;
  net::Conn conn_;
  net::Timer idle_;
  http::RequestParser parser_;
  std::string bytes_;  // bounded: the parser refuses a head above its limit
  bool finishing_ = false;
};

AdminServer::AdminServer(net::Loop& loop, UniqueFd socket, AdminHandler handler)
    : loop_(loop), handler_(std::move(handler)), listener_(loop, std::move(socket), 0, *this) {}

AdminServer::~AdminServer() = default;

void AdminServer::OnAccept(net::Listener&, UniqueFd fd, const net::Address&) noexcept {
  if (clients_.size() < kMostClients) {
    clients_.push_back(std::make_unique<Client>(*this, std::move(fd)));
  }
}

void AdminServer::OnAcceptPaused(net::Listener&, int) noexcept {}

void AdminServer::Remove(Client& client) noexcept {
  const auto found = std::find_if(clients_.begin(), clients_.end(),
                                  [&](const auto& one) { return one.get() == &client; });
  if (found != clients_.end()) {
    loop_.Bury(std::move(*found));
    clients_.erase(found);
  }
}

}  // namespace sluice::admin
