// Proves that an offer comes out as it went in, with usable sockets in any number, and that no
// field is believed.
#include "proxy/takeover/offer.h"

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/takeover/json.h"

#include "tests/unit/takeover/sockets.h"

namespace sluice::takeover {
namespace {

using nlohmann::json;
using testing::HasSubstr;

using OfferTest = DescriptorsTest;

TicketKeyBytes KeyOf(unsigned char first) {
  TicketKeyBytes key{};
  for (unsigned char& byte : key) {
    byte = first++;
  }
  return key;
}

Offer SomeOffer(std::size_t sockets) {
  Offer offer;
  offer.pid = 4711;
  offer.generation = 3;
  offer.ticket_keys = {KeyOf(0), KeyOf(200)};
  offer.draining_backends = {{"app", "b1"}, {"app", "b\"2\""}};
  while (offer.sockets.size() < sockets) {
    offer.sockets.push_back(ListenerSocket("web" + std::to_string(offer.sockets.size())));
  }
  return offer;
}

TEST_F(OfferTest, ComesOutAsItWentIn) {
  Offer offer = SomeOffer(2);
  const std::string address = offer.sockets[1].address;
  auto messages = ToMessages(std::move(offer));
  ASSERT_TRUE(messages.has_value()) << messages.error().message;
  ASSERT_EQ(messages->size(), 1U);
  OfferReader reader;
  ASSERT_EQ(reader.Add(std::move(messages->front())), ParseStatus::kDone) << reader.fault();
  const Offer read = reader.TakeOffer();
  EXPECT_EQ(read.pid, 4711);
  EXPECT_EQ(read.generation, 3U);
  EXPECT_EQ(read.ticket_keys, (std::vector{KeyOf(0), KeyOf(200)}));
  EXPECT_EQ(read.draining_backends,
            (std::vector<std::pair<std::string, std::string>>{{"app", "b1"}, {"app", "b\"2\""}}));
  ASSERT_EQ(read.sockets.size(), 2U);
  EXPECT_EQ(read.sockets[1].kind, "listener");
  EXPECT_EQ(read.sockets[1].name, "web1");
  EXPECT_EQ(read.sockets[1].address, address);
  EXPECT_EQ(net::Address::OfSocket(read.sockets[1].fd.get()).Text(), address);
}

TEST_F(OfferTest, MayHaveNoSocketAndNoKey) {
  Offer offer;
  offer.pid = 1;
  auto messages = ToMessages(std::move(offer));
  ASSERT_TRUE(messages.has_value()) << messages.error().message;
  ASSERT_EQ(messages->size(), 1U);
  OfferReader reader;
  ASSERT_EQ(reader.Add(std::move(messages->front())), ParseStatus::kDone) << reader.fault();
  EXPECT_EQ(reader.TakeOffer().generation, 1U);
}

TEST_F(OfferTest, IsSplitWhereAMessageIsFull) {
  for (const auto& [sockets, want] : std::vector<std::pair<std::size_t, std::size_t>>{
           {199, 1}, {200, 1}, {201, 2}, {400, 2}, {401, 3}}) {
    const UniqueFd one = ListeningSocket();
    Offer offer = SomeOffer(0);
    while (offer.sockets.size() < sockets) {
      offer.sockets.push_back({"listener", "web", "127.0.0.1:80", Duplicate(one)});
    }
    auto messages = ToMessages(std::move(offer));
    ASSERT_TRUE(messages.has_value()) << messages.error().message;
    ASSERT_EQ(messages->size(), want) << sockets;
    OfferReader reader;
    for (std::size_t i = 0; i < want; ++i) {
      EXPECT_LE((*messages)[i].fds.size(), kMostFds);
      EXPECT_EQ(reader.Add(std::move((*messages)[i])),
                i + 1 < want ? ParseStatus::kNeedMore : ParseStatus::kDone)
          << reader.fault();
    }
    EXPECT_EQ(reader.TakeOffer().sockets.size(), sockets);
  }
}

TEST_F(OfferTest, IsNotMadeOfWhatNobodyWouldTake) {
  const auto fault = [](Offer offer) {
    const auto messages = ToMessages(std::move(offer));
    return messages.has_value() ? std::string() : messages.error().message;
  };
  Offer offer = SomeOffer(0);
  offer.pid = 0;
  EXPECT_THAT(fault(std::move(offer)), HasSubstr("pid"));
  offer = SomeOffer(0);
  offer.generation = 0;
  EXPECT_THAT(fault(std::move(offer)), HasSubstr("generation"));
  offer = SomeOffer(1);
  offer.sockets[0].fd.Reset();
  EXPECT_THAT(fault(std::move(offer)), HasSubstr("no listening stream socket"));
  offer = SomeOffer(1);
  offer.sockets[0].kind = "door";
  EXPECT_THAT(fault(std::move(offer)), HasSubstr("unknown kind \"door\""));
  offer = SomeOffer(1);
  offer.sockets[0].address.clear();
  EXPECT_THAT(fault(std::move(offer)), HasSubstr("without a valid name and address"));
  offer = SomeOffer(0);
  offer.sockets.resize(kMostSockets + 1);
  EXPECT_THAT(fault(std::move(offer)), HasSubstr("16385 sockets"));
  offer = SomeOffer(0);
  offer.draining_backends.assign(20'000, {std::string(60, 'p'), std::string(60, 'b')});
  EXPECT_THAT(fault(std::move(offer)), HasSubstr("too large"));
}

TEST_F(OfferTest, TakesNoDescriptorThatDoesNotListenAsItsKindSays) {
  const auto fault = [](const std::string& kind, UniqueFd fd) {
    OfferReader reader;
    const json payload{{"pid", 1},
                       {"generation", 1},
                       {"ticket_keys", json::array()},
                       {"draining_backends", json::array()},
                       {"more", false},
                       {"sockets", {{{"kind", kind}, {"name", "a"}, {"address", "b"}}}}};
    Message message{MessageType::kOffer, payload.dump(), {}};
    message.fds.push_back(std::move(fd));
    return reader.Add(std::move(message)) == ParseStatus::kBad ? reader.fault() : std::string();
  };
  EXPECT_EQ(fault("listener", ListeningSocket()), "");
  EXPECT_EQ(fault("admin", ListeningSocket()), "");
  const std::string wrong = "no listening stream socket";
  EXPECT_THAT(fault("takeover", ListeningSocket()), HasSubstr(wrong));
  EXPECT_THAT(fault("listener", UniqueFd(::eventfd(0, EFD_CLOEXEC))), HasSubstr(wrong));
  EXPECT_THAT(fault("listener", UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))),
              HasSubstr(wrong));
  EXPECT_THAT(fault("listener", UniqueFd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0))),
              HasSubstr(wrong));
  UniqueFd local(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un automatic{};
  automatic.sun_family = AF_UNIX;  // autobind, unix(7)
  ASSERT_EQ(::bind(local.get(), reinterpret_cast<sockaddr*>(&automatic), sizeof(sa_family_t)), 0);
  ASSERT_EQ(::listen(local.get(), 1), 0);
  EXPECT_EQ(fault("takeover", Duplicate(local)), "");
  EXPECT_THAT(fault("listener", std::move(local)), HasSubstr(wrong));
}

