// Proves that a request counts as one thing at a time, and that the gauges come back to where they
// were.
#include "proxy/session/http_count.h"

#include <gtest/gtest.h>

namespace sluice::session {
namespace {

class HttpCountTest : public testing::Test {
 protected:
  template <class Histogram>
  static std::uint64_t Observed(const Histogram& histogram) {
    std::uint64_t count = 0;
    for (std::size_t i = 0; i <= Histogram::bounds().size(); ++i) {
      count += histogram.bucket(i);
    }
    return count;
  }

  void ExpectGauges(std::int64_t in_flight, std::int64_t streams) const {
    EXPECT_EQ(block.http_requests_in_flight.value(), in_flight);
    EXPECT_EQ(block.event_streams_open.value(), streams);
  }

  metrics::RouteBlock block;
  HttpCount count;
};

TEST_F(HttpCountTest, RequestIsInFlightUntilItEnds) {
  count.Begin(block);
  ExpectGauges(1, 0);
  count.End(block, 204, 0.25);
  ExpectGauges(0, 0);
  EXPECT_EQ(block.http_requests[2].value(), 1U);
  EXPECT_EQ(Observed(block.http_request_seconds), 1U);
  EXPECT_EQ(block.http_request_seconds.sum(), 0.25);
  EXPECT_EQ(Observed(block.event_stream_seconds), 0U);
}

TEST_F(HttpCountTest, EventStreamLeavesTheTimesOfRequestsAlone) {
  count.Begin(block);
  EXPECT_FALSE(count.is_event_stream());
  count.BecomeEventStream(block);
  EXPECT_TRUE(count.is_event_stream());
  ExpectGauges(0, 1);
  count.End(block, 200, 5000);
  EXPECT_FALSE(count.is_event_stream());
  ExpectGauges(0, 0);
  EXPECT_EQ(block.http_requests[2].value(), 1U);
  EXPECT_EQ(Observed(block.http_request_seconds), 0U);
  EXPECT_EQ(Observed(block.event_stream_seconds), 1U);
  EXPECT_EQ(block.event_stream_seconds.sum(), 5000);
  // The next one on the connection is a request again.
  count.Begin(block);
  count.End(block, 0, 1);
  ExpectGauges(0, 0);
  EXPECT_EQ(block.http_requests[0].value(), 1U);
  EXPECT_EQ(Observed(block.http_request_seconds), 1U);
}

TEST_F(HttpCountTest, WhatIsAnsweredAtOnceIsNeverInFlight) {
  count.End(block, 404, 0);
  ExpectGauges(0, 0);
  EXPECT_EQ(block.http_requests[4].value(), 1U);
  EXPECT_EQ(Observed(block.http_request_seconds), 1U);
}

}  // namespace
}  // namespace sluice::session
