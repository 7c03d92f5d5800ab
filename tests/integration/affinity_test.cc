// Proves that what one client does in several requests meets at one backend, by each rule of
// affinity and without any setting of the pool; and that load moves clients who have nothing there.
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/echo_backend.h"
#include "tests/support/proxy_process.h"
#include "tests/support/raw_backend.h"
#include "tests/support/raw_client.h"

namespace sluice::test {
namespace {

// Of a request of the session `id`, whatever it does.
struct Key {
  std::string target;
  std::string field;
};

struct Rule {
  std::string_view affinity;
  Key (*of)(const std::string& id);
};

constexpr std::array kRules{
    Rule{"affinity = [\"cookie:app\", \"query:sid\", \"path:9\", \"ip\"]",
         [](const std::string& id) {
           return Key{"/app/x/y/", "Cookie: app=" + id + "\r\n"};
         }},
    Rule{"affinity = [\"cookie:app\", \"query:sid\", \"path:9\", \"ip\"]",
         [](const std::string& id) {
           return Key{"/app?sid=" + id, ""};
         }},
    Rule{"affinity = [\"path:3\", \"ip\"]",
         [](const std::string& id) {
           return Key{"/echo/000/" + id + "/xhr", ""};
         }},
    Rule{"",
         [](const std::string&) {
           return Key{"/app", ""};
         }},  // by the address
};

class AffinityTest : public testing::TestWithParam<Rule> {
 protected:
  // Who gets the connection that comes next.
  [[nodiscard]] std::size_t Next() const {
    return AwaitAny({&backends[0], &backends[1], &backends[2]});
  }

  std::array<RawBackend, 3> backends;
};

TEST_P(AffinityTest, KeepsTogetherWhatOneClientDoes) {
  Config config;
  for (const RawBackend& backend : backends) {
    config.backends.push_back(backend.port());
  }
  config.route = GetParam().affinity;
  ProxyProcess proxy(config);
  std::vector<std::pair<RawClient, Stream>> all;  // each unanswered, until the end
  const auto ask = [&](const std::string& request) {
    RawClient client(proxy.port());
    client.Send(request);
    const std::size_t backend = Next();
    all.emplace_back(std::move(client), backends[backend].Accept());
    return backend;
  };
  for (const std::string id : {"s1", "s2", "s3"}) {
    const Key key = GetParam().of(id);
    const std::string rest = key.target + " HTTP/1.1\r\nHost: a\r\n" + key.field;
    const std::size_t home = ask("GET " + rest + "\r\n");  // a stream, or a poll
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(ask("POST " + rest + "Content-Length: 0\r\n\r\n"), home) << id << " " << i;
    }
    EXPECT_EQ(ask(UpgradeRequest(key.target, key.field)), home) << id;
  }
}

INSTANTIATE_TEST_SUITE_P(Rules, AffinityTest, testing::ValuesIn(kRules));

// They come from one address, and have nothing yet that has to be kept together.
TEST(Affinity, LoadMovesSessionsAndWhoeverGetsACookie) {
  std::vector<EchoBackend> backends(3);
  for (const std::string_view route : {"", "affinity_cookie = \"sluice\""}) {
    Config config;
    for (const EchoBackend& backend : backends) {
      config.backends.push_back(backend.port());
    }
    config.route = route;
    ProxyProcess proxy(config);
    std::vector<RawClient> clients;
    for (int i = 0; i < 9; ++i) {
      clients.push_back(ConnectWebSocket(proxy.port()));
    }
    for (const EchoBackend& backend : backends) {
      EXPECT_LE(backend.open(), 4U) << "ceil(1.25 * 9 / 3)";
      EXPECT_GE(backend.open(), 1U);
    }
  }
}

}  // namespace
}  // namespace sluice::test
