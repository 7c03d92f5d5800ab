#include "proxy/net/out_buffer.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

namespace sluice::net {

void OutBuffer::Append(Bytes bytes) {
  if (bytes.empty()) {
    return;
  }
  const std::size_t have = size();
  if (end_ + bytes.size() > capacity_) {
    if (have + bytes.size() > capacity_) {
      const std::size_t capacity = std::max(have + bytes.size(), capacity_ * 2);
      // Not make_unique: the bytes are about to be written, zeroing them first is waste.
      std::unique_ptr<std::byte[]> grown(new std::byte[capacity]);
      if (have > 0) {
        std::memcpy(grown.get(), data_.get() + begin_, have);
      }
      data_ = std::move(grown);
      capacity_ = capacity;
    } else {
      std::memmove(data_.get(), data_.get() + begin_, have);
    }
    begin_ = 0;
    end_ = have;
  }
  std::memcpy(data_.get() + end_, bytes.data(), bytes.size());
  end_ += bytes.size();
}

void OutBuffer::Consume(std::size_t count) noexcept {
  assert(count <= size());
  begin_ += count;
  if (begin_ == end_) {
    Clear();
  }
}

void OutBuffer::Clear() noexcept {
  data_.reset();
  capacity_ = begin_ = end_ = 0;
}

}  // namespace sluice::net
