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

// A name that somebody outside can own, and so let resolve to a loopback address: one with a dot.
// Not an address, which is what it says, nor a name such as localhost, which only this host or its
// own network resolves. `host` is valid as host[:port], or empty: not a browser.
bool MayBeRebound(std::string_view host) {
  if (host.starts_with('[')) {
    return false;
  }
  const std::string name(host.substr(0, host.find(':')));
  in_addr address{};
  return name.find('.') != std::string::npos && inet_pton(AF_INET, name.c_str(), &address) != 1;
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
    if (MayBeRebound(head.host)) {
      return Refusal(403,
                     "The Host of a request must be an address or localhost, because this admin "
                     "interface has no token.");
    }
    return std::nullopt;
  }
  if (!HasToken(head.fields, access.token)) {
    return Refusal(401, "The admin interface wants one Authorization field with its bearer token.");
  }
  return std::nullopt;
}

}  // namespace sluice::admin
