#include "proxy/tls/tls_transport.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "proxy/net/socket.h"

namespace sluice::tls {
namespace {

using net::IoResult;
using net::IoStatus;

// More plaintext than this is encrypted in several rounds, so that the worker's shared output
// buffer stays small and a full socket is noticed early.
constexpr std::size_t kRound = 64 * 1024;

// A record of the beginning: with TLS's own bytes (29 at most), TCP's and IPv6's it fits a segment
// of 1,500 bytes, with some room for a tunnel on the way.
constexpr std::size_t kSmallRecord = 1'360;

// So many make 64 KiB: a window of TCP that has grown well beyond its first 10 segments.
constexpr std::uint8_t kSmallRecords = 48;

// More ciphertext than this never waits for an honest peer: one round of records and a few alerts.
constexpr std::size_t kMostUnsent = 128 * 1024;

}  // namespace

template <class NewSession>
std::unique_ptr<TlsTransport> TlsTransport::Finish(std::unique_ptr<TlsTransport> made,
                                                   NewSession new_session) {
  if (!made->buffers_.bio) {
    made->buffers_.bio = MakeBio();
  }
  BioPtr bio = MakeBio();
  if (!bio || !made->buffers_.bio) {
    return nullptr;
  }
  BIO_set_data(bio.get(), made.get());
  made->ssl_ = new_session(std::move(bio));
  if (!made->ssl_) {
    return nullptr;
  }
  return made;
}

// make_unique cannot reach the private constructor.

std::unique_ptr<TlsTransport> TlsTransport::Accept(const ServerContext& context, int fd,
                                                   SharedBuffers& buffers) {
  return Finish(std::unique_ptr<TlsTransport>(new TlsTransport(fd, buffers)),
                [&](BioPtr bio) { return context.NewSession(std::move(bio)); });
}

std::unique_ptr<TlsTransport> TlsTransport::Connect(const ClientContext& context,
                                                    Destination& destination, int fd,
                                                    SharedBuffers& buffers) {
  return Finish(std::unique_ptr<TlsTransport>(new TlsTransport(fd, buffers)),
                [&](BioPtr bio) { return context.NewSession(destination, std::move(bio)); });
}

TlsTransport::~TlsTransport() {
  if (ssl_ && established_) {
    // OpenSSL would take a session that has not ended in order as one that may not be resumed,
    // which TLS 1.0 demanded and no later version does. A Destination may keep it.
    SSL_set_shutdown(ssl_.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
  }
}

BioPtr TlsTransport::MakeBio() {
  BioPtr bio(BIO_new(Method()));
  if (bio) {
    BIO_set_init(bio.get(), 1);
  }
  return bio;
}

// During its handshake a session has a BIO of its own, because OpenSSL puts a buffering BIO in
// front of it. Afterwards one BIO serves all sessions of the worker: it holds nothing between two
// calls, and Enter() tells it whose call it is.
void TlsTransport::ShareBio() noexcept {
  BIO* shared = buffers_.bio.get();
  BIO_up_ref(shared);
  SSL_set0_rbio(ssl_.get(), shared);
  BIO_up_ref(shared);
  SSL_set0_wbio(ssl_.get(), shared);
}

void TlsTransport::Enter() noexcept {
  BIO_set_data(buffers_.bio.get(), this);
}

BIO_METHOD* TlsTransport::Method() {
  // Made once and kept for the life of the process: BIOs refer to it until the last one is gone.
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "sluice");
    BIO_meth_set_read(made, &TlsTransport::OnBioRead);
    BIO_meth_set_write(made, &TlsTransport::OnBioWrite);
    BIO_meth_set_ctrl(made, &TlsTransport::OnBioCtrl);
    return made;
  }();
  return method;
}

int TlsTransport::OnBioRead(BIO* bio, char* into, int size) {
  auto* self = static_cast<TlsTransport*>(BIO_get_data(bio));
  SharedBuffers& buffers = self->buffers_;
  BIO_clear_retry_flags(bio);
  if (buffers.input.empty() && buffers.may_receive > 0 && !self->eof_) {
    const auto room = std::span(buffers.in).first(std::exchange(buffers.may_receive, 0));
    buffers.input_is_kept = false;
    const IoResult got = net::Receive(self->fd_, room);
    switch (got.status) {
      case IoStatus::kOk:
        buffers.input = Bytes(buffers.in).first(got.bytes);
        break;
      case IoStatus::kEof:
        self->eof_ = true;
        break;
      case IoStatus::kError:
        self->broken_ = true;
        return -1;
      case IoStatus::kWouldBlock:
        break;
    }
  }
  if (buffers.input.empty()) {
    if (self->eof_) {
      return 0;
    }
    BIO_set_retry_read(bio);
    return -1;
  }
  const std::size_t count = std::min(buffers.input.size(), static_cast<std::size_t>(size));
  std::memcpy(into, buffers.input.data(), count);
  buffers.input = buffers.input.subspan(count);
  return static_cast<int>(count);
}

