// Proves that an answer of the type text/event-stream lasts like a session and is ended like one:
// at a moment of its own, between two events, so that an EventSource comes back and has lost none.
// A 503 would keep it away for good, so no drain answers it with that, but for a learned token.
#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/integration/relayed_session.h"

namespace sluice::test {
namespace {

using std::chrono::steady_clock;

constexpr std::string_view kAsk =
    "GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";
constexpr std::string_view kAskPlain = "GET /plain HTTP/1.1\r\nHost: a\r\n\r\n";

// How the backend frames its answer, and which version of HTTP the client speaks.
enum class Form { kChunked, kUntilClose, kOldClient };

struct EventStream {
  RawClient client;
  Stream backend;
  Form form = Form::kChunked;

  void Send(std::string_view data) {
    std::string out;
    if (form == Form::kChunked) {
      static constexpr std::string_view kDigits = "0123456789abcdef";
      for (std::size_t size = data.size(); size > 0; size /= 16) {
        out.insert(out.begin(), kDigits[size % 16]);
      }
      out += "\r\n";
      out += data;
      out += "\r\n";
    } else {
      out = data;
    }
    backend.Send(out);
  }

  // The next `count` bytes of the content, and no more than has come with them.
  std::string Read(std::size_t count) {
    std::string content;
    while (content.size() < count) {
      const std::string more = form == Form::kOldClient ? client.ReadSome() : client.ReadChunk();
      if (more.empty()) {
        throw Failure("the stream ended behind: " + content);
      }
      content += more;
    }
    return content;
  }

  // The rest of the content, which has to end as it should.
  std::string ReadRest() {
    if (form == Form::kOldClient) {
      return client.ReadToEnd();
    }
    std::string content;
    for (std::string more = client.ReadChunk(); !more.empty(); more = client.ReadChunk()) {
      content += more;
    }
    return content;
  }
};

EventStream Open(RawClient client, RawBackend& backend, Form form = Form::kChunked,
                 std::string_view more = {}) {
  std::string ask(kAsk);
  if (form == Form::kOldClient) {
    ask.replace(ask.find("1.1"), 3, "1.0");
  }
  client.Send(ask);
  EventStream stream{std::move(client), backend.Accept(), form};
  EXPECT_EQ(stream.backend.ReadRequest().target, "/events");
  std::string answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n";
  answer += more;
  answer += form == Form::kChunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n";
  stream.backend.Send(answer);
  const HttpMessage head = stream.client.ReadHead();
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.Field("Transfer-Encoding"), form == Form::kOldClient ? "" : "chunked");
  return stream;
}

Config StreamConfig(std::vector<std::uint16_t> backends, std::string drain) {
  return Config{.backends = std::move(backends),
                .server = "close_timeout = \"400ms\"",
                .drain = std::move(drain)};
}

// Drain of the process.

class EventStreamTest : public testing::TestWithParam<Form> {
 protected:
  EventStreamTest()
      : proxy(StreamConfig({backend.port()}, "window = \"300ms\"\ngrace = \"10s\"")) {}

  EventStream OpenHere() { return Open(RawClient(proxy.port()), backend, GetParam()); }

