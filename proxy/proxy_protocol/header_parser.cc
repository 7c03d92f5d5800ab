#include "proxy/proxy_protocol/header_parser.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

#include "proxy/proxy_protocol/wire.h"

namespace sluice::proxy_protocol {
namespace {

constexpr std::string_view kV1Start = "PROXY ";

Parsed NeedMore() noexcept {
  return {};
}

Parsed Bad(std::string_view reason) noexcept {
  return {ParseStatus::kBad, 0, reason, {}};
}

Parsed Done(std::size_t size, const Header& header) noexcept {
  return {ParseStatus::kDone, size, {}, header};
}

bool IsPrefixOf(std::string_view start, std::string_view text) noexcept {
  return text.substr(0, start.size()) == start;
}

// Version 1, section 2.1.

// Cuts the text up to the next space off the front of `rest`.
std::string_view TakeWord(std::string_view& rest) noexcept {
  const std::size_t space = rest.find(' ');
  const std::string_view word = rest.substr(0, space);
  rest = space == std::string_view::npos ? std::string_view() : rest.substr(space + 1);
  return word;
}

bool ReadIp(std::string_view word, Endpoint& out) noexcept {
  std::array<char, INET6_ADDRSTRLEN> text{};  // inet_pton(3) wants its end marked
  if (word.size() >= text.size() || word.find('\0') != std::string_view::npos) {
    return false;
  }
  std::copy(word.begin(), word.end(), text.begin());
  return ::inet_pton(out.v6 ? AF_INET6 : AF_INET, text.data(), out.ip.data()) == 1;
}

bool ReadPort(std::string_view word, std::uint16_t& out) noexcept {
  if (word.empty() || (word.size() > 1 && word.front() == '0')) {
    return false;
  }
  const char* end = word.data() + word.size();
  const auto [stop, error] = std::from_chars(word.data(), end, out);
  return error == std::errc() && stop == end;
}

// `line` is without its CRLF and begins with kV1Start.
Parsed ReadV1(std::string_view line) noexcept {
  const std::size_t size = line.size() + 2;
  std::string_view rest = line.substr(kV1Start.size());
  Header header;
  header.version = Version::kV1;
  const std::size_t spaces = static_cast<std::size_t>(std::count(rest.begin(), rest.end(), ' '));
  const std::string_view protocol = TakeWord(rest);
  if (protocol == "UNKNOWN") {
    header.subject = Subject::kUnknown;  // what follows on the line is to be ignored
    return Done(size, header);
  }
  if (protocol != "TCP4" && protocol != "TCP6") {
    return Bad("neither TCP4 nor TCP6 nor UNKNOWN");
  }
  if (spaces != 4) {
    return Bad("not two addresses and two ports");
  }
  header.subject = Subject::kClient;
  header.source.v6 = header.destination.v6 = protocol == "TCP6";
  if (!ReadIp(TakeWord(rest), header.source) || !ReadIp(TakeWord(rest), header.destination)) {
    return Bad("an address that is none of its family");
  }
  if (!ReadPort(TakeWord(rest), header.source.port) ||
      !ReadPort(TakeWord(rest), header.destination.port)) {
    return Bad("a port that is none");
  }
  return Done(size, header);
}

Parsed ParseV1(std::string_view bytes) noexcept {
  const std::size_t cr = bytes.substr(0, kMostV1 - 1).find('\r');
  if (cr == std::string_view::npos) {
    return bytes.size() >= kMostV1 - 1 ? Bad("a line that is too long") : NeedMore();
  }
  if (bytes.size() == cr + 1) {
    return NeedMore();
  }
  if (bytes[cr + 1] != '\n') {
    return Bad("a CR without its LF");
  }
  return ReadV1(bytes.substr(0, cr));
}

// Version 2, section 2.2.

unsigned At(std::string_view bytes, std::size_t i) noexcept {
  return static_cast<unsigned char>(bytes[i]);
}

unsigned NumberAt(std::string_view bytes, std::size_t i) noexcept {
  return At(bytes, i) << 8U | At(bytes, i + 1);
}

// RFC 9260 appendix A. Bit by bit: a table for a few dozen bytes once in a connection does not pay.
class Crc32c {
 public:
  void Add(std::string_view bytes) noexcept {
    for (const char c : bytes) {
      value_ ^= static_cast<unsigned char>(c);
      for (int bit = 0; bit < 8; ++bit) {
        value_ = (value_ >> 1U) ^ ((value_ & 1U) != 0 ? 0x82F63B78U : 0U);
      }
    }
  }
  [[nodiscard]] std::uint32_t value() const noexcept { return ~value_; }

