// Proves what each small language inside the strings of a configuration accepts, and what it makes
// of it.
#include "proxy/config/values.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/config/files.h"

namespace sluice::config {
namespace {

// The error text, or "" for a value.
template <class T>
std::string ErrorOf(const Result<T>& result) {
  return result ? std::string() : result.error().message;
}

TEST(ParseDuration, ReadsEveryUnit) {
  EXPECT_EQ(ParseDuration("0s"), Millis(0));
  EXPECT_EQ(ParseDuration("500ms"), Millis(500));
  EXPECT_EQ(ParseDuration("30s"), Millis(30'000));
  EXPECT_EQ(ParseDuration("2m"), Millis(120'000));
  EXPECT_EQ(ParseDuration("1h"), Millis(3'600'000));
  EXPECT_EQ(ParseDuration("2d"), Millis(172'800'000));
}

TEST(ParseDuration, RefusesEverythingElse) {
  for (const std::string_view text :
       {"", "s", "30", "30 s", " 30s", "30s ", "-1s", "+1s", "1.5s", "1m30s", "1w", "30S", "0x1s",
        "99999999999999999999s", "9223372036854775807h"}) {
    EXPECT_FALSE(ParseDuration(text)) << text;
  }
  EXPECT_EQ(ErrorOf(ParseDuration("30")),
            "\"30\" has no unit; allowed: a whole number with ms, s, m, h or d, such as \"30s\"");
}

TEST(FormatDuration, ReadsBackAsTheSame) {
  for (const std::string_view text : {"0s", "10ms", "1500ms", "90s", "2m", "24h", "720h", "365d"}) {
    EXPECT_EQ(FormatDuration(*ParseDuration(text)), text);
  }
}

TEST(ParseSize, ReadsEveryUnit) {
  EXPECT_EQ(ParseSize("0B"), 0U);
  EXPECT_EQ(ParseSize("100B"), 100U);
  EXPECT_EQ(ParseSize("16KB"), 16'000U);
  EXPECT_EQ(ParseSize("64KiB"), 65'536U);
  EXPECT_EQ(ParseSize("2MB"), 2'000'000U);
  EXPECT_EQ(ParseSize("1MiB"), 1'048'576U);
  EXPECT_EQ(ParseSize("1GB"), 1'000'000'000U);
  EXPECT_EQ(ParseSize("1GiB"), 1'073'741'824U);
}

TEST(ParseSize, RefusesEverythingElse) {
  for (const std::string_view text : {"", "64", "KiB", "64kb", "64K", "1.5MiB", "-1B", "1 MiB",
                                      "9223372036854775808B", "9223372036854775807KiB"}) {
    EXPECT_FALSE(ParseSize(text)) << text;
  }
}

TEST(FormatSize, ReadsBackAsTheSame) {
  for (const std::string_view text : {"0B", "1B", "1000B", "16MiB", "1536B", "3GiB"}) {
    EXPECT_EQ(ParseSize(FormatSize(*ParseSize(text))), *ParseSize(text));
  }
  EXPECT_EQ(FormatSize(65'536), "64KiB");
}

TEST(ParseHostPort, ReadsAddressesInCanonicalForm) {
  const auto v4 = ParseHostPort("127.0.0.1:80");
  ASSERT_TRUE(v4);
  EXPECT_TRUE(v4->numeric);
  EXPECT_EQ(v4->host, "127.0.0.1");
  EXPECT_EQ(v4->port, 80);
  const auto v6 = ParseHostPort("[0:0:0:0:0:0:0:01]:65535");
  ASSERT_TRUE(v6);
  EXPECT_TRUE(v6->numeric);
  EXPECT_EQ(v6->host, "::1");
  EXPECT_EQ(v6->Text(), "[::1]:65535");
  const auto name = ParseHostPort("DB_1.local:0");
  ASSERT_TRUE(name);
  EXPECT_FALSE(name->numeric);
  EXPECT_EQ(name->Text(), "db_1.local:0");
}

TEST(ParseHostPort, RefusesEverythingElse) {
  using namespace std::string_view_literals;
  for (const std::string_view text : {""sv,
                                      "80"sv,
                                      ":80"sv,
                                      "a"sv,
                                      "a:"sv,
                                      "a:b"sv,
                                      "a:-1"sv,
                                      "a:65536"sv,
                                      "a:000080"sv,
                                      "a:8 "sv,
                                      "a b:80"sv,
                                      "-a:80"sv,
                                      "a-:80"sv,
                                      "a..b:80"sv,
                                      "10.0.0.256:80"sv,
                                      "10.0.1:80"sv,
                                      "::1:80"sv,
                                      "[::1]"sv,
                                      "[::1:80"sv,
                                      "[::1]80"sv,
                                      "[127.0.0.1]:80"sv,
                                      "[fe80::1%lo]:80"sv,
                                      "ws://a:80"sv,
                                      "127.0.0.1\0:80"sv,
                                      "[::1\0]:80"sv,
                                      "*:80"sv}) {
    EXPECT_FALSE(ParseHostPort(text)) << text;
  }
}

TEST(ParseStatusRange, ReadsOneAndTwo) {
  const auto one = ParseStatusRange("204");
  ASSERT_TRUE(one);
  EXPECT_EQ(one->Text(), "204");
  const auto two = ParseStatusRange("200-599");
  ASSERT_TRUE(two);
  EXPECT_EQ(two->least, 200U);
  EXPECT_EQ(two->most, 599U);
  EXPECT_EQ(two->Text(), "200-599");
}

TEST(ParseStatusRange, RefusesEverythingElse) {
  for (const std::string_view text : {"", "-", "200-", "-399", "399-200", "199", "600", "0200",
                                      "2xx", "200-399-", "200 - 399", "+200", "200,204"}) {
    EXPECT_FALSE(ParseStatusRange(text)) << text;
  }
}

TEST(ParseRequestPath, TakesWhatARequestLineMayHold) {
  EXPECT_EQ(ParseRequestPath("/live?a=%20&b").value(), "/live?a=%20&b");
  using namespace std::string_view_literals;
  for (const std::string_view text : {""sv, "live"sv, "/a b"sv, "/a\r\nX: y"sv, "/a#b"sv, "/\0"sv,
                                      "/\xC3\xA4"sv, "http://a/"sv}) {
    EXPECT_FALSE(ParseRequestPath(text)) << text;
  }
  EXPECT_TRUE(ParseRequestPath("/" + std::string(1023, 'x')));
  EXPECT_FALSE(ParseRequestPath("/" + std::string(1024, 'x')));
}

TEST(ParseHostField, TakesNamesAndAddresses) {
  for (const std::string_view text : {"", "a", "chat.test:81", "[::1]:80", "10.0.0.1"}) {
    EXPECT_EQ(ParseHostField(text).value(), text);
  }
  for (const std::string_view text : {"a b", "a/b", "a\r\nX: y", "a@b", "*"}) {
    EXPECT_FALSE(ParseHostField(text)) << text;
  }
}

TEST(IsLoopback, KnowsBothFamilies) {
  for (const std::string_view host : {"127.0.0.1", "127.255.255.254", "::1"}) {
    EXPECT_TRUE(IsLoopback(host)) << host;
  }
  for (const std::string_view host : {"0.0.0.0", "128.0.0.1", "::", "::2", "127::1"}) {
    EXPECT_FALSE(IsLoopback(host)) << host;
  }
}

TEST(ParseCidr, ReadsBlocksAndRefusesBitsBehindThePrefix) {
  EXPECT_EQ(ParseCidr("10.0.0.0/8"), "10.0.0.0/8");
  EXPECT_EQ(ParseCidr("0.0.0.0/0"), "0.0.0.0/0");
  EXPECT_EQ(ParseCidr("192.0.2.7/32"), "192.0.2.7/32");
  EXPECT_EQ(ParseCidr("FD00:0::/8"), "fd00::/8");
  EXPECT_EQ(ParseCidr("::1/128"), "::1/128");
  EXPECT_EQ(ErrorOf(ParseCidr("10.1.2.3/8")),
            "\"10.1.2.3/8\" has bits set behind its prefix; the block is \"10.0.0.0/8\"");
  EXPECT_EQ(ErrorOf(ParseCidr("::1")),
            "\"::1\" has no prefix length; for this one address write \"::1/128\"");
  for (const std::string_view text : {"", "/8", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/",
                                      "10.0.0.0/-1", "a/8", "10.0.0.0/8/8"}) {
    EXPECT_FALSE(ParseCidr(text)) << text;
  }
}

TEST(ParseRouteHost, ReadsExactNamesSuffixesAndAddresses) {
  EXPECT_EQ(ParseRouteHost(""), "");
  EXPECT_EQ(ParseRouteHost("Chat.Example.COM"), "chat.example.com");
  EXPECT_EQ(ParseRouteHost("*.Example.com"), "*.example.com");
  EXPECT_EQ(ParseRouteHost("127.0.0.1"), "127.0.0.1");
  EXPECT_EQ(ParseRouteHost("[::0001]"), "[::1]");
  for (const std::string_view text : {"*", "*.", "a.*", "*a.b", "a:80", "http://a", "a/b", "a b",
                                      ".a", "a.", "[::1", "::1", "[]"}) {
    EXPECT_FALSE(ParseRouteHost(text)) << text;
  }
}

TEST(ParseRoutePath, ReadsPrefixesWithoutTheSlashAtTheirEnd) {
  EXPECT_EQ(ParseRoutePath("/"), "/");
  EXPECT_EQ(ParseRoutePath("/socket"), "/socket");
  EXPECT_EQ(ParseRoutePath("/socket.io/"), "/socket.io");
  EXPECT_EQ(ParseRoutePath("/a/b%20c"), "/a/b%20c");
  EXPECT_EQ(ParseRoutePath("/%c3%a4"), "/%C3%A4");
  for (const std::string_view text :
       {"",     "socket", "/a?b",   "/a#b",   "/a b",    "/a/*",   "/*",    "/a//b",
        "/./a", "/a/..",  "/\x7F",  "/a;b",   "/a\\b",   "/a%",    "/a%2",  "/a%zz",
        "/%-1", "/%61",   "/a%2Fb", "/a%5cb", "/%2e%2e", "/a%3bb", "/a%00", "/a%2561"}) {
    EXPECT_FALSE(ParseRoutePath(text)) << text;
  }
  EXPECT_EQ(ErrorOf(ParseRoutePath("/a/*")), "\"/a/*\": a path is a prefix already; write \"/a\"");
}

TEST(ParseOrigin, ReadsWhatBrowsersSend) {
  EXPECT_EQ(ParseOrigin("https://Chat.Example.com"), "https://chat.example.com");
  EXPECT_EQ(ParseOrigin("http://localhost:3000"), "http://localhost:3000");
  EXPECT_EQ(ParseOrigin("http://[::1]:3000"), "http://[::1]:3000");
  EXPECT_EQ(ParseOrigin("http://[::1]"), "http://[::1]");
  EXPECT_EQ(ParseOrigin("https://a:80"), "https://a:80");
  EXPECT_EQ(ParseOrigin("chrome-extension://abcdef"), "chrome-extension://abcdef");
  for (const std::string_view text :
       {"", "*", "null", "a.example", "://a", "1a://a", "https://", "https://a/", "https://a/b",
        "https://a?b", "https://u@a", "https://a:", "https://a:0", "https://a:70000", "https://a b",
        "https://*.a", "https://a:443", "http://a:80", "https://[x]"}) {
    EXPECT_FALSE(ParseOrigin(text)) << text;
  }
}

TEST(ParseAffinity, ReadsEverySource) {
  EXPECT_EQ(ParseAffinity("ip"), (AffinityRule{AffinitySource::kIp, "", 0}));
  EXPECT_EQ(ParseAffinity("cookie:sid"), (AffinityRule{AffinitySource::kCookie, "sid", 0}));
  EXPECT_EQ(ParseAffinity("header:X-User"), (AffinityRule{AffinitySource::kHeader, "X-User", 0}));
  EXPECT_EQ(ParseAffinity("query:room:id"), (AffinityRule{AffinitySource::kQuery, "room:id", 0}));
  EXPECT_EQ(ParseAffinity("path:2"), (AffinityRule{AffinitySource::kPath, "", 2}));
  for (const std::string_view text :
       {"", "ip:", "IP", "cookie", "cookie:", "cookie:a b", "cookie:a=b", "header:", "header:a:b",
        "query:", "query:a=b", "query:a&b", "path:", "path:0", "path:33", "path:x", "path:-1",
        "random"}) {
    EXPECT_FALSE(ParseAffinity(text)) << text;
  }
}

TEST(ParseName, TakesWhatFitsLabelsAndUrls) {
  EXPECT_EQ(ParseName("[::1]:80"), "[::1]:80");
  EXPECT_EQ(ParseName(std::string(128, 'a')), std::string(128, 'a'));
  EXPECT_FALSE(ParseName(std::string(129, 'a')));
  EXPECT_FALSE(ParseName(""));
  EXPECT_FALSE(ParseName("a/b"));
  EXPECT_FALSE(ParseName("a b"));
  EXPECT_FALSE(ParseName("\xC3\xA4"));
  EXPECT_EQ(ParseRouteName("*/a"), "*/a");
  EXPECT_FALSE(ParseRouteName("a\"b"));
}

TEST(ParseCloseReason, TakesPlainWordsThatFitAFrame) {
  EXPECT_EQ(ParseCloseReason(""), "");
  EXPECT_EQ(ParseCloseReason("back in 5 minutes"), "back in 5 minutes");
  EXPECT_EQ(ParseCloseReason(std::string(123, 'x')), std::string(123, 'x'));
  EXPECT_FALSE(ParseCloseReason(std::string(124, 'x')));
  for (const std::string_view text : {"1012", "{}", "[1]", "\"x\"", " {}", "a\nb", "\x7F"}) {
    EXPECT_FALSE(ParseCloseReason(text)) << text;
  }
}

TEST(ParseChangedField, RefusesWhatSluiceWritesItself) {
  for (const std::string_view name : {"X-Env", "Server", "Set-Cookie", "Authorization", "Origin",
                                      "ViaX", "X-Real-IP", "Sec-Fetch-Site", "a!#$%&'*+-.^_`|~9"}) {
    EXPECT_EQ(ParseChangedField(name), std::string(name));
  }
  for (const std::string_view name : {"",
                                      "a b",
                                      "a:",
                                      "\xC3\xA4",
                                      "connection",
                                      "Keep-Alive",
                                      "PROXY-CONNECTION",
                                      "Te",
                                      "trailer",
                                      "Transfer-Encoding",
                                      "upgrade",
                                      "content-length",
                                      "HOST",
                                      "sec-websocket-key",
                                      "Sec-WebSocket-",
                                      "x-forwarded-for",
                                      "X-Forwarded-Anything",
                                      "forwarded",
                                      "X-Request-ID",
                                      "VIA",
                                      "Expect",
                                      "content_length",
                                      "X_Forwarded_For",
                                      "sec.websocket.key"}) {
    EXPECT_FALSE(ParseChangedField(name)) << name;
  }
}

// Some take "sec_websocket_key" for "sec-websocket-key", and all of them are to be refused.
TEST(ParseCopiedField, RefusesWhatIsSpelledInAnotherWayToo) {
  EXPECT_EQ(ParseForwardedField("X_User"), "x_user");
  EXPECT_EQ(ParseForwardedField("Sec_WebSocket_Protocol"), "sec_websocket_protocol");
  EXPECT_EQ(ParseCopiedField("X_User"), "x_user");
  EXPECT_FALSE(ParseCopiedField("Sec_WebSocket_Protocol"));
  for (const std::string_view name : {"Content_Length", "x_forwarded_for", "X.Request.ID",
                                      "sec_websocket_key", "transfer_encoding"}) {
    EXPECT_FALSE(ParseForwardedField(name)) << name;
    EXPECT_FALSE(ParseCopiedField(name)) << name;
  }
}

TEST(ParseFieldValue, TakesVisibleCharactersOnly) {
  const std::string most(4096, 'x');
  for (const std::string_view value :
       {std::string_view("a"), std::string_view("a \t b"), std::string_view("max-age=1; x=\"~\""),
        std::string_view(most)}) {
    EXPECT_EQ(ParseFieldValue(value), std::string(value));
  }
  for (int byte = 0; byte < 256; ++byte) {
    const std::string value = std::string("a") + static_cast<char>(byte) + "b";
    EXPECT_EQ(ParseFieldValue(value).has_value(), byte == '\t' || (byte >= 0x20 && byte < 0x7F))
        << byte;
  }
  for (const std::string& value :
       {std::string(), std::string(" a"), std::string("a\t"), most + "x"}) {
    EXPECT_FALSE(ParseFieldValue(value)) << value.size();
  }
}

TEST(Nearest, FindsSlipsAndNothingElse) {
  const std::vector<std::string_view> words = {"workers", "header_timeout", "pool", "path"};
  EXPECT_EQ(Nearest("wokers", words), "workers");
  EXPECT_EQ(Nearest("wrokers", words), "workers");
  EXPECT_EQ(Nearest("header_timeuot", words), "header_timeout");
  EXPECT_EQ(Nearest("pol", words), "pool");
  EXPECT_EQ(Nearest("backends", words), std::nullopt);
  EXPECT_EQ(Nearest("", words), std::nullopt);
  EXPECT_EQ(Nearest(std::string(100'000, 'w'), words), std::nullopt);
  EXPECT_EQ(Nearest("a", std::vector<std::string_view>{"b"}), std::nullopt);
}

TEST(Quoted, KeepsAMessageOnOneShortLine) {
  EXPECT_EQ(Quoted("a\nb"), "\"a\\x0ab\"");
  EXPECT_EQ(Quoted(std::string(100, 'a')), "\"" + std::string(100, 'a') + "\"");
  EXPECT_EQ(Quoted(std::string(101, 'a')), "\"" + std::string(100, 'a') + "...\"");
  // The cut moves behind a sequence that has begun.
  EXPECT_EQ(Quoted(std::string(99, 'a') + "\xC3\xA4" + "bc"),
            "\"" + std::string(99, 'a') + "\xC3\xA4...\"");
}

TEST(CheckReadable, TellsWhyAFileCannotBeRead) {
  const TempDir dir;
  const std::string file = dir.Write("a.pem", "x");
  EXPECT_EQ(ErrorOf(CheckReadable(file)), "");
  EXPECT_EQ(ErrorOf(CheckReadable(dir.path() + "/b.pem")),
            "cannot read \"" + dir.path() + "/b.pem\": No such file or directory");
  EXPECT_EQ(ErrorOf(CheckReadable(file + "/c.pem")),
            "cannot read \"" + file + "/c.pem\": Not a directory");
  EXPECT_EQ(ErrorOf(CheckReadable(dir.path())),
            "cannot read \"" + dir.path() + "\": not a regular file");
}

}  // namespace
}  // namespace sluice::config
