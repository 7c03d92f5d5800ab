// One client connection and its backend leg, from accept to the last FIN.
//
//   kTls --done--> kHead --request--> kExchange --101--> kRelay --over--> kClosed
//                    ^                    |
//                    +---- keep-alive ----+--last answer--> kLinger --EOF--> kClosed
//
// Owned by its Worker, used in its thread only. The phases do the work: Exchange one request,
// Relay what follows a 101. Session reads heads, answers what is refused, holds the deadlines
// between phases and frees what is over.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "proxy/session/affinity_cookie.h"
#include "proxy/session/core.h"
#include "proxy/session/exchange.h"
#include "proxy/session/relay.h"

namespace sluice::session {

class Session final : public net::Mortal,
                      private net::ConnSink,
                      private ExchangeSink,
                      private RelaySink {
 public:
  // `id` is unique in the process; `listener` the index of the listener that accepted;
  // `over_limit`: the connection is one too many and is told so.
  Session(Services& services, std::uint64_t id, std::size_t listener, const net::Address& peer,
          bool over_limit);
  ~Session() override;

  // Takes the socket and begins. `transport` is null for a plain listener.
  void Start(UniqueFd fd, std::unique_ptr<net::Transport> transport) noexcept;

  // The process drains and this session's moment has come: a relay closes in order, a plain
  // request may finish, everything else ends.
  void Drain() noexcept;

  // The end of all patience.
  void Cut() noexcept;

  [[nodiscard]] bool relaying() const noexcept { return phase_ == Phase::kRelay; }

  // After the end: a deadline ended it, its own or that of Cut().
  [[nodiscard]] bool was_forced() const noexcept { return forced_; }

  [[nodiscard]] std::uint64_t id() const noexcept { return core_.id; }

  // Where the Worker keeps it: index into its list.
  std::uint32_t slot = 0;

 private:
  enum class Phase : std::uint8_t { kTls, kHead, kExchange, kRelay, kLinger, kClosed };

  // Bytes of the client that wait: a head that is not complete, or requests that were sent before
  // the answers to earlier ones were read. The parser has seen none of them, or all without an end.
  struct PartialHead final : net::Mortal {
    PartialHead(Bytes its_bytes, const http::HeadLimits& limits)
        : bytes(AsText(its_bytes)), parser(limits) {}

    std::string bytes;
    http::RequestParser parser;
  };

  struct Handshake final : net::Mortal {
    explicit Handshake(Instant now) noexcept : began(now) {}

    Instant began;
  };

  struct Farewell final : net::Mortal {
    Farewell(Instant now, std::size_t its_pending) noexcept : began(now), pending(its_pending) {}

    Instant began;
    std::size_t pending;  // what waited for the client at the last deadline
  };

  // Who sent a request, as it is told to backends, hashed and logged.
  struct Sender {
    std::string peer_ip;
    std::string client_ip;  // behind a trusted proxy it is not the peer
    bool peer_trusted = false;
    IdText made_id{};
    std::string_view request_id;  // into the head, or made_id
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
  void OnExchangeDone(bool reusable, std::string held) noexcept override;
  void OnUpgraded(bool rsv1, std::string early_client, Bytes early_backend) noexcept override;
  void OnExchangeBroken() noexcept override;

  // RelaySink
  void OnRelayDone() noexcept override;

  [[nodiscard]] Side SideOf(const net::Conn& conn) const noexcept {
    return &conn == &core_.client ? Side::kClient : Side::kBackend;
  }

  void StepHandshake() noexcept;
  [[nodiscard]] Millis FirstHeadPatience() const noexcept;
  void ReadHead() noexcept;
  void TakeHead(Bytes bytes) noexcept;
  void KeepHead(Bytes bytes) noexcept;
  [[nodiscard]] Taken TakeRequest(http::RequestParser& parser, Bytes& bytes) noexcept;
  void FindSender(const http::RequestHead& head, Sender& sender) const;
  void BeginExchange(const http::RequestHead& head, const Sender& sender, Admission admission,
                     Bytes rest) noexcept;
  [[nodiscard]] bool Refuse(const http::RequestHead& head, const Refusal& refusal) noexcept;
  void RefuseHead(const http::HeadFault& fault) noexcept;
  void KeepTexts(const http::RequestHead& head, const Sender& sender, std::string_view affinity);
  void LogRequest(std::string_view reason) noexcept;
  void AwaitHead(Millis patience) noexcept;
  void ArmTimer(Millis delay) noexcept;
  void Linger() noexcept;
  void DropWork() noexcept;
  void Close() noexcept;
  void OnDeadline(short what) noexcept;

  // What the phase works with, see work_.
  [[nodiscard]] bool has_partial() const noexcept { return phase_ == Phase::kHead && work_; }
  [[nodiscard]] std::unique_ptr<PartialHead> TakePartial() noexcept {
    return std::unique_ptr<PartialHead>(static_cast<PartialHead*>(work_.release()));
  }
  [[nodiscard]] Handshake& handshake() const noexcept { return static_cast<Handshake&>(*work_); }
  [[nodiscard]] Exchange& exchange() const noexcept { return static_cast<Exchange&>(*work_); }
  [[nodiscard]] Relay& relay() const noexcept { return static_cast<Relay&>(*work_); }
  [[nodiscard]] Farewell& farewell() const noexcept { return static_cast<Farewell&>(*work_); }

  // An idle session is mostly this object: its members are ordered and sized so that none of it is
  // padding (tests/unit/session/size_test.cc).
  Phase phase_ = Phase::kHead;
  bool over_limit_ : 1 = false;
  bool over_ip_limit_ : 1 = false;
  bool ip_counted_ : 1 = false;
  bool served_any_ : 1 = false;  // a request has been taken
  bool serving_ : 1 = false;     // TakeHead is on the stack
  bool surplus_ : 1 = false;     // so far over a limit that it is not even told so
  bool ending_ : 1 = false;      // no further request is taken
  bool forced_ : 1 = false;
  Core core_;
  RequestFacts facts_;  // of the request being served
  // kTls: a Handshake. kHead: a PartialHead, or none. kExchange: the Exchange. kRelay: the Relay.
  // kLinger: a Farewell.
  std::unique_ptr<net::Mortal> work_;
};

}  // namespace sluice::session
