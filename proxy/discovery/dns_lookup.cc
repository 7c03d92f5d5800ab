#include "proxy/discovery/dns_lookup.h"

#include <ares.h>
#include <arpa/nameser.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

namespace sluice::discovery {
namespace {

// So many targets of SRV records are asked for at a time: a long list is no burst of datagrams.
constexpr std::size_t kMostAtATime = 32;

// Each server is asked so many times; with timeouts of a quarter, which c-ares doubles, that fits.
constexpr int kTries = 2;
constexpr int kPartsOfTimeout = 4;

// Of a query that is not for a target.
constexpr std::size_t kMain = static_cast<std::size_t>(-1);

// A record of weight 0 gets something, but little (RFC 2782).
constexpr double kLeastWeight = 0.1;

int TypeOf(RecordType type) noexcept {
  switch (type) {
    case RecordType::kA:
      return ns_t_a;
    case RecordType::kAaaa:
      return ns_t_aaaa;
    case RecordType::kSrv:
      return ns_t_srv;
  }
  return ns_t_a;
}

std::string_view TypeName(RecordType type) noexcept {
  switch (type) {
    case RecordType::kA:
      return "A";
    case RecordType::kAaaa:
      return "AAAA";
    case RecordType::kSrv:
      return "SRV";
  }
  return "A";
}

std::string_view Reason(int status) noexcept {
  switch (status) {
    case ARES_ENODATA:
      return "there is no such record";
    case ARES_ENOTFOUND:
      return "there is no such name";
    case ARES_ETIMEOUT:
      return "no answer in time";
    case ARES_ECONNREFUSED:
      // c-ares goes on to the next server in all these cases, and tells nothing else at the end.
      return "each server is out of reach or fails (SERVFAIL, REFUSED)";
    default:
      return ares_strerror(status);
  }
}

// The lowest, so that the order of the records makes no difference.
net::Address Lowest(std::vector<net::Address> addresses) {
  return *std::min_element(addresses.begin(), addresses.end(), [](const auto& a, const auto& b) {
    return std::memcmp(a.raw(), b.raw(), a.raw_size()) < 0;  // of one family, without ports
  });
}

Endpoint EndpointOf(net::Address address, std::uint16_t port) {
  address.set_port(port);
  return {address.Text(), address, 1};
}

}  // namespace

// A socket of c-ares, as the loop watches it. Buried, because its event may be on the stack.
class DnsLookup::Socket final : public net::Mortal {
 public:
  Socket(DnsLookup& lookup, int fd) : lookup_(lookup), fd_(fd) {}

  void Watch(bool readable, bool writable) noexcept {
    const auto what = (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0) | EV_PERSIST;
    event_.Add<&Socket::OnReady>(lookup_.loop_.base(), fd_, static_cast<short>(what), this);
  }
  void Forget() noexcept { event_.Remove(); }

 private:
  void OnReady(short what) noexcept {
    lookup_.Process((what & EV_READ) != 0 ? fd_ : ARES_SOCKET_BAD,
                    (what & EV_WRITE) != 0 ? fd_ : ARES_SOCKET_BAD);
  }

  DnsLookup& lookup_;
  int fd_;
  net::Event event_;
};

// What c-ares carries from a question to its answer, which it gives exactly once.
struct DnsLookup::Query {
  DnsLookup& lookup;
  int type;
  std::size_t target;  // or kMain

