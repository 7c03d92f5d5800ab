// Proves what a new configuration makes of the listeners that are there, that nothing is done when
// something cannot be, and that of the sockets which somebody else has bound each has a worker and
// each worker has one.
#include "proxy/server/listener_set.h"

#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/config/load.h"
#include "proxy/net/socket.h"
#include "proxy/tls/self_signed.h"

namespace sluice::server {
namespace {

ino_t InodeOf(const UniqueFd& fd) {
  struct stat file {};
  EXPECT_EQ(::fstat(fd.get(), &file), 0);
  return file.st_ino;
}

net::Address Loopback(std::uint16_t port) {
  return *net::Address::FromNumeric("127.0.0.1", port);
}

// `count` sockets of one address, as the workers of a predecessor had them.
std::vector<PassedSocket> Passed(const std::string& name, std::size_t count) {
  std::vector<PassedSocket> all;
  net::Address address = Loopback(0);
  for (std::size_t i = 0; i < count; ++i) {
    auto fd = net::Listen(address);
    EXPECT_TRUE(fd.has_value());
    address = net::Address::OfSocket(fd->get());
    all.push_back({name, address.Text(), address, std::move(*fd)});
  }
  return all;
}

std::set<ino_t> InodesOf(const std::vector<PassedSocket>& sockets) {
  std::set<ino_t> all;
  for (const PassedSocket& one : sockets) {
    all.insert(InodeOf(one.fd));
  }
  return all;
}

config::Config Config(const std::string& listeners, const std::string& base = "") {
  const config::LoadResult loaded =
      config::LoadText(listeners + "[[route]]\npool = \"a\"\n[pool.a]\n" +
                           "backends = [{ address = \"127.0.0.1:9001\" }]\n",
                       "t.toml", base);
  for (const config::Mistake& mistake : loaded.mistakes) {
    ADD_FAILURE() << mistake.Text();
  }
  return loaded.config;
}

std::string Listener(const std::string& name, std::uint16_t port = 0,
                     const std::string& more = {}) {
  return "[[listener]]\nname = \"" + name + "\"\naddress = \"127.0.0.1:" + std::to_string(port) +
         "\"\n" + more + "\n";
}

class ListenerSetTest : public testing::Test {
 protected:
  static constexpr std::size_t kWorkers = 2;

  // Prepares and commits; what the workers get to know.
  ListenerSet::Change Load(const config::Config& config, std::vector<PassedSocket> passed = {}) {
    auto change = set_.Prepare(config, std::move(passed));
    EXPECT_TRUE(change.has_value()) << change.error().message;
    set_.Commit(*change);
    return std::move(*change);
  }

  std::uint16_t PortOf(const std::string& name) const {
    for (const Bound& bound : set_.bound()) {
      if (bound.name == name) {
        return bound.address.port();
      }
    }
    ADD_FAILURE() << "no listener " << name;
    return 0;
  }

