// Proves how a Conn moves bytes: written at once while the kernel takes them, kept in order when it
// does not, FIN only behind the last byte, no reading while there is a reason not to, and every end
// of a connection reported as what it is. Both ends are real sockets.
#include "proxy/net/conn.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/net/address.h"
#include "proxy/net/socket.h"

namespace sluice::net {
namespace {

constexpr Millis kDeadline{10'000};

// Runs a loop until a condition holds.
class Driver {
 public:
  explicit Driver(Loop& loop) : loop_(loop) {}

  // Runs turns until `done` is true; false when that takes longer than `limit`.
  bool Until(const std::function<bool()>& done, Millis limit = kDeadline) {
    const Instant end = Now() + limit;
    while (!done()) {
      if (Now() > end) {
        return false;
      }
      timer_.Arm<&Driver::OnTimer>(loop_.base(), Millis(5), this);
      event_base_loop(loop_.base(), EVLOOP_ONCE);
    }
    return true;
  }

  // A few turns, for what must not happen.
  void Turns(int count = 3) {
    for (int i = 0; i < count; ++i) {
      timer_.Arm<&Driver::OnTimer>(loop_.base(), Millis(2), this);
      event_base_loop(loop_.base(), EVLOOP_ONCE);
    }
  }

 private:
  void OnTimer(short) noexcept {}

  Loop& loop_;
  Timer timer_;
};

// An owner that remembers what it was told. Reads one buffer for each call.
class Owner final : public ConnSink {
 public:
  void OnReadable(Conn& conn) noexcept override {
    ++readable;
    if (!reading) {
      return;
    }
    const IoResult got = conn.Read(std::span(buffer).first(read_size));
    last = got.status;
    input.append(reinterpret_cast<const char*>(buffer.data()), got.bytes);
    if (on_read) {
      on_read();
    }
  }
  void OnWritable(Conn&) noexcept override { ++writable; }
  void OnConnected(Conn&, int error) noexcept override {
    ++connected;
    connect_error = error;
  }

  std::array<std::byte, 65536> buffer{};
  std::size_t read_size = 65536;
  std::string input;
  IoStatus last = IoStatus::kWouldBlock;
  int readable = 0;
  int writable = 0;
  int connected = 0;
  int connect_error = -1;
  bool reading = true;
  std::function<void()> on_read;
};

// The far end, a plain non-blocking socket.
class Peer {
 public:
  explicit Peer(UniqueFd fd) : fd_(std::move(fd)) {}

  void Send(std::string_view text) {
    ASSERT_EQ(::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }

  // What is there now; sets eof() and error().
  std::string Receive() {
    std::string all;
    std::array<char, 65536> buffer{};
    for (;;) {
      const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
      if (got > 0) {
        all.append(buffer.data(), static_cast<std::size_t>(got));
        continue;
      }
      eof_ = eof_ || got == 0;
      error_ = got < 0 && errno != EAGAIN ? errno : error_;
      return all;
    }
  }

  void Finish() { ::shutdown(fd_.get(), SHUT_WR); }

  void Reset() {
    const linger now{1, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    fd_.Reset();
  }

  [[nodiscard]] bool eof() const { return eof_; }
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  UniqueFd fd_;
  bool eof_ = false;
  int error_ = 0;
};

// A TCP connection over loopback: unlike a socketpair it knows resets. `buffer` bounds what the
// kernel holds in each direction, roughly.
std::pair<UniqueFd, UniqueFd> TcpPair(int buffer = 0) {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM, 0));
  const Address any = Address::FromNumeric("127.0.0.1", 0).value();
  if (buffer > 0) {
    ::setsockopt(listener.get(), SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
    ::setsockopt(listener.get(), SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
  }
  EXPECT_EQ(::bind(listener.get(), any.raw(), any.raw_size()), 0);
  EXPECT_EQ(::listen(listener.get(), 1), 0);
  const Address address = Address::OfSocket(listener.get());
  UniqueFd client(::socket(AF_INET, SOCK_STREAM, 0));
  if (buffer > 0) {
    ::setsockopt(client.get(), SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
    ::setsockopt(client.get(), SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
  }
  EXPECT_EQ(::connect(client.get(), address.raw(), address.raw_size()), 0);
  UniqueFd accepted(::accept(listener.get(), nullptr, nullptr));
  for (const int fd : {client.get(), accepted.get()}) {
    ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  }
  return {std::move(accepted), std::move(client)};
}

// Plaintext that waits inside, as OpenSSL has it: the socket does not tell of it.
class HidingTransport final : public Transport {
 public:
  HidingTransport(int fd, std::string hidden) : fd_(fd), hidden_(std::move(hidden)) {}

  IoStatus Handshake() noexcept override { return IoStatus::kOk; }
  IoResult Read(std::span<std::byte> into) noexcept override {
    if (hidden_.empty()) {
      const IoResult got = Receive(fd_, into);
      return got;
    }
    const std::size_t count = std::min<std::size_t>(into.size(), hidden_.size());
    std::memcpy(into.data(), hidden_.data(), count);
    hidden_.erase(0, count);
    return {IoStatus::kOk, count};
  }
  bool HasBuffered() const noexcept override { return !hidden_.empty(); }
  IoResult Write(Bytes plaintext) noexcept override {
    if (!unsent_.empty()) {
      return {IoStatus::kWouldBlock, 0};
    }
    const IoResult sent = Send(fd_, plaintext);
    if (sent.status == IoStatus::kError) {
      return sent;
    }
    unsent_.append(AsText(plaintext.subspan(sent.bytes)));
    return {IoStatus::kOk, plaintext.size()};
  }
  IoStatus Flush() noexcept override {
    while (!unsent_.empty()) {
      const IoResult sent = Send(fd_, AsBytes(unsent_));
      if (sent.status != IoStatus::kOk) {
        return sent.status;
      }
      unsent_.erase(0, sent.bytes);
    }
    return IoStatus::kOk;
  }
  std::size_t pending() const noexcept override { return unsent_.size(); }
  void Shutdown() noexcept override { unsent_ += "bye"; }

 private:
  int fd_;
  std::string hidden_;
  std::string unsent_;
};

class ConnTest : public testing::Test {
 protected:
  // `buffer` as in TcpPair.
  void Connect(int buffer = 0) {
    auto [ours, theirs] = TcpPair(buffer);
    peer = std::make_unique<Peer>(std::move(theirs));
    conn.Open(std::move(ours), nullptr);
  }

  void ConnectHiding(std::string hidden, int buffer = 0) {
    auto [ours, theirs] = TcpPair(buffer);
    peer = std::make_unique<Peer>(std::move(theirs));
    auto transport = std::make_unique<HidingTransport>(ours.get(), std::move(hidden));
    conn.Open(std::move(ours), std::move(transport));
  }

  // Writes until the kernel takes no more and `beyond` bytes wait; returns all that was written.
  std::string Fill(std::size_t beyond = 50'000) {
    std::string written;
    while (conn.pending() < beyond) {
      std::string piece(10'000, '\0');
      for (std::size_t i = 0; i < piece.size(); ++i) {
        piece[i] = static_cast<char>((written.size() + i) % 251);
      }
      EXPECT_TRUE(conn.Write(AsBytes(piece)));
      written += piece;
    }
    return written;
  }

  Loop loop;
  Driver driver{loop};
  Owner owner;
  Conn conn{loop, owner};
  std::unique_ptr<Peer> peer;
};

constexpr int kSmall = 8192;

TEST_F(ConnTest, WritesAtOnceWhileTheKernelTakesIt) {
  Connect();
  EXPECT_TRUE(conn.Write(AsBytes("hello")));
  EXPECT_EQ(conn.pending(), 0U);
  EXPECT_EQ(peer->Receive(), "hello");  // without any turn of the loop
  EXPECT_EQ(loop.buffered(), 0);
}

TEST_F(ConnTest, KeepsWhatTheKernelRefusesAndSendsItInOrder) {
  Connect(kSmall);
  const std::string written = Fill();
  EXPECT_EQ(loop.buffered(), static_cast<std::int64_t>(conn.pending()));
  std::string got;
  ASSERT_TRUE(driver.Until([&] {
    got += peer->Receive();
    return got.size() == written.size();
  }));
  EXPECT_EQ(got, written);
  EXPECT_EQ(conn.pending(), 0U);
  EXPECT_EQ(loop.buffered(), 0);
  EXPECT_GT(owner.writable, 0);
}

TEST_F(ConnTest, FinishWriteWithoutPendingSendsFinAtOnce) {
  Connect();
  conn.FinishWrite();
  EXPECT_TRUE(conn.write_finished());
  ASSERT_TRUE(driver.Until([&] {
    static_cast<void>(peer->Receive());
    return peer->eof();
  }));
  peer->Send("still heard");
  ASSERT_TRUE(driver.Until([&] { return owner.input == "still heard"; }));
}

TEST_F(ConnTest, FinishWriteSendsFinBehindTheLastByte) {
  Connect(kSmall);
  const std::string written = Fill();
  conn.FinishWrite();
  conn.FinishWrite();
  EXPECT_TRUE(conn.write_finishing());
  EXPECT_FALSE(conn.write_finished());
  std::string got;
  ASSERT_TRUE(driver.Until([&] {
    got += peer->Receive();
    return peer->eof();
  }));
  EXPECT_EQ(got, written);
  EXPECT_TRUE(conn.write_finished());
}

TEST_F(ConnTest, CutWriteSendsFinBehindWhatTheKernelHas) {
  Connect(kSmall);
  const std::string written = Fill();
  const std::size_t taken = written.size() - conn.pending();
  conn.CutWrite();
  conn.CutWrite();
  EXPECT_TRUE(conn.write_finished());
  EXPECT_EQ(conn.pending(), 0U);
  EXPECT_EQ(loop.buffered(), 0);
  std::string got;
  ASSERT_TRUE(driver.Until([&] {
    got += peer->Receive();
    return peer->eof();
  }));
  EXPECT_EQ(got, written.substr(0, taken));
  peer->Send("still read");
  EXPECT_TRUE(driver.Until([&] { return owner.input == "still read"; }));
}

TEST_F(ConnTest, ReportsBytesThenEof) {
  Connect();
  peer->Send("last words");
  peer->Finish();
  ASSERT_TRUE(driver.Until([&] { return owner.last == IoStatus::kEof; }));
  EXPECT_EQ(owner.input, "last words");
  EXPECT_TRUE(conn.read_ended());
  const int calls = owner.readable;
  driver.Turns();
  EXPECT_EQ(owner.readable, calls) << "it is called again behind the end";
  EXPECT_TRUE(conn.Write(AsBytes("answer")));  // only their direction is over
  EXPECT_EQ(peer->Receive(), "answer");
}

TEST_F(ConnTest, ReportsBytesThenAResetThatCameWithThem) {
  Connect();
  peer->Send("last words");
  peer->Reset();
  ASSERT_TRUE(driver.Until([&] { return owner.last == IoStatus::kError; }));
  EXPECT_EQ(owner.input, "last words");
  EXPECT_TRUE(conn.read_ended());
  const int calls = owner.readable;
  driver.Turns();
  EXPECT_EQ(owner.readable, calls);
}

TEST_F(ConnTest, ReadingAfterTheEndIsAnError) {
  Connect();
  peer->Finish();
  ASSERT_TRUE(driver.Until([&] { return conn.read_ended(); }));
  EXPECT_EQ(conn.Read(owner.buffer).status, IoStatus::kError);
  conn.Close();
  EXPECT_EQ(conn.Read(owner.buffer).status, IoStatus::kError);
}

TEST_F(ConnTest, IsNotReadWhileThereIsAReason) {
  Connect();
  conn.PauseRead(Pause::kPeerFull);
  conn.PauseRead(Pause::kDraining);
  EXPECT_TRUE(conn.IsPaused(Pause::kPeerFull));
  EXPECT_FALSE(conn.IsPaused(Pause::kHandshake));
  peer->Send("later");
  driver.Turns();
  EXPECT_EQ(owner.readable, 0);
  conn.ResumeRead(Pause::kPeerFull);
  driver.Turns();
  EXPECT_EQ(owner.readable, 0) << "one reason is left";
  conn.ResumeRead(Pause::kDraining);
  ASSERT_TRUE(driver.Until([&] { return owner.input == "later"; }));
}

TEST_F(ConnTest, IsNotReadInTheTurnThatPausesIt) {
  // Readable and writable at once: the owner pauses in OnWritable's place by pausing here.
  Connect();
  peer->Send("x");
  owner.read_size = 1;
  owner.on_read = [&] { conn.PauseRead(Pause::kPeerFull); };
  ASSERT_TRUE(driver.Until([&] { return owner.readable == 1; }));
  peer->Send("y");
  driver.Turns();
  EXPECT_EQ(owner.readable, 1);
}

TEST_F(ConnTest, APausedConnDoesNotSpinWhenThePeerResets) {
  Connect();
  conn.PauseRead(Pause::kPeerFull);
  peer->Reset();
  driver.Turns();
  EXPECT_EQ(owner.readable, 0);
  EXPECT_EQ(owner.writable, 0);
  conn.ResumeRead(Pause::kPeerFull);
  ASSERT_TRUE(driver.Until([&] { return owner.last == IoStatus::kError; }));
}

TEST_F(ConnTest, TellsThatWritingFailedWhileSomethingWaits) {
  Connect(kSmall);
  static_cast<void>(Fill());
  conn.PauseRead(Pause::kPeerFull);  // so that only writing can notice
  peer->Reset();
  ASSERT_TRUE(driver.Until([&] { return conn.write_failed(); }));
  EXPECT_GT(owner.writable, 0);
  EXPECT_EQ(conn.pending(), 0U);
  EXPECT_EQ(loop.buffered(), 0);
  EXPECT_FALSE(conn.Write(AsBytes("more")));
}

TEST_F(ConnTest, WriteFailsAtOnceOnABrokenConnection) {
  Connect();
  peer->Reset();
  ASSERT_TRUE(driver.Until([&] { return owner.last == IoStatus::kError; }));
  EXPECT_FALSE(conn.Write(AsBytes("x")));
  EXPECT_TRUE(conn.write_failed());
  conn.FinishWrite();
  EXPECT_FALSE(conn.write_finished());
}

// What an answer to the end of the connection is worth hangs on it: the kernel tells of the reset
// only once, here to the write.
TEST_F(ConnTest, AResetThatAWriteWasToldOfIsNoEndOfTheStream) {
  Connect();
  owner.reading = false;
  peer->Send("half an answer");
  peer->Reset();
  EXPECT_FALSE(conn.Write(AsBytes("x")));
  EXPECT_EQ(conn.Read(owner.buffer).bytes, 14U);
  EXPECT_EQ(conn.Read(owner.buffer).status, IoStatus::kError);
  EXPECT_TRUE(conn.read_ended());
}

TEST_F(ConnTest, AResetThatTheRestOfAWriteWasToldOfIsNoEndOfTheStream) {
  Connect(kSmall);
  static_cast<void>(Fill());
  conn.PauseRead(Pause::kPeerFull);
  peer->Reset();
  ASSERT_TRUE(driver.Until([&] { return conn.write_failed(); }));
  EXPECT_EQ(conn.Read(owner.buffer).status, IoStatus::kError);
}

TEST_F(ConnTest, AConnectionThatAWriteFoundLostIsNoEndOfTheStreamEither) {
  Connect(kSmall);
  owner.reading = false;
  static_cast<void>(Fill());
  const unsigned patience = 50;  // milliseconds for a peer that takes nothing
  ASSERT_EQ(::setsockopt(conn.fd(), IPPROTO_TCP, TCP_USER_TIMEOUT, &patience, sizeof(patience)), 0);
  ASSERT_TRUE(driver.Until([&] { return conn.write_failed(); }));
  EXPECT_EQ(conn.Read(owner.buffer).status, IoStatus::kError);
}

TEST_F(ConnTest, AFinIsTheEndThoughWritingFailsBehindIt) {
  Connect();
  owner.reading = false;
  peer->Send("a whole answer");
  peer->Finish();
  peer->Reset();
  EXPECT_FALSE(conn.Write(AsBytes("x")));
  EXPECT_EQ(conn.Read(owner.buffer).bytes, 14U);
  EXPECT_EQ(conn.Read(owner.buffer).status, IoStatus::kEof);
}

TEST_F(ConnTest, CloseDropsWhatWaits) {
  Connect(kSmall);
  static_cast<void>(Fill());
  conn.Close();
  conn.Close();
  EXPECT_FALSE(conn.open());
  EXPECT_TRUE(conn.read_ended());
  EXPECT_EQ(conn.pending(), 0U);
  EXPECT_EQ(loop.buffered(), 0);
  EXPECT_FALSE(conn.Write(AsBytes("x")));
}

TEST_F(ConnTest, ClosedInItsOwnCallbackIsNotCalledAgain) {
  Connect();
  owner.read_size = 1;
  owner.on_read = [&] { conn.Close(); };
  peer->Send("abc");
  ASSERT_TRUE(driver.Until([&] { return owner.readable == 1; }));
  driver.Turns();
  EXPECT_EQ(owner.readable, 1);
}

// Connecting.

TEST_F(ConnTest, SendsWhatWasWrittenWhileConnecting) {
  auto listener = Listen(Address::FromNumeric("127.0.0.1", 0).value());
  ASSERT_TRUE(listener.has_value());
  auto fd = StartConnect(Address::OfSocket(listener->get()));
  ASSERT_TRUE(fd.has_value());
  conn.OpenConnecting(std::move(*fd));
  EXPECT_TRUE(conn.connecting());
  EXPECT_TRUE(conn.Write(AsBytes("early")));
  conn.FinishWrite();
  ASSERT_TRUE(driver.Until([&] { return owner.connected == 1; }));
  EXPECT_EQ(owner.connect_error, 0);
  UniqueFd accepted(::accept4(listener->get(), nullptr, nullptr, SOCK_NONBLOCK));
  Peer far(std::move(accepted));
  std::string got;
  ASSERT_TRUE(driver.Until([&] {
    got += far.Receive();
    return far.eof();
  }));
  EXPECT_EQ(got, "early");
}

TEST_F(ConnTest, SendsTheFinThatWasAskedForWhileConnecting) {
  auto listener = Listen(Address::FromNumeric("127.0.0.1", 0).value());
  ASSERT_TRUE(listener.has_value());
  auto fd = StartConnect(Address::OfSocket(listener->get()));
  ASSERT_TRUE(fd.has_value());
  conn.OpenConnecting(std::move(*fd));
  conn.FinishWrite();
  ASSERT_TRUE(driver.Until([&] { return owner.connected == 1; }));
  UniqueFd accepted(::accept4(listener->get(), nullptr, nullptr, SOCK_NONBLOCK));
  Peer far(std::move(accepted));
  EXPECT_TRUE(driver.Until([&] {
    static_cast<void>(far.Receive());
    return far.eof();
  }));
}

TEST_F(ConnTest, ReportsARefusedConnect) {
  Address nobody;
  {
    const auto listener = Listen(Address::FromNumeric("127.0.0.1", 0).value());
    nobody = Address::OfSocket(listener->get());
  }
  auto fd = StartConnect(nobody);
  ASSERT_TRUE(fd.has_value());
  conn.OpenConnecting(std::move(*fd));
  ASSERT_TRUE(driver.Until([&] { return owner.connected == 1; }));
  EXPECT_EQ(owner.connect_error, ECONNREFUSED);
}

// A transport that holds plaintext of which the socket does not tell.

TEST_F(ConnTest, ReadsHiddenPlaintextToItsEnd) {
  ConnectHiding("abcdef");
  owner.read_size = 1;
  peer->Send("!");  // makes the socket readable once
  ASSERT_TRUE(driver.Until([&] { return owner.input == "abcdef!"; })) << owner.input;
}

TEST_F(ConnTest, ReadsHiddenPlaintextAfterAPause) {
  ConnectHiding("abc");
  conn.PauseRead(Pause::kHandshake);
  driver.Turns();
  EXPECT_EQ(owner.input, "");
  conn.ResumeRead(Pause::kHandshake);
  ASSERT_TRUE(driver.Until([&] { return owner.input == "abc"; })) << owner.input;
}

TEST_F(ConnTest, ReadsHiddenPlaintextAlsoWhenWritingStartsToWait) {
  // Registering for writing anew must not lose the read that was already due.
  ConnectHiding("abc", kSmall);
  owner.read_size = 1;
  bool filled = false;
  owner.on_read = [&] {
    if (!filled) {
      filled = true;
      static_cast<void>(Fill());
    }
  };
  conn.PauseRead(Pause::kHandshake);
  conn.ResumeRead(Pause::kHandshake);
  ASSERT_TRUE(driver.Until([&] { return owner.input == "abc"; }, Millis(2000))) << owner.input;
}

TEST_F(ConnTest, WhatATransportHoldsIsPendingToo) {
  ConnectHiding("", kSmall);
  static_cast<void>(Fill());
  EXPECT_EQ(loop.buffered(), static_cast<std::int64_t>(conn.pending()));
  conn.FinishWrite();
  std::string got;
  ASSERT_TRUE(driver.Until([&] {
    got += peer->Receive();
    return peer->eof();
  }));
  EXPECT_EQ(got.substr(got.size() - 3), "bye");
}

TEST_F(ConnTest, NothingIsPendingAfterAWriteFailedUnderATransport) {
  ConnectHiding("", kSmall);
  static_cast<void>(Fill());
  conn.PauseRead(Pause::kPeerFull);
  peer->Reset();
  ASSERT_TRUE(driver.Until([&] { return conn.write_failed(); }));
  EXPECT_EQ(conn.pending(), 0U);
  EXPECT_EQ(loop.buffered(), 0);
}

// Two conns as a relay has them: what comes from `peer` goes out to `far`.
class SpliceTest : public ConnTest {
 protected:
  // `buffer` as in TcpPair, for the socket of `to`.
  void ConnectBoth(int buffer = 0) {
    ::signal(SIGPIPE, SIG_IGN);  // as the program does
    Connect();
    auto [ours, theirs] = TcpPair(buffer);
    far = std::make_unique<Peer>(std::move(theirs));
    to.Open(std::move(ours), nullptr);
    owner.reading = false;
  }

  // Splices until nothing more can be moved; what has left `conn`.
  std::size_t SpliceAll(std::size_t most = 1U << 20U) {
    std::size_t total = 0;
    for (;;) {
      const auto moved = conn.SpliceTo(to, most);
      if (!moved || moved->status != IoStatus::kOk) {
        return total;
      }
      total += moved->bytes;
    }
  }

  Owner far_owner;
  Conn to{loop, far_owner};
  std::unique_ptr<Peer> far;
};

std::string Counted(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) {
    text[i] = static_cast<char>((i ^ (i >> 8U)) % 253);
  }
  return text;
}

TEST_F(SpliceTest, MovesAtMostWhatItIsAsked) {
  ConnectBoth();
  peer->Send("abcdef");
  const auto moved = conn.SpliceTo(to, 4);
  ASSERT_TRUE(moved);
  EXPECT_EQ(moved->status, IoStatus::kOk);
  EXPECT_EQ(moved->bytes, 4U);
  EXPECT_EQ(to.pending(), 0U);
  EXPECT_EQ(far->Receive(), "abcd");
  EXPECT_EQ(conn.SpliceTo(to, 100)->bytes, 2U);
  EXPECT_EQ(conn.SpliceTo(to, 100)->status, IoStatus::kWouldBlock);
  EXPECT_EQ(loop.pipes().lent(), 0U);
}

TEST_F(SpliceTest, WhatTheKernelRefusesWaitsInOrderWithWhatIsWrittenBehindIt) {
  ConnectBoth(kSmall);
  const std::string text = Counted(100'000);
  peer->Send(text);
  std::size_t moved = 0;
  ASSERT_TRUE(driver.Until([&] {
    moved += SpliceAll();
    return to.pending() > 0 && moved >= 60'000;
  }));
  EXPECT_EQ(loop.pipes().lent(), 1U);
  EXPECT_EQ(loop.buffered(), static_cast<std::int64_t>(to.pending()));
  EXPECT_TRUE(to.Write(AsBytes("behind it")));
  EXPECT_FALSE(conn.SpliceTo(to, 100).has_value()) << "spliced past bytes that wait in memory";
  std::string got;
  ASSERT_TRUE(driver.Until([&] {
    got += far->Receive();
    return got.size() == moved + 9;
  }));
  EXPECT_EQ(got, text.substr(0, moved) + "behind it");
  EXPECT_EQ(to.pending(), 0U);
  EXPECT_EQ(loop.buffered(), 0);
  EXPECT_EQ(loop.pipes().lent(), 0U);
}

TEST_F(SpliceTest, GoesOnWithThePipeThatIsStillFull) {
  ConnectBoth(kSmall);
  const std::string text = Counted(1'500'000);
  std::size_t sent = 0;
  std::size_t moved = 0;
  std::string got;
  ASSERT_TRUE(driver.Until([&] {
    const ssize_t now = ::send(peer->fd(), text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    sent += now > 0 ? static_cast<std::size_t>(now) : 0;
    moved += SpliceAll();
    got += far->Receive();
    return got.size() == text.size();
  }));
  EXPECT_EQ(moved, text.size());
  EXPECT_TRUE(got == text);
  EXPECT_EQ(loop.pipes().lent(), 0U);
}

TEST_F(SpliceTest, TheFinGoesBehindWhatWaitsInThePipe) {
  ConnectBoth(kSmall);
  peer->Send(Counted(90'000));
  std::size_t moved = 0;
  ASSERT_TRUE(driver.Until([&] {
    moved += SpliceAll();
    return to.pending() > 0;
  }));
  to.FinishWrite();
  EXPECT_FALSE(to.write_finished());
  EXPECT_FALSE(conn.SpliceTo(to, 100).has_value());
  std::string got;
  ASSERT_TRUE(driver.Until([&] {
    got += far->Receive();
    return far->eof();
  }));
  EXPECT_EQ(got, Counted(90'000).substr(0, moved));
}

TEST_F(SpliceTest, ReportsTheEndAndAReset) {
  ConnectBoth();
  peer->Send("last words");
  peer->Finish();
  EXPECT_EQ(SpliceAll(), 10U);
  EXPECT_TRUE(conn.read_ended());
  EXPECT_FALSE(conn.SpliceTo(to, 100).has_value());

  Conn second(loop, owner);
  auto [ours, theirs] = TcpPair();
  Peer other(std::move(theirs));
  second.Open(std::move(ours), nullptr);
  other.Reset();
  EXPECT_EQ(second.SpliceTo(to, 100).value().status, IoStatus::kError);
  EXPECT_TRUE(second.read_ended());
}

TEST_F(SpliceTest, AResetThatAWriteWasToldOfIsNoEndOfTheStream) {
  ConnectBoth();
  peer->Send("half");
  peer->Reset();
  EXPECT_FALSE(conn.Write(AsBytes("x")));
  EXPECT_EQ(conn.SpliceTo(to, 100).value().bytes, 4U);
  EXPECT_EQ(conn.SpliceTo(to, 100).value().status, IoStatus::kError);
}

TEST_F(SpliceTest, TellsThatWritingFailedAndGivesThePipeBack) {
  ConnectBoth(kSmall);
  peer->Send(Counted(90'000));
  ASSERT_TRUE(driver.Until([&] {
    SpliceAll();
    return to.pending() > 0;
  }));
  far->Reset();
  ASSERT_TRUE(driver.Until([&] { return to.write_failed(); }));
  EXPECT_EQ(to.pending(), 0U);
  EXPECT_EQ(loop.buffered(), 0);
  EXPECT_EQ(loop.pipes().lent(), 0U);
  EXPECT_FALSE(conn.SpliceTo(to, 100).has_value());
}

TEST_F(SpliceTest, CloseGivesThePipeBack) {
  ConnectBoth(kSmall);
  peer->Send(Counted(90'000));
  ASSERT_TRUE(driver.Until([&] {
    SpliceAll();
    return to.pending() > 0;
  }));
  EXPECT_EQ(loop.pipes().lent(), 1U);
  to.Close();
  EXPECT_EQ(loop.pipes().lent(), 0U);
}

TEST_F(SpliceTest, IsNotPossibleUnderATransportOrWithoutAPipe) {
  ConnectBoth();
  peer->Send("stays");
  Conn encrypted(loop, far_owner);
  auto [ours, theirs] = TcpPair();
  auto transport = std::make_unique<HidingTransport>(ours.get(), "");
  encrypted.Open(std::move(ours), std::move(transport));
  EXPECT_FALSE(conn.SpliceTo(encrypted, 100).has_value());
  EXPECT_FALSE(encrypted.SpliceTo(conn, 100).has_value());

  std::vector<std::unique_ptr<Pipe>> all;
  for (std::size_t i = 0; i < PipePool::kMostLent; ++i) {
    all.push_back(loop.pipes().Borrow());
  }
  EXPECT_FALSE(conn.SpliceTo(to, 100).has_value());
  for (auto& pipe : all) {
    loop.pipes().Return(std::move(pipe));
  }
  EXPECT_EQ(conn.SpliceTo(to, 100).value().bytes, 5U);
}

}  // namespace
}  // namespace sluice::net
