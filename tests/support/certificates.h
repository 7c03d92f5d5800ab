// Certificates made when a test asks for them. No key is ever stored beyond the test's folder.
#pragma once

#include <string>
#include <vector>

#include "tests/support/temp_dir.h"

namespace sluice::test {

struct CertificateFiles {
  std::string chain;  // PEM file
  std::string key;    // PEM file
};

// One certificate authority and what it has signed.
class TestCerts {
 public:
  TestCerts();

  // PEM file of the authority's certificate: for clients' trust and for `tls.client_ca`.
  [[nodiscard]] const std::string& ca() const noexcept { return ca_.chain; }

  // A certificate for these DNS names (and 127.0.0.1), good for servers and clients.
  // `days` may be negative: expired.
  [[nodiscard]] CertificateFiles Issue(const std::vector<std::string>& names, int days = 30);

 private:
  TempDir dir_;
  CertificateFiles ca_;
  int issued_ = 0;
};

}  // namespace sluice::test