int TlsTransport::OnBioWrite(BIO* bio, const char* from, int size) {
  auto* self = static_cast<TlsTransport*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  const Bytes bytes = AsBytes({from, static_cast<std::size_t>(size)});
  self->buffers_.out.insert(self->buffers_.out.end(), bytes.begin(), bytes.end());
  return size;
}

long TlsTransport::OnBioCtrl(BIO* bio, int command, long, void*) {
  switch (command) {
    case BIO_CTRL_FLUSH:
      return 1;  // the end of each call sends
    case BIO_CTRL_EOF:
      return static_cast<TlsTransport*>(BIO_get_data(bio))->eof_ ? 1 : 0;
    default:
      return 0;
  }
}

// `room`: what the caller can take. No more is received than fits there decrypted, unless that
// would be less than a record: then what does not fit is kept.
void TlsTransport::BeginInput(std::size_t room) noexcept {
  Enter();
  ERR_clear_error();
  buffers_.failure.clear();
  buffers_.input = kept_ ? Bytes(kept_->input).subspan(kept_->input_used) : Bytes();
  buffers_.input_is_kept = !buffers_.input.empty();
  constexpr std::size_t kInside = SharedBuffers::kInside;
  buffers_.may_receive = std::clamp(room - std::min(room, kInside), kInside, SharedBuffers::kIn);
}

void TlsTransport::EndInput() noexcept {
  buffers_.may_receive = 0;
  const Bytes left = buffers_.input;
  buffers_.input = {};
  if (buffers_.input_is_kept && !left.empty()) {
    kept_->input_used = kept_->input.size() - left.size();
    return;
  }
  if (!left.empty()) {
    kept().input.assign(left.begin(), left.end());
    kept().input_used = 0;
  } else if (kept_) {
    kept_->input = std::vector<std::byte>();  // `= {}` would only empty it and keep the memory
    kept_->input_used = 0;
    DropKeptIfEmpty();
  }
}

TlsTransport::Kept& TlsTransport::kept() {
  if (!kept_) {
    kept_ = std::make_unique<Kept>();
  }
  return *kept_;
}

void TlsTransport::DropKeptIfEmpty() noexcept {
  if (kept_->unsent.empty() && !HasKeptInput()) {
    kept_.reset();
  }
}

void TlsTransport::SendOut() noexcept {
  std::vector<std::byte>& out = buffers_.out;
  if (out.empty()) {
    return;
  }
  if (tail_waits_) {
    const Bytes tail = kept_->unsent.front();
    out.insert(out.begin(), tail.begin(), tail.end());
    tail_waits_ = false;
    kept_->unsent.Clear();
    DropKeptIfEmpty();
  }
  Bytes bytes(out);
  if (pending() == 0) {
    const IoResult sent = net::Send(fd_, bytes);
    if (sent.status == IoStatus::kError) {
      broken_ = true;
    }
    bytes = bytes.subspan(sent.bytes);
  }
  if (pending() + bytes.size() > kMostUnsent) {
    // Write does not take plaintext while ciphertext waits, so this grew by answers alone: a peer
    // that asks for key updates (RFC 8446 section 4.6.3) and does not read what it asked for.
    broken_ = true;
  }
  if (!broken_ && !bytes.empty()) {
    kept().unsent.Append(bytes);
  }
  out.clear();
}

IoStatus TlsTransport::Classify(int result) noexcept {
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
      return broken_ ? IoStatus::kError : IoStatus::kWouldBlock;
    case SSL_ERROR_ZERO_RETURN:
      // The kernel reports a reset once, afterwards it looks like an ordinary end.
      return broken_ ? IoStatus::kError : IoStatus::kEof;
    default:
      broken_ = true;
      NoteFailure();
      return IoStatus::kError;
  }
}

void TlsTransport::NoteFailure() noexcept {
  if (ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
    buffers_.failure = X509_verify_cert_error_string(SSL_get_verify_result(ssl_.get()));
  } else if (ERR_peek_error() != 0) {
    buffers_.failure = TakeErrorText();
  }
  ERR_clear_error();
}

IoStatus TlsTransport::Handshake() noexcept {
  BeginInput(SharedBuffers::kIn);
  const int result = SSL_do_handshake(ssl_.get());
  IoStatus status = IoStatus::kOk;
  if (result == 1) {
    established_ = true;
    ShareBio();
  } else {
    status = Classify(result);
  }
  EndInput();
  const bool may_wait = is_tls13() || SSL_is_server(ssl_.get()) == 0;
  if (status == IoStatus::kOk && may_wait && !buffers_.out.empty()) {
    // A server's ticket, for which no client waits (RFC 8446 section 4.6.1), or a client's last
    // words. They go with the first answer, or request, which saves a system call and wakes the
    // peer once less.
    kept().unsent.Append(buffers_.out);
    tail_waits_ = true;
    buffers_.out.clear();
  }
  SendOut();  // also the alert of a handshake that failed
  return broken_ ? IoStatus::kError : status;
}

