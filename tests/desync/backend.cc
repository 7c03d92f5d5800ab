#include "tests/desync/backend.h"

#include <array>
#include <string>
#include <utility>

#include "tests/desync/answer.h"

namespace sluice::desync {

BackendConn::BackendConn(deploy::EventLoop& loop, Ledger& ledger, UniqueFd fd, std::uint64_t seed)
    : loop_(loop), ledger_(ledger), fd_(std::move(fd)), dice_(seed) {
  loop_.Add(fd_.get(), EPOLLIN, *this);
}

void BackendConn::OnEvent(std::uint32_t events) {
  if (is_open() && (events & EPOLLOUT) != 0) {
    Send();
  }
  if (is_open() && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    Read();
  }
}

void BackendConn::Read() {
  static std::array<char, std::size_t{64} * 1024> buffer;
  const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
  if (got < 0 && errno == EAGAIN) {
    return;
  }
  if (got <= 0) {
    OnEnd();
    return;
  }
  const bool awaits_request = pieces_.empty();
  if (!reader_.Feed({buffer.data(), static_cast<std::size_t>(got)})) {
    ledger_.Blame(last_id_, "the backend cannot read what came behind this: " + reader_.why());
    Close();
    return;
  }
  std::size_t complete = 0;
  while (const auto request = reader_.Take()) {
    if (!awaits_request || ++complete > 1) {
      ledger_.Blame(last_id_, "another request came before this one was answered");
    }
    OnRequest(*request);
  }
  if (complete > 0 && !reader_.is_between()) {
    ledger_.Blame(last_id_, "there are bytes behind the end of this");
  }
  const std::string* expects = reader_.open().Field("expect");
  if (!reader_.is_between() && reader_.open().head_complete && expects != nullptr && !continued_) {
    continued_ = true;
    pieces_.Add("HTTP/1.1 100 Continue\r\n\r\n", 0, dice_);
  }
  if (!pieces_.empty()) {
    Send();
  }
}

void BackendConn::OnEnd() {
  if (!reader_.is_between()) {
    const std::uint64_t id = reader_.open().NumberIn("x-id");
    if (!reader_.open().head_complete) {
      ledger_.Blame(last_id_, "half a head came behind this");
    } else if (ledger_.FateOf(id) != Fate::kBroken) {
      ledger_.Blame(id, "came in part, and nothing was wrong with it");
    } else {
      ledger_.Count("begun_and_broken");
    }
  }
  Close();
}

void BackendConn::OnRequest(const Message& request) {
  ++requests_;
  const std::uint64_t id = request.NumberIn("x-id");
  if (spoiled_) {
    ledger_.Blame(id, "came over a connection that could not carry another request");
  }
  Judge(request, id);
  last_id_ = id;

  const Answer answer = MakeAnswer(request.NumberIn("x-answer"), id, request.method == "HEAD",
                                   request.Field("upgrade") != nullptr);
  if (request.Field("expect") != nullptr && !continued_) {
    pieces_.Add("HTTP/1.1 100 Continue\r\n\r\n", 0, dice_);
  }
  continued_ = false;
  pieces_.Add(answer.bytes, answer.end, dice_);
  closes_ = answer.closes || !request.keep_alive;
  if (answer.silently && request.keep_alive) {
    ledger_.Count(kSilentEnds);
  }
  // One that has seen an upgrade may be half of a tunnel to somebody.
  const bool upgrades = request.Field("upgrade") != nullptr;
  spoiled_ = spoiled_ || closes_ || upgrades || answer.SpoilsConnection();
}

void BackendConn::Judge(const Message& request, std::uint64_t id) {
  const std::string name = request.method + " " + request.target.substr(0, 60);
  switch (ledger_.FateOf(id)) {
    case Fate::kServed:
      ledger_.Announce(id, Fate::kSeen);
      break;
    case Fate::kUnknown:
      ledger_.Blame(id, "nobody has sent " + name);
      return;
    case Fate::kSeen:
      ledger_.Blame(id, "came twice: " + name);
      return;
    case Fate::kBroken:
      ledger_.Blame(id, "is whole, though its content is broken: " + name);
      return;
    case Fate::kNever:
      ledger_.Blame(id, "reached the backend: " + name);
      return;
  }
  if (request.NumberIn("x-digest") != DigestOf(request.method, request.target, request.content)) {
    ledger_.Blame(id, "is not what was sent: " + name);
  }
  for (const char* field :
       {"x-drop", "keep-alive", "proxy-connection", "http2-settings", "trailer"}) {
    if (request.Field(field) != nullptr) {
      ledger_.Blame(id, std::string(field) + " went further than one hop");
    }
  }
  const std::string* upgrade = request.Field("upgrade");
  if (upgrade != nullptr && *upgrade != "websocket") {
    ledger_.Blame(id, "asks the backend to upgrade to " + *upgrade);
  }
  if (request.has_trailers) {
    ledger_.Blame(id, "has trailers");
  }
}

void BackendConn::Send() {
  if (!pieces_.empty() && !pieces_.SendOne(fd_.get())) {
    Close();
    return;
  }
  if (pieces_.empty() && closes_) {
    Close();
    return;
  }
  if (watches_room_ == pieces_.empty()) {
    watches_room_ = !pieces_.empty();
    loop_.Change(fd_.get(), EPOLLIN | (watches_room_ ? EPOLLOUT : 0U), *this);
  }
}

Backend::Backend(deploy::EventLoop& loop, Ledger& ledger, std::uint64_t seed)
    : loop_(loop), ledger_(ledger), seed_(seed), listener_(bench::ListenAndTell()) {
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  loop_.Add(listener_.get(), EPOLLIN, *this);
}

void Backend::OnEvent(std::uint32_t /*events*/) {
  for (UniqueFd fd = bench::Accept(listener_.get()); fd.valid();
       fd = bench::Accept(listener_.get())) {
    conns_.push_back(
        std::make_unique<BackendConn>(loop_, ledger_, std::move(fd), seed_ + connections_));
    ++connections_;
  }
}

void Backend::Sweep() {
  for (const auto& conn : conns_) {
    most_requests_ = std::max(most_requests_, conn->requests());
  }
  conns_.erase(std::remove_if(conns_.begin(), conns_.end(),
                              [](const auto& conn) { return !conn->is_open(); }),
               conns_.end());
}

}  // namespace sluice::desync
