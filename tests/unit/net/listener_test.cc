// Proves that a listener hands over what connects, serves what is queued when it closes, and rests
// instead of spinning while the process is out of descriptors.
#include "proxy/net/listener.h"

#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cerrno>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/net/socket.h"

namespace sluice::net {
namespace {

class Doorman final : public AcceptSink {
 public:
  void OnAccept(Listener&, UniqueFd fd, const Address& peer) noexcept override {
    accepted.push_back(std::move(fd));
    peers.push_back(peer.Text());
    if (on_accept) {
      on_accept();
    }
  }
  void OnAcceptPaused(Listener&, int sys_errno) noexcept override {
    pauses.push_back(sys_errno);
    if (on_pause) {
      on_pause();
    }
  }

  std::vector<UniqueFd> accepted;
  std::vector<std::string> peers;
  std::vector<int> pauses;
  std::function<void()> on_accept;
  std::function<void()> on_pause;
};

struct Bound {
  UniqueFd fd;
  Address address;
};

Bound ListenSomewhere(const char* host = "127.0.0.1") {
  auto fd = Listen(Address::FromNumeric(host, 0).value());
  EXPECT_TRUE(fd.has_value()) << fd.error().message;
  const Address address = Address::OfSocket(fd->get());
  return {std::move(*fd), address};
}

UniqueFd ConnectTo(const Address& address) {
  auto fd = StartConnect(address);
  EXPECT_TRUE(fd.has_value());
  return std::move(*fd);
}

std::vector<UniqueFd> ConnectTo(const Address& address, std::size_t count) {
  std::vector<UniqueFd> clients;
  while (clients.size() < count) {
    clients.push_back(ConnectTo(address));
  }
  return clients;
}

TEST(Listener, HandsOverWhatConnects) {
  Loop loop;
  Doorman doorman;
  Bound bound = ListenSomewhere();
  Listener listener(loop, std::move(bound.fd), 7, doorman);
  const UniqueFd client = ConnectTo(bound.address);
  doorman.on_accept = [&] { loop.Stop(); };
  loop.Run();
  ASSERT_EQ(doorman.accepted.size(), 1U);
  EXPECT_EQ(doorman.peers[0], Address::OfSocket(client.get()).Text());
  EXPECT_EQ(listener.tag(), 7U);
}

TEST(Listener, TakesAStormInFewTurnsAndNotInOne) {
  Loop loop;
  Doorman doorman;
  Bound bound = ListenSomewhere();
  Listener listener(loop, std::move(bound.fd), 0, doorman);
  const std::vector<UniqueFd> clients = ConnectTo(bound.address, 100);
  std::vector<std::size_t> after_turn;
  while (doorman.accepted.size() < clients.size()) {
    event_base_loop(loop.base(), EVLOOP_ONCE);
    after_turn.push_back(doorman.accepted.size());
    ASSERT_LE(after_turn.size(), 8U);  // 1 + 2 + 4 + ... reaches 100 in the 7th
  }
  EXPECT_LE(after_turn.front(), 2U) << "the sessions that live already had to wait";
}

TEST(Listener, ServesWhatIsQueuedWhenItCloses) {
  Loop loop;
  Doorman doorman;
  Bound bound = ListenSomewhere();
  Listener listener(loop, std::move(bound.fd), 0, doorman);
  const std::vector<UniqueFd> clients = ConnectTo(bound.address, 100);  // more than a turn accepts
  EXPECT_FALSE(listener.closing());
  listener.Close();
  EXPECT_TRUE(listener.closing());
  EXPECT_EQ(doorman.accepted.size(), clients.size());
  listener.Close();
  const auto late = StartConnect(bound.address);
  if (late.has_value()) {
    loop.Post([&] { loop.Stop(); });
    loop.Run();
    EXPECT_EQ(ConnectError(late->get()), ECONNREFUSED);
  }
}

TEST(Listener, RestsWhileThereAreNoDescriptors) {
  Loop loop;
  Doorman doorman;
  Bound bound = ListenSomewhere();
  Listener listener(loop, std::move(bound.fd), 0, doorman);
  const UniqueFd client = ConnectTo(bound.address);

  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = 0;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const Instant began = Now();
  doorman.on_pause = [&] {
    if (doorman.pauses.size() == 3) {
      ::setrlimit(RLIMIT_NOFILE, &before);
    }
  };
  doorman.on_accept = [&] { loop.Stop(); };
  loop.Run();
  ::setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(doorman.pauses, std::vector<int>(3, EMFILE));
  EXPECT_EQ(doorman.accepted.size(), 1U);
  EXPECT_GE(Now() - began, Millis(40)) << "it did not rest between its attempts";
}

TEST(Socket, KnowsWhetherAConnectionIsMade) {
  const UniqueFd listening = Listen(Address::FromNumeric("127.0.0.1", 0).value()).value();
  const UniqueFd made = StartConnect(Address::OfSocket(listening.get())).value();
  pollfd writable{made.get(), POLLOUT, 0};
  ASSERT_EQ(::poll(&writable, 1, 5'000), 1);
  EXPECT_TRUE(IsConnected(made.get()));
  const UniqueFd never(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_FALSE(IsConnected(never.get()));
}

TEST(Socket, TellsThatAnAddressIsTaken) {
  const Bound bound = ListenSomewhere();
  const auto taken = CheckFree(bound.address);
  ASSERT_FALSE(taken.has_value());
  EXPECT_NE(taken.error().message.find(bound.address.Text()), std::string::npos);
  EXPECT_EQ(taken.error().sys_errno, EADDRINUSE);
}

TEST(Socket, LetsAWorkerJoinItsSibling) {
  const Bound bound = ListenSomewhere();
  EXPECT_TRUE(Listen(bound.address).has_value());
}

TEST(Socket, KeepsTheFamiliesApart) {
  const Bound v6 = ListenSomewhere("::1");
  EXPECT_EQ(v6.address.family(), AF_INET6);
  EXPECT_EQ(v6.address.Text(), "[::1]:" + std::to_string(v6.address.port()));
}

TEST(Listener, AcceptsWithItsReserveWhenDescriptorsAreOut) {
  Loop loop;
  Doorman doorman;
  Bound bound = ListenSomewhere();
  const std::vector<UniqueFd> clients = ConnectTo(bound.address, 3);
  FdReserve reserve(2);
  ASSERT_EQ(reserve.size(), 2U);
  Listener listener(loop, std::move(bound.fd), 0, doorman, &reserve);
  // Every number below the limit is in use now.
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  std::vector<UniqueFd> filler;
  filler.emplace_back(::dup(0));
  rlimit low = before;
  low.rlim_cur = static_cast<rlim_t>(filler.back().get()) + 1;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  doorman.on_pause = [&] { loop.Stop(); };
  loop.Run();
  ::setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(doorman.accepted.size(), 2U);
  EXPECT_EQ(doorman.pauses, std::vector<int>{EMFILE});
  EXPECT_EQ(reserve.size(), 0U);
  EXPECT_FALSE(reserve.Give());
  reserve.Refill();
  EXPECT_EQ(reserve.size(), 2U);
}

}  // namespace
}  // namespace sluice::net
