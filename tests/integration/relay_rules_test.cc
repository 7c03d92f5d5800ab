// Proves that a frame that breaks RFC 6455 (or a limit) goes no further: both sides are closed with
// the right code, the reason is counted, and nothing of the bad frame was forwarded, however it was
// cut on its way.
#include <map>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"

namespace sluice::test {
namespace {

struct Rule {
  const char* reason;  // as in sluice_protocol_errors_total
  std::string good;    // frames before it, of a client
  std::string bad;     // of a client; up to where the fault is known
  std::uint16_t code = 1002;
  bool masking = false;  // the rule is about the mask: `bad` differs by side
};

std::string Fragment(std::uint8_t opcode, std::string_view payload) {
  return BuildFrame(opcode, payload, {.fin = false});
}

constexpr std::uint64_t kLimit = 1000;

std::vector<Rule> Rules() {
  std::vector<Rule> rules;
  for (const unsigned opcode : {3U, 7U, 11U, 15U}) {
    rules.push_back({"reserved_opcode", "", std::string(1, static_cast<char>(0x80U | opcode))});
  }
  rules.push_back({"rsv2_or_rsv3", "", BuildFrame(kText, "x", {.rsv = 2}).substr(0, 2)});
  rules.push_back({"rsv2_or_rsv3", "", BuildFrame(kText, "x", {.rsv = 1}).substr(0, 2)});
  rules.push_back({"rsv1_not_agreed", "", BuildFrame(kText, "x", {.rsv = 4})});
  rules.push_back({"fragmented_control", "", BuildFrame(kPing, "x", {.fin = false})});
  rules.push_back({"fragmented_control", "", BuildFrame(kClose, "", {.fin = false})});
  rules.push_back({"continuation_without_start", "", BuildFrame(kContinuation, "x")});
  rules.push_back({"data_inside_message", Fragment(kText, "one"), BuildFrame(kText, "x")});
  rules.push_back({"control_too_long", "", BuildHeader(0x89, true, 126, 2)});
  rules.push_back({"control_too_long", "", BuildHeader(0x88, true, 126, 2)});
  rules.push_back({"close_length_one", "", BuildFrame(kClose, "x")});
  rules.push_back({"length_not_minimal", "", BuildHeader(0x82, true, 125, 2)});
  rules.push_back({"length_not_minimal", "", BuildHeader(0x82, true, 0, 2)});
  rules.push_back({"length_not_minimal", "", BuildHeader(0x82, true, 65535, 8)});
  rules.push_back({"length_top_bit", "", BuildHeader(0x82, true, 1ULL << 63U, 8)});
  rules.push_back({"length_top_bit", "", BuildHeader(0x82, true, ~0ULL, 8)});
  rules.push_back({"message_too_big", "", BuildHeader(0x82, true, (1ULL << 63U) - 1, 8), 1009});
  rules.push_back({"message_too_big", "", BuildHeader(0x82, true, 1ULL << 32U, 8), 1009});
  rules.push_back({"message_too_big", "", BuildHeader(0x82, true, kLimit + 1, 2), 1009});
  rules.push_back({"message_too_big", Fragment(kText, std::string(kLimit, 'a')),
                   BuildFrame(kContinuation, "b"), 1009});
  rules.push_back(
      {"too_many_frames",
       Fragment(kText, "1") + Fragment(kContinuation, "2") + Fragment(kContinuation, "3"),
       BuildFrame(kContinuation, "4"), 1008});
  rules.push_back(
      {"unmasked_client_frame", "", BuildFrame(kText, "x", {.masked = false}), 1002, true});
  return rules;
}

// The same frames as a backend would send them: without masks.
std::string Unmasked(std::string bytes) {
  std::string out;
  while (!bytes.empty()) {
    std::string rest = bytes;
    if (const auto frame = TakeFrame(rest)) {
      out += BuildFrame(frame->opcode, frame->payload,
                        {.fin = frame->fin, .masked = false, .rsv = frame->rsv});
      bytes = rest;
      continue;
    }
    // A header alone.
    if (bytes.size() > 1) {
      bytes[1] = static_cast<char>(bytes[1] & 0x7F);
    }
    return out + bytes;
  }
  return out;
}

class FrameRules : public testing::TestWithParam<bool> {
 protected:
  [[nodiscard]] bool by_client() const { return GetParam(); }

