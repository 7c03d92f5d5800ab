// One lookup of the backends behind a name: the question, for SRV records those after the addresses
// of their targets, and one outcome. UDP first, TCP where an answer is truncated; retries, servers
// and the matching of answers to questions are those of c-ares, driven by the loop.
//
// Each lookup has a channel of its own: it reads /etc/resolv.conf anew, and has ports of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proxy/base/bytes.h"
#include "proxy/base/clock.h"
#include "proxy/base/result.h"
#include "proxy/discovery/dns_answer.h"
#include "proxy/discovery/endpoint.h"
#include "proxy/net/event.h"
#include "proxy/net/loop.h"

struct ares_channeldata;  // as <ares.h> has it

namespace sluice::discovery {

enum class RecordType : std::uint8_t { kA, kAaaa, kSrv };

struct DnsQuestion {
  std::string name;  // as it stands, without search domains
  RecordType type = RecordType::kA;
  std::uint16_t port = 0;            // of what kA and kAaaa find
  std::vector<std::string> servers;  // "ADDRESS:PORT"; empty: those of /etc/resolv.conf
  Millis timeout{5'000};             // for all of it
};

struct DnsAnswer {
  std::vector<Endpoint> endpoints;  // tidied, never empty
  std::size_t dropped = 0;          // beyond kMostEndpoints
  Millis ttl{0};                    // the least of all records that it is made of
};

class DnsLookup final : public net::Mortal {
 public:
  using Done = std::function<void(Result<DnsAnswer>)>;

  // Begins. `done` is called once, from the loop; the lookup may be buried then, not destroyed.
  // Ended before that, it calls nobody. `loop` outlives it.
  DnsLookup(net::Loop& loop, DnsQuestion question, Done done);
  ~DnsLookup() override;

 private:
  class Socket;
  struct Query;

  // A target of SRV records, and where it is once that is known.
  struct Target {
    std::string name;
    std::optional<net::Address> address;
  };

  [[nodiscard]] int Open();
  void Ask(const std::string& name, int type, std::size_t target);
  void TakeAnswer(const Query& query, int status, Bytes message);
  void TakeMain(int status, Bytes message);
  void TakeTarget(const Query& query, int status, Bytes message);
  void AskTargets();
  void Finish(Result<DnsAnswer> outcome);
  void OnSocketState(int fd, bool readable, bool writable);
  void Process(int readable, int writable);
  void ArmRetryTimer();
  void OnRetryTimer(short what) noexcept;
  void OnEndTimer(short what) noexcept;

  net::Loop& loop_;
  DnsQuestion question_;
  Done done_;
  std::map<int, std::unique_ptr<Socket>> sockets_;  // by descriptor
  ares_channeldata* channel_ = nullptr;             // null: it could not be opened
  net::Timer retry_timer_;                          // when c-ares wants to be looked after
  net::Timer end_timer_;                            // the deadline; then, the outcome
  std::optional<Result<DnsAnswer>> outcome_;
  SrvAnswer srv_;
  std::vector<Target> targets_;
  std::size_t next_target_ = 0;  // the first that is not asked for yet
  std::size_t asking_ = 0;       // targets that are being asked for
  Millis ttl_{0};
};

}  // namespace sluice::discovery
