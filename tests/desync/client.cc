#include "tests/desync/client.h"

#include <array>
#include <cerrno>
#include <utility>

namespace sluice::desync {

Client::Client(deploy::EventLoop& loop, Ledger& ledger, Work& work, const sockaddr_in& address)
    : loop_(loop), ledger_(ledger), work_(work), address_(address) {}

Client::~Client() {
  loop_.wheel().Cancel(*this);
}

void Client::Begin() {
  loop_.wheel().Cancel(*this);
  pair_.reset();
  if (work_.next == work_.end) {
    Drop();
    return;
  }
  number_ = work_.next++;
  pair_ = MakePair(work_.seed, number_);
  dice_ = storm::Dice(pair_->subject.answer_seed);
  ledger_.Count("pairs");
  ledger_.CountKind(pair_->subject.kind);
  marker_sent_ = false;
  ledger_.Announce(Ledger::IdOf(number_, Role::kHidden), Fate::kNever);
  ledger_.Announce(pair_->subject.id, pair_->subject.fate);
  if (!fd_.valid()) {
    Connect();
  }
  loop_.wheel().Set(*this, loop_.now() + work_.patience);
  Send(pair_->subject);
  const bool goes_on = !expected_.back().last;
  marker_due_ = goes_on || !pair_->pipelined;
  // Behind a request that ends the connection nobody may look at it.
  ledger_.Announce(pair_->marker.id, marker_due_ ? Fate::kServed : Fate::kNever);
  if (pair_->pipelined) {
    SendMarker();
  }
  SendPieces();
}

void Client::Connect() {
  fd_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd_.valid() ||
      ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address_), sizeof(address_)) != 0) {
    bench::DieErrno("connect");
  }
  bench::SetNoDelay(fd_.get());
  bench::SetNonBlocking(fd_.get());
  loop_.Add(fd_.get(), EPOLLIN, *this);
  watches_room_ = false;
  reset_ = false;
  reader_ = std::make_unique<HttpReader>(HTTP_RESPONSE);
  ends_ = false;
  ledger_.Count("client_connections");
}

void Client::Drop() {
  fd_.Reset();
  pieces_.Clear();
  behind_wait_.clear();
  expected_.clear();
  interim_ = 0;
}

// What of it waits for a 100 Continue goes after that, and so does what is sent behind it.
void Client::Send(const Request& request) {
  std::string_view bytes = request.bytes;
  if (!behind_wait_.empty()) {
    behind_wait_ += bytes;
  } else if (request.waits_at > 0 && request.waits_at < bytes.size()) {
    behind_wait_ = bytes.substr(request.waits_at);
    bytes = bytes.substr(0, request.waits_at);
    pieces_.Add(bytes, bytes.size(), dice_);
  } else {
    pieces_.Add(bytes, bytes.size(), dice_);
  }
  reader_->ExpectAnswer(request.is_head);
  Expect(request);
}

void Client::SendMarker() {
  marker_sent_ = true;
  Send(pair_->marker);
}

void Client::Expect(const Request& request) {
  Expected one;
  one.id = request.id;
  one.status = request.status;
  one.last = request.ends;
  one.is_repeatable = request.is_repeatable;
  if (request.fate == Fate::kServed) {
    const Answer answer =
        MakeAnswer(request.answer_seed, request.id, request.is_head, request.is_upgrade);
    one.status = answer.status;
    one.of_backend = answer.worth != Answer::Worth::kBad;
    one.content = answer.content;
    one.interim = answer.interim + (request.expects ? 1 : 0);
    if (request.http10 || request.is_upgrade) {
      one.interim = 0;
    }
    one.cut = answer.worth == Answer::Worth::kCut;
    one.last = one.last || one.cut;
  }
  expected_.push_back(one);
  if (request.garbage_behind) {
    Expected refusal;
    refusal.id = request.id;
    refusal.status = 400;
    refusal.last = true;
    expected_.push_back(refusal);
    reader_->ExpectAnswer(false);
  }
}

void Client::OnEvent(std::uint32_t events) {
  if (fd_.valid() && (events & EPOLLOUT) != 0) {
    SendPieces();
  }
  if (fd_.valid() && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    Read();
  }
}

void Client::SendPieces() {
  if (!pieces_.empty() && !pieces_.SendOne(fd_.get())) {
    reset_ = errno == ECONNRESET;
    pieces_.Clear();  // what there is to read tells the rest
  }
  if (watches_room_ == pieces_.empty()) {
    watches_room_ = !pieces_.empty();
    loop_.Change(fd_.get(), EPOLLIN | (watches_room_ ? EPOLLOUT : 0U), *this);
  }
}

