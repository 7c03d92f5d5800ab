#include "proxy/http/forwarded.h"

#include <algorithm>

#include "proxy/http/chars.h"

namespace sluice::http {
namespace {

// Takes the Forwarded fields apart, from the left.
class ForwardedReader {
 public:
  explicit ForwardedReader(std::string_view text) noexcept : rest_(text) {}

  // Appends the node of each element; false when the text breaks the grammar.
  [[nodiscard]] bool ReadAll(std::vector<std::string>& nodes) {
    for (;;) {
      SkipSpace();
      if (Take(',')) {
        continue;  // RFC 9110 section 5.6.1.2: an empty element is no element
      }
      if (rest_.empty()) {
        return true;
      }
      if (!ReadElement(nodes.emplace_back())) {
        return false;
      }
      SkipSpace();
      if (!rest_.empty() && rest_.front() != ',') {
        return false;
      }
    }
  }

 private:
  // [ pair ] *( ";" [ pair ] ), where each parameter comes once. Spaces about a semicolon are not
  // in the grammar, but in many implementations, and mean nothing.
  bool ReadElement(std::string& node) {
    std::vector<std::string_view> seen;
    do {
      SkipSpace();
      if (rest_.empty() || !IsA(kTokenChar, rest_.front())) {
        continue;  // nothing between two semicolons
      }
      const std::string_view name = TakeToken();
      std::string value;
      if (!Take('=') || !ReadValue(value)) {
        return false;
      }
      if (std::any_of(seen.begin(), seen.end(),
                      [name](std::string_view one) { return EqualsIgnoreCase(one, name); })) {
        return false;
      }
      seen.push_back(name);
      if (EqualsIgnoreCase(name, "for")) {
        node = std::move(value);
      }
      SkipSpace();
    } while (Take(';'));
    return true;
  }

  // token / quoted-string
  bool ReadValue(std::string& value) {
    if (!Take('"')) {
      value = TakeToken();
      return !value.empty();
    }
    while (!rest_.empty()) {
      char c = rest_.front();
      rest_.remove_prefix(1);
      if (c == '"') {
        return true;
      }
      if (c == '\\') {
        if (rest_.empty()) {
          return false;
        }
        c = rest_.front();
        rest_.remove_prefix(1);
      }
      value += c;
    }
    return false;
  }

  std::string_view TakeToken() noexcept {
    const auto end =
        std::find_if_not(rest_.begin(), rest_.end(), [](char c) { return IsA(kTokenChar, c); });
    const std::string_view token = rest_.substr(0, static_cast<std::size_t>(end - rest_.begin()));
    rest_.remove_prefix(token.size());
    return token;
  }

  bool Take(char c) noexcept {
    if (rest_.empty() || rest_.front() != c) {
      return false;
    }
    rest_.remove_prefix(1);
    return true;
  }

  void SkipSpace() noexcept {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t')) {
      rest_.remove_prefix(1);
    }
  }

  std::string_view rest_;
};

// node-port = 1*5DIGIT / obfport (RFC 7239 section 6)
bool IsPort(std::string_view text) noexcept {
  constexpr std::size_t kMostDigits = 5;
  if (!text.empty() && text.front() == '_') {
    return true;
  }
  return !text.empty() && text.size() <= kMostDigits &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

std::optional<std::vector<std::string>> ForwardedNodes(const Fields& fields) {
  std::vector<std::string> nodes;
  for (const Field& field : fields) {
    // Line by line: a quote that one leaves open does not reach into the next.
    if (field.id == FieldId::kForwarded && !ForwardedReader(field.value).ReadAll(nodes)) {
      return std::nullopt;
    }
  }
  return nodes;
}

std::string_view AddressOfNode(std::string_view node) noexcept {
  std::string_view address = node;
  std::string_view port;  // with its colon
  if (!node.empty() && node.front() == '[') {
    const std::size_t end = node.find(']');
    if (end == std::string_view::npos) {
      return {};
    }
    address = node.substr(1, end - 1);
    port = node.substr(end + 1);
    if (address.find(':') == std::string_view::npos) {
      return {};
    }
  } else if (std::count(node.begin(), node.end(), ':') == 1) {
    const std::size_t colon = node.find(':');
    address = node.substr(0, colon);
    port = node.substr(colon);
  }
  if (!port.empty() && (port.front() != ':' || !IsPort(port.substr(1)))) {
    return {};
  }
  const bool looks_numeric = std::all_of(address.begin(), address.end(), [](char c) {
    return c == '.' || c == ':' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') ||
           (c >= 'A' && c <= 'F');
  });
  return looks_numeric ? address : std::string_view();
}

}  // namespace sluice::http
