// Feeds a head parser piece by piece and says what came of it, as one string to compare.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/http/parser.h"

namespace sluice::http {

inline std::string Describe(const RequestHead& head) {
  std::string out;
  for (const std::string_view part : {head.method, head.target, head.path, head.query, head.host}) {
    out.append(part).append("|");
  }
  out += "1." + std::to_string(head.minor_version);
  out += head.keep_alive ? " keep-alive" : " close";
  out += head.expect_continue ? " expects-100" : "";
  out += " framing=" + std::to_string(static_cast<int>(head.framing));
  out += " length=" + std::to_string(head.content_length);
  return out;
}

inline std::string Describe(const ResponseHead& head) {
  std::string out = std::to_string(head.status) + "|";
  out.append(head.reason).append("|1.").append(std::to_string(head.minor_version));
  out += head.keep_alive ? " keep-alive" : " close";
  out += " framing=" + std::to_string(static_cast<int>(head.framing));
  out += " length=" + std::to_string(head.content_length);
  return out;
}

// "more", "bad <status> <label>", or "done <size> <head> <fields>". The bytes of each step are
// copied to another place, as those of a growing buffer are, and parsed by `parse(bytes)`.
template <class Parser, class Parse>
std::string Feed(Parser& parser, const std::vector<std::string_view>& pieces, Parse&& parse) {
  std::string received;
  for (const std::string_view piece : pieces) {
    std::string moved;
    moved.reserve(received.size() + piece.size());
    moved.append(received).append(piece);
    received = std::move(moved);
    switch (parse(received)) {
      case ParseStatus::kNeedMore:
        break;
      case ParseStatus::kBad:
        return "bad " + std::to_string(parser.fault().status) + " " +
               std::string(parser.fault().label);
      case ParseStatus::kDone: {
        std::string out = "done " + std::to_string(parser.head_size()) + " ";
        out += Describe(parser.head());
        for (const Field& field : parser.head().fields) {
          out.append(" {").append(field.name).append("=").append(field.value).append("}");
        }
        return out;
      }
    }
  }
  return "more";
}

}  // namespace sluice::http
