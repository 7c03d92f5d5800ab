#include "tests/deploy/storm/storm.h"

#include <cstdlib>
#include <utility>

namespace sluice::storm {
namespace {

using deploy::kMillisecond;
using deploy::kSecond;
using deploy::Now;

constexpr Nanoseconds kPatience = 90 * kSecond;
constexpr std::size_t kTold = 20;
constexpr std::size_t kMaxOpening = 60;  // so that the listeners' queues do not overflow

std::string Json(const std::map<std::string, std::uint64_t>& counts) {
  std::string text = "{";
  for (const auto& [name, count] : counts) {
    text += (text.size() > 1 ? ", \"" : "\"") + name + "\": " + std::to_string(count);
  }
  return text + "}";
}

// Of all series of the metric `name`.
std::int64_t SumOf(std::string_view metrics, const std::string& name) {
  std::int64_t sum = 0;
  const std::string begin = "\n" + name + "{";
  for (std::size_t at = metrics.find(begin); at != std::string_view::npos;
       at = metrics.find(begin, at + 1)) {
    const std::size_t value = metrics.find("} ", at);
    sum += std::atoll(std::string(metrics.substr(value + 2, 20)).c_str());
  }
  return sum;
}

std::string JsonText(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
    }
    quoted += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  }
  return quoted + "\"";
}

}  // namespace

// A connection of the proxy until its request is read.
class Storm::Arrival : public deploy::Participant {
 public:
  Arrival(Storm& storm, UniqueFd fd, std::size_t backend)
      : storm_(storm), fd_(std::move(fd)), backend_(backend) {
    storm_.loop_.Add(fd_.get(), EPOLLIN, *this);
  }

  void OnEvent(std::uint32_t /*events*/) override {
    if (!fd_.valid()) {
      return;
    }
    // Byte by byte at the end: what is behind the head is for the session to read.
    std::array<char, 4096> buffer;
    const ssize_t seen = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_PEEK);
    if (seen <= 0) {
      if (seen == 0 || errno != EAGAIN) {
        fd_.Reset();
      }
      return;
    }
    const std::string_view have(buffer.data(), static_cast<std::size_t>(seen));
    const std::size_t before = head_.size();
    head_.append(have);
    const std::size_t end = head_.find("\r\n\r\n");
    head_.resize(end == std::string::npos ? head_.size() : end + 4);
    const ssize_t taken = ::recv(fd_.get(), buffer.data(), head_.size() - before, 0);
    if (taken != static_cast<ssize_t>(head_.size() - before)) {
      bench::Die("a head that was seen cannot be read");
    }
    if (end != std::string::npos) {
      storm_.OnArrival(*this, std::move(fd_), head_, backend_);
    }
  }
  void OnTimer() override {}

  [[nodiscard]] bool done() const { return !fd_.valid(); }

 private:
  Storm& storm_;
  UniqueFd fd_;
  std::size_t backend_;
  std::string head_;
};

// The port of one backend.
class Storm::Door : public deploy::Participant {
 public:
  Door(Storm& storm, std::size_t backend) : storm_(storm), backend_(backend) {
    fd_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    deploy::Wire::MakeNarrow(fd_.get());
    sockaddr_in address = bench::Loopback(0);
    socklen_t size = sizeof(address);
    if (!fd_.valid() ||
        ::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
        ::listen(fd_.get(), 4096) != 0 ||
        ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      bench::DieErrno("listen");
    }
    port_ = ntohs(address.sin_port);
    storm_.loop_.Add(fd_.get(), EPOLLIN, *this);
  }

  void OnEvent(std::uint32_t /*events*/) override {
    for (UniqueFd fd = bench::Accept(fd_.get()); fd.valid(); fd = bench::Accept(fd_.get())) {
      storm_.arrivals_.push_back(std::make_unique<Arrival>(storm_, std::move(fd), backend_));
    }
  }
  void OnTimer() override {}

  [[nodiscard]] std::uint16_t port() const { return port_; }

 private:
  Storm& storm_;
  std::size_t backend_;
  UniqueFd fd_;
  std::uint16_t port_ = 0;
};

Storm::Storm(EventLoop& loop, const Options& options)
    : loop_(loop),
      options_(options),
      tls_(deploy::MakeTls()),
      admin_(loop),
      next_uid_(options.first) {
  for (std::size_t i = 0; i < kBackends; ++i) {
    doors_[i] = std::make_unique<Door>(*this, i);
  }
}

Storm::~Storm() = default;

std::uint16_t Storm::port(std::size_t backend) const {
  return doors_[backend]->port();
}

