// The PROXY protocol with the real binary: headers in front of plain connections and of TLS,
// however they come, and what the client's address in them decides; what is closed without an
// answer; and the headers that backends get.
#include <netinet/in.h>
#include <sys/socket.h>

#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/certificates.h"
#include "tests/support/echo_backend.h"
#include "tests/support/proxy_process.h"
#include "tests/support/raw_backend.h"
#include "tests/support/raw_client.h"

namespace sluice::test {
namespace {

using nlohmann::json;

std::string TwoBytes(std::size_t number) {
  return {static_cast<char>(number >> 8U & 0xFFU), static_cast<char>(number & 0xFFU)};
}

std::string V2(unsigned command, unsigned family, const std::string& rest) {
  std::string out("\r\n\r\n\0\r\nQUIT\n", 12);
  out += static_cast<char>(command);
  out += static_cast<char>(family);
  return out + TwoBytes(rest.size()) + rest;
}

// Addresses and ports of version 2, to 198.51.100.2:443.
std::string FromV4(const std::string& last_byte, std::uint16_t port = 4711) {
  return std::string("\xC0\x00\x02", 3) + last_byte + "\xC6\x33\x64\x02" + TwoBytes(port) +
         TwoBytes(443);
}

const std::string kLocal = V2(0x20, 0x00, "");

// From 192.0.2.N:4711.
std::string HeaderFrom(unsigned n) {
  return V2(0x21, 0x11, FromV4(std::string(1, static_cast<char>(n))));
}

std::string HeaderOfIpv6() {
  std::string source("\x20\x01\x0D\xB8", 4);
  std::string rest = source + std::string(11, '\0') + "\x01" + source + std::string(11, '\0') +
                     "\x02" + TwoBytes(4711) + TwoBytes(443);
  return V2(0x21, 0x21, rest);
}

constexpr std::string_view kTrustLoopback = "trusted_proxies = [\"127.0.0.1/32\"]\n";

Config Behind(std::vector<std::uint16_t> backends, std::string_view more_server = {}) {
  return {.backends = std::move(backends),
          .server = std::string(kTrustLoopback) + std::string(more_server),
          .listener = "proxy_protocol = true\n"};
}

std::string Count(std::string_view result) {
  return "sluice_proxy_headers_total{result=\"" + std::string(result) + "\"}";
}

// A client whose connection begins with `header`.
RawClient Connect(std::uint16_t port, const std::string& header) {
  RawClient client(port);
  client.Send(header);
  return client;
}

// Leaves the bytes in the kernel, which sends them in one segment with those that follow.
void SendWithMoreToCome(const Stream& client, const std::string& bytes) {
  ASSERT_EQ(::send(client.fd(), bytes.data(), bytes.size(), MSG_MORE | MSG_NOSIGNAL),
            static_cast<ssize_t>(bytes.size()));
}

class ProxyProtocolTest : public testing::Test {
 protected:
  EchoBackend backend;
};

// However it comes.

enum class Way { kAlone, kGlued, kDribble };

TEST_F(ProxyProtocolTest, HeaderTellsTheClientHoweverItComes) {
  TestCerts certs;
  const CertificateFiles files = certs.Issue({"chat.test"});
  Config config = Behind({backend.port()});
  config.more =
      "[[listener]]\nname = \"secure\"\naddress = \"127.0.0.1:0\"\nproxy_protocol = true\n"
      "tls.certificates = [{ chain = \"" +
      files.chain + "\", key = \"" + files.key + "\" }]\n";
  ProxyProcess proxy(config);
  struct Row {
    std::string header;
    const char* client;
  };
  const Row rows[] = {
      {"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n", "192.0.2.1"},
      {"PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n", "2001:db8::1"},
      {HeaderFrom(2), "192.0.2.2"},
      {HeaderOfIpv6(), "2001:db8::1"},
      {V2(0x21, 0x11, FromV4("\x03") + "\x02" + TwoBytes(9) + "chat.test"), "192.0.2.3"},
  };
  std::size_t served = 0;
  for (const Row& row : rows) {
    for (const bool tls : {false, true}) {
      for (const Way way : {Way::kAlone, Way::kGlued, Way::kDribble}) {
        RawClient client(proxy.port(tls ? "secure" : "plain"));
        if (way == Way::kDribble) {
          client.SendDribble(row.header);
        } else if (way == Way::kGlued) {
          SendWithMoreToCome(client, row.header);
        } else {
          client.Send(row.header);
        }
        if (tls) {
          client.StartTls({.sni = "chat.test", .trust = certs.ca()});
        }
        ASSERT_EQ(client.Upgrade().status, 101) << row.client << (tls ? " tls" : "");
        client.SendFrame(kText, "hello");
        EXPECT_EQ(client.ReadFrame().payload, "hello");
        const auto heads = backend.heads();
        ASSERT_EQ(heads.size(), ++served);
        EXPECT_EQ(heads.back().Field("X-Forwarded-For"), row.client);
        EXPECT_EQ(heads.back().Field("X-Forwarded-Proto"), tls ? "https" : "http");
      }
    }
  }
  EXPECT_EQ(proxy.Metric(Count("v1")), 12);
  EXPECT_EQ(proxy.Metric(Count("v2")), 18);
  EXPECT_EQ(proxy.Metric("sluice_proxy_headers_total"), 30) << "nothing else";
  EXPECT_EQ(proxy.Metric("sluice_tls_handshakes_total{result=\"ok\"}"), 15);
}

// What it decides.

TEST_F(ProxyProtocolTest, AddressInTheHeaderIsTheClientEverywhere) {
  ProxyProcess proxy(Behind({backend.port()}));
  RawClient client = Connect(proxy.port(), HeaderFrom(9));
  ASSERT_EQ(client.Upgrade("/", "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n").status,
            101);
  const std::string local = "127.0.0.1:" + std::to_string(client.local_port());
  const HttpMessage head = backend.heads().front();
  EXPECT_EQ(head.Field("X-Forwarded-For"), "192.0.2.9");
  EXPECT_EQ(head.Field("Forwarded"), "for=192.0.2.9;host=\"127.0.0.1\";proto=http");
  const json listed = proxy.AskJson("GET", "/sessions?client_ip=192.0.2.9");
  ASSERT_EQ(listed["matching"], 1);
  EXPECT_EQ(listed["sessions"][0]["client"], "192.0.2.9:4711");
  EXPECT_EQ(listed["sessions"][0]["client_ip"], "192.0.2.9");
  EXPECT_EQ(listed["sessions"][0]["proxy"], local);
  EXPECT_EQ(client.CloseAndAwait(1000).close_code(), 1000);
  client.Close();
  const json line = proxy.AwaitAccessLog(1).front();
  EXPECT_EQ(line["client_ip"], "192.0.2.9");
  EXPECT_EQ(line["client_port"], 4711);
  EXPECT_EQ(line["proxy"], local);
}

TEST_F(ProxyProtocolTest, ForwardingFieldsCountOnlyIfTheAddressInTheHeaderIsTrusted) {
  ProxyProcess proxy(Config{.backends = {backend.port()},
                            .server = "trusted_proxies = [\"127.0.0.1/32\", \"192.0.2.8/32\"]",
                            .listener = "proxy_protocol = true\n"});
  RawClient trusted = Connect(proxy.port(), HeaderFrom(8));
  ASSERT_EQ(trusted.Upgrade("/", "X-Forwarded-For: 203.0.113.9\r\n").status, 101);
  EXPECT_EQ(backend.heads().back().Field("X-Forwarded-For"), "203.0.113.9, 192.0.2.8");
  RawClient other = Connect(proxy.port(), HeaderFrom(7));
  ASSERT_EQ(other.Upgrade("/", "X-Forwarded-For: 203.0.113.9\r\n").status, 101);
  EXPECT_EQ(backend.heads().back().Field("X-Forwarded-For"), "192.0.2.7");
  // Passed on for nobody knows whom: the fields are not the proxy's own.
  RawClient unknown = Connect(proxy.port(), "PROXY UNKNOWN\r\n");
  ASSERT_EQ(unknown.Upgrade("/", "X-Forwarded-For: 203.0.113.9\r\n").status, 101);
  EXPECT_EQ(backend.heads().back().Field("X-Forwarded-For"), "127.0.0.1");
  EXPECT_EQ(proxy.Metric(Count("unknown")), 1);
  EXPECT_EQ(proxy.AskJson("GET", "/sessions?client_ip=203.0.113.9")["matching"], 1);
}

TEST_F(ProxyProtocolTest, ConnectionsAreCountedByTheAddressInTheHeader) {
  Config config = Behind({backend.port()});
  config.limits = "connections_per_ip = 1\n";
  ProxyProcess proxy(config);
  RawClient one = Connect(proxy.port(), HeaderFrom(1));
  ASSERT_EQ(one.Upgrade().status, 101);
  RawClient two = Connect(proxy.port(), HeaderFrom(1));
  EXPECT_EQ(two.Upgrade().status, 429);
  RawClient three = Connect(proxy.port(), HeaderFrom(1));
  three.AwaitEnd();
  EXPECT_EQ(three.bytes_read(), 0U) << "far beyond the limit nobody is told";
  RawClient other = Connect(proxy.port(), HeaderFrom(2));
  EXPECT_EQ(other.Upgrade().status, 101);
  proxy.AwaitMetric("sluice_rate_limited_total{reason=\"connections_per_ip\"}", 2);
  one.Reset();
  two.Reset();
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 1);
  RawClient again = Connect(proxy.port(), HeaderFrom(1));
  EXPECT_EQ(again.Upgrade().status, 101);
}

TEST_F(ProxyProtocolTest, AffinityByIpGoesByTheAddressInTheHeader) {
  EchoBackend second("second");
  Config config = Behind({backend.port(), second.port()});
  config.pool = "bounded_load = 0\n";
  ProxyProcess proxy(config);
  std::set<std::string> homes;
  for (unsigned n = 1; n <= 12; ++n) {
    std::set<std::string> seen;
    for (int i = 0; i < 2; ++i) {
      RawClient client = Connect(proxy.port(), HeaderFrom(n));
      client.Send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
      const std::string body = client.ReadResponse().body;
      seen.insert(body.substr(0, body.find(' ')));
    }
    EXPECT_EQ(seen.size(), 1U) << "client " << n;
    homes.insert(*seen.begin());
  }
  EXPECT_EQ(homes, (std::set<std::string>{"echo", "second"}));
}

// What is closed.

TEST_F(ProxyProtocolTest, AnythingButAHeaderIsClosedWithoutAnAnswer) {
  ProxyProcess proxy(Behind({backend.port()}));
  const std::string bad[] = {
      "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
      std::string("\x16\x03\x01\x02\x00\x01", 6),
      "PROXY TCP4 192.0.2.1 198.51.100.2 70000 443\r\n",
      "PROXY TCP4 " + std::string(200, '1'),
      V2(0x21, 0x11, std::string(600, 'x')),
      V2(0x21, 0x11, FromV4("\x01") + "\x03" + TwoBytes(4) + "oops"),
  };
  double count = 0;
  for (const std::string& bytes : bad) {
    RawClient client = Connect(proxy.port(), bytes);
    client.AwaitEnd();
    EXPECT_EQ(client.bytes_read(), 0U) << bytes;
    proxy.AwaitMetric(Count("bad"), ++count);
  }
  EXPECT_EQ(backend.accepts(), 0U);
  EXPECT_EQ(proxy.Metric("sluice_http_parse_errors_total"), 0);
  EXPECT_TRUE(proxy.AccessLog().empty());
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 0);
}

