// Proves that the CLOSE and PING frames of Sluice's own are well formed in both directions (RFC
// 6455 sections 5.2, 5.3, 5.5) and carry only codes that may be sent (section 7.4).
#include "proxy/ws/frame_writer.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "proxy/ws/frame_tracker.h"

namespace sluice::ws {
namespace {

using namespace std::string_literals;

constexpr MaskKey kKey{std::byte{0x37}, std::byte{0xfa}, std::byte{0x21}, std::byte{0x3d}};

TEST(MakeClose, WritesTowardsAClientWithoutAMask) {
  EXPECT_EQ(AsText(MakeClose(1012, "service restart", std::nullopt).bytes()),
            "\x88\x11\x03\xf4service restart");
  EXPECT_EQ(AsText(MakeClose(1001, "", std::nullopt).bytes()), "\x88\x02\x03\xe9");
}

TEST(MakeClose, MasksTowardsABackend) {
  // 0x03 ^ 0x37, 0xe9 ^ 0xfa, 'b' ^ 0x21, 'y' ^ 0x3d, 'e' ^ 0x37.
  EXPECT_EQ(AsText(MakeClose(1001, "bye", kKey).bytes()),
            "\x88\x85\x37\xfa\x21\x3d\x34\x13\x43\x44\x52");
  EXPECT_EQ(AsText(MakeClose(1001, "", kKey).bytes()), "\x88\x82\x37\xfa\x21\x3d\x34\x13");
}

TEST(MakeClose, WritesWhatTheTrackerAccepts) {
  for (const std::size_t length : {0U, 1U, 122U, 123U, 124U, 500U}) {
    for (const Side from : {Side::kClient, Side::kBackend}) {
      const ControlFrame frame =
          MakeClose(1012, std::string(length, 'r'),
                    from == Side::kClient ? std::optional(kKey) : std::nullopt);
      FrameTracker tracker({.from = from});
      const FrameTracker::Step step = tracker.Next(frame.bytes());
      EXPECT_EQ(step.event, FrameTracker::Event::kMessageEnd) << length;
      EXPECT_EQ(step.consumed, frame.bytes().size());
      EXPECT_EQ(tracker.close_code(), 1012);
      EXPECT_EQ(tracker.message_bytes(), 2 + (length < 123 ? length : 123));
    }
  }
}

TEST(MakeClose, CutsALongReasonBetweenCharacters) {
  const auto reason = [](std::string_view text) {
    const ControlFrame frame = MakeClose(1000, text, std::nullopt);
    return std::string(AsText(frame.bytes()).substr(4));
  };
  const std::string ascii(130, 'a');
  EXPECT_EQ(reason(ascii), ascii.substr(0, 123));
  // The character that crosses byte 123 goes as a whole: of two, three and four bytes.
  const std::string two = std::string(122, 'a') + "\u00e9";
  EXPECT_EQ(reason(two), std::string(122, 'a'));
  const std::string three = std::string(121, 'a') + "\u20ac";
  EXPECT_EQ(reason(three), std::string(121, 'a'));
  const std::string four = std::string(120, 'a') + "\U0001F600";
  EXPECT_EQ(reason(four), std::string(120, 'a'));
  // One that ends there stays.
  const std::string fits = std::string(120, 'a') + "\u20ac" + "b";
  EXPECT_EQ(reason(fits), std::string(120, 'a') + "\u20ac");
}

TEST(MakePing, WritesTowardsBothSides) {
  EXPECT_EQ(AsText(MakePing(AsBytes("Hello"), std::nullopt).bytes()), "\x89\x05Hello");
  // Section 5.7: the example of a masked one, of which the payload is that of a masked text.
  EXPECT_EQ(AsText(MakePing(AsBytes("Hello"), kKey).bytes()),
            "\x89\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
  EXPECT_EQ(AsText(MakePing({}, std::nullopt).bytes()), "\x89\0"s);
  EXPECT_EQ(AsText(MakePing({}, kKey).bytes()), "\x89\x80\x37\xfa\x21\x3d");
}

TEST(MakePing, CarriesAnyBytesUpTo125) {
  const std::string payload = std::string("\0\xff", 2) + std::string(200, 'p');
  for (const std::size_t length : {1U, 124U, 125U, 126U, 202U}) {
    for (const Side from : {Side::kClient, Side::kBackend}) {
      const ControlFrame frame =
          MakePing(AsBytes(std::string_view(payload).substr(0, length)),
                   from == Side::kClient ? std::optional(kKey) : std::nullopt);
      const std::size_t carried = length < 125 ? length : 125;
      FrameTracker tracker({.from = from});
      const FrameTracker::Step step = tracker.Next(frame.bytes());
      EXPECT_EQ(step.event, FrameTracker::Event::kMessageEnd) << length;
      EXPECT_EQ(step.consumed, frame.bytes().size());
      EXPECT_EQ(tracker.opcode(), Opcode::kPing);
      EXPECT_EQ(tracker.message_bytes(), carried);
      if (from == Side::kBackend) {
        EXPECT_EQ(AsText(frame.bytes()).substr(2), payload.substr(0, carried));
      }
    }
  }
}

TEST(IsSendableCloseCode, KnowsEveryCodeOfTheRegistry) {
  // Section 7.4.1 and the WebSocket Close Code Number Registry at IANA.
  struct Case {
    std::uint16_t code;
    bool want;
    const char* meaning;
  };

  constexpr Case kCases[] = {
      {0, false, "not used"},
      {999, false, "not used"},
      {1000, true, "normal closure"},
      {1001, true, "going away"},
      {1002, true, "protocol error"},
      {1003, true, "unsupported data"},
      {1004, false, "reserved, without a meaning"},
      {1005, false, "stands for a CLOSE without a code"},
      {1006, false, "stands for an end without a CLOSE"},
      {1007, true, "invalid payload data"},
      {1008, true, "policy violation"},
      {1009, true, "message too big"},
      {1010, true, "mandatory extension"},
      {1011, true, "internal error"},
      {1012, true, "service restart"},
      {1013, true, "try again later"},
      {1014, true, "bad gateway"},
      {1015, false, "stands for a TLS handshake that failed"},
      {1016, false, "not assigned"},
      {2999, false, "for the protocol and its extensions, not assigned"},
      {3000, true, "the first for libraries"},
      {3999, true, "the last for libraries"},
      {4000, true, "the first for applications"},
      {4999, true, "the last for applications"},
      {5000, false, "outside of every range"},
      {65535, false, "outside of every range"},
  };
  for (const Case& c : kCases) {
    EXPECT_EQ(IsSendableCloseCode(c.code), c.want) << c.code << ": " << c.meaning;
  }
}

TEST(IsSendableCloseCode, HasNoGapsInItsRanges) {
  // Sections 7.4.1, 7.4.2 and 11.7.
  for (unsigned code = 0; code <= 65535; ++code) {
    const bool want =
        (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
        (code >= 3000 && code < 5000);
    EXPECT_EQ(IsSendableCloseCode(static_cast<std::uint16_t>(code)), want) << code;
  }
}

}  // namespace
}  // namespace sluice::ws