  static void OnAnswer(void* self, int status, int, unsigned char* message, int size) {
    const std::unique_ptr<Query> query(static_cast<Query*>(self));
    if (status == ARES_EDESTRUCTION || status == ARES_ECANCELLED) {
      return;
    }
    const auto length = static_cast<std::size_t>(message == nullptr ? 0 : std::max(size, 0));
    query->lookup.TakeAnswer(*query, status,
                             std::as_bytes(std::span<const unsigned char>(message, length)));
  }
};

DnsLookup::DnsLookup(net::Loop& loop, DnsQuestion question, Done done)
    : loop_(loop), question_(std::move(question)), done_(std::move(done)) {
  end_timer_.Arm<&DnsLookup::OnEndTimer>(loop_.base(), question_.timeout, this);
  if (const int status = Open(); status != ARES_SUCCESS) {
    Finish(Err(std::string("the resolver does not start: ") + ares_strerror(status)));
    return;
  }
  Ask(question_.name, TypeOf(question_.type), kMain);
}

DnsLookup::~DnsLookup() {
  if (channel_ != nullptr) {
    ares_destroy(channel_);
  }
}

int DnsLookup::Open() {
  static const int ready = ares_library_init(ARES_LIB_INIT_ALL);
  if (ready != ARES_SUCCESS) {
    return ready;
  }
  ares_options options{};
  options.timeout = std::max(10, static_cast<int>(question_.timeout.count()) / kPartsOfTimeout);
  options.tries = kTries;
  options.sock_state_cb = [](void* self, ares_socket_t fd, int readable, int writable) {
    static_cast<DnsLookup*>(self)->OnSocketState(fd, readable != 0, writable != 0);
  };
  options.sock_state_cb_data = this;
  const int status = ares_init_options(
      &channel_, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
  if (status != ARES_SUCCESS) {
    channel_ = nullptr;
    return status;
  }
  if (question_.servers.empty()) {
    return ARES_SUCCESS;
  }
  std::string servers;
  for (const std::string& server : question_.servers) {
    servers += (servers.empty() ? "" : ",") + server;
  }
  return ares_set_servers_ports_csv(channel_, servers.c_str());
}

void DnsLookup::Ask(const std::string& name, int type, std::size_t target) {
  auto query = std::make_unique<Query>(Query{*this, type, target});
  // May answer at once, for a name that cannot be asked for.
  ares_query(channel_, name.c_str(), ns_c_in, type, &Query::OnAnswer, query.release());
  ArmRetryTimer();
}

void DnsLookup::TakeAnswer(const Query& query, int status, Bytes message) {
  if (outcome_) {
    return;  // what was still under way when it was settled
  }
  if (query.target == kMain) {
    TakeMain(status, message);
  } else {
    TakeTarget(query, status, message);
  }
}

void DnsLookup::TakeMain(int status, Bytes message) {
  if (status != ARES_SUCCESS) {
    return Finish(Err(std::string(Reason(status))));
  }
  if (question_.type == RecordType::kSrv) {
    auto answer = ParseSrv(message);
    if (!answer) {
      return Finish(tl::unexpected(answer.error()));
    }
    srv_ = std::move(*answer);
    ttl_ = srv_.ttl;
    for (const SrvRecord& record : srv_.records) {
      targets_.push_back({record.target, {}});
    }
    const auto less = [](const Target& a, const Target& b) { return a.name < b.name; };
    std::sort(targets_.begin(), targets_.end(), less);
    targets_.erase(std::unique(targets_.begin(), targets_.end(),
                               [](const Target& a, const Target& b) { return a.name == b.name; }),
                   targets_.end());
    targets_.resize(std::min(targets_.size(), 2 * kMostEndpoints));
    return AskTargets();
  }
  auto answer = ParseAddresses(message, question_.type == RecordType::kAaaa ? AF_INET6 : AF_INET);
  if (!answer) {
    return Finish(tl::unexpected(answer.error()));
  }
  DnsAnswer found;
  found.ttl = answer->ttl;
  for (const net::Address& address : answer->addresses) {
    found.endpoints.push_back(EndpointOf(address, question_.port));
  }
  found.dropped = Tidy(found.endpoints);
  Finish(std::move(found));
}

void DnsLookup::TakeTarget(const Query& query, int status, Bytes message) {
  Target& target = targets_[query.target];
  --asking_;
  const bool v4 = query.type == ns_t_a;
  // That a target has no address is an answer; that nobody can say so is none.
  const bool none = status == ARES_ENODATA || status == ARES_ENOTFOUND;
  if (status != ARES_SUCCESS && !none) {
    return Finish(Err("the target \"" + target.name + "\": " + std::string(Reason(status))));
  }
  if (status == ARES_SUCCESS) {
    auto answer = ParseAddresses(message, v4 ? AF_INET : AF_INET6);
    if (answer) {
      ttl_ = std::min(ttl_, answer->ttl);
      target.address = Lowest(std::move(answer->addresses));
    }
  }
  if (v4 && !target.address && status != ARES_ENOTFOUND) {
    ++asking_;
    return Ask(target.name, ns_t_aaaa, query.target);
  }
  AskTargets();
}

// Asks for the next ones, and is done when there are none.
void DnsLookup::AskTargets() {
  while (!outcome_ && next_target_ < targets_.size() && asking_ < kMostAtATime) {
    ++asking_;
    const std::size_t target = next_target_++;
    Ask(targets_[target].name, ns_t_a, target);  // may come back here
  }
  if (outcome_ || asking_ > 0 || next_target_ < targets_.size()) {
    return;
  }
  DnsAnswer found;
  found.ttl = ttl_;
  for (const SrvRecord& record : srv_.records) {
    const auto target = std::lower_bound(
        targets_.begin(), targets_.end(), record.target,
        [](const Target& one, const std::string& name) { return one.name < name; });
    if (target == targets_.end() || target->name != record.target || !target->address) {
      continue;
    }
    Endpoint endpoint = EndpointOf(*target->address, record.port);
    endpoint.name = record.target + ":" + std::to_string(record.port);
    endpoint.weight = std::max<double>(record.weight, kLeastWeight);
    endpoint.group = record.group;
    found.endpoints.push_back(std::move(endpoint));
  }
  if (found.endpoints.empty()) {
    return Finish(Err("no target has an address"));
  }
  found.dropped = Tidy(found.endpoints);
  Finish(std::move(found));
}

// From the loop, because c-ares may be on the stack now.
void DnsLookup::Finish(Result<DnsAnswer> outcome) {
  if (outcome_) {
    return;
  }
  if (!outcome) {
    outcome.error().message = "\"" + question_.name + "\" " +
                              std::string(TypeName(question_.type)) + ": " +
                              outcome.error().message;
  }
  outcome_ = std::move(outcome);
  end_timer_.Arm<&DnsLookup::OnEndTimer>(loop_.base(), Millis(0), this);
}

void DnsLookup::OnEndTimer(short) noexcept {
  if (!outcome_) {
    Finish(Err(std::string(Reason(ARES_ETIMEOUT))));
  }
  end_timer_.Cancel();
  retry_timer_.Cancel();
  if (channel_ != nullptr) {
    ares_destroy(std::exchange(channel_, nullptr));  // what is under way is nobody's any more
  }
  done_(std::move(*outcome_));
}

void DnsLookup::OnSocketState(int fd, bool readable, bool writable) {
  auto& socket = sockets_[fd];
  if (!readable && !writable) {
    if (socket) {
      socket->Forget();  // c-ares closes the descriptor next
      loop_.Bury(std::move(socket));
    }
    sockets_.erase(fd);
    return;
  }
  if (!socket) {
    socket = std::make_unique<Socket>(*this, fd);
  }
  socket->Watch(readable, writable);
}

void DnsLookup::Process(int readable, int writable) {
  if (channel_ != nullptr) {
    ares_process_fd(channel_, readable, writable);
    ArmRetryTimer();
  }
}

void DnsLookup::ArmRetryTimer() {
  timeval wait{};
  if (ares_timeout(channel_, nullptr, &wait) == nullptr) {
    retry_timer_.Cancel();
    return;
  }
  // Rounded up: a moment too early would be a turn for nothing.
  const Millis delay(wait.tv_sec * 1000 + wait.tv_usec / 1000 + 1);
  retry_timer_.Arm<&DnsLookup::OnRetryTimer>(loop_.base(), delay, this);
}

void DnsLookup::OnRetryTimer(short) noexcept {
  Process(ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

}  // namespace sluice::discovery
