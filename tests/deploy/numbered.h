// The messages of the deploy tests: each says whose it is, which one it is and when it was sent, so
// that the receiver knows of every one that is missing, doubled or late. Both ends run on one
// machine: numbers are in its byte order, times are of its steady clock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sluice::deploy {

struct Numbered {
  static constexpr std::uint32_t kFromClient = 0x434C4E54;
  static constexpr std::uint32_t kFromBackend = 0x42434B44;

  std::uint32_t from = 0;
  std::uint32_t uid = 0;          // of the client's session, over all its reconnects
  std::uint32_t incarnation = 0;  // which of its connections
  std::uint32_t unused = 0;
  std::uint64_t number = 0;  // 1, 2, 3, ... in one direction of one incarnation
  std::int64_t sent_at = 0;  // nanoseconds
};
inline constexpr std::size_t kNumberedSize = sizeof(Numbered);
static_assert(kNumberedSize == 32);

inline constexpr std::size_t kMaxMessage = std::size_t{64} * 1024;

// What a message holds behind its first 32 bytes.
inline unsigned char Filler(std::uint64_t number, std::size_t offset) {
  return static_cast<unsigned char>(number * 7 + offset);
}

// Writes the payload of a message; `size` is kNumberedSize to kMaxMessage.
inline void WritePayload(unsigned char* to, const Numbered& message, std::size_t size) {
  std::memcpy(to, &message, kNumberedSize);
  for (std::size_t i = kNumberedSize; i < size; ++i) {
    to[i] = Filler(message.number, i);
  }
}

// Follows the numbers of one direction of one incarnation.
class Sequence {
 public:
  void Take(std::uint64_t number) {
    ++count_;
    if (number == highest_ + 1) {
      seen_ = seen_ << 1U | 1U;
      highest_ = number;
      return;
    }
    if (fault_number_ == 0) {
      fault_number_ = number;
      fault_after_ = highest_;
    }
    if (number > highest_) {
      const std::uint64_t step = number - highest_;
      gaps_ += step - 1;
      seen_ = step < kWindow ? seen_ << step | 1U : 1U;
      highest_ = number;
      return;
    }
    const std::uint64_t back = highest_ - number;
    if (back < kWindow && (seen_ >> back & 1U) == 0) {
      seen_ |= std::uint64_t{1} << back;
      --gaps_;
      ++reordered_;
    } else {
      ++duplicates_;
    }
  }

  [[nodiscard]] std::uint64_t highest() const { return highest_; }
  [[nodiscard]] std::uint64_t count() const { return count_; }
  // Numbers below the highest that have not come.
  [[nodiscard]] std::uint64_t gaps() const { return gaps_; }
  // Numbers that came again. One that is late by 64 or more cannot be told from these.
  [[nodiscard]] std::uint64_t duplicates() const { return duplicates_; }
  // Numbers that came after a higher one.
  [[nodiscard]] std::uint64_t reordered() const { return reordered_; }
  // The first number that was not the next one, and the highest before it; 0: there was none.
  [[nodiscard]] std::uint64_t fault_number() const { return fault_number_; }
  [[nodiscard]] std::uint64_t fault_after() const { return fault_after_; }

 private:
  static constexpr std::uint64_t kWindow = 64;

  std::uint64_t highest_ = 0;
  std::uint64_t count_ = 0;
  std::uint64_t seen_ = ~std::uint64_t{0};  // bit i: highest_ - i has come; what is below 1 has
  std::uint64_t gaps_ = 0;
  std::uint64_t duplicates_ = 0;
  std::uint64_t reordered_ = 0;
  std::uint64_t fault_number_ = 0;
  std::uint64_t fault_after_ = 0;
};

}  // namespace sluice::deploy
