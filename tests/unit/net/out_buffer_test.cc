// Proves that what is appended comes out once and in order, however it is consumed, and that an
// empty buffer holds nothing.
#include "proxy/net/out_buffer.h"

#include <random>
#include <string>

#include <gtest/gtest.h>

namespace sluice::net {
namespace {

std::string Take(OutBuffer& buffer, std::size_t count) {
  const std::string taken(AsText(buffer.front().first(count)));
  buffer.Consume(count);
  return taken;
}

TEST(OutBuffer, StartsEmpty) {
  const OutBuffer buffer;
  EXPECT_TRUE(buffer.empty());
  EXPECT_EQ(buffer.size(), 0U);
  EXPECT_TRUE(buffer.front().empty());
}

TEST(OutBuffer, GivesBackInOrder) {
  OutBuffer buffer;
  buffer.Append(AsBytes("abc"));
  buffer.Append(AsBytes("def"));
  EXPECT_EQ(buffer.size(), 6U);
  EXPECT_EQ(Take(buffer, 2), "ab");
  EXPECT_EQ(Take(buffer, 4), "cdef");
  EXPECT_TRUE(buffer.empty());
}

TEST(OutBuffer, AppendingNothingChangesNothing) {
  OutBuffer buffer;
  buffer.Append({});
  EXPECT_TRUE(buffer.empty());
  EXPECT_EQ(buffer.front().data(), nullptr);
}

TEST(OutBuffer, FreesItsMemoryWhenEmptied) {
  OutBuffer buffer;
  buffer.Append(AsBytes("abc"));
  buffer.Consume(3);
  EXPECT_EQ(buffer.front().data(), nullptr);
}

TEST(OutBuffer, ClearDropsEverything) {
  OutBuffer buffer;
  buffer.Append(AsBytes("abc"));
  buffer.Clear();
  EXPECT_TRUE(buffer.empty());
  buffer.Append(AsBytes("xy"));
  EXPECT_EQ(Take(buffer, 2), "xy");
}

TEST(OutBuffer, KeepsItsContentWhenItMovesOrGrows) {
  // Consumed at the front, so that the next append has to move what is left or to grow.
  std::minstd_rand random(7);
  OutBuffer buffer;
  std::string expected;
  std::string got;
  char next = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string more(random() % 97, '\0');
    for (char& c : more) {
      c = next++;
    }
    expected += more;
    buffer.Append(AsBytes(more));
    got += Take(buffer, random() % (buffer.size() + 1));
  }
  got += Take(buffer, buffer.size());
  EXPECT_EQ(got, expected);
}

}  // namespace
}  // namespace sluice::net