IoResult TlsTransport::Read(std::span<std::byte> into) noexcept {
  BeginInput(into.size());
  std::size_t total = 0;
  IoStatus status = IoStatus::kOk;
  while (total < into.size()) {
    std::size_t got = 0;
    const int result = SSL_read_ex(ssl_.get(), into.data() + total, into.size() - total, &got);
    if (result == 1) {
      total += got;
      if (got > 0 && buffers_.input.empty() && buffers_.may_receive == 0) {
        // A record that left room was read to its end, and OpenSSL takes no more than the record it
        // works on: another call would only learn that there is nothing.
        break;
      }
      continue;
    }
    status = Classify(result);
    break;
  }
  EndInput();
  SendOut();  // an alert or the answer to a KeyUpdate
  if (SSL_has_pending(ssl_.get()) == 0) {
    // For a ticket or a KeyUpdate OpenSSL takes a buffer to write to too, 17 KiB that it would keep
    // until something is written.
    SSL_free_buffers(ssl_.get());
  }
  if (total > 0) {
    return {IoStatus::kOk, total};  // an end or an error shows again at the next call
  }
  return {status == IoStatus::kOk ? IoStatus::kWouldBlock : status, 0};
}

bool TlsTransport::HasBuffered() const noexcept {
  // An end or an error that Read found behind data is reported by the next Read: the socket would
  // not become readable again for it.
  return HasKeptInput() || SSL_pending(ssl_.get()) > 0 || eof_ || broken_ ||
         (SSL_get_shutdown(ssl_.get()) & SSL_RECEIVED_SHUTDOWN) != 0;
}

std::size_t TlsTransport::RecordSize(std::size_t left) noexcept {
  if (left <= kSmallRecord || small_records_ == kSmallRecords) {
    return left;  // OpenSSL cuts it at 16 KiB
  }
  ++small_records_;
  return kSmallRecord;
}

IoResult TlsTransport::Write(Bytes plaintext) noexcept {
  if (broken_) {
    return {IoStatus::kError, 0};
  }
  if (pending() > 0) {
    return {IoStatus::kWouldBlock, 0};
  }
  Enter();
  if (second_ != buffers_.second) {
    // More than one second apart: the kernel may have shrunk its window meanwhile.
    if (static_cast<std::uint8_t>(buffers_.second - second_) > 1) {
      small_records_ = 0;
    }
    second_ = buffers_.second;
  }
  std::size_t taken = 0;
  while (taken < plaintext.size() && pending() == 0) {
    const std::size_t round = std::min(plaintext.size() - taken, kRound);
    std::size_t done = 0;
    while (done < round) {
      std::size_t written = 0;
      // ENABLE_PARTIAL_WRITE: returns after one record; the loop gathers them for one send.
      if (SSL_write_ex(ssl_.get(), plaintext.data() + taken + done, RecordSize(round - done),
                       &written) != 1) {
        broken_ = true;
        ERR_clear_error();
        buffers_.out.clear();
        return {IoStatus::kError, 0};
      }
      done += written;
    }
    taken += done;
    SendOut();
    if (broken_) {
      return {IoStatus::kError, 0};
    }
  }
  return {IoStatus::kOk, taken};
}

IoStatus TlsTransport::Flush() noexcept {
  while (pending() > 0) {
    const IoResult sent = net::Send(fd_, kept_->unsent.front());
    if (sent.status != IoStatus::kOk) {
      broken_ = broken_ || sent.status == IoStatus::kError;
      return sent.status;
    }
    kept_->unsent.Consume(sent.bytes);
    DropKeptIfEmpty();
  }
  return IoStatus::kOk;
}

void TlsTransport::Shutdown() noexcept {
  if (!established_ || broken_) {
    return;
  }
  Enter();
  ERR_clear_error();
  SSL_shutdown(ssl_.get());
  ERR_clear_error();
  SendOut();
}

std::string_view TlsTransport::version() const noexcept {
  return SSL_get_version(ssl_.get());
}

bool TlsTransport::is_tls13() const noexcept {
  return SSL_version(ssl_.get()) == TLS1_3_VERSION;
}

bool TlsTransport::resumed() const noexcept {
  return SSL_session_reused(ssl_.get()) == 1;
}

std::string_view TlsTransport::server_name() const noexcept {
  const char* name = SSL_get_servername(ssl_.get(), TLSEXT_NAMETYPE_host_name);
  return name == nullptr ? std::string_view() : std::string_view(name);
}

std::string_view TlsTransport::alpn() const noexcept {
  const unsigned char* name = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(ssl_.get(), &name, &size);
  return {reinterpret_cast<const char*>(name), size};
}

}  // namespace sluice::tls
