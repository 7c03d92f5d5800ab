#include "proxy/discovery/dns_answer.h"

#include <ares.h>
#include <arpa/nameser.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <string_view>

#include "proxy/base/c_handle.h"

namespace sluice::discovery {
namespace {

// More records than a message can hold: 65,535 bytes, and at least 16 for each.
constexpr int kMostRecords = 4096;

constexpr std::size_t kMessageHeader = 12;   // RFC 1035 section 4.1.1
constexpr std::size_t kQuestionTail = 4;     // type and class
constexpr std::size_t kRecordHeader = 10;    // type, class, TTL and length
constexpr std::size_t kMostNameBytes = 253;  // in its text form

using AresText = CHandle<char, ares_free_string>;
using AresData = CHandle<ares_srv_reply, ares_free_data>;

const unsigned char* Raw(Bytes bytes) noexcept {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

int Size(Bytes bytes) noexcept {
  return static_cast<int>(
      std::min<std::size_t>(bytes.size(), std::numeric_limits<std::int16_t>::max() * 2 + 1));
}

unsigned Read16(Bytes bytes, std::size_t at) noexcept {
  return std::to_integer<unsigned>(bytes[at]) << 8U | std::to_integer<unsigned>(bytes[at + 1]);
}

// Where the name at `at` ends, or nothing.
std::optional<std::size_t> SkipName(Bytes message, std::size_t at) {
  if (at >= message.size()) {
    return std::nullopt;
  }
  char* name = nullptr;
  long size = 0;
  if (ares_expand_name(Raw(message) + at, Raw(message), Size(message), &name, &size) !=
      ARES_SUCCESS) {
    return std::nullopt;
  }
  const AresText owned(name);
  return at + static_cast<std::size_t>(size);
}

// The least TTL in the answer section. c-ares 1.18 does not tell it of SRV records.
std::optional<Millis> LeastTtl(Bytes message) {
  if (message.size() < kMessageHeader) {
    return std::nullopt;
  }
  std::optional<std::size_t> at = kMessageHeader;
  for (unsigned left = Read16(message, 4); left > 0; --left) {
    at = SkipName(message, *at);
    if (!at) {
      return std::nullopt;
    }
    *at += kQuestionTail;
  }
  std::optional<std::uint32_t> least;
  for (unsigned left = Read16(message, 6); left > 0; --left) {
    at = SkipName(message, *at);
    if (!at || *at + kRecordHeader > message.size()) {
      return std::nullopt;
    }
    std::uint32_t ttl = Read16(message, *at + 4) << 16U | Read16(message, *at + 6);
    if (ttl > static_cast<std::uint32_t>(std::numeric_limits<std::int32_t>::max())) {
      ttl = 0;  // RFC 2181 section 8
    }
    least = std::min(least.value_or(ttl), ttl);
    *at += kRecordHeader + Read16(message, *at + 8);
  }
  return least ? std::optional(Millis(std::chrono::seconds(*least))) : std::nullopt;
}

tl::unexpected<Error> Bad(int status) {
  if (status == ARES_ENODATA) {
    return Err("there is no such record");
  }
  return Err("the answer is malformed");
}

net::Address AddressOf(const ares_addrttl& record) noexcept {
  net::Address address;
  sockaddr_in raw{};
  raw.sin_family = AF_INET;
  raw.sin_addr = record.ipaddr;
  std::memcpy(address.raw(), &raw, sizeof(raw));
  return address;
}

net::Address AddressOf(const ares_addr6ttl& record) noexcept {
  net::Address address;
  sockaddr_in6 raw{};
  raw.sin6_family = AF_INET6;
  static_assert(sizeof(raw.sin6_addr) == sizeof(record.ip6addr));
  std::memcpy(&raw.sin6_addr, &record.ip6addr, sizeof(raw.sin6_addr));
  std::memcpy(address.raw(), &raw, sizeof(raw));
  return address;
}

template <class Record, class Parse>
Result<AddressAnswer> ParseWith(Bytes message, Parse parse) {
  std::vector<Record> records(kMostRecords);
  int count = kMostRecords;
  const int status = parse(Raw(message), Size(message), nullptr, records.data(), &count);
  const std::optional<Millis> ttl = LeastTtl(message);
  if (status != ARES_SUCCESS || count <= 0 || !ttl) {
    return Bad(status == ARES_SUCCESS && count <= 0 ? ARES_ENODATA : status);
  }
  AddressAnswer answer;
  answer.ttl = *ttl;
  for (int i = 0; i < count; ++i) {
    answer.addresses.push_back(AddressOf(records[static_cast<std::size_t>(i)]));
  }
  return answer;
}

// In lower case, or empty where it is no host name: it becomes a name of a backend, which stands in
// URLs, labels and the log.
std::string HostName(std::string_view text) {
  std::string name;
  for (const char c : text.substr(0, kMostNameBytes + 1)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80 || (std::isalnum(byte) == 0 && c != '-' && c != '_' && c != '.')) {
      return {};
    }
    name += static_cast<char>(std::tolower(byte));
  }
  return name.size() > kMostNameBytes ? std::string() : name;
}

}  // namespace

Result<AddressAnswer> ParseAddresses(Bytes message, int family) {
  return family == AF_INET6 ? ParseWith<ares_addr6ttl>(message, ares_parse_aaaa_reply)
                            : ParseWith<ares_addrttl>(message, ares_parse_a_reply);
}

Result<SrvAnswer> ParseSrv(Bytes message) {
  ares_srv_reply* list = nullptr;
  const int status = ares_parse_srv_reply(Raw(message), Size(message), &list);
  const AresData owned(list);
  const std::optional<Millis> ttl = LeastTtl(message);
  if (status != ARES_SUCCESS || !ttl) {
    return Bad(status);
  }
  SrvAnswer answer;
  answer.ttl = *ttl;
  std::map<std::uint16_t, std::vector<SrvRecord>> by_priority;
  for (const ares_srv_reply* one = list; one != nullptr; one = one->next) {
    std::string target = HostName(one->host);
    // The root as a target says that the service is not there (RFC 2782).
    if (!target.empty() && one->port != 0) {
      by_priority[one->priority].push_back({std::move(target), one->port, one->weight});
    }
  }
  unsigned group = 0;
  for (auto& [priority, records] : by_priority) {
    for (SrvRecord& record : records) {
      record.group = group;
      answer.records.push_back(std::move(record));
    }
    group = std::min(group + 1, kLastGroup);
  }
  if (answer.records.empty()) {
    return Bad(ARES_ENODATA);
  }
  return answer;
}

}  // namespace sluice::discovery
