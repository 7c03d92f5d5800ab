// Proves that the chunked coding comes off the same however the bytes are cut, and what of it is
// refused. Section numbers are RFC 9112's.
#include "proxy/http/chunked.h"

#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/http/parser.h"

#include "tests/support/split.h"

namespace sluice::http {
namespace {

using namespace std::string_literals;

struct Case {
  std::string name;
  std::string input;
  std::string want;  // "done <bytes used> <content>", "more <content>" or "bad <label>"
};

void PrintTo(const Case& row, std::ostream* out) {
  *out << row.name;
}

std::string Decode(const std::vector<std::string_view>& pieces) {
  ChunkedDecoder decoder;
  std::string content;
  std::size_t used = 0;
  for (const std::string_view piece : pieces) {
    Bytes rest = AsBytes(piece);
    while (!rest.empty()) {
      const ChunkedDecoder::Step step = decoder.Next(rest);
      content += AsText(step.data);
      used += step.consumed;
      if (step.status == ParseStatus::kBad) {
        return "bad " + std::string(decoder.fault());
      }
      if (step.status == ParseStatus::kDone) {
        return "done " + std::to_string(used) + " " + content;
      }
      if (step.consumed == 0) {
        return "stuck";
      }
      rest = rest.subspan(step.consumed);
    }
  }
  return "more " + content;
}

class Chunked : public testing::TestWithParam<Case> {};

TEST_P(Chunked, IsTheSameHoweverTheBytesAreCut) {
  test::ForEachSplit(GetParam().input, [&](const auto& pieces, const std::string& how) {
    if (HasFailure()) {
      return;  // one cut is enough to read
    }
    EXPECT_EQ(Decode(pieces), GetParam().want) << how;
  });
}

std::string Chunk(const std::string& size_line) {
  return size_line + "\r\nhello\r\n0\r\n\r\n";
}

const Case kTaken[] = {
    {"OneChunk", "5\r\nhello\r\n0\r\n\r\n", "done 15 hello"},
    {"TwoChunks", "5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n", "done 27 hello, world"},
    {"NoContent", "0\r\n\r\n", "done 5 "},
    {"Rest", "0\r\n\r\nGET / HTTP/1.1\r\n", "done 5 "},
    {"HexBothCases", "a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n",
     "done 36 01234567890123456789a"},
    {"LeadingZeros", Chunk("000000000000005"), "done 29 hello"},
    {"LastChunkOfZeros", "00000\r\n\r\n", "done 9 "},
    {"ContentLooksLikeChunks", "5\r\n0\r\n\r\n\r\n0\r\n\r\n", "done 15 0\r\n\r\n"},
    // Section 7.1.1
    {"Extension", Chunk("5;name"), "done 20 hello"},
    {"ExtensionWithValue", Chunk("5;chunk-signature=ad80c730a21e5b8d"), "done 48 hello"},
    {"ExtensionWithQuotes", Chunk("5;a=\"b;c\td\xC3\xA4\";e=\"\""), "done 32 hello"},
    {"ExtensionOnLastChunk", "0;a=b;c\r\n\r\n", "done 11 "},
    {"ExtensionOf256Bytes", Chunk("5;" + std::string(255, 'a')), "done 271 hello"},
    {"LongExtensionOnEveryChunk",
     "1;" + std::string(200, 'a') + "\r\nx\r\n1;" + std::string(200, 'b') + "\r\ny\r\n0;" +
         std::string(200, 'c') + "\r\n\r\n",
     "done 620 xy"},
    // Section 7.1.2
    {"Trailer", "0\r\nA: b\r\n\r\n", "done 11 "},
    {"Trailers", "0\r\nA:\r\nContent-Length: 5\r\nB: \tc d\t\r\n\r\n", "done 38 "},
    // Not complete
    {"Nothing", "", "more "},
    {"SizeAlone", "5", "more "},
    {"PartOfAChunk", "5\r\nhel", "more hel"},
    {"NoLastChunk", "5\r\nhello\r\n", "more hello"},
    {"NoEmptyLine", "0\r\n", "more "},
    {"LargestSize", "fffffffffffffff\r\nabc", "more abc"},
};
INSTANTIATE_TEST_SUITE_P(Taken, Chunked, testing::ValuesIn(kTaken),
                         [](const auto& row) { return row.param.name; });

const Case kRefused[] = {
    // Section 7.1: chunk-size is hex digits alone.
    {"SizeWithPrefix", Chunk("0x5"), "bad bad_chunk_size"},
    {"SizeWithPlus", Chunk("+5"), "bad bad_chunk_size"},
    {"SizeWithMinus", Chunk("-5"), "bad bad_chunk_size"},
    {"SizeWithSpaceBehind", Chunk("5 "), "bad bad_chunk_size"},
    {"SizeWithTabBehind", Chunk("5\t"), "bad bad_chunk_size"},
    {"SizeWithSpaceBefore", Chunk(" 5"), "bad bad_chunk_size"},
    {"SizeEmpty", Chunk(""), "bad bad_chunk_size"},
    {"SizeOfExtensionAlone", Chunk(";a=b"), "bad bad_chunk_size"},
    {"SizeOfLetters", Chunk("xyz"), "bad bad_chunk_size"},
    {"SizeWithUnderscore", Chunk("1_0"), "bad bad_chunk_size"},
    {"SizeWithNul", Chunk("5\0"s), "bad bad_chunk_size"},
    {"SizeOf16Digits", Chunk("0000000000000005"), "bad chunk_size_overflow"},
    {"SizeOf17Digits", Chunk("10000000000000005"), "bad chunk_size_overflow"},
    {"SizeWithoutEnd", std::string(200, 'f'), "bad chunk_size_overflow"},
    // Section 2.2: a bare LF ends no line here.
    {"SizeEndsWithLf", "5\nhello\r\n0\r\n\r\n", "bad chunk_line_end"},
    {"SizeEndsWithCr", "5\rhello\r\n0\r\n\r\n", "bad chunk_line_end"},
    {"SizeEndsWithCrCrLf", "5\r\r\nhello\r\n0\r\n\r\n", "bad chunk_line_end"},
    {"ExtensionEndsWithLf", "5;a\nhello\r\n0\r\n\r\n", "bad chunk_line_end"},
    {"LastChunkEndsWithLf", "0\n\r\n", "bad chunk_line_end"},
    // Section 7.1: the content of a chunk is followed by CRLF.
    {"NothingBehindContent", "5\r\nhello0\r\n\r\n", "bad chunk_data_end"},
    {"LfBehindContent", "5\r\nhello\n0\r\n\r\n", "bad chunk_data_end"},
    {"CrBehindContent", "5\r\nhello\r0\r\n\r\n", "bad chunk_data_end"},
    {"MoreContentThanSize", "4\r\nhello\r\n0\r\n\r\n", "bad chunk_data_end"},
    {"LessContentThanSize", "6\r\nhello\r\n0\r\n\r\n", "bad chunk_data_end"},
    // Section 7.1.1
    {"ExtensionEmpty", Chunk("5;"), "bad bad_chunk_extension"},
    {"ExtensionAfterSpace", Chunk("5 ;a"), "bad bad_chunk_size"},
    {"ExtensionWithSpace", Chunk("5; a"), "bad bad_chunk_extension"},
    {"ExtensionWithoutValue", Chunk("5;a="), "bad bad_chunk_extension"},
    {"ExtensionWithoutName", Chunk("5;=b"), "bad bad_chunk_extension"},
    {"ExtensionWithControl", Chunk("5;a\x01"), "bad bad_chunk_extension"},
    {"ExtensionWithOpenQuote", Chunk("5;a=\"b"), "bad bad_chunk_extension"},
    {"ExtensionWithEscape", Chunk("5;a=\"\\\"\""), "bad bad_chunk_extension"},
    {"ExtensionBehindQuote", Chunk("5;a=\"b\"c"), "bad bad_chunk_extension"},
    {"ExtensionWithCrInQuotes", Chunk("5;a=\"b\rc\""), "bad bad_chunk_extension"},
    {"ExtensionOf257Bytes", Chunk("5;" + std::string(256, 'a')), "bad chunk_extension_too_long"},
    {"ExtensionInQuotesWithoutEnd", "5;a=\"" + std::string(400, 'a'),
     "bad chunk_extension_too_long"},
    // Section 7.1.2: trailer fields are field lines.
    {"TrailerEndsWithLf", "0\r\nA: b\n\r\n", "bad bad_trailer"},
    {"TrailerWithoutColon", "0\r\nA\r\n\r\n", "bad bad_trailer"},
    {"TrailerWithoutName", "0\r\n: b\r\n\r\n", "bad bad_trailer"},
    {"TrailerWithSpaceBeforeColon", "0\r\nA : b\r\n\r\n", "bad bad_trailer"},
    {"TrailerFolded", "0\r\nA: b\r\n c\r\n\r\n", "bad bad_trailer"},
    {"TrailerWithNul", "0\r\nA: \0\r\n\r\n"s, "bad bad_trailer"},
    {"EndsWithLf", "0\r\n\n", "bad bad_trailer"},
    {"EndsWithCr", "0\r\n\rX", "bad bad_trailer"},
};
INSTANTIATE_TEST_SUITE_P(Refused, Chunked, testing::ValuesIn(kRefused),
                         [](const auto& row) { return row.param.name; });

TEST(ChunkedDecoder, FaultsAreInTheClosedSet) {
  const auto labels = FaultLabels();
  for (const Case& row : kRefused) {
    EXPECT_EQ(std::count(labels.begin(), labels.end(), row.want.substr(4)), 1) << row.want;
  }
}

TEST(ChunkedDecoder, BoundsTheTrailerSection) {
  // 8 KiB with the empty line that ends it, then one byte more.
  const std::string fits = "0\r\nA:" + std::string(8 * 1024 - 6, 'b') + "\r\n\r\n";
  EXPECT_EQ(Decode({fits}), "done " + std::to_string(fits.size()) + " ");
  const std::string beyond = "0\r\nA:" + std::string(8 * 1024 - 5, 'b') + "\r\n\r\n";
  EXPECT_EQ(Decode({beyond}), "bad trailer_too_large");
  std::string lines = "0\r\n";
  for (int i = 0; i < 3000; ++i) {
    lines += "A:\r\n";
  }
  EXPECT_EQ(Decode({lines}), "bad trailer_too_large");
}

// The content is a view into the input: nothing is copied.
TEST(ChunkedDecoder, ShowsContentWhereItStands) {
  const std::string input = "5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n";
  ChunkedDecoder decoder;
  const ChunkedDecoder::Step first = decoder.Next(AsBytes(input));
  EXPECT_EQ(first.status, ParseStatus::kNeedMore);
  EXPECT_EQ(AsText(first.data).data(), input.data() + 3);
  EXPECT_EQ(first.data.size(), 5U);
  EXPECT_EQ(first.consumed, 8U);
  const ChunkedDecoder::Step second = decoder.Next(AsBytes(input).subspan(first.consumed));
  EXPECT_EQ(AsText(second.data).data(), input.data() + 13);
  EXPECT_EQ(second.data.size(), 3U);
}

}  // namespace
}  // namespace sluice::http