struct FieldCase {
  const char* name;
  const char* patch;  // RFC 7386: null removes
};

class OfferFieldTest : public testing::TestWithParam<FieldCase> {
 protected:
  static ParseStatus Read(const char* patch, std::string& fault) {
    json payload = json::parse(R"({"pid": 1, "generation": 1, "ticket_keys": [],
        "draining_backends": [], "sockets": [], "more": false})");
    payload.merge_patch(json::parse(patch));
    OfferReader reader;
    const ParseStatus status = reader.Add({MessageType::kOffer, payload.dump(), {}});
    fault = reader.fault();
    return status;
  }
};

TEST_P(OfferFieldTest, IsRefused) {
  std::string fault;
  ASSERT_EQ(Read("{}", fault), ParseStatus::kDone) << "without the patch: " << fault;
  EXPECT_EQ(Read(GetParam().patch, fault), ParseStatus::kBad);
  EXPECT_FALSE(fault.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Fields, OfferFieldTest,
    testing::Values(
        FieldCase{"NoPid", R"({"pid": null})"}, FieldCase{"NegativePid", R"({"pid": -5})"},
        FieldCase{"NoGeneration", R"({"generation": null})"},
        FieldCase{"GenerationZero", R"({"generation": 0})"},
        FieldCase{"LastGeneration", R"({"generation": 4294967295})"},
        FieldCase{"NoKeys", R"({"ticket_keys": null})"},
        FieldCase{"KeysAreNoList", R"({"ticket_keys": "00"})"},
        FieldCase{"ShortKey", R"({"ticket_keys": ["00"]})"},
        FieldCase{"KeyIsANumber", R"({"ticket_keys": [0]})"},
        FieldCase{"TooManyKeys", R"({"ticket_keys": [0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]})"},
        FieldCase{"NoBackends", R"({"draining_backends": null})"},
        FieldCase{"BackendIsNoPair", R"({"draining_backends": [["a"]]})"},
        FieldCase{"BackendIsAnObject", R"({"draining_backends": [{"a": "b"}]})"},
        FieldCase{"BackendWithoutAName", R"({"draining_backends": [["a", ""]]})"},
        FieldCase{"NoSockets", R"({"sockets": null})"},
        FieldCase{"SocketsAreNoList", R"({"sockets": {}})"},
        FieldCase{"MoreSocketsThanDescriptors", R"({"sockets": [{"kind": "admin",
                        "name": "a", "address": "b"}]})"},
        FieldCase{"NoMore", R"({"more": null})"}, FieldCase{"MoreIsANumber", R"({"more": 1})"},
        FieldCase{"MoreOfNothing", R"({"more": true})"}),
    [](const auto& tested) { return std::string(tested.param.name); });

