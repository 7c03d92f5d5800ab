// Proves that the texts of a request come back as they were stored, and cost nothing when none is.
#include "proxy/session/request_facts.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace sluice::session {
namespace {

constexpr std::size_t kTexts = static_cast<std::size_t>(FactText::kCount);

FactTexts::Views With(FactText which, std::string_view text, FactTexts::Views views = {}) {
  views[static_cast<std::size_t>(which)] = text;
  return views;
}

TEST(FactTexts, AreEmptyUntilStored) {
  const FactTexts texts;
  EXPECT_FALSE(texts.stored());
  for (std::size_t i = 0; i < kTexts; ++i) {
    EXPECT_EQ(texts.Get(static_cast<FactText>(i)), "");
  }
}

TEST(FactTexts, GiveBackEachTextAndNoNeighbour) {
  std::vector<std::string> wanted;
  wanted.reserve(kTexts);  // views into it are taken
  FactTexts::Views views;
  for (std::size_t i = 0; i < kTexts; ++i) {
    wanted.push_back(std::string(i * i, static_cast<char>('a' + i)));  // one of them is empty
    views[i] = wanted.back();
  }
  wanted[3] = std::string("nul\0byte", 8);
  views[3] = wanted[3];
  FactTexts texts;
  texts.Store(views);
  EXPECT_TRUE(texts.stored());
  for (std::size_t i = 0; i < kTexts; ++i) {
    EXPECT_EQ(texts.Get(static_cast<FactText>(i)), wanted[i]) << i;
    EXPECT_EQ(texts.All()[i], wanted[i]) << i;
  }
}

TEST(FactTexts, AreAddedToFromThemselves) {
  FactTexts texts;
  texts.Store(With(FactText::kExtensions, "old", With(FactText::kMethod, "GET")));
  texts.Store(With(FactText::kExtensions, "permessage-deflate",
                   With(FactText::kSubprotocol, "chat", texts.All())));
  EXPECT_EQ(texts.Get(FactText::kMethod), "GET");
  EXPECT_EQ(texts.Get(FactText::kSubprotocol), "chat");
  EXPECT_EQ(texts.Get(FactText::kExtensions), "permessage-deflate");
}

TEST(FactTexts, HoldALargeHead) {
  const std::string large(1'000'000, 'x');
  FactTexts texts;
  texts.Store(With(FactText::kExtensions, "end", With(FactText::kPath, large)));
  EXPECT_EQ(texts.Get(FactText::kPath), large);
  EXPECT_EQ(texts.Get(FactText::kExtensions), "end");
}

}  // namespace
}  // namespace sluice::session
