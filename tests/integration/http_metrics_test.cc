// Proves that plain HTTP is counted apart from what lasts: a WebSocket session or an event stream
// leaves the times of requests untouched, however long it lives, and each has numbers of its own.
#include <string>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"

namespace sluice::test {
namespace {

class HttpMetricsTest : public testing::Test {
 protected:
  // A request that has reached the backend.
  Stream Ask(RawClient& client, std::string_view request) {
    client.Send(request);
    Stream peer = backend.Accept();
    static_cast<void>(peer.ReadHead());
    return peer;
  }

  double Count(const std::string& name, const std::string& labels = "route=\"main\"") const {
    return proxy.Metric("sluice_" + name + "{" + labels + "}");
  }

  // Much is counted right behind the byte by which a test learns of it.
  void AwaitCount(const std::string& name, double count,
                  const std::string& labels = "route=\"main\"") const {
    proxy.AwaitMetric("sluice_" + name + "{" + labels + "}", count);
  }

  RawBackend backend;
  ProxyProcess proxy{Config{.backends = {backend.port()}, .drain = "window = \"0s\""}};
};

constexpr std::string_view kGet = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
constexpr std::string_view kStream =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

TEST_F(HttpMetricsTest, SeriesExistWithZeroFromTheStart) {
  for (const char* name : {"http_requests_in_flight", "event_streams_open",
                           "event_stream_seconds_count", "http_request_seconds_count"}) {
    EXPECT_EQ(Count(name), 0) << name;
  }
  for (const char* from : {"client", "backend"}) {
    EXPECT_EQ(Count("http_bytes_total", "route=\"main\",from=\"" + std::string(from) + "\""), 0);
  }
}

TEST_F(HttpMetricsTest, RequestIsInFlightAndItsContentIsCounted) {
  RawClient client(proxy.port());
  Stream peer =
      Ask(client, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
  EXPECT_EQ(peer.ReadChunk(), "abc");
  AwaitCount("http_requests_in_flight", 1);
  AwaitCount("http_bytes_total", 3, "from=\"client\"");
  client.Send("0\r\n\r\n");
  EXPECT_EQ(peer.ReadChunk(), "");
  peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
  EXPECT_EQ(client.ReadResponse().body, "hello");
  proxy.AwaitMetric("sluice_http_requests_in_flight", 0);
  AwaitCount("http_bytes_total", 5, "from=\"backend\"");
  AwaitCount("http_request_seconds_count", 1);
  EXPECT_EQ(Count("event_stream_seconds_count"), 0);
  EXPECT_EQ(proxy.AwaitAccessLog(1)[0]["event"], "http");
}

TEST_F(HttpMetricsTest, EventStreamIsNoRequestInFlight) {
  RawClient client(proxy.port());
  Stream peer = Ask(client, kGet);
  AwaitCount("http_requests_in_flight", 1);
  AwaitCount("event_streams_open", 0);
  peer.Send(std::string(kStream) + "9\r\ndata: 1\n\n\r\n");
  EXPECT_EQ(client.ReadHead().status, 200);
  EXPECT_EQ(client.ReadChunk(), "data: 1\n\n");
  AwaitCount("http_requests_in_flight", 0);
  AwaitCount("event_streams_open", 1);
  AwaitCount("http_bytes_total", 9, "from=\"backend\"");
  peer.Send("0\r\n\r\n");
  EXPECT_EQ(client.ReadChunk(), "");
  proxy.AwaitMetric("sluice_event_streams_open", 0);
  AwaitCount("event_stream_seconds_count", 1);
  EXPECT_EQ(Count("http_request_seconds_count"), 0);
  AwaitCount("http_requests_total", 1, "code=\"2xx\"");
  EXPECT_EQ(proxy.AwaitAccessLog(1)[0]["event"], "event_stream");
  // The next request on the same connection is one again.
  client.Send(kGet);
  static_cast<void>(peer.ReadRequest());
  peer.Send("HTTP/1.1 204 No Content\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 204);
  proxy.AwaitMetric("sluice_http_request_seconds_count", 1);
  EXPECT_EQ(proxy.AwaitAccessLog(2)[1]["event"], "http");
  AwaitCount("http_requests_in_flight", 0);
}

TEST_F(HttpMetricsTest, EventStreamThatIsCutIsCountedAllTheSame) {
  for (const bool by_client : {true, false}) {
    RawClient client(proxy.port());
    Stream peer = Ask(client, kGet);
    peer.Send(kStream);
    EXPECT_EQ(client.ReadHead().status, 200);
    if (by_client) {
      client.Reset();
    } else {
      peer.Reset();
    }
    proxy.AwaitMetric("sluice_event_stream_seconds_count", by_client ? 1 : 2);
    AwaitCount("event_streams_open", 0);
  }
  EXPECT_EQ(Count("http_request_seconds_count"), 0);
  AwaitCount("http_requests_in_flight", 0);
}

// A stream whose length is known is an answer like any other.
TEST_F(HttpMetricsTest, EventStreamWithALengthIsARequest) {
  RawClient client(proxy.port());
  Stream peer = Ask(client, kGet);
  peer.Send(
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\ndata: 1\n\n");
  EXPECT_EQ(client.ReadResponse().body, "data: 1\n\n");
  proxy.AwaitMetric("sluice_http_request_seconds_count", 1);
  EXPECT_EQ(Count("event_stream_seconds_count"), 0);
  EXPECT_EQ(proxy.AwaitAccessLog(1)[0]["event"], "http");
}

TEST_F(HttpMetricsTest, SessionIsNoRequest) {
  RelayedSession s = OpenSession(proxy, backend);
  s.client.SendFrame(kText, "hello");
  EXPECT_EQ(s.backend.ReadFrame().payload, "hello");
  AwaitCount("http_requests_in_flight", 0);
  s.client.Reset();
  s.backend.Close();  // it owes an answer to the CLOSE, for which the session would wait
  proxy.AwaitMetric("sluice_session_seconds_count", 1);
  EXPECT_EQ(Count("http_request_seconds_count"), 0);
  EXPECT_EQ(proxy.Metric("sluice_http_requests_total"), 0);
  EXPECT_EQ(proxy.Metric("sluice_http_bytes_total"), 0);
  EXPECT_EQ(proxy.AwaitAccessLog(1)[0]["event"], "ws_close");
}

// Before its answer it is neither; then what the backend has answered is plain HTTP.
TEST_F(HttpMetricsTest, UpgradeThatIsRefusedIsARequestFromItsAnswerOn) {
  RawClient client(proxy.port());
  Stream peer = Ask(client, UpgradeRequest("/"));
  AwaitCount("http_requests_in_flight", 0);
  peer.Send("HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\n");
  EXPECT_EQ(client.ReadHead().status, 403);
  AwaitCount("http_requests_in_flight", 1);
  peer.Send("none");
  EXPECT_EQ(client.ReadExactly(4), "none");
  proxy.AwaitMetric("sluice_http_requests_in_flight", 0);
  AwaitCount("http_request_seconds_count", 1);
  // And one that Sluice refuses, after it has asked.
  Stream lost = Ask(client, UpgradeRequest("/"));
  lost.Send("HTTP/1.1 101 Switching Protocols\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 502);
  proxy.AwaitMetric("sluice_http_request_seconds_count", 2);
  AwaitCount("http_requests_in_flight", 0);
}

// An open stream neither keeps the times of requests from being counted nor is among them.
TEST_F(HttpMetricsTest, WhatLastsAndWhatDoesNotAreCountedBesideEachOther) {
  RelayedSession session = OpenSession(proxy, backend);
  RawClient listener(proxy.port());
  Stream events = Ask(listener, kGet);
  events.Send(kStream);
  EXPECT_EQ(listener.ReadHead().status, 200);
  RawClient client(proxy.port());
  for (int i = 0; i < 3; ++i) {
    Stream peer = Ask(client, kGet);
    peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    EXPECT_EQ(client.ReadResponse().status, 200);
  }
  proxy.AwaitMetric("sluice_http_request_seconds_count", 3);
  proxy.AwaitMetric("sluice_sessions_open", 1);
  AwaitCount("event_streams_open", 1);
  AwaitCount("http_requests_in_flight", 0);
  EXPECT_LT(proxy.Metric("sluice_http_request_seconds_sum"), 10);
}

}  // namespace
}  // namespace sluice::test
