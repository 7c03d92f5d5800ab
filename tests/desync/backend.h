// The backend of the laboratory: reads what Sluice sends as llhttp does, holds it against the
// ledger, and answers as each request wants.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

#include "tests/deploy/event_loop.h"
#include "tests/deploy/storm/dice.h"
#include "tests/desync/http_reader.h"
#include "tests/desync/ledger.h"
#include "tests/desync/pieces.h"

namespace sluice::desync {

class BackendConn : public deploy::Participant {
 public:
  BackendConn(deploy::EventLoop& loop, Ledger& ledger, UniqueFd fd, std::uint64_t seed);

  void OnEvent(std::uint32_t events) override;
  void OnTimer() override {}

  [[nodiscard]] bool is_open() const { return fd_.valid(); }
  [[nodiscard]] std::uint64_t requests() const { return requests_; }

 private:
  void Read();
  void OnRequest(const Message& request);
  void Judge(const Message& request, std::uint64_t id);
  void OnEnd();
  void Send();
  void Close() { fd_.Reset(); }

  deploy::EventLoop& loop_;
  Ledger& ledger_;
  UniqueFd fd_;
  storm::Dice dice_;
  HttpReader reader_{HTTP_REQUEST};
  Pieces pieces_;
  std::uint64_t last_id_ = 0;
  std::uint64_t requests_ = 0;
  bool continued_ = false;  // the request that has begun was told to go on
  bool spoiled_ = false;    // no further request may come
  bool closes_ = false;     // when all is sent
  bool watches_room_ = false;
};

class Backend : public deploy::Participant {
 public:
  // Prints its port.
  Backend(deploy::EventLoop& loop, Ledger& ledger, std::uint64_t seed);

  void OnEvent(std::uint32_t events) override;
  void OnTimer() override {}

  // Between two turns.
  void Sweep();

  [[nodiscard]] std::uint16_t port() const { return port_; }
  [[nodiscard]] std::uint64_t connections() const { return connections_; }
  // Of one connection.
  [[nodiscard]] std::uint64_t most_requests() const { return most_requests_; }

 private:
  deploy::EventLoop& loop_;
  Ledger& ledger_;
  std::uint64_t seed_;
  UniqueFd listener_;
  std::uint16_t port_ = 0;
  std::vector<std::unique_ptr<BackendConn>> conns_;
  std::uint64_t connections_ = 0;
  std::uint64_t most_requests_ = 0;
};

}  // namespace sluice::desync
