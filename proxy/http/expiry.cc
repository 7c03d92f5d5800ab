#include "proxy/http/expiry.h"

#include <cstddef>
#include <cstdint>

#include "proxy/http/head.h"

namespace sluice::http {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::optional<WallTime> ParseUnixTime(std::string_view text) noexcept {
  constexpr std::uint64_t kEndOf9999 = 253'402'300'799;
  const std::size_t point = text.find('.');
  const auto whole = ParseDigits(text.substr(0, point));
  if (!whole || *whole > kEndOf9999) {
    return std::nullopt;
  }
  WallTime at{seconds(*whole)};
  if (point != std::string_view::npos) {
    const std::string_view fraction = text.substr(point + 1);
    if (fraction.size() > 18 || !ParseDigits(fraction)) {
      return std::nullopt;
    }
    milliseconds unit(100);
    for (const char digit : fraction.substr(0, 3)) {
      at += unit * (digit - '0');
      unit /= 10;
    }
  }
  return at;
}

}  // namespace

std::optional<WallTime> ParseExpiry(std::string_view text, WallTime now) noexcept {
  const bool is_number = !text.empty() && text.front() >= '0' && text.front() <= '9';
  return is_number ? ParseUnixTime(text) : ParseDate(text, now);
}

}  // namespace sluice::http
