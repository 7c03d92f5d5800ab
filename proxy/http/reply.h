// Writing HTTP/1.1 heads and the short plain-text answers that Sluice itself gives.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace sluice::http {

// The standard reason phrase (RFC 9110 section 15), or "Unknown".
[[nodiscard]] std::string_view ReasonPhrase(int status) noexcept;

// Appends "name: value\r\n".
// REQUIRES: neither has CR, LF or NUL.
void AppendField(std::string& out, std::string_view name, std::string_view value);

struct Reply {
  int status = 400;
  std::string_view text = {};          // one sentence for the body, without a newline
  std::string_view extra_fields = {};  // whole lines, each ending with CRLF, or empty
  std::string_view date = {};          // when it is given, for the Date field; empty: none
  bool close = true;                   // adds Connection: close
  bool head_only = false;              // the answer to HEAD: the length without the body
  std::string_view type = "text/plain; charset=utf-8";  // of the content
  std::optional<std::string_view> content = {};         // the body as it is, instead of `text`
  bool lasting = false;  // holds tomorrow too: without Cache-Control: no-store
};

// A whole answer: status line, Date, Content-Type, Content-Length,
// Cache-Control: no-store unless it is `lasting`, `extra_fields`, Connection: close if asked, and
// the text with a newline.
[[nodiscard]] std::string Serialize(const Reply& reply);

}  // namespace sluice::http
