// Proves that EchoServer echoes what it was sent, speaks HTTP and closes in order, and that no
// client can make it fall over or hold more than its bounds. Real sockets on loopback: the loop
// runs in a thread, the client's calls block with a deadline.
#include "proxy/demo/echo_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/base/unique_fd.h"
#include "proxy/demo/page.h"
#include "proxy/net/loop.h"
#include "proxy/net/socket.h"

#include "tests/support/split.h"

namespace sluice::demo {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using namespace std::string_literals;

constexpr unsigned kFin = 0x80;
constexpr unsigned kRsv1 = 0x40;
constexpr unsigned kContinuation = 0x0;
constexpr unsigned kText = 0x1;
constexpr unsigned kBinary = 0x2;
constexpr unsigned kClose = 0x8;
constexpr unsigned kPing = 0x9;
constexpr unsigned kPong = 0xA;

// A frame as a client sends it. `declared`: a length that is not that of the payload.
std::string Masked(unsigned first, std::string_view payload, std::uint64_t declared = 0) {
  constexpr std::string_view kMask = "\x37\xfa\x21\x3d";
  const std::uint64_t length = declared != 0 ? declared : payload.size();
  const unsigned bytes = length < 126 ? 0 : length <= 0xFFFF ? 2 : 8;
  std::string out(1, static_cast<char>(first));
  const std::uint64_t low = bytes == 0 ? length : bytes == 2 ? 126 : 127;
  out.push_back(static_cast<char>(0x80U | low));
  for (unsigned i = bytes; i > 0; --i) {
    out.push_back(static_cast<char>(length >> (8 * (i - 1)) & 0xFFU));
  }
  out.append(kMask);
  for (std::size_t i = 0; i < payload.size(); ++i) {
    out.push_back(static_cast<char>(payload[i] ^ kMask[i % 4]));
  }
  return out;
}

std::string CloseBody(unsigned code, std::string_view reason = {}) {
  std::string out;
  out.push_back(static_cast<char>(code >> 8U));
  out.push_back(static_cast<char>(code & 0xFFU));
  return out.append(reason);
}

// The example of RFC 6455 section 1.3; `fields` are whole lines.
std::string UpgradeRequest(std::string_view fields = {}) {
  std::string out =
      "GET /ws HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
  return out.append(fields).append("\r\n");
}

struct Frame {
  unsigned first = 0;
  std::string payload;

  friend bool operator==(const Frame&, const Frame&) = default;

  friend std::ostream& operator<<(std::ostream& out, const Frame& frame) {
    return out << "{0x" << std::hex << frame.first << std::dec << ", " << frame.payload.size()
               << " bytes: " << testing::PrintToString(frame.payload.substr(0, 40)) << "}";
  }
};

struct Answer {
  std::string head;  // with the empty line
  std::string body;
};

// A blocking client. What does not come within the deadline reads as the end.
class Client {
 public:
  explicit Client(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const timeval deadline{.tv_sec = 20, .tv_usec = 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof(deadline));
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &deadline, sizeof(deadline));
    const int on = 1;
    ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    const auto to = net::Address::FromNumeric("127.0.0.1", port);
    connected_ = ::connect(fd_.get(), to->raw(), to->raw_size()) == 0;
  }

  [[nodiscard]] bool connected() const { return connected_; }
  [[nodiscard]] int fd() const { return fd_.get(); }

