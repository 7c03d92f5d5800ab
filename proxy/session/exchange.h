// One request from its admission to the end of its response, or to the 101 that turns it into a
// relay. Picks a backend, connects (going on to the next candidate when one fails), sends the
// request, checks the answer and carries content both ways without storing it.
//
//   kConnecting --made--> kAwaitHead --head--> kResponse --end--> done
//     ^ |   ^                |    |
//     | |   +-- next candidate    +--101--> upgraded
//     | +--made, TLS--> kTls --done--> kAwaitHead
//     +-- next candidate -+
//
// A plain request begins with kAwaitHead where an earlier one has left a connection (IdleConns),
// and goes back to kConnecting, to the same backend, when that turns out to have ended.
//
// Owned by Session for as long as the request lives; buried by it at the end.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "proxy/http/chunked.h"
#include "proxy/http/event_stream.h"
#include "proxy/http/parser.h"
#include "proxy/session/admission.h"
#include "proxy/session/core.h"
#include "proxy/session/rewrite.h"
#include "proxy/session/token_lesson.h"

namespace sluice::session {

// What a 101 has agreed, as the relay needs to know it.
struct Upgraded {
  bool rsv1 = false;            // permessage-deflate (RFC 7692)
  bool may_refragment = false;  // every extension that was agreed is known (RFC 6455 section 5.4)
  std::uint64_t key_hash = 0;   // of the affinity key
};

// How an Exchange ends. After any of these it is not called again, but for OnEventStream.
class ExchangeSink {
 public:
  // An upgrade is not to be: what the client gets now is a plain answer. Called before it is sent.
  virtual void OnNotUpgraded() noexcept = 0;
  // The response is complete. `reusable`: the client connection may carry another request;
  // `held`: what the client has sent behind this request.
  virtual void OnExchangeDone(bool reusable, std::string held) noexcept = 0;

  // The 101 was written to the client. `early_client`: bytes of the client behind its head;
  // `early_backend`: bytes of the backend behind its 101 (a view for this call only).
  virtual void OnUpgraded(const Upgraded& upgraded, std::string early_client,
                          Bytes early_backend) noexcept = 0;

  // The client connection cannot go on: it broke, or the response was cut.
  virtual void OnExchangeBroken() noexcept = 0;

  // The response is a stream of events, which may last as long as a session. The exchange goes on.
  virtual void OnEventStream() noexcept = 0;

 protected:
  ~ExchangeSink() = default;
};

class Exchange final : public net::Mortal {
 public:
  // `conn_sink`: what the conns to backends report to.
  Exchange(Core& core, ExchangeSink& sink, net::ConnSink& conn_sink, RequestFacts& facts) noexcept
      : core_(core),
        sink_(sink),
        conn_sink_(conn_sink),
        facts_(facts),
        buffered_(core.services.loop) {}

  // Begins with an admitted request. `head` and `rest`, what came behind the head, live only
  // during the call.
  void Begin(const http::RequestHead& head, Admission admission, const ForwardFacts& forward,
             Bytes rest) noexcept;

  void OnConnected(int error) noexcept;
  void OnReadable(Side side) noexcept;
  void OnWritable(Side side) noexcept;

  // Ends without a report: the session is being cut. `why`, unless empty: a static word for the
  // access log.
  void Abandon(std::string_view why = {}) noexcept;

  // The process wants to end: a plain response may finish, and so may an upgrade in flight unless
  // it is to be refused.
  void Drain(bool refuse_upgrade) noexcept;

  // The response is a stream of events, which goes on until somebody ends it. It is ended between
  // two events, the next time that it stands there.
  [[nodiscard]] bool is_event_stream() const noexcept { return events_ != nullptr; }
  // `why`: a static word for the access log.
  void EndEventStream(std::string_view why) noexcept;
  // When that was asked for first. REQUIRES: it was.
  [[nodiscard]] Instant end_begun() const noexcept { return end_begun_; }

  // Whole answers to earlier requests may wait in front of what there is of this one.
  [[nodiscard]] bool may_stand_behind_others() const noexcept { return behind_others_; }

  // For the access log. The content of the request and of its response, without framing:
  [[nodiscard]] std::uint64_t bytes_in() const noexcept { return bytes_in_; }
  [[nodiscard]] std::uint64_t bytes_out() const noexcept { return bytes_out_; }
  // The client takes the end of its connection for that of the answer: there is neither a length
  // nor a last chunk (RFC 9112 section 6.3).
  [[nodiscard]] bool ends_with_connection() const noexcept {
    return client_http10_ && (response_framing_ == http::Framing::kChunked ||
                              response_framing_ == http::Framing::kUntilClose);
  }
  // Static: why it failed; empty when all went well.
  [[nodiscard]] std::string_view reason() const noexcept { return reason_; }

