// Proves that a name is asked for again and again: by its TTL, sooner after a failure, and not any
// more when the watch is over.
#include "proxy/discovery/dns_watch.h"

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/discovery/fake_dns.h"

namespace sluice::discovery {
namespace {

using Answers = std::vector<std::string>;

constexpr Millis kPatience{10'000};

TEST(DnsWatch, AsksAgainAndTellsEachOutcome) {
  net::Loop loop;
  int asked = 0;
  FakeDns server(loop, [&](const FakeDns::Question& q) {
    ++asked;
    // The second one fails.
    return asked == 2 ? Answers{AnswerTo(q, 3).Bytes()}
                      : Answers{AnswerTo(q).AddA(q.name, 0, 0x0A000001).Bytes()};
  });
  DnsQuestion question;
  question.name = "a.test";
  question.port = 9000;
  question.servers = {server.address()};
  std::string told;
  auto watch = std::make_unique<DnsWatch>(
      loop, question, RefreshSchedule::Bounds{Millis(20), Millis(40)}, 1,
      [&](const Result<DnsAnswer>& outcome) { told += outcome ? '+' : '-'; });
  EXPECT_EQ(told, "");
  loop.RunUntil([&] { return told.size() >= 4; }, kPatience);
  EXPECT_EQ(told, "+-++");
  watch.reset();
  loop.RunUntil([&] { return told.size() > 4; }, Millis(100));
  EXPECT_EQ(told, "+-++");
}

TEST(DnsWatch, RespectsTheTtl) {
  net::Loop loop;
  std::vector<Instant> asked;
  FakeDns server(loop, [&](const FakeDns::Question& q) {
    asked.push_back(Now());
    return Answers{AnswerTo(q).AddA(q.name, 1, 0x0A000001).Bytes()};
  });
  DnsQuestion question;
  question.name = "a.test";
  question.servers = {server.address()};
  DnsWatch watch(loop, question, {Millis(10), Millis(60'000)}, 1, [](const Result<DnsAnswer>&) {});
  loop.RunUntil([&] { return asked.size() >= 2; }, kPatience);
  ASSERT_EQ(asked.size(), 2U);
  EXPECT_GE(asked[1] - asked[0], Millis(1000));
}

}  // namespace
}  // namespace sluice::discovery
