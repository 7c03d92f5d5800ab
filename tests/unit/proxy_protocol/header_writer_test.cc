// Proves what a backend is told, byte for byte, and that the parser reads it back.
#include "proxy/proxy_protocol/header_writer.h"

#include <gtest/gtest.h>

#include "tests/unit/proxy_protocol/header_reference.h"

namespace sluice::proxy_protocol {
namespace {

Endpoint V4(std::uint8_t last, std::uint16_t port) {
  return {{192, 0, 2, last}, false, port};
}

Endpoint V6(std::uint8_t last, std::uint16_t port) {
  return {{0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last}, true, port};
}

Endpoint Mapped(std::uint8_t last, std::uint16_t port) {
  return {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, last}, true, port};
}

std::string ReadBack(const std::string& header) {
  return Describe(Parse(AsBytes(header)));
}

TEST(HeaderWriter, V1IsALine) {
  EXPECT_EQ(ClientHeader(Version::kV1, V4(1, 4660), V4(2, 443), "ignored.example"),
            "PROXY TCP4 192.0.2.1 192.0.2.2 4660 443\r\n");
  EXPECT_EQ(ClientHeader(Version::kV1, V6(1, 0), V6(2, 65535)),
            "PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n");
}

TEST(HeaderWriter, V2IsBytes) {
  EXPECT_EQ(ClientHeader(Version::kV2, V4(1, 0x1234), V4(2, 443)),
            V2(0x21, 0x11, std::string("\xC0\x00\x02\x01\xC0\x00\x02\x02\x12\x34\x01\xBB", 12)));
  EXPECT_EQ(ClientHeader(Version::kV2, V6(1, 0x1234), V6(2, 443)), V2(0x21, 0x21, V6Addresses()));
}

TEST(HeaderWriter, V2HasTheServerNameBehindTheAddresses) {
  const std::string plain = ClientHeader(Version::kV2, V4(1, 1), V4(2, 2));
  EXPECT_EQ(ClientHeader(Version::kV2, V4(1, 1), V4(2, 2), "chat.example"),
            V2(0x21, 0x11, plain.substr(16) + Tlv(0x02, "chat.example")));
  EXPECT_EQ(ClientHeader(Version::kV2, V4(1, 1), V4(2, 2), std::string(256, 'a')), plain)
      << "what is no name is left out";
}

// Both ends of one header are of one family.
TEST(HeaderWriter, MixedFamiliesBecomeOne) {
  EXPECT_EQ(ClientHeader(Version::kV1, Mapped(1, 1), Mapped(2, 2)),
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
  EXPECT_EQ(ClientHeader(Version::kV1, V4(1, 1), Mapped(2, 2)),
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
  EXPECT_EQ(ClientHeader(Version::kV1, V6(1, 1), V4(2, 2)),
            "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 1 2\r\n");
  EXPECT_EQ(ClientHeader(Version::kV1, Mapped(1, 1), V6(2, 2)),
            "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n");
}

TEST(HeaderWriter, WithoutAClient) {
  EXPECT_EQ(UnknownHeader(Version::kV1), "PROXY UNKNOWN\r\n");
  EXPECT_EQ(UnknownHeader(Version::kV2), V2(0x21, 0x00, ""));
  EXPECT_EQ(LocalHeader(Version::kV1), "PROXY UNKNOWN\r\n");
  EXPECT_EQ(LocalHeader(Version::kV2), V2(0x20, 0x00, ""));
}

TEST(HeaderWriter, WhatIsWrittenIsReadBack) {
  for (const Version version : {Version::kV1, Version::kV2}) {
    const std::string name = version == Version::kV1 ? "v1 " : "v2 ";
    for (const auto& [source, destination] :
         {std::pair(V4(1, 0), V4(2, 65535)), std::pair(V6(1, 1), V6(2, 443))}) {
      const std::string header = ClientHeader(version, source, destination, "a.example");
      EXPECT_EQ(ReadBack(header), "done " + std::to_string(header.size()) + " " + name +
                                      Describe(source) + " > " + Describe(destination));
    }
    EXPECT_EQ(ReadBack(UnknownHeader(version)),
              "done " + std::to_string(UnknownHeader(version).size()) + " " + name + "unknown");
  }
  EXPECT_EQ(ReadBack(LocalHeader(Version::kV2)), "done 16 v2 local");
}

}  // namespace
}  // namespace sluice::proxy_protocol
