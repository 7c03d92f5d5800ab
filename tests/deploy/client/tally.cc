#include "tests/deploy/client/tally.h"

#include <sys/resource.h>

namespace sluice::deploy {
namespace {

using bench::Die;

double InSeconds(Nanoseconds time) {
  return static_cast<double>(time) / 1e9;
}

unsigned long long Wide(std::uint64_t value) {
  return value;
}

double CpuSeconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

Tally::Tally(const std::string& report) {
  if (!report.empty()) {
    report_.reset(std::fopen(report.c_str(), "we"));
    if (!report_) {
      bench::DieErrno("open " + report);
    }
  }
}

void Tally::Count(std::uint32_t uid, const Incarnation& one) {
  const bool was_open = one.opened_at != 0;
  const bool clean = one.answered && std::string_view(one.ended) == "fin";
  if (was_open) {
    ++opened_;
    torn_ += one.torn ? 1U : 0U;
    unclean_ += clean ? 0U : 1U;
    gaps_ += one.received.gaps();
    duplicates_ += one.received.duplicates();
    reordered_ += one.received.reordered();
    ++(one.closed_by_us ? own_closes_ : closes_)[std::to_string(one.close_code)];
    if (one.violation != nullptr) {
      ++violations_[one.violation];
    }
  } else {
    ++failures_[one.failure];
    if (one.status != 0) {
      ++statuses_[std::to_string(one.status)];
    }
  }
  if (!report_) {
    return;
  }
  std::FILE* const out = report_.get();
  std::fprintf(out, "{\"uid\": %u, \"n\": %u, \"started_at\": %.6f, \"ended_at\": %.6f, ", uid,
               one.number, InSeconds(one.started_at), InSeconds(one.ended_at));
  if (!was_open) {
    std::fprintf(out, "\"failure\": \"%s\", \"status\": %d}\n", one.failure, one.status);
    return;
  }
  std::fprintf(out, "\"opened_at\": %.6f, \"close_at\": %.6f, \"close_code\": %d, \"by\": \"%s\", ",
               InSeconds(one.opened_at), InSeconds(one.close_at), one.close_code,
               one.closed_by_us ? "client" : "peer");
  std::fprintf(out, "\"ended\": \"%s\", \"clean\": %s, \"torn\": %s, ", one.ended,
               clean ? "true" : "false", one.torn ? "true" : "false");
  if (one.violation != nullptr) {
    std::fprintf(out, "\"violation\": \"%s\", ", one.violation);
  }
  if (one.received.fault_number() != 0) {
    std::fprintf(out, "\"fault\": \"%llu after %llu\", ", Wide(one.received.fault_number()),
                 Wide(one.received.fault_after()));
  }
  std::fprintf(out,
               "\"sent_last\": %llu, \"received_last\": %llu, \"received_count\": %llu, "
               "\"gaps\": %llu, \"duplicates\": %llu, \"reordered\": %llu}\n",
               Wide(one.sent), Wide(one.received.highest()), Wide(one.received.count()),
               Wide(one.received.gaps()), Wide(one.received.duplicates()),
               Wide(one.received.reordered()));
}

void Tally::CountReceived(Nanoseconds latency) {
  latency_.Add(std::chrono::nanoseconds(latency));
  longest_ = std::max(longest_, latency);
}

void Tally::CountReconnect(Nanoseconds at) {
  if (first_bin_ == 0) {
    first_bin_ = at;
  }
  const auto bin = std::min(static_cast<std::size_t>((at - first_bin_) / kBin), kMaxBins - 1);
  if (bin >= bins_.size()) {
    bins_.resize(bin + 1);
  }
  ++bins_[bin];
}

std::string Tally::Members() const {
  if (report_) {
    std::fflush(report_.get());
  }
  std::string text =
      "\"incarnations\": " + std::to_string(opened_) + ", \"closes\": " + JsonOf(closes_) +
      ", \"own_closes\": " + JsonOf(own_closes_) + ", \"failures\": " + JsonOf(failures_) +
      ", \"statuses\": " + JsonOf(statuses_) + ", \"violations\": " + JsonOf(violations_);
  std::array<char, 512> numbers{};
  std::snprintf(numbers.data(), numbers.size(),
                ", \"torn\": %llu, \"unclean\": %llu, \"gaps\": %llu, \"duplicates\": %llu, "
                "\"reordered\": %llu, \"sent\": %llu, \"received\": %llu, \"p50_us\": %.1f, "
                "\"p99_us\": %.1f, \"max_us\": %.1f, \"cpu_seconds\": %.2f, "
                "\"first_reconnect_at\": %.6f, \"reconnects\": [",
                Wide(torn_), Wide(unclean_), Wide(gaps_), Wide(duplicates_), Wide(reordered_),
                Wide(sent_), Wide(latency_.total()), latency_.Quantile(0.5),
                latency_.Quantile(0.99), static_cast<double>(longest_) / 1000.0, CpuSeconds(),
                InSeconds(first_bin_));
  text += numbers.data();
  for (std::size_t i = 0; i < bins_.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(bins_[i]);
  }
  return text + "]";
}

}  // namespace sluice::deploy
