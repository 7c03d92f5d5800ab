// Base64 (RFC 4648 section 4) as Sec-WebSocket-Key and Sec-WebSocket-Accept use it.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "proxy/base/bytes.h"

namespace sluice {

[[nodiscard]] std::string Base64Encode(Bytes bytes);

// The number of bytes that `text` decodes to, or nothing when it is not canonical padded base64.
// Padding bits may be anything: RFC 6455 4.2.1 asks only for a value that decodes to 16 bytes.
[[nodiscard]] std::optional<std::size_t> Base64DecodedSize(std::string_view text) noexcept;

}  // namespace sluice
