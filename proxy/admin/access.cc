#include "proxy/admin/access.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <array>
#include <string_view>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>

namespace sluice::admin {
namespace {

using Digest = std::array<unsigned char, SHA256_DIGEST_LENGTH>;

bool Hash(std::string_view text, Digest& out) {
  return EVP_Q_digest(nullptr, "SHA256", nullptr, text.data(), text.size(), out.data(), nullptr) ==
         1;
}

// Digests have one size, so that neither the length nor the content of the token shows in the time.
bool IsSame(std::string_view a, std::string_view b) {
  Digest of_a{};
  Digest of_b{};
  return Hash(a, of_a) && Hash(b, of_b) &&
         CRYPTO_memcmp(of_a.data(), of_b.data(), of_a.size()) == 0;
}

// RFC 6750 section 2.1; the name of the scheme has no case (RFC 9110 section 11.1).
bool HasToken(const http::Fields& fields, std::string_view token) {
  constexpr std::string_view kScheme = "bearer ";
  const http::Field* field = http::Find(fields, http::FieldId::kAuthorization);
  if (field == nullptr || http::Count(fields, http::FieldId::kAuthorization) > 1) {
    return false;
  }
  const std::string_view value = field->value;
  return value.size() > kScheme.size() &&
         http::EqualsIgnoreCase(value.substr(0, kScheme.size()), kScheme) &&
         IsSame(http::Trim(value.substr(kScheme.size())), token);
}

// `host` is valid as host[:port].
bool IsLoopback(std::string_view host) {
  const bool v6 = host.starts_with('[');
  const std::string name(v6 ? host.substr(1, host.find(']') - 1) : host.substr(0, host.find(':')));
  if (v6) {
    in6_addr address{};
    return inet_pton(AF_INET6, name.c_str(), &address) == 1 && IN6_IS_ADDR_LOOPBACK(&address);
  }
  in_addr address{};
  if (inet_pton(AF_INET, name.c_str(), &address) == 1) {
    return (ntohl(address.s_addr) >> 24U) == 127;
  }
  return http::EqualsIgnoreCase(name, "localhost");
}

// Browsers say so themselves: Sec-Fetch-Site with every request (Fetch Metadata), Origin (RFC 6454)
// with every one that may change something.
bool IsFromAnotherSite(const http::RequestHead& head) {
  for (const http::Field& field : head.fields) {
    if (http::EqualsIgnoreCase(field.name, "Sec-Fetch-Site") && field.value != "same-origin" &&
        field.value != "none") {
      return true;
    }
    if (field.id == http::FieldId::kOrigin) {
      const std::size_t mark = field.value.find("://");
      if (mark == std::string_view::npos ||
          !http::EqualsIgnoreCase(field.value.substr(mark + 3), head.host)) {
        return true;
      }
    }
  }
  return false;
}

Problem Refusal(int status, std::string detail) {
  Problem problem;
  problem.status = status;
  problem.detail = std::move(detail);
  return problem;
}

}  // namespace

std::optional<Problem> RefuseAccess(const AdminAccess& access, const http::RequestHead& head) {
  if (IsFromAnotherSite(head)) {
    return Refusal(403, "A page of another site may not use the admin interface.");
  }
  if (access.token.empty()) {
    if (!IsLoopback(head.host)) {
      return Refusal(403,
                     "The Host of a request must be a loopback address or localhost, because this "
                     "admin interface has no token.");
    }
    return std::nullopt;
  }
  if (!HasToken(head.fields, access.token)) {
    return Refusal(401, "The admin interface wants one Authorization field with its bearer token.");
  }
  return std::nullopt;
}

}  // namespace sluice::admin