 private:
  enum class State : std::uint8_t { kConnecting, kTls, kAwaitHead, kResponse, kDone };

  // limits.retries is at most 16.
  static constexpr std::size_t kMostAttempts = 17;

  // A response head that has not arrived whole. The parser has seen all of it.
  struct PartialHead {
    std::string bytes;
    http::ResponseParser parser;
  };

  enum class Blame : std::uint8_t { kBackend, kUs };  // who is to answer for a failure

  // What a client is told of a request that failed.
  struct Failure {
    int status;
    std::string_view text;
    std::string_view label;  // static: for the log
  };
  static constexpr Failure kUnreachable{503, "No backend of this route can be reached.",
                                        "no_backend"};
  static constexpr Failure kNoTls{503, kUnreachable.text, "backend_tls"};
  static constexpr Failure kUnanswered{502, "The backend closed without an answer.",
                                       "backend_closed"};

  // The backend, in exchange_backend.cc.
  [[nodiscard]] std::optional<balance::Pick> ChooseBackend() noexcept;
  [[nodiscard]] std::optional<balance::Pick> TakeBackend() noexcept;
  void FailForDrain() noexcept;
  [[nodiscard]] balance::Want WantFor(Instant now) noexcept;
  void FailForWantOfBackend() noexcept;
  void FailForRate(std::size_t backend, Instant now) noexcept;
  [[nodiscard]] std::string CookieToIssue() const;
  void CountPick(const balance::Pick& pick) noexcept;
  void TryNext() noexcept;
  void FailAtLast(const Failure& last) noexcept;
  [[nodiscard]] bool Connect() noexcept;
  [[nodiscard]] bool TakeIdle() noexcept;
  [[nodiscard]] bool IsStale() const noexcept;
  void ConnectAnew() noexcept;
  void StartTls() noexcept;
  void StepHandshake() noexcept;
  void NoteTlsFailure(std::string_view why) noexcept;
  void LogTlsFailure(std::string_view why) noexcept;
  void OnBackendReady() noexcept;
  void SendRequest() noexcept;
  void WriteProxyHeader() noexcept;
  [[nodiscard]] bool MayRetry(metrics::BackendFailure why) const noexcept;
  void AttemptFailed(metrics::BackendFailure why, const Failure& told,
                     Blame blame = Blame::kBackend) noexcept;

  // The rest is in exchange.cc.

  // The backend cannot be sent anything yet.
  [[nodiscard]] bool is_connecting() const noexcept {
    return state_ == State::kConnecting || state_ == State::kTls;
  }
  [[nodiscard]] Blame BlameForTime() const noexcept;
  // `retry_after`: a whole field for a 503; empty: one is drawn.
  void Fail(const Failure& told, metrics::UpgradeOutcome outcome,
            std::string retry_after = {}) noexcept;
  void CountUpgrade(metrics::UpgradeOutcome outcome) noexcept;
  void CountContent(Side from, std::size_t bytes) noexcept;

  void TakeFromClient(Bytes bytes) noexcept;
  void KeepForResend(Bytes bytes) noexcept;
  void ForwardRequestContent(Bytes bytes) noexcept;
  void Hold(Bytes bytes) noexcept;
  void CountBuffered() noexcept;
  void OnClientEnd(bool broken) noexcept;

  void TakeFromBackend(Bytes bytes) noexcept;
  void NoteGoodAnswer() noexcept;
  void OnResponseHead(const http::ResponseHead& head, Bytes rest) noexcept;
  void AcceptUpgrade(const http::ResponseHead& head, Bytes rest) noexcept;
  // `out`: what goes to the client before it, in the same write.
  void ForwardResponseContent(Bytes bytes, std::string out = {}) noexcept;
  void OnBackendEnd(bool broken) noexcept;
  // Whether the backend's connection is fit for another request: see KeepBackend.
  enum class Ended : std::uint8_t {
    kInOrder,  // as it was announced, and nothing follows
    kOtherwise,
  };
  void FinishResponse(Ended how) noexcept;
  void NoteSessionAnswered() noexcept;
  [[nodiscard]] bool IsAtHomeThatDrains() const noexcept;
  void EndSessionOfEvents() noexcept;
  void KeepBackend() noexcept;
  [[nodiscard]] std::string EndOfEvents() const;
  [[nodiscard]] bool IsDrainToBlame() const noexcept;
  void Report(bool reusable) noexcept;
  void Break() noexcept;

