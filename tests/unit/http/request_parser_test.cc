// Proves which request heads are taken and which are refused, with which answer, and that the
// verdict does not depend on how the bytes are cut. Section numbers without a name are RFC 9112's.
#include <cctype>
#include <chrono>
#include <ostream>
#include <set>
#include <span>
#include <string>

#include <gtest/gtest.h>

#include "proxy/http/parser.h"

#include "tests/support/chrome_upgrade.h"
#include "tests/support/split.h"
#include "tests/unit/http/feed.h"

namespace sluice::http {
namespace {

using namespace std::string_literals;

struct Refusal {
  std::string name;
  std::string input;
  int status;
  std::string label;
};

struct Reading {
  std::string name;
  std::string input;
  std::string want;  // what Describe() says
  std::size_t fields;
};

void PrintTo(const Refusal& row, std::ostream* out) {
  *out << row.name;
}

void PrintTo(const Reading& row, std::ostream* out) {
  *out << row.name;
}

// Small, so that the rows about limits can be cut at every place.
constexpr HeadLimits kSmall = {.max_head_bytes = 512, .max_fields = 6, .max_request_line = 64};

std::string Repeat(std::string_view text, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) {
    out += text;
  }
  return out;
}

// A whole request with this request line.
std::string Line(const std::string& line) {
  return line + "\r\nHost: example.com\r\n\r\n";
}

// A whole request with these field lines behind a valid Host.
std::string With(const std::string& fields, const std::string& line = "GET / HTTP/1.1") {
  return line + "\r\nHost: example.com\r\n" + fields + "\r\n";
}

// A whole request with these field lines alone.
std::string Only(const std::string& fields, const std::string& line = "GET / HTTP/1.1") {
  return line + "\r\n" + fields + "\r\n";
}

class RequestRefusal : public testing::TestWithParam<Refusal> {};

TEST_P(RequestRefusal, IsTheSameHoweverTheBytesAreCut) {
  const Refusal& row = GetParam();
  RequestParser parser(kSmall);
  test::ForEachSplit(row.input, [&](const auto& pieces, const std::string& how) {
    if (HasFailure()) {
      return;  // one cut is enough to read
    }
    parser.Reset();
    EXPECT_EQ(Feed(parser, pieces, [&](std::string_view bytes) { return parser.Parse(bytes); }),
              "bad " + std::to_string(row.status) + " " + row.label)
        << how;
    EXPECT_FALSE(parser.fault().reason.empty());
  });
}

const Refusal kLineRefusals[] = {
    // Section 3.1: the method is a token.
    {"EmptyMethod", Line(" / HTTP/1.1"), 400, "bad_method"},
    {"MethodWithColon", Line("GE:T / HTTP/1.1"), 400, "bad_method"},
    {"MethodWithTab", Line("GET\t/ HTTP/1.1"), 400, "control_byte"},
    {"MethodOf33Bytes", Line(std::string(33, 'M') + " / HTTP/1.1"), 400, "method_too_long"},
    {"MethodOfHighBytes", Line("G\xC3\x89T / HTTP/1.1"), 400, "bad_method"},
    {"TlsClientHello", "\x16\x03\x01\x02\x00\x01\x00"s, 400, "control_byte"},
    {"NulFirst", "\0GET / HTTP/1.1\r\n"s, 400, "nul_byte"},
    {"SpaceFirst", " GET / HTTP/1.1\r\n", 400, "bad_method"},
    // Section 2.2: one empty line may come first, and it ends with CRLF too.
    {"TwoEmptyLinesFirst", "\r\n\r\nGET / HTTP/1.1\r\n", 400, "bare_cr"},
    {"EmptyLineOfLfFirst", "\nGET / HTTP/1.1\r\n", 400, "bare_lf"},
    {"CrFirst", "\rGET / HTTP/1.1\r\n", 400, "bare_cr"},
    // Section 3: single spaces, and nothing behind the version.
    {"TwoSpacesAfterMethod", Line("GET  / HTTP/1.1"), 400, "bad_request_line"},
    {"TwoSpacesAfterTarget", Line("GET /  HTTP/1.1"), 400, "bad_request_line"},
    {"SpaceAfterVersion", Line("GET / HTTP/1.1 "), 400, "bad_request_line"},
    {"SpaceInTarget", Line("GET /a b HTTP/1.1"), 400, "bad_version"},
    {"NoTarget", Line("GET HTTP/1.1"), 400, "missing_version"},
    {"LineOfLf", "GET / HTTP/1.1\nHost: example.com\r\n\r\n", 400, "bare_lf"},
    {"TargetEndsWithLf", "GET /\nHost: example.com\r\n\r\n", 400, "bare_lf"},
    {"MethodEndsWithLf", "GET\n", 400, "bare_lf"},
    {"LineOfCr", "GET / HTTP/1.1\rHost: example.com\r\n\r\n", 400, "bare_cr"},
    // Section 2.3: the version, with case.
    {"Http09", "GET /\r\n", 400, "missing_version"},
    {"Http09WithFields", Line("GET /"), 400, "missing_version"},
    {"Http20", Line("GET / HTTP/2.0"), 400, "bad_version"},
    {"Http2Preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_version"},
    {"Http12", Line("GET / HTTP/1.2"), 400, "bad_version"},
    {"Http11WithMoreDigits", Line("GET / HTTP/1.10"), 400, "bad_version"},
    {"Http11WithLeadingZero", Line("GET / HTTP/01.1"), 400, "bad_version"},
    {"Http1", Line("GET / HTTP/1"), 400, "bare_cr"},
    {"LowerCaseVersion", Line("GET / http/1.1"), 400, "bad_version"},
    {"OtherProtocol", Line("GET / RTSP/1.0"), 400, "bad_version"},
    {"NulInVersion", Line("GET / HTTP/1.\0"s), 400, "nul_byte"},
    // Section 3.2: the target is one of four forms of visible ASCII.
    {"NulInTarget", Line("GET /a\0b HTTP/1.1"s), 400, "nul_byte"},
    {"TabInTarget", Line("GET /a\tb HTTP/1.1"), 400, "control_byte"},
    {"DelInTarget", Line("GET /a\x7F HTTP/1.1"), 400, "control_byte"},
    {"EscapeInTarget", Line("GET /\x1B[2J HTTP/1.1"), 400, "control_byte"},
    {"HighByteInTarget", Line("GET /caf\xC3\xA9 HTTP/1.1"), 400, "bad_target"},
    {"CrInTarget", Line("GET /a\rb HTTP/1.1"), 400, "missing_version"},
    {"Fragment", Line("GET /a#b HTTP/1.1"), 400, "target_fragment"},
    {"FragmentBeforeQuery", Line("GET /#?a HTTP/1.1"), 400, "target_fragment"},
    {"NoSlash", Line("GET index.html HTTP/1.1"), 400, "bad_target_form"},
    {"QueryAlone", Line("GET ?a=b HTTP/1.1"), 400, "bad_target_form"},
    {"StarForGet", Line("GET * HTTP/1.1"), 400, "bad_target_form"},
    {"StarWithMore", Line("OPTIONS */ HTTP/1.1"), 400, "bad_target_form"},
    {"AuthorityForGet", Line("GET example.com:80 HTTP/1.1"), 400, "bad_target_form"},
    {"FtpScheme", Line("GET ftp://example.com/ HTTP/1.1"), 400, "bad_target_form"},
    {"WsScheme", Line("GET ws://example.com/ HTTP/1.1"), 400, "bad_target_form"},
    {"SchemeAlone", Line("GET http:/example.com/ HTTP/1.1"), 400, "bad_target_form"},
    {"NoAuthority", Line("GET http:/// HTTP/1.1"), 400, "bad_authority"},
    {"NothingBehindScheme", Line("GET http:// HTTP/1.1"), 400, "bad_authority"},
    {"UserInfo", Line("GET http://a@example.com/ HTTP/1.1"), 400, "bad_authority"},
    {"UserInfoHidesHost", Line("GET http://example.com@evil/ HTTP/1.1"), 400, "bad_authority"},
    {"BackslashInAuthority", Line("GET http://example.com\\@evil/ HTTP/1.1"), 400, "bad_authority"},
    {"BadPortInAuthority", Line("GET http://example.com:0x50/ HTTP/1.1"), 400, "bad_authority"},
    // Section 3.2.2 lets the target win over Host; two names for one request are refused here.
    {"OtherAuthority", Line("GET http://internal/ HTTP/1.1"), 400, "host_mismatch"},
    {"AuthorityWithOtherPort", Line("GET http://example.com:81/ HTTP/1.1"), 400, "host_mismatch"},
    {"AuthorityWithPortOfAnotherScheme", Line("GET http://example.com:443/ HTTP/1.1"), 400,
     "host_mismatch"},
    {"AuthorityThatGoesOn", Line("GET http://example.com.evil/ HTTP/1.1"), 400, "host_mismatch"},
    // Section 3.2.3: host and port, nothing else.
    {"ConnectWithoutPort", Line("CONNECT example.com HTTP/1.1"), 400, "bad_authority"},
    {"ConnectWithPath", Line("CONNECT /a HTTP/1.1"), 400, "bad_authority"},
    // Section 3: 414 for a line that is too long (here beyond 64 bytes).
    {"LineOf65Bytes", Line("GET /" + std::string(51, 'a') + " HTTP/1.1"), 414,
     "request_line_too_long"},
    {"LineWithoutEnd", "GET /" + std::string(200, 'a'), 414, "request_line_too_long"},
};
INSTANTIATE_TEST_SUITE_P(Line, RequestRefusal, testing::ValuesIn(kLineRefusals),
                         [](const auto& row) { return row.param.name; });

const Refusal kFieldRefusals[] = {
    // Section 2.2 and RFC 9110 section 5.5: line ends and control characters.
    {"FieldOfLf", With("A: b\nC: d\r\n"), 400, "bare_lf"},
    {"FieldOfCr", With("A: b\rC: d\r\n"), 400, "bare_cr"},
    {"FieldOfCrCrLf", With("A: b\r\r\n"), 400, "bare_cr"},
    {"LfInName", With("A\nB: c\r\n"), 400, "bare_lf"},
    {"EmptyLineOfLf", "GET / HTTP/1.1\r\nHost: example.com\r\n\n", 400, "bare_lf"},
    {"EmptyLineOfCr", "GET / HTTP/1.1\r\nHost: example.com\r\n\rX", 400, "bare_cr"},
    {"NulInValue", With("A: b\0c\r\n"s), 400, "nul_byte"},
    {"NulInName", With("A\0: b\r\n"s), 400, "nul_byte"},
    {"NulFirstInLine", With("\0A: b\r\n"s), 400, "nul_byte"},
    {"BellInValue", With("A: b\ac\r\n"), 400, "control_byte"},
    {"VerticalTabBeforeValue", With("A:\vb\r\n"), 400, "control_byte"},
    {"FormFeedAfterValue", With("A: b\f\r\n"), 400, "control_byte"},
    {"DelInValue", With("A: b\x7F\r\n"), 400, "control_byte"},
    {"ControlAfterManyBytes",
     With("A: 0123456789abcdef0123456\x01"
          "789\r\n"),
     400, "control_byte"},
    // Section 5.2: obs-fold; section 2.2: blanks before the first field line.
    {"FoldWithSpace", With("A: b\r\n c\r\n"), 400, "obs_fold"},
    {"FoldWithTab", With("A: b\r\n\tc\r\n"), 400, "obs_fold"},
    {"FoldedChunked", With("Transfer-Encoding:\r\n chunked\r\n"), 400, "obs_fold"},
    {"BlankBeforeFirstField", "GET / HTTP/1.1\r\n Host: example.com\r\n\r\n", 400, "obs_fold"},
    {"BlankLine", With(" \r\n"), 400, "obs_fold"},
    // Section 5.1: no blank before the colon; RFC 9110 section 5.1: a name is a token.
    {"SpaceBeforeColon", With("Transfer-Encoding : chunked\r\n"), 400, "space_before_colon"},
    {"TabBeforeColon", With("Content-Length\t: 5\r\n"), 400, "space_before_colon"},
    {"SpaceInName", With("A B: c\r\n"), 400, "space_before_colon"},
    {"EmptyName", With(": chunked\r\n"), 400, "empty_field_name"},
    {"ColonAlone", With(":\r\n"), 400, "empty_field_name"},
    {"NoColon", With("Chunked\r\n"), 400, "missing_colon"},
    {"NameInParentheses", With("(A): b\r\n"), 400, "bad_field_name"},
    {"NameWithHighByte", With("N\xC3\xA4me: b\r\n"), 400, "bad_field_name"},
    {"NameInQuotes", With("\"A\": b\r\n"), 400, "bad_field_name"},
    {"NameWithSlash", With("A/B: c\r\n"), 400, "bad_field_name"},
    // RFC 6585 section 5: 431 (here beyond 6 fields and 512 bytes).
    {"SevenFields", With(Repeat("A: b\r\n", 6)), 431, "too_many_fields"},
    {"ValueWithoutEnd", Only("A: " + std::string(600, 'b')), 431, "head_too_large"},
    {"NameWithoutEnd", Only(std::string(600, 'N') + ": b\r\n"), 431, "head_too_large"},
    {"BlanksWithoutEnd", Only("A:" + std::string(600, ' ')), 431, "head_too_large"},
    {"FaultBehindTheLimit", Only("A: " + std::string(600, 'b') + "\n"), 431, "head_too_large"},
};
INSTANTIATE_TEST_SUITE_P(Fields, RequestRefusal, testing::ValuesIn(kFieldRefusals),
                         [](const auto& row) { return row.param.name; });

const Refusal kHostRefusals[] = {
    // Section 3.2: exactly one valid Host, or 400.
    {"NoHost", Only(""), 400, "missing_host"},
    {"NoHostInAbsoluteForm", Only("", "GET http://example.com/ HTTP/1.1"), 400, "missing_host"},
    {"TwoHosts", With("Host: evil\r\n"), 400, "duplicate_host"},
    {"TwoEqualHosts", With("hOST: example.com\r\n"), 400, "duplicate_host"},
    {"TwoHostsInHttp10", With("Host: evil\r\n", "GET / HTTP/1.0"), 400, "duplicate_host"},
    {"EmptyHost", Only("Host:\r\n"), 400, "empty_host"},
    {"BlankHost", Only("Host: \t \r\n"), 400, "empty_host"},
    {"EmptyHostInHttp10", Only("Host:\r\n", "GET / HTTP/1.0"), 400, "empty_host"},
    {"HostList", Only("Host: a, b\r\n"), 400, "bad_host"},
    {"HostWithSpace", Only("Host: exam ple.com\r\n"), 400, "bad_host"},
    {"HostWithUserInfo", Only("Host: a@example.com\r\n"), 400, "bad_host"},
    {"HostWithPath", Only("Host: example.com/admin\r\n"), 400, "bad_host"},
    {"HostWithScheme", Only("Host: http://example.com\r\n"), 400, "bad_host_port"},
    {"HostWithHighByte", Only("Host: caf\xC3\xA9.example\r\n"), 400, "bad_host"},
    {"HostWithPercent", Only("Host: example%2Ecom\r\n"), 400, "bad_host"},
    {"HostInQuotes", Only("Host: \"example.com\"\r\n"), 400, "bad_host"},
    {"PortAlone", Only("Host: :80\r\n"), 400, "bad_host"},
    {"EmptyPort", Only("Host: example.com:\r\n"), 400, "bad_host_port"},
    {"PortOfLetters", Only("Host: example.com:http\r\n"), 400, "bad_host_port"},
    {"PortWithSign", Only("Host: example.com:+80\r\n"), 400, "bad_host_port"},
    {"PortTooLarge", Only("Host: example.com:65536\r\n"), 400, "bad_host_port"},
    {"PortTooLong", Only("Host: example.com:000080\r\n"), 400, "bad_host_port"},
    {"PortZero", Only("Host: example.com:0\r\n"), 400, "bad_host_port"},
    {"TwoPorts", Only("Host: example.com:80:81\r\n"), 400, "bad_host_port"},
    {"Ipv6WithoutBrackets", Only("Host: ::1\r\n"), 400, "bad_host"},
    {"Ipv6Open", Only("Host: [::1\r\n"), 400, "bad_host"},
    {"Ipv6Empty", Only("Host: []\r\n"), 400, "bad_host"},
    {"Ipv6OfOneColon", Only("Host: [a:1]\r\n"), 400, "bad_host"},
    {"Ipv6WithZone", Only("Host: [fe80::1%25eth0]\r\n"), 400, "bad_host"},
    {"Ipv6WithTail", Only("Host: [::1]evil\r\n"), 400, "bad_host"},
    {"NameInBrackets", Only("Host: [abc]\r\n"), 400, "bad_host"},
};
INSTANTIATE_TEST_SUITE_P(Host, RequestRefusal, testing::ValuesIn(kHostRefusals),
                         [](const auto& row) { return row.param.name; });

const Refusal kFramingRefusals[] = {
    // RFC 9110 section 8.6: Content-Length is digits; section 6.3 item 5: anything else is an
    // unrecoverable error.
    {"LengthWithPlus", With("Content-Length: +5\r\n"), 400, "bad_content_length"},
    {"LengthWithMinus", With("Content-Length: -5\r\n"), 400, "bad_content_length"},
    {"LengthInHex", With("Content-Length: 0x5\r\n"), 400, "bad_content_length"},
    {"LengthWithFraction", With("Content-Length: 5.0\r\n"), 400, "bad_content_length"},
    {"LengthList", With("Content-Length: 5, 5\r\n"), 400, "bad_content_length"},
    {"LengthListWithoutSpace", With("Content-Length: 1,1\r\n"), 400, "bad_content_length"},
    {"LengthWithSpaceInside", With("Content-Length: 5 5\r\n"), 400, "bad_content_length"},
    {"LengthEmpty", With("Content-Length:\r\n"), 400, "bad_content_length"},
    {"LengthBlank", With("Content-Length: \t\r\n"), 400, "bad_content_length"},
    {"LengthInQuotes", With("Content-Length: \"5\"\r\n"), 400, "bad_content_length"},
    {"LengthOf2To63", With("Content-Length: 9223372036854775808\r\n"), 400,
     "content_length_overflow"},
    {"LengthOf2To64", With("Content-Length: 18446744073709551616\r\n"), 400,
     "content_length_overflow"},
    {"LengthOf30Digits", With("Content-Length: " + std::string(30, '9') + "\r\n"), 400,
     "content_length_overflow"},
    {"TwoLengths", With("Content-Length: 5\r\nContent-Length: 6\r\n"), 400,
     "duplicate_content_length"},
    {"TwoEqualLengths", With("Content-Length: 5\r\ncontent-length: 5\r\n"), 400,
     "duplicate_content_length"},
    // Section 6.1 and 6.3 item 3: never both.
    {"LengthThenEncoding", With("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400,
     "length_and_encoding"},
    {"EncodingThenLength", With("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 400,
     "length_and_encoding"},
    {"EncodingAndLengthZero", With("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), 400,
     "length_and_encoding"},
    // Section 6.1: chunked alone is understood.
    {"EncodingOfOtherName", With("Transfer-Encoding: xchunked\r\n"), 400, "bad_transfer_encoding"},
    {"EncodingIdentity", With("Transfer-Encoding: identity\r\n"), 400, "bad_transfer_encoding"},
    {"EncodingGzipChunked", With("Transfer-Encoding: gzip, chunked\r\n"), 400,
     "bad_transfer_encoding"},
    {"EncodingChunkedTwiceInList", With("Transfer-Encoding: chunked, chunked\r\n"), 400,
     "bad_transfer_encoding"},
    {"EncodingChunkedNotLast", With("Transfer-Encoding: chunked, identity\r\n"), 400,
     "bad_transfer_encoding"},
    {"EncodingWithParameter", With("Transfer-Encoding: chunked;q=1\r\n"), 400,
     "bad_transfer_encoding"},
    {"EncodingWithComma", With("Transfer-Encoding: ,chunked\r\n"), 400, "bad_transfer_encoding"},
    {"EncodingInQuotes", With("Transfer-Encoding: \"chunked\"\r\n"), 400, "bad_transfer_encoding"},
    {"EncodingEmpty", With("Transfer-Encoding:\r\n"), 400, "bad_transfer_encoding"},
    {"EncodingTwice", With("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400,
     "duplicate_transfer_encoding"},
    {"EncodingThenIdentity", With("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
     400, "duplicate_transfer_encoding"},
    {"EncodingInHttp10", With("Transfer-Encoding: chunked\r\n", "POST / HTTP/1.0"), 400,
     "encoding_in_http10"},
};
INSTANTIATE_TEST_SUITE_P(Framing, RequestRefusal, testing::ValuesIn(kFramingRefusals),
                         [](const auto& row) { return row.param.name; });

class RequestReading : public testing::TestWithParam<Reading> {};

TEST_P(RequestReading, IsTheSameHoweverTheBytesAreCut) {
  const Reading& row = GetParam();
  RequestParser parser;
  test::ForEachSplit(row.input, [&](const auto& pieces, const std::string& how) {
    if (HasFailure()) {
      return;  // one cut is enough to read
    }
    parser.Reset();
    const std::string verdict =
        Feed(parser, pieces, [&](std::string_view bytes) { return parser.Parse(bytes); });
    EXPECT_TRUE(verdict.starts_with("done " + std::to_string(row.input.size()) + " " + row.want))
        << how << ": " << verdict;
    EXPECT_EQ(parser.head().fields.size(), row.fields) << how;
  });
}

// Framing is printed as a number: 0 none, 1 length, 2 chunked.
const Reading kClients[] = {
    {"ChromeUpgrade", std::string(test::kChromeUpgrade),
     "GET|/chat?room=1&token=a%2Fb|/chat|room=1&token=a%2Fb|chat.example.com|1.1 keep-alive "
     "framing=0 length=0",
     13},
    {"Curl",
     "GET /health HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"
     "\r\n",
     "GET|/health|/health||localhost:8080|1.1 keep-alive framing=0 length=0", 3},
    {"CurlPostThatExpects",
     "POST /upload HTTP/1.1\r\nHost: [::1]:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"
     "Content-Length: 2097152\r\nContent-Type: application/x-www-form-urlencoded\r\n"
     "Expect: 100-continue\r\n\r\n",
     "POST|/upload|/upload||[::1]:8080|1.1 keep-alive expects-100 framing=1 length=2097152", 6},
    {"NodeWs",
     "GET / HTTP/1.1\r\nSec-WebSocket-Version: 13\r\n"
     "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nConnection: Upgrade\r\n"
     "Upgrade: websocket\r\n"
     "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
     "Host: 127.0.0.1:9000\r\n\r\n",
     "GET|/|/||127.0.0.1:9000|1.1 keep-alive framing=0 length=0", 6},
    {"PythonWebsockets",
     "GET /ws HTTP/1.1\r\nHost: localhost:9000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
     "Sec-WebSocket-Key: Iv8io/9s+lYFgZWcXczP8Q==\r\nSec-WebSocket-Version: 13\r\n"
     "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
     "User-Agent: Python/3.11 websockets/10.4\r\n\r\n",
     "GET|/ws|/ws||localhost:9000|1.1 keep-alive framing=0 length=0", 7},
    {"SocketIoPollingPost",
     "POST /socket.io/?EIO=4&transport=polling&t=P0aBcDe&sid=lv_VI97HAXpY6yYWAAAC HTTP/1.1\r\n"
     "Host: app.example.com\r\nContent-Type: text/plain;charset=UTF-8\r\nContent-Length: 2\r\n"
     "Cookie: io=lv_VI97HAXpY6yYWAAAC\r\n\r\n",
     "POST|/socket.io/?EIO=4&transport=polling&t=P0aBcDe&sid=lv_VI97HAXpY6yYWAAAC|/socket.io/|"
     "EIO=4&transport=polling&t=P0aBcDe&sid=lv_VI97HAXpY6yYWAAAC|app.example.com|1.1 keep-alive "
     "framing=1 length=2",
     4},
    {"ChunkedPost", "POST /hub/negotiate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
     "POST|/hub/negotiate|/hub/negotiate||a|1.1 keep-alive framing=2 length=0", 2},
    {"ChunkedInCapitals", "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING:\tCHUNKED \r\n\r\n",
     "POST|/|/||a|1.1 keep-alive framing=2 length=0", 2},
    // Section 3.2.2
    {"AbsoluteForm", "GET http://Example.com/a/b?c=d HTTP/1.1\r\nHost: example.com\r\n\r\n",
     "GET|http://Example.com/a/b?c=d|/a/b|c=d|example.com|1.1 keep-alive framing=0 length=0", 1},
    {"AbsoluteFormWithPort", "GET HTTPS://[::1]:8443 HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n",
     "GET|HTTPS://[::1]:8443|/||[::1]:8443|1.1 keep-alive framing=0 length=0", 1},
    {"AbsoluteFormWithQueryAlone", "GET http://a?b=/c HTTP/1.1\r\nHost: a\r\n\r\n",
     "GET|http://a?b=/c|/|b=/c|a|1.1 keep-alive framing=0 length=0", 1},
    // Section 3.2.4: no path and no query is the server as a whole.
    {"OptionsOfAnAuthority", "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
     "OPTIONS|http://a|*||a|1.1 keep-alive framing=0 length=0", 1},
    {"OptionsOfARoot", "OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
     "OPTIONS|http://a/|/||a|1.1 keep-alive framing=0 length=0", 1},
    {"OptionsOfAQuery", "OPTIONS http://a?b HTTP/1.1\r\nHost: a\r\n\r\n",
     "OPTIONS|http://a?b|/|b|a|1.1 keep-alive framing=0 length=0", 1},
    // RFC 9110 section 4.2.3: the port of the scheme is the same authority as none.
    {"AbsoluteFormWithItsOwnPort", "GET http://a:80/b HTTP/1.1\r\nHost: a\r\n\r\n",
     "GET|http://a:80/b|/b||a|1.1 keep-alive framing=0 length=0", 1},
    {"AbsoluteFormAndHostWithItsPort", "GET https://a/b HTTP/1.1\r\nHost: A:443\r\n\r\n",
     "GET|https://a/b|/b||A:443|1.1 keep-alive framing=0 length=0", 1},
    {"AbsoluteFormInHttp10", "GET http://a/b HTTP/1.0\r\n\r\n",
     "GET|http://a/b|/b||a|1.0 close framing=0 length=0", 0},
    // A path that looks like an authority is a path (section 3.2.1).
    {"PathOfTwoSlashes", "GET //evil/a HTTP/1.1\r\nHost: a\r\n\r\n",
     "GET|//evil/a|//evil/a||a|1.1 keep-alive framing=0 length=0", 1},
    {"UrlInQuery", "GET /?u=http://evil/?x HTTP/1.1\r\nHost: a\r\n\r\n",
     "GET|/?u=http://evil/?x|/|u=http://evil/?x|a|1.1 keep-alive framing=0 length=0", 1},
    {"EncodedLineEndInTarget", "GET /%0d%0aX:%20y HTTP/1.1\r\nHost: a\r\n\r\n",
     "GET|/%0d%0aX:%20y|/%0d%0aX:%20y||a|1.1 keep-alive framing=0 length=0", 1},
    // Section 9.3: persistence
    {"Http10Probe", "GET /healthz HTTP/1.0\r\n\r\n",
     "GET|/healthz|/healthz|||1.0 close framing=0 length=0", 0},
    {"Http10KeepAlive", "GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n",
     "GET|/|/||a|1.0 keep-alive framing=0 length=0", 2},
    {"CloseAmongOthers", "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE ,keep-alive\r\n\r\n",
     "GET|/|/||a|1.1 close framing=0 length=0", 2},
    {"CloseInSecondField",
     "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nConnection: close\r\n\r\n",
     "GET|/|/||a|1.1 close framing=0 length=0", 3},
    {"CloseInsideAWord", "GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n",
     "GET|/|/||a|1.1 keep-alive framing=0 length=0", 2},
    // RFC 9110 section 10.1.1: the expectation of an HTTP/1.0 request is ignored.
    {"ExpectInHttp10", "GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
     "GET|/|/|||1.0 close framing=0 length=0", 1},
    // Sections 3.2.3 and 3.2.4
    {"OptionsStar", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
     "OPTIONS|*|*||a|1.1 keep-alive framing=0 length=0", 1},
    {"Connect", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
     "CONNECT|a:443|||a:443|1.1 keep-alive framing=0 length=0", 1},
    // Section 2.2: one empty line before the request line is skipped.
    {"EmptyLineFirst", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
     "GET|/|/||a|1.1 keep-alive framing=0 length=0", 1},
    {"UnknownMethod", "M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n",
     "M-SEARCH|/|/||a|1.1 keep-alive framing=0 length=0", 1},
    {"MethodOf32Bytes", std::string(32, 'M') + " / HTTP/1.1\r\nHost: a\r\n\r\n",
     std::string(32, 'M') + "|/|/||a|1.1 keep-alive framing=0 length=0", 1},
    {"LengthZero", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
     "POST|/|/||a|1.1 keep-alive framing=1 length=0", 2},
    {"LengthLargest", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n",
     "POST|/|/||a|1.1 keep-alive framing=1 length=9223372036854775807", 2},
    {"LengthWithBlanksAround", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\t 007 \t\r\n\r\n",
     "POST|/|/||a|1.1 keep-alive framing=1 length=7", 2},
    {"HostOfUnderscores", "GET / HTTP/1.1\r\nHost:my_app-1.internal.:65535\r\n\r\n",
     "GET|/|/||my_app-1.internal.:65535|1.1 keep-alive framing=0 length=0", 1},
    {"HostOfMappedAddress", "GET / HTTP/1.1\r\nHost: [::ffff:10.0.0.1]\r\n\r\n",
     "GET|/|/||[::ffff:10.0.0.1]|1.1 keep-alive framing=0 length=0", 1},
};
INSTANTIATE_TEST_SUITE_P(Clients, RequestReading, testing::ValuesIn(kClients),
                         [](const auto& row) { return row.param.name; });

// RFC 9110 section 5.5: blanks around a value are not part of it; tabs, obs-text and any visible
// character inside are.
TEST(RequestParser, TrimsValuesAndKeepsWhatIsInside) {
  const std::string input = With(
      "Empty:\r\nBlank: \t \r\nTight:v\r\nTabs:\ta\tb\t\r\nHigh: caf\xC3\xA9 \r\n"
      "Marks: a:b;c=\"d\"\\\r\n!#$%&'*+-.^_`|~9: token\r\n");
  RequestParser parser;
  test::ForEachSplit(input, [&](const auto& pieces, const std::string& how) {
    parser.Reset();
    const std::string verdict =
        Feed(parser, pieces, [&](std::string_view bytes) { return parser.Parse(bytes); });
    EXPECT_TRUE(
        verdict.ends_with("{Host=example.com} {Empty=} {Blank=} {Tight=v} {Tabs=a\tb} "
                          "{High=caf\xC3\xA9} {Marks=a:b;c=\"d\"\\} "
                          "{!#$%&'*+-.^_`|~9=token}"))
        << how << ": " << verdict;
  });
}

// Every byte at every place of a value that is longer than two machine words.
TEST(RequestParser, TakesExactlyTheseBytesInAValue) {
  RequestParser parser;
  for (int byte = 0; byte < 256; ++byte) {
    const bool allowed = byte == '\t' || (byte >= 0x20 && byte != 0x7F);  // RFC 9110 section 5.5
    for (std::size_t place = 0; place < 20; ++place) {
      std::string value = "v" + std::string(20, 'v') + "v";
      value[place + 1] = static_cast<char>(byte);
      const std::string input = With("A: " + value + "\r\n");
      parser.Reset();
      ASSERT_EQ(parser.Parse(input), allowed ? ParseStatus::kDone : ParseStatus::kBad)
          << byte << " at " << place;
      if (allowed) {
        ASSERT_EQ(parser.head().fields.back().value, value) << byte << " at " << place;
      }
    }
  }
}

TEST(RequestParser, TakesExactlyTheseBytesInNamesMethodsAndTargets) {
  RequestParser parser;
  const auto takes = [&parser](const std::string& input) {
    parser.Reset();
    return parser.Parse(input) == ParseStatus::kDone;
  };
  for (int byte = 0; byte < 256; ++byte) {
    const std::string c(1, static_cast<char>(byte));
    // RFC 9110 section 5.6.2
    const bool token =
        std::isalnum(byte) != 0 || (byte != 0 && "!#$%&'*+-.^_`|~"s.find(c) != std::string::npos);
    const bool target = byte > 0x20 && byte < 0x7F && byte != '#';
    EXPECT_EQ(takes(With("A" + c + "B: v\r\n")), token || byte == ':') << byte;
    EXPECT_EQ(takes(With(c + "B: v\r\n")), token) << byte;
    EXPECT_EQ(takes(Line("G" + c + "T / HTTP/1.1")), token) << byte;
    EXPECT_EQ(takes(Line("GET /a" + c + "b HTTP/1.1")), target) << byte;
    // RFC 3986 section 3.2.2, the part of it that names hosts: docs/HTTP.md.
    const bool host = std::isalnum(byte) != 0 || byte == '-' || byte == '.' || byte == '_';
    EXPECT_EQ(takes(Only("Host: a" + c + "b\r\n")), host) << byte;
  }
}

TEST(RequestParser, LeavesWhatFollowsTheHead) {
  const std::string first = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";
  const std::string second = "GET /b HTTP/1.1\r\nHost: a\r\n\r\n";
  const std::string all = first + "\r\n\r\n" + second;
  RequestParser parser;
  ASSERT_EQ(parser.Parse(all), ParseStatus::kDone);
  EXPECT_EQ(parser.head_size(), first.size());
  EXPECT_EQ(parser.head().framing, Framing::kLength);
  EXPECT_EQ(parser.head().content_length, 4U);
  parser.Reset();
  ASSERT_EQ(parser.Parse(std::string_view(all).substr(first.size() + 4)), ParseStatus::kDone);
  EXPECT_EQ(parser.head_size(), second.size());
  EXPECT_EQ(parser.head().path, "/b");
  EXPECT_EQ(parser.head().framing, Framing::kNone);
  EXPECT_EQ(parser.head().content_length, 0U);
  EXPECT_EQ(parser.head().fields.size(), 1U);
}

TEST(RequestParser, KeepsItsFieldMemoryAcrossReset) {
  RequestParser parser;
  const std::string large = With(Repeat("A: b\r\n", 99));
  ASSERT_EQ(parser.Parse(large), ParseStatus::kDone);
  const std::size_t capacity = parser.head().fields.capacity();
  const Field* memory = parser.head().fields.data();
  parser.Reset();
  const std::string small = With("");
  ASSERT_EQ(parser.Parse(small), ParseStatus::kDone);
  EXPECT_EQ(parser.head().fields.capacity(), capacity);
  EXPECT_EQ(parser.head().fields.data(), memory);
}

TEST(RequestParser, ForgetsTheEmptyLineOfTheHeadBefore) {
  RequestParser parser;
  const std::string input = With("");
  ASSERT_EQ(parser.Parse("\r\n" + input), ParseStatus::kDone);
  parser.Reset();
  ASSERT_EQ(parser.Parse(input), ParseStatus::kDone);
  EXPECT_EQ(parser.head().method, "GET");
  EXPECT_EQ(parser.head_size(), input.size());
}

TEST(RequestParser, IsReadyAgainAfterARefusal) {
  RequestParser parser;
  ASSERT_EQ(parser.Parse("GET / HTTP/1.1\r\nA\n"), ParseStatus::kBad);
  EXPECT_EQ(parser.fault().label, "bare_lf");
  parser.Reset();
  const std::string input = With("");
  ASSERT_EQ(parser.Parse(input), ParseStatus::kDone);
  EXPECT_EQ(parser.head().fields.size(), 1U);
}

TEST(RequestParser, TakesExactlyTheLimits) {
  const HeadLimits limits;
  RequestParser parser;
  // 100 fields, then 101 (RFC 6585 section 5).
  ASSERT_EQ(parser.Parse(With(Repeat("A: b\r\n", 99))), ParseStatus::kDone);
  EXPECT_EQ(parser.head().fields.size(), limits.max_fields);
  parser.Reset();
  ASSERT_EQ(parser.Parse(With(Repeat("A: b\r\n", 100))), ParseStatus::kBad);
  EXPECT_EQ(parser.fault().status, 431);
  EXPECT_EQ(parser.fault().label, "too_many_fields");

  // A head of 32 KiB, then of one byte more.
  const std::size_t rest = With("A: \r\n").size();
  const std::string fits = With("A: " + std::string(limits.max_head_bytes - rest, 'x') + "\r\n");
  ASSERT_EQ(fits.size(), limits.max_head_bytes);
  parser.Reset();
  ASSERT_EQ(parser.Parse(fits + "more"), ParseStatus::kDone);
  EXPECT_EQ(parser.head_size(), fits.size());
  const std::string beyond =
      With("A: " + std::string(limits.max_head_bytes - rest + 1, 'x') + "\r\n");
  parser.Reset();
  ASSERT_EQ(parser.Parse(beyond), ParseStatus::kBad);
  EXPECT_EQ(parser.fault().status, 431);
  EXPECT_EQ(parser.fault().label, "head_too_large");

  // A request line of 8 KiB, then of one byte more (section 3).
  const std::string frame = "GET / HTTP/1.1";
  const std::string pad(limits.max_request_line - frame.size(), 'x');
  parser.Reset();
  EXPECT_EQ(parser.Parse(Line("GET /" + pad + " HTTP/1.1")), ParseStatus::kDone);
  parser.Reset();
  ASSERT_EQ(parser.Parse(Line("GET /x" + pad + " HTTP/1.1")), ParseStatus::kBad);
  EXPECT_EQ(parser.fault().status, 414);
  EXPECT_EQ(parser.fault().label, "request_line_too_long");
}

// A head without an end is refused at the limit even when it comes byte by byte.
TEST(RequestParser, RefusesAnEndlessHeadAtTheLimit) {
  const HeadLimits limits;
  const std::string endless = "GET / HTTP/1.1\r\nA: " + std::string(limits.max_head_bytes, 'x');
  RequestParser parser;
  std::size_t fed = 1;
  while (parser.Parse(std::string_view(endless).substr(0, fed)) == ParseStatus::kNeedMore) {
    ASSERT_LT(fed, endless.size());
    ++fed;
  }
  EXPECT_EQ(fed, limits.max_head_bytes);
  EXPECT_EQ(parser.fault().label, "head_too_large");
}

TEST(RequestParser, RefusesTwoThousandFields) {
  RequestParser parser;
  ASSERT_EQ(parser.Parse(With(Repeat("A: b\r\n", 2000))), ParseStatus::kBad);
  EXPECT_EQ(parser.fault().status, 431);
}

// A value of blanks and letters by turns has made backtracking parsers quadratic
// (CVE-2021-32640). The bound is a hundred times what the reading takes, and a thousandth of what
// a quadratic one would.
TEST(RequestParser, ReadsAValueOfManyBlanksInLinearTime) {
  for (const std::string& value : {Repeat("b ", 32 * 1024), "b" + std::string(64 * 1024, ' ')}) {
    const std::string input = With("Sec-WebSocket-Extensions: " + value + "\r\n");
    RequestParser parser;
    const auto begin = std::chrono::steady_clock::now();
    ASSERT_EQ(parser.Parse(input), ParseStatus::kBad);
    const auto spent = std::chrono::steady_clock::now() - begin;
    EXPECT_EQ(parser.fault().status, 431);
    EXPECT_LT(spent, std::chrono::milliseconds(20));
  }
}

// What was scanned is not scanned again: a dribbled head of 32 KiB costs 32 Ki small steps, where
// starting over each time would cost 500 million.
TEST(RequestParser, DoesNotScanAgainWhatItHasScanned) {
  const std::string input =
      With("Sec-WebSocket-Protocol: " + Repeat("b ", 15 * 1024) + "\r\nA: b\r\n");
  RequestParser parser;
  const auto begin = std::chrono::steady_clock::now();
  ParseStatus status = ParseStatus::kNeedMore;
  for (std::size_t fed = 1; fed <= input.size() && status == ParseStatus::kNeedMore; ++fed) {
    status = parser.Parse(std::string_view(input).substr(0, fed));
  }
  const auto spent = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(status, ParseStatus::kDone);
  EXPECT_EQ(parser.head_size(), input.size());
  EXPECT_LT(spent, std::chrono::milliseconds(500));
}

TEST(FaultLabels, AreDistinctSnakeCaseWords) {
  std::set<std::string_view> seen;
  for (const std::string_view label : FaultLabels()) {
    EXPECT_TRUE(seen.insert(label).second) << label;
    EXPECT_FALSE(label.empty());
    EXPECT_EQ(label.find_first_not_of("abcdefghijklmnopqrstuvwxyz_0123456789"),
              std::string_view::npos)
        << label;
  }
  // Every refusal of the tables above is in the set.
  for (const auto& rows :
       {std::span<const Refusal>(kLineRefusals), std::span<const Refusal>(kFieldRefusals),
        std::span<const Refusal>(kHostRefusals), std::span<const Refusal>(kFramingRefusals)}) {
    for (const Refusal& row : rows) {
      EXPECT_TRUE(seen.contains(row.label)) << row.label;
    }
  }
}

}  // namespace
}  // namespace sluice::http
