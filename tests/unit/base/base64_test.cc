// Proves that base64 as used by the opening handshake encodes and measures exactly (RFC 4648).
#include "proxy/base/base64.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(Base64, EncodesTheRfcVectors) {
  // RFC 4648 section 10.
  EXPECT_EQ(Base64Encode(AsBytes("")), "");
  EXPECT_EQ(Base64Encode(AsBytes("f")), "Zg==");
  EXPECT_EQ(Base64Encode(AsBytes("fo")), "Zm8=");
  EXPECT_EQ(Base64Encode(AsBytes("foo")), "Zm9v");
  EXPECT_EQ(Base64Encode(AsBytes("foob")), "Zm9vYg==");
  EXPECT_EQ(Base64Encode(AsBytes("fooba")), "Zm9vYmE=");
  EXPECT_EQ(Base64Encode(AsBytes("foobar")), "Zm9vYmFy");
}

TEST(Base64, MeasuresAWebSocketKey) {
  EXPECT_EQ(Base64DecodedSize("dGhlIHNhbXBsZSBub25jZQ=="), 16U);  // RFC 6455 section 1.3
  EXPECT_EQ(Base64DecodedSize(""), 0U);
  EXPECT_EQ(Base64DecodedSize("Zg=="), 1U);
}

TEST(Base64, RefusesWhatIsNotBase64) {
  EXPECT_FALSE(Base64DecodedSize("dGhlIHNhbXBsZSBub25jZQ").has_value()) << "no padding";
  EXPECT_FALSE(Base64DecodedSize("dGhlIHNhbXBsZSBub25jZ===").has_value()) << "too much padding";
  EXPECT_FALSE(Base64DecodedSize("dGhl=HNhbXBsZSBub25jZQ==").has_value()) << "padding inside";
  EXPECT_FALSE(Base64DecodedSize("dGhlIHNhbXBsZSBub25jZ!==").has_value()) << "foreign character";
}

}  // namespace
}  // namespace sluice
