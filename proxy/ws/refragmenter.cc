#include "proxy/ws/refragmenter.h"

#include <algorithm>
#include <cassert>

namespace sluice::ws {
namespace {

constexpr std::size_t kMaxHeader = 10;  // 2 + 8 bytes of length; a backend's frame has no mask

struct Header {
  std::size_t size = 0;  // 0: it is not complete
  std::uint64_t payload = 0;
};

// RFC 6455 section 5.2.
Header HeaderOf(Bytes input) noexcept {
  if (input.size() < 2) {
    return {};
  }
  const auto low = std::to_integer<std::uint64_t>(input[1]) & 0x7FU;
  if (low < 126) {
    return {2, low};
  }
  const std::size_t size = low == 126 ? 4 : kMaxHeader;
  if (input.size() < size) {
    return {};
  }
  std::uint64_t payload = 0;
  for (std::size_t i = 2; i < size; ++i) {
    payload = payload << 8U | std::to_integer<std::uint64_t>(input[i]);
  }
  return {size, payload};
}

}  // namespace

Refragmenter::Refragmenter(std::uint64_t limit) noexcept
    : limit_(static_cast<std::uint32_t>(limit)) {
  assert(limit >= 1 && limit <= 1ULL << 30U);
}

Bytes Refragmenter::FeedInGeneral(Bytes input, std::string& out) noexcept {
  out.clear();
  std::size_t at = 0;
  std::size_t from = 0;  // input[from, at) goes out as it came, and is not in `out` yet
  const auto flush = [&] {
    out += AsText(input.subspan(from, at - from));
    from = at;
  };
  while (at < input.size()) {
    const Bytes rest = input.subspan(at);
    if (left_ > 0) {
      const auto taken = static_cast<std::size_t>(std::min<std::uint64_t>(left_, rest.size()));
      left_ -= taken;
      if (cutting_) {
        Cut(rest.first(taken), out);
        from += taken;
      }
      at += taken;
      continue;
    }
    const std::size_t carried = held_.size();
    if (carried > 0) {
      held_ += AsText(rest.first(std::min(rest.size(), kMaxHeader - carried)));
    }
    const Bytes start = carried > 0 ? AsBytes(held_) : rest;
    const Header header = HeaderOf(start);
    if (header.size == 0) {
      if (carried == 0) {
        held_ = AsText(rest);
      }
      break;
    }
    const bool passes = BeginFrame(std::to_integer<unsigned>(start[0]), header.payload);
    if (carried > 0 && passes) {
      out.append(held_, 0, carried);
    } else if (!passes) {
      flush();
      from += header.size - carried;
    }
    at += header.size - carried;
    held_.clear();
  }
  if (out.empty()) {
    return input.subspan(from, at - from);
  }
  flush();
  return AsBytes(out);
}

bool Refragmenter::BeginFrame(unsigned first, std::uint64_t payload) noexcept {
  left_ = payload;
  cutting_ = (first & kControl) == 0 && payload > limit_;
  if (cutting_) {
    first_ = static_cast<std::uint8_t>(first & ~kFin);
    fin_ = (first & kFin) != 0;
  } else {
    NoteFirstByte(first);
  }
  return !cutting_;
}

// Sends what has come of the frame as far as it is worth a fragment, and keeps the rest.
void Refragmenter::Cut(Bytes payload, std::string& out) noexcept {
  const std::uint64_t least = std::min<std::uint64_t>(limit_, kLeast);
  std::size_t available = held_.size() + payload.size();
  out.reserve(out.size() + available + kMaxHeader * (available / least + 1));
  while (available > 0) {
    const std::size_t size = std::min<std::size_t>(available, limit_);
    const bool ends_frame = left_ == 0 && size == available;
    if (size < least && !ends_frame) {
      break;
    }
    AppendHeader(ends_frame && fin_, size, out);
    // What was kept is less than `least`, so it fits into the first fragment.
    const Bytes more = payload.first(size - held_.size());
    out += held_;
    out += AsText(more);
    std::string().swap(held_);  // gives its memory back
    payload = payload.subspan(more.size());
    available -= size;
  }
  held_ += AsText(payload);
  cutting_ = left_ > 0;
}

void Refragmenter::AppendHeader(bool fin, std::size_t payload, std::string& out) noexcept {
  out += static_cast<char>(first_ | (fin ? kFin : 0U));
  first_ = 0;  // what follows is a continuation, and RSV1 stands on the first frame of a message
  message_open_ = !fin;
  std::size_t length_size = 0;
  if (payload < kLength16) {
    out += static_cast<char>(payload);
  } else if (payload <= 0xFFFF) {
    out += static_cast<char>(kLength16);
    length_size = 2;
  } else {
    out += static_cast<char>(kLength64);
    length_size = 8;
  }
  for (std::size_t i = length_size; i > 0; --i) {
    out += static_cast<char>(payload >> (8 * (i - 1)) & 0xFFU);
  }
}

}  // namespace sluice::ws
