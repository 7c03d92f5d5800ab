// Proves that no upgrade passes that RFC 6455 sections 4.1, 4.2, 9.1 and 11.3 do not allow, in
// either direction, with the answer each refusal must get, and that checking costs little
// whatever the fields hold.
#include "proxy/ws/upgrade.h"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace sluice::ws {
namespace {

using Kind = UpgradeVerdict::Kind;

constexpr std::string_view kKey = "dGhlIHNhbXBsZSBub25jZQ==";  // section 1.3, with its answer
constexpr std::string_view kAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

// A head with the fields of the example in section 1.2, of which a row changes some.
http::RequestHead GoodRequest() {
  http::RequestHead head;
  head.method = "GET";
  head.target = head.path = "/chat";
  head.host = "server.example.com";
  head.fields = {{"Host", "server.example.com"},
                 {"Upgrade", "websocket"},
                 {"Connection", "Upgrade"},
                 {"Sec-WebSocket-Key", kKey},
                 {"Sec-WebSocket-Version", "13"}};
  return head;
}

http::ResponseHead GoodResponse() {
  http::ResponseHead head;
  head.status = 101;
  head.reason = "Switching Protocols";
  head.fields = {
      {"Upgrade", "websocket"}, {"Connection", "Upgrade"}, {"Sec-WebSocket-Accept", kAccept}};
  return head;
}

// Replaces all fields of that name by `values`, which may be none.
void Set(http::Fields& fields, std::string_view name, const std::vector<std::string_view>& values) {
  std::erase_if(fields,
                [&](const http::Field& field) { return http::EqualsIgnoreCase(field.name, name); });
  for (const std::string_view value : values) {
    fields.push_back({name, value});
  }
}

struct Change {
  std::string_view name;
  std::vector<std::string_view> values;
};

struct RequestCase {
  const char* name;
  std::vector<Change> changes;
  Kind kind;
  int status = 0;
  std::string_view label = "";
};

void PrintTo(const RequestCase& value, std::ostream* out) {
  *out << value.name;
}

class Request : public testing::TestWithParam<RequestCase> {};

TEST_P(Request, GetsItsVerdict) {
  const RequestCase& row = GetParam();
  http::RequestHead head = GoodRequest();
  for (const Change& change : row.changes) {
    Set(head.fields, change.name, change.values);
  }
  const UpgradeVerdict verdict = CheckUpgradeRequest(head);
  EXPECT_EQ(verdict.kind, row.kind);
  EXPECT_EQ(verdict.status, row.status);
  EXPECT_EQ(verdict.label, row.label);
  EXPECT_EQ(verdict.text.empty(), row.kind != Kind::kRefuse) << "a refusal says what is wrong";
  EXPECT_EQ(verdict.offer.accept, row.kind == Kind::kUpgrade ? kAccept : "");
  EXPECT_EQ(verdict.extra_fields,
            row.status == 426 ? "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n" : "");
}

const auto kName = [](const auto& info) { return std::string(info.param.name); };

INSTANTIATE_TEST_SUITE_P(
    IsUpgrade, Request,
    testing::Values(
        RequestCase{"TheExample", {}, Kind::kUpgrade},
        // Section 4.2.1 items 3 and 4: without regard to case.
        RequestCase{"UpgradeInCapitals", {{"Upgrade", {"WebSocket"}}}, Kind::kUpgrade},
        RequestCase{"ConnectionInCapitals", {{"Connection", {"UPGRADE"}}}, Kind::kUpgrade},
        RequestCase{"FieldNamesInLowerCase",
                    {{"upgrade", {"websocket"}}, {"sec-websocket-key", {kKey}}},
                    Kind::kUpgrade},
        // Firefox sends "keep-alive, Upgrade".
        RequestCase{"ConnectionList", {{"Connection", {"keep-alive, Upgrade"}}}, Kind::kUpgrade},
        RequestCase{"ConnectionLines", {{"Connection", {"keep-alive", "Upgrade"}}}, Kind::kUpgrade},
        RequestCase{"EmptyUpgradeElements", {{"Upgrade", {", websocket,"}}}, Kind::kUpgrade},
        RequestCase{"ContentLengthOfZero", {{"Content-Length", {"0"}}}, Kind::kUpgrade},
        RequestCase{"AnyProtocolToken",
                    {{"Sec-WebSocket-Protocol", {"v12.stomp, a!#$%&'*+-.^_`|~Z"}}},
                    Kind::kUpgrade},
        RequestCase{"ProtocolLines",
                    {{"Sec-WebSocket-Protocol", {"chat", "superchat, mqtt"}}},
                    Kind::kUpgrade},
        // "chat" and "Chat" are two names: tokens of this list are compared as they are.
        RequestCase{"ProtocolsThatDifferInCase",
                    {{"Sec-WebSocket-Protocol", {"chat, Chat"}}},
                    Kind::kUpgrade},
        RequestCase{"ExtensionOfChrome",
                    {{"Sec-WebSocket-Extensions", {"permessage-deflate; client_max_window_bits"}}},
                    Kind::kUpgrade},
        RequestCase{"ExtensionsOfSection91",
                    {{"Sec-WebSocket-Extensions",
                      {"foo, bar; baz=2", "deflate-stream", "mux; max-channels=4; flow-control"}}},
                    Kind::kUpgrade},
        RequestCase{"QuotedExtensionParameters",
                    {{"Sec-WebSocket-Extensions",
                      {R"(permessage-deflate; server_max_window_bits="10", x;y="\a\b")"}}},
                    Kind::kUpgrade},
        RequestCase{"SpacesInExtensions",
                    {{"Sec-WebSocket-Extensions", {"a ; b = 1 ; c\t,, d ,"}}},
                    Kind::kUpgrade},
        RequestCase{"EmptyExtensions", {{"Sec-WebSocket-Extensions", {""}}}, Kind::kUpgrade}),
    kName);

INSTANTIATE_TEST_SUITE_P(
    IsPlainHttp, Request,
    testing::Values(
        RequestCase{"NoUpgrade", {{"Upgrade", {}}}, Kind::kPlainHttp},
        RequestCase{"NoConnection", {{"Connection", {}}}, Kind::kPlainHttp},
        RequestCase{"ConnectionWithoutTheToken",
                    {{"Connection", {"keep-alive, upgraded"}}},
                    Kind::kPlainHttp},
        RequestCase{"EmptyUpgrade", {{"Upgrade", {""}}}, Kind::kPlainHttp},
        // Smuggling h2c past a filter that looks for websocket, or at the first line only.
        RequestCase{"H2c", {{"Upgrade", {"h2c"}}}, Kind::kPlainHttp},
        RequestCase{"H2cInTheList", {{"Upgrade", {"websocket, h2c"}}}, Kind::kPlainHttp},
        RequestCase{"H2cFirstInTheList", {{"Upgrade", {"h2c,websocket"}}}, Kind::kPlainHttp},
        RequestCase{"H2cOnASecondLine", {{"Upgrade", {"websocket", "h2c"}}}, Kind::kPlainHttp},
        RequestCase{"H2cOnTheFirstLine", {{"Upgrade", {"h2c", "websocket"}}}, Kind::kPlainHttp},
        RequestCase{"WebSocketTwice", {{"Upgrade", {"websocket, websocket"}}}, Kind::kPlainHttp},
        RequestCase{"WebSocketWithAVersion", {{"Upgrade", {"websocket/13"}}}, Kind::kPlainHttp},
        RequestCase{"WebSocketInQuotes", {{"Upgrade", {"\"websocket\""}}}, Kind::kPlainHttp}),
    kName);

INSTANTIATE_TEST_SUITE_P(
    IsRefused, Request,
    testing::Values(
        RequestCase{
            "TransferEncoding", {{"Transfer-Encoding", {"chunked"}}}, Kind::kRefuse, 400, "body"},
        // Section 4.2.1 item 5, 11.3.1.
        RequestCase{"NoKey", {{"Sec-WebSocket-Key", {}}}, Kind::kRefuse, 400, "key"},
        RequestCase{"EmptyKey", {{"Sec-WebSocket-Key", {""}}}, Kind::kRefuse, 400, "key"},
        RequestCase{"TwoKeys", {{"Sec-WebSocket-Key", {kKey, kKey}}}, Kind::kRefuse, 400, "key"},
        RequestCase{"KeyOf15Bytes",
                    {{"Sec-WebSocket-Key", {"dGhlIHNhbXBsZSBub25j"}}},
                    Kind::kRefuse,
                    400,
                    "key"},
        RequestCase{"KeyOf17Bytes",
                    {{"Sec-WebSocket-Key", {"dGhlIHNhbXBsZSBub25jZWU="}}},
                    Kind::kRefuse,
                    400,
                    "key"},
        RequestCase{"KeyWithoutPadding",
                    {{"Sec-WebSocket-Key", {"dGhlIHNhbXBsZSBub25jZQ"}}},
                    Kind::kRefuse,
                    400,
                    "key"},
        RequestCase{"KeyInTheUrlAlphabet",
                    {{"Sec-WebSocket-Key", {"dGhl-HNhbXBsZSBub25jZ_=="}}},
                    Kind::kRefuse,
                    400,
                    "key"},
        RequestCase{"KeyWithASpace",
                    {{"Sec-WebSocket-Key", {"dGhlIHNhbXBs ZSBub25jZQ="}}},
                    Kind::kRefuse,
                    400,
                    "key"},
        // Item 6, 4.4.
        RequestCase{"NoVersion", {{"Sec-WebSocket-Version", {}}}, Kind::kRefuse, 426, "version"},
        RequestCase{"Version8", {{"Sec-WebSocket-Version", {"8"}}}, Kind::kRefuse, 426, "version"},
        RequestCase{
            "Version7777", {{"Sec-WebSocket-Version", {"7777"}}}, Kind::kRefuse, 426, "version"},
        RequestCase{
            "Version013", {{"Sec-WebSocket-Version", {"013"}}}, Kind::kRefuse, 426, "version"},
        RequestCase{
            "VersionList", {{"Sec-WebSocket-Version", {"13, 8"}}}, Kind::kRefuse, 426, "version"},
        RequestCase{"VersionLinesThatDiffer",
                    {{"Sec-WebSocket-Version", {"13", "8"}}},
                    Kind::kRefuse,
                    426,
                    "version"},
        // 11.3.5: not more than once in a request. 426 would tell nothing new.
        RequestCase{"VersionLinesThatAgree",
                    {{"Sec-WebSocket-Version", {"13", "13"}}},
                    Kind::kRefuse,
                    400,
                    "version"},
        // Section 4.1 item 10.
        RequestCase{"ProtocolTwice",
                    {{"Sec-WebSocket-Protocol", {"chat, chat"}}},
                    Kind::kRefuse,
                    400,
                    "protocol"},
        RequestCase{"ProtocolTwiceOverLines",
                    {{"Sec-WebSocket-Protocol", {"chat", "mqtt, chat"}}},
                    Kind::kRefuse,
                    400,
                    "protocol"},
        RequestCase{"ProtocolWithASpace",
                    {{"Sec-WebSocket-Protocol", {"super chat"}}},
                    Kind::kRefuse,
                    400,
                    "protocol"},
        RequestCase{"ProtocolWithASeparator",
                    {{"Sec-WebSocket-Protocol", {"chat/1"}}},
                    Kind::kRefuse,
                    400,
                    "protocol"},
        RequestCase{"ProtocolBeyondAscii",
                    {{"Sec-WebSocket-Protocol", {"ch\xc3\xa4t"}}},
                    Kind::kRefuse,
                    400,
                    "protocol"},
        // Section 9.1.
        RequestCase{"ExtensionWithoutName",
                    {{"Sec-WebSocket-Extensions", {"; a=1"}}},
                    Kind::kRefuse,
                    400,
                    "extensions"},
        RequestCase{"ExtensionsWithoutComma",
                    {{"Sec-WebSocket-Extensions", {"foo bar"}}},
                    Kind::kRefuse,
                    400,
                    "extensions"},
        RequestCase{"ParameterWithoutName",
                    {{"Sec-WebSocket-Extensions", {"foo; =1"}}},
                    Kind::kRefuse,
                    400,
                    "extensions"},
        RequestCase{"NothingAfterTheSemicolon",
                    {{"Sec-WebSocket-Extensions", {"foo;"}}},
                    Kind::kRefuse,
                    400,
                    "extensions"},
        RequestCase{"ParameterWithoutValue",
                    {{"Sec-WebSocket-Extensions", {"foo; a="}}},
                    Kind::kRefuse,
                    400,
                    "extensions"},
        RequestCase{"QuoteThatDoesNotEnd",
                    {{"Sec-WebSocket-Extensions", {"foo; a=\"1"}}},
                    Kind::kRefuse,
                    400,
                    "extensions"},
        RequestCase{"QuotedNothing",
                    {{"Sec-WebSocket-Extensions", {"foo; a=\"\""}}},
                    Kind::kRefuse,
                    400,
                    "extensions"},
        RequestCase{"QuotedValueThatIsNoToken",
                    {{"Sec-WebSocket-Extensions", {"foo; a=\"1 2\""}}},
                    Kind::kRefuse,
                    400,
                    "extensions"},
        RequestCase{"QuoteThatEndsInABackslash",
                    {{"Sec-WebSocket-Extensions", {"foo; a=\"1\\"}}},
                    Kind::kRefuse,
                    400,
                    "extensions"},
        RequestCase{"SecondExtensionsLineIsBad",
                    {{"Sec-WebSocket-Extensions", {"foo", "="}}},
                    Kind::kRefuse,
                    400,
                    "extensions"}),
    kName);

TEST(CheckUpgradeRequest, RefusesOtherMethodsWith405) {
  for (const std::string_view method : {"POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "get"}) {
    http::RequestHead head = GoodRequest();
    head.method = method;
    const UpgradeVerdict verdict = CheckUpgradeRequest(head);
    EXPECT_EQ(verdict.kind, Kind::kRefuse) << method;
    EXPECT_EQ(verdict.status, 405);
    EXPECT_EQ(verdict.label, "method");
    EXPECT_EQ(verdict.extra_fields, "Allow: GET\r\n");
  }
}

TEST(CheckUpgradeRequest, RefusesHttp10) {
  http::RequestHead head = GoodRequest();
  head.minor_version = 0;
  EXPECT_EQ(CheckUpgradeRequest(head).status, 400);
  EXPECT_EQ(CheckUpgradeRequest(head).label, "http_version");
}

TEST(CheckUpgradeRequest, RefusesABody) {
  http::RequestHead with_length = GoodRequest();
  with_length.framing = http::Framing::kLength;
  with_length.content_length = 1;
  EXPECT_EQ(CheckUpgradeRequest(with_length).status, 400);
  EXPECT_EQ(CheckUpgradeRequest(with_length).label, "body");

  http::RequestHead chunked = GoodRequest();
  chunked.framing = http::Framing::kChunked;
  EXPECT_EQ(CheckUpgradeRequest(chunked).label, "body");

  http::RequestHead empty = GoodRequest();
  empty.framing = http::Framing::kLength;
  EXPECT_EQ(CheckUpgradeRequest(empty).kind, Kind::kUpgrade);
}

TEST(CheckUpgradeRequest, TakesAKeyWithBitsInItsPadding) {
  // Sloppy encoders leave them; the value still decodes to 16 bytes (section 4.2.1 item 5).
  http::RequestHead head = GoodRequest();
  Set(head.fields, "Sec-WebSocket-Key", {"dGhlIHNhbXBsZSBub25jZR=="});
  const UpgradeVerdict verdict = CheckUpgradeRequest(head);
  EXPECT_EQ(verdict.kind, Kind::kUpgrade);
  EXPECT_EQ(verdict.offer.accept, AcceptKey("dGhlIHNhbXBsZSBub25jZR=="));
  EXPECT_NE(verdict.offer.accept, kAccept);
}

TEST(CheckUpgradeRequest, TellsTheFirstOfSeveralMistakes) {
  http::RequestHead head = GoodRequest();
  head.method = "POST";
  head.minor_version = 0;
  head.framing = http::Framing::kChunked;
  Set(head.fields, "Sec-WebSocket-Key", {});
  Set(head.fields, "Sec-WebSocket-Version", {});
  Set(head.fields, "Sec-WebSocket-Protocol", {"a b"});
  Set(head.fields, "Sec-WebSocket-Extensions", {"="});
  EXPECT_EQ(CheckUpgradeRequest(head).label, "method");
  head.method = "GET";
  EXPECT_EQ(CheckUpgradeRequest(head).label, "http_version");
  head.minor_version = 1;
  EXPECT_EQ(CheckUpgradeRequest(head).label, "body");
  head.framing = http::Framing::kNone;
  EXPECT_EQ(CheckUpgradeRequest(head).label, "key");
  Set(head.fields, "Sec-WebSocket-Key", {kKey});
  EXPECT_EQ(CheckUpgradeRequest(head).label, "version");
  Set(head.fields, "Sec-WebSocket-Version", {"13"});
  EXPECT_EQ(CheckUpgradeRequest(head).label, "protocol");
  Set(head.fields, "Sec-WebSocket-Protocol", {"a"});
  EXPECT_EQ(CheckUpgradeRequest(head).label, "extensions");
  Set(head.fields, "Sec-WebSocket-Extensions", {"b"});
  EXPECT_EQ(CheckUpgradeRequest(head).kind, Kind::kUpgrade);
}

TEST(CheckUpgradeRequest, RemembersTheOffer) {
  http::RequestHead head = GoodRequest();
  Set(head.fields, "Sec-WebSocket-Protocol", {"chat, super", "mqtt"});
  Set(head.fields, "Sec-WebSocket-Extensions",
      {"permessage-deflate; client_max_window_bits, x-a", "permessage-deflate, b;c=\"d\""});
  const UpgradeOffer offer = CheckUpgradeRequest(head).offer;
  EXPECT_EQ(offer.protocols, (std::vector<std::string>{"chat", "super", "mqtt"}));
  EXPECT_EQ(offer.extensions, (std::vector<std::string>{"permessage-deflate", "x-a", "b"}));
}

TEST(CheckUpgradeRequest, BoundsTheOffer) {
  const auto list = [](int n) {
    std::string text;
    for (int i = 0; i < n; ++i) {
      text += (i == 0 ? "p" : ",p") + std::to_string(i);
    }
    return text;
  };
  const std::string most = list(64);
  const std::string more = list(65);
  http::RequestHead head = GoodRequest();
  Set(head.fields, "Sec-WebSocket-Protocol", {most});
  Set(head.fields, "Sec-WebSocket-Extensions", {most, most});
  EXPECT_EQ(CheckUpgradeRequest(head).kind, Kind::kUpgrade);
  Set(head.fields, "Sec-WebSocket-Extensions", {more});
  EXPECT_EQ(CheckUpgradeRequest(head).label, "extensions");
  Set(head.fields, "Sec-WebSocket-Protocol", {more});
  EXPECT_EQ(CheckUpgradeRequest(head).label, "protocol");
}

std::chrono::nanoseconds ThreadCpu() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

TEST(CheckUpgradeRequest, CostsLittleOnJunk) {
  // Field values that made back-tracking parsers take minutes. Anything above linear would take
  // far longer than even the generous bound for slow builds.
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  constexpr auto kBound = std::chrono::milliseconds(1);
#else
  constexpr auto kBound = std::chrono::milliseconds(30);
#endif
  constexpr std::size_t kSize = 32 * 1024;  // what a head can hold
  std::string unique;
  for (int i = 0; unique.size() < kSize; ++i) {
    unique += std::to_string(i) + ",";
  }
  std::vector<std::string> junk{unique, "a;b=\"" + std::string(kSize, 'c'),
                                "b" + std::string(kSize, ' ') + "b"};
  for (const std::string_view unit :
       {"b ", " ", ",", ";", "a,", "a;", "a;b,", "a;b=\"c\",", "a;b;", "a;b=", "\"", "\\", "a"}) {
    std::string text;
    while (text.size() < kSize) {
      text += unit;
    }
    junk.push_back(text);
  }
  for (const char* field : {"Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Upgrade",
                            "Connection", "Sec-WebSocket-Key"}) {
    for (const std::string& text : junk) {
      http::RequestHead head = GoodRequest();
      Set(head.fields, field, {text});
      auto best = std::chrono::nanoseconds::max();
      for (int i = 0; i < 5; ++i) {
        const auto before = ThreadCpu();
        const UpgradeVerdict verdict = CheckUpgradeRequest(head);
        best = std::min(best, ThreadCpu() - before);
        EXPECT_LE(verdict.offer.protocols.size() + verdict.offer.extensions.size(), 128U);
      }
      EXPECT_LT(best, kBound) << field << ": " << text.substr(0, 12);
    }
  }
}

struct ResponseCase {
  const char* name;
  std::vector<Change> changes;
  std::string_view reason;  // empty: it holds
};

void PrintTo(const ResponseCase& value, std::ostream* out) {
  *out << value.name;
}

class Response : public testing::TestWithParam<ResponseCase> {};

UpgradeOffer Offer() {
  UpgradeOffer offer;
  offer.accept = kAccept;
  offer.protocols = {"chat", "mqtt"};
  offer.extensions = {"permessage-deflate", "x-other"};
  return offer;
}

TEST_P(Response, GetsItsVerdict) {
  const ResponseCase& row = GetParam();
  http::ResponseHead head = GoodResponse();
  for (const Change& change : row.changes) {
    Set(head.fields, change.name, change.values);
  }
  const UpgradeAgreement agreement = CheckUpgradeResponse(head, Offer());
  EXPECT_EQ(agreement.reason, row.reason);
  EXPECT_EQ(agreement.ok, row.reason.empty());
  if (!agreement.ok) {
    EXPECT_FALSE(agreement.rsv1);
    EXPECT_EQ(agreement.protocol, "");
    EXPECT_EQ(agreement.extensions, "");
  }
}

INSTANTIATE_TEST_SUITE_P(
    Holds, Response,
    testing::Values(
        ResponseCase{"TheExample", {}, ""},
        ResponseCase{"InCapitals", {{"UPGRADE", {"WebSocket"}}, {"CONNECTION", {"UPGRADE"}}}, ""},
        ResponseCase{"ConnectionList", {{"Connection", {"keep-alive, upgrade"}}}, ""},
        ResponseCase{"OfferedProtocol", {{"Sec-WebSocket-Protocol", {"mqtt"}}}, ""},
        ResponseCase{"OfferedExtensions",
                     {{"Sec-WebSocket-Extensions", {"x-other; a=\"1\", permessage-deflate"}}},
                     ""},
        ResponseCase{"EmptyExtensions", {{"Sec-WebSocket-Extensions", {""}}}, ""},
        ResponseCase{"ContentLengthOfZero", {{"Content-Length", {"0"}}}, ""}),
    kName);

INSTANTIATE_TEST_SUITE_P(
    DoesNotHold, Response,
    testing::Values(
        // Section 4.1, "the client MUST validate", items 2 to 6.
        ResponseCase{
            "NoUpgrade", {{"Upgrade", {}}}, "the backend's 101 does not upgrade to websocket"},
        ResponseCase{"UpgradeToH2c",
                     {{"Upgrade", {"h2c"}}},
                     "the backend's 101 does not upgrade to websocket"},
        ResponseCase{"UpgradeToMore",
                     {{"Upgrade", {"websocket", "h2c"}}},
                     "the backend's 101 does not upgrade to websocket"},
        ResponseCase{
            "NoConnection", {{"Connection", {}}}, "the backend's 101 lacks Connection: upgrade"},
        ResponseCase{"ConnectionClose",
                     {{"Connection", {"close"}}},
                     "the backend's 101 lacks Connection: upgrade"},
        ResponseCase{"NoAccept",
                     {{"Sec-WebSocket-Accept", {}}},
                     "the backend's 101 must have one Sec-WebSocket-Accept"},
        ResponseCase{"TwoAccepts",
                     {{"Sec-WebSocket-Accept", {kAccept, kAccept}}},
                     "the backend's 101 must have one Sec-WebSocket-Accept"},
        ResponseCase{"EmptyAccept",
                     {{"Sec-WebSocket-Accept", {""}}},
                     "the backend's Sec-WebSocket-Accept does not match the key"},
        ResponseCase{"WrongAccept",
                     {{"Sec-WebSocket-Accept", {"s3pPLMBiTxaQ9kYGzzhZRbK+xOp="}}},
                     "the backend's Sec-WebSocket-Accept does not match the key"},
        ResponseCase{"AcceptInOtherCase",
                     {{"Sec-WebSocket-Accept", {"S3pPLMBiTxaQ9kYGzzhZRbK+xOo="}}},
                     "the backend's Sec-WebSocket-Accept does not match the key"},
        ResponseCase{"KeyEchoed",
                     {{"Sec-WebSocket-Accept", {kKey}}},
                     "the backend's Sec-WebSocket-Accept does not match the key"},
        ResponseCase{
            "ContentLength", {{"Content-Length", {"5"}}}, "the backend's 101 announces a body"},
        ResponseCase{
            "Chunked", {{"Transfer-Encoding", {"chunked"}}}, "the backend's 101 announces a body"},
        ResponseCase{"ForeignProtocol",
                     {{"Sec-WebSocket-Protocol", {"stomp"}}},
                     "the backend chose a subprotocol that was not offered"},
        ResponseCase{"ProtocolInOtherCase",
                     {{"Sec-WebSocket-Protocol", {"Chat"}}},
                     "the backend chose a subprotocol that was not offered"},
        ResponseCase{"ProtocolList",
                     {{"Sec-WebSocket-Protocol", {"chat, mqtt"}}},
                     "the backend chose a subprotocol that was not offered"},
        ResponseCase{"EmptyProtocol",
                     {{"Sec-WebSocket-Protocol", {""}}},
                     "the backend chose a subprotocol that was not offered"},
        ResponseCase{"ProtocolLines",
                     {{"Sec-WebSocket-Protocol", {"chat", "chat"}}},
                     "the backend's 101 has several Sec-WebSocket-Protocol fields"},
        ResponseCase{"ForeignExtension",
                     {{"Sec-WebSocket-Extensions", {"permessage-deflate, x-new"}}},
                     "the backend agreed an extension that was not offered"},
        ResponseCase{"ExtensionInOtherCase",
                     {{"Sec-WebSocket-Extensions", {"Permessage-Deflate"}}},
                     "the backend agreed an extension that was not offered"},
        ResponseCase{"MalformedExtensions",
                     {{"Sec-WebSocket-Extensions", {"permessage-deflate;"}}},
                     "the backend's Sec-WebSocket-Extensions is malformed"},
        ResponseCase{"ExtensionsLines",
                     {{"Sec-WebSocket-Extensions", {"x-other", "permessage-deflate"}}},
                     "the backend's 101 has several Sec-WebSocket-Extensions fields"}),
    kName);

TEST(CheckUpgradeResponse, ExtensionsNeedAnOffer) {
  UpgradeOffer offer = Offer();
  offer.protocols.clear();
  offer.extensions.clear();
  http::ResponseHead head = GoodResponse();
  EXPECT_TRUE(CheckUpgradeResponse(head, offer).ok);
  Set(head.fields, "Sec-WebSocket-Extensions", {"permessage-deflate"});
  EXPECT_FALSE(CheckUpgradeResponse(head, offer).ok);
  Set(head.fields, "Sec-WebSocket-Extensions", {});
  Set(head.fields, "Sec-WebSocket-Protocol", {"chat"});
  EXPECT_FALSE(CheckUpgradeResponse(head, offer).ok);
}

TEST(CheckUpgradeResponse, TakesNoOtherStatusForA101) {
  for (const int status : {100, 102, 200, 204, 301, 401, 426, 503}) {
    http::ResponseHead head = GoodResponse();
    head.status = status;
    EXPECT_FALSE(CheckUpgradeResponse(head, Offer()).ok) << status;
  }
}

TEST(CheckUpgradeResponse, AnEmptyOfferMatchesNothing) {
  http::ResponseHead head = GoodResponse();
  Set(head.fields, "Sec-WebSocket-Accept", {""});
  EXPECT_FALSE(CheckUpgradeResponse(head, UpgradeOffer()).ok);
}

TEST(CheckUpgradeResponse, TellsWhatWasAgreed) {
  http::ResponseHead head = GoodResponse();
  UpgradeAgreement agreement = CheckUpgradeResponse(head, Offer());
  EXPECT_TRUE(agreement.ok);
  EXPECT_FALSE(agreement.rsv1);
  EXPECT_EQ(agreement.protocol, "");
  EXPECT_EQ(agreement.extensions, "");

  Set(head.fields, "Sec-WebSocket-Protocol", {"mqtt"});
  Set(head.fields, "Sec-WebSocket-Extensions", {"x-other"});
  agreement = CheckUpgradeResponse(head, Offer());
  EXPECT_TRUE(agreement.ok);
  EXPECT_FALSE(agreement.rsv1) << "only permessage-deflate is known to use the bit";
  EXPECT_EQ(agreement.protocol, "mqtt");
  EXPECT_EQ(agreement.extensions, "x-other");

  Set(head.fields, "Sec-WebSocket-Extensions", {"permessage-deflate; server_max_window_bits=10"});
  agreement = CheckUpgradeResponse(head, Offer());
  EXPECT_TRUE(agreement.rsv1);
  EXPECT_EQ(agreement.extensions, "permessage-deflate; server_max_window_bits=10");
}

TEST(AcceptKey, IsThatOfTheRfcExample) {
  EXPECT_EQ(AcceptKey(kKey), kAccept);  // section 1.3
  EXPECT_EQ(AcceptKey("x3JJHMbDL1EzLkh9GBhXDw=="), "HSmrc0sMlYUkAGmm5OPpG2HaGWk=");
}

}  // namespace
}  // namespace sluice::ws