  // False when the server has closed before it took everything.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) {
        return false;
      }
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }

  void FinishSending() { ::shutdown(fd_.get(), SHUT_WR); }

  // Exactly `count` bytes, fewer if they do not come.
  std::string Read(std::size_t count) {
    while (in_.size() < count && Fill()) {
    }
    std::string out = in_.substr(0, count);
    in_.erase(0, count);
    return out;
  }

  std::string ReadHead() {
    std::size_t end = 0;
    while ((end = in_.find("\r\n\r\n")) == std::string::npos && Fill()) {
    }
    return end == std::string::npos ? std::exchange(in_, {}) : Read(end + 4);
  }

  Answer ReadAnswer(bool to_head_request = false) {
    Answer answer{ReadHead(), {}};
    const std::size_t at = answer.head.find("Content-Length: ");
    if (at != std::string::npos && !to_head_request) {
      answer.body = Read(std::stoul(answer.head.substr(at + 16)));
    }
    return answer;
  }

  Frame ReadFrame() {
    const std::string start = Read(2);
    if (start.size() < 2) {
      return {};
    }
    std::uint64_t length = static_cast<unsigned char>(start[1]);
    EXPECT_LT(length, 128U) << "a backend's frame is masked";
    if (length >= 126) {
      const std::string more = Read(length == 126 ? 2 : 8);
      length = 0;
      for (const char c : more) {
        length = length << 8U | static_cast<unsigned char>(c);
      }
    }
    return {static_cast<unsigned char>(start[0]), Read(static_cast<std::size_t>(length))};
  }

  // Everything up to FIN. `is_clean` is false after a reset or the deadline.
  std::string ReadToEnd(bool* is_clean = nullptr) {
    while (Fill()) {
    }
    if (is_clean != nullptr) {
      *is_clean = last_ == 0;
    }
    return std::exchange(in_, {});
  }

  // FIN and nothing before it.
  bool ReadEnd() {
    bool is_clean = false;
    return ReadToEnd(&is_clean).empty() && is_clean;
  }

 private:
  bool Fill() {
    char bytes[65536];
    last_ = ::recv(fd_.get(), bytes, sizeof(bytes), 0);
    if (last_ > 0) {
      in_.append(bytes, static_cast<std::size_t>(last_));
    }
    return last_ > 0;
  }

  UniqueFd fd_;
  std::string in_;
  ssize_t last_ = 0;
  bool connected_ = false;
};

class EchoServerTest : public testing::Test {
 protected:
  EchoServerTest() {
    auto listening = net::Listen(*net::Address::FromNumeric("127.0.0.1", 0));
    port_ = net::Address::OfSocket(listening->get()).port();
    server_ = std::make_unique<EchoServer>(loop_, "demo-7", std::move(*listening));
    thread_ = std::thread([this] { loop_.Run(); });
  }

  // Sessions that a test left open are closed by the server's destructor.
  ~EchoServerTest() override {
    loop_.Post([this] { loop_.Stop(); });
    thread_.join();
  }

  [[nodiscard]] Client Connect() const { return Client(port_); }

  // A client whose upgrade was agreed.
  [[nodiscard]] Client Open() const {
    Client client(port_);
    client.Send(UpgradeRequest());
    EXPECT_THAT(client.ReadHead(), StartsWith("HTTP/1.1 101 "));
    return client;
  }

  // Calls `f` in the loop's thread and returns what it returned.
  template <class F>
  auto InLoop(F f) {
    std::packaged_task<decltype(f())()> task(std::move(f));
    auto result = task.get_future();
    loop_.Post([&task] { task(); });
    return result.get();
  }

  net::Loop loop_;
  std::uint16_t port_ = 0;
  std::unique_ptr<EchoServer> server_;
  std::thread thread_;
};

TEST(EchoName, TakesOnlyWhatNeedsNoEscaping) {
  EXPECT_TRUE(IsEchoName("demo-1"));
  EXPECT_TRUE(IsEchoName("Echo_2.local"));
  EXPECT_TRUE(IsEchoName(std::string(64, 'a')));
  EXPECT_FALSE(IsEchoName(""));
  EXPECT_FALSE(IsEchoName(std::string(65, 'a')));
  EXPECT_FALSE(IsEchoName("a\"b"));
  EXPECT_FALSE(IsEchoName("a\r\nb"));
}

TEST(Page, IsWholeAndAsksNobodyElse) {
  EXPECT_THAT(std::string(Page()), StartsWith("<!doctype html>"));
  EXPECT_TRUE(Page().ends_with("</html>\n"));
  EXPECT_EQ(Page().find("src="), std::string_view::npos);
  EXPECT_EQ(Page().find("@import"), std::string_view::npos);
  EXPECT_EQ(Page().find("//cdn"), std::string_view::npos);
}