  [[nodiscard]] std::span<const std::size_t> tried() const noexcept {
    return std::span(tried_).first(tried_count_);
  }
  [[nodiscard]] bool IsTried(std::size_t backend) const noexcept {
    return std::find(tried().begin(), tried().end(), backend) != tried().end();
  }

  void GiveUpForClient() noexcept;
  // Behind this request: a client that has ended may have sent more of them before.
  [[nodiscard]] bool MayTakeAnother() const noexcept {
    return request_done_ && (!client_ended_ || !held_.empty());
  }
  void NoteClientFinished() noexcept;
  [[nodiscard]] std::size_t BytesInFlight() const noexcept;
  [[nodiscard]] bool HasMovedOn() noexcept;
  void PauseClient(net::Pause reason) noexcept;
  // It is not read, so that it may end without our being told.
  [[nodiscard]] bool MayEndUnseen() const noexcept {
    return core_.client.is_paused() && !client_ended_;
  }
  void LookAfterClient() noexcept;

  [[nodiscard]] Instant ConnectDue() const noexcept;
  [[nodiscard]] Instant OverallDue() const noexcept;
  [[nodiscard]] Millis Patience() const noexcept;
  void ArmTimer() noexcept;
  void OnTimer(short what) noexcept;
  void OnOverallDue() noexcept;
  void OnSilenceBehindClientEnd(bool moved) noexcept;

  Core& core_;
  ExchangeSink& sink_;
  net::ConnSink& conn_sink_;
  RequestFacts& facts_;

  Admission admission_;
  std::string request_;  // the head for the backend, kept while it may be sent again
  std::array<std::size_t, kMostAttempts> tried_;  // the first tried_count_
  std::size_t tried_count_ = 0;
  std::string held_;           // client bytes that are not this request's content
  std::string early_content_;  // request content that came before a backend was connected
  net::Buffered buffered_;     // all of them
  http::ChunkedDecoder request_chunks_;
  std::uint64_t request_left_ = 0;  // for Framing::kLength
  http::Framing request_framing_ = http::Framing::kNone;
  bool request_done_ = true;       // all content of the request has passed
  bool request_sent_any_ = false;  // content went to the current backend: no retry any more

  // Content as it was sent, while the connection may turn out to be stale; null: not kept.
  std::unique_ptr<std::string> resend_;
  std::unique_ptr<PartialHead> partial_;
  std::unique_ptr<http::EventBoundary> events_;  // of a response that is a stream of events
  std::unique_ptr<TokenLesson> lesson_;          // of a response that may hand out a token
  http::ChunkedDecoder response_chunks_;
  std::uint64_t response_left_ = 0;
  http::Framing response_framing_ = http::Framing::kNone;

  std::uint64_t bytes_in_ = 0;
  std::uint64_t bytes_out_ = 0;
  std::string_view reason_;
  Instant connect_began_{};
  Instant progress_{};         // last time content moved, or the client's end came
  std::size_t in_flight_ = 0;  // bytes, when the client's end came or progress was last looked for
  Instant end_begun_{};        // see end_events_
  Millis idle_for_{0};    // how long the connection may wait for its next request; 0: not at all
  unsigned interim_ = 0;  // interim answers of the backend so far
  State state_ = State::kConnecting;
  Passage passage_ = Passage::kClose;
  bool upgrade_ = false;  // and it may still become one
  bool head_request_ = false;
  bool safe_method_ = false;  // GET, HEAD or OPTIONS
  bool idempotent_ = false;   // these, PUT or DELETE (RFC 9110 section 9.2.2)
  bool reused_ = false;       // an earlier request has left the backend's connection
  bool client_http10_ = false;
  bool client_keep_alive_ = true;
  bool client_chunked_ = false;    // the response goes out chunked
  bool accepts_events_ = false;    // the request asks for a stream of events
  bool expects_continue_ = false;  // the client may wait with its content for a 100
  bool end_events_ = false;        // the response ends with the event that is on its way
  bool client_ended_ = false;
  bool unanswered_ = false;    // a backend took the request and closed
  bool behind_others_ = true;  // see may_stand_behind_others
};

}  // namespace sluice::session