TEST_F(ProxyProtocolTest, OnlyTrustedProxiesMayConnect) {
  ProxyProcess proxy(Behind({backend.port()}));
  RawClient stranger(proxy.port(), ClientOptions{.source = "127.0.0.2"});
  stranger.AwaitEnd();
  EXPECT_EQ(stranger.bytes_read(), 0U);
  proxy.AwaitMetric(Count("untrusted"), 1);
  RawClient client = Connect(proxy.port(), HeaderFrom(1));
  EXPECT_EQ(client.Upgrade().status, 101);
}

TEST_F(ProxyProtocolTest, AHeaderIsWaitedForWithinLimits) {
  ProxyProcess proxy(Behind({backend.port()}, "header_timeout = \"150ms\"\n"));
  RawClient silent(proxy.port());
  RawClient slow = Connect(proxy.port(), HeaderFrom(1).substr(0, 20));
  for (RawClient* client : {&silent, &slow}) {
    client->AwaitEnd();
    EXPECT_EQ(client->bytes_read(), 0U);
  }
  proxy.AwaitMetric(Count("timeout"), 2);
  RawClient leaves = Connect(proxy.port(), "PROXY TCP4 192.0.2.1 ");
  leaves.FinishWrite();
  leaves.ExpectEnd();
  proxy.AwaitMetric(Count("ended"), 1);
}

