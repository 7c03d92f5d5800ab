// Bytes that the kernel would not take yet, in order. Holds no memory while empty; its owner keeps
// it bounded by not reading the source while it is above the high watermark.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

#include "proxy/base/bytes.h"

namespace sluice::net {

class OutBuffer {
 public:
  void Append(Bytes bytes);

  // What is to be sent next. The view lives until the next call of a non-const member.
  [[nodiscard]] Bytes front() const noexcept { return {data_.get() + begin_, size()}; }

  // Drops `count` bytes from the front. REQUIRES: count <= size().
  void Consume(std::size_t count) noexcept;

  void Clear() noexcept;

  [[nodiscard]] std::size_t size() const noexcept { return end_ - begin_; }
  [[nodiscard]] bool empty() const noexcept { return begin_ == end_; }

 private:
  std::unique_ptr<std::byte[]> data_;
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

}  // namespace sluice::net
