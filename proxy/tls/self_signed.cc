#include "proxy/tls/self_signed.h"

#include <cstdint>

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include "proxy/tls/openssl_ptr.h"

namespace sluice::tls {
namespace {

bool AddExtension(X509* certificate, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  if (extension == nullptr) {
    return false;
  }
  const bool added = X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return added;
}

std::string Text(BIO* memory) {
  char* data = nullptr;
  const auto size = BIO_get_mem_data(memory, &data);
  return {data, static_cast<std::size_t>(size)};
}

}  // namespace

Result<PemPair> MakeSelfSigned(const std::vector<std::string>& names, int days) {
  const KeyPtr key(EVP_EC_gen("P-256"));
  const X509Ptr certificate(X509_new());
  if (!key || !certificate) {
    return Err("cannot make a key: " + TakeErrorText());
  }
  X509* cert = certificate.get();
  std::uint32_t serial = 0;
  RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof(serial));
  std::string alternatives = "IP:127.0.0.1,IP:::1";
  for (const std::string& name : names) {
    alternatives += ",DNS:" + name;
  }
  const std::string common = names.empty() ? "localhost" : names.front();
  X509_NAME* subject = X509_get_subject_name(cert);
  constexpr long kDay = 86'400;
  constexpr long kHour = 3'600;
  const bool filled =
      X509_set_version(cert, X509_VERSION_3) == 1 &&
      ASN1_INTEGER_set(X509_get_serialNumber(cert), static_cast<long>(serial >> 1)) == 1 &&
      // From an hour ago: a client whose clock is a little behind accepts it too.
      X509_gmtime_adj(X509_getm_notBefore(cert), -kHour) != nullptr &&
      X509_gmtime_adj(X509_getm_notAfter(cert), days * kDay) != nullptr &&
      X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                 reinterpret_cast<const unsigned char*>(common.c_str()), -1, -1,
                                 0) == 1 &&
      X509_set_issuer_name(cert, subject) == 1 && X509_set_pubkey(cert, key.get()) == 1 &&
      AddExtension(cert, NID_basic_constraints, "critical,CA:TRUE") &&
      AddExtension(cert, NID_subject_alt_name, alternatives) &&
      X509_sign(cert, key.get(), EVP_sha256()) > 0;
  if (!filled) {
    return Err("cannot make a certificate: " + TakeErrorText());
  }
  const BioPtr chain_bio(BIO_new(BIO_s_mem()));
  const BioPtr key_bio(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509(chain_bio.get(), cert) != 1 ||
      PEM_write_bio_PrivateKey(key_bio.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) !=
          1) {
    return Err("cannot write a certificate: " + TakeErrorText());
  }
  return PemPair{Text(chain_bio.get()), Text(key_bio.get())};
}

}  // namespace sluice::tls