  RawBackend backend;
  ProxyProcess proxy;
};

INSTANTIATE_TEST_SUITE_P(Form, EventStreamTest,
                         testing::Values(Form::kChunked, Form::kUntilClose, Form::kOldClient),
                         [](const auto& one) {
                           return std::string(one.param == Form::kChunked      ? "Chunked"
                                              : one.param == Form::kUntilClose ? "UntilClose"
                                                                               : "OldClient");
                         });

TEST_P(EventStreamTest, ThatStandsBetweenEventsEndsThere) {
  EventStream s = OpenHere();
  s.Send("data: 1\n\n");
  EXPECT_EQ(s.Read(9), "data: 1\n\n");
  proxy.Signal(SIGTERM);
  EXPECT_EQ(s.ReadRest(), "");
  s.client.ExpectEnd();
  static_cast<void>(s.backend.AwaitEnd());
  s.client.Close();
  EXPECT_EQ(proxy.Wait(), 0) << proxy.err();
  EXPECT_EQ(proxy.AccessLog()[0]["status"], 200);
}

TEST_P(EventStreamTest, ThatHasSaidNothingYetEndsAtItsStart) {
  EventStream s = OpenHere();
  proxy.Signal(SIGTERM);
  EXPECT_EQ(s.ReadRest(), "");
  s.client.ExpectEnd();
  s.client.Close();
  EXPECT_EQ(proxy.Wait(), 0) << proxy.err();
}

// HTML, section 9.2.6: the time is a decimal number of milliseconds.
TEST_P(EventStreamTest, TellsItsClientWhenToComeBack) {
  ProxyProcess own(
      StreamConfig({backend.port()}, "window = \"0s\"\ngrace = \"10s\"\nevent_retry = \"2s\""));
  for (const bool inside : {false, true}) {
    EventStream s = Open(RawClient(own.port()), backend, GetParam());
    s.Send(inside ? "data: 1" : "data: 1\n\n");
    EXPECT_EQ(s.Read(inside ? 7 : 9), inside ? "data: 1" : "data: 1\n\n");
    EXPECT_EQ(own.Ask("POST", "/backends/app/b0/drain?window=0s&force=true").status, 202);
    if (inside) {
      EXPECT_FALSE(s.client.HasInput(Millis(100)));  // the worker has to hear of it first
      s.Send("\n\ndata: lost");
    }
    std::string rest = s.ReadRest();
    if (inside) {
      EXPECT_EQ(rest.substr(0, 2), "\n\n");
      rest.erase(0, 2);
    }
    ASSERT_EQ(rest.substr(0, 7), "retry: ") << rest;
    ASSERT_EQ(rest.substr(rest.size() - 2), "\n\n");
    const int millis = std::stoi(rest.substr(7));
    EXPECT_EQ(rest, "retry: " + std::to_string(millis) + "\n\n");
    EXPECT_GE(millis, 1000);
    EXPECT_LE(millis, 3000);
    EXPECT_EQ(own.Ask("POST", "/backends/app/b0/undrain").status, 200);
  }
}

TEST_P(EventStreamTest, ThatStandsInsideAnEventEndsBehindIt) {
  for (const std::string eol : {"\n", "\r\n", "\r"}) {
    ProxyProcess own(StreamConfig({backend.port()}, "window = \"0s\"\ngrace = \"10s\""));
    EventStream s = Open(RawClient(own.port()), backend, GetParam());
    const std::string begin = "data: 1" + eol + eol + "id: 7" + eol + "data: ha";
    s.Send(begin);
    EXPECT_EQ(s.Read(begin.size()), begin);
    own.Signal(SIGTERM);
    EXPECT_FALSE(s.client.HasInput(Millis(200))) << "ended inside an event";
    s.Send("lf" + eol);
    EXPECT_EQ(s.Read(2), "lf" + eol);
    EXPECT_FALSE(s.client.HasInput(Millis(50))) << "ended inside an event";
    s.Send(eol + "data: never" + eol + eol);
    EXPECT_EQ(s.ReadRest(), eol);
    s.client.ExpectEnd();
    s.client.Close();
    EXPECT_EQ(own.Wait(), 0) << own.err();
  }
}

TEST_P(EventStreamTest, ThatNeverStopsEndsBehindAWholeEvent) {
  EventStream s = OpenHere();
  std::string content;
  for (unsigned i = 0; i < 10'000; ++i) {
    content += "id: " + std::to_string(i) + "\ndata: " + std::string(i % 50, 'x') + "\n\n";
  }
  std::atomic<bool> cut = false;
  std::thread writer([&] {
    // Over and over in pieces that have nothing to do with events, until the other end is gone.
    const Deadline deadline;
    try {
      for (std::size_t at = 0, size = 1; !deadline.passed(); size = size * 7 % 997) {
        const std::string piece = content.substr(at, size);
        s.Send(piece);
        at = (at + piece.size()) % content.size();
      }
    } catch (const Failure&) {
      cut = true;
    }
  });
  std::string got = s.Read(100'000);
  proxy.Signal(SIGTERM);
  got += s.ReadRest();
  s.client.ExpectEnd();
  s.client.Close();
  writer.join();
  EXPECT_TRUE(cut) << "the drain did not end it";
  std::string wanted = content;
  while (wanted.size() < got.size()) {
    wanted += content;
  }
  EXPECT_TRUE(wanted.starts_with(got));
  EXPECT_TRUE(got.ends_with("\n\n")) << got.substr(got.size() - 20);
  EXPECT_EQ(proxy.Wait(), 0) << proxy.err();
}

TEST(EventStreams, AreEndedOneAfterTheOther) {
  constexpr std::size_t kStreams = 40;
  RawBackend backend;
  ProxyProcess proxy(StreamConfig({backend.port()}, "window = \"1s\"\ngrace = \"10s\""));
  std::vector<EventStream> streams;
  for (std::size_t i = 0; i < kStreams; ++i) {
    streams.push_back(Open(RawClient(proxy.port()), backend));
  }
  const auto began = steady_clock::now();
  proxy.Signal(SIGTERM);
  std::vector<double> seconds;
  const Deadline deadline;
  while (seconds.size() < kStreams) {
    ASSERT_FALSE(deadline.passed());
    for (EventStream& s : streams) {
      if (s.client.open() && s.client.HasInput(Millis(0))) {
        EXPECT_EQ(s.ReadRest(), "");
        seconds.push_back(std::chrono::duration<double>(steady_clock::now() - began).count());
        s.client.Close();
      }
    }
  }
  for (int half = 0; half < 2; ++half) {
    const auto count = std::count_if(seconds.begin(), seconds.end(),
                                     [&](double at) { return (at >= 0.5) == (half == 1); });
    EXPECT_GE(count, 8) << half;
  }
  EXPECT_EQ(proxy.Wait(), 0) << proxy.err();
}

TEST(EventStreams, AreServedWhileTheDrainWaits) {
  RawBackend backend;
  ProxyProcess proxy(
      StreamConfig({backend.port()}, "ready_delay = \"60s\"\nwindow = \"60s\"\ngrace = \"10s\""));
  RawClient kept(proxy.port());
  kept.Send(kAskPlain);
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  peer.Send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(kept.ReadResponse().status, 204);
  proxy.Signal(SIGTERM);
  ASSERT_TRUE(proxy.AwaitErr("draining"));
  proxy.Stop();  // until all workers have heard of it
  proxy.Continue();
  RawClient upgrade(proxy.port());
  EXPECT_EQ(upgrade.Upgrade().status, 503);
  // On a new connection, and on one that was there.
  EventStream fresh = Open(RawClient(proxy.port()), backend);
  EventStream old = Open(std::move(kept), backend);
  for (EventStream* s : {&fresh, &old}) {
    s->Send("data: served\n\n");
    EXPECT_EQ(s->Read(14), "data: served\n\n");
  }
  fresh.Send("data: ha");
  EXPECT_EQ(fresh.Read(8), "data: ha");
  proxy.Signal(SIGTERM);  // now
  EXPECT_EQ(old.ReadRest(), "");
  old.client.ExpectEnd();
  fresh.Send("lf\n\n");
  EXPECT_EQ(fresh.ReadRest(), "lf\n\n");
  fresh.client.ExpectEnd();
  old.client.Close();
  fresh.client.Close();
  EXPECT_EQ(proxy.Wait(), 0) << proxy.err();
}

// A head of which only this much has come when the drain begins.
TEST(EventStreams, AreNotAnswered503WhenHalfAsked) {
  struct Case {
    const char* half;
    bool answered;
  };
  const std::array<Case, 4> cases{{
      {"GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n", false},
      {"GET /events HTTP/1.1\r\nHost: a\r\naccept: TEXT/Event-Stream, */*;q=0.1\r\nX-More: a",
       false},
      {"GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream", false},
      {"GET /other HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n", true},
  }};
  for (const Case& one : cases) {
    SCOPED_TRACE(one.half);
    RawBackend backend;
    ProxyProcess proxy(StreamConfig({backend.port()}, "window = \"0s\"\ngrace = \"10s\""));
    RawClient client(proxy.port());
    client.Send(one.half);
    proxy.Stop();  // it has read what there is
    proxy.Continue();
    proxy.Signal(SIGTERM);
    if (one.answered) {
      EXPECT_EQ(client.ReadResponse().status, 503);
    }
    client.ExpectEnd();
    client.Close();
    EXPECT_EQ(proxy.Wait(), 0) << proxy.err();
  }
}

// Between compressed events nobody can tell where they end.
TEST(EventStreams, ThatAreCompressedAreCutAtTheDeadline) {
  RawBackend backend;
  ProxyProcess proxy(StreamConfig({backend.port()}, "window = \"0s\"\ngrace = \"1s\""));
  EventStream s =
      Open(RawClient(proxy.port()), backend, Form::kChunked, "Content-Encoding: gzip\r\n");
  s.Send("\x1f\x8b zipped\n\n");
  EXPECT_EQ(s.Read(11), "\x1f\x8b zipped\n\n");
  const auto began = steady_clock::now();
  proxy.Signal(SIGTERM);
  EXPECT_FALSE(s.client.HasInput(Millis(500)));
  s.Send("more");
  EXPECT_EQ(s.Read(4), "more");
  try {
    EXPECT_EQ(s.client.ReadToEnd(), "") << "it looks as if it were whole";
  } catch (const Failure&) {
    // Reset: as clear.
  }
  EXPECT_GE(steady_clock::now() - began, Millis(900));
  EXPECT_EQ(proxy.Wait(), 0) << proxy.err();
  EXPECT_EQ(proxy.AccessLog().size(), 1U);
}

// Drain of a backend.

nlohmann::json DrainBackend(const ProxyProcess& proxy, std::size_t index, std::string_view how) {
  return proxy.AskJson(
      "POST", "/backends/app/b" + std::to_string(index) + "/drain?" + std::string(how), 202);
}

nlohmann::json DrainOf(const ProxyProcess& proxy, std::size_t index) {
  return nlohmann::json::parse(proxy.Admin("/backends/app/b" + std::to_string(index)))["drain"];
}

TEST(EventStreamsOfABackend, EndInOrderAndTheirConnectionsGoOn) {
  RawBackend a;
  RawBackend b;
  const std::array<RawBackend*, 2> backends{&a, &b};
  Config config = StreamConfig({a.port(), b.port()}, "window = \"0s\"\ngrace = \"10s\"");
  config.pool = "bounded_load = 0";  // all of them on one backend is what is wanted here
  ProxyProcess proxy(config);
  RawClient probe(proxy.port());
  probe.Send(kAskPlain);
  const std::size_t home = AwaitAny({&a, &b});  // of everybody here: they have one address
  Stream peer = backends[home]->Accept();
  static_cast<void>(peer.ReadRequest());
  peer.Send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(probe.ReadResponse().status, 204);
  EventStream between = Open(RawClient(proxy.port()), *backends[home]);
  EventStream inside = Open(RawClient(proxy.port()), *backends[home], Form::kUntilClose);
  between.Send("data: 1\n\n");
  EXPECT_EQ(between.Read(9), "data: 1\n\n");
  inside.Send("data: ha");
  EXPECT_EQ(inside.Read(8), "data: ha");

  static_cast<void>(DrainBackend(proxy, home, "window=0s"));
  EXPECT_EQ(between.ReadRest(), "");
  EXPECT_FALSE(inside.client.HasInput(Millis(100)));
  EXPECT_EQ(DrainOf(proxy, home)["total"], 2);
  EXPECT_EQ(DrainOf(proxy, home)["remaining"], 1);
  inside.Send("lf\n\ndata: never\n\n");
  EXPECT_EQ(inside.ReadRest(), "lf\n\n");
  const Deadline deadline;
  while (DrainOf(proxy, home)["state"] != "drained") {
    ASSERT_FALSE(deadline.passed());
  }
  const nlohmann::json drain = DrainOf(proxy, home);
  EXPECT_EQ(drain["remaining"], 0);
  EXPECT_EQ(drain["clean"], 2);
  EXPECT_EQ(drain["forced"], 0);
  proxy.AwaitMetric("sluice_drain_closed_total{how=\"clean\"}", 2);

  // The same connections, the other backend.
  for (EventStream* s : {&between, &inside}) {
    EventStream again = Open(std::move(s->client), *backends[1 - home]);
    again.Send("data: 2\n\n");
    EXPECT_EQ(again.Read(9), "data: 2\n\n");
  }
}

TEST(EventStreamsOfABackend, ThatBeginWhileItDrainsEndToo) {
  RawBackend backend;
  ProxyProcess proxy(StreamConfig({backend.port()}, "window = \"0s\"\ngrace = \"10s\""));
  RawClient client(proxy.port());
  client.Send(kAsk);
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  static_cast<void>(DrainBackend(proxy, 0, "window=0s&force=true"));
  peer.Send(
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().body, "");
  const Deadline deadline;
  while (DrainOf(proxy, 0)["clean"] != 1) {
    ASSERT_FALSE(deadline.passed());
  }
}

TEST(EventStreamsOfABackend, AreNotAnswered503WhenAllOfThemDrain) {
  RawBackend backend;
  ProxyProcess proxy(StreamConfig({backend.port()}, "window = \"0s\"\ngrace = \"10s\""));
  static_cast<void>(DrainBackend(proxy, 0, "force=true"));
  RawClient client(proxy.port());
  client.Send(kAsk);
  client.ExpectEnd();
  RawClient plain(proxy.port());
  plain.Send(kAskPlain);
  EXPECT_EQ(plain.ReadResponse().status, 503);
  EXPECT_FALSE(backend.HasConnection(Millis(0)));
  proxy.AwaitMetric("sluice_http_requests_total{code=\"none\"}", 1);
  proxy.AwaitMetric("sluice_http_requests_total{code=\"5xx\"}", 1);
  // Once it is back, so are they.
  EXPECT_EQ(proxy.Ask("POST", "/backends/app/b0/undrain").status, 200);
  EventStream s = Open(RawClient(proxy.port()), backend);
  s.Send("data: 1\n\n");
  EXPECT_EQ(s.Read(9), "data: 1\n\n");
}

// A backend that is down is no drain: then the answer says so.
TEST(EventStreamsOfABackend, AreAnswered503WhenItIsDown) {
  const ClosedPort closed;
  ProxyProcess proxy(StreamConfig({closed.port()}, "window = \"0s\""));
  RawClient client(proxy.port());
  client.Send(kAsk);
  EXPECT_EQ(client.ReadResponse().status, 503);
}

// Age.

// A stream whose age comes in the middle of an event, which it is to finish; `meanwhile` happens
// before that.
void ExpectTheEventToBeFinished(
    ProxyProcess& proxy, RawBackend& backend, const std::function<void()>& meanwhile = [] {}) {
  EventStream s = Open(RawClient(proxy.port()), backend);
  s.Send("data: ha");
  EXPECT_EQ(s.Read(8), "data: ha");
  meanwhile();
  EXPECT_FALSE(s.client.HasInput(Millis(1300)));
  s.Send("lf\n\ndata: never\n\n");
  EXPECT_EQ(s.ReadRest(), "lf\n\n");
}

TEST(EventStreams, EndBetweenEventsWhenTheyAreOld) {
  RawBackend backend;
  Config config = StreamConfig({backend.port()}, "window = \"0s\"");
  config.limits = "max_connection_age = \"1s\"";
  ProxyProcess proxy(config);
  ExpectTheEventToBeFinished(proxy, backend);
}

// Its age is no reason to cut what a drain has begun to end, and gives time for.
TEST(EventStreams, ThatADrainEndsKeepItsGraceWhenTheyAreOld) {
  RawBackend backend;
  Config config = StreamConfig({backend.port()}, "window = \"0s\"\ngrace = \"10s\"");
  config.limits = "max_connection_age = \"1s\"";
  ProxyProcess proxy(config);
  ExpectTheEventToBeFinished(proxy, backend, [&] {
    EXPECT_EQ(proxy.Ask("POST", "/backends/app/b0/drain?window=0s&force=true").status, 202);
  });
}

// Its client has answers on their way still, and is waited for; the stream is over.
TEST(EventStreams, ThatBreakHoldNoDrain) {
  RawBackend backend;
  Config config = StreamConfig({backend.port()}, "window = \"0s\"\ngrace = \"10s\"");
  config.server = "close_timeout = \"20s\"";
  ProxyProcess proxy(config);
  RawClient client(proxy.port(), {.small_buffers = true});
  client.Send(std::string(kAskPlain) + std::string(kAsk));
  Stream peer = backend.Accept();
  static_cast<void>(peer.ReadRequest());
  const std::string content(300'000, 'x');
  peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + content);
  static_cast<void>(peer.ReadRequest());
  peer.Send(
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
      "8\r\ndata: ha\r\n");
  proxy.AwaitMetric("sluice_event_streams_open", 1);
  EXPECT_EQ(proxy.Ask("POST", "/backends/app/b0/drain?window=0s&force=true").status, 202);
  peer.Reset();
  EXPECT_TRUE(proxy.AwaitErr("drained backend", Deadline(Millis(4000))));
  EXPECT_EQ(client.ReadResponse().body, content);
}

// It ends at once then, and there is nothing left that the deadline of its end could be about.
TEST(EventStreams, ThatEndAtTheirAgeLeaveTheirConnectionInPeace) {
  RawBackend backend;
  Config config = StreamConfig({backend.port()}, "window = \"0s\"\ngrace = \"300ms\"");
  config.limits = "max_connection_age = \"1s\"";
  ProxyProcess proxy(config);
  EventStream s = Open(RawClient(proxy.port()), backend);
  s.Send("data: whole\n\n");
  EXPECT_EQ(s.Read(13), "data: whole\n\n");
  EXPECT_EQ(s.ReadRest(), "");
  EXPECT_FALSE(s.client.HasInput(Millis(600)));
  EXPECT_TRUE(proxy.running());
  s.client.Send(kAskPlain);
  Stream leg = backend.Accept();
  static_cast<void>(leg.ReadRequest());
  leg.Send("HTTP/1.1 204 No Content\r\n\r\n");
  EXPECT_EQ(s.client.ReadResponse().status, 204);
}

}  // namespace
}  // namespace sluice::test
