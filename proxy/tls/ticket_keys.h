// The keys that session tickets are sealed with (RFC 5077, RFC 8446 section 4.6.1), shared by all
// workers so that a client may resume on any of them, and passed on to a successor so that it may
// resume there.
//
// A ring of three: the newest seals, the older two only open, and what they open is sealed anew.
// Thread-safe; touched during handshakes only.
#pragma once

#include <array>
#include <cstddef>
#include <mutex>
#include <optional>
#include <vector>

#include "proxy/base/result.h"

namespace sluice::tls {

struct TicketKey {
  std::array<unsigned char, 16> name{};
  std::array<unsigned char, 32> aes{};
  std::array<unsigned char, 32> hmac{};
};

class TicketKeys {
 public:
  // Starts with one random key. Throws std::runtime_error when there is no randomness: start-up.
  TicketKeys();

  // Adds a new key in front, the oldest of three falls out.
  [[nodiscard]] Result<void> Rotate();

  // All keys, newest first; and the keys of a predecessor in the place of these. Of more than the
  // ring holds the newest stay. REQUIRES: `keys` is not empty.
  [[nodiscard]] std::vector<TicketKey> All() const;
  void Replace(const std::vector<TicketKey>& keys);

  // The key to seal with.
  [[nodiscard]] TicketKey Newest() const;

  struct Found {
    TicketKey key;
    bool newest = false;
  };
  // The key of that name, if it is still in the ring.
  [[nodiscard]] std::optional<Found> Find(const unsigned char* name) const;

 private:
  static constexpr std::size_t kRing = 3;

  mutable std::mutex mutex_;
  std::array<TicketKey, kRing> keys_;  // guarded by mutex_; newest first
  std::size_t count_ = 0;              // guarded by mutex_
};

}  // namespace sluice::tls
