// Proves that an access-log line is one valid JSON object whatever a peer sent, that queries are
// redacted unless asked for, and that a full queue drops and counts instead of blocking.
#include "proxy/log/access_log.h"

#include <algorithm>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace sluice::log {
namespace {

AccessRecord Sample() {
  AccessRecord record;
  record.event = "ws_close";
  record.conn_id = 7;
  record.client_ip = "192.0.2.7";
  record.client_port = 4711;
  record.method = "GET";
  record.path = "/chat";
  record.query = "token=secret";
  record.status = 101;
  record.closed_by = "sluice";
  record.close_code_client = 1012;
  record.duration = Millis(1500);
  return record;
}

TEST(AccessLog, JsonLineHasTheFields) {
  const auto line = nlohmann::json::parse(FormatJson(Sample(), false));
  EXPECT_EQ(line["event"], "ws_close");
  EXPECT_EQ(line["conn_id"], 7);
  EXPECT_EQ(line["client_ip"], "192.0.2.7");
  EXPECT_EQ(line["path"], "/chat");
  EXPECT_EQ(line["status"], 101);
  EXPECT_EQ(line["duration_ms"], 1500);
  EXPECT_EQ(line["close_code_client"], 1012);
  EXPECT_EQ(line["closed_by"], "sluice");
  EXPECT_FALSE(line.contains("origin")) << "what is empty is left out";
  EXPECT_EQ(line["ts"].get<std::string>().size(), std::string("2026-01-01T00:00:00.000Z").size());
}

TEST(AccessLog, TheProxyThatSentAHeaderIsToldIfThereIsOne) {
  EXPECT_FALSE(nlohmann::json::parse(FormatJson(Sample(), false)).contains("proxy"));
  AccessRecord record = Sample();
  record.proxy = "[::1]:4712";
  EXPECT_EQ(nlohmann::json::parse(FormatJson(record, false))["proxy"], "[::1]:4712");
}

TEST(AccessLog, QueriesAreRedactedUnlessKept) {
  EXPECT_EQ(FormatJson(Sample(), false).find("secret"), std::string::npos);
  EXPECT_EQ(FormatText(Sample(), false).find("secret"), std::string::npos);
  EXPECT_EQ(nlohmann::json::parse(FormatJson(Sample(), true))["query"], "token=secret");
  EXPECT_NE(FormatText(Sample(), true).find("token=secret"), std::string::npos);
}

TEST(AccessLog, AnyByteOfAPeerStaysInsideItsString) {
  std::string every;
  for (int c = 0; c < 256; ++c) {
    every += static_cast<char>(c);
  }
  AccessRecord record = Sample();
  record.user_agent = every;
  const std::string text = FormatJson(record, false);
  EXPECT_EQ(text.find('\n'), std::string::npos);
  const auto line = nlohmann::json::parse(text);
  // Each byte comes back as the code point of the same number.
  EXPECT_EQ(line["user_agent"].get<std::string>().substr(0, 128), every.substr(0, 128));
}

TEST(AccessLog, TextLineIsOneLine) {
  AccessRecord record = Sample();
  record.host = "a\r\nb";
  EXPECT_EQ(FormatText(record, false).find('\n'), std::string::npos);
}

TEST(AccessLog, AFullQueueDropsAndCounts) {
  EXPECT_TRUE(AccessLog(AccessFormat::kText, 1, true).keeps_query());
  testing::internal::CaptureStdout();
  std::uint64_t dropped = 0;
  constexpr int kLines = 20'000;
  {
    AccessLog log(AccessFormat::kJson, 2, false);
    EXPECT_TRUE(log.enabled());
    EXPECT_FALSE(log.keeps_query());
    for (int i = 0; i < kLines; ++i) {
      log.Write(Sample());
    }
    dropped = log.dropped();
  }
  const std::string out = testing::internal::GetCapturedStdout();
  const auto lines = static_cast<std::uint64_t>(std::count(out.begin(), out.end(), '\n'));
  EXPECT_GT(dropped, 0U) << "two places cannot have been enough";
  EXPECT_EQ(lines + dropped, static_cast<std::uint64_t>(kLines)) << "each was written or counted";
}

TEST(AccessLog, OffWritesNothing) {
  testing::internal::CaptureStdout();
  {
    AccessLog log(AccessFormat::kOff, 16, false);
    EXPECT_FALSE(log.enabled());
    log.Write(Sample());
    EXPECT_EQ(log.dropped(), 0U);
  }
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
}

}  // namespace
}  // namespace sluice::log