  metrics::Exporter exporter_{kWorkers, {}};
  tls::TicketKeys keys_;
  WorkerLibraries libraries_{kWorkers};
  ListenerSet set_{libraries_, exporter_, keys_};
};

TEST_F(ListenerSetTest, EveryWorkerGetsASocketOfItsOwn) {
  const auto change = Load(Config(Listener("a") + Listener("b")));
  std::set<ino_t> inodes;
  for (const auto& listeners : change.by_worker) {
    ASSERT_EQ(listeners.size(), 2U);
    for (const WorkerListener& one : listeners) {
      ASSERT_EQ(one.sockets.size(), 1U);
      inodes.insert(InodeOf(one.sockets[0]));
      EXPECT_NE(one.view.get(), nullptr);
    }
  }
  EXPECT_EQ(inodes.size(), 2 * kWorkers);
  EXPECT_NE(PortOf("a"), PortOf("b"));
  // For a successor: the same sockets once more.
  const auto copies = set_.Duplicate();
  ASSERT_TRUE(copies.has_value());
  EXPECT_EQ(InodesOf(*copies), inodes);
}

TEST_F(ListenerSetTest, WhatIsTheSameIsLeftAlone) {
  const config::Config config = Config(Listener("a") + Listener("b"));
  Load(config);
  const std::uint16_t port = PortOf("a");
  const auto change = Load(config);
  for (const auto& listeners : change.by_worker) {
    EXPECT_TRUE(listeners.empty());
  }
  EXPECT_TRUE(change.closed.empty());
  EXPECT_EQ(PortOf("a"), port);
  // Another order is no change either.
  const auto turned = Load(Config(Listener("b") + Listener("a")));
  EXPECT_TRUE(turned.by_worker[0].empty());
  EXPECT_TRUE(turned.closed.empty());
  EXPECT_EQ(set_.bound()[0].name, "b");
}

TEST_F(ListenerSetTest, OnlyWhatIsAddedOrGoneIsTold) {
  const auto first = Load(Config(Listener("a") + Listener("b")));
  const std::size_t tag_of_b = first.by_worker[0][1].tag;
  const auto change = Load(Config(Listener("a") + Listener("c")));
  for (const auto& listeners : change.by_worker) {
    ASSERT_EQ(listeners.size(), 1U);
    EXPECT_EQ(listeners[0].view->name, "c");
    EXPECT_EQ(listeners[0].sockets.size(), 1U);
  }
  EXPECT_EQ(change.closed, std::vector<std::size_t>{tag_of_b});
  EXPECT_EQ(set_.bound().size(), 2U);
  // A tag is never given to another one.
  const auto again = Load(Config(Listener("a") + Listener("b")));
  ASSERT_EQ(again.by_worker[0].size(), 1U);
  EXPECT_NE(again.by_worker[0][0].tag, tag_of_b);
  EXPECT_NE(again.by_worker[0][0].tag, change.by_worker[0][0].tag);
}

TEST_F(ListenerSetTest, AnotherNameOnTheSameAddressKeepsTheSockets) {
  const std::uint16_t port = Passed("", 1)[0].address.port();  // free again
  const auto first = Load(Config(Listener("before", port)));
  const auto change = Load(Config(Listener("after", port)));
  for (std::size_t worker = 0; worker < kWorkers; ++worker) {
    ASSERT_EQ(change.by_worker[worker].size(), 1U);
    const WorkerListener& one = change.by_worker[worker][0];
    EXPECT_EQ(one.tag, first.by_worker[worker][0].tag);
    EXPECT_TRUE(one.sockets.empty());
    EXPECT_EQ(one.view->name, "after");
  }
  EXPECT_TRUE(change.closed.empty());
  EXPECT_EQ(PortOf("after"), port);
}

TEST_F(ListenerSetTest, ARedirectIsTurnedOnOverTheSameSocket) {
  Load(Config(Listener("a")));
  const std::uint16_t port = PortOf("a");
  const auto change = Load(Config(Listener("a", 0, "redirect.port = 8443")));
  ASSERT_EQ(change.by_worker[0].size(), 1U);
  EXPECT_EQ(change.by_worker[0][0].view->redirect, (config::Redirect{8443, 308}));
  EXPECT_TRUE(change.closed.empty());
  EXPECT_EQ(PortOf("a"), port);
}

TEST_F(ListenerSetTest, NothingIsDoneWhenOneAddressIsTaken) {
  Load(Config(Listener("a")));
  // Not one of ours: without SO_REUSEPORT of both the kernel refuses, with it CheckFree does.
  const std::vector<PassedSocket> taken = Passed("", 1);
  const std::uint16_t port = taken[0].address.port();
  const auto change = set_.Prepare(Config(Listener("new") + Listener("taken", port)));
  ASSERT_FALSE(change.has_value());
  EXPECT_NE(change.error().message.find(std::to_string(port)), std::string::npos)
      << change.error().message;
  ASSERT_EQ(set_.bound().size(), 1U);
  EXPECT_EQ(set_.bound()[0].name, "a");
  EXPECT_EQ(set_.Duplicate()->size(), kWorkers);
}

TEST_F(ListenerSetTest, LetsGoOfItsDescriptors) {
  Load(Config(Listener("a")));
  ASSERT_EQ(set_.Duplicate()->size(), kWorkers);
  set_.LetGo();
  EXPECT_TRUE(set_.Duplicate()->empty());
  EXPECT_EQ(set_.bound().size(), 1U) << "what it was is still told";
}

// TLS.

class ListenerSetTlsTest : public ListenerSetTest {
 protected:
  ListenerSetTlsTest() {
    path_ = (std::filesystem::temp_directory_path() / "sluice-listeners-XXXXXX").string();
    EXPECT_NE(::mkdtemp(path_.data()), nullptr);
    Install("one.test");
  }
  ~ListenerSetTlsTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  void Install(const std::string& name) const {
    const auto made = tls::MakeSelfSigned({name}, 10);
    ASSERT_TRUE(made.has_value());
    std::ofstream(path_ + "/a.pem") << made->chain;
    std::ofstream(path_ + "/a.key") << made->key;
  }

