// HTTP/1.1 messages as a test sees them: lenient, independent of proxy/http, which is under test.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sluice::test {

struct HttpMessage {
  std::string start_line;
  int status = 0;      // of a response
  std::string method;  // of a request
  std::string target;  // of a request
  std::vector<std::pair<std::string, std::string>> fields;
  std::string body;  // chunked coding taken off
  std::string head;  // as it came, with the empty line

  // Names are compared ignoring case. The first value, or empty.
  [[nodiscard]] std::string Field(std::string_view name) const;
  [[nodiscard]] std::size_t Count(std::string_view name) const;
  [[nodiscard]] bool Has(std::string_view name) const { return Count(name) > 0; }
};

// `head` ends with an empty line. Throws Failure when it is not a head at all.
[[nodiscard]] HttpMessage ParseHead(std::string head);

}  // namespace sluice::test
