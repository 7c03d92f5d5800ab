// Proves that the token in a backend's answer is found however the answer is cut, that what is no
// JSON object teaches nothing, and that no text makes the reader look or remember without end.
#include "proxy/routing/json_member.h"

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/base/random.h"

#include "tests/support/split.h"
#include "tests/unit/routing/json_member_reference.h"

namespace sluice::routing {
namespace {

constexpr auto kDone = ParseStatus::kDone;
constexpr auto kMore = ParseStatus::kNeedMore;
constexpr auto kBad = ParseStatus::kBad;

JsonFinding Find(std::string_view text, std::string_view name = "sid") {
  return FindingOf({text}, name);
}

struct Case {
  const char* name;
  std::string text;
  ParseStatus want;
  std::string value = {};
};

class JsonMemberText : public testing::TestWithParam<Case> {};

TEST_P(JsonMemberText, ReadsTheSameInAllPieces) {
  const Case& c = GetParam();
  test::ForEachSplit(c.text, [&](const auto& pieces, const std::string& label) {
    EXPECT_EQ(FindingOf(pieces, "sid"), (JsonFinding{c.want, c.value})) << label;
  });
  if (c.text.starts_with('{')) {
    if (const auto other = ReferenceFinds(c.text, "sid")) {
      EXPECT_EQ(*other, c.value) << "the other reading";
    }
  }
}

std::vector<Case> Found() {
  return {
      {"alone", R"({"sid":"abc"})", kDone, "abc"},
      {"engine_io_4", R"(0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"]})", kDone,
       "lv_VI97HAXpY6yYWAAAC"},
      {"engine_io_3", R"(96:0{"sid":"x","upgrades":[]}2:40)", kDone, "x"},
      {"engine_io_3_binary", std::string("\0\x09\x06\xff", 4) + R"(0{"sid":"x"})", kDone, "x"},
      {"after_others",
       R"({"a":1,"b":[{"sid":"no"},[],{}],"c":{"sid":{"sid":"no"}},"d":null,"sid":"yes"})", kDone,
       "yes"},
      {"spaces", " {\r\n\t\"sid\" : \t\"abc\" }", kDone, "abc"},
      {"wrong_type_then_right", R"({"sid":5,"sid":"abc"})", kDone, "abc"},
      {"first_of_two", R"({"sid":"one","sid":"two"})", kDone, "one"},
      {"escapes", R"({"sid":"\"\\\/\b\f\n\r\t"})", kDone, "\"\\/\b\f\n\r\t"},
      {"unicode", R"({"sid":"\u0041\u00e9\u20AC\ud83d\uDE00"})", kDone,
       "A\xC3\xA9€\xF0\x9F\x98\x80"},
      {"escaped_plus", R"({"sid":"a\u002Bb"})", kDone, "a+b"},
      {"escaped_name", R"({"\u0073id":"x"})", kDone, "x"},
      {"raw_utf8", "{\"sid\":\"\xC3\xA9\"}", kDone, "\xC3\xA9"},
      {"numbers", R"({"a":[0,-0,10,-1.5,2e9,3E+1,0.1e-7,1.0E0],"sid":"x"})", kDone, "x"},
      {"literals", R"([true,false,null)", kBad},
      {"words", R"({"a":[true,false,null],"sid":"x"})", kDone, "x"},
      {"rest_is_not_looked_at", R"({"sid":"x"} and so on)", kDone, "x"},
  };
}

