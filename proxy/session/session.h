// One client connection and its backend leg, from accept to the last FIN.
//
//   kProxy --header--> kTls --done--> kHead --request--> kExchange --101--> kRelay --> kClosed
//                                       ^                 ^ |
//                                       |    kAuth --2xx--+ |
//                                       |                   |
//                                       +---- keep-alive ---+--last answer--> kLinger --> kClosed
//
// A request of a route with auth passes through kAuth on its way from kHead; anything but a 2xx is
// an answer like that of kExchange.
//
// It begins with kProxy where the listener wants a PROXY header, else with kTls where that speaks
// TLS, else with kHead.
//
// Owned by its Worker, used in its thread only. The phases do the work: AuthCall asks whether a
// request may go on, where its route has auth; Exchange serves one request, Relay what follows a
// 101. Session reads heads, answers what is refused, holds the deadlines between phases and frees
// what is over.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "proxy/proxy_protocol/header.h"
#include "proxy/session/affinity_cookie.h"
#include "proxy/session/auth_call.h"
#include "proxy/session/core.h"
#include "proxy/session/exchange.h"
#include "proxy/session/http_count.h"
#include "proxy/session/relay.h"

namespace sluice::session {

class Session final : public net::Mortal,
                      private net::ConnSink,
                      private ExchangeSink,
                      private RelaySink {
 public:
  // `id` is unique in the process; `listener` is the one that accepted; `over_limit`: the
  // connection is one too many and is told so.
  Session(Services& services, std::uint64_t id, LocalPtr<const ListenerView> listener,
          const net::Address& peer, bool over_limit);
  ~Session() override;

  // Takes the socket and begins.
  void Start(UniqueFd fd) noexcept;

  // The process drains and this session's moment has come: a relay closes in order, an event
  // stream ends between two events, a plain request may finish, everything else ends.
  void Drain() noexcept;

  // The same for what only one backend's drain or the session's age ends: a session that does not
  // last goes on, since it gets another backend with its next request.
  void CloseInOrder(metrics::OwnClose cause) noexcept;

  // Somebody asked for its end: closes in order with `code` (0: the route's) and `reason`.
  // REQUIRES: relaying(); the code may be sent, the reason fits (RFC 6455 section 7.4).
  void Kick(std::uint16_t code, const std::string& reason) noexcept;

  // The end of all patience. `why`: a static word for the access log.
  void Cut(std::string_view why = "drain_deadline") noexcept;

  // Looks after its age and the life of its backend; returns when it wants to be looked after
  // again. For a session that lasts, from OnLasting on. May end the session.
  [[nodiscard]] Instant LookAfter(Instant now) noexcept;
  // When that is for the first time; Instant::max() for never.
  [[nodiscard]] Instant FirstLook() const noexcept;

  // True for what is closed by a drain at an instant of its own: a relay, or an answer that is a
  // stream of events. Once true, it stays so until the session, or that answer, has ended.
  [[nodiscard]] bool lasting() const noexcept {
    return phase_ == Phase::kRelay || (phase_ == Phase::kExchange && exchange().is_event_stream());
  }

  // Of the backend whose leg it holds now; null: none.
  [[nodiscard]] const balance::BackendState* backend_state() const noexcept {
    return core_.leg_count.state();
  }

  // What an operator may ask about an open WebSocket session.
  struct Description {
    std::string client_ip;      // as forwarded: behind a trusted proxy it is not the peer
    std::string peer;           // the client's end of its connection
    std::string proxy;          // the proxy that has told this by a PROXY header, or empty
    std::string_view listener;  // these live as long as the session
    std::string_view route;
    std::string_view pool;
    std::string_view backend;
    std::uint64_t key_hash = 0;  // balance::HashKey of the affinity key
    RelayTotals totals;
    Instant began{};
    bool closing = false;
  };
  // REQUIRES: relaying().
  [[nodiscard]] Description Describe() const;

  [[nodiscard]] bool relaying() const noexcept { return phase_ == Phase::kRelay; }
  // A relay that is ending already.
  [[nodiscard]] bool closing() const noexcept { return relaying() && relay().is_ending(); }

  // After the end: a deadline ended it, its own or that of Cut().
  [[nodiscard]] bool was_forced() const noexcept { return forced_; }

  [[nodiscard]] std::uint64_t id() const noexcept { return core_.id; }

  // Where the Worker keeps it: index into its list.
  std::uint32_t slot = 0;

 private:
  enum class Phase : std::uint8_t {
    kProxy,
    kTls,
    kHead,
    kAuth,
    kExchange,
    kRelay,
    kLinger,
    kClosed
  };

  // Bytes of the client that wait: a head that is not complete, or requests that were sent before
  // the answers to earlier ones were read. The parser has seen none of them, or all without an end.
  struct PartialHead final : net::Mortal {
    PartialHead(net::Loop& loop, Bytes its_bytes, const http::HeadLimits& limits)
        : parser(limits), counted(loop) {
      Append(its_bytes);
    }

    void Append(Bytes more) {
      bytes += AsText(more);
      counted.Set(bytes.size());
    }

    std::string bytes;
    http::RequestParser parser;
    net::Buffered counted;
    // Of answers, that the client has not taken; when it was last looked for.
    std::size_t untaken = std::numeric_limits<std::size_t>::max();
  };

  // A PROXY header that is not complete.
  struct PartialProxy final : net::Mortal {
    explicit PartialProxy(Bytes its_bytes) : bytes(AsText(its_bytes)) {}

    std::string bytes;
  };

  struct Handshake final : net::Mortal {
    explicit Handshake(Instant now) noexcept : began(now) {}

    Instant began;
    std::size_t waiting = 0;  // bytes of a hello that was not complete when it was last looked at
    bool may_leave = false;   // so far it is no fault if the connection ends
  };

  // Who sent a request, as it is told to backends, hashed and logged.
  struct Sender {
    std::string peer_ip;
    std::string client_ip;  // behind a trusted proxy it is not the peer
    bool peer_trusted = false;
    IdText made_id{};
    std::string_view request_id;  // into the head, or made_id
  };

  // A request that an auth server is asked about. Its head is kept as it came and parsed again
  // afterwards, since the views of the first time die with the call that read it.
  struct Checking final : net::Mortal, private AuthCallSink {
    Checking(Session& its_session, Bytes head_bytes, const Sender& its_sender,
             Admission its_admission, Bytes rest);

    void OnAuthCallDone(metrics::AuthResult result) noexcept override { session.OnChecked(result); }

    Session& session;
    std::string head;
    std::string held;  // what the client has sent behind it
    Admission admission;
    Sender sender;
    std::string request_id;  // what that of `sender` is a view of
    net::Buffered buffered;  // both of the head and of what is held
    Instant began;
    AuthCall call;
    bool has_content = false;
  };

  struct Farewell final : net::Mortal {
    Farewell(Instant now, std::size_t its_untaken) noexcept
        : began(now), moved(now), untaken(its_untaken) {}

    Instant began;
    Instant moved;        // when `untaken` became less
    std::size_t untaken;  // what the client had not taken at the last deadline
    bool talks = false;   // it sends on: a close would answer that with a reset
  };

  enum class Taken : std::uint8_t {
    kIncomplete,  // the bytes do not hold a whole head
    kAnswered,    // it was refused, and the connection may carry another one
    kElsewhere,   // what follows is somebody else's: an exchange has it, or the session ends
  };

  // net::ConnSink
  void OnReadable(net::Conn& conn) noexcept override;
  void OnWritable(net::Conn& conn) noexcept override;
  void OnConnected(net::Conn& conn, int error) noexcept override;

  // ExchangeSink
  void OnNotUpgraded() noexcept override {
    EndCounts();
    http_count_.Begin(core_.route_block(facts_));
  }
  void OnExchangeDone(bool reusable, std::string held) noexcept override;
  void OnUpgraded(const Upgraded& upgraded, std::string early_client,
                  Bytes early_backend) noexcept override;
  void OnExchangeBroken() noexcept override;
  void OnEventStream() noexcept override {
    http_count_.BecomeEventStream(core_.route_block(facts_));
    core_.services.owner.OnLasting(*this);
  }

  // RelaySink
  void OnRelayDone() noexcept override;

  [[nodiscard]] Side SideOf(const net::Conn& conn) const noexcept {
    return &conn == &core_.client ? Side::kClient : Side::kBackend;
  }

  void CountAddress();
  [[nodiscard]] bool IsSurplus() noexcept;
  void ReadProxyHeader() noexcept;
  void RefuseProxy(metrics::ProxyHeader result) noexcept;
  void TakeProxyHeader(const proxy_protocol::Header& header) noexcept;
  void BeginSpeaking() noexcept;
  void StepHandshake() noexcept;
  [[nodiscard]] bool HasHello() noexcept;
  [[nodiscard]] Millis FirstHeadPatience() const noexcept;
  [[nodiscard]] Millis MaxAge() const noexcept;
  [[nodiscard]] Instant AgeDue() const noexcept;
  [[nodiscard]] Instant ExpiryDue() const noexcept;
  void ForgetExpiry() noexcept;
  [[nodiscard]] bool AsksForEvents() const noexcept;
  [[nodiscard]] bool IsLastRequest() const noexcept;
  void ReadHead() noexcept;
  void TakeHead(Bytes bytes) noexcept;
  void KeepHead(Bytes bytes) noexcept;
  [[nodiscard]] Taken TakeRequest(http::RequestParser& parser, Bytes& bytes) noexcept;
  void FindSender(const http::RequestHead& head, Sender& sender) const;
  [[nodiscard]] ForwardFacts ForwardFactsOf(const Sender& sender) const noexcept;
  void BeginExchange(const http::RequestHead& head, const ForwardFacts& forward,
                     Admission admission, Bytes rest) noexcept;
  void BeginCheck(const http::RequestHead& head, Bytes head_bytes, const Sender& sender,
                  Admission admission, Bytes rest) noexcept;
  void ReadWhileChecking() noexcept;
  void CountUnchecked(metrics::UpgradeOutcome outcome) noexcept;
  void PauseForCheck() noexcept;
  void LookAfterClient(short what) noexcept;
  void OnClientFinishedWhileChecking() noexcept;
  void EndCheckForClientAtLast(short what) noexcept;
  void EndCheckForClient() noexcept;
  void EndCheck(std::string_view why) noexcept;
  [[nodiscard]] std::optional<http::RequestParser> ParseAgain(const Checking& work) noexcept;
  void OnChecked(metrics::AuthResult result) noexcept;
  void NoteAuthFailure(std::string_view why) noexcept;
  void GoOn(const http::RequestHead& head, const Sender& sender, Admission admission,
            const http::Fields& answer, Bytes rest) noexcept;
  void RefuseLate(const http::RequestHead& head, Checking& work, Refusal refusal) noexcept;
  void RelayDenial(const http::RequestHead& head, Checking& work) noexcept;
  void DrainCheck(bool refuse_upgrade) noexcept;
  [[nodiscard]] std::optional<Refusal> LimitOf(const Sender& sender) noexcept;
  void EndHandshakeCount() noexcept;
  // Of its route, and of the handshakes if it is one still.
  void EndCounts() noexcept;
  [[nodiscard]] bool IsReusable(const http::RequestHead& head, int status) const noexcept;
  [[nodiscard]] bool Refuse(const http::RequestHead& head, const Refusal& refusal) noexcept;
  void FollowToFormerView(const http::RequestHead& head, std::string_view client_ip,
                          Admission& admission) noexcept;
  [[nodiscard]] bool FinishRefusal(int status, std::string_view label, bool reusable) noexcept;
  void TakeHeld(const std::string& held) noexcept;
  void RefuseHead(const http::HeadFault& fault) noexcept;
  void KeepTexts(const http::RequestHead& head, const Sender& sender, std::string_view affinity);
  void LogRequest(std::string_view reason) noexcept;
  void AwaitHead(Millis patience) noexcept;
  void ArmTimer(Millis delay) noexcept;
  void Linger() noexcept;
  void DropWork() noexcept;
  // The request is answered or given up. The connection may go on.
  void EndExchange() noexcept;
  void Close() noexcept;
  void AwaitSlowReader() noexcept;
  void AwaitEndOfClient() noexcept;
  [[nodiscard]] bool HasBegunHead() const noexcept;
  void OnDeadline(short what) noexcept;

  // What the phase works with, see work_.
  [[nodiscard]] bool has_partial() const noexcept { return phase_ == Phase::kHead && work_; }
  [[nodiscard]] PartialHead& partial() const noexcept { return static_cast<PartialHead&>(*work_); }
  [[nodiscard]] std::unique_ptr<PartialHead> TakePartial() noexcept {
    return std::unique_ptr<PartialHead>(static_cast<PartialHead*>(work_.release()));
  }
  [[nodiscard]] PartialProxy& partial_proxy() const noexcept {
    return static_cast<PartialProxy&>(*work_);
  }
  [[nodiscard]] Handshake& handshake() const noexcept { return static_cast<Handshake&>(*work_); }
  [[nodiscard]] Checking& checking() const noexcept { return static_cast<Checking&>(*work_); }
  [[nodiscard]] Exchange& exchange() const noexcept { return static_cast<Exchange&>(*work_); }
  [[nodiscard]] Relay& relay() const noexcept { return static_cast<Relay&>(*work_); }
  [[nodiscard]] Farewell& farewell() const noexcept { return static_cast<Farewell&>(*work_); }

  // An idle session is mostly this object: its members are ordered and sized so that none of it is
  // padding (tests/unit/session/size_test.cc).
  Phase phase_ = Phase::kHead;
  HttpCount http_count_;
  bool over_limit_ : 1 = false;
  bool over_ip_limit_ : 1 = false;
  bool ip_counted_ : 1 = false;
  bool serving_ : 1 = false;  // TakeHead is on the stack
  bool surplus_ : 1 = false;  // so far over a limit that it is not even told so
  bool ending_ : 1 = false;   // no further request is taken
  bool forced_ : 1 = false;
  bool handshake_counted_ : 1 = false;  // it is one of the upgrades under way
  bool route_counted_ : 1 = false;      // the upgrade, or what became of it, counts at its route
  bool expires_ : 1 = false;            // what it was allowed has an end: see auth_expiries
  Core core_;
  RequestFacts facts_;  // of the request being served
  // kProxy: a PartialProxy, or none. kTls: a Handshake. kHead: a PartialHead, or none. kAuth: a
  // Checking. kExchange: the Exchange. kRelay: the Relay. kLinger: a Farewell.
  std::unique_ptr<net::Mortal> work_;
};

}  // namespace sluice::session
