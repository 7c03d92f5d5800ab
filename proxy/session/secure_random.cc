#include "proxy/session/secure_random.h"

#include <algorithm>
#include <array>

#include <openssl/rand.h>

namespace sluice::session {
namespace {

class Supply {
 public:
  void Take(std::span<unsigned char> out) noexcept {
    while (!out.empty()) {
      if (left_ == 0) {
        // OpenSSL's generator seeds itself from the kernel and does not fail once it is seeded.
        static_cast<void>(RAND_bytes(bytes_.data(), static_cast<int>(bytes_.size())));
        left_ = bytes_.size();
      }
      const std::size_t count = std::min(out.size(), left_);
      const auto piece = std::span(bytes_).subspan(bytes_.size() - left_, count);
      std::copy(piece.begin(), piece.end(), out.begin());
      std::fill(piece.begin(), piece.end(), static_cast<unsigned char>(0));
      left_ -= count;
      out = out.subspan(count);
    }
  }

 private:
  std::array<unsigned char, 4096> bytes_;
  std::size_t left_ = 0;  // at the end of bytes_
};

}  // namespace

void FillRandom(std::span<unsigned char> out) noexcept {
  thread_local Supply supply;
  supply.Take(out);
}

}  // namespace sluice::session