TEST_F(OfferTest, RefusesAKeyThatIsNotHexadecimal) {
  Offer offer = SomeOffer(0);
  auto messages = ToMessages(std::move(offer));
  ASSERT_TRUE(messages.has_value());
  json payload = json::parse(messages->front().payload);
  std::string key = payload["ticket_keys"][0];
  key[159] = 'g';
  payload["ticket_keys"][0] = key;
  OfferReader reader;
  EXPECT_EQ(reader.Add({MessageType::kOffer, payload.dump(), {}}), ParseStatus::kBad);
  EXPECT_THAT(reader.fault(), HasSubstr("ticket_keys"));
  EXPECT_THAT(reader.fault(), Not(HasSubstr(key.substr(0, 8)))) << "a key must not be logged";
}

TEST_F(OfferTest, TakesTheMessagesOnlyInOrder) {
  OfferReader continued;
  EXPECT_EQ(continued.Add({MessageType::kOfferMore, "{}", {}}), ParseStatus::kBad);
  OfferReader other;
  EXPECT_EQ(other.Add(DoneMessage()), ParseStatus::kBad);
  Offer offer = SomeOffer(0);
  const UniqueFd one = ListeningSocket();
  while (offer.sockets.size() < 201) {
    offer.sockets.push_back({"listener", "web", "127.0.0.1:80", Duplicate(one)});
  }
  auto messages = ToMessages(std::move(offer)).value();
  OfferReader twice;
  messages[1].type = MessageType::kOffer;
  EXPECT_EQ(twice.Add(std::move(messages[0])), ParseStatus::kNeedMore);
  EXPECT_EQ(twice.Add(std::move(messages[1])), ParseStatus::kBad);
}

}  // namespace
}  // namespace sluice::takeover
