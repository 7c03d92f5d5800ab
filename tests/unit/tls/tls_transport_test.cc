// Proves how plaintext travels through the shared buffers: many records of one read, records in
// pieces, more than the socket takes, and every way in which the other side may end.
#include "proxy/tls/tls_transport.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/net/address.h"

#include "tests/unit/tls/tls_pair.h"

namespace sluice::tls {
namespace {

using net::IoStatus;

std::string Numbers(std::size_t size) {
  std::string out(size, '\0');
  for (std::size_t i = 0; i < size; ++i) {
    out[i] = static_cast<char>((i * 7 + i / 251) & 0xFF);
  }
  return out;
}

class TlsTransportTest : public testing::TestWithParam<int> {
 protected:
  std::unique_ptr<TlsPair> Connected(int socket_buffer = 0) {
    auto pair = std::make_unique<TlsPair>(*context, buffers,
                                          ClientOptions{.max_version = GetParam()}, socket_buffer);
    EXPECT_TRUE(pair->Handshake());
    return pair;
  }

  Files files;
  TicketKeys keys;
  SharedBuffers buffers;
  std::unique_ptr<ServerContext> context =
      MakeContext({.certificates = {files.Certificate({"a.test"})}}, keys);
};

TEST_P(TlsTransportTest, CarriesTextBothWays) {
  const auto pair = Connected();
  pair->ClientWrites("hello");
  EXPECT_EQ(pair->ServerReads(), "hello");
  EXPECT_EQ(pair->last_read, IoStatus::kWouldBlock);
  EXPECT_FALSE(pair->server->HasBuffered());
  const net::IoResult wrote = pair->server->Write(AsBytes("world"));
  EXPECT_EQ(wrote.status, IoStatus::kOk);
  EXPECT_EQ(wrote.bytes, 5U);
  EXPECT_EQ(pair->server->pending(), 0U);
  EXPECT_EQ(pair->ClientReads(), "world");
}

TEST_P(TlsTransportTest, OneReadBringsManyRecords) {
  const auto pair = Connected();
  std::string all;
  for (int i = 0; i < 200; ++i) {
    pair->ClientWrites(std::to_string(i) + ",");  // a record each
    all += std::to_string(i) + ",";
  }
  std::array<std::byte, 64 * 1024> into{};
  const net::IoResult got = pair->server->Read(into);
  EXPECT_EQ(got.status, IoStatus::kOk);
  EXPECT_EQ(AsText(Bytes(into).first(got.bytes)), all);
}

TEST_P(TlsTransportTest, ASmallReaderGetsTheRestLater) {
  const auto pair = Connected();
  const std::string all = Numbers(40'000);
  pair->ClientWrites(all);
  std::string got;
  std::array<std::byte, 1000> into{};
  while (got.size() < all.size()) {
    const net::IoResult read = pair->server->Read(into);
    ASSERT_EQ(read.status, IoStatus::kOk) << got.size();
    got += AsText(Bytes(into).first(read.bytes));
    // The socket is empty by now: only the transport knows that there is more.
    ASSERT_EQ(pair->server->HasBuffered(), got.size() < all.size()) << got.size();
  }
  EXPECT_EQ(got, all);
}

// Puts a record into the socket in pieces: what the client's OpenSSL wrote is taken out first.
TEST_P(TlsTransportTest, ARecordInPiecesIsReadWhenItIsWhole) {
  const auto pair = Connected();
  // A second socketpair between the client's OpenSSL and the test.
  std::array<int, 2> fds{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds.data()), 0);
  const UniqueFd tap(fds[0]);
  const UniqueFd inner(fds[1]);
  SSL_set_wfd(pair->client.get(), inner.get());
  pair->ClientWrites("in pieces");
  pair->ClientWrites("!");
  std::array<char, 4096> record{};
  const ssize_t size = ::recv(tap.get(), record.data(), record.size(), 0);
  ASSERT_GT(size, 0);
  std::string got;
  for (ssize_t i = 0; i < size; ++i) {
    ASSERT_EQ(::send(pair->client_fd.get(), record.data() + i, 1, 0), 1);
    got += pair->ServerReads();
    ASSERT_EQ(pair->last_read, IoStatus::kWouldBlock);
    ASSERT_FALSE(pair->server->HasBuffered());
  }
  EXPECT_EQ(got, "in pieces!");
}

TEST_P(TlsTransportTest, KeepsCiphertextThatTheKernelRefuses) {
  const auto pair = Connected(16 * 1024);
  const std::string all = Numbers(1'000'000);
  std::size_t taken = 0;
  std::string got;
  bool waited = false;
  while (got.size() < all.size()) {
    if (taken < all.size()) {
      const net::IoResult wrote = pair->server->Write(AsBytes(all).subspan(taken));
      ASSERT_NE(wrote.status, IoStatus::kError);
      taken += wrote.bytes;
    }
    waited = waited || pair->server->pending() > 0;
    ASSERT_LT(pair->server->pending(), 70'000U);
    if (pair->server->pending() > 0) {
      EXPECT_EQ(pair->server->Write(AsBytes("x")).status, IoStatus::kWouldBlock);
    }
    got += pair->ClientReads();
    ASSERT_NE(pair->server->Flush(), IoStatus::kError);
  }
  EXPECT_TRUE(waited);
  EXPECT_TRUE(got == all);
  EXPECT_EQ(pair->server->pending(), 0U);
}

TEST_P(TlsTransportTest, CloseNotifyIsAnEnd) {
  const auto pair = Connected();
  pair->ClientWrites("last");
  SSL_shutdown(pair->client.get());
  std::array<std::byte, 64 * 1024> into{};
  const net::IoResult got = pair->server->Read(into);
  EXPECT_EQ(got.status, IoStatus::kOk);
  EXPECT_EQ(AsText(Bytes(into).first(got.bytes)), "last");
  EXPECT_TRUE(pair->server->HasBuffered()) << "the end would not be asked for";
  EXPECT_EQ(pair->server->Read(into).status, IoStatus::kEof);
  // Their direction only.
  EXPECT_EQ(pair->server->Write(AsBytes("answer")).status, IoStatus::kOk);
  EXPECT_EQ(pair->ClientReads(), "answer");
}

TEST_P(TlsTransportTest, FinWithoutCloseNotifyIsAnEndToo) {
  const auto pair = Connected();
  pair->ClientWrites("last");
  ::shutdown(pair->client_fd.get(), SHUT_WR);
  EXPECT_EQ(pair->ServerReads(), "last");
  EXPECT_EQ(pair->last_read, IoStatus::kEof);
}

TEST_P(TlsTransportTest, ShutdownSendsCloseNotifyBehindTheData) {
  const auto pair = Connected();
  static_cast<void>(pair->server->Write(AsBytes("last")));
  pair->server->Shutdown();
  EXPECT_EQ(pair->server->Flush(), IoStatus::kOk);
  EXPECT_EQ(pair->ClientReads(), "last");
  EXPECT_EQ(pair->client_read_error, SSL_ERROR_ZERO_RETURN);
}

TEST_P(TlsTransportTest, GarbageIsAnErrorThatIsAnsweredWithAnAlert) {
  const auto pair = Connected();
  const std::string garbage(100, '\x55');
  ASSERT_EQ(::send(pair->client_fd.get(), garbage.data(), garbage.size(), 0), 100);
  EXPECT_EQ(pair->ServerReads(), "");
  EXPECT_EQ(pair->last_read, IoStatus::kError);
  EXPECT_EQ(pair->server->Write(AsBytes("x")).status, IoStatus::kError);
  static_cast<void>(pair->ClientReads());
  EXPECT_EQ(pair->client_read_error, SSL_ERROR_SSL);  // the alert
}

TEST_P(TlsTransportTest, DataThatCameWithAnErrorIsReadFirst) {
  const auto pair = Connected();
  pair->ClientWrites("before");
  const std::string garbage(100, '\x55');
  ASSERT_EQ(::send(pair->client_fd.get(), garbage.data(), garbage.size(), 0), 100);
  EXPECT_EQ(pair->ServerReads(), "before");
  EXPECT_EQ(pair->last_read, IoStatus::kError);
}

TEST_P(TlsTransportTest, WritingToAVanishedClientIsAnError) {
  const auto pair = Connected();
  pair->client_fd.Reset();
  EXPECT_EQ(pair->server->Write(AsBytes("x")).status, IoStatus::kError);
}

TEST_P(TlsTransportTest, AHandshakeThatIsCutEnds) {
  TlsPair pair(*context, buffers, {.max_version = GetParam()});
  SSL_do_handshake(pair.client.get());  // ClientHello only
  EXPECT_EQ(pair.server->Handshake(), IoStatus::kWouldBlock);
  pair.client_fd.Reset();
  const IoStatus status = pair.server->Handshake();
  EXPECT_TRUE(status == IoStatus::kEof || status == IoStatus::kError);
}

TEST_P(TlsTransportTest, DataBehindTheHandshakeIsNotLost) {
  TlsPair pair(*context, buffers, {.max_version = GetParam()});
  for (int turn = 0; turn < 10 && !pair.client_done; ++turn) {
    pair.client_done = SSL_do_handshake(pair.client.get()) == 1;
    if (!pair.client_done) {
      pair.server_status = pair.server->Handshake();
    }
  }
  ASSERT_TRUE(pair.client_done);
  pair.ClientWrites("early");  // under TLS 1.3 in one segment with the client's Finished
  if (pair.server_status != IoStatus::kOk) {
    pair.server_status = pair.server->Handshake();
    EXPECT_TRUE(pair.server->HasBuffered());
  }
  EXPECT_EQ(pair.server_status, IoStatus::kOk);
  EXPECT_EQ(pair.ServerReads(), "early");
}

// Takes everything from the client's socket undecrypted; the length of each record's fragment.
std::vector<std::size_t> TakeRecords(const TlsPair& pair) {
  std::string wire;
  std::array<char, 64 * 1024> piece{};
  for (;;) {
    const ssize_t got = ::recv(pair.client_fd.get(), piece.data(), piece.size(), 0);
    if (got <= 0) {
      break;
    }
    wire.append(piece.data(), static_cast<std::size_t>(got));
  }
  std::vector<std::size_t> sizes;
  constexpr std::size_t kHeader = 5;  // RFC 8446 section 5.1; the last two bytes are the length
  for (std::size_t at = 0; at + kHeader <= wire.size();) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(wire[at + i]); };
    sizes.push_back(byte(3) * std::size_t{256} + byte(4));
    at += kHeader + sizes.back();
  }
  return sizes;
}

TEST_P(TlsTransportTest, RecordsGrowWithTheStreamAndAreSmallAgainAfterAPause) {
  constexpr std::size_t kSegment = 1'448 - 5;  // what a segment holds beside a record's header
  constexpr std::size_t kOverhead = 24;        // the tag, and an explicit nonce or a type
  const auto pair = Connected(4 * 1024 * 1024);
  static_cast<void>(pair->Ticket());
  const std::string text = Numbers(256 * 1024);
  const auto write = [&] {
    std::size_t taken = 0;
    while (taken < text.size()) {
      const net::IoResult wrote = pair->server->Write(AsBytes(text).subspan(taken));
      if (wrote.status != IoStatus::kOk) {
        ADD_FAILURE() << "the socket buffer was meant to hold it all";
        break;
      }
      taken += wrote.bytes;
    }
    return TakeRecords(*pair);
  };
  const auto small = [&](const std::vector<std::size_t>& sizes) {
    return std::count_if(sizes.begin(), sizes.end(),
                         [&](std::size_t size) { return size <= kSegment; });
  };
  std::vector<std::size_t> sizes = write();
  EXPECT_EQ(small(sizes), 48 + 1) << "and the rest of what was written";
  EXPECT_LE(sizes.front(), kSegment);
  EXPECT_GT(*std::max_element(sizes.begin(), sizes.end()), 16U * 1024U);
  EXPECT_LE(*std::max_element(sizes.begin(), sizes.end()), 16U * 1024U + kOverhead);
  sizes = write();
  EXPECT_EQ(small(sizes), 0);
  buffers.second += 1;
  EXPECT_EQ(small(write()), 0) << "the next second is not a pause";
  buffers.second += 2;
  EXPECT_GE(small(write()), 48);
}

TEST_P(TlsTransportTest, SmallMessagesAreOneRecordEach) {
  const auto pair = Connected(4 * 1024 * 1024);
  static_cast<void>(pair->Ticket());
  for (int i = 0; i < 100; ++i) {
    static_cast<void>(pair->server->Write(AsBytes(Numbers(1'000))));
  }
  EXPECT_EQ(TakeRecords(*pair).size(), 100U);
}

// All sessions of a worker speak through one BIO.
TEST_P(TlsTransportTest, SessionsThatTakeTurnsAreNotMixedUp) {
  constexpr std::size_t kPairs = 3;
  std::vector<std::unique_ptr<TlsPair>> pairs;
  for (std::size_t i = 0; i < kPairs; ++i) {
    pairs.push_back(
        std::make_unique<TlsPair>(*context, buffers, ClientOptions{.max_version = GetParam()}));
  }
  for (int turn = 0; turn < 4; ++turn) {  // a step of each handshake at a time
    for (const auto& pair : pairs) {
      if (!pair->client_done) {
        pair->client_done = SSL_do_handshake(pair->client.get()) == 1;
      }
      if (pair->server_status == IoStatus::kWouldBlock) {
        pair->server_status = pair->server->Handshake();
      }
      if (pair == pairs.front() && turn == 1) {
        pair->ClientWrites("while others shake hands");
        EXPECT_EQ(pair->ServerReads(), "while others shake hands");
      }
    }
  }
  for (const auto& pair : pairs) {
    ASSERT_EQ(pair->server_status, IoStatus::kOk);
    static_cast<void>(pair->ClientReads());
  }
  std::array<std::byte, 1000> into{};
  std::array<std::string, kPairs> got;
  const auto text = [](std::size_t i) { return std::string(40'000, static_cast<char>('a' + i)); };
  for (std::size_t i = 0; i < kPairs; ++i) {
    if (GetParam() == TLS1_3_VERSION) {
      ASSERT_EQ(SSL_key_update(pairs[i]->client.get(), SSL_KEY_UPDATE_REQUESTED), 1);
    }
    pairs[i]->ClientWrites(text(i));
  }
  for (bool more = true; more;) {  // a piece of each at a time, so that each keeps some
    more = false;
    for (std::size_t i = 0; i < kPairs; ++i) {
      if (got[i].size() < text(i).size()) {
        const net::IoResult read = pairs[i]->server->Read(into);
        ASSERT_EQ(read.status, IoStatus::kOk);
        got[i] += AsText(Bytes(into).first(read.bytes));
        ASSERT_EQ(pairs[i]->server->Write(AsBytes(std::to_string(i))).status, IoStatus::kOk);
        more = true;
      }
    }
    if (got[0].size() == 20'000) {
      pairs[kPairs - 1]->server.reset();  // one leaves; the others stay
      got[kPairs - 1] = text(kPairs - 1);
    }
  }
  for (std::size_t i = 0; i + 1 < kPairs; ++i) {
    EXPECT_TRUE(got[i] == text(i)) << i;
    EXPECT_EQ(pairs[i]->ClientReads(), std::string(40, static_cast<char>('0' + i)));
  }
}

INSTANTIATE_TEST_SUITE_P(Version, TlsTransportTest, testing::Values(TLS1_2_VERSION, TLS1_3_VERSION),
                         [](const auto& one) {
                           return one.param == TLS1_3_VERSION ? "Tls13" : "Tls12";
                         });

// What an idle session holds here besides OpenSSL's: a change of it is to be noticed.
TEST(TlsTransportSize, IsFiveWords) {
  EXPECT_LE(sizeof(TlsTransport), 5 * sizeof(void*));
}

TEST(TlsTicket, GoesWithTheFirstAnswerAndIsNotLostWithoutOne) {
  Files files;
  TicketKeys keys;
  SharedBuffers buffers;
  const auto context = MakeContext({.certificates = {files.Certificate({"a.test"})}}, keys);
  for (const std::string answer : {"answer", ""}) {
    TlsPair pair(*context, buffers);
    ASSERT_TRUE(pair.Handshake());
    EXPECT_EQ(pair.server->pending(), 0U) << "nobody need wait until the socket takes it";
    std::array<char, 16> peeked{};
    EXPECT_EQ(::recv(pair.client_fd.get(), peeked.data(), peeked.size(), MSG_PEEK), -1);
    pair.ClientWrites("question");  // reading sends nothing
    EXPECT_EQ(pair.ServerReads(), "question");
    EXPECT_EQ(::recv(pair.client_fd.get(), peeked.data(), peeked.size(), MSG_PEEK), -1);
    if (answer.empty()) {
      pair.server->Shutdown();
    } else {
      static_cast<void>(pair.server->Write(AsBytes(answer)));
    }
    EXPECT_EQ(pair.ClientReads(), answer);
    const SSL_SESSION* session = SSL_get_session(pair.client.get());
    EXPECT_EQ(SSL_SESSION_has_ticket(session), 1);
    EXPECT_EQ(pair.server->pending(), 0U);
  }
}

// RFC 8446 section 4.6.3: each request for new keys is answered, and the answers wait for a client
// that does not read.
TEST(TlsKeyUpdate, AFloodThatIsNotReadEndsTheConnectionInsteadOfGrowing) {
  Files files;
  TicketKeys keys;
  SharedBuffers buffers;
  const auto context = MakeContext({.certificates = {files.Certificate({"a.test"})}}, keys);
  TlsPair pair(*context, buffers, ClientOptions{.max_version = TLS1_3_VERSION}, 4 * 1024);
  ASSERT_TRUE(pair.Handshake());
  constexpr int kMost = 100'000;
  std::size_t most_pending = 0;
  int updates = 0;
  for (; updates < kMost && pair.last_read != IoStatus::kError; ++updates) {
    ASSERT_EQ(SSL_key_update(pair.client.get(), SSL_KEY_UPDATE_REQUESTED), 1);
    ASSERT_EQ(SSL_do_handshake(pair.client.get()), 1);
    static_cast<void>(pair.ServerReads());
    most_pending = std::max(most_pending, pair.server->pending());
  }
  EXPECT_LT(updates, kMost);
  EXPECT_GT(most_pending, 64U * 1024U) << "the answers were meant to wait";
  EXPECT_LE(most_pending, 128U * 1024U);
}

// A reset over TCP that arrives together with the last record.
TEST(TlsReset, IsAnErrorBehindTheDataThatCameWithIt) {
  Files files;
  TicketKeys keys;
  SharedBuffers buffers;
  const auto context = MakeContext({.certificates = {files.Certificate({"a.test"})}}, keys);
  TlsPair pair(*context, buffers);
  ASSERT_TRUE(pair.Handshake());
  static_cast<void>(pair.ClientReads());
  // The record is made by the client and carried over a TCP connection that is then reset.
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM, 0));
  const net::Address any = net::Address::FromNumeric("127.0.0.1", 0).value();
  ASSERT_EQ(::bind(listener.get(), any.raw(), any.raw_size()), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  const net::Address address = net::Address::OfSocket(listener.get());
  UniqueFd sender(::socket(AF_INET, SOCK_STREAM, 0));
  ASSERT_EQ(::connect(sender.get(), address.raw(), address.raw_size()), 0);
  const UniqueFd receiver(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK));
  ASSERT_EQ(::dup2(receiver.get(), pair.server_fd.get()), pair.server_fd.get());
  SSL_set_wfd(pair.client.get(), sender.get());
  pair.ClientWrites("last words");
  const linger at_once{1, 0};
  ::setsockopt(sender.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  sender.Reset();
  // Taken in two steps, so that the reset is met behind the rest of a record.
  std::array<std::byte, 5> into{};
  EXPECT_EQ(pair.server->Read(into).bytes, into.size());
  EXPECT_EQ(AsText(into), "last ");
  EXPECT_EQ(pair.ServerReads(), "words");
  EXPECT_EQ(pair.last_read, IoStatus::kError);
}

}  // namespace
}  // namespace sluice::tls
