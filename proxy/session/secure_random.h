// Unpredictable bytes, for ids and masks (RFC 6455 section 10.3).
#pragma once

#include <span>

namespace sluice::session {

// Fills `out` from OpenSSL's generator. Any thread; each has a supply that is drawn a few thousand
// bytes at a time, because a single draw costs some 5,000 instructions whatever its size. What was
// handed out is wiped from the supply.
void FillRandom(std::span<unsigned char> out) noexcept;

}  // namespace sluice::session