TEST_F(EchoServerTest, UpgradeIsAgreedWithoutExtensions) {
  Client client = Connect();
  client.Send(UpgradeRequest("Sec-WebSocket-Extensions: permessage-deflate\r\n"));
  const std::string head = client.ReadHead();
  EXPECT_THAT(head, StartsWith("HTTP/1.1 101 Switching Protocols\r\n"));
  // RFC 6455 section 1.3.
  EXPECT_THAT(head, HasSubstr("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
  EXPECT_THAT(head, HasSubstr("Upgrade: websocket\r\n"));
  EXPECT_THAT(head, HasSubstr("Connection: Upgrade\r\n"));
  EXPECT_THAT(head, HasSubstr("X-Backend: demo-7\r\n"));
  EXPECT_THAT(head, Not(HasSubstr("Sec-WebSocket-Extensions")));
  EXPECT_THAT(head, Not(HasSubstr("Sec-WebSocket-Protocol")));
}

TEST_F(EchoServerTest, TellsItsNameOnceWhenTheDemoProtocolIsOffered) {
  Client client = Connect();
  client.Send(UpgradeRequest("Sec-WebSocket-Protocol: chat, demo.sluice\r\n"));
  EXPECT_THAT(client.ReadHead(), HasSubstr("Sec-WebSocket-Protocol: demo.sluice\r\n"));
  EXPECT_EQ(client.ReadFrame(), (Frame{kFin | kText, "{\"backend\":\"demo-7\"}"}));
  client.Send(Masked(kFin | kText, "a"));
  EXPECT_EQ(client.ReadFrame(), (Frame{kFin | kText, "a"}));
}

TEST_F(EchoServerTest, SaysNothingUnaskedToOtherClients) {
  Client client = Connect();
  client.Send(UpgradeRequest("Sec-WebSocket-Protocol: chat, Demo.Sluice\r\n"));
  EXPECT_THAT(client.ReadHead(), Not(HasSubstr("Sec-WebSocket-Protocol")));
  client.Send(Masked(kFin | kText, "first"));
  EXPECT_EQ(client.ReadFrame(), (Frame{kFin | kText, "first"}));
}

TEST_F(EchoServerTest, EchoesEveryFormOfLength) {
  Client client = Open();
  std::mt19937 random(1);
  for (const std::size_t size : {0U, 1U, 125U, 126U, 65535U, 65536U, 1048576U}) {
    SCOPED_TRACE(size);
    std::string payload(size, '\0');
    for (char& c : payload) {
      c = static_cast<char>(random());
    }
    const std::string text(size, 'x');
    ASSERT_TRUE(client.Send(Masked(kFin | kBinary, payload)));
    EXPECT_EQ(client.ReadFrame(), (Frame{kFin | kBinary, payload}));
    ASSERT_TRUE(client.Send(Masked(kFin | kText, text)));
    EXPECT_EQ(client.ReadFrame(), (Frame{kFin | kText, text}));
  }
}

TEST_F(EchoServerTest, EchoesTheLargestMessageThatItTakes) {
  Client client = Open();
  const std::string payload(EchoServer::kMaxMessageBytes, 'm');
  std::thread sender([&] { client.Send(Masked(kFin | kBinary, payload)); });
  const Frame frame = client.ReadFrame();
  sender.join();
  EXPECT_EQ(frame, (Frame{kFin | kBinary, payload}));
}

TEST_F(EchoServerTest, PutsFragmentsTogetherAndAnswersPingsBetweenThem) {
  Client client = Open();
  client.Send(Masked(kText, "one ") + Masked(kFin | kPing, "p") + Masked(kContinuation, "") +
              Masked(kContinuation, "two ") + Masked(kFin | kPong, "unasked") +
              Masked(kFin | kContinuation, "three"));
  EXPECT_EQ(client.ReadFrame(), (Frame{kFin | kPong, "p"}));
  EXPECT_EQ(client.ReadFrame(), (Frame{kFin | kText, "one two three"}));
}

TEST_F(EchoServerTest, SaysTheSameHoweverTheBytesArrive) {
  const std::string input = UpgradeRequest("Sec-WebSocket-Protocol: demo.sluice\r\n") +
                            Masked(kText, "\xC3"s) + Masked(kFin | kPing, "ping") +
                            Masked(kFin | kContinuation, "\xA9"s) +
                            Masked(kFin | kBinary, std::string(130, '\xFF')) +
                            Masked(kFin | kClose, CloseBody(4321, "bye"));
  std::string want;
  test::ForEachSplit(input,
                     [&](const std::vector<std::string_view>& pieces, const std::string& label) {
                       SCOPED_TRACE(label);
                       Client client = Connect();
                       for (const std::string_view piece : pieces) {
                         ASSERT_TRUE(client.Send(piece));
                       }
                       bool is_clean = false;
                       const std::string got = client.ReadToEnd(&is_clean);
                       EXPECT_TRUE(is_clean);
                       if (want.empty()) {
                         want = got;
                         EXPECT_THAT(got, HasSubstr("\x81\x02\xC3\xA9"s + "\x82\x7E"s + "\0\x82"s));
                         EXPECT_TRUE(got.ends_with("\x88\x02\x10\xE1"));  // 4321
                       }
                       EXPECT_EQ(got, want);
                     });
}

TEST_F(EchoServerTest, EndsAfterAMessageWhenTheClientHasFinished) {
  Client client = Open();
  client.Send(Masked(kFin | kText, "last words"));
  client.FinishSending();
  EXPECT_EQ(client.ReadFrame(), (Frame{kFin | kText, "last words"}));
  EXPECT_TRUE(client.ReadEnd());
}

struct CloseCase {
  const char* name;
  std::string input;   // behind the upgrade
  std::string answer;  // payload of the CLOSE; of a CLOSE of ours the code only
};

void PrintTo(const CloseCase& c, std::ostream* out) {
  *out << c.name;
}

class CloseTest : public EchoServerTest, public testing::WithParamInterface<CloseCase> {};

TEST_P(CloseTest, AnswersOnceAndThenFin) {
  Client client = Open();
  // What follows a CLOSE, or the fault, is thrown away.
  client.Send(GetParam().input + Masked(kFin | kText, "too late"));
  Frame frame = client.ReadFrame();
  EXPECT_EQ(frame.first, kFin | kClose);
  EXPECT_EQ(frame.payload.substr(0, 2), GetParam().answer);
  EXPECT_TRUE(client.ReadEnd());
}

INSTANTIATE_TEST_SUITE_P(
    , CloseTest,
    testing::Values(
        CloseCase{"normal", Masked(kFin | kClose, CloseBody(1000)), CloseBody(1000)},
        CloseCase{"with_reason", Masked(kFin | kClose, CloseBody(1001, "bye")), CloseBody(1001)},
        CloseCase{"application", Masked(kFin | kClose, CloseBody(4999)), CloseBody(4999)},
        CloseCase{"without_code", Masked(kFin | kClose, ""), ""},
        CloseCase{"half_a_code", Masked(kFin | kClose, "\x03"), CloseBody(1002)},
        CloseCase{"code_never_sent", Masked(kFin | kClose, CloseBody(1006)), CloseBody(1002)},
        CloseCase{"reason_not_utf8", Masked(kFin | kClose, CloseBody(1000, "\xFF")),
                  CloseBody(1007)},
        CloseCase{"inside_a_message", Masked(kText, "a") + Masked(kFin | kClose, CloseBody(1000)),
                  CloseBody(1000)},
        // RFC 6455 section 5.
        CloseCase{"unmasked", "\x81\x01"s + "a", CloseBody(1002)},
        CloseCase{"reserved_opcode", Masked(kFin | 0x3U, "a"), CloseBody(1002)},
        CloseCase{"rsv_bit", Masked(kFin | kRsv1 | kText, "a"), CloseBody(1002)},
        CloseCase{"fragmented_ping", Masked(kPing, "a"), CloseBody(1002)},
        CloseCase{"long_ping", Masked(kFin | kPing, std::string(126, 'a')), CloseBody(1002)},
        CloseCase{"continuation_of_nothing", Masked(kFin | kContinuation, "a"), CloseBody(1002)},
        CloseCase{"message_in_message", Masked(kText, "a") + Masked(kFin | kText, "b"),
                  CloseBody(1002)},
        CloseCase{"too_big", Masked(kFin | kBinary, "", EchoServer::kMaxMessageBytes + 1),
                  CloseBody(1009)},
        CloseCase{
            "too_big_in_all",
            Masked(kBinary, "a") + Masked(kFin | kContinuation, "", EchoServer::kMaxMessageBytes),
            CloseBody(1009)},
        // RFC 3629 section 4, one row for each kind of mistake.
        CloseCase{"text_lone_continuation", Masked(kFin | kText, "a\x80"), CloseBody(1007)},
        CloseCase{"text_overlong", Masked(kFin | kText, "\xC0\xAF"), CloseBody(1007)},
        CloseCase{"text_overlong_3", Masked(kFin | kText, "\xE0\x9F\xBF"), CloseBody(1007)},
        CloseCase{"text_surrogate", Masked(kFin | kText, "\xED\xA0\x80"), CloseBody(1007)},
        CloseCase{"text_above_unicode", Masked(kFin | kText, "\xF4\x90\x80\x80"), CloseBody(1007)},
        CloseCase{"text_cut_short", Masked(kFin | kText, "\xE2\x82"), CloseBody(1007)}),
    [](const auto& param) { return std::string(param.param.name); });

TEST_F(EchoServerTest, EchoesTextAtTheEdgesOfUtf8) {
  Client client = Open();
  const std::string text =
      "\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF"
      "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF";
  client.Send(Masked(kFin | kText, text));
  EXPECT_EQ(client.ReadFrame(), (Frame{kFin | kText, text}));
}

TEST_F(EchoServerTest, DoesNotReadAClientThatDoesNotRead) {
  constexpr std::size_t kMessage = 64 * 1024;
  constexpr int kMost = 4000;  // 250 MiB: no pair of socket buffers holds so much
  Client client = Open();
  const std::string message = Masked(kFin | kBinary, std::string(kMessage, 'b'));
  int sent = 0;
  bool is_stalled = false;
  std::size_t at = 0;  // inside the message
  while (sent < kMost && !is_stalled) {
    const ssize_t took =
        ::send(client.fd(), message.data() + at, message.size() - at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (took > 0) {
      at += static_cast<std::size_t>(took);
    } else {
      ASSERT_EQ(errno, EAGAIN);
      pollfd wait{.fd = client.fd(), .events = POLLOUT, .revents = 0};
      is_stalled = ::poll(&wait, 1, 1000) == 0;
    }
    if (at == message.size()) {
      at = 0;
      ++sent;
    }
  }
  ASSERT_TRUE(is_stalled) << sent << " messages were taken without an end";
  EXPECT_LE(InLoop([this] { return loop_.buffered(); }), 512 * 1024);
  // And it goes on where it stopped.
  std::thread rest([&] { client.Send(std::string_view(message).substr(at)); });
  int received = 0;
  for (; received <= sent; ++received) {
    if (client.ReadFrame().payload.size() != kMessage) {
      break;
    }
  }
  rest.join();
  EXPECT_EQ(received, sent + 1);
}

TEST_F(EchoServerTest, ServesThePage) {
  Client client = Connect();
  client.Send("GET /?a=b HTTP/1.1\r\nHost: test\r\n\r\n");
  const Answer answer = client.ReadAnswer();
  EXPECT_THAT(answer.head, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer.head, HasSubstr("Content-Type: text/html; charset=utf-8\r\n"));
  EXPECT_THAT(answer.head, HasSubstr("Cache-Control: no-store\r\n"));
  EXPECT_THAT(answer.head, HasSubstr("X-Backend: demo-7\r\n"));
  EXPECT_EQ(answer.body, Page());
}

TEST_F(EchoServerTest, AnswersEachRequestOfAConnectionInOrder) {
  Client client = Connect();
  client.Send(
      "GET /whoami HTTP/1.1\r\nHost: test\r\n\r\n"
      "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello"
      "HEAD / HTTP/1.1\r\nHost: test\r\n\r\n"
      "POST /nowhere HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc"
      "HEAD /nowhere HTTP/1.1\r\nHost: test\r\n\r\n"
      "GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
      "GET /whoami HTTP/1.1\r\nHost: test\r\n\r\n");
  Answer answer = client.ReadAnswer();
  EXPECT_THAT(answer.head, HasSubstr("Content-Type: application/json\r\n"));
  EXPECT_EQ(answer.body, "{\"backend\":\"demo-7\"}\n");
  answer = client.ReadAnswer();
  EXPECT_THAT(answer.head, StartsWith("HTTP/1.1 200 "));
  EXPECT_EQ(answer.body, "hello");
  answer = client.ReadAnswer(true);
  EXPECT_THAT(answer.head, HasSubstr("Content-Length: " + std::to_string(Page().size()) + "\r\n"));
  answer = client.ReadAnswer();
  EXPECT_THAT(answer.head, StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(answer.head, Not(HasSubstr("Connection: close")));
  answer = client.ReadAnswer(true);
  EXPECT_THAT(answer.head, StartsWith("HTTP/1.1 404 "));
  answer = client.ReadAnswer();
  EXPECT_THAT(answer.head, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(answer.head, HasSubstr("Connection: close\r\n"));
  EXPECT_TRUE(client.ReadEnd()) << "something was answered after Connection: close";
}

TEST_F(EchoServerTest, SaysTheSameOfHttpHoweverTheBytesArrive) {
  const std::string input =
      "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
      "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfgh!";
  std::string want;
  test::ForEachSplit(input,
                     [&](const std::vector<std::string_view>& pieces, const std::string& label) {
                       SCOPED_TRACE(label);
                       Client client = Connect();
                       for (const std::string_view piece : pieces) {
                         ASSERT_TRUE(client.Send(piece));
                       }
                       const std::string got = client.ReadToEnd();
                       if (want.empty()) {
                         want = got;
                         EXPECT_THAT(got, HasSubstr("\r\n\r\nabcdeHTTP/1.1 200 OK\r\n"));
                         EXPECT_TRUE(got.ends_with("\r\n\r\nfgh!"));
                       }
                       EXPECT_EQ(got, want);
                     });
}

TEST_F(EchoServerTest, AsksForABodyThatWaitsToBeAskedFor) {
  Client client = Connect();
  client.Send(
      "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.ReadHead(), "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send("ok");
  EXPECT_EQ(client.ReadAnswer().body, "ok");
}

TEST_F(EchoServerTest, EchoesTheLargestBodyAndRefusesALargerOne) {
  const std::string largest(EchoServer::kMaxBodyBytes, 'b');
  Client client = Connect();
  client.Send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1048576\r\n\r\n" + largest);
  EXPECT_EQ(client.ReadAnswer().body, largest);
  client.Send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1048577\r\n\r\n");
  EXPECT_THAT(client.ReadAnswer().head, StartsWith("HTTP/1.1 413 "));
  EXPECT_TRUE(client.ReadEnd());

  Client chunked = Connect();
  chunked.Send("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n" +
               largest + "b\r\n0\r\n\r\n");
  EXPECT_THAT(chunked.ReadAnswer().head, StartsWith("HTTP/1.1 413 "));
  EXPECT_TRUE(chunked.ReadEnd());
}

TEST_F(EchoServerTest, KeepsAConnectionOfHttp10OnlyWhenAsked) {
  Client kept = Connect();
  kept.Send("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_THAT(kept.ReadAnswer().head, HasSubstr("Connection: keep-alive\r\n"));
  kept.Send("GET /healthz HTTP/1.0\r\n\r\n");
  EXPECT_THAT(kept.ReadAnswer().head, HasSubstr("Connection: close\r\n"));
  EXPECT_TRUE(kept.ReadEnd());
}

TEST_F(EchoServerTest, RefusesWhatIsNotARequestOrNotAnUpgrade) {
  const struct {
    const char* input;
    const char* status;
  } kCases[] = {
      {"hello\r\n\r\n", "HTTP/1.1 400 "},
      {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
      {"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
       "HTTP/1.1 400 "},
      {"GET /ws HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
       "Sec-WebSocket-Version: 13\r\n\r\n",
       "HTTP/1.1 400 "},
      {"GET /ws HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
       "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
       "HTTP/1.1 426 "},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.input);
    Client client = Connect();
    client.Send(c.input);
    EXPECT_THAT(client.ReadAnswer().head, StartsWith(c.status));
    EXPECT_TRUE(client.ReadEnd());
  }
}

TEST_F(EchoServerTest, HoldsLittleForAClientThatOnlyAsks) {
  constexpr int kRequests = 2000;
  Client client = Connect();
  std::string requests;
  for (int i = 0; i < kRequests; ++i) {
    requests += "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
  }
  std::thread sender([&] { client.Send(requests); });
  std::int64_t most = 0;
  int answered = 0;
  for (; answered < kRequests; ++answered) {
    if (client.ReadAnswer().body.size() != Page().size()) {
      break;
    }
    if (answered % 100 == 0) {
      most = std::max(most, InLoop([this] { return loop_.buffered(); }));
    }
  }
  sender.join();
  EXPECT_EQ(answered, kRequests);
  EXPECT_LE(most, 512 * 1024);
}

TEST_F(EchoServerTest, OutlivesGarbage) {
  std::mt19937 random(20);
  for (int i = 0; i < 200; ++i) {
    std::string garbage(random() % 3000 + 1, '\0');
    for (char& c : garbage) {
      c = static_cast<char>(random());
    }
    Client client = i % 2 == 0 ? Open() : Connect();
    client.Send(garbage);
    client.FinishSending();
    client.ReadToEnd();
  }
  Client client = Connect();
  client.Send("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer().body, "ok\n");
  EXPECT_EQ(InLoop([this] { return server_->sessions(); }), 1U);
}

TEST_F(EchoServerTest, OutlivesAReset) {
  {
    Client client = Open();
    const linger reset{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(client.fd(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    client.Send(Masked(kText, "half a message"));
  }
  Client client = Open();
  client.Send(Masked(kFin | kText, "still here"));
  EXPECT_EQ(client.ReadFrame(), (Frame{kFin | kText, "still here"}));
}

TEST_F(EchoServerTest, DrainClosesEverySessionInOrderAndThenSaysSo) {
  std::vector<Client> sockets;
  for (int i = 0; i < 5; ++i) {
    sockets.push_back(Open());
  }
  Client idle = Connect();
  idle.Send("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n");
  EXPECT_EQ(idle.ReadAnswer().body, "ok\n");
  Client busy = Connect();
  busy.Send(
      "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_THAT(busy.ReadHead(), StartsWith("HTTP/1.1 100 "));

  std::promise<void> empty;
  InLoop([&] { server_->Drain([&empty] { empty.set_value(); }); });
  for (Client& client : sockets) {
    EXPECT_EQ(client.ReadFrame(), (Frame{kFin | kClose, CloseBody(1001, "going away")}));
    client.Send(Masked(kFin | kClose, CloseBody(1001)));
    EXPECT_TRUE(client.ReadEnd());
  }
  EXPECT_TRUE(idle.ReadEnd());
  EXPECT_FALSE(Connect().connected());
  busy.Send("ok");
  const Answer answer = busy.ReadAnswer();
  EXPECT_THAT(answer.head, HasSubstr("Connection: close\r\n"));
  EXPECT_EQ(answer.body, "ok");
  EXPECT_TRUE(busy.ReadEnd());

  sockets.clear();
  { const Client gone_idle = std::move(idle), gone_busy = std::move(busy); }
  EXPECT_EQ(empty.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_EQ(InLoop([this] { return server_->sessions(); }), 0U);
}

TEST_F(EchoServerTest, DrainOfAnEmptyServerIsDoneAtOnce) {
  EXPECT_TRUE(InLoop([this] {
    bool is_empty = false;
    server_->Drain([&is_empty] { is_empty = true; });
    return is_empty;
  }));
}

TEST_F(EchoServerTest, DrainCutsAClientThatDoesNotLetGo) {
  Client client = Open();
  std::promise<void> empty;
  InLoop([&] { server_->Drain([&empty] { empty.set_value(); }); });
  EXPECT_EQ(client.ReadFrame().first, kFin | kClose);
  EXPECT_EQ(empty.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
}

}  // namespace
}  // namespace sluice::demo
