// Proves that messages come out as they went in, cut anywhere, with their descriptors; and that
// whatever is no message is told so at once, and its descriptors are closed.
#include "proxy/takeover/message.h"

#include <sys/eventfd.h>
#include <sys/resource.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/takeover/channel.h"
#include "proxy/takeover/json.h"

#include "tests/support/split.h"
#include "tests/unit/takeover/sockets.h"

namespace sluice::takeover {
namespace {

using testing::HasSubstr;

using MessageDecoderTest = DescriptorsTest;
using ChannelTest = DescriptorsTest;

std::vector<UniqueFd> SomeFds(std::size_t count) {
  std::vector<UniqueFd> fds;
  while (fds.size() < count) {
    fds.emplace_back(::eventfd(0, EFD_CLOEXEC));
  }
  return fds;
}

// Feeds `bytes` as reads of at most wanted() bytes, `fds` with the first.
ParseStatus Feed(MessageDecoder& decoder, std::string_view& bytes, std::vector<UniqueFd> fds = {}) {
  ParseStatus status = ParseStatus::kNeedMore;
  while (!bytes.empty() && status == ParseStatus::kNeedMore) {
    const auto some = bytes.substr(0, decoder.wanted());
    bytes.remove_prefix(some.size());
    status = decoder.Feed(AsBytes(some), std::exchange(fds, {}));
  }
  return status;
}

std::string FaultOf(std::string_view bytes, std::size_t fds = 0) {
  MessageDecoder decoder;
  EXPECT_EQ(Feed(decoder, bytes, SomeFds(fds)), ParseStatus::kBad);
  return decoder.fault();
}

// The head of a message, with what may be wrong in it.
std::string Head(unsigned version, unsigned type, unsigned fds, unsigned length) {
  std::string head = "SLTO";
  for (const auto& [value, bytes] : {std::pair{version, 1}, {type, 1}, {fds, 2}, {length, 4}}) {
    for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) {
      head += static_cast<char>(value >> shift & 0xff);
    }
  }
  return head;
}

TEST_F(MessageDecoderTest, ReadsMessagesCutAnywhere) {
  const std::string bytes = Encode(ToMessage(Hello{"1.2.3", 4711})) + Encode(DoneMessage()) +
                            Encode(RefusedMessage("busy"));
  test::ForEachSplit(bytes,
                     [](const std::vector<std::string_view>& pieces, const std::string& label) {
                       MessageDecoder decoder;
                       std::vector<Message> messages;
                       for (std::string_view piece : pieces) {
                         while (!piece.empty()) {
                           const ParseStatus status = Feed(decoder, piece);
                           ASSERT_NE(status, ParseStatus::kBad) << label << ": " << decoder.fault();
                           if (status == ParseStatus::kDone) {
                             messages.push_back(decoder.TakeMessage());
                           }
                         }
                       }
                       ASSERT_EQ(messages.size(), 3U) << label;
                       const auto hello = ParseHello(messages[0]);
                       ASSERT_TRUE(hello.has_value()) << label;
                       EXPECT_EQ(hello->version, "1.2.3");
                       EXPECT_EQ(hello->pid, 4711);
                       EXPECT_TRUE(ParseDone(messages[1]).has_value()) << label;
                       EXPECT_EQ(ParseRefused(messages[2]).value(), "busy") << label;
                     });
}

TEST_F(MessageDecoderTest, NeverWantsBytesOfTheNextMessage) {
  const Message message = ReadyMessage(1);
  const std::string bytes = Encode(message);
  MessageDecoder decoder;
  EXPECT_EQ(decoder.wanted(), kHeadSize);
  ASSERT_EQ(decoder.Feed(AsBytes(bytes).first(5), {}), ParseStatus::kNeedMore);
  EXPECT_EQ(decoder.wanted(), kHeadSize - 5);
  ASSERT_EQ(decoder.Feed(AsBytes(bytes).subspan(5, kHeadSize - 5), {}), ParseStatus::kNeedMore);
  EXPECT_EQ(decoder.wanted(), message.payload.size());
}

TEST_F(MessageDecoderTest, KeepsDescriptorsThatWereAnnounced) {
  Message offer{MessageType::kOffer, "{}", SomeFds(3)};
  const std::string bytes = Encode(offer);
  test::ForEachSplit(bytes,
                     [&](const std::vector<std::string_view>& pieces, const std::string& label) {
                       MessageDecoder decoder;
                       ParseStatus status = ParseStatus::kNeedMore;
                       std::vector<UniqueFd> fds = SomeFds(3);
                       const int first = fds[0].get();
                       for (std::string_view piece : pieces) {
                         status = Feed(decoder, piece, std::exchange(fds, {}));
                       }
                       ASSERT_EQ(status, ParseStatus::kDone) << label << ": " << decoder.fault();
                       const Message message = decoder.TakeMessage();
                       ASSERT_EQ(message.fds.size(), 3U) << label;
                       EXPECT_EQ(message.fds[0].get(), first) << label;
                     });
}

TEST_F(MessageDecoderTest, TellsGarbageFromItsFirstWrongByte) {
  EXPECT_THAT(FaultOf("G"), HasSubstr("does not speak"));
  EXPECT_THAT(FaultOf("SLTX"), HasSubstr("does not speak"));
  EXPECT_THAT(FaultOf(std::string(1, '\0')), HasSubstr("does not speak"));
}

TEST_F(MessageDecoderTest, RefusesAHeadThatIsNotValid) {
  EXPECT_THAT(FaultOf(Head(2, 1, 0, 2)), HasSubstr("version 2"));
  EXPECT_THAT(FaultOf(Head(1, 0, 0, 2)), HasSubstr("unknown type 0"));
  EXPECT_THAT(FaultOf(Head(1, 7, 0, 2)), HasSubstr("unknown type 7"));
  EXPECT_THAT(FaultOf(Head(1, 1, 0, (1U << 20) + 1)), HasSubstr("1048577 bytes"));
  EXPECT_THAT(FaultOf(Head(1, 1, 0, ~0U)), HasSubstr("4294967295 bytes"));
  EXPECT_THAT(FaultOf(Head(1, 3, 201, 2)), HasSubstr("201 descriptors"));
}

TEST_F(MessageDecoderTest, TakesTheLargestPayload) {
  const std::string bytes = Encode({MessageType::kOffer, std::string(kMostPayload, ' '), {}});
  MessageDecoder decoder;
  std::string_view rest = bytes;
  EXPECT_EQ(Feed(decoder, rest), ParseStatus::kDone);
  EXPECT_EQ(decoder.TakeMessage().payload.size(), kMostPayload);
}

TEST_F(MessageDecoderTest, ClosesDescriptorsThatNobodyAnnounced) {
  EXPECT_THAT(FaultOf(Encode(DoneMessage()), 1), HasSubstr("0 descriptors are announced and 1"));
  EXPECT_THAT(FaultOf(Head(1, 3, 3, 2), 2), HasSubstr("3 descriptors are announced and 2"));
  EXPECT_THAT(FaultOf(Head(1, 3, 2, 2), 3), HasSubstr("2 descriptors are announced and 3"));
  EXPECT_THAT(FaultOf(Head(1, 1, 1, 2), 1), HasSubstr("\"hello\" with 1 descriptors"));
}

TEST_F(MessageDecoderTest, RefusesDescriptorsInTheMiddleOfAMessage) {
  const std::string bytes = Encode({MessageType::kOffer, "{}", SomeFds(1)});
  for (std::size_t cut = 1; cut < bytes.size(); ++cut) {
    MessageDecoder decoder;
    std::string_view head(bytes.data(), cut);
    const ParseStatus before = Feed(decoder, head, SomeFds(1));
    ASSERT_EQ(before, ParseStatus::kNeedMore) << cut;
    EXPECT_EQ(decoder.Feed(AsBytes(bytes).subspan(cut, 1), SomeFds(1)), ParseStatus::kBad) << cut;
    EXPECT_THAT(decoder.fault(), HasSubstr("middle")) << cut;
  }
}

struct PayloadCase {
  const char* name;
  MessageType type;
  std::string payload;
};

class PayloadTest : public testing::TestWithParam<PayloadCase> {};

TEST_P(PayloadTest, IsRefused) {
  const Message message{GetParam().type, GetParam().payload, {}};
  bool taken = false;
  std::string why;
  switch (message.type) {
    case MessageType::kHello: {
      const auto parsed = ParseHello(message);
      taken = parsed.has_value();
      why = taken ? "" : parsed.error().message;
      break;
    }
    case MessageType::kReady: {
      const auto parsed = ParseReady(message);
      taken = parsed.has_value();
      why = taken ? "" : parsed.error().message;
      break;
    }
    default: {
      const auto parsed = ParseRefused(message);
      taken = parsed.has_value();
      why = taken ? "" : parsed.error().message;
      break;
    }
  }
  EXPECT_FALSE(taken);
  EXPECT_FALSE(why.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Payloads, PayloadTest,
    testing::Values(
        PayloadCase{"Empty", MessageType::kHello, ""},
        PayloadCase{"NoJson", MessageType::kHello, "hello"},
        PayloadCase{"HalfJson", MessageType::kHello, R"({"version": "1", "pid": 1)"},
        PayloadCase{"Array", MessageType::kHello, "[]"},
        PayloadCase{"DeeplyNested", MessageType::kHello, std::string(kMostPayload, '[')},
        PayloadCase{"NoVersion", MessageType::kHello, R"({"pid": 1})"},
        PayloadCase{"VersionIsANumber", MessageType::kHello, R"({"version": 1, "pid": 1})"},
        PayloadCase{"VersionWithALineBreak", MessageType::kHello,
                    R"({"version": "1\n2", "pid": 1})"},
        PayloadCase{"LongVersion", MessageType::kHello,
                    R"({"pid": 1, "version": ")" + std::string(kMostText + 1, '1') + R"("})"},
        PayloadCase{"NoUtf8", MessageType::kHello, "{\"version\": \"\xff\", \"pid\": 1}"},
        PayloadCase{"NoPid", MessageType::kHello, R"({"version": "1"})"},
        PayloadCase{"PidIsAText", MessageType::kReady, R"({"pid": "1"})"},
        PayloadCase{"PidIsZero", MessageType::kReady, R"({"pid": 0})"},
        PayloadCase{"PidIsNegative", MessageType::kReady, R"({"pid": -1})"},
        PayloadCase{"PidIsAFraction", MessageType::kReady, R"({"pid": 1.5})"},
        PayloadCase{"PidIsTooLarge", MessageType::kReady, R"({"pid": 2147483648})"},
        PayloadCase{"NoReason", MessageType::kRefused, "{}"},
        PayloadCase{"OtherType", MessageType::kDone, R"({"reason": "busy"})"}),
    [](const auto& tested) { return std::string(tested.param.name); });

TEST(RefusedMessage, ArrivesWhateverItQuotes) {
  const std::string reason = "cannot open \"\xff\n\":\t" + std::string(kMostPayload, 'x');
  const auto arrived = ParseRefused(RefusedMessage(reason));
  ASSERT_TRUE(arrived.has_value()) << arrived.error().message;
  EXPECT_THAT(*arrived, HasSubstr("cannot open"));
}

TEST_F(ChannelTest, PassesDescriptorsThatCanBeUsed) {
  Pair pair = ConnectedPair();
  Channel from(std::move(pair.one));
  Channel to(std::move(pair.other));
  Message message{MessageType::kOffer, "{}", {}};
  message.fds.push_back(ListeningSocket());
  const net::Address address = net::Address::OfSocket(message.fds[0].get());
  from.Queue(std::move(message));
  ASSERT_EQ(from.Flush(), net::IoStatus::kOk);
  const auto received = to.Receive();
  ASSERT_TRUE(received.has_value() && received->has_value());
  ASSERT_EQ((*received)->fds.size(), 1U);
  const int fd = (*received)->fds[0].get();
  EXPECT_TRUE(IsCloseOnExec(fd));
  EXPECT_EQ(net::Address::OfSocket(fd).Text(), address.Text());
}

TEST_F(ChannelTest, HasNothingUntilAMessageIsWhole) {
  Pair pair = ConnectedPair();
  Channel to(std::move(pair.other));
  const std::string bytes = Encode(ReadyMessage(7));
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto before = to.Receive();
    ASSERT_TRUE(before.has_value());
    EXPECT_FALSE(before->has_value()) << i;
    ASSERT_EQ(::send(pair.one.get(), &bytes[i], 1, 0), 1);
  }
  const auto received = to.Receive();
  ASSERT_TRUE(received.has_value() && received->has_value());
  EXPECT_EQ(ParseReady(**received).value(), 7);
}

TEST_F(ChannelTest, SendsMoreThanTheSocketTakes) {
  Pair pair = ConnectedPair();
  Channel from(std::move(pair.one));
  Channel to(std::move(pair.other));
  constexpr std::size_t kMessages = 5;
  for (std::size_t i = 0; i < kMessages; ++i) {
    from.Queue({MessageType::kOffer, std::string(kMostPayload, 'a'), SomeFds(i)});
  }
  std::vector<Message> received;
  bool was_full = false;
  const test::Deadline deadline;
  while (received.size() < kMessages && !deadline.passed()) {
    const net::IoStatus status = from.Flush();
    ASSERT_NE(status, net::IoStatus::kError);
    was_full = was_full || status == net::IoStatus::kWouldBlock;
    auto next = to.Receive();
    ASSERT_TRUE(next.has_value()) << next.error().message;
    if (*next) {
      received.push_back(std::move(**next));
    }
  }
  EXPECT_TRUE(was_full);
  EXPECT_FALSE(from.has_pending());
  ASSERT_EQ(received.size(), kMessages);
  for (std::size_t i = 0; i < kMessages; ++i) {
    EXPECT_EQ(received[i].payload.size(), kMostPayload);
    EXPECT_EQ(received[i].fds.size(), i);
  }
}

TEST_F(ChannelTest, TellsThatTheOtherEndIsGone) {
  Pair pair = ConnectedPair();
  Channel channel(std::move(pair.one));
  pair.other.Reset();
  channel.Queue({MessageType::kOffer, "{}", SomeFds(1)});
  EXPECT_EQ(channel.Flush(), net::IoStatus::kError);
  EXPECT_FALSE(channel.has_pending());
  const auto received = channel.Receive();
  ASSERT_FALSE(received.has_value());
  EXPECT_EQ(received.error().sys_errno, ECONNRESET);
}

TEST_F(ChannelTest, TellsThatDescriptorsWereLost) {
  Pair pair = ConnectedPair();
  Channel from(std::move(pair.one));
  Channel to(std::move(pair.other));
  from.Queue({MessageType::kOffer, "{}", SomeFds(4)});
  ASSERT_EQ(from.Flush(), net::IoStatus::kOk);
  // Two of four have room.
  const UniqueFd lowest(::eventfd(0, EFD_CLOEXEC));
  const UniqueFd second(::eventfd(0, EFD_CLOEXEC));
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  few.rlim_cur = static_cast<rlim_t>(second.get()) + 3;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  const auto received = to.Receive();
  ::setrlimit(RLIMIT_NOFILE, &before);
  ASSERT_FALSE(received.has_value());
  EXPECT_THAT(received.error().message, HasSubstr("open files"));
}

}  // namespace
}  // namespace sluice::takeover
