// Proves how response heads are read: the status line, the framing of RFC 9112 section 6.3, and
// that a backend's heads are taken as strictly as a client's. Verdicts do not depend on the cuts.
#include <ostream>
#include <string>

#include <gtest/gtest.h>

#include "proxy/http/parser.h"

#include "tests/support/split.h"
#include "tests/unit/http/feed.h"

namespace sluice::http {
namespace {

using namespace std::string_literals;

struct Refusal {
  std::string name;
  std::string input;
  std::string label;
};

struct Reading {
  std::string name;
  std::string input;
  std::string want;
  bool answers_head_request = false;
};

void PrintTo(const Refusal& row, std::ostream* out) {
  *out << row.name;
}

void PrintTo(const Reading& row, std::ostream* out) {
  *out << row.name;
}

constexpr HeadLimits kSmall = {.max_head_bytes = 256, .max_fields = 4, .max_request_line = 64};

std::string With(const std::string& fields, const std::string& line = "HTTP/1.1 200 OK") {
  return line + "\r\n" + fields + "\r\n";
}

class ResponseRefusal : public testing::TestWithParam<Refusal> {};

TEST_P(ResponseRefusal, IsTheSameHoweverTheBytesAreCut) {
  const Refusal& row = GetParam();
  ResponseParser parser(kSmall);
  test::ForEachSplit(row.input, [&](const auto& pieces, const std::string& how) {
    if (HasFailure()) {
      return;  // one cut is enough to read
    }
    parser.Reset();
    EXPECT_EQ(
        Feed(parser, pieces, [&](std::string_view bytes) { return parser.Parse(bytes, false); }),
        "bad 502 " + row.label)
        << how;
  });
}

const Refusal kRefusals[] = {
    // Section 4: the status line.
    {"NotHttp", "SSH-2.0-OpenSSH_9.2\r\n", "bad_version"},
    {"EmptyLineFirst", "\r\nHTTP/1.1 200 OK\r\n\r\n", "bare_cr"},
    {"Http09Body", "<html>", "bad_version"},
    {"Http20", With("", "HTTP/2.0 200 OK"), "bad_version"},
    {"Http12", With("", "HTTP/1.2 200 OK"), "bad_version"},
    {"IcyVersion", With("", "ICY 200 OK"), "bad_version"},
    {"TwoSpacesAfterVersion", With("", "HTTP/1.1  200 OK"), "bad_status"},
    {"TabAfterVersion", With("", "HTTP/1.1\t200 OK"), "control_byte"},
    {"NoStatus", With("", "HTTP/1.1 "), "bare_cr"},
    {"StatusOfTwoDigits", With("", "HTTP/1.1 20 OK"), "bad_status"},
    {"StatusOfFourDigits", With("", "HTTP/1.1 2000 OK"), "bad_status"},
    {"Status099", With("", "HTTP/1.1 099 Low"), "bad_status"},
    {"Status600", With("", "HTTP/1.1 600 High"), "bad_status"},
    {"StatusWithSign", With("", "HTTP/1.1 +20 OK"), "bad_status"},
    {"StatusWithoutSpace", With("", "HTTP/1.1 200OK"), "bad_status_line"},
    {"LineOfLf", "HTTP/1.1 200 OK\nA: b\r\n\r\n", "bare_lf"},
    {"LineOfLfWithoutReason", "HTTP/1.1 200\n\r\n", "bare_lf"},
    {"LineOfCr", "HTTP/1.1 200 OK\rA: b\r\n\r\n", "bare_cr"},
    {"NulInReason", With("", "HTTP/1.1 200 O\0K"s), "nul_byte"},
    {"EscapeInReason", With("", "HTTP/1.1 200 \x1B[2J"), "control_byte"},
    {"LineOf65Bytes", With("", "HTTP/1.1 200 " + std::string(52, 'x')), "status_line_too_long"},
    {"ReasonWithoutEnd", "HTTP/1.1 200 " + std::string(300, 'x'), "status_line_too_long"},
    // Section 5: field lines.
    {"FieldOfLf", With("A: b\nC: d\r\n"), "bare_lf"},
    {"NulInValue", With("A: \0\r\n"s), "nul_byte"},
    {"ObsFold", With("A: b\r\n c\r\n"), "obs_fold"},
    {"SpaceBeforeColon", With("Content-Length : 5\r\n"), "space_before_colon"},
    {"EmptyName", With(": b\r\n"), "empty_field_name"},
    {"NoColon", With("Hello\r\n"), "missing_colon"},
    {"FiveFields", With("A: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\n"), "too_many_fields"},
    {"ValueWithoutEnd", With("A: " + std::string(300, 'b')), "head_too_large"},
    // Sections 6.1 and 6.3, RFC 9110 section 8.6: framing that two readers may read differently.
    {"TwoLengths", With("Content-Length: 5\r\nContent-Length: 6\r\n"), "duplicate_content_length"},
    {"TwoEqualLengths", With("Content-Length: 5\r\nContent-Length: 5\r\n"),
     "duplicate_content_length"},
    {"LengthList", With("Content-Length: 5, 5\r\n"), "bad_content_length"},
    {"LengthWithSign", With("Content-Length: +5\r\n"), "bad_content_length"},
    {"LengthEmpty", With("Content-Length:\r\n"), "bad_content_length"},
    {"LengthOverflow", With("Content-Length: 99999999999999999999\r\n"), "content_length_overflow"},
    {"LengthAndEncoding", With("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
     "length_and_encoding"},
    {"EncodingGzip", With("Transfer-Encoding: gzip\r\n"), "bad_transfer_encoding"},
    {"EncodingGzipChunked", With("Transfer-Encoding: gzip, chunked\r\n"), "bad_transfer_encoding"},
    {"EncodingTwice", With("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
     "duplicate_transfer_encoding"},
    {"EncodingInHttp10", With("Transfer-Encoding: chunked\r\n", "HTTP/1.0 200 OK"),
     "encoding_in_http10"},
    // The framing of a 101 or a 304 is none, but its fields are read like all others.
    {"LengthListIn304", With("Content-Length: 5, 5\r\n", "HTTP/1.1 304 Not Modified"),
     "bad_content_length"},
};
INSTANTIATE_TEST_SUITE_P(All, ResponseRefusal, testing::ValuesIn(kRefusals),
                         [](const auto& row) { return row.param.name; });

class ResponseReading : public testing::TestWithParam<Reading> {};

TEST_P(ResponseReading, IsTheSameHoweverTheBytesAreCut) {
  const Reading& row = GetParam();
  ResponseParser parser;
  test::ForEachSplit(row.input, [&](const auto& pieces, const std::string& how) {
    if (HasFailure()) {
      return;  // one cut is enough to read
    }
    parser.Reset();
    const std::string verdict = Feed(parser, pieces, [&](std::string_view bytes) {
      return parser.Parse(bytes, row.answers_head_request);
    });
    EXPECT_TRUE(verdict.starts_with("done " + std::to_string(row.input.size()) + " " + row.want))
        << how << ": " << verdict;
  });
}

// Framing is printed as a number: 0 none, 1 length, 2 chunked, 3 until close.
const Reading kReadings[] = {
    {"SwitchingProtocols",
     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
     "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
     "101|Switching Protocols|1.1 keep-alive framing=0 length=0"},
    // Section 6.3 item 1: a 1xx has no content whatever its fields say.
    {"SwitchingProtocolsWithLength", With("Content-Length: 5\r\n", "HTTP/1.1 101 x"),
     "101|x|1.1 keep-alive framing=0 length=5"},
    {"SwitchingProtocolsChunked", With("Transfer-Encoding: chunked\r\n", "HTTP/1.1 101 x"),
     "101|x|1.1 keep-alive framing=0 length=0"},
    {"Continue", With("", "HTTP/1.1 100 Continue"), "100|Continue|1.1 keep-alive framing=0"},
    {"NoContent", With("", "HTTP/1.1 204 No Content"), "204|No Content|1.1 keep-alive framing=0"},
    {"NotModifiedWithLength", With("Content-Length: 512\r\n", "HTTP/1.1 304 Not Modified"),
     "304|Not Modified|1.1 keep-alive framing=0 length=512"},
    {"HeadAnswerWithLength", With("Content-Length: 512\r\n"),
     "200|OK|1.1 keep-alive framing=0 length=512", true},
    {"HeadAnswerChunked", With("Transfer-Encoding: chunked\r\n"),
     "200|OK|1.1 keep-alive framing=0 length=0", true},
    {"HeadAnswerWithoutLength", With(""), "200|OK|1.1 keep-alive framing=0 length=0", true},
    // Items 4, 6 and 8.
    {"Chunked", With("Transfer-Encoding: Chunked\r\n"), "200|OK|1.1 keep-alive framing=2"},
    {"Length", With("content-length: 5\r\n"), "200|OK|1.1 keep-alive framing=1 length=5"},
    {"LengthZero", With("Content-Length: 0\r\n"), "200|OK|1.1 keep-alive framing=1 length=0"},
    {"UntilClose", With(""), "200|OK|1.1 close framing=3 length=0"},
    {"UntilCloseInHttp10", With("", "HTTP/1.0 200 OK"), "200|OK|1.0 close framing=3 length=0"},
    // Section 9.3
    {"Close", With("Content-Length: 5\r\nConnection: close\r\n"), "200|OK|1.1 close framing=1"},
    {"Http10KeepAlive", With("Content-Length: 5\r\nConnection: keep-alive\r\n", "HTTP/1.0 200 OK"),
     "200|OK|1.0 keep-alive framing=1 length=5"},
    {"Http10", With("Content-Length: 5\r\n", "HTTP/1.0 200 OK"), "200|OK|1.0 close framing=1"},
    // Section 4: the reason may be empty; the space before it is often left out then.
    {"EmptyReason", With("Content-Length: 0\r\n", "HTTP/1.1 200 "), "200||1.1 keep-alive"},
    {"NoReason", With("Content-Length: 0\r\n", "HTTP/1.1 200"), "200||1.1 keep-alive"},
    {"LongReason",
     With("Content-Length: 0\r\n",
          "HTTP/1.1 500 Kaffee\t\xC3\xBC"
          "berall (alle)"),
     "500|Kaffee\t\xC3\xBC"
     "berall (alle)|1.1 keep-alive"},
    {"Status100", With("", "HTTP/1.1 100 "), "100||1.1"},
    {"Status599", With("Content-Length: 0\r\n", "HTTP/1.1 599 "), "599||1.1"},
    {"UpgradeRequired",
     With("Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 16\r\n",
          "HTTP/1.1 426 Upgrade Required"),
     "426|Upgrade Required|1.1 keep-alive framing=1 length=16"},
};
INSTANTIATE_TEST_SUITE_P(All, ResponseReading, testing::ValuesIn(kReadings),
                         [](const auto& row) { return row.param.name; });

TEST(ResponseParser, LeavesTheBytesBehindA101) {
  const std::string head =
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
  const std::string all = head + "\x81\x02hi";
  ResponseParser parser;
  ASSERT_EQ(parser.Parse(all, false), ParseStatus::kDone);
  EXPECT_EQ(parser.head_size(), head.size());
}

TEST(ResponseParser, ReadsTheFinalResponseAfterAnInterimOne) {
  const std::string interim = "HTTP/1.1 100 Continue\r\nA: b\r\n\r\n";
  const std::string all = interim + "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
  ResponseParser parser;
  ASSERT_EQ(parser.Parse(all, false), ParseStatus::kDone);
  ASSERT_EQ(parser.head_size(), interim.size());
  parser.Reset();
  ASSERT_EQ(parser.Parse(std::string_view(all).substr(interim.size()), false), ParseStatus::kDone);
  EXPECT_EQ(parser.head().status, 200);
  EXPECT_EQ(parser.head().reason, "OK");
  EXPECT_EQ(parser.head().content_length, 3U);
  EXPECT_EQ(parser.head().fields.size(), 1U);
}

}  // namespace
}  // namespace sluice::http