// The proxy speaks for itself.

TEST_F(ProxyProtocolTest, LocalConnectionsKeepTheirOwnAddresses) {
  TestCerts certs;
  const CertificateFiles files = certs.Issue({"chat.test"});
  Config config = Behind({backend.port()});
  config.more =
      "[[listener]]\nname = \"secure\"\naddress = \"127.0.0.1:0\"\nproxy_protocol = true\n"
      "tls.certificates = [{ chain = \"" +
      files.chain + "\", key = \"" + files.key + "\" }]\n";
  ProxyProcess proxy(config);
  RawClient check = Connect(proxy.port(), kLocal);
  ASSERT_EQ(check.Upgrade("/", "X-Forwarded-For: 203.0.113.9\r\n").status, 101);
  EXPECT_EQ(backend.heads().back().Field("X-Forwarded-For"), "203.0.113.9, 127.0.0.1")
      << "the proxy itself is trusted";
  double count = 1;
  for (const char* listener : {"plain", "secure"}) {
    for (const bool reset : {false, true}) {
      RawClient client = Connect(proxy.port(listener), kLocal);
      proxy.AwaitMetric(Count("local"), ++count);
      if (reset) {
        client.Reset();
      } else {
        client.FinishWrite();
        client.ExpectEnd();
      }
    }
  }
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 1);
  EXPECT_EQ(proxy.Metric("sluice_tls_handshakes_total{result=\"failed\"}"), 0);
  EXPECT_EQ(proxy.Metric("sluice_http_parse_errors_total"), 0);
  // One that says something is judged by it.
  RawClient junk = Connect(proxy.port("secure"), kLocal + "GET / HTTP/1.1\r\n\r\n");
  junk.AwaitEnd();
  proxy.AwaitMetric("sluice_tls_handshakes_total{result=\"failed\"}", 1);
}

