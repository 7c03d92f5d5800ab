// Adds up how incarnations went: a line of JSON for each in a file, and totals for the end.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "tests/bench/load/histogram.h"
#include "tests/deploy/client/session.h"
#include "tests/deploy/counts.h"

namespace sluice::deploy {

class Tally {
 public:
  // `report`: the file, written anew; empty: none.
  explicit Tally(const std::string& report);

  void Count(std::uint32_t uid, const Incarnation& incarnation);
  void CountSent() { ++sent_; }
  void CountReceived(Nanoseconds latency);
  // A client whose open session ended begins to connect again.
  void CountReconnect(Nanoseconds at);

  // Members of a JSON object, without its braces. Everything in the file is flushed.
  [[nodiscard]] std::string Members() const;

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };

  static constexpr Nanoseconds kBin = 100 * kMillisecond;
  static constexpr std::size_t kMaxBins = 100'000;  // nearly three hours

  std::unique_ptr<std::FILE, CloseFile> report_;
  std::uint64_t opened_ = 0;
  std::uint64_t torn_ = 0;
  std::uint64_t unclean_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t gaps_ = 0;
  std::uint64_t duplicates_ = 0;
  std::uint64_t reordered_ = 0;
  Counts closes_;      // by the code that the other side began with; "1006": none
  Counts own_closes_;  // the same where we began: by the code of the answer
  Counts failures_;
  Counts statuses_;
  Counts violations_;
  bench::Histogram latency_;
  Nanoseconds longest_ = 0;
  Nanoseconds first_bin_ = 0;  // when it begins; 0: nobody has connected again
  std::vector<std::uint32_t> bins_;
};

}  // namespace sluice::deploy
