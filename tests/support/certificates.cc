#include "tests/support/certificates.h"

#include <memory>

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "proxy/base/c_handle.h"

namespace sluice::test {
namespace {

using KeyPtr = CHandle<EVP_PKEY, EVP_PKEY_free>;
using CertificatePtr = CHandle<X509, X509_free>;
using BioPtr = CHandle<BIO, BIO_free>;

void Extend(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const CHandle<X509_EXTENSION, X509_EXTENSION_free> extension(
      X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  if (!extension || X509_add_ext(certificate, extension.get(), -1) != 1) {
    throw Failure("certificate: cannot add " + value);
  }
}

CertificatePtr Fill(const std::string& common, EVP_PKEY* key, long serial, int days) {
  CertificatePtr certificate(X509_new());
  X509* cert = certificate.get();
  constexpr long kDay = 86'400;
  X509_set_version(cert, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(cert), serial);
  X509_gmtime_adj(X509_getm_notBefore(cert), days > 0 ? -kDay : (days - 2) * kDay);
  X509_gmtime_adj(X509_getm_notAfter(cert), days * kDay);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(common.c_str()), -1, -1, 0);
  X509_set_pubkey(cert, key);
  return certificate;
}

CertificateFiles Write(const TempDir& dir, const std::string& name, X509* certificate,
                       EVP_PKEY* key) {
  const CertificateFiles files{dir.path() + "/" + name + ".pem", dir.path() + "/" + name + ".key"};
  const BioPtr chain(BIO_new_file(files.chain.c_str(), "w"));
  const BioPtr secret(BIO_new_file(files.key.c_str(), "w"));
  if (PEM_write_bio_X509(chain.get(), certificate) != 1 ||
      PEM_write_bio_PrivateKey(secret.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    throw Failure("cannot write a certificate");
  }
  return files;
}

template <class Pointer, class Read>
Pointer ReadPem(const std::string& path, Read read) {
  const BioPtr bio(BIO_new_file(path.c_str(), "r"));
  return Pointer(read(bio.get(), nullptr, nullptr, nullptr));
}

}  // namespace

TestCerts::TestCerts() {
  const KeyPtr key(EVP_EC_gen("P-256"));
  const CertificatePtr certificate = Fill("Test CA", key.get(), 1, 30);
  X509* cert = certificate.get();
  X509_set_issuer_name(cert, X509_get_subject_name(cert));
  Extend(cert, cert, NID_basic_constraints, "critical,CA:TRUE");
  Extend(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign");
  X509_sign(cert, key.get(), EVP_sha256());
  ca_ = Write(dir_, "ca", cert, key.get());
}

CertificateFiles TestCerts::Issue(const std::vector<std::string>& names, int days) {
  const auto ca = ReadPem<CertificatePtr>(ca_.chain, PEM_read_bio_X509);
  const auto ca_key = ReadPem<KeyPtr>(ca_.key, PEM_read_bio_PrivateKey);
  const KeyPtr key(EVP_EC_gen("P-256"));
  const CertificatePtr certificate = Fill(names.front(), key.get(), 2 + issued_, days);
  X509* cert = certificate.get();
  X509_set_issuer_name(cert, X509_get_subject_name(ca.get()));
  std::string alternatives = "IP:127.0.0.1";
  for (const std::string& name : names) {
    alternatives += ",DNS:" + name;
  }
  Extend(cert, ca.get(), NID_basic_constraints, "critical,CA:FALSE");
  Extend(cert, ca.get(), NID_subject_alt_name, alternatives);
  Extend(cert, ca.get(), NID_ext_key_usage, "serverAuth,clientAuth");
  X509_sign(cert, ca_key.get(), EVP_sha256());
  return Write(dir_, "issued-" + std::to_string(issued_++), cert, key.get());
}

}  // namespace sluice::test
