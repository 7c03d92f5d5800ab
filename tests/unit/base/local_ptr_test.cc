// Proves that what is shared ends with its last owner, and not before.
#include "proxy/base/local_ptr.h"

#include <utility>

#include <gtest/gtest.h>

namespace sluice {
namespace {

struct Shared : LocallyShared {
  explicit Shared(int* its_ends) : ends(its_ends) {}
  ~Shared() { ++*ends; }

  int* ends;
};

TEST(LocalPtr, EndsTheSharedWithItsLastOwner) {
  int ends = 0;
  {
    LocalPtr<const Shared> first(new Shared(&ends));
    {
      const LocalPtr<const Shared> second = first;
      EXPECT_EQ(second.get(), first.get());
      first = LocalPtr<const Shared>();
      EXPECT_FALSE(first);
      EXPECT_EQ(ends, 0) << "there is another owner";
    }
    EXPECT_EQ(ends, 1);
  }
  EXPECT_EQ(ends, 1) << "and only once";
}

TEST(LocalPtr, MovingChangesNoCount) {
  int ends = 0;
  LocalPtr<Shared> first(new Shared(&ends));
  LocalPtr<Shared> second = std::move(first);
  EXPECT_EQ(second->ends, &ends);
  second = LocalPtr<Shared>();
  EXPECT_EQ(ends, 1);
}

TEST(LocalPtr, AnotherOwnerCanBeMadeFromTheObject) {
  int ends = 0;
  LocalPtr<Shared> first(new Shared(&ends));
  LocalPtr<Shared> second(first.get());
  first = second;  // the same object on both sides
  first = LocalPtr<Shared>();
  EXPECT_EQ(ends, 0);
  second = LocalPtr<Shared>();
  EXPECT_EQ(ends, 1);
}

TEST(LocalPtr, ReplacingEndsWhatWasOwnedAlone) {
  int first_ends = 0;
  int second_ends = 0;
  LocalPtr<Shared> owner(new Shared(&first_ends));
  owner = LocalPtr<Shared>(new Shared(&second_ends));
  EXPECT_EQ(first_ends, 1);
  EXPECT_EQ(second_ends, 0);
}

}  // namespace
}  // namespace sluice
