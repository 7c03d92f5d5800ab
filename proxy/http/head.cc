#include "proxy/http/head.h"

#include <array>

namespace sluice::http {
namespace {

constexpr std::array<std::string_view, 7> kHopByHop = {
    "Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
};

constexpr unsigned char Lower(char c) noexcept {
  const auto u = static_cast<unsigned char>(c);
  return u >= 'A' && u <= 'Z' ? static_cast<unsigned char>(u | 0x20) : u;
}

constexpr bool IsBlank(char c) noexcept {
  return c == ' ' || c == '\t';
}

// The value of `name` in a list of name=value pairs with `separator` between them.
std::string_view PairValue(std::string_view list, char separator, std::string_view name) noexcept {
  while (!list.empty()) {
    const std::size_t end = list.find(separator);
    const std::string_view pair = Trim(list.substr(0, end));
    if (pair.size() > name.size() && pair[name.size()] == '=' && pair.starts_with(name)) {
      return pair.substr(name.size() + 1);
    }
    list = end == std::string_view::npos ? std::string_view() : list.substr(end + 1);
  }
  return {};
}

}  // namespace

bool EqualsIgnoreCase(std::string_view a, std::string_view b) noexcept {
  if (a.size() != b.size()) {
    return false;
  }
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (Lower(a[i]) != Lower(b[i])) {
      return false;
    }
  }
  return true;
}

const Field* Find(const Fields& fields, std::string_view name) noexcept {
  for (const Field& field : fields) {
    if (EqualsIgnoreCase(field.name, name)) {
      return &field;
    }
  }
  return nullptr;
}

std::size_t Count(const Fields& fields, std::string_view name) noexcept {
  std::size_t count = 0;
  for (const Field& field : fields) {
    count += EqualsIgnoreCase(field.name, name) ? 1U : 0U;
  }
  return count;
}

bool HasToken(const Fields& fields, std::string_view name, std::string_view token) {
  bool found = false;
  ForEachListElement(fields, name, [&](std::string_view element) {
    found = found || EqualsIgnoreCase(element, token);
  });
  return found;
}

bool IsHopByHop(std::string_view name) noexcept {
  for (const std::string_view hop_by_hop : kHopByHop) {
    if (EqualsIgnoreCase(name, hop_by_hop)) {
      return true;
    }
  }
  return false;
}

bool IsNamedByConnection(const Fields& fields, std::string_view name) {
  return HasToken(fields, "Connection", name);
}

std::string_view CookieValue(const Fields& fields, std::string_view name) noexcept {
  for (const Field& field : fields) {
    if (EqualsIgnoreCase(field.name, "Cookie")) {
      const std::string_view value = PairValue(field.value, ';', name);
      if (!value.empty()) {
        return value;
      }
    }
  }
  return {};
}

std::string_view QueryValue(std::string_view query, std::string_view name) noexcept {
  return PairValue(query, '&', name);
}

std::string_view Trim(std::string_view text) noexcept {
  while (!text.empty() && IsBlank(text.front())) {
    text.remove_prefix(1);
  }
  while (!text.empty() && IsBlank(text.back())) {
    text.remove_suffix(1);
  }
  return text;
}

}  // namespace sluice::http
