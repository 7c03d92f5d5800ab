// Proves what a check sends and what it makes of every answer, wherever the bytes are cut.
#include "proxy/health/dialogue.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/base/base64.h"

#include "tests/support/split.h"

namespace sluice::health {
namespace {

using test::ForEachSplit;

Nonces SomeNonces() {
  Nonces nonces;
  for (std::size_t i = 0; i < nonces.key.size(); ++i) {
    nonces.key[i] = static_cast<std::byte>(i + 1);
  }
  for (std::size_t i = 0; i < nonces.ping.size(); ++i) {
    nonces.ping[i] = static_cast<std::byte>('a' + i);
  }
  nonces.masks[0] = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
  nonces.masks[1] = {std::byte{5}, std::byte{6}, std::byte{7}, std::byte{8}};
  return nonces;
}

Check SomeCheck(CheckType type, bool ping = false) {
  Check check;
  check.type = type;
  check.path = "/live?x=1";
  check.host = "chat.test:81";
  check.ping = ping;
  return check;
}

const std::string kKeyText = "AQIDBAUGBwgJCgsMDQ4PEA==";
constexpr std::string_view kPong =
    "\x8A\x08"
    "abcdefgh";
constexpr std::string_view kClose = "\x88\x02\x03\xE8";

std::string SwitchingProtocols(std::string_view more = {}) {
  return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Accept: " +
         ws::AcceptKey(kKeyText) + "\r\n" + std::string(more) + "\r\n";
}

// One check that has sent its opening, and what it said after that.
struct Played {
  explicit Played(const Check& its_check) : check(its_check), dialogue(check, SomeNonces()) {
    dialogue.OnConnected();
    opening = dialogue.TakeOutput();
  }

  // False: there is a result, and the rest was not looked at.
  bool Take(std::string_view bytes) {
    dialogue.Take(AsBytes(bytes));
    said += dialogue.TakeOutput();
    return !dialogue.result();
  }

  // "passed", the error, or "" while there is no result.
  std::string result() const {
    const auto& of = dialogue.result();
    return !of ? "" : of->passed ? "passed" : of->error;
  }

