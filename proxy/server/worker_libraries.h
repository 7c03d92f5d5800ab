// The OpenSSL library context of each worker, which all of its TLS contexts share. Control thread
// only.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "proxy/base/result.h"
#include "proxy/tls/settings.h"

namespace sluice::server {

class WorkerLibraries {
 public:
  explicit WorkerLibraries(std::size_t workers) : libraries_(workers) {}

  [[nodiscard]] std::size_t workers() const noexcept { return libraries_.size(); }

  // Made when it is first asked for: plain processes need none.
  [[nodiscard]] Result<tls::Library> Of(std::size_t worker) {
    if (!libraries_[worker]) {
      auto made = tls::MakeLibrary();
      if (!made) {
        return made;
      }
      libraries_[worker] = std::move(*made);
    }
    return libraries_[worker];
  }

 private:
  std::vector<tls::Library> libraries_;
};

}  // namespace sluice::server
