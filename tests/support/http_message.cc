#include "tests/support/http_message.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "tests/support/deadline.h"

namespace sluice::test {
namespace {

bool SameName(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

}  // namespace

std::string HttpMessage::Field(std::string_view name) const {
  for (const auto& [key, value] : fields) {
    if (SameName(key, name)) {
      return value;
    }
  }
  return {};
}

std::size_t HttpMessage::Count(std::string_view name) const {
  return static_cast<std::size_t>(
      std::count_if(fields.begin(), fields.end(),
                    [&](const auto& field) { return SameName(field.first, name); }));
}

HttpMessage ParseHead(std::string head) {
  HttpMessage message;
  std::size_t at = 0;
  while (at < head.size()) {
    const std::size_t end = head.find("\r\n", at);
    if (end == std::string::npos || end == at) {
      break;
    }
    const std::string line = head.substr(at, end - at);
    at = end + 2;
    if (message.start_line.empty()) {
      message.start_line = line;
      continue;
    }
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) {
      throw Failure("field without a colon: " + line);
    }
    std::size_t value = colon + 1;
    while (value < line.size() && line[value] == ' ') {
      ++value;
    }
    message.fields.emplace_back(line.substr(0, colon), line.substr(value));
  }
  if (message.start_line.rfind("HTTP/1.", 0) == 0) {
    message.status = std::atoi(message.start_line.c_str() + sizeof("HTTP/1.1"));
  } else {
    const std::size_t space = message.start_line.find(' ');
    const std::size_t last = message.start_line.rfind(' ');
    if (space == std::string::npos || last <= space) {
      throw Failure("not a start line: " + message.start_line);
    }
    message.method = message.start_line.substr(0, space);
    message.target = message.start_line.substr(space + 1, last - space - 1);
  }
  message.head = std::move(head);
  return message;
}

}  // namespace sluice::test
