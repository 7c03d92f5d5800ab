// Proves the counter blocks: buckets, slots, and that every label value is a distinct lower-case
// word.
#include "proxy/metrics/blocks.h"

#include <cctype>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace sluice::metrics {
namespace {

TEST(Counter, AddsOneUnlessTold) {
  Counter counter;
  counter.Add();
  counter.Add(41);
  EXPECT_EQ(counter.value(), 42U);
}

TEST(Gauge, GoesUpAndDown) {
  Gauge gauge;
  gauge.Add(3);
  gauge.Add(-5);
  EXPECT_EQ(gauge.value(), -2);
  gauge.Set(7);
  EXPECT_EQ(gauge.value(), 7);
}

TEST(Histogram, BoundBelongsToItsBucket) {
  Histogram<kLatencyBounds> histogram;
  histogram.Observe(0.0);
  histogram.Observe(0.0005);
  histogram.Observe(0.00051);
  histogram.Observe(10.0);
  histogram.Observe(10.1);
  EXPECT_EQ(histogram.bucket(0), 2U);
  EXPECT_EQ(histogram.bucket(1), 1U);
  EXPECT_EQ(histogram.bucket(kLatencyBounds.size() - 1), 1U);
  EXPECT_EQ(histogram.bucket(kLatencyBounds.size()), 1U);
  EXPECT_DOUBLE_EQ(histogram.sum(), 20.10101);
}

// What MessageSizes must agree with: the first bound that is not below the value.
std::size_t NaiveBucket(std::uint64_t bytes) {
  std::size_t i = 0;
  while (i < kMessageBounds.size() && static_cast<double>(bytes) > kMessageBounds[i]) {
    ++i;
  }
  return i;
}

TEST(MessageSizes, AgreesWithASearch) {
  std::vector<std::uint64_t> values;
  for (std::uint64_t v = 0; v <= 5000; ++v) {
    values.push_back(v);
  }
  for (unsigned shift = 0; shift < 64; ++shift) {
    const std::uint64_t power = std::uint64_t{1} << shift;
    values.insert(values.end(), {power - 1, power, power + 1});
  }
  values.push_back(~std::uint64_t{0});
  std::mt19937_64 random(4711);
  for (int i = 0; i < 20'000; ++i) {
    values.push_back(random() >> (random() % 64));
  }
  for (const std::uint64_t value : values) {
    MessageSizes sizes;
    sizes.Observe(value);
    ASSERT_EQ(sizes.bucket(NaiveBucket(value)), 1U) << value;
    ASSERT_EQ(sizes.sum(), value);
  }
}

TEST(CloseSlot, MapsEveryCode) {
  struct Case {
    std::uint16_t code;
    std::string_view want;
  };
  const Case cases[] = {{0, "none"},     {1, "other"},    {999, "other"},  {1000, "1000"},
                        {1001, "1001"},  {1005, "1005"},  {1006, "1006"},  {1009, "1009"},
                        {1010, "1010"},  {1012, "1012"},  {1015, "1015"},  {1016, "other"},
                        {2999, "other"}, {3000, "3xxx"},  {3999, "3xxx"},  {4000, "4xxx"},
                        {4999, "4xxx"},  {5000, "other"}, {65535, "other"}};
  for (const Case& c : cases) {
    EXPECT_EQ(CloseSlotName(CloseSlot(c.code)), c.want) << c.code;
  }
  for (unsigned code = 0; code <= 65535; ++code) {
    ASSERT_LT(CloseSlot(static_cast<std::uint16_t>(code)), kCloseSlots) << code;
  }
  for (std::uint16_t code = 1000; code <= 1015; ++code) {
    EXPECT_EQ(CloseSlotName(CloseSlot(code)), std::to_string(code));
  }
}

template <class E>
void ExpectDistinctWords() {
  std::set<std::string_view> seen;
  for (std::size_t i = 0; i < kCountOf<E>; ++i) {
    const std::string_view name = Name(static_cast<E>(i));
    EXPECT_TRUE(seen.insert(name).second) << name;
    for (const char c : name) {
      EXPECT_TRUE(std::islower(static_cast<unsigned char>(c)) != 0 || c == '_') << name;
    }
  }
}

TEST(Name, GivesEveryValueAWordOfItsOwn) {
  ExpectDistinctWords<MessageKind>();
  ExpectDistinctWords<UpgradeOutcome>();
  ExpectDistinctWords<ClosedBy>();
  ExpectDistinctWords<PickHow>();
  ExpectDistinctWords<BackendFailure>();
  ExpectDistinctWords<TornReason>();
  ExpectDistinctWords<TlsResult>();
  ExpectDistinctWords<AcceptPause>();
  ExpectDistinctWords<Refused>();
  ExpectDistinctWords<OwnClose>();
  ExpectDistinctWords<AuthResult>();
  EXPECT_EQ(Name(MessageKind::kPong), "pong");
  EXPECT_EQ(Name(UpgradeOutcome::kAccepted), "accepted");
  EXPECT_EQ(Name(UpgradeOutcome::kBackendError), "backend_error");
  EXPECT_EQ(Name(UpgradeOutcome::kClientGone), "client_gone");
  EXPECT_EQ(Name(UpgradeOutcome::kAuthUnavailable), "auth_unavailable");
  EXPECT_EQ(Name(OwnClose::kAuthExpired), "auth_expired");
  EXPECT_EQ(Name(AuthResult::kBadAnswer), "bad_answer");
  EXPECT_EQ(Name(ClosedBy::kSluice), "sluice");
  EXPECT_EQ(Name(BackendFailure::kLost), "lost");
  EXPECT_EQ(Name(AcceptPause::kEnobufs), "enobufs");
  EXPECT_EQ(Name(Refused::kConnectionsPerIp), "connections_per_ip");
}

TEST(ReasonCounters, CountsUnknownWordsAsOther) {
  static constexpr std::string_view kWords[] = {"bare_lf", "bad_host", "bare_lf"};
  ReasonCounters reasons;
  reasons.Register(kWords);
  ASSERT_EQ(reasons.size(), 3U);
  const std::string copy = "bad_host";  // found by content, not by address
  reasons.Add(copy);
  reasons.Add("never_heard_of");
  reasons.Add("other");
  EXPECT_EQ(reasons.word(0), "bare_lf");
  EXPECT_EQ(reasons.value(0), 0U);
  EXPECT_EQ(reasons.word(1), "bad_host");
  EXPECT_EQ(reasons.value(1), 1U);
  EXPECT_EQ(reasons.word(2), "other");
  EXPECT_EQ(reasons.value(2), 2U);
}

TEST(ReasonCounters, HasOtherWithoutRegistration) {
  ReasonCounters reasons;
  reasons.Add("anything");
  ASSERT_EQ(reasons.size(), 1U);
  EXPECT_EQ(reasons.word(0), "other");
  EXPECT_EQ(reasons.value(0), 1U);
}

TEST(ReasonCounters, KeepsTheLastPlaceForOther) {
  std::vector<std::string> words;
  for (std::size_t i = 0; i < ReasonCounters::kMax + 5; ++i) {
    words.push_back("word_" + std::to_string(i));
  }
  const std::vector<std::string_view> views(words.begin(), words.end());
  ReasonCounters reasons;
  reasons.Register(views);
  ASSERT_EQ(reasons.size(), ReasonCounters::kMax);
  EXPECT_EQ(reasons.word(ReasonCounters::kMax - 1), "other");
  reasons.Add(words.back());
  EXPECT_EQ(reasons.value(ReasonCounters::kMax - 1), 1U);
}

}  // namespace
}  // namespace sluice::metrics
