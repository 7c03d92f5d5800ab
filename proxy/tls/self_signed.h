// Makes a certificate on the spot, for `sluice demo` and for tests. Never for anything else: no
// client has a reason to trust it.
#pragma once

#include <string>
#include <vector>

#include "proxy/base/result.h"

namespace sluice::tls {

struct PemPair {
  std::string chain;  // PEM text
  std::string key;    // PEM text
};

// A P-256 certificate for the DNS names (127.0.0.1 and ::1 are always added), valid for `days`.
[[nodiscard]] Result<PemPair> MakeSelfSigned(const std::vector<std::string>& names, int days);

}  // namespace sluice::tls
