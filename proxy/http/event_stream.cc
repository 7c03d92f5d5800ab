#include "proxy/http/event_stream.h"

namespace sluice::http {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::string_view kMediaType = "text/event-stream";

// Takes what stands before the next semicolon off `rest`.
std::string_view TakeParameter(std::string_view& rest) noexcept {
  const std::size_t end = rest.find(';');
  const std::string_view taken = Trim(rest.substr(0, end));
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  return taken;
}

// RFC 9110 section 12.4.2: "0" or "0." with up to three more zeros.
bool IsZeroWeight(std::string_view parameter) noexcept {
  return parameter.size() > 2 && (parameter[0] == 'q' || parameter[0] == 'Q') &&
         parameter[1] == '=' && parameter[2] == '0' &&
         parameter.find_first_not_of("0.", 2) == std::string_view::npos;
}

}  // namespace

void EventBoundary::Advance(Bytes input) noexcept {
  for (const char c : AsText(input)) {
    TakeByte(c);
  }
}

std::size_t EventBoundary::AdvanceToBoundary(Bytes input) noexcept {
  const std::string_view text = AsText(input);
  for (std::size_t i = 0; i < text.size(); ++i) {
    TakeByte(text[i]);
    if (at_boundary()) {
      if (after_cr_ && i + 1 < text.size() && text[i + 1] == '\n') {
        TakeByte(text[++i]);
      }
      return i + 1;
    }
  }
  return text.size();
}

void EventBoundary::TakeByte(char c) noexcept {
  if (after_cr_) {
    after_cr_ = false;
    if (c == '\n') {
      return;
    }
  }
  if (!started_) {
    if (c == kByteOrderMark[bom_bytes_]) {
      started_ = ++bom_bytes_ == kBomSize;
      return;
    }
    started_ = true;
    if (bom_bytes_ > 0) {  // it was the name of a field
      bom_bytes_ = 0;
      line_ = Line::kField;
    }
  }
  if (c == '\n' || c == '\r') {
    // A comment says nothing, so it opens no event.
    event_open_ = line_ == Line::kField || (line_ == Line::kComment && event_open_);
    line_ = Line::kNothing;
    after_cr_ = c == '\r';
  } else if (line_ == Line::kNothing) {
    line_ = c == ':' ? Line::kComment : Line::kField;
  }
}

bool IsEventStream(std::string_view content_type) noexcept {
  return EqualsIgnoreCase(TakeParameter(content_type), kMediaType);
}

bool AcceptsEventStream(const RequestHead& head) {
  bool accepts = false;
  ForEachListElement(head.fields, FieldId::kAccept, [&](std::string_view element) {
    if (!EqualsIgnoreCase(TakeParameter(element), kMediaType)) {
      return;
    }
    bool excluded = false;
    while (!element.empty()) {
      excluded = IsZeroWeight(TakeParameter(element)) || excluded;
    }
    accepts = accepts || !excluded;
  });
  return accepts;
}

}  // namespace sluice::http
