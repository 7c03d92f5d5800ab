// Holds JsonMember against nlohmann-json over the same text, and against itself over the same text
// in pieces.
// Input: the name of the member, a line feed, and the text.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/bytes.h"

#include "tests/fuzz/pieces.h"
#include "tests/unit/routing/json_member_reference.h"

namespace {

[[noreturn]] void Fail(const char* what, const std::string& one, const std::string& other) {
  std::fprintf(stderr, "%s: \"%s\" and \"%s\"\n", what, one.c_str(), other.c_str());
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using sluice::routing::JsonFinding;
  using sluice::routing::JsonMember;
  std::string_view text = sluice::AsText(std::as_bytes(std::span(data, size)));
  const std::size_t line = text.find('\n');
  if (line == std::string_view::npos) {
    return 0;
  }
  const std::string_view name = text.substr(0, line);
  text.remove_prefix(line + 1);

  const JsonFinding whole = sluice::routing::FindingOf({text}, name);
  for (const std::uint32_t longest : {1U, 4U, 64U}) {
    std::vector<std::string_view> pieces;
    std::size_t begin = 0;
    for (const std::size_t end : sluice::fuzz::PieceEnds(text, longest)) {
      pieces.push_back(text.substr(begin, end - begin));
      begin = end;
    }
    const JsonFinding cut = sluice::routing::FindingOf(pieces, name);
    if (cut != whole) {
      Fail("in pieces it reads another thing", whole.value, cut.value);
    }
  }
  if (whole.value.size() > JsonMember::kMostValue) {
    Fail("too long", whole.value, "");
  }

  // What is read alike: a text that begins with its object, and is looked at to its end.
  if (text.starts_with('{') && text.size() <= JsonMember::kMostBytes) {
    const std::optional<std::string> other = sluice::routing::ReferenceFinds(text, name);
    if (other && *other != whole.value) {
      Fail("another reader finds another thing", whole.value, *other);
    }
  }
  return 0;
}
