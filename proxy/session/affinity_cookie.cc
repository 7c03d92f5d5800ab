#include "proxy/session/affinity_cookie.h"

#include <array>
#include <tuple>

#include "proxy/session/secure_random.h"

namespace sluice::session {
namespace {

constexpr std::string_view kHex = "0123456789abcdef";

}  // namespace

IdText RandomId() noexcept {
  std::array<unsigned char, std::tuple_size_v<IdText> / 2> bytes;
  FillRandom(bytes);
  IdText id;
  char* to = id.data();
  for (const unsigned char byte : bytes) {
    *to++ = kHex[byte >> 4];
    *to++ = kHex[byte & 15];
  }
  return id;
}

std::string DrawAffinityId(const balance::BackendSet& backends, std::size_t backend) {
  // A backend with a share of 1/n is met once in n tries; after 16 n the chance to have missed it
  // is one in nine million. The last four digits are counted through, the rest stays random.
  constexpr std::size_t kTriesPerBackend = 16;
  constexpr std::size_t kCounted = 4;
  const IdText drawn = RandomId();
  std::string id(drawn.begin(), drawn.end());
  const std::size_t tries = backends.backends().size() * kTriesPerBackend;
  for (std::size_t i = 0; i < tries; ++i) {
    if (backends.LeadsTo(balance::HashKey(id), backend)) {
      break;
    }
    for (std::size_t digit = 0, rest = i; digit < kCounted; ++digit, rest >>= 4) {
      id[id.size() - 1 - digit] = kHex[rest & 15];
    }
  }
  return id;
}

std::string AffinityCookie(std::string_view name, std::string_view id, bool tls) {
  std::string cookie(name);
  cookie += '=';
  cookie += id;
  cookie += "; Path=/; HttpOnly; SameSite=Lax";
  if (tls) {
    cookie += "; Secure";
  }
  return cookie;
}

}  // namespace sluice::session
