// Feeds a parser the same bytes cut in every way that matters.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::test {

// Calls `feed(pieces, label)` for: the whole input, one byte at a time, and every cut into two.
template <class Feed>
void ForEachSplit(std::string_view bytes, Feed&& feed) {
  feed(std::vector<std::string_view>{bytes}, std::string("whole"));
  std::vector<std::string_view> dribble;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    dribble.push_back(bytes.substr(i, 1));
  }
  feed(dribble, std::string("one byte at a time"));
  for (std::size_t cut = 1; cut < bytes.size(); ++cut) {
    feed(std::vector<std::string_view>{bytes.substr(0, cut), bytes.substr(cut)},
         "cut at " + std::to_string(cut));
  }
}

}  // namespace sluice::test