// Changes.

TEST_F(ProxyProtocolTest, AReloadSwitchesItForNewConnectionsOnly) {
  Config config = Behind({backend.port()});
  ProxyProcess proxy(config);
  RawClient before = Connect(proxy.port(), HeaderFrom(1));
  ASSERT_EQ(before.Upgrade().status, 101);
  RawClient waiting(proxy.port());
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 2);
  config.listener = "";
  proxy.Configure(config);
  EXPECT_EQ(proxy.Ask("POST", "/reload").status, 200);
  RawClient after(proxy.port());
  EXPECT_EQ(after.Upgrade().status, 101);
  EXPECT_EQ(backend.heads().back().Field("X-Forwarded-For"), "127.0.0.1");
  waiting.Send(HeaderFrom(3));
  ASSERT_EQ(waiting.Upgrade().status, 101) << "it came when a header was wanted";
  EXPECT_EQ(backend.heads().back().Field("X-Forwarded-For"), "192.0.2.3");
  before.SendFrame(kText, "lives");
  EXPECT_EQ(before.ReadFrame().payload, "lives");
}

TEST_F(ProxyProtocolTest, ATakeoverKeepsIt) {
  ProxyProcess proxy(Behind({backend.port()}));
  RawClient waiting(proxy.port());
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 1);
  Predecessor old = proxy.TakeOver();
  waiting.Send(HeaderFrom(3));
  EXPECT_EQ(waiting.Upgrade().status, 101) << "accepted by the process before";
  EXPECT_EQ(backend.heads().back().Field("X-Forwarded-For"), "192.0.2.3");
  RawClient client = Connect(proxy.port(), HeaderFrom(4));
  EXPECT_EQ(client.Upgrade().status, 101);
  EXPECT_EQ(backend.heads().back().Field("X-Forwarded-For"), "192.0.2.4");
  waiting.Reset();
  EXPECT_EQ(old.Wait(), 0);
}

// To backends.

// The header of version 2 for 127.0.0.SOURCE:port to 127.0.0.1:destination.
std::string HeaderToBackend(char source, std::uint16_t port, std::uint16_t destination,
                            const std::string& fields = {}) {
  return V2(0x21, 0x11,
            std::string("\x7F\x00\x00", 3) + source + std::string("\x7F\x00\x00\x01", 4) +
                TwoBytes(port) + TwoBytes(destination) + fields);
}

