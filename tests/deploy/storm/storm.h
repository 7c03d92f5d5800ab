// Many sessions at a time through one proxy, client and backend of each in this process; new ones
// take the place of those that are over, until enough have been closed.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "tests/deploy/storm/admin.h"
#include "tests/deploy/storm/pair.h"

namespace sluice::storm {

struct Options {
  std::uint64_t seed = 1;
  std::size_t at_once = 300;
  std::uint32_t first = 1;  // session; each has its own plan
  std::uint32_t only = 0;   // the plan of this session, again and again; 0: of all
  bool calm = false;        // no end does anything but talk and answer
  Weights weights{};
  Nanoseconds message_grace = 0;
  Nanoseconds close_timeout = 0;
};

// One proxy, from its start to its end.
struct Round {
  sockaddr_in plain{};
  sockaddr_in secure{};
  sockaddr_in admin{};
  bool has_tls = false;
  bool has_admin = false;
  std::uint64_t closes = 0;  // then it is full
  std::size_t cut_above = 0;
};

class Storm : public PairOwner {
 public:
  static constexpr std::size_t kBackends = 4;

  Storm(EventLoop& loop, const Options& options);
  ~Storm() override;

  [[nodiscard]] std::uint16_t port(std::size_t backend) const;

  void Begin(const Round& round);
  // After each turn of the loop.
  void Step();
  // Enough sessions were closed, the others are open: the proxy may be told to go. Once true.
  [[nodiscard]] bool TakeFull();
  // All sessions of the round are over. Once true.
  [[nodiscard]] bool TakeDone();
  // Of the round, as JSON.
  [[nodiscard]] std::string Summary() const;
  [[nodiscard]] std::size_t open() const { return pairs_.size(); }

  void Kick(Pair& pair) override;
  void OnOver(Pair& pair) override;

 private:
  class Door;
  class Arrival;
  friend class Arrival;
  friend class Door;

  enum class Stage { kIdle, kRunning, kFilling, kEmptying, kCounting, kDone };

  void OnArrival(Arrival& arrival, UniqueFd fd, const std::string& head, std::size_t backend);
  void OpenMore();
  void DrainOne();
  void Undrain(std::size_t backend);
  void BeginAnchor();
  void CountTorn();
  void Count(const Pair& pair);
  void AbandonOld();
  [[nodiscard]] bool IsEnough() const;

  EventLoop& loop_;
  Options options_;
  Round round_;
  Rules rules_;
  bench::SslCtxPtr tls_;
  Admin admin_;
  Stage stage_ = Stage::kIdle;
  std::array<std::unique_ptr<Door>, kBackends> doors_;
  std::array<bool, kBackends> draining_{};
  std::vector<std::unique_ptr<Arrival>> arrivals_;
  std::unordered_map<std::uint32_t, std::unique_ptr<Pair>> pairs_;
  std::vector<std::uint32_t> over_;  // of this turn
  std::uint32_t next_uid_ = 1;
  Nanoseconds next_drain_at_ = 0;
  Nanoseconds undrain_at_ = 0;
  std::size_t drained_ = 0;
  bool drain_under_way_ = false;
  Nanoseconds next_sweep_at_ = 0;
  // A request that is not answered before all is counted: for so long a proxy that drains stays.
  UniqueFd anchor_client_;
  UniqueFd anchor_backend_;

  std::uint64_t sessions_ = 0;
  std::uint64_t closes_ = 0;
  std::uint64_t backend_closes_ = 0;
  std::uint64_t torn_client_ = 0;
  std::uint64_t torn_backend_ = 0;
  std::uint64_t maybe_torn_ = 0;
  std::uint64_t complete_ = 0;
  std::uint64_t full_ = 0;
  std::uint64_t tls_closes_ = 0;
  std::uint64_t deflate_closes_ = 0;
  std::uint64_t cut_closes_ = 0;
  std::int64_t counted_torn_ = -1;   // sluice_torn_total
  std::int64_t counted_pauses_ = 0;  // sluice_backpressure_pauses_total
  std::uint64_t violations_ = 0;
  std::vector<std::string> told_;  // the first of them
  std::map<std::string, std::uint64_t> failures_;
  std::map<std::string, std::uint64_t> labels_;
  std::map<std::string, std::uint64_t> at_trigger_;
  std::map<std::string, std::uint64_t> at_close_;
};

}  // namespace sluice::storm