void Client::Read() {
  static std::array<char, std::size_t{64} * 1024> buffer;
  const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
  if (got < 0 && errno == EAGAIN) {
    return;
  }
  if (got <= 0) {
    OnEnd(got < 0 || reset_);
    return;
  }
  const bool fed = reader_->Feed({buffer.data(), static_cast<std::size_t>(got)});
  while (const auto answer = reader_->Take()) {
    if (!OnAnswer(*answer)) {
      return;
    }
  }
  if (!fed) {
    GiveUp("the client cannot read the answer: " + reader_->why());
    return;
  }
  Advance();
}

// False: the pair was given up.
bool Client::OnAnswer(const Message& answer) {
  if (expected_.empty()) {
    GiveUp("an answer of status " + std::to_string(answer.status) + " to no request");
    return false;
  }
  if (answer.status < 200) {
    ++interim_;
    if (answer.status == 100 && !behind_wait_.empty()) {
      pieces_.Add(behind_wait_, behind_wait_.size(), dice_);
      behind_wait_.clear();
      SendPieces();
    }
    return true;
  }
  Expected one = expected_.front();
  expected_.pop_front();
  if (one.cut && answer.status == 502) {
    // It broke off before anything of it had gone out, and is told as what it is.
    one.cut = false;
    one.of_backend = false;
    one.status = 502;
    ledger_.Count("answers_cut_at_once");
  }
  if (IsLostWithItsConnection(one, answer)) {
    ledger_.Count("lost_with_their_connection");
    Drop();
    Begin();
    return false;
  }
  const std::uint64_t id = answer.NumberIn("x-id");
  if (answer.status != one.status || id != (one.of_backend ? one.id : 0)) {
    GiveUp("wants an answer of status " + std::to_string(one.status) + ", and gets " +
           std::to_string(answer.status) + " with id " + std::to_string(id));
    return false;
  }
  if (one.cut) {
    GiveUp("an answer that was cut came whole");
    return false;
  }
  if (one.of_backend && answer.content != one.content) {
    Blame("the content of the answer is not what the backend sent");
  }
  if (interim_ != one.interim) {
    Blame("wants " + std::to_string(one.interim) + " interim answers, and gets " +
          std::to_string(interim_));
  }
  if (answer.keep_alive == one.last) {
    Blame(one.last ? "the last answer does not say so" : "an answer says that it is the last");
  }
  if (answer.Field("x-drop") != nullptr || answer.has_trailers) {
    Blame("fields of one hop or trailers came with the answer");
  }
  interim_ = 0;
  ends_ = one.last;
  ledger_.Count(one.of_backend ? "answers_of_backend" : "answers_of_sluice");
  if (ends_) {
    expected_.clear();  // of a marker that nobody looks at
  }
  return true;
}

// A connection that the backend ends while it carries nothing takes a request along that is on its
// way to it. Whoever has sent it cannot know whether it was read, so that it is sent again only if
// that does no harm (RFC 9110 section 9.2.2).
bool Client::IsLostWithItsConnection(const Expected& one, const Message& answer) const {
  return answer.status == 502 && answer.Field("x-id") == nullptr && one.of_backend &&
         !one.is_repeatable && ledger_.FateOf(one.id) == Fate::kServed &&
         ledger_.HasCounted(kSilentEnds);
}

// What comes next, now that all that has been read is dealt with.
void Client::Advance() {
  if (ends_ || !expected_.empty() || !reader_->is_between()) {
    return;
  }
  if (!marker_sent_) {
    SendMarker();
    SendPieces();
  } else {
    Begin();
  }
}

void Client::OnEnd(bool reset) {
  const bool between = reader_->is_between();
  const bool whole = reader_->End();
  if (!reset && whole && !between) {
    // An answer that goes to the end of the connection.
    while (const auto answer = reader_->Take()) {
      if (!OnAnswer(*answer)) {
        return;
      }
    }
  }
  if (!ends_ && !expected_.empty() && expected_.front().cut) {
    ledger_.Count("answers_cut");
    ends_ = true;
  }
  if (!ends_) {
    GiveUp(reset ? "the connection was reset" : "the connection ended before its time");
    return;
  }
  Drop();
  if (marker_due_ && !marker_sent_) {
    Connect();
    SendMarker();
    SendPieces();
  } else {
    Begin();
  }
}

void Client::OnTimer() {
  GiveUp(ends_ ? "the connection does not end" : "no answer comes");
}

void Client::Blame(const std::string& what) {
  ledger_.Blame(pair_ ? pair_->subject.id : 0,
                (pair_ ? pair_->subject.kind : "") + ", " +
                    (marker_sent_ && expected_.size() < 2 ? "marker" : "subject") + ": " + what);
}

// This pair proves nothing any more; the next one begins afresh.
void Client::GiveUp(const std::string& what) {
  Blame(what);
  Drop();
  Begin();
}

}  // namespace sluice::desync
