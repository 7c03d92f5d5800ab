// The ordinary outcomes of reading from or writing to a socket. None of them is an Error.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice::net {

enum class IoStatus : std::uint8_t {
  kOk,          // `bytes` > 0 were moved
  kWouldBlock,  // nothing now; the loop will tell
  kEof,         // reading only: the peer has sent its FIN (or close_notify)
  kError,       // the connection is broken; nothing more can be moved
};

struct IoResult {
  IoStatus status = IoStatus::kWouldBlock;
  std::size_t bytes = 0;
};

}  // namespace sluice::net
