// Proves the ring of ticket keys: the newest seals, two older ones open, a fourth has fallen out.
#include "proxy/tls/ticket_keys.h"

#include <gtest/gtest.h>

namespace sluice::tls {
namespace {

TEST(TicketKeys, StartsWithOneRandomKey) {
  const TicketKeys one;
  const TicketKeys two;
  EXPECT_NE(one.Newest().name, two.Newest().name);
  EXPECT_NE(one.Newest().aes, two.Newest().aes);
  EXPECT_NE(one.Newest().hmac, two.Newest().hmac);
  const auto found = one.Find(one.Newest().name.data());
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(found->newest);
  EXPECT_FALSE(one.Find(two.Newest().name.data()).has_value());
}

TEST(TicketKeys, DoesNotFindTheEmptyPlacesOfItsRing) {
  const TicketKeys keys;
  const std::array<unsigned char, 16> nothing{};
  EXPECT_FALSE(keys.Find(nothing.data()).has_value());
}

TEST(TicketKeys, AKeyOpensForTwoMoreRotations) {
  TicketKeys keys;
  const TicketKey first = keys.Newest();
  for (int rotation = 1; rotation <= 2; ++rotation) {
    ASSERT_TRUE(keys.Rotate().has_value());
    EXPECT_NE(keys.Newest().name, first.name);
    const auto found = keys.Find(first.name.data());
    ASSERT_TRUE(found.has_value()) << rotation;
    EXPECT_FALSE(found->newest);
    EXPECT_EQ(found->key.aes, first.aes);
    EXPECT_EQ(found->key.hmac, first.hmac);
  }
  ASSERT_TRUE(keys.Rotate().has_value());
  EXPECT_FALSE(keys.Find(first.name.data()).has_value());
}

}  // namespace
}  // namespace sluice::tls