  RawBackend backend;
  ProxyProcess proxy{Config{.backends = {backend.port()},
                            .server = "close_timeout = \"5s\"",
                            .route = "limits.max_message_bytes = \"1000B\"\n"
                                     "limits.max_frames_per_message = 3"}};
};

TEST_P(FrameRules, EachIsEnforcedAndCounted) {
  std::map<std::string, int> counted;
  std::size_t sessions = 0;
  for (Rule rule : Rules()) {
    std::string reason = rule.reason;
    if (!by_client()) {
      if (rule.masking) {
        reason = "masked_backend_frame";
        rule.bad = BuildFrame(kText, "x");
      } else {
        rule.good = Unmasked(rule.good);
        rule.bad = Unmasked(rule.bad);
      }
    }
    // Whole, cut in the header where it has more than a byte, and behind a complete message.
    for (const std::size_t cut : {std::size_t{0}, std::size_t{1}, rule.bad.size() - 1}) {
      if (cut >= rule.bad.size()) {
        continue;
      }
      SCOPED_TRACE(reason + " cut at " + std::to_string(cut) + " of " +
                   std::to_string(rule.bad.size()));
      RelayedSession s = OpenSession(proxy, backend);
      ++sessions;
      Stream& breaker = by_client() ? static_cast<Stream&>(s.client) : s.backend;
      Stream& other = by_client() ? s.backend : static_cast<Stream&>(s.client);
      const std::string before = BuildFrame(kText, "fine", {.masked = by_client()}) + rule.good;
      breaker.Send(before + rule.bad.substr(0, cut));
      EXPECT_TRUE(other.ReadExactly(before.size()) == before);
      breaker.Send(rule.bad.substr(cut));

      const Frame told = other.ReadFrame();
      EXPECT_EQ(told.opcode, kClose);
      EXPECT_EQ(told.close_code(), rule.code);
      EXPECT_EQ(told.masked, by_client());
      if (by_client()) {
        other.Send(BackendClose(rule.code));
      } else {
        other.Send(ClientClose(rule.code));
      }
      const Frame own = breaker.ReadFrame();
      EXPECT_EQ(own.opcode, kClose);
      EXPECT_EQ(own.close_code(), rule.code);
      EXPECT_EQ(own.masked, !by_client());
      breaker.ExpectEnd();  // it is not waited for: it cannot be understood any more
      other.ExpectEnd();
      ++counted[reason];
    }
  }
  const std::string side = by_client() ? "client" : "backend";
  for (const auto& [reason, count] : counted) {
    EXPECT_EQ(proxy.Metric("sluice_protocol_errors_total{side=\"" + side + "\",reason=\"" + reason +
                           "\"}"),
              count)
        << reason;
  }
  EXPECT_EQ(proxy.Metric("sluice_closes_total{by=\"sluice\"}"), static_cast<double>(sessions));
  proxy.AwaitMetric("sluice_sessions_open", 0);
  proxy.AwaitMetric("sluice_connections_open", 0);
}

INSTANTIATE_TEST_SUITE_P(Side, FrameRules, testing::Bool(), [](const auto& one) {
  return std::string(one.param ? "Client" : "Backend");
});

TEST(Limits, MessageOfExactlyTheLimitPasses) {
  RawBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .route = "limits.max_message_bytes = \"1000B\""});
  RelayedSession s = OpenSession(proxy, backend);
  const std::string whole = BuildFrame(kBinary, Pattern(1000));
  const std::string parts = Fragment(kBinary, Pattern(600)) + BuildFrame(kPing, Pattern(125)) +
                            BuildFrame(kContinuation, Pattern(400));
  s.client.Send(whole + parts + whole);
  EXPECT_TRUE(s.backend.ReadExactly(whole.size() * 2 + parts.size()) == whole + parts + whole);
}

TEST(Limits, ADeclaredLengthCostsNoMemory) {
  RawBackend backend;
  ProxyProcess proxy(
      Config{.backends = {backend.port()}, .route = "limits.max_message_bytes = \"0B\""});
  const std::size_t before = proxy.ResidentBytes();
  std::vector<RelayedSession> sessions;
  for (int i = 0; i < 20; ++i) {
    sessions.push_back(OpenSession(proxy, backend));
    RelayedSession& s = sessions.back();
    s.client.Send(BuildHeader(0x82, true, (1ULL << 63U) - 1, 8) + "mask" + "begin");
    EXPECT_EQ(s.backend.ReadExactly(19).substr(14), "begin");
  }
  EXPECT_LT(proxy.ResidentBytes(), before + AllowedGrowth(proxy));
}

TEST(Rules, AViolationInsideTheOtherSidesFrameWaitsForItsEnd) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RelayedSession s = OpenSession(proxy, backend);
  const std::string message = BuildFrame(kBinary, Pattern(1000));
  s.client.Send(message.substr(0, 500));
  EXPECT_TRUE(s.backend.ReadExactly(500) == message.substr(0, 500));
  s.backend.Send(BuildFrame(kText, "masked by a backend"));
  proxy.AwaitMetric("sluice_protocol_errors_total{side=\"backend\"}", 1);
  s.client.Send(message.substr(500) + BuildFrame(kText, "not this one"));
  EXPECT_TRUE(s.backend.ReadExactly(message.size() - 500) == message.substr(500));
  EXPECT_EQ(s.backend.ReadFrame().close_code(), 1002);
  EXPECT_EQ(s.client.ReadFrame().close_code(), 1002);
}

// All of it arrives in one read.
TEST(Rules, MessagesBeforeAViolationAreCounted) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  RelayedSession s = OpenSession(proxy, backend);
  s.client.Send(BuildFrame(kText, "one") + BuildFrame(kText, "two") + BuildFrame(kText, "three") +
                BuildFrame(kBinary, "four") + BuildFrame(kBinary, "five") + BuildFrame(kPing, "") +
                BuildFrame(kContinuation, "bad"));
  proxy.AwaitMetric("sluice_protocol_errors_total{side=\"client\"}", 1);
  EXPECT_EQ(proxy.Metric("sluice_messages_total{from=\"client\",opcode=\"text\"}"), 3);
  EXPECT_EQ(proxy.Metric("sluice_messages_total{from=\"client\",opcode=\"binary\"}"), 2);
  EXPECT_EQ(proxy.Metric("sluice_messages_total{from=\"client\",opcode=\"ping\"}"), 1);
  EXPECT_EQ(proxy.Metric("sluice_message_bytes_count{from=\"client\"}"), 5);
}

TEST(Rules, MasksOfOurOwnFramesCannotBeGuessed) {
  RawBackend backend;
  ProxyProcess proxy(Config{.backends = {backend.port()}});
  std::set<std::string> masks;
  constexpr int kCount = 30;
  for (int i = 0; i < kCount; ++i) {
    RelayedSession s = OpenSession(proxy, backend);
    s.client.Send(BuildFrame(kText, "x", {.masked = false}));
    masks.insert(s.backend.ReadFrame().mask);
  }
  EXPECT_EQ(masks.size(), static_cast<std::size_t>(kCount));
}

}  // namespace
}  // namespace sluice::test
