// What a Refragmenter may make of a stream: a second reading of input and output that keeps both as
// a whole, for the unit tests and the fuzzer. Only the rules of the output are FrameTracker's to
// say.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/bytes.h"
#include "proxy/ws/frame_tracker.h"
#include "proxy/ws/refragmenter.h"

namespace sluice::ws {

// The frames of an unmasked stream. The views are into the stream.
struct FrameList {
  struct Frame {
    unsigned first = 0;
    std::string_view payload;
    std::string_view bytes;  // header and payload
  };

  std::vector<Frame> whole;
  std::string_view rest;      // of a frame that is not complete
  bool rest_is_open = false;  // its header is complete: these two are known
  std::uint64_t rest_payload = 0;
  std::size_t rest_header = 0;

  explicit FrameList(std::string_view stream) : rest(stream) {
    while (TakeFrame()) {
    }
  }

 private:
  bool TakeFrame() {
    rest_is_open = false;
    if (rest.size() < 2) {
      return false;
    }
    const auto byte = [this](std::size_t at) {
      return std::uint64_t{static_cast<unsigned char>(rest[at])};
    };
    rest_header = byte(1) < 126 ? 2 : byte(1) == 126 ? 4 : 10;
    if (rest.size() < rest_header) {
      return false;
    }
    rest_payload = byte(1);
    if (rest_header > 2) {
      rest_payload = 0;
      for (std::size_t at = 2; at < rest_header; ++at) {
        rest_payload = rest_payload * 256 + byte(at);
      }
    }
    rest_is_open = true;
    if (rest.size() - rest_header < rest_payload) {
      return false;
    }
    const std::string_view bytes = rest.substr(0, rest_header + rest_payload);
    whole.push_back({static_cast<unsigned char>(rest[0]), bytes.substr(rest_header), bytes});
    rest.remove_prefix(bytes.size());
    return true;
  }
};

// Holds the frames that came out against those that went in. Empty: all is as it should be.
inline std::string FrameDifference(std::uint64_t limit, std::string_view fed,
                                   std::string_view sent) {
  const FrameList in(fed);
  const FrameList out(sent);
  const std::uint64_t least = std::min<std::uint64_t>(limit, 4096);
  const auto is_cut = [limit](unsigned first, std::uint64_t payload) {
    return (first & 0x08U) == 0 && payload > limit;
  };
  std::size_t next = 0;  // of out.whole
  std::string why;
  // Takes the fragments of one frame, of which `payload` is there so far.
  const auto take_cut = [&](unsigned first, std::string_view payload, bool is_whole) {
    unsigned want = first & 0x7FU;  // opcode and RSV bits
    std::size_t got = 0;
    while (got < payload.size() && next < out.whole.size()) {
      const FrameList::Frame& fragment = out.whole[next++];
      const std::size_t size = fragment.payload.size();
      const bool is_last = is_whole && got + size == payload.size();
      if (fragment.payload != payload.substr(got, size)) {
        why = "another payload";
      } else if (size > limit || size == 0 || (size < least && !is_last)) {
        why = "a fragment of " + std::to_string(size) + " bytes";
      } else if ((fragment.first & 0x7FU) != want) {
        why = "opcode or RSV bits of a fragment";
      } else if ((fragment.first >= 0x80) != (is_last && first >= 0x80)) {
        why = "FIN of a fragment";
      }
      if (!why.empty()) {
        return;
      }
      got += size;
      want = 0;
    }
    if (is_whole && got < payload.size()) {
      why = "the end of a frame is missing";
    } else if (payload.size() - got >= least) {
      why = std::to_string(payload.size() - got) + " bytes kept inside";
    }
  };
  for (const FrameList::Frame& frame : in.whole) {
    if (is_cut(frame.first, frame.payload.size())) {
      take_cut(frame.first, frame.payload, true);
    } else if (next == out.whole.size() || out.whole[next].bytes != frame.bytes) {
      why = "a small frame changed";
    } else {
      ++next;
    }
    if (!why.empty()) {
      return why;
    }
  }
  std::string_view rest;
  if (in.rest_is_open) {
    const auto first = static_cast<unsigned char>(in.rest[0]);
    if (is_cut(first, in.rest_payload)) {
      take_cut(first, in.rest.substr(in.rest_header), false);
    } else {
      rest = in.rest;
    }
  }
  if (why.empty() && next != out.whole.size()) {
    why = "more frames than there should be";
  }
  if (why.empty() && out.rest != rest) {
    why = "the start of a frame differs";
  }
  return why;
}

// Feeds `pieces`, which the rules for a backend with RSV1 agreed must allow, and holds what comes
// out, and what the refragmenter says of it, against the rules after each. Empty: all is well.
inline std::string RefragmentDifference(std::uint64_t limit,
                                        const std::vector<std::string_view>& pieces) {
  Refragmenter refragmenter(limit);
  FrameTracker tracker({.from = Side::kBackend, .rsv1_agreed = true});
  const std::uint64_t least = std::min<std::uint64_t>(limit, 4096);
  std::string scratch;
  std::string fed;   // what is not compared yet of both: from the last moment when both stood
  std::string sent;  // between messages
  std::size_t position = 0;
  const auto differs = [&](const auto&... parts) {
    std::ostringstream text;
    text << "limit " << limit << ", after " << position << " bytes: ";
    (text << ... << parts);
    return text.str();
  };
  for (const std::string_view piece : pieces) {
    position += piece.size();
    fed += piece;
    Bytes got = refragmenter.Feed(AsBytes(piece), scratch);
    sent += AsText(got);
    for (;;) {
      const FrameTracker::Step step = tracker.Next(got);
      if (step.event == FrameTracker::Event::kBad) {
        return differs("the output is refused: ", tracker.fault().reason);
      }
      if (step.event == FrameTracker::Event::kNeedMore) {
        break;
      }
      got = got.subspan(step.consumed);
    }
    const FrameList in(fed);
    const bool in_cut = in.rest_is_open && (static_cast<unsigned>(in.rest[0]) & 0x08U) == 0 &&
                        in.rest_payload > limit;
    if (in_cut && !tracker.at_frame_boundary()) {
      return differs("inside a fragment");
    }
    if (refragmenter.in_cut_frame() != in_cut) {
      return differs("in_cut_frame() is ", !in_cut);
    }
    if (refragmenter.at_frame_boundary() != tracker.at_frame_boundary()) {
      return differs("at_frame_boundary() is ", refragmenter.at_frame_boundary());
    }
    if (refragmenter.at_message_boundary() != tracker.at_message_boundary()) {
      return differs("at_message_boundary() is ", refragmenter.at_message_boundary());
    }
    const std::size_t header_bytes = in.rest_is_open ? 0 : in.rest.size();
    if (in_cut ? refragmenter.held() >= least : refragmenter.held() != header_bytes) {
      return differs("holds ", refragmenter.held(), " bytes");
    }
    const bool both_between =
        in.rest.empty() && tracker.at_message_boundary() && refragmenter.held() == 0;
    if (both_between || &piece == &pieces.back()) {
      const std::string why = FrameDifference(limit, fed, sent);
      if (!why.empty()) {
        return differs(why);
      }
      fed.clear();
      sent.clear();
    }
  }
  return "";
}

}  // namespace sluice::ws
