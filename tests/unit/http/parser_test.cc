#include "proxy/http/parser.h"

#include <gtest/gtest.h>

namespace sluice::http {
namespace {

TEST(RequestParser, ReadsASmallRequest) {
  RequestParser parser;
  const std::string_view text = "GET /chat?room=1 HTTP/1.1\r\nHost: example.com\r\nX:\r\n\r\nrest";
  ASSERT_EQ(parser.Parse(text), ParseStatus::kDone) << parser.fault().reason;
  EXPECT_EQ(parser.head().path, "/chat");
  EXPECT_EQ(parser.head().query, "room=1");
  EXPECT_EQ(parser.head_size(), text.size() - 4);
}

}  // namespace
}  // namespace sluice::http
