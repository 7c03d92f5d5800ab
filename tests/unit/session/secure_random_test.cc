// Proves that the supply of random bytes hands out no byte twice, whatever the pieces.
#include "proxy/session/secure_random.h"

#include <algorithm>
#include <array>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace sluice::session {
namespace {

using Piece = std::array<unsigned char, 12>;

std::vector<Piece> Draw(std::size_t count) {
  std::vector<Piece> pieces(count);
  for (Piece& piece : pieces) {
    FillRandom(piece);
  }
  return pieces;
}

// 12 bytes do not divide the supply, so that some pieces span its end.
TEST(FillRandom, GivesNoPieceTwice) {
  constexpr std::size_t kPieces = 5000;
  std::vector<Piece> pieces = Draw(kPieces);
  std::thread other([&pieces] {
    const std::vector<Piece> more = Draw(kPieces);
    pieces.insert(pieces.end(), more.begin(), more.end());
  });
  other.join();
  EXPECT_EQ(std::set<Piece>(pieces.begin(), pieces.end()).size(), 2 * kPieces);
}

TEST(FillRandom, FillsMoreThanTheSupplyHolds) {
  std::vector<unsigned char> bytes(100'000);
  FillRandom(bytes);
  std::array<std::size_t, 256> counts{};
  for (const unsigned char byte : bytes) {
    ++counts[byte];
  }
  // 391 of each are expected, with a deviation of 20: ten deviations are no accident.
  const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
  EXPECT_GT(*least, 191U);
  EXPECT_LT(*most, 591U);
}

TEST(FillRandom, TakesNothingForNothing) {
  FillRandom({});
  Piece one;
  FillRandom(one);
  EXPECT_NE(one, Piece{});
}

}  // namespace
}  // namespace sluice::session
