// Shows what an idle session costs in memory, and fails when it grows. A plain session that says
// nothing is a Session (with its client's Conn in it), a Relay and the backend's Conn.
//
// When a test fails here: look whether the new member is needed while a session idles. What only a
// request, a closing or a full buffer needs belongs into the object of that phase (Exchange,
// Relay's ending, Conn's backlog), which is gone or absent while nothing happens. If it is needed,
// reorder so that nothing is padding, raise the bound, and measure the scenario `idle` of
// tests/bench again.
#include <iostream>
#include <string>

#include <gtest/gtest.h>

#include "proxy/session/session.h"

namespace sluice::session {
namespace {

void ExpectAtMost(const char* name, std::size_t size, std::size_t most) {
  std::cout << "sizeof " << name << ": " << size << " bytes\n";
  testing::Test::RecordProperty(std::string("sizeof_") + name, static_cast<int>(size));
  EXPECT_LE(size, most) << name;
}

TEST(Size, OfWhatAnIdleSessionHolds) {
  ExpectAtMost("Conn", sizeof(net::Conn), 184);
  ExpectAtMost("FrameTracker", sizeof(ws::FrameTracker), 64);
  ExpectAtMost("Relay", sizeof(Relay), 320);
  ExpectAtMost("SessionWithoutConn", sizeof(Session) - sizeof(net::Conn), 176);
  ExpectAtMost("RequestFacts", sizeof(RequestFacts), 40);
}

// These live for as long as a request is served.
TEST(Size, OfWhatARequestHolds) {
  ExpectAtMost("Exchange", sizeof(Exchange), 768);
  ExpectAtMost("RequestParser", sizeof(http::RequestParser), 304);
}

}  // namespace
}  // namespace sluice::session
