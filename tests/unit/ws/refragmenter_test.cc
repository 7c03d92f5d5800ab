// Proves that Refragmenter changes large frames into fragments and nothing else (RFC 6455 section
// 5.4), whatever the reads look like, and that its output leaves a place for a CLOSE at every
// moment inside a frame that it cuts.
#include "proxy/ws/refragmenter.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/ws/frame_writer.h"

#include "tests/support/split.h"
#include "tests/unit/ws/refragmenter_reference.h"

namespace sluice::ws {
namespace {

using namespace std::string_literals;

static_assert(sizeof(Refragmenter) <= 56, "one for each session of a route that has a limit");

std::string Frame(unsigned first, std::string_view payload) {
  std::string out(1, static_cast<char>(first));
  if (payload.size() < 126) {
    out += static_cast<char>(payload.size());
  } else {
    const int bytes = payload.size() < 65536 ? 2 : 8;
    out += static_cast<char>(bytes == 2 ? 126 : 127);
    for (int i = bytes - 1; i >= 0; --i) {
      out += static_cast<char>(payload.size() >> (8 * i) & 0xFFU);
    }
  }
  return out += payload;
}

// Bytes that differ from their neighbours, so that a shift shows.
std::string Payload(std::size_t size) {
  std::string out;
  for (std::size_t i = 0; i < size; ++i) {
    out += static_cast<char>(i * 7 + i / 251);
  }
  return out;
}

std::string All(Refragmenter& refragmenter, std::string_view input) {
  std::string out;
  return std::string(AsText(refragmenter.Feed(AsBytes(input), out)));
}

void ExpectGoodAtEverySplit(std::uint64_t limit, std::string_view stream) {
  test::ForEachSplit(stream,
                     [&](const std::vector<std::string_view>& pieces, const std::string& label) {
                       EXPECT_EQ(RefragmentDifference(limit, pieces), "") << label;
                     });
}

TEST(Refragmenter, CutsALargeFrame) {
  Refragmenter refragmenter(3);
  EXPECT_EQ(All(refragmenter,
                "\x81\x08"
                "abcdefgh"),
            "\x01\x03"
            "abc"
            "\x00\x03"
            "def"
            "\x80\x02"
            "gh"s);
  EXPECT_TRUE(refragmenter.at_message_boundary());
  EXPECT_EQ(All(refragmenter,
                "\x82\x04"
                "abcd"),
            "\x02\x03"
            "abc"
            "\x80\x01"
            "d"s);
}

TEST(Refragmenter, KeepsRsv1OnTheFirstFragmentOnly) {
  // RFC 7692 section 6.1.
  Refragmenter refragmenter(2);
  EXPECT_EQ(All(refragmenter,
                "\xC2\x05"
                "abcde"),
            "\x42\x02"
            "ab"
            "\x00\x02"
            "cd"
            "\x80\x01"
            "e"s);
}

TEST(Refragmenter, EndsAMessageOnlyWhereItsSenderDoes) {
  Refragmenter refragmenter(2);
  EXPECT_EQ(All(refragmenter,
                "\x01\x03"
                "abc"),
            "\x01\x02"
            "ab"
            "\x00\x01"
            "c"s);
  EXPECT_TRUE(refragmenter.at_frame_boundary());
  EXPECT_FALSE(refragmenter.at_message_boundary());
  EXPECT_EQ(All(refragmenter,
                "\x00\x03"
                "def"s),
            "\x00\x02"
            "de"
            "\x00\x01"
            "f"s);
  EXPECT_EQ(All(refragmenter,
                "\x89\x03"
                "png"),
            "\x89\x03"
            "png")
      << "above the limit, a PING";
  EXPECT_FALSE(refragmenter.at_message_boundary());
  EXPECT_EQ(All(refragmenter,
                "\x80\x03"
                "ghi"),
            "\x00\x02"
            "gh"
            "\x80\x01"
            "i"s);
  EXPECT_TRUE(refragmenter.at_message_boundary());
}

TEST(Refragmenter, PassesSmallFramesWithoutACopy) {
  Refragmenter refragmenter(5);
  std::string out;
  for (const std::string& input : {Frame(0x81, ""), Frame(0x81, "12345"), Frame(0x88, "\x03\xE8"),
                                   Frame(0x89, Payload(125))}) {
    const Bytes sent = refragmenter.Feed(AsBytes(input), out);
    EXPECT_EQ(sent.data(), AsBytes(input).data());
    EXPECT_EQ(sent.size(), input.size());
  }

  // Several, and the start of another one: all but its header.
  const std::string several =
      Frame(0x01, "123") + Frame(0x89, Payload(9)) + Frame(0x80, "45") + "\x82\x7E\x01";
  const Bytes sent = refragmenter.Feed(AsBytes(several), out);
  EXPECT_EQ(sent.data(), AsBytes(several).data());
  EXPECT_EQ(sent.size(), several.size() - 3);
  EXPECT_EQ(refragmenter.held(), 3U);
  EXPECT_EQ(out.capacity(), std::string().capacity()) << "nothing was written to it";
}

TEST(Refragmenter, PassesPiecesOfASmallFrameAsTheyCome) {
  Refragmenter refragmenter(1024);
  const std::string frame = Frame(0x82, Payload(1024));
  std::string out;
  std::string sent;
  for (std::size_t at = 0; at < frame.size(); at += 100) {
    const std::string piece = frame.substr(at, 100);
    const Bytes got = refragmenter.Feed(AsBytes(piece), out);
    EXPECT_EQ(got.data(), AsBytes(piece).data());
    EXPECT_FALSE(refragmenter.in_cut_frame());
    sent += AsText(got);
    EXPECT_EQ(refragmenter.at_frame_boundary(), sent.size() == frame.size());
  }
  EXPECT_EQ(sent, frame);
}

TEST(Refragmenter, CutsFromOneByteAboveTheLimitOn) {
  for (const std::size_t limit : {1U, 125U, 126U, 1024U, 65535U, 65536U}) {
    Refragmenter refragmenter(limit);
    for (const std::size_t size : {std::size_t{0}, limit - 1, limit}) {
      const std::string frame = Frame(0x82, Payload(size));
      EXPECT_EQ(All(refragmenter, frame), frame) << limit;
    }
    const std::string payload = Payload(limit + 1);
    EXPECT_EQ(All(refragmenter, Frame(0x82, payload)),
              Frame(0x02, payload.substr(0, limit)) + Frame(0x80, payload.substr(limit)))
        << limit;
  }
}

TEST(Refragmenter, KeepsWhatIsTooLittleForAFragment) {
  constexpr std::size_t kSize = 20'000;
  Refragmenter refragmenter(16 * 1024);
  const std::string payload = Payload(kSize);
  const std::string frame = Frame(0x82, payload);
  std::string out;
  std::string sent;
  for (std::size_t i = 0; i < frame.size(); ++i) {
    const Bytes got = refragmenter.Feed(AsBytes(frame).subspan(i, 1), out);
    sent += AsText(got);
    EXPECT_LT(refragmenter.held(), Refragmenter::kLeast);
  }
  EXPECT_EQ(refragmenter.held(), 0U);
  std::string want;
  for (std::size_t at = 0; at < kSize; at += 4096) {
    const unsigned first = (at == 0 ? 0x02U : 0x00U) | (at + 4096 >= kSize ? 0x80U : 0x00U);
    want += Frame(first, payload.substr(at, 4096));
  }
  EXPECT_EQ(sent, want);
}

TEST(Refragmenter, StandsBetweenMessagesWhileNothingOfOneWasSent) {
  Refragmenter refragmenter(8192);
  EXPECT_EQ(All(refragmenter, Frame(0x82, Payload(10'000)).substr(0, 4000)), "");
  EXPECT_TRUE(refragmenter.in_cut_frame());
  EXPECT_TRUE(refragmenter.at_message_boundary());
  EXPECT_EQ(refragmenter.held(), 4000U - 4U);
  EXPECT_NE(All(refragmenter, Payload(1000)), "");
  EXPECT_TRUE(refragmenter.at_frame_boundary());
  EXPECT_FALSE(refragmenter.at_message_boundary());
}

TEST(Refragmenter, LeavesAPlaceForACloseAtEveryByteOfALargeFrame) {
  const std::string stream = Frame(0x01, Payload(5)) + Frame(0x80, Payload(300));
  for (std::size_t end = 8; end < stream.size(); ++end) {
    Refragmenter refragmenter(64);
    std::string sent = All(refragmenter, std::string_view(stream).substr(0, end));
    if (end > 10) {  // 7 bytes of the first frame, 4 of a header
      ASSERT_TRUE(refragmenter.in_cut_frame()) << end;
    }
    sent += AsText(MakeClose(1012, "service restart", std::nullopt).bytes());
    FrameTracker tracker({.from = Side::kBackend});
    Bytes rest = AsBytes(sent);
    while (tracker.close_code() == 0) {
      const FrameTracker::Step step = tracker.Next(rest);
      ASSERT_NE(step.event, FrameTracker::Event::kBad) << end;
      ASSERT_NE(step.event, FrameTracker::Event::kNeedMore) << end;
      rest = rest.subspan(step.consumed);
    }
    EXPECT_EQ(tracker.close_code(), 1012);
    EXPECT_TRUE(rest.empty());
  }
}

TEST(RefragmenterStreams, AreTheSameInAnyPieces) {
  const std::vector<std::string> streams = {
      Frame(0x81, "Hello") + Frame(0x82, ""),
      Frame(0xC1, "compressed") + Frame(0x81, "not so"),
      Frame(0x01, "abcdefghij") + Frame(0x89, "ping me") + Frame(0x00, "") +
          Frame(0x00, "klmnopqrstu") + Frame(0x8A, "") + Frame(0x80, "vwxyz"),
      Frame(0x42, "deflated") + Frame(0x00, "x") + Frame(0x80, "in fragments"),
      Frame(0x82, Payload(130)) + Frame(0x89, Payload(125)) + Frame(0x82, Payload(300)),
      Frame(0x01, "begun") + Frame(0x80, "ended") +
          Frame(0x88,
                "\x03\xE8"
                "bye"),
      Frame(0x82, Payload(50)).substr(0, 30),  // the backend is lost inside a frame
  };
  for (const std::string& stream : streams) {
    for (const std::uint64_t limit : {1U, 2U, 3U, 5U, 7U, 8U, 64U, 125U, 126U, 127U, 129U, 1024U}) {
      ExpectGoodAtEverySplit(limit, stream);
    }
  }
}

TEST(RefragmenterStreams, MayHaveLengthsOf64Bits) {
  const std::string stream =
      Frame(0x81, "a") + Frame(0x02, Payload(70'000)) + Frame(0x80, Payload(140'000));
  for (const std::uint64_t limit :
       {1024U, 16'384U, 65'535U, 65'536U, 69'999U, 70'000U, 1U << 30U}) {
    EXPECT_EQ(RefragmentDifference(limit, {stream}), "");
    // Cuts around both headers.
    for (const std::size_t header : {std::size_t{3}, std::size_t{3 + 10 + 70'000}}) {
      for (std::size_t cut = header; cut <= header + 11; ++cut) {
        const std::string_view view = stream;
        EXPECT_EQ(RefragmentDifference(limit, {view.substr(0, cut), view.substr(cut)}), "") << cut;
        EXPECT_EQ(RefragmentDifference(
                      limit, {view.substr(0, cut), view.substr(cut, 1), view.substr(cut + 1)}),
                  "")
            << cut;
      }
    }
    // As the scratch buffer of a worker brings it.
    std::vector<std::string_view> reads;
    for (std::size_t at = 0; at < stream.size(); at += 16'384) {
      reads.push_back(std::string_view(stream).substr(at, 16'384));
    }
    EXPECT_EQ(RefragmentDifference(limit, reads), "");
  }
}

TEST(RefragmenterStreams, MayBeAnything) {
  std::mt19937 random(20'260'701);
  const auto below = [&random](std::size_t most) { return random() % most; };
  for (int round = 0; round < 400; ++round) {
    const std::size_t limit = 1 + below(round % 4 == 0 ? 9000 : 40);
    std::string stream;
    bool open = false;
    for (std::size_t frames = 1 + below(12); frames > 0; --frames) {
      if (below(4) == 0) {
        stream += Frame(0x89 + static_cast<unsigned>(below(2)), Payload(below(126)));
        continue;
      }
      const bool fin = below(2) == 0;
      const unsigned rsv1 = !open && below(2) == 0 ? 0x40 : 0;
      const unsigned opcode = open ? 0 : 1 + static_cast<unsigned>(below(2));
      stream += Frame((fin ? 0x80U : 0U) | rsv1 | opcode, Payload(below(3 * limit + 2)));
      open = !fin;
    }
    std::vector<std::string_view> pieces;
    for (std::string_view rest = stream; !rest.empty();) {
      const std::string_view piece = rest.substr(0, 1 + below(below(2) == 0 ? 12 : 2 * limit + 8));
      pieces.push_back(piece);
      rest.remove_prefix(piece.size());
    }
    EXPECT_EQ(RefragmentDifference(limit, {stream}), "") << "round " << round;
    EXPECT_EQ(RefragmentDifference(limit, pieces), "") << "round " << round;
  }
}

}  // namespace
}  // namespace sluice::ws