std::vector<Case> Refused() {
  return {
      {"empty_object", "{}", kBad},
      {"no_such_member", R"({"a":1,"b":"sid"})", kBad},
      {"only_below_the_top", R"({"a":{"sid":"x"},"b":[{"sid":"y"}]})", kBad},
      {"name_is_a_prefix", R"({"si":"a","sidx":"b","Sid":"c"})", kBad},
      {"number", R"({"sid":12})", kBad},
      {"nothing", R"({"sid":null})", kBad},
      {"object", R"({"sid":{}})", kBad},
      {"empty_string", R"({"sid":""})", kBad},
      {"array_outside", R"([{"sid":"x"}])", kBad},
      {"text", "There is no such page.", kBad},
      {"too_much_before", R"(12345678901234567{"sid":"x"})", kBad},
      {"name_without_quotes", R"({sid:"x"})", kBad},
      {"single_quotes", R"({'sid':'x'})", kBad},
      {"comma_first", R"({,"sid":"x"})", kBad},
      {"comma_last", R"({"a":1,})", kBad},
      {"comma_last_in_array", R"({"a":[1,],"sid":"x"})", kBad},
      {"comma_missing", R"({"a":1 "sid":"x"})", kBad},
      {"colon_missing", R"({"sid" "x"})", kBad},
      {"value_missing", R"({"a":,"sid":"x"})", kBad},
      {"wrong_bracket", R"({"a":[1},"sid":"x"})", kBad},
      {"wrong_brace", R"({"a":{"b":1],"sid":"x"})", kBad},
      {"colon_in_array", R"({"a":["b":1],"sid":"x"})", kBad},
      {"leading_zero", R"({"a":01,"sid":"x"})", kBad},
      {"plus", R"({"a":+1,"sid":"x"})", kBad},
      {"minus_alone", R"({"a":-,"sid":"x"})", kBad},
      {"point_alone", R"({"a":1.,"sid":"x"})", kBad},
      {"point_first", R"({"a":.1,"sid":"x"})", kBad},
      {"two_points", R"({"a":1.1.1,"sid":"x"})", kBad},
      {"exponent_alone", R"({"a":1e,"sid":"x"})", kBad},
      {"exponent_sign_alone", R"({"a":1e+,"sid":"x"})", kBad},
      {"two_exponents", R"({"a":1e1e1,"sid":"x"})", kBad},
      {"wrong_word", R"({"a":nul1,"sid":"x"})", kBad},
      {"word_goes_on", R"({"a":truely,"sid":"x"})", kBad},
      {"infinity", R"({"a":Infinity,"sid":"x"})", kBad},
      {"comment", R"({/**/"sid":"x"})", kBad},
      {"wrong_escape", R"({"sid":"\x41"})", kBad},
      {"wrong_hex", R"({"sid":"\u00g1"})", kBad},
      {"lone_high_half", R"({"sid":"\ud83dx"})", kBad},
      {"high_half_and_letter", R"({"sid":"\ud83d\n"})", kBad},
      {"two_high_halves", R"({"sid":"\ud83d\ud83d"})", kBad},
      {"high_half_and_other", R"({"sid":"\ud83d\u0041"})", kBad},
      {"lone_low_half", R"({"sid":"\ude00"})", kBad},
      {"control_character", "{\"sid\":\"a\nb\"}", kBad},
      {"nul", std::string("{\"sid\":\"a\0b\"}", 13), kBad},
      {"wrong_in_another_string", "{\"a\":\"\x01\",\"sid\":\"x\"}", kBad},
      {"nothing_yet", "", kMore},
      {"only_before", "96:0", kMore},
      {"cut", R"({"a":[1,{"b":tr)", kMore},
      {"cut_in_the_value", R"({"sid":"abc)", kMore},
  };
}

const auto kCaseName = [](const auto& one) { return std::string(one.param.name); };
INSTANTIATE_TEST_SUITE_P(Found, JsonMemberText, testing::ValuesIn(Found()), kCaseName);
INSTANTIATE_TEST_SUITE_P(Refused, JsonMemberText, testing::ValuesIn(Refused()), kCaseName);

TEST(JsonMember, FindsTheTokenOfSignalR) {
  const std::string text =
      R"({"negotiateVersion":1,"connectionId":"-rQkJ","connectionToken":"05265228-1e2c",)"
      R"("availableTransports":[{"transport":"WebSockets","transferFormats":["Text","Binary"]}]})";
  EXPECT_EQ(Find(text, "connectionToken"), (JsonFinding{kDone, "05265228-1e2c"}));
  EXPECT_EQ(Find(text, "connectionId"), (JsonFinding{kDone, "-rQkJ"}));
  EXPECT_EQ(Find(text, "availableTransports").status, kBad);
}

