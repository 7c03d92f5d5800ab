// Proves that FrameTracker enforces RFC 6455 section 5 and RFC 7692 section 6, says the same
// whatever the reads look like, and agrees with an independent reading of the rules.
#include "proxy/ws/frame_tracker.h"

#include <algorithm>
#include <cstdint>
#include <ostream>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/split.h"
#include "tests/unit/ws/frame_reference.h"

namespace sluice::ws {
namespace {

using Event = FrameTracker::Event;
using namespace std::string_literals;

constexpr FrameRules kClient{.from = Side::kClient};
constexpr FrameRules kBackend{.from = Side::kBackend};
constexpr FrameRules kClientDeflate{.from = Side::kClient, .rsv1_agreed = true};

static_assert(sizeof(FrameTracker) == 64, "two trackers stand in every session");

// `length_bytes` tells the form of the length: 0, 2 or 8; -1: the minimal one.
std::string HeaderBytes(unsigned first, bool masked, std::uint64_t length, int length_bytes = -1) {
  if (length_bytes < 0) {
    length_bytes = length < 126 ? 0 : length < 65536 ? 2 : 8;
  }
  const std::uint64_t low = length_bytes == 0 ? length : length_bytes == 2 ? 126 : 127;
  std::string out;
  out.push_back(static_cast<char>(first));
  out.push_back(static_cast<char>((masked ? 0x80U : 0U) | low));
  for (int i = length_bytes - 1; i >= 0; --i) {
    out.push_back(static_cast<char>(length >> (8 * i) & 0xFFU));
  }
  if (masked) {
    out += "\x37\xfa\x21\x3d";
  }
  return out;
}

std::string FrameBytes(unsigned first, std::string_view payload, bool masked) {
  std::string out = HeaderBytes(first, masked, payload.size());
  const std::string mask = masked ? out.substr(out.size() - 4) : "\0\0\0\0"s;
  for (std::size_t i = 0; i < payload.size(); ++i) {
    out.push_back(static_cast<char>(payload[i] ^ mask[i % 4]));
  }
  return out;
}

std::string Masked(unsigned first, std::string_view payload) {
  return FrameBytes(first, payload, true);
}

std::string Bare(unsigned first, std::string_view payload) {
  return FrameBytes(first, payload, false);
}

// What a stream came to, as one line for each frame: "2 frame", "9 text 3", "17 close 2 1000".
std::vector<std::string> Story(FrameTracker& tracker, const std::vector<std::string_view>& pieces) {
  std::vector<std::string> story;
  std::size_t position = 0;
  for (const std::string_view piece : pieces) {
    Bytes input = AsBytes(piece);
    for (;;) {
      const FrameTracker::Step step = tracker.Next(input);
      position += step.consumed;
      input = input.subspan(step.consumed);
      if (step.event == Event::kNeedMore) {
        break;
      }
      std::ostringstream line;
      if (step.event == Event::kBad) {
        line << "bad " << tracker.fault().reason << ' ' << tracker.fault().close_code;
        story.push_back(line.str());
        return story;
      }
      line << position;
      if (step.event == Event::kFrameEnd) {
        line << " frame";
      } else {
        line << ' ' << Name(tracker.opcode()) << ' ' << tracker.message_bytes();
        if (tracker.opcode() == Opcode::kClose) {
          line << ' ' << tracker.close_code();
        }
      }
      story.push_back(line.str());
    }
  }
  return story;
}

struct Case {
  const char* name;
  FrameRules rules;
  std::string stream;
  std::vector<std::string> story;
};

void PrintTo(const Case& value, std::ostream* out) {
  *out << value.name;
}

class Streams : public testing::TestWithParam<Case> {};

TEST_P(Streams, AreReadTheSameInAnyPieces) {
  const Case& row = GetParam();
  test::ForEachSplit(row.stream,
                     [&](const std::vector<std::string_view>& pieces, const std::string& label) {
                       FrameTracker tracker(row.rules);
                       EXPECT_EQ(Story(tracker, pieces), row.story) << label;
                       EXPECT_EQ(Disagreement(row.rules, pieces), "") << label;
                     });
}

std::string CaseName(const testing::TestParamInfo<Case>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(
    Accepted, Streams,
    testing::Values(
        // RFC 6455 section 5.7, the examples.
        Case{"SingleFrameUnmaskedText", kBackend, "\x81\x05Hello", {"7 text 5"}},
        Case{"SingleFrameMaskedText",
             kClient,
             "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
             {"11 text 5"}},
        Case{"FragmentedUnmaskedText",
             kBackend,
             "\x01\x03Hel"s + "\x80\x02lo",
             {"5 frame", "9 text 5"}},
        Case{"UnmaskedPing", kBackend, "\x89\x05Hello", {"7 ping 5"}},
        Case{"MaskedPong", kClient, "\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", {"11 pong 5"}},
        Case{"Binary256", kBackend, Bare(0x82, std::string(256, 'x')), {"260 binary 256"}},
        // 5.2: each length form at its borders.
        Case{"EmptyText", kBackend, "\x81\x00"s, {"2 text 0"}},
        Case{"EmptyMaskedText", kClient, Masked(0x81, ""), {"6 text 0"}},
        Case{"Length125", kClient, Masked(0x82, std::string(125, 'x')), {"131 binary 125"}},
        Case{"Length126", kClient, Masked(0x82, std::string(126, 'x')), {"134 binary 126"}},
        // 5.4: an empty fragment at every place; control frames between fragments.
        Case{"EmptyFragments",
             kClient,
             Masked(0x01, "") + Masked(0x00, "") + Masked(0x00, "ab") + Masked(0x80, ""),
             {"6 frame", "12 frame", "20 frame", "26 text 2"}},
        Case{"ControlBetweenFragments",
             kClient,
             Masked(0x02, "ab") + Masked(0x89, "ping") + Masked(0x00, "c") + Masked(0x8a, "") +
                 Masked(0x80, "d") + Masked(0x81, "next"),
             {"8 frame", "18 ping 4", "25 frame", "31 pong 0", "38 binary 4", "48 text 4"}},
        Case{"CloseBetweenFragments",
             kBackend,
             Bare(0x01, "a") + Bare(0x88, "\x03\xe9"),
             {"3 frame", "7 close 2 1001"}},
        // 5.5: 125 bytes is the most a control frame carries.
        Case{"LongestPing", kClient, Masked(0x89, std::string(125, 'x')), {"131 ping 125"}},
        // 5.5.1, 7.1.5: the code of a CLOSE, none, any; what comes after it is read as before.
        Case{"CloseWithoutCode", kClient, Masked(0x88, ""), {"6 close 0 1005"}},
        Case{"CloseWithCode", kClient, Masked(0x88, "\x03\xe8"), {"8 close 2 1000"}},
        Case{"CloseWithReason", kClient, Masked(0x88, "\x0f\xa0gone"), {"12 close 6 4000"}},
        Case{"CloseFromBackend", kBackend, Bare(0x88, "\x03\xf4restart"), {"11 close 9 1012"}},
        Case{"CloseCodeIsNotJudged", kBackend, Bare(0x88, "\x00\x00"s), {"4 close 2 0"}},
        Case{"FramesAfterClose",
             kClient,
             Masked(0x88, "\x03\xe8") + Masked(0x81, "a") + Masked(0x88, ""),
             {"8 close 2 1000", "15 text 1", "21 close 0 1005"}},
        // RFC 7692 section 6: RSV1 on the first frame of a message, and of this one only.
        Case{"Deflated",
             kClientDeflate,
             Masked(0xc1, "a") + Masked(0x41, "b") + Masked(0x80, "c") + Masked(0x81, "d"),
             {"7 text 1", "14 frame", "21 text 2", "28 text 1"}},
        // Payload is not looked at.
        Case{"TextThatIsNotUtf8", kBackend, Bare(0x81, "\xff\xfe"), {"4 text 2"}},
        // Limits of a route, exactly reached.
        Case{"MessageOfTheMaximum",
             {.from = Side::kBackend, .max_message_bytes = 4},
             Bare(0x81, "abcd") + Bare(0x01, "abc") + Bare(0x89, "longer") + Bare(0x80, "d"),
             {"6 text 4", "11 frame", "19 ping 6", "22 text 4"}},
        Case{"FramesOfTheMaximum",
             {.from = Side::kBackend, .max_frames_per_message = 2},
             Bare(0x01, "a") + Bare(0x89, "") + Bare(0x80, "b") + Bare(0x01, "c") + Bare(0x80, ""),
             {"3 frame", "5 ping 0", "8 text 2", "11 frame", "13 text 1"}}),
    CaseName);

INSTANTIATE_TEST_SUITE_P(
    Refused, Streams,
    testing::Values(
        // RFC 6455 section 5.1: masking.
        Case{"UnmaskedClientFrame",
             kClient,
             Masked(0x81, "a") + Bare(0x81, "b"),
             {"7 text 1", "bad unmasked_client_frame 1002"}},
        Case{"UnmaskedEmptyClientFrame",
             kClient,
             Bare(0x89, ""),
             {"bad unmasked_client_frame 1002"}},
        Case{"MaskedBackendFrame",
             kBackend,
             Bare(0x81, "a") + Masked(0x81, "b"),
             {"3 text 1", "bad masked_backend_frame 1002"}},
        // 5.2: RSV bits without a meaning.
        Case{"Rsv1NotAgreed", kClient, Masked(0xc1, "a"), {"bad rsv1_not_agreed 1002"}},
        Case{"Rsv2", kClientDeflate, Masked(0xa1, "a"), {"bad rsv2_or_rsv3 1002"}},
        Case{"Rsv3", kClientDeflate, Masked(0x91, "a"), {"bad rsv2_or_rsv3 1002"}},
        // RFC 7692 sections 6 and 6.1.
        Case{"Rsv1OnControl", kClientDeflate, Masked(0xc9, "a"), {"bad rsv1_on_control 1002"}},
        Case{"Rsv1OnContinuation",
             kClientDeflate,
             Masked(0x41, "a") + Masked(0xc0, "b"),
             {"7 frame", "bad rsv1_on_continuation 1002"}},
        // 5.2: lengths that are not minimal, or negative.
        Case{"SixteenBitsFor125",
             kBackend,
             HeaderBytes(0x81, false, 125, 2),
             {"bad length_not_minimal 1002"}},
        Case{"SixtyFourBitsFor125",
             kBackend,
             HeaderBytes(0x81, false, 125, 8),
             {"bad length_not_minimal 1002"}},
        Case{"SixtyFourBitsFor65535",
             kClient,
             HeaderBytes(0x81, true, 65535, 8),
             {"bad length_not_minimal 1002"}},
        Case{"LengthOf2To63",
             kClient,
             HeaderBytes(0x82, true, std::uint64_t{1} << 63),
             {"bad length_top_bit 1002"}},
        Case{"LengthOfAllOnes",
             kBackend,
             HeaderBytes(0x82, false, ~std::uint64_t{0}),
             {"bad length_top_bit 1002"}},
        // 5.4: fragments.
        Case{"ContinuationFirst",
             kBackend,
             Bare(0x80, "a"),
             {"bad continuation_without_start 1002"}},
        Case{"ContinuationAfterTheEnd",
             kBackend,
             Bare(0x01, "a") + Bare(0x80, "b") + Bare(0x00, "c"),
             {"3 frame", "6 text 2", "bad continuation_without_start 1002"}},
        Case{"TextInsideMessage",
             kBackend,
             Bare(0x01, "a") + Bare(0x81, "b"),
             {"3 frame", "bad data_inside_message 1002"}},
        Case{"BinaryInsideMessage",
             kBackend,
             Bare(0x01, "a") + Bare(0x8a, "") + Bare(0x02, "b"),
             {"3 frame", "5 pong 0", "bad data_inside_message 1002"}},
        // 5.5: control frames.
        Case{"FragmentedClose", kBackend, Bare(0x08, ""), {"bad fragmented_control 1002"}},
        Case{"FragmentedPing", kBackend, Bare(0x09, "a"), {"bad fragmented_control 1002"}},
        Case{"FragmentedPong", kBackend, Bare(0x0a, "a"), {"bad fragmented_control 1002"}},
        Case{"PingOf126",
             kBackend,
             Bare(0x89, std::string(126, 'x')),
             {"bad control_too_long 1002"}},
        Case{
            "CloseOf65536", kClient, HeaderBytes(0x88, true, 65536), {"bad control_too_long 1002"}},
        // 5.5.1.
        Case{"CloseOfOneByte", kClient, Masked(0x88, "\x03"), {"bad close_length_one 1002"}},
        // Limits of a route: decided by the declared length.
        Case{"MessageTooBigInOneFrame",
             {.from = Side::kClient, .max_message_bytes = 4},
             Masked(0x81, "abcde"),
             {"bad message_too_big 1009"}},
        Case{"MessageTooBigInFragments",
             {.from = Side::kClient, .max_message_bytes = 4},
             Masked(0x01, "abc") + Masked(0x80, "de"),
             {"9 frame", "bad message_too_big 1009"}},
        Case{"MessageTooBigByTheLongestLength",
             {.from = Side::kClient, .max_message_bytes = 16 << 20},
             HeaderBytes(0x82, true, (std::uint64_t{1} << 63) - 1),
             {"bad message_too_big 1009"}},
        Case{"MessageTooBigBy2To32",
             {.from = Side::kBackend, .max_message_bytes = 16 << 20},
             HeaderBytes(0x82, false, std::uint64_t{1} << 32),
             {"bad message_too_big 1009"}},
        // The sum of both lengths wraps to 2, which is below the limit.
        Case{"MessageTooBigWhereTheSumWouldWrap",
             {.from = Side::kBackend, .max_message_bytes = 16 << 20},
             Bare(0x01, "abc") + HeaderBytes(0x80, false, (std::uint64_t{1} << 63) - 1),
             {"5 frame", "bad message_too_big 1009"}},
        Case{"FrameTooBigByItsShortLength",
             {.from = Side::kClient, .max_frame_bytes = 4},
             Masked(0x81, "abcd") + Masked(0x81, "abcde"),
             {"10 text 4", "bad frame_too_big 1009"}},
        Case{"FrameTooBigInAMessageThatIsNot",
             {.from = Side::kBackend, .max_message_bytes = 1000, .max_frame_bytes = 200},
             Bare(0x01, std::string(200, 'a')) + HeaderBytes(0x80, false, 201),
             {"204 frame", "bad frame_too_big 1009"}},
        Case{"FrameTooBigBy2To32",
             {.from = Side::kBackend, .max_frame_bytes = 5},
             HeaderBytes(0x82, false, (std::uint64_t{1} << 32) + 1),
             {"bad frame_too_big 1009"}},
        Case{"AControlFrameIsNoFrameThatCouldBeTooBig",
             {.from = Side::kBackend, .max_frame_bytes = 1},
             Bare(0x89, "abcde"),
             {"7 ping 5"}},
        Case{"TooManyFrames",
             {.from = Side::kBackend, .max_frames_per_message = 2},
             Bare(0x01, "") + Bare(0x00, "") + Bare(0x89, "") + Bare(0x80, ""),
             {"2 frame", "4 frame", "6 ping 0", "bad too_many_frames 1008"}},
        Case{"TooManyFramesOfOne",
             {.from = Side::kBackend, .max_frames_per_message = 1},
             Bare(0x81, "a") + Bare(0x01, "b") + Bare(0x80, ""),
             {"3 text 1", "6 frame", "bad too_many_frames 1008"}}),
    CaseName);

TEST(FrameTracker, RefusesEveryReservedOpcode) {
  // Section 5.2.
  for (const unsigned opcode : {0x3U, 0x4U, 0x5U, 0x6U, 0x7U, 0xBU, 0xCU, 0xDU, 0xEU, 0xFU}) {
    FrameTracker tracker(kBackend);
    EXPECT_EQ(Story(tracker, {Bare(0x80U | opcode, "x")}),
              std::vector<std::string>{"bad reserved_opcode 1002"})
        << opcode;
    EXPECT_EQ(Name(static_cast<Opcode>(opcode)), "reserved");
  }
}

TEST(FrameTracker, CapturesTheCloseCodeUnderEveryMaskByte) {
  // Section 5.3: the first two bytes of the payload meet the first two of the mask.
  for (unsigned key = 0; key < 256; ++key) {
    std::string stream = "\x88\x84"s;
    stream.push_back(static_cast<char>(key));
    stream.push_back(static_cast<char>(255 - key));
    stream += "zz";
    stream.push_back(static_cast<char>(0x0F ^ key));
    stream.push_back(static_cast<char>(0xA1 ^ (255 - key)));
    stream += "..";
    test::ForEachSplit(
        stream, [&](const std::vector<std::string_view>& pieces, const std::string& label) {
          FrameTracker tracker(kClient);
          EXPECT_EQ(Story(tracker, pieces), std::vector<std::string>{"10 close 4 4001"})
              << key << " " << label;
        });
  }
}

TEST(FrameTracker, TellsNoCloseCodeBeforeTheFrameHasEnded) {
  FrameTracker tracker(kBackend);
  const std::string stream = Bare(0x88,
                                  "\x03\xe8"
                                  "bye");
  EXPECT_EQ(tracker.close_code(), 0);
  EXPECT_EQ(tracker.Next(AsBytes(stream.substr(0, 5))).event, Event::kNeedMore);
  EXPECT_EQ(tracker.close_code(), 0);
  EXPECT_EQ(tracker.Next(AsBytes(stream.substr(5))).event, Event::kMessageEnd);
  EXPECT_EQ(tracker.close_code(), 1000);
}

TEST(FrameTracker, RefusesByTheFirstByteThatIsWrong) {
  FrameTracker by_opcode(kClient);
  EXPECT_EQ(by_opcode.Next(AsBytes("\x83")).event, Event::kBad);
  EXPECT_TRUE(by_opcode.at_frame_boundary()) << "nothing of the frame was consumed";

  FrameTracker by_mask(kClient);
  EXPECT_EQ(by_mask.Next(AsBytes("\x81")).event, Event::kNeedMore);
  EXPECT_EQ(by_mask.Next(AsBytes("\x01")).event, Event::kBad);
  EXPECT_FALSE(by_mask.at_frame_boundary()) << "its first byte was consumed before";

  // 1009 needs neither the mask nor any payload.
  FrameTracker by_size({.from = Side::kClient, .max_message_bytes = 125});
  const FrameTracker::Step step = by_size.Next(AsBytes("\x81\xfe\x00\x7e"s));
  EXPECT_EQ(step.event, Event::kBad);
  EXPECT_EQ(step.consumed, 0U);
  EXPECT_EQ(by_size.fault().close_code, 1009);
}

TEST(FrameTracker, IsBadForeverOnceBad) {
  FrameTracker tracker(kBackend);
  EXPECT_EQ(tracker.Next(AsBytes("\x83")).event, Event::kBad);
  const std::string good = Bare(0x81, "a");
  for (int i = 0; i < 2; ++i) {
    const FrameTracker::Step step = tracker.Next(AsBytes(good));
    EXPECT_EQ(step.event, Event::kBad);
    EXPECT_EQ(step.consumed, 0U);
    EXPECT_EQ(tracker.fault().reason, "reserved_opcode");
  }
}

TEST(FrameTracker, AnEmptyInputChangesNothing) {
  FrameTracker tracker(kBackend);
  const std::string stream = Bare(0x01, "ab") + Bare(0x80, "");
  for (std::size_t i = 0; i < stream.size(); ++i) {
    const FrameTracker::Step before = tracker.Next({});
    EXPECT_EQ(before.event, Event::kNeedMore);
    EXPECT_EQ(before.consumed, 0U);
    const FrameTracker::Step step = tracker.Next(AsBytes(stream.substr(i, 1)));
    EXPECT_EQ(step.consumed, 1U);
    EXPECT_EQ(step.event, i == 3   ? Event::kFrameEnd
                          : i == 5 ? Event::kMessageEnd
                                   : Event::kNeedMore)
        << i;
  }
}

TEST(FrameTracker, SkipsPayloadThatIsNotRead) {
  FrameTracker tracker(kClient);
  const std::uint64_t size = std::uint64_t{1} << 40;
  EXPECT_EQ(tracker.Next(AsBytes(HeaderBytes(0x82, true, size))).event, Event::kNeedMore);
  EXPECT_EQ(tracker.payload_left(), size);
  tracker.Skip(size - 3);
  EXPECT_EQ(tracker.payload_left(), 3U);
  EXPECT_FALSE(tracker.at_frame_boundary());
  const FrameTracker::Step step = tracker.Next(AsBytes("abcde"));
  EXPECT_EQ(step.event, Event::kMessageEnd);
  EXPECT_EQ(step.consumed, 3U);
  EXPECT_EQ(tracker.message_bytes(), size);
  EXPECT_TRUE(tracker.at_message_boundary());
}

TEST(FrameTracker, CannotBeMadeToWrapWithoutALimit) {
  // Three fragments of 2^63 - 1 bytes are more than 64 bits can count.
  FrameTracker tracker(kBackend);
  const std::uint64_t huge = (std::uint64_t{1} << 63) - 1;
  for (const unsigned first : {0x02U, 0x00U}) {
    EXPECT_EQ(tracker.Next(AsBytes(HeaderBytes(first, false, huge))).event, Event::kNeedMore);
    tracker.Skip(huge - 1);
    EXPECT_EQ(tracker.Next(AsBytes("x")).event, Event::kFrameEnd);
  }
  EXPECT_EQ(tracker.Next(AsBytes(HeaderBytes(0x80, false, huge))).event, Event::kBad);
  EXPECT_EQ(tracker.fault().reason, "message_too_big");
}

TEST(FrameTracker, NamesEachFaultOnce) {
  const auto reasons = FaultReasons();
  const std::set<std::string_view> different(reasons.begin(), reasons.end());
  EXPECT_EQ(reasons.size(), 17U);
  EXPECT_EQ(different.size(), reasons.size());
  EXPECT_FALSE(different.contains(""));
  EXPECT_TRUE(different.contains("unmasked_client_frame"));
  EXPECT_EQ(FrameTracker(kClient).fault().close_code, 0);
  EXPECT_EQ(FrameTracker(kClient).fault().reason, "");
}

// A stream of frames as a careless peer might send them: mostly right, each header bit wrong now
// and then, lengths around the borders of their forms, cut off at the end.
std::string RandomStream(std::mt19937_64& random, const FrameRules& rules) {
  const auto below = [&random](std::uint64_t n) { return random() % n; };
  const bool careful = below(2) == 0;
  const auto slip = [&] { return !careful && below(40) == 0; };
  std::string stream;
  bool open = false;
  for (std::uint64_t frame = 0, frames = 1 + below(12); frame < frames; ++frame) {
    const bool control = below(4) == 0;
    const bool fin = control ? !slip() : below(2) == 0;
    const bool continues = slip() ? !open : open;
    unsigned first = control ? 0x8U + static_cast<unsigned>(below(3))
                             : (continues ? 0U : 1U + static_cast<unsigned>(below(2)));
    first |= fin ? 0x80U : 0U;
    if (slip() || (rules.rsv1_agreed && !control && !continues && below(2) == 0)) {
      first |= 0x40U;
    }
    if (slip()) {
      first ^= 1U << below(8);
    }
    static constexpr std::uint64_t kLengths[] = {0,   1,   2,   3,   60,    124,
                                                 125, 126, 127, 300, 65535, 65536};
    std::uint64_t length = kLengths[below(below(100) == 0 ? 12 : control ? 7 : 10)];
    if (control && length == 1 && (first & 0xFU) == 0x8U && !slip()) {
      length = 2;
    }
    const bool masked = (rules.from == Side::kClient) != slip();
    std::string header = HeaderBytes(first, masked, length, slip() && length < 65536 ? 8 : -1);
    if (masked) {
      for (std::size_t i = header.size() - 4; i < header.size(); ++i) {
        header[i] = static_cast<char>(below(256));
      }
    }
    stream += header;
    for (std::uint64_t i = 0; i < length; ++i) {
      stream.push_back(static_cast<char>(random()));
    }
    if (!control) {
      open = !fin;
    }
  }
  stream.resize(stream.size() - below(std::min<std::uint64_t>(stream.size(), 20)));
  return stream;
}

std::vector<std::string_view> RandomPieces(std::mt19937_64& random, std::string_view stream) {
  const std::uint64_t most = std::uint64_t{1} << (random() % 18);
  std::vector<std::string_view> pieces;
  while (!stream.empty()) {
    const std::size_t size = std::min<std::size_t>(stream.size(), random() % (most + 1));
    pieces.push_back(stream.substr(0, size));
    stream.remove_prefix(size);
  }
  return pieces;
}

TEST(FrameTracker, AgreesWithTheReferenceOnRandomStreams) {
  std::mt19937_64 random(6455);
  std::set<std::string> faults;
  std::size_t frames = 0;
  for (int i = 0; i < 2000; ++i) {
    const FrameRules rules{.from = random() % 2 == 0 ? Side::kClient : Side::kBackend,
                           .rsv1_agreed = random() % 2 == 0,
                           .max_message_bytes = random() % 4 == 0 ? 1000U : 0U,
                           .max_frames_per_message = random() % 4 == 0 ? 3U : 0U,
                           .max_frame_bytes = random() % 8 == 0 ? 300U : 0U};
    const std::string stream = RandomStream(random, rules);
    const FrameReference reference(rules, stream);
    faults.insert(reference.fault);
    frames += reference.ends.size();
    ASSERT_EQ(Disagreement(rules, {stream}), "") << "stream " << i;
    for (const Payload payload : {Payload::kRead, Payload::kSkipped}) {
      ASSERT_EQ(Disagreement(rules, RandomPieces(random, stream), payload), "") << "stream " << i;
    }
  }
  // The streams are worth something only if they go far and go wrong in every way. The top bit is
  // the exception: no stream that long is made here.
  EXPECT_GT(frames, 4000U);
  for (const std::string_view reason : FaultReasons()) {
    EXPECT_TRUE(faults.contains(std::string(reason)) || reason == "length_top_bit") << reason;
  }
}

}  // namespace
}  // namespace sluice::ws
