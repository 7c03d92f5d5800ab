#include "proxy/session/affinity_cookie.h"

#include <array>

#include <openssl/rand.h>

namespace sluice::session {
namespace {

constexpr std::string_view kHex = "0123456789abcdef";

}  // namespace

std::string RandomId() {
  std::array<unsigned char, 16> bytes{};
  // OpenSSL's generator seeds itself from the kernel and does not fail once it is seeded.
  static_cast<void>(RAND_bytes(bytes.data(), static_cast<int>(bytes.size())));
  std::string id;
  id.reserve(bytes.size() * 2);
  for (const unsigned char byte : bytes) {
    id += kHex[byte >> 4];
    id += kHex[byte & 15];
  }
  return id;
}

std::string DrawAffinityId(const balance::BackendSet& backends, std::size_t backend) {
  // A backend with a share of 1/n is met once in n tries; after 16 n the chance to have missed it
  // is one in nine million. The last four digits are counted through, the rest stays random.
  constexpr std::size_t kTriesPerBackend = 16;
  constexpr std::size_t kCounted = 4;
  std::string id = RandomId();
  const std::size_t tries = backends.backends().size() * kTriesPerBackend;
  for (std::size_t i = 0; i < tries; ++i) {
    if (backends.HomeOf(balance::HashKey(id)) == backend) {
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