 private:
  std::uint32_t value_ = ~0U;
};

// Section 2.2.3: over the whole header, with zeros in place of the sum itself, which is at `at`.
bool SumIsRight(std::string_view header, std::size_t at) noexcept {
  constexpr std::string_view kZeros("\0\0\0\0", 4);
  Crc32c crc;
  crc.Add(header.substr(0, at));
  crc.Add(kZeros);
  crc.Add(header.substr(at + kZeros.size()));
  return (NumberAt(header, at) << 16U | NumberAt(header, at + 2)) == crc.value();
}

// The additional fields, which begin at `at`. Returns what is wrong with them, or nothing.
std::string_view FaultOfFields(std::string_view header, std::size_t at) noexcept {
  bool summed = false;
  while (at < header.size()) {
    if (header.size() - at < kTlvStart) {
      return "a field that is cut off";
    }
    const std::size_t size = NumberAt(header, at + 1);
    const std::size_t value = at + kTlvStart;
    if (header.size() - value < size) {
      return "a field beyond the header";
    }
    if (At(header, at) == kTypeCrc32c) {
      if (summed || size != 4) {
        return "not one checksum of four bytes";
      }
      summed = true;
      if (!SumIsRight(header, value)) {
        return "a checksum that is wrong";
      }
    }
    at = value + size;
  }
  return {};
}

std::size_t SizeOfAddresses(unsigned family) noexcept {
  switch (family) {
    case kInet:
      return kInetSize;
    case kInet6:
      return kInet6Size;
    case kUnix:
      return kUnixSize;
    default:
      return 0;
  }
}

// `at`: where the addresses begin.
void ReadEndpoints(std::string_view header, std::size_t at, Header& out) noexcept {
  const std::size_t size = out.source.v6 ? 16 : 4;
  std::memcpy(out.source.ip.data(), header.data() + at, size);
  std::memcpy(out.destination.ip.data(), header.data() + at + size, size);
  out.source.port = static_cast<std::uint16_t>(NumberAt(header, at + 2 * size));
  out.destination.port = static_cast<std::uint16_t>(NumberAt(header, at + 2 * size + 2));
}

Parsed ReadV2(std::string_view header, unsigned command, unsigned family) noexcept {
  Header out;
  out.version = Version::kV2;
  if (command == kLocalCommand) {
    out.subject = Subject::kLocal;  // what follows is to be ignored, its family included
    return Done(header.size(), out);
  }
  out.subject = Subject::kUnknown;
  if (family == kUnspec) {
    return Done(header.size(), out);  // where its addresses end is not known
  }
  const std::size_t addresses = SizeOfAddresses(family);
  if (header.size() < kV2Start + addresses) {
    return Bad("shorter than its addresses");
  }
  if (const std::string_view fault = FaultOfFields(header, kV2Start + addresses); !fault.empty()) {
    return Bad(fault);
  }
  // A datagram's addresses count as well: the proxy may have ended QUIC. A path of a Unix socket
  // tells of nobody.
  if (family != kUnix) {
    out.subject = Subject::kClient;
    out.source.v6 = out.destination.v6 = family == kInet6;
    ReadEndpoints(header, kV2Start, out);
  }
  return Done(header.size(), out);
}

Parsed ParseV2(std::string_view bytes) noexcept {
  // Each byte is judged as soon as it is there: whoever speaks another protocol is told at once.
  if (bytes.size() <= kSignature.size()) {
    return NeedMore();
  }
  const unsigned version = At(bytes, 12) >> 4U;
  const unsigned command = At(bytes, 12) & 0xFU;
  if (version != kVersion2) {
    return Bad("an unknown version");
  }
  if (command != kLocalCommand && command != kProxyCommand) {
    return Bad("an unknown command");
  }
  if (bytes.size() < 14) {
    return NeedMore();
  }
  const unsigned family = At(bytes, 13) >> 4U;
  const unsigned protocol = At(bytes, 13) & 0xFU;
  if (command == kProxyCommand) {
    if (family > kUnix || protocol > kDatagram) {
      return Bad("an unknown family or protocol");
    }
    if ((family == kUnspec) != (protocol == kUnspec)) {
      return Bad("half of family and protocol unspecified");
    }
  }
  if (bytes.size() < kV2Start) {
    return NeedMore();
  }
  const std::size_t size = kV2Start + NumberAt(bytes, 14);
  if (size > kMostHeader) {
    return Bad("too long");
  }
  if (bytes.size() < size) {
    return NeedMore();
  }
  return ReadV2(bytes.substr(0, size), command, family);
}

}  // namespace

Parsed Parse(Bytes bytes) noexcept {
  const std::string_view text = AsText(bytes);
  if (IsPrefixOf(text.substr(0, kSignature.size()), kSignature)) {
    return ParseV2(text);
  }
  if (IsPrefixOf(text.substr(0, kV1Start.size()), kV1Start)) {
    return ParseV1(text);
  }
  return Bad("no PROXY header");
}

}  // namespace sluice::proxy_protocol
