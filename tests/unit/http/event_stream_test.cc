// Proves where a text/event-stream may be ended, with every form of line end and whatever the reads
// look like, and how such a stream is told from other content (WHATWG HTML, "Server-sent events").
#include "proxy/http/event_stream.h"

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/split.h"
#include "tests/unit/http/event_reference.h"

namespace sluice::http {
namespace {

// The positions at which `text` may be ended, read in `pieces`.
std::vector<std::size_t> Boundaries(const std::vector<std::string_view>& pieces) {
  EventBoundary boundary;
  std::vector<std::size_t> found;
  std::size_t position = 0;
  for (std::string_view rest : pieces) {
    while (!rest.empty()) {
      const std::size_t step = boundary.AdvanceToBoundary(AsBytes(rest));
      position += step;
      rest.remove_prefix(step);
      if (boundary.at_boundary()) {
        found.push_back(position);
      }
    }
  }
  return found;
}

TEST(EventBoundary, StandsBetweenEventsAtTheStart) {
  EXPECT_TRUE(EventBoundary().at_boundary());
}

TEST(EventBoundary, IsBehindEachEmptyLine) {
  struct Case {
    const char* name;
    std::string_view text;
    std::vector<std::size_t> want;  // read as a whole
  };

  const std::vector<Case> cases = {
      {"LF", "data: a\n\ndata: b\n\n", {9, 18}},
      {"CR", "data: a\r\rdata: b\r\r", {9, 18}},
      {"CRLF", "data: a\r\n\r\ndata: b\r\n\r\n", {11, 22}},
      {"mixed", "data: a\n\r\ndata: b\r\ndata: c\r\n\n", {10, 29}},
      {"LF CR", "data: a\n\rdata: b\n\r", {9, 18}},
      {"CR CR LF is a line end and an empty line", "data: a\r\r\n", {10}},
      {"LF LF CR LF is two empty lines", "data: a\n\n\r\n", {9, 11}},
      {"several fields", "id: 1\nevent: x\ndata: a\ndata: b\n\n", {32}},
      {"not finished", "data: a\n\ndata: b\n", {9}},
      {"in the middle of a line", "data: a\n\ndata", {9}},
      {"an event without data", "id: 7\n\n", {7}},
      {"a line of a space is a field", "data: a\n \n\n", {11}},
      {"empty lines at the start", "\n\r\n", {1, 3}},
      {"a comment on its own", ": ping\n: pong\ndata: a\n\n", {7, 14, 23}},
      {"an unfinished comment", ": ping", {}},
      {"a comment inside an event", "data: a\n: still\ndata: b\n\n", {25}},
      {"a byte order mark",
       "\xEF\xBB\xBF"
       "data: a\n\n",
       {3, 12}},
      {"a mark and an empty line", "\xEF\xBB\xBF\n", {3, 4}},
      {"a second mark is the name of a field", "\xEF\xBB\xBF\xEF\xBB\xBF\n\n", {3, 8}},
      {"half a mark is one too", "\xEF\xBB\n\n", {4}},
      {"a colon behind half a mark opens no comment", "\xEF:\n\n", {4}},
      {"a mark that is not at the start", "\n\xEF\xBB\xBF\n\n", {1, 6}},
      {"NUL is a byte like others", std::string_view("\0\n\n", 3), {3}},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(Boundaries({c.text}), c.want) << c.name;
    test::ForEachSplit(c.text,
                       [&](const std::vector<std::string_view>& pieces, const std::string& label) {
                         EXPECT_EQ(EventDifference(pieces), "") << c.name << ", " << label;
                       });
  }
}

TEST(EventBoundary, TakesALateLineFeedToItsCarriageReturn) {
  EventBoundary boundary;
  EXPECT_EQ(boundary.AdvanceToBoundary(AsBytes("data: a\n\r")), 9U);
  EXPECT_TRUE(boundary.at_boundary()) << "there may be no LF";
  EXPECT_EQ(boundary.AdvanceToBoundary(AsBytes("\ndata: b\n")), 1U);
  EXPECT_TRUE(boundary.at_boundary());
  EXPECT_EQ(boundary.AdvanceToBoundary(AsBytes("data: b\r")), 8U);
  EXPECT_FALSE(boundary.at_boundary());
  EXPECT_EQ(boundary.AdvanceToBoundary(AsBytes("\n")), 1U);
  EXPECT_FALSE(boundary.at_boundary()) << "the LF ends the same line once more";
  EXPECT_EQ(boundary.AdvanceToBoundary(AsBytes("\nrest")), 1U);
  EXPECT_TRUE(boundary.at_boundary());
}

TEST(EventBoundary, FollowsWhatIsNotAskedFor) {
  EventBoundary boundary;
  boundary.Advance(AsBytes("data: a\n\ndata: b\n\ndata: c"));
  EXPECT_FALSE(boundary.at_boundary());
  EXPECT_EQ(boundary.AdvanceToBoundary(AsBytes("c\n\ndata: d\n\n")), 3U);
  EXPECT_TRUE(boundary.at_boundary());
}

TEST(IsEventStream, ComparesTheMediaTypeAlone) {
  for (const std::string_view yes :
       {"text/event-stream", "Text/Event-Stream", "text/event-stream;charset=utf-8",
        "text/event-stream ; charset=\"utf-8\"", "\ttext/event-stream;"}) {
    EXPECT_TRUE(IsEventStream(yes)) << yes;
  }
  for (const std::string_view no : {"", ";", "text/plain", "text/event-streams", "text/event",
                                    "text/plain; x=text/event-stream", "text /event-stream"}) {
    EXPECT_FALSE(IsEventStream(no)) << no;
  }
}

TEST(AcceptsEventStream, FindsItInAnyAcceptField) {
  using Accepts = std::vector<std::string_view>;
  const std::vector<std::pair<Accepts, bool>> cases = {
      {{}, false},
      {{"text/event-stream"}, true},
      {{"TEXT/EVENT-STREAM"}, true},
      {{"*/*"}, false},
      {{"text/*"}, false},
      {{"text/html, text/event-stream"}, true},
      {{"text/html", "application/json,text/event-stream;q=0.5"}, true},
      {{"text/event-stream;q=0.001"}, true},
      {{"text/event-stream;q=1"}, true},
      {{"text/event-stream;q=0"}, false},
      {{"text/event-stream ; Q=0.000"}, false},
      {{"text/event-stream;level=1;q=0."}, false},
      {{"text/event-stream;q="}, true},
      {{"text/event-stream;qq=0"}, true},
      {{"text/event-stream;q=0, text/event-stream;level=1"}, true},
      {{"text/html;q=0, text/event-stream"}, true},
      {{"text/plain;x=text/event-stream"}, false},
  };
  for (const auto& [accepts, want] : cases) {
    RequestHead head;
    std::string shown;
    for (const std::string_view accept : accepts) {
      head.fields.emplace_back("Accept", accept);
      shown += std::string(accept) + " | ";
    }
    head.fields.emplace_back("X-Accept", "text/event-stream");
    EXPECT_EQ(AcceptsEventStream(head), want) << shown;
  }
}

}  // namespace
}  // namespace sluice::http