  config::Config Secure(const std::string& more = {}) const {
    return Config(
        Listener("s", 0, "tls.certificates = [{ chain = \"a.pem\", key = \"a.key\" }]\n" + more),
        path_);
  }

  std::string path_;
};

TEST_F(ListenerSetTlsTest, FilesAreLoadedAnewOnlyWhenTheyHaveChanged) {
  Load(Secure());
  ASSERT_EQ(set_.certificates().size(), 1U);
  EXPECT_EQ(set_.certificates()[0].name, "one.test");
  const auto same = Load(Secure());
  EXPECT_TRUE(same.by_worker[0].empty());
  EXPECT_EQ(set_.certificates().size(), 1U);

  Install("two.test");
  const auto changed = Load(Secure());
  for (const auto& listeners : changed.by_worker) {
    ASSERT_EQ(listeners.size(), 1U);
    EXPECT_TRUE(listeners[0].sockets.empty());
    EXPECT_EQ(listeners[0].view->tls->certificates()[0].name, "two.test");
  }
  EXPECT_EQ(set_.certificates()[0].name, "two.test");

  EXPECT_EQ(Load(Secure("tls.min_version = \"1.3\"")).by_worker[0].size(), 1U);
}

TEST_F(ListenerSetTlsTest, AnAddressTurnsPlainAndBack) {
  const auto first = Load(Secure());
  const auto plain = Load(Config(Listener("s")));
  ASSERT_EQ(plain.by_worker[1].size(), 1U);
  EXPECT_FALSE(plain.by_worker[1][0].view->is_tls());
  EXPECT_EQ(plain.by_worker[1][0].tag, first.by_worker[1][0].tag);
  EXPECT_TRUE(set_.certificates().empty());
  const auto back = Load(Secure());
  ASSERT_EQ(back.by_worker[1].size(), 1U);
  EXPECT_TRUE(back.by_worker[1][0].view->is_tls());
  EXPECT_TRUE(back.closed.empty());
}

TEST_F(ListenerSetTlsTest, ABrokenFileChangesNothing) {
  Load(Secure());
  const config::Config config = Secure();
  std::ofstream(path_ + "/a.key") << "nonsense";
  EXPECT_FALSE(set_.Prepare(config).has_value());
  EXPECT_EQ(set_.certificates()[0].name, "one.test");
  std::filesystem::remove(path_ + "/a.pem");
  EXPECT_FALSE(set_.Prepare(config).has_value());
}

// Sockets of somebody else.

struct Adoption {
  std::size_t sockets;
  std::size_t workers;
};

class AdoptionTest : public testing::TestWithParam<Adoption> {};

TEST_P(AdoptionTest, EverySocketIsServedAndEveryWorkerServes) {
  const auto [sockets, workers] = GetParam();
  metrics::Exporter exporter(workers, {});
  const tls::TicketKeys keys;
  WorkerLibraries libraries(workers);
  ListenerSet set(libraries, exporter, keys);
  std::vector<PassedSocket> passed = Passed("a", sockets);
  const std::set<ino_t> inodes = InodesOf(passed);
  const net::Address address = passed[0].address;
  auto change = set.Prepare(Config(Listener("a")), std::move(passed));
  ASSERT_TRUE(change.has_value());
  set.Commit(*change);
  EXPECT_EQ(set.bound()[0].address.Text(), address.Text());

  std::map<ino_t, std::size_t> served;
  for (const auto& listeners : change->by_worker) {
    ASSERT_EQ(listeners.size(), 1U);
    EXPECT_FALSE(listeners[0].sockets.empty());
    std::set<ino_t> mine;
    for (const UniqueFd& fd : listeners[0].sockets) {
      EXPECT_TRUE(mine.insert(InodeOf(fd)).second) << "one worker has one twice";
      ++served[InodeOf(fd)];
    }
  }
  std::set<ino_t> all;
  for (const auto& [inode, count] : served) {
    all.insert(inode);
    EXPECT_LE(count, (workers + sockets - 1) / sockets) << "shared by more than need be";
  }
  EXPECT_EQ(all, inodes);
  // The next one gets each of them again, and none twice.
  const auto copies = set.Duplicate();
  ASSERT_TRUE(copies.has_value());
  EXPECT_EQ(copies->size(), sockets);
  EXPECT_EQ(InodesOf(*copies), inodes);
}

INSTANTIATE_TEST_SUITE_P(Numbers, AdoptionTest,
                         testing::Values(Adoption{1, 1}, Adoption{1, 3}, Adoption{3, 1},
                                         Adoption{2, 3}, Adoption{3, 2}, Adoption{4, 2},
                                         Adoption{2, 4}, Adoption{5, 3}),
                         [](const auto& test) {
                           return std::to_string(test.param.sockets) + "For" +
                                  std::to_string(test.param.workers);
                         });

TEST_F(ListenerSetTest, TakesPassedSocketsByAddressOrByName) {
  std::vector<PassedSocket> all;
  auto by_address = Passed("of another name", 1);
  auto by_name = Passed("b", 1);
  auto activated = Passed("c", 1);
  auto unknown = Passed("nobody's", 1);
  const std::uint16_t port = by_address[0].address.port();
  activated[0].by_name = true;
  const std::set<ino_t> of_a = InodesOf(by_address);
  const std::set<ino_t> of_b = InodesOf(by_name);
  const std::set<ino_t> of_c = InodesOf(activated);
  const std::uint16_t port_of_c = activated[0].address.port();
  for (auto* some : {&by_address, &by_name, &activated, &unknown}) {
    all.push_back(std::move((*some)[0]));
  }
  // The address that the file gives for c is not that of the socket that was opened for c.
  const std::uint16_t elsewhere = Passed("", 1)[0].address.port();
  const auto change =
      Load(Config(Listener("a", port) + Listener("b") + Listener("c", elsewhere)), std::move(all));
  const auto copies = set_.Duplicate();
  ASSERT_TRUE(copies.has_value());
  ASSERT_EQ(copies->size(), 3U);
  std::map<std::string, ino_t> by_listener;
  for (const PassedSocket& one : *copies) {
    by_listener[one.name] = InodeOf(one.fd);
  }
  EXPECT_EQ(by_listener["a"], *of_a.begin());
  EXPECT_EQ(by_listener["b"], *of_b.begin());
  EXPECT_EQ(by_listener["c"], *of_c.begin());
  EXPECT_EQ(PortOf("c"), port_of_c);
}

}  // namespace
}  // namespace sluice::server
