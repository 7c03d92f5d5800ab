// Owning pointers for OpenSSL handles, and the library's error queue as text.
#pragma once

#include <array>
#include <string>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "proxy/base/c_handle.h"

namespace sluice::tls {

using BioPtr = CHandle<BIO, BIO_free>;
using CipherPtr = CHandle<EVP_CIPHER, EVP_CIPHER_free>;
using DigestPtr = CHandle<EVP_MD_CTX, EVP_MD_CTX_free>;
using KeyPtr = CHandle<EVP_PKEY, EVP_PKEY_free>;
using SessionPtr = CHandle<SSL_SESSION, SSL_SESSION_free>;
using SslCtxPtr = CHandle<SSL_CTX, SSL_CTX_free>;
using SslPtr = CHandle<SSL, SSL_free>;
using X509Ptr = CHandle<X509, X509_free>;

// The oldest error of this thread's queue as words, the queue is left empty.
[[nodiscard]] inline std::string TakeErrorText() {
  const unsigned long code = ERR_get_error();  // NOLINT(google-runtime-int): OpenSSL's type
  ERR_clear_error();
  if (code == 0) {
    return "unknown error";
  }
  const char* reason = ERR_reason_error_string(code);
  if (reason != nullptr) {
    return reason;
  }
  std::array<char, 160> text{};
  ERR_error_string_n(code, text.data(), text.size());
  return text.data();
}

}  // namespace sluice::tls