  const Check check;
  Dialogue dialogue;
  std::string opening;
  std::string said;
};

void ExpectResult(const Check& check, std::string_view answer, std::string_view want,
                  std::string_view says = {}) {
  ForEachSplit(answer, [&](const std::vector<std::string_view>& pieces, const std::string& label) {
    Played played(check);
    for (const std::string_view piece : pieces) {
      if (!played.Take(piece)) {
        break;
      }
    }
    EXPECT_EQ(played.result(), want) << label;
    EXPECT_EQ(played.said, says) << label;
  });
}

// As RFC 6455 section 5.3 masks them.
std::string Masked(std::uint8_t first, std::string_view payload, const ws::MaskKey& mask) {
  std::string out{static_cast<char>(first), static_cast<char>(0x80 | payload.size())};
  out += AsText(mask);
  for (std::size_t i = 0; i < payload.size(); ++i) {
    out += static_cast<char>(payload[i] ^ static_cast<char>(mask[i % 4]));
  }
  return out;
}

const std::string kOurPing = Masked(0x89, "abcdefgh", SomeNonces().masks[0]);
const std::string kOurClose = Masked(0x88, "\x03\xE8", SomeNonces().masks[1]);

TEST(TcpDialogue, PassesOnceConnectedAndSaysNothing) {
  Played played(SomeCheck(CheckType::kTcp));
  EXPECT_EQ(played.result(), "passed");
  EXPECT_EQ(played.opening, "");
}

TEST(HttpDialogue, AsksOnceAndForTheLastTime) {
  Played played(SomeCheck(CheckType::kHttp));
  EXPECT_EQ(played.opening,
            "GET /live?x=1 HTTP/1.1\r\nHost: chat.test:81\r\nUser-Agent: sluice-health-check\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(played.result(), "");
}

TEST(HttpDialogue, BeginsWithThePreamble) {
  Check check = SomeCheck(CheckType::kHttp);
  check.preamble = "PROXY UNKNOWN\r\n";
  EXPECT_TRUE(Played(check).opening.starts_with("PROXY UNKNOWN\r\nGET /live?x=1 HTTP/1.1\r\n"));
}

TEST(HttpDialogue, JudgesByTheStatus) {
  Check check = SomeCheck(CheckType::kHttp);
  ExpectResult(check, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "passed");
  ExpectResult(check, "HTTP/1.1 399 X\r\n\r\n", "passed");
  ExpectResult(check, "HTTP/1.1 400 Bad\r\n\r\n", "answered 400");
  ExpectResult(check, "HTTP/1.0 503 Busy\r\n\r\n", "answered 503");
  check.least_status = check.most_status = 204;
  ExpectResult(check, "HTTP/1.1 204 No Content\r\n\r\n", "passed");
  ExpectResult(check, "HTTP/1.1 200 OK\r\n\r\n", "answered 200");
  ExpectResult(check, SwitchingProtocols(), "answered 101");
}

TEST(HttpDialogue, WaitsForTheFinalAnswer) {
  const Check check = SomeCheck(CheckType::kHttp);
  const std::string interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
  ExpectResult(check, interim + interim + "HTTP/1.1 200 OK\r\n\r\n", "passed");
  ExpectResult(check, interim, "");
  std::string many;
  for (int i = 0; i < 17; ++i) {
    many += "HTTP/1.1 100 Continue\r\n\r\n";
  }
  ExpectResult(check, many, "too many interim answers");
}

TEST(HttpDialogue, TakesNothingThatIsNotHttp) {
  const Check check = SomeCheck(CheckType::kHttp);
  Played played(check);
  EXPECT_FALSE(played.Take("SSH-2.0-OpenSSH_9.2\r\n"));
  EXPECT_TRUE(played.result().starts_with("the answer is not valid HTTP: ")) << played.result();
  Played endless(check);
  std::size_t sent = 0;
  while (endless.Take("HTTP/1.1 200 OK\r\n" + std::string(sent == 0 ? 0 : 100, 'x') + ": y\r\n")) {
    sent += 100;
    ASSERT_LT(sent, 64U * 1024) << "the head is not bounded";
  }
  EXPECT_TRUE(endless.result().starts_with("the answer is not valid HTTP: ")) << endless.result();
}

TEST(WebSocketDialogue, AsksForAnUpgradeAndNothingElse) {
  Played played(SomeCheck(CheckType::kWebSocket));
  EXPECT_EQ(played.opening,
            "GET /live?x=1 HTTP/1.1\r\nHost: chat.test:81\r\nUser-Agent: sluice-health-check\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: " +
                kKeyText + "\r\n\r\n");
}

TEST(WebSocketDialogue, ClosesInOrderAfterThe101) {
  const Check check = SomeCheck(CheckType::kWebSocket);
  ExpectResult(check, SwitchingProtocols(), "", kOurClose);
  ExpectResult(check, SwitchingProtocols() + std::string(kClose), "passed", kOurClose);
  // A greeting, also one that has begun before the CLOSE; a CLOSE without a code.
  ExpectResult(check, SwitchingProtocols() + "\x81\x05hello" + std::string("\x88\x00", 2), "passed",
               kOurClose);
}

TEST(WebSocketDialogue, WantsItsPongFirst) {
  const Check check = SomeCheck(CheckType::kWebSocket, true);
  const std::string answer = SwitchingProtocols();
  ExpectResult(check, answer, "", kOurPing);
  ExpectResult(check, answer + std::string(kPong), "", kOurPing + kOurClose);
  ExpectResult(check, answer + std::string(kPong) + std::string(kClose), "passed",
               kOurPing + kOurClose);
  // Other frames, and pongs that are not ours, do not count.
  const std::string others =
      "\x81\x08"
      "abcdefgh\x8A\x08"
      "abcdefgX\x8A\x07"
      "bcdefgh\x89\x01x";
  ExpectResult(check, answer + others, "", kOurPing);
  ExpectResult(check, answer + others + std::string(kPong) + std::string(kClose), "passed",
               kOurPing + kOurClose);
  ExpectResult(check, answer + "\x88\x02\x03\xF0", "closed with 1008 before the pong", kOurPing);
}

TEST(WebSocketDialogue, TakesNo101ThatDoesNotHold) {
  const Check check = SomeCheck(CheckType::kWebSocket);
  std::string wrong = SwitchingProtocols();
  wrong.replace(wrong.find("Accept: ") + 8, 4, "AAAA");
  ExpectResult(check, wrong, "the backend's Sec-WebSocket-Accept does not match the key");
  ExpectResult(check, SwitchingProtocols("Sec-WebSocket-Protocol: chat\r\n"),
               "the backend chose a subprotocol that was not offered");
  ExpectResult(check, SwitchingProtocols("Sec-WebSocket-Extensions: permessage-deflate\r\n"),
               "the backend agreed an extension that was not offered");
  ExpectResult(check, "HTTP/1.1 200 OK\r\n\r\n", "answered 200 to an upgrade");
  ExpectResult(check, "HTTP/1.1 403 Forbidden\r\n\r\n", "answered 403 to an upgrade");
}

TEST(WebSocketDialogue, TakesNoFrameThatBreaksTheRules) {
  const Check check = SomeCheck(CheckType::kWebSocket);
  ExpectResult(check,
               SwitchingProtocols() + std::string("\x81\x80"
                                                  "abcd",
                                                  6),
               "a frame breaks the protocol: masked_backend_frame", kOurClose);
}

TEST(WebSocketDialogue, GivesUpOnOneThatNeverEnds) {
  Played played(SomeCheck(CheckType::kWebSocket));
  ASSERT_TRUE(played.Take(SwitchingProtocols()));
  const std::string frame = "\x82\x7E\x10" + std::string(1, '\0') + std::string(4096, 'x');
  std::size_t frames = 0;
  while (played.Take(frame)) {
    ASSERT_LT(++frames, 100U) << "what it says is not bounded";
  }
  EXPECT_EQ(played.result(), "it goes on sending, without an answer");
}

struct Ending {
  const char* so_far;  // what has come after the opening
  const char* closed;
  const char* reset;
  const char* timeout;
};

TEST(WebSocketDialogue, SaysHowFarItCame) {
  const std::string answer = SwitchingProtocols();
  const std::string with_pong = answer + std::string(kPong);
  const Ending cases[] = {
      {"", "closed without an answer", "reset without an answer", "no answer in time"},
      {"HTTP/1", "closed inside its answer", "reset inside its answer", "no answer in time"},
      {answer.c_str(), "closed before the pong", "reset before the pong", "no pong in time"},
      {with_pong.c_str(), "closed without a CLOSE", "reset without a CLOSE",
       "no answer to CLOSE in time"},
  };
  for (const Ending& one : cases) {
    const auto played = [&](auto&& end) {
      Played it(SomeCheck(CheckType::kWebSocket, true));
      EXPECT_TRUE(it.Take(one.so_far));
      end(it.dialogue);
      return it.result();
    };
    EXPECT_EQ(played([](Dialogue& it) { it.OnEnd(false); }), one.closed);
    EXPECT_EQ(played([](Dialogue& it) { it.OnEnd(true); }), one.reset);
    EXPECT_EQ(played([](Dialogue& it) { it.OnTimeout(); }), one.timeout);
  }
  const Check check = SomeCheck(CheckType::kTcp);
  Dialogue unconnected(check, SomeNonces());
  unconnected.OnTimeout();
  EXPECT_EQ(unconnected.result()->error, "not connected in time");
}

}  // namespace
}  // namespace sluice::health
