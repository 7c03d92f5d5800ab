// Proves the ring of ticket keys: the newest seals, two older ones open, a fourth has fallen out.
#include "proxy/tls/ticket_keys.h"

#include <algorithm>
#include <vector>

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

TEST(TicketKeys, TellsAllNewestFirst) {
  TicketKeys keys;
  std::vector<TicketKey> made{keys.Newest()};
  for (std::size_t size = 2; size <= 5; ++size) {
    ASSERT_TRUE(keys.Rotate().has_value());
    made.insert(made.begin(), keys.Newest());
    const std::vector<TicketKey> all = keys.All();
    ASSERT_EQ(all.size(), std::min<std::size_t>(size, 3));
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_EQ(all[i].name, made[i].name) << size << " " << i;
      EXPECT_EQ(all[i].aes, made[i].aes);
      EXPECT_EQ(all[i].hmac, made[i].hmac);
    }
  }
}

TEST(TicketKeys, TakesThoseOfAPredecessorInTheirPlace) {
  TicketKeys before;
  ASSERT_TRUE(before.Rotate().has_value());
  TicketKeys after;
  ASSERT_TRUE(after.Rotate().has_value());
  ASSERT_TRUE(after.Rotate().has_value());
  const std::vector<TicketKey> own = after.All();
  after.Replace(before.All());
  ASSERT_EQ(after.All().size(), 2U);
  EXPECT_EQ(after.Newest().name, before.Newest().name);
  const auto older = after.Find(before.All()[1].name.data());
  ASSERT_TRUE(older.has_value());
  EXPECT_FALSE(older->newest);
  for (const TicketKey& key : own) {
    EXPECT_FALSE(after.Find(key.name.data()).has_value()) << "its own open nothing any more";
  }
  // It goes on as if they were its own.
  ASSERT_TRUE(after.Rotate().has_value());
  EXPECT_EQ(after.All().size(), 3U);
  EXPECT_TRUE(after.Find(before.Newest().name.data()).has_value());
}

TEST(TicketKeys, OfMoreThanItHoldsTheNewestStay) {
  std::vector<TicketKey> many;
  for (int i = 0; i < 5; ++i) {
    many.push_back(TicketKeys().Newest());
  }
  TicketKeys keys;
  keys.Replace(many);
  const std::vector<TicketKey> all = keys.All();
  ASSERT_EQ(all.size(), 3U);
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].name, many[i].name) << i;
  }
  EXPECT_FALSE(keys.Find(many[3].name.data()).has_value());
}

}  // namespace
}  // namespace sluice::tls
