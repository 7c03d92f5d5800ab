#include "proxy/tls/ticket_keys.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include <openssl/rand.h>

namespace sluice::tls {
namespace {

template <std::size_t N>
bool Fill(std::array<unsigned char, N>& bytes) noexcept {
  return RAND_bytes(bytes.data(), static_cast<int>(N)) == 1;
}

}  // namespace

TicketKeys::TicketKeys() {
  if (auto made = Rotate(); !made) {
    throw std::runtime_error(made.error().message);
  }
}

Result<void> TicketKeys::Rotate() {
  TicketKey fresh;
  if (!Fill(fresh.name) || !Fill(fresh.aes) || !Fill(fresh.hmac)) {
    return Err("no randomness for a session ticket key");
  }
  const std::lock_guard lock(mutex_);
  std::shift_right(keys_.begin(), keys_.end(), 1);
  keys_[0] = fresh;
  count_ = std::min(count_ + 1, kRing);
  return {};
}

std::vector<TicketKey> TicketKeys::All() const {
  const std::lock_guard lock(mutex_);
  return {keys_.begin(), keys_.begin() + static_cast<std::ptrdiff_t>(count_)};
}

void TicketKeys::Replace(const std::vector<TicketKey>& keys) {
  const std::lock_guard lock(mutex_);
  count_ = std::min(keys.size(), kRing);
  std::copy_n(keys.begin(), count_, keys_.begin());
}

TicketKey TicketKeys::Newest() const {
  const std::lock_guard lock(mutex_);
  return keys_[0];
}

std::optional<TicketKeys::Found> TicketKeys::Find(const unsigned char* name) const {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < count_; ++i) {
    if (std::memcmp(keys_[i].name.data(), name, keys_[i].name.size()) == 0) {
      return Found{keys_[i], i == 0};
    }
  }
  return std::nullopt;
}

}  // namespace sluice::tls
