#include "tests/desync/answer.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <iterator>
#include <string_view>

#include "tests/deploy/storm/dice.h"
#include "tests/desync/digest.h"

namespace sluice::desync {
namespace {

using storm::Dice;

// Belongs to no request: whoever gets it was given somebody else's bytes.
constexpr std::string_view kStray =
    "HTTP/1.1 200 OK\r\nX-Id: 999999999\r\nContent-Length: 5\r\n\r\nstray";

std::string Content(std::size_t size, Dice& dice) {
  std::string content;
  content.reserve(size + kStray.size());
  if (dice.Percent(30)) {
    while (content.size() < size) {
      content += kStray;
    }
  } else {
    while (content.size() < size) {
      std::uint64_t word = dice.Next();
      for (int i = 0; i < 8; ++i, word >>= 8U) {
        content += static_cast<char>(word & 0xFFU);
      }
    }
  }
  content.resize(size);
  return content;
}

std::size_t Size(Dice& dice) {
  const std::uint64_t kind = dice.Below(100);
  if (kind < 15) {
    return 0;
  }
  if (kind < 80) {
    return dice.Between(1, 300);
  }
  return kind < 98 ? dice.Between(300, 6000) : dice.Between(6000, 80'000);
}

std::string Hex(std::size_t size, Dice& dice) {
  std::array<char, 32> text{};
  const int width = dice.Percent(10) ? static_cast<int>(dice.Between(1, 10)) : 1;
  std::snprintf(text.data(), text.size(), dice.Percent(50) ? "%0*zx" : "%0*zX", width, size);
  return text.data();
}

std::string_view Extension(Dice& dice) {
  constexpr std::array<std::string_view, 4> kOnes = {";a", ";a=b", ";a=\"b;c\"", ";a=1;b=\"\""};
  return dice.Percent(20) ? kOnes[dice.Below(kOnes.size())] : std::string_view();
}

std::string Chunks(std::string_view content, Dice& dice) {
  std::string out;
  while (!content.empty()) {
    const std::size_t most = dice.Percent(50) ? 16 : content.size();
    const std::size_t size = dice.Between(1, std::min(most, content.size()));
    // Thousands of tiny chunks tell no more than a few.
    const std::size_t taken = content.size() > 1000 ? std::max<std::size_t>(size, 500) : size;
    out += Hex(taken, dice);
    out += Extension(dice);
    out += "\r\n";
    out += content.substr(0, taken);
    out += "\r\n";
    content.remove_prefix(taken);
  }
  return out;
}

std::string LastChunk(Dice& dice) {
  std::string out = dice.Percent(20) ? "000" : "0";
  out += Extension(dice);
  out += "\r\n";
  if (dice.Percent(20)) {
    out += "X-Trailer: t\r\n";
  }
  if (dice.Percent(10)) {
    out += "Content-Length: 3\r\n";
  }
  return out + "\r\n";
}

std::string StatusLine(int status) {
  return "HTTP/1.1 " + std::to_string(status) + " Drawn\r\n";
}

// Heads that a proxy must not pass on: two readers find two ends.
std::string BadHead(const std::string& identity, Dice& dice) {
  const std::string ok = "HTTP/1.1 200 OK\r\n" + identity;
  const std::array<std::string, 12> heads = {
      ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
      ok + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
      ok + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      ok + "Content-Length: +5\r\n\r\nhello",
      ok + "Content-Length: 5, 5\r\n\r\nhello",
      ok + "Content-Length:\r\n\r\n",
      ok + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
      ok + "X: a\r\n Content-Length: 5\r\n\r\nhello",
      ok + "Content-Length : 5\r\n\r\nhello",
      ok + "X: a\nContent-Length: 5\r\n\r\nhello",
      "HTTP/1.1 101 Switching Protocols\r\n" + identity +
          "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
      "HTTP/2.0 200 OK\r\n" + identity + "Content-Length: 0\r\n\r\n",
  };
  return heads[dice.Below(heads.size())];
}

// Ends of chunked content that are none.
std::string BadChunk(Dice& dice) {
  constexpr std::array<std::string_view, 7> kOnes = {
      "+5\r\nhello\r\n0\r\n\r\n",     "0x5\r\nhello\r\n0\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n",
      "5;a\rb\r\nhello\r\n0\r\n\r\n", "5\nhello\r\n0\r\n\r\n",     "5\r\nhelloX\r\n0\r\n\r\n",
      "10000000000000005\r\nhello"};
  return std::string(kOnes[dice.Below(kOnes.size())]);
}

enum class Framing { kLength, kChunked, kUntilClose, kNothing };

}  // namespace

Answer MakeAnswer(std::uint64_t seed, std::uint64_t id, bool to_head, bool to_upgrade) {
  Dice dice(seed);
  Answer answer;
  const std::string identity = "X-Id: " + std::to_string(id) + "\r\n";
  for (std::uint64_t i = dice.Percent(15) ? dice.Between(1, 2) : 0; i > 0; --i) {
    ++answer.interim;
    answer.bytes += dice.Percent(50) ? "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
                                     : "HTTP/1.1 102 Processing\r\n\r\n";
  }
  const bool whole = (seed & kWholeOnly) != 0;
  if (!whole && dice.Percent(10)) {
    answer.worth = Answer::Worth::kBad;
    answer.status = 502;
    answer.bytes += BadHead(identity, dice);
    answer.end = answer.bytes.size();
    return answer;
  }

  constexpr std::array<int, 8> kStatuses = {200, 200, 200, 201, 302, 404, 204, 304};
  constexpr std::array<int, 4> kRefusals = {426, 426, 401, 302};
  answer.status = to_upgrade ? kRefusals[dice.Below(kRefusals.size())]
                             : kStatuses[dice.Below(kStatuses.size())];
  const bool no_content = to_head || answer.status == 204 || answer.status == 304;
  const std::string content = Content(Size(dice), dice);
  const std::uint64_t draw = dice.Below(100);
  const Framing framing = draw < 45   ? Framing::kLength
                          : draw < 85 ? Framing::kChunked
                          : draw < 92 ? Framing::kUntilClose
                                      : Framing::kNothing;
  answer.bytes += StatusLine(answer.status) + identity;
  if (answer.status == 426) {
    answer.bytes += "Upgrade: websocket\r\nConnection: Upgrade\r\n";
  }
  if (dice.Percent(5)) {
    answer.bytes += "Connection: X-Drop\r\nX-Drop: 1\r\n";
  }
  answer.closes = dice.Percent(6) || (framing == Framing::kUntilClose && !no_content);
  if (answer.closes && dice.Percent(70)) {
    answer.bytes += "Connection: close\r\n";
  } else {
    answer.silently = answer.closes && (framing != Framing::kUntilClose || no_content);
  }
  if (no_content) {
    // They may tell what the content would be, and none follows.
    if (framing == Framing::kLength) {
      answer.bytes += "Content-Length: " + std::to_string(content.size()) + "\r\n";
    } else if (framing == Framing::kChunked && to_head) {
      answer.bytes += "Transfer-Encoding: chunked\r\n";
    }
    answer.bytes += "\r\n";
    answer.content = kNoBytes;
  } else {
    answer.content = Digest(framing == Framing::kNothing ? std::string_view() : content);
    const bool cut = !whole && framing != Framing::kNothing && framing != Framing::kUntilClose &&
                     dice.Percent(8);
    if (cut) {
      answer.worth = Answer::Worth::kCut;
      answer.closes = framing == Framing::kLength || dice.Percent(50);
    }
    switch (framing) {
      case Framing::kLength:
        // Of what is cut the last byte is missing, and perhaps more.
        answer.bytes += "Content-Length: " + std::to_string(content.size() + (cut ? 1 : 0)) +
                        "\r\n\r\n" + content;
        break;
      case Framing::kChunked:
        answer.bytes += "Transfer-Encoding: chunked\r\n\r\n" + Chunks(content, dice);
        if (!cut) {
          answer.bytes += LastChunk(dice);
        } else if (!answer.closes) {
          answer.bytes += BadChunk(dice);
        }
        break;
      case Framing::kUntilClose:
        answer.bytes += "\r\n" + content;
        break;
      case Framing::kNothing:
        answer.bytes += "Content-Length: 0\r\n\r\n";
        break;
    }
  }
  answer.end = answer.bytes.size();
  const bool may_have_more =
      answer.worth == Answer::Worth::kWhole && !answer.closes && answer.bytes.size() < 4000;
  if (may_have_more && dice.Percent(5)) {
    answer.bytes += kStray;
  }
  return answer;
}

}  // namespace sluice::desync