TEST(ProxyProtocolToBackends, EveryConnectionBeginsWithAHeader) {
  RawBackend raw;
  ProxyProcess proxy(Config{.backends = {raw.port()}, .pool = "proxy_protocol = \"v2\"\n"});
  RawClient client(proxy.port(), ClientOptions{.source = "127.0.0.3"});
  client.Send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
  const std::string header = HeaderToBackend('\x03', client.local_port(), proxy.port());
  Stream plain = raw.Accept();
  EXPECT_EQ(plain.ReadExactly(header.size()), header);
  EXPECT_EQ(plain.ReadHead().target, "/a");
  plain.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
  EXPECT_EQ(client.ReadResponse().body, "ok");
  // The next request of the same client has a connection of its own.
  client.Send("GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
  Stream again = raw.Accept();
  EXPECT_EQ(again.ReadExactly(header.size()), header);
  EXPECT_EQ(again.ReadHead().target, "/b");
}

TEST(ProxyProtocolToBackends, ARetryHasAHeaderOfItsOwn) {
  RawBackend one;
  RawBackend two;
  ProxyProcess proxy(
      Config{.backends = {one.port(), two.port()}, .pool = "proxy_protocol = \"v1\"\n"});
  RawClient client(proxy.port());
  client.Send(UpgradeRequest());
  const std::string header = "PROXY TCP4 127.0.0.1 127.0.0.1 " +
                             std::to_string(client.local_port()) + " " +
                             std::to_string(proxy.port()) + "\r\n";
  RawBackend* const all[] = {&one, &two};
  const std::size_t first = AwaitAny({&one, &two});
  Stream lost = all[first]->Accept();
  EXPECT_EQ(lost.ReadExactly(header.size()), header);
  lost.Reset();
  Stream next = all[1 - first]->Accept();
  EXPECT_EQ(next.ReadExactly(header.size()), header);
  const HttpMessage request = next.ReadHead();
  next.Send(SwitchingProtocols(request.Field("Sec-WebSocket-Key")));
  EXPECT_EQ(client.ReadHead().status, 101);
}

TEST(ProxyProtocolToBackends, TheServerNameGoesAlong) {
  TestCerts certs;
  const CertificateFiles files = certs.Issue({"chat.test"});
  RawBackend raw;
  ProxyProcess proxy(Config{.backends = {raw.port()},
                            .listener = "tls.certificates = [{ chain = \"" + files.chain +
                                        "\", key = \"" + files.key + "\" }]\n",
                            .pool = "proxy_protocol = \"v2\"\n"});
  RawClient client(proxy.port(), TlsClientOptions{.sni = "chat.test", .trust = certs.ca()});
  client.Send(UpgradeRequest());
  const std::string header = HeaderToBackend('\x01', client.local_port(), proxy.port(),
                                             "\x02" + TwoBytes(9) + "chat.test");
  Stream peer = raw.Accept();
  EXPECT_EQ(peer.ReadExactly(header.size()), header);
  EXPECT_EQ(peer.ReadHead().method, "GET");
}

// One Sluice in front of another: the second knows both ends of the first one's client.
TEST(ProxyProtocolToBackends, AChainKeepsTheClientAndWhatItConnectedTo) {
  RawBackend raw;
  Config second = Behind({raw.port()});
  second.pool = "proxy_protocol = \"v2\"\n";
  ProxyProcess back(second);
  ProxyProcess front(Config{.backends = {back.port()}, .pool = "proxy_protocol = \"v2\"\n"});
  RawClient client(front.port(), ClientOptions{.source = "127.0.0.5"});
  client.Send(UpgradeRequest());
  const std::string header = HeaderToBackend('\x05', client.local_port(), front.port());
  Stream peer = raw.Accept();
  EXPECT_EQ(peer.ReadExactly(header.size()), header);
  const HttpMessage request = peer.ReadHead();
  EXPECT_EQ(request.Field("X-Forwarded-For"), "127.0.0.5") << "not trusted, so written anew";
  peer.Send(SwitchingProtocols(request.Field("Sec-WebSocket-Key")));
  EXPECT_EQ(client.ReadHead().status, 101);
  EXPECT_EQ(back.AskJson("GET", "/sessions?client_ip=127.0.0.5")["matching"], 1);
}

TEST(ProxyProtocolToBackends, AClientNobodyKnowsIsUnknownThereToo) {
  RawBackend raw;
  Config config = Behind({raw.port()});
  config.pool = "proxy_protocol = \"v2\"\n";
  ProxyProcess proxy(config);
  RawClient client = Connect(proxy.port(), V2(0x21, 0x00, "") + UpgradeRequest());
  Stream peer = raw.Accept();
  const std::string header = V2(0x21, 0x00, "");
  EXPECT_EQ(peer.ReadExactly(header.size()), header);
  EXPECT_EQ(peer.ReadHead().method, "GET");
}

}  // namespace
}  // namespace sluice::test
