#include "proxy/session/http_count.h"

namespace sluice::session {

void HttpCount::Begin(metrics::RouteBlock& block) noexcept {
  as_ = As::kRequest;
  block.http_requests_in_flight.Add(1);
}

void HttpCount::BecomeEventStream(metrics::RouteBlock& block) noexcept {
  as_ = As::kEventStream;
  block.http_requests_in_flight.Add(-1);
  block.event_streams_open.Add(1);
}

void HttpCount::End(metrics::RouteBlock& block, unsigned status, double seconds) noexcept {
  block.http_requests[status / 100].Add();
  if (as_ == As::kEventStream) {
    block.event_streams_open.Add(-1);
    block.event_stream_seconds.Observe(seconds);
  } else {
    block.http_requests_in_flight.Add(as_ == As::kRequest ? -1 : 0);
    block.http_request_seconds.Observe(seconds);
  }
  as_ = As::kNothing;
}

}  // namespace sluice::session
