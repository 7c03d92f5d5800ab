// A second reading of an event stream, by whole lines of the whole text, which unit tests and the
// fuzzer hold EventBoundary against.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/bytes.h"
#include "proxy/http/event_stream.h"

namespace sluice::http {

// Whether a stream that ends behind `text` ends between events.
inline bool EndsBetweenEvents(std::string_view text) {
  constexpr std::string_view kMark = "\xEF\xBB\xBF";
  if (text.starts_with(kMark)) {
    text.remove_prefix(kMark.size());
  }
  std::vector<std::string> lines(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\n' && i > 0 && text[i - 1] == '\r') {
      continue;
    }
    if (text[i] == '\n' || text[i] == '\r') {
      lines.emplace_back();
    } else {
      lines.back() += text[i];
    }
  }
  bool has_fields = false;
  for (std::size_t i = 0; i + 1 < lines.size(); ++i) {
    if (lines[i].empty()) {
      has_fields = false;
    } else if (lines[i][0] != ':') {
      has_fields = true;
    }
  }
  return lines.back().empty() && !has_fields;
}

// Feeds `pieces` both ways and holds each answer against the text so far. Empty: they agree.
inline std::string EventDifference(const std::vector<std::string_view>& pieces) {
  std::string text;
  EventBoundary whole;
  EventBoundary stepped;
  const auto differs = [&text](const std::string& what) {
    return "after " + std::to_string(text.size()) + " bytes: " + what;
  };
  for (const std::string_view piece : pieces) {
    const bool stood_between = stepped.at_boundary();
    std::string_view rest = piece;
    while (!rest.empty()) {
      const std::size_t step = stepped.AdvanceToBoundary(AsBytes(rest));
      if (step == 0 || step > rest.size()) {
        return differs("a step of " + std::to_string(step));
      }
      for (std::size_t i = 1; i <= step; ++i) {
        text += rest[i - 1];
        const bool between = EndsBetweenEvents(text);
        const bool is_last = i == step;
        const bool between_cr_and_lf = i + 1 == step && rest[i - 1] == '\r' && rest[i] == '\n';
        if (between && !is_last && !between_cr_and_lf) {
          return differs("went past a boundary");
        }
        if (is_last && stepped.at_boundary() != between) {
          return differs("at_boundary() is wrong");
        }
        if (is_last && !between && step != rest.size()) {
          return differs("stopped before the end");
        }
      }
      rest.remove_prefix(step);
      if (stepped.at_boundary() && text.back() == '\r' && rest.starts_with('\n')) {
        return differs("left a LF over");
      }
    }
    if (piece.empty() && stepped.at_boundary() != stood_between) {
      return differs("an empty piece changed something");
    }
    whole.Advance(AsBytes(piece));
    if (whole.at_boundary() != stepped.at_boundary()) {
      return differs("Advance() ends elsewhere");
    }
  }
  return "";
}

}  // namespace sluice::http
