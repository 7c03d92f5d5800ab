// Proves the shape of the answers that Sluice gives itself, to the byte.
#include "proxy/http/reply.h"

#include <string>

#include <gtest/gtest.h>

#include "proxy/http/parser.h"

namespace sluice::http {
namespace {

TEST(Reply, IsAWholeResponse) {
  EXPECT_EQ(Serialize({.status = 404, .text = "No route for this host and path."}),
            "HTTP/1.1 404 Not Found\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n"
            "Content-Length: 33\r\n"
            "Cache-Control: no-store\r\n"
            "Connection: close\r\n"
            "\r\n"
            "No route for this host and path.\n");
}

TEST(Reply, SaysWhenItIsGiven) {
  const std::string date = "Sun, 06 Nov 1994 08:49:37 GMT";
  EXPECT_EQ(Serialize({.status = 404, .text = "No.", .date = date}).substr(0, 63),
            "HTTP/1.1 404 Not Found\r\nDate: " + date + "\r\nCo");
}

TEST(Reply, CarriesExtraFieldsAndStaysOpenWhenAsked) {
  EXPECT_EQ(Serialize({.status = 426,
                       .text = "Use version 13.",
                       .extra_fields = "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n",
                       .close = false}),
            "HTTP/1.1 426 Upgrade Required\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n"
            "Content-Length: 16\r\n"
            "Cache-Control: no-store\r\n"
            "Sec-WebSocket-Version: 13\r\n"
            "Upgrade: websocket\r\n"
            "\r\n"
            "Use version 13.\n");
}

// RFC 9110 section 9.3.2: the answer to HEAD announces the length of what GET would bring.
TEST(Reply, AnswersHeadWithoutTheBody) {
  const Reply with_body = {.status = 503, .text = "All backends are down."};
  Reply without_body = with_body;
  without_body.head_only = true;
  EXPECT_EQ(Serialize(with_body), Serialize(without_body) + "All backends are down.\n");
}

TEST(Reply, IsReadByOurOwnParser) {
  for (const int status : {400, 403, 404, 405, 408, 414, 426, 429, 431, 502, 503, 504}) {
    const std::string reply = Serialize({.status = status, .text = "A sentence."});
    ResponseParser parser;
    ASSERT_EQ(parser.Parse(reply, false), ParseStatus::kDone) << status;
    EXPECT_EQ(parser.head().status, status);
    EXPECT_EQ(parser.head().reason, ReasonPhrase(status));
    EXPECT_NE(parser.head().reason, "Unknown") << status;
    EXPECT_EQ(parser.head().framing, Framing::kLength);
    EXPECT_EQ(parser.head_size() + parser.head().content_length, reply.size());
    EXPECT_FALSE(parser.head().keep_alive);
  }
}

TEST(Reply, NamesStatusCodes) {
  EXPECT_EQ(ReasonPhrase(101), "Switching Protocols");
  EXPECT_EQ(ReasonPhrase(200), "OK");
  EXPECT_EQ(ReasonPhrase(431), "Request Header Fields Too Large");
  EXPECT_EQ(ReasonPhrase(299), "Unknown");
}

TEST(Reply, AppendsOneFieldLine) {
  std::string out = "x";
  AppendField(out, "Retry-After", "5");
  AppendField(out, "Empty", "");
  EXPECT_EQ(out, "xRetry-After: 5\r\nEmpty: \r\n");
}

TEST(Reply, HasTheContentThatItIsGiven) {
  Reply reply{.status = 503, .text = "Not this.", .extra_fields = "Retry-After: 1\r\n"};
  reply.type = "application/json";
  reply.content = "{}";
  const std::string head =
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
      "Cache-Control: no-store\r\nRetry-After: 1\r\nConnection: close\r\n\r\n";
  EXPECT_EQ(Serialize(reply), head + "{}");
  reply.head_only = true;
  EXPECT_EQ(Serialize(reply), head);
}

TEST(Reply, MayBeStoredWhenItLasts) {
  const std::string answer = Serialize({.status = 308, .text = "There.", .lasting = true});
  EXPECT_EQ(answer.find("Cache-Control"), std::string::npos);
}

}  // namespace
}  // namespace sluice::http