TEST(JsonMember, IsDoneWithTheQuoteThatEndsTheString) {
  JsonMember member("sid");
  EXPECT_EQ(member.Advance(R"({"sid":"abc)"), kMore);
  EXPECT_EQ(member.Advance("\""), kDone) << "before anybody can have read the end";
}

TEST(JsonMember, TakesAStringUpToItsLimit) {
  const std::string most(JsonMember::kMostValue, 'x');
  EXPECT_EQ(Find("{\"sid\":\"" + most + "\"}"), (JsonFinding{kDone, most}));
  EXPECT_EQ(Find("{\"sid\":\"" + most + "x\"}").status, kBad);
  // Of something else it may be longer, and is not kept.
  EXPECT_EQ(Find("{\"a\":\"" + most + most + "\",\"" + most + most + "\":1,\"sid\":\"y\"}"),
            (JsonFinding{kDone, "y"}));
}

TEST(JsonMember, LooksAtSoManyBytesAndNoMore) {
  const std::string begin = "{\"a\":\"";
  const std::string end = "\",\"sid\":\"x\"";
  const std::string fits(JsonMember::kMostBytes - begin.size() - end.size(), 'x');
  EXPECT_EQ(Find(begin + fits + end), (JsonFinding{kDone, "x"}));
  EXPECT_EQ(Find(begin + fits + "x" + end).status, kBad);
  JsonMember member("sid");
  std::size_t taken = 0;
  ParseStatus status = member.Advance(begin);
  for (; status == kMore && taken < 2 * JsonMember::kMostBytes; ++taken) {
    status = member.Advance("x");
  }
  EXPECT_EQ(status, kBad);
  EXPECT_EQ(begin.size() + taken, JsonMember::kMostBytes + 1);
}

TEST(JsonMember, GoesSoDeepAndNoDeeper) {
  const auto nested = [](std::size_t depth) {
    return "{\"a\":" + std::string(depth - 1, '[') + std::string(depth - 1, ']') +
           ",\"sid\":\"x\"}";
  };
  EXPECT_EQ(Find(nested(JsonMember::kMostDepth)), (JsonFinding{kDone, "x"}));
  EXPECT_EQ(Find(nested(JsonMember::kMostDepth + 1)).status, kBad);
  std::string objects;
  for (unsigned i = 0; i < JsonMember::kMostDepth; ++i) {
    objects += "{\"sid\":";
  }
  EXPECT_EQ(Find(objects).status, kMore);
  EXPECT_EQ(Find(objects + "{").status, kBad);
}

// Texts put together at random from what JSON is made of, and from what breaks it.
TEST(JsonMember, AgreesWithAnotherReader) {
  constexpr std::array<std::string_view, 28> kParts = {"{",
                                                       "}",
                                                       "[",
                                                       "]",
                                                       ",",
                                                       ":",
                                                       "\"sid\"",
                                                       "\"sid\":\"x\"",
                                                       "\"a\"",
                                                       "true",
                                                       "false",
                                                       "null",
                                                       "0",
                                                       "-1",
                                                       "2.5e+3",
                                                       "\"\\u0041\"",
                                                       " ",
                                                       "\"",
                                                       "\\",
                                                       "1",
                                                       ".",
                                                       "e",
                                                       "\"\"",
                                                       "{\"sid\":\"y\"}",
                                                       "\"\\ud83d\\ude00\"",
                                                       "\n",
                                                       "[]",
                                                       "{\"b\":[]}"};
  Random random(11);
  int found = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = "{";
    for (std::uint64_t parts = random.Next() % 12; parts > 0; --parts) {
      text += kParts[random.Next() % kParts.size()];
    }
    const std::optional<std::string> other = ReferenceFinds(text, "sid");
    if (other) {
      ASSERT_EQ(Find(text).value, *other) << text;
      found += other->empty() ? 0 : 1;
    }
  }
  EXPECT_GT(found, 200);
}

}  // namespace
}  // namespace sluice::routing