void Storm::Begin(const Round& round) {
  round_ = round;
  rules_.message_grace = options_.message_grace;
  rules_.close_timeout = options_.close_timeout;
  rules_.cut_above = round.cut_above;
  sessions_ = closes_ = backend_closes_ = torn_client_ = torn_backend_ = maybe_torn_ = complete_ =
      full_ = 0;
  tls_closes_ = deflate_closes_ = cut_closes_ = violations_ = 0;
  counted_torn_ = -1;
  counted_pauses_ = 0;
  told_.clear();
  failures_.clear();
  labels_.clear();
  at_trigger_.clear();
  at_close_.clear();
  stage_ = Stage::kRunning;
  if (round_.has_admin) {
    admin_.SetAddress(round_.admin);
    BeginAnchor();
    next_drain_at_ = Now() + 300 * kMillisecond;
  }
}

void Storm::BeginAnchor() {
  anchor_client_ = bench::Connect(ntohs(round_.plain.sin_port));
  const std::string request = "GET /std HTTP/1.1\r\nHost: storm.test\r\n\r\n";
  if (::send(anchor_client_.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) {
    bench::DieErrno("send");
  }
}

void Storm::OnArrival(Arrival& /*arrival*/, UniqueFd fd, const std::string& head,
                      std::size_t backend) {
  const std::size_t at = head.find("?uid=");
  if (at == std::string::npos) {
    anchor_backend_ = std::move(fd);
    return;
  }
  const auto uid = static_cast<std::uint32_t>(std::strtoul(head.c_str() + at + 5, nullptr, 10));
  const auto found = pairs_.find(uid);
  if (found == pairs_.end()) {
    return;  // its client has given up
  }
  found->second->Adopt(std::move(fd), head, backend);
  if (draining_[backend]) {
    found->second->NoteBackendDrain();
  }
}

void Storm::OpenMore() {
  std::size_t opening = 0;
  for (const auto& [uid, pair] : pairs_) {
    opening += pair->is_opening() ? 1 : 0;
  }
  while (pairs_.size() < options_.at_once && opening < kMaxOpening) {
    const std::uint32_t uid = next_uid_++;
    Plan plan = MakePlan(options_.seed, options_.only != 0 ? options_.only : uid, options_.weights,
                         round_.has_tls, options_.calm);
    plan.uid = uid;
    auto pair = std::make_unique<Pair>(loop_, *this, plan, rules_);
    Pair& here = *pair;
    pairs_.emplace(uid, std::move(pair));
    here.Start(plan.tls ? round_.secure : round_.plain, tls_.get());
    ++opening;
  }
}

void Storm::Kick(Pair& pair) {
  pair.NoteKick();
  const Plan& plan = pair.plan();
  admin_.Ask("DELETE /sessions?affinity=" + std::to_string(plan.uid) + "&code=" +
                 std::to_string(plan.kick_code) + "&reason=kick%20" + std::to_string(plan.uid),
             [this](int status, std::string_view /*body*/) {
               if (status != 200) {
                 ++failures_["kick " + std::to_string(status)];
               }
             });
}

void Storm::DrainOne() {
  const std::size_t backend = drained_++ % kBackends;
  drain_under_way_ = true;
  draining_[backend] = true;
  for (const auto& [uid, pair] : pairs_) {
    if (pair->backend() == backend) {
      pair->NoteBackendDrain();
    }
  }
  admin_.Ask("POST /backends/app/b" + std::to_string(backend) + "/drain?window=0s",
             [this](int status, std::string_view /*body*/) {
               if (status != 202) {
                 ++failures_["drain " + std::to_string(status)];
               }
               undrain_at_ = Now() + 50 * kMillisecond;
             });
}

void Storm::Undrain(std::size_t backend) {
  undrain_at_ = 0;
  admin_.Ask("POST /backends/app/b" + std::to_string(backend) + "/undrain",
             [this, backend](int status, std::string_view /*body*/) {
               if (status != 200) {
                 ++failures_["undrain " + std::to_string(status)];
               }
               draining_[backend] = false;
               drain_under_way_ = false;
               next_drain_at_ = Now() + 400 * kMillisecond;
             });
}

bool Storm::IsEnough() const {
  return (options_.only != 0 || options_.calm ? sessions_ : closes_) >= round_.closes;
}

void Storm::Step() {
  for (const std::uint32_t uid : over_) {
    const auto found = pairs_.find(uid);
    Count(*found->second);
    pairs_.erase(found);
  }
  over_.clear();
  std::erase_if(arrivals_, [](const auto& one) { return one->done(); });
  const Nanoseconds now = Now();
  if (now >= next_sweep_at_) {
    next_sweep_at_ = now + kSecond;
    AbandonOld();
  }
  const bool drains =
      round_.has_admin && options_.weights[static_cast<std::size_t>(Cause::kWait)] > 0;
  switch (stage_) {
    case Stage::kRunning:
      if (undrain_at_ != 0 && now >= undrain_at_) {
        Undrain((drained_ - 1) % kBackends);
      }
      if (IsEnough() && !drain_under_way_) {
        stage_ = round_.has_admin ? Stage::kFilling : Stage::kEmptying;
        break;
      }
      if (drains && !drain_under_way_ && now >= next_drain_at_ && !IsEnough()) {
        DrainOne();
      }
      OpenMore();
      break;
    case Stage::kEmptying:
      if (pairs_.empty()) {
        stage_ = Stage::kCounting;
        if (round_.has_admin) {
          CountTorn();
        } else {
          stage_ = Stage::kDone;
        }
      }
      break;
    default:
      break;
  }
}

bool Storm::TakeFull() {
  if (stage_ != Stage::kFilling) {
    return false;
  }
  for (const auto& [uid, pair] : pairs_) {
    if (pair->is_opening() || !pair->backend()) {
      return false;
    }
  }
  for (const auto& [uid, pair] : pairs_) {
    pair->NoteProcessDrain();
  }
  stage_ = Stage::kEmptying;
  return true;
}

bool Storm::TakeDone() {
  if (stage_ != Stage::kDone) {
    return false;
  }
  stage_ = Stage::kIdle;
  return true;
}

void Storm::CountTorn() {
  admin_.Ask("GET /metrics", [this](int status, std::string_view body) {
    if (status != 200) {
      ++failures_["metrics " + std::to_string(status)];
    }
    counted_torn_ = SumOf(body, "sluice_torn_total");
    counted_pauses_ = SumOf(body, "sluice_backpressure_pauses_total");
    constexpr std::string_view kAnswer =
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    ::send(anchor_backend_.get(), kAnswer.data(), kAnswer.size(), MSG_NOSIGNAL);
    anchor_backend_.Reset();
    anchor_client_.Reset();
    stage_ = Stage::kDone;
  });
}

void Storm::AbandonOld() {
  const Nanoseconds now = Now();
  for (const auto& [uid, pair] : pairs_) {
    if (now - pair->started_at() > kPatience) {
      pair->Abandon();
    }
  }
}

void Storm::OnOver(Pair& pair) {
  over_.push_back(pair.plan().uid);
}

void Storm::Count(const Pair& pair) {
  const Verdict verdict = pair.Judge();
  ++sessions_;
  if (!verdict.failure.empty()) {
    ++failures_[verdict.failure];
    return;
  }
  const Plan& plan = pair.plan();
  if (verdict.closed) {
    ++labels_[Name(*verdict.closed)];
    if (*verdict.closed != Closed::kRelayed) {
      ++closes_;
      full_ += pair.was_full() ? 1 : 0;
      tls_closes_ += plan.tls ? 1 : 0;
      deflate_closes_ += plan.deflate ? 1 : 0;
      cut_closes_ += plan.cut ? 1 : 0;
      if (pair.at_trigger()) {
        ++at_trigger_[Name(*pair.at_trigger())];
      }
      if (pair.at_close()) {
        ++at_close_[Name(*pair.at_close())];
      }
    }
  }
  backend_closes_ += verdict.closed_backend ? 1 : 0;
  torn_client_ += verdict.torn_client ? 1 : 0;
  torn_backend_ += verdict.torn_backend ? 1 : 0;
  maybe_torn_ += verdict.maybe_torn ? 1 : 0;
  complete_ += verdict.complete ? 1 : 0;
  for (const std::string& problem : verdict.problems) {
    ++violations_;
    if (told_.size() < kTold) {
      told_.push_back(problem + " (" + plan.Text() + ")");
    }
  }
}

std::string Storm::Summary() const {
  const auto number = [](const char* name, std::int64_t value) {
    return "\"" + std::string(name) + "\": " + std::to_string(value) + ", ";
  };
  const auto count = [&](const char* name, std::uint64_t value) {
    return number(name, static_cast<std::int64_t>(value));
  };
  std::string told;
  for (const std::string& one : told_) {
    told += (told.empty() ? "" : ", ") + JsonText(one);
  }
  return "{" + count("sessions", sessions_) + count("closes", closes_) +
         count("backend_closes", backend_closes_) + count("violations", violations_) +
         "\"told\": [" + told + "], " + "\"labels\": " + Json(labels_) +
         ", \"failures\": " + Json(failures_) + ", " + count("torn_client", torn_client_) +
         count("torn_backend", torn_backend_) + count("maybe_torn", maybe_torn_) +
         number("counted_torn", counted_torn_) + number("counted_pauses", counted_pauses_) +
         count("complete", complete_) + count("full", full_) + count("tls", tls_closes_) +
         count("deflate", deflate_closes_) + count("refragment", cut_closes_) +
         "\"at_trigger\": " + Json(at_trigger_) + ", \"at_close\": " + Json(at_close_) + "}";
}

}  // namespace sluice::storm
