// Reads the header that begins a connection. Strict: what the specification does not allow is
// refused, since the bytes decide whom everything behind them is blamed on.
// Pure and without state of its own: whoever reads from the socket keeps what has come.
#pragma once

#include <cstddef>
#include <string_view>

#include "proxy/base/bytes.h"
#include "proxy/base/parse_status.h"
#include "proxy/proxy_protocol/header.h"

namespace sluice::proxy_protocol {

struct Parsed {
  ParseStatus status = ParseStatus::kNeedMore;
  std::size_t size = 0;     // kDone: of the header; not a byte behind it was looked at
  std::string_view reason;  // kBad: why, a static text
  Header header;            // kDone
};

// `bytes` are the first ones of the connection, all that have come so far. kNeedMore means that
// every one of them is of the header, and never comes for kMostHeader bytes or more. Behind the
// addresses of version 2 the additional fields are walked, and the checksum among them is verified
// if there is one.
[[nodiscard]] Parsed Parse(Bytes bytes) noexcept;

}  // namespace sluice::proxy_protocol
