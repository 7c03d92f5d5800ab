#include "tests/support/websocket.h"

#include <array>

#include <openssl/evp.h>

namespace sluice::test {

std::uint16_t Frame::close_code() const {
  if (payload.size() < 2) {
    return 0;
  }
  return static_cast<std::uint16_t>((static_cast<unsigned char>(payload[0]) << 8) |
                                    static_cast<unsigned char>(payload[1]));
}

std::string Frame::close_reason() const {
  return payload.size() < 2 ? std::string() : payload.substr(2);
}

std::string BuildHeader(std::uint8_t first, bool masked, std::uint64_t length, int length_bytes) {
  std::string out(1, static_cast<char>(first));
  const unsigned mask_bit = masked ? 0x80 : 0;
  if (length_bytes == 0) {
    out += static_cast<char>(mask_bit | length);
    return out;
  }
  out += static_cast<char>(mask_bit | (length_bytes == 2 ? 126U : 127U));
  for (int shift = (length_bytes - 1) * 8; shift >= 0; shift -= 8) {
    out += static_cast<char>((length >> shift) & 0xFF);
  }
  return out;
}

std::string BuildFrame(std::uint8_t opcode, std::string_view payload, FrameOptions options) {
  const auto first =
      static_cast<std::uint8_t>((options.fin ? 0x80 : 0) | (options.rsv << 4) | opcode);
  const int length_bytes = payload.size() < 126 ? 0 : payload.size() < 65536 ? 2 : 8;
  std::string out = BuildHeader(first, options.masked, payload.size(), length_bytes);
  if (!options.masked) {
    out += payload;
    return out;
  }
  constexpr std::array<unsigned char, 4> kMask = {0x37, 0xFA, 0x21, 0x3D};
  for (const unsigned char byte : kMask) {
    out += static_cast<char>(byte);
  }
  for (std::size_t i = 0; i < payload.size(); ++i) {
    out += static_cast<char>(static_cast<unsigned char>(payload[i]) ^ kMask[i % 4]);
  }
  return out;
}

std::string ClosePayload(std::uint16_t code, std::string_view reason) {
  std::string payload;
  payload += static_cast<char>(code >> 8);
  payload += static_cast<char>(code & 0xFF);
  payload += reason;
  return payload;
}

std::optional<Frame> TakeFrame(std::string& bytes) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  if (bytes.size() < 2) {
    return std::nullopt;
  }
  Frame frame;
  frame.fin = (byte(0) & 0x80) != 0;
  frame.rsv = static_cast<std::uint8_t>((byte(0) >> 4) & 7);
  frame.opcode = static_cast<std::uint8_t>(byte(0) & 15);
  frame.masked = (byte(1) & 0x80) != 0;
  std::uint64_t length = byte(1) & 0x7F;
  std::size_t at = 2;
  if (length >= 126) {
    const std::size_t wide = length == 126 ? 2 : 8;
    if (bytes.size() < at + wide) {
      return std::nullopt;
    }
    length = 0;
    for (std::size_t i = 0; i < wide; ++i) {
      length = (length << 8) | byte(at + i);
    }
    at += wide;
  }
  if (frame.masked) {
    if (bytes.size() < at + 4) {
      return std::nullopt;
    }
    frame.mask = bytes.substr(at, 4);
    at += 4;
  }
  if (bytes.size() - at < length) {
    return std::nullopt;
  }
  frame.payload = bytes.substr(at, static_cast<std::size_t>(length));
  bytes.erase(0, at + static_cast<std::size_t>(length));
  for (std::size_t i = 0; frame.masked && i < frame.payload.size(); ++i) {
    frame.payload[i] = static_cast<char>(frame.payload[i] ^ frame.mask[i % 4]);
  }
  return frame;
}

std::string AcceptFor(std::string_view key) {
  std::string text(key);
  text += "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha1(), nullptr);
  std::array<unsigned char, 64> encoded{};
  const int length = EVP_EncodeBlock(encoded.data(), digest.data(), static_cast<int>(size));
  return {encoded.begin(), encoded.begin() + length};
}

std::string UpgradeRequest(std::string_view target, std::string_view more, std::string_view host) {
  std::string out = "GET ";
  out += target;
  out += " HTTP/1.1\r\nHost: ";
  out += host;
  out +=
      "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
      "Sec-WebSocket-Key: ";
  out += kKey;
  out += "\r\n";
  out += more;
  out += "\r\n";
  return out;
}

std::string SwitchingProtocols(std::string_view key, std::string_view more) {
  std::string out =
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Accept: ";
  out += AcceptFor(key);
  out += "\r\n";
  out += more;
  out += "\r\n";
  return out;
}

}  // namespace sluice::test
