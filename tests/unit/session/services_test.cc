// Proves that TLS handshakes are rationed by the turn of the loop, not by time.
#include "proxy/session/services.h"

#include <gtest/gtest.h>

namespace sluice::session {
namespace {

TEST(HandshakeRation, AllowsAFewInEachTurn) {
  HandshakeRation ration;
  unsigned taken = 0;
  while (taken < 1000 && ration.Take(1)) {
    ++taken;
  }
  EXPECT_EQ(taken, 4U);
  EXPECT_FALSE(ration.Take(1)) << "the turn is used up";
  EXPECT_TRUE(ration.Take(2)) << "the next one is fresh";
  for (unsigned i = 1; i < 4; ++i) {
    EXPECT_TRUE(ration.Take(2));
  }
  EXPECT_FALSE(ration.Take(2));
}

}  // namespace
}  // namespace sluice::session
