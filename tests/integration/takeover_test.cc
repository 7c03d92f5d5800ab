// Proves that a new process takes the place of a running one without anybody being refused or
// reset: by SIGUSR2 and by a second process on the same takeover_socket; and that a successor that
// is not able to leaves everything as it was.
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/integration/relayed_session.h"
#include "tests/integration/resumption.h"
#include "tests/support/certificates.h"
#include "tests/support/echo_backend.h"

namespace sluice::test {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;

constexpr int kBadConfig = 78;
constexpr int kNotNow = 1;  // another process is in the way
constexpr uid_t kNobody = 65534;

// Long enough that a session is closed only when the test wants it.
constexpr const char* kSlowDrain = "window = \"300s\"\ngrace = \"60s\"";

void ExpectEcho(RawClient& client, const std::string& text = "still here") {
  client.SendFrame(kText, text);
  EXPECT_EQ(client.ReadFrame().payload, text);
}

// What a client of an echo backend does when it is told to go.
void ExpectToldToGo(RawClient& client) {
  EXPECT_EQ(client.ReadFrame().close_code(), 1012);
  client.Send(ClientClose(1012));
  client.ExpectEnd();
  client.Close();
}

int ConnectTo(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), std::min(path.size(), sizeof(address.sun_path) - 1));
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    ::close(fd);
    return -1;
  }
  return fd;
}

Stream ConnectToSocket(const std::string& path) {
  const int fd = ConnectTo(path);
  if (fd < 0) {
    throw Failure("cannot connect to " + path);
  }
  return Stream(UniqueFd(fd), "takeover socket");
}

// What follows the `count`th `mark` on standard error.
pid_t AwaitPid(const ProxyProcess& proxy, const std::string& mark, int count) {
  const Deadline deadline;
  for (;;) {
    const std::string text = proxy.err();
    std::size_t at = 0;
    for (int i = 0; i < count && at != std::string::npos; ++i) {
      at = text.find(mark, at);
      at = at == std::string::npos ? at : at + mark.size();
    }
    if (at != std::string::npos && text.find('\n', at) != std::string::npos) {
      return static_cast<pid_t>(std::stoi(text.substr(at)));
    }
    if (deadline.passed()) {
      throw Failure("waited in vain for \"" + mark + "\" in " + text);
    }
  }
}

// Of the `count`th successor that this process has started.
void AwaitEndOfSuccessor(ProxyProcess& proxy, int count) {
  const pid_t pid = AwaitPid(proxy, "started a successor pid=", count);
  EXPECT_TRUE(proxy.AwaitErr("the successor has ended pid=" + std::to_string(pid))) << proxy.err();
}

class Takeover : public testing::Test {
 protected:
  [[nodiscard]] std::string socket() const { return dir.path() + "/t.sock"; }

  [[nodiscard]] Config MakeConfig(std::string drain = kSlowDrain) const {
    return {.backends = {backend.port()},
            .server = "takeover_socket = \"" + socket() + "\"",
            .drain = std::move(drain)};
  }

  // The first SIGTERM says that it ends anyway, the second one hurries it.
  template <class Process>
  static void HurryOld(ProxyProcess& log, Process& old) {
    old.Signal(SIGTERM);
    ASSERT_TRUE(log.AwaitErr("draining already since the takeover"));
    old.Signal(SIGTERM);
  }

  TempDir dir;
  EchoBackend backend;
};

TEST_F(Takeover, BySignal) {
  ProxyProcess proxy(MakeConfig());
  const std::uint16_t port = proxy.port();
  const std::uint16_t admin = proxy.admin_port();
  EXPECT_EQ(proxy.Metric("sluice_generation"), 1);
  RawClient before = ConnectWebSocket(port);
  Predecessor old = proxy.TakeOver();
  EXPECT_NE(old.pid(), proxy.pid());
  EXPECT_EQ(proxy.port(), port);
  EXPECT_EQ(proxy.admin_port(), admin);
  const json status = proxy.AskJson("GET", "/status");
  EXPECT_EQ(status["pid"], proxy.pid());
  EXPECT_EQ(status["taken_over_from"], old.pid());
  EXPECT_EQ(status["sessions"], 0);
  EXPECT_EQ(proxy.Metric("sluice_generation"), 2);
  EXPECT_EQ(proxy.Metric("sluice_takeovers_total{result=\"done\"}"), 1);
  ExpectEcho(before);
  RawClient after = ConnectWebSocket(port);
  proxy.AwaitMetric("sluice_sessions_open", 1);
  ExpectEcho(before);

  HurryOld(proxy, old);
  ExpectToldToGo(before);
  EXPECT_EQ(old.Wait(), 0);
  ASSERT_TRUE(proxy.AwaitErr("the process before this one has ended"));
  ExpectEcho(after);
  EXPECT_TRUE(std::filesystem::is_socket(socket()));
  proxy.Signal(SIGTERM);
  proxy.Signal(SIGTERM);
  after.Close();
  EXPECT_EQ(proxy.Wait(), 0);
  EXPECT_FALSE(std::filesystem::exists(socket()));
}

TEST_F(Takeover, ByASecondProcess) {
  const Config config = MakeConfig("window = \"500ms\"\ngrace = \"10s\"");
  ProxyProcess first(config);
  RawClient before = ConnectWebSocket(first.port());
  ProxyProcess second(config);
  EXPECT_EQ(second.port(), first.port());
  EXPECT_EQ(second.admin_port(), first.admin_port());
  EXPECT_EQ(second.AskJson("GET", "/status")["pid"], second.pid());
  EXPECT_EQ(second.AskJson("GET", "/status")["taken_over_from"], first.pid());
  ASSERT_TRUE(first.AwaitErr("taken over by pid=" + std::to_string(second.pid())));
  RawClient after = ConnectWebSocket(second.port());
  ExpectToldToGo(before);  // in its time, without a signal
  EXPECT_EQ(first.Wait(), 0);
  ASSERT_TRUE(second.AwaitErr("the process before this one has ended"));
  ExpectEcho(after);
  EXPECT_TRUE(std::filesystem::is_socket(socket()));

  // What it can be asked for, the successor does as any process.
  Config changed = config;
  changed.route = "path = \"/new\"";
  second.Configure(changed);
  second.Signal(SIGHUP);
  second.AwaitMetric("sluice_reloads_total{result=\"success\"}", 1);
  const Deadline deadline;
  int refused = 0;
  while (refused == 0 && !deadline.passed()) {
    RawClient client(second.port());
    refused = client.Upgrade("/").status == 404 ? 1 : 0;
  }
  EXPECT_EQ(refused, 1);
}

TEST_F(Takeover, BySignalWithoutATakeoverSocket) {
  Config config = MakeConfig();
  config.server.clear();
  ProxyProcess proxy(config);
  RawClient before = ConnectWebSocket(proxy.port());
  Predecessor old = proxy.TakeOver();
  static_cast<void>(ConnectWebSocket(proxy.port()));
  HurryOld(proxy, old);
  ExpectToldToGo(before);
  EXPECT_EQ(old.Wait(), 0);
}

TEST_F(Takeover, WhoWasConnectedIsServedByTheOldProcess) {
  TestCerts certs;
  const CertificateFiles files = certs.Issue({"chat.test"});
  ProxyProcess proxy(
      MakeConfig().Text() + "[[listener]]\nname = \"secure\"\naddress = \"127.0.0.1:0\"\n" +
      "tls.certificates = [{ chain = \"" + files.chain + "\", key = \"" + files.key + "\" }]\n");
  RawClient silent(proxy.port());
  RawClient half(proxy.port());
  const std::string request = UpgradeRequest();
  half.Send(request.substr(0, 30));
  RawClient hello(proxy.port("secure"));
  const SslContext context = MakeClientContext(TLS1_3_VERSION);
  const std::unique_ptr<SSL, SslFree> ssl(SSL_new(context.get()));
  SSL_set_connect_state(ssl.get());
  BIO* out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), BIO_new(BIO_s_mem()), out);
  ASSERT_NE(SSL_do_handshake(ssl.get()), 1);
  char* bytes = nullptr;
  const auto size = static_cast<std::size_t>(BIO_get_mem_data(out, &bytes));
  const std::string hello_text(bytes, size);
  hello.Send(hello_text.substr(0, 100));
  RawClient kept(proxy.port());
  kept.Send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(kept.ReadResponse().status, 200);
  proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 4);

  Predecessor old = proxy.TakeOver();
  ASSERT_TRUE(proxy.AwaitErr("draining connections=4"));
  kept.ExpectEnd();  // it was served, and finds the new process with its next connection
  silent.Send(request);
  EXPECT_EQ(silent.ReadResponse().status, 101);
  half.Send(request.substr(30));
  EXPECT_EQ(half.ReadResponse().status, 101);
  hello.Send(hello_text.substr(100));
  SSL_set_fd(ssl.get(), hello.fd());
  const auto finish = [&](auto&& call) {
    const Deadline deadline;
    int result = 0;
    while ((result = call()) <= 0 && !deadline.passed()) {
      static_cast<void>(hello.HasInput(Millis(100)));
    }
    return result;
  };
  ASSERT_EQ(finish([&] { return SSL_do_handshake(ssl.get()); }), 1);
  ASSERT_GT(SSL_write(ssl.get(), request.data(), static_cast<int>(request.size())), 0);
  std::string answer(4096, '\0');
  ASSERT_GT(
      finish([&] { return SSL_read(ssl.get(), answer.data(), static_cast<int>(answer.size())); }),
      0);
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 101")) << answer.substr(0, 60);
  EXPECT_EQ(proxy.Metric("sluice_accepts_total"), 0) << "none of them came to the new process";
  ExpectEcho(silent);
  ExpectEcho(half);
  HurryOld(proxy, old);
  ExpectToldToGo(silent);
  ExpectToldToGo(half);
  hello.Close();
  EXPECT_EQ(old.Wait(), 0);
}

TEST_F(Takeover, APlainAnswerInFlightIsFinished) {
  RawBackend raw;
  Config config = MakeConfig("window = \"0s\"\ngrace = \"20s\"");
  config.backends = {raw.port()};
  ProxyProcess proxy(config);
  RawClient client(proxy.port());
  client.Send("GET /long HTTP/1.1\r\nHost: x\r\n\r\n");
  Stream leg = raw.Accept();
  static_cast<void>(leg.ReadHead());
  leg.Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
  EXPECT_EQ(client.ReadHead().status, 200);
  Predecessor old = proxy.TakeOver();
  EXPECT_TRUE(old.running());
  leg.Send("world");
  EXPECT_EQ(client.ReadExactly(10), "helloworld");
  client.ExpectEnd();
  client.Close();
  EXPECT_EQ(old.Wait(), 0);
}

TEST_F(Takeover, WhatWaitsInTheAcceptQueuesIsServed) {
  ProxyProcess proxy(MakeConfig("window = \"0s\"\ngrace = \"10s\""));
  // The signal and the connections are there at once when the process goes on: who accepts which,
  // chance decides.
  proxy.Stop();
  std::vector<RawClient> clients;
  for (int i = 0; i < 200; ++i) {
    clients.emplace_back(proxy.port());
    clients.back().Send(UpgradeRequest());
  }
  proxy.Signal(SIGUSR2);
  proxy.Continue();
  Predecessor old = proxy.TakeOver();  // a second SIGUSR2, of which one is refused
  for (RawClient& client : clients) {
    EXPECT_EQ(client.ReadResponse().status, 101);
  }
  for (RawClient& client : clients) {
    if (client.HasInput(Millis(0))) {
      ExpectToldToGo(client);
    } else {
      client.Close();
    }
  }
  EXPECT_EQ(old.Wait(), 0);
}

TEST_F(Takeover, NobodyIsRefusedMeanwhile) {
  ProxyProcess proxy(MakeConfig("window = \"0s\"\ngrace = \"10s\""));
  const std::uint16_t port = proxy.port();
  std::atomic<bool> stop{false};
  std::atomic<int> served{0};
  std::atomic<int> failed{0};
  std::thread visitors([&] {
    while (!stop) {
      try {
        RawClient client(port);
        (client.Upgrade().status == 101 ? served : failed).fetch_add(1);
      } catch (const Failure&) {
        failed.fetch_add(1);
      }
    }
  });
  for (int generation = 0; generation < 4; ++generation) {
    const int seen = served;
    const Deadline deadline;
    while (served < seen + 20 && !deadline.passed()) {
      static_cast<void>(proxy.Metric("sluice_accepts_total"));
    }
    EXPECT_EQ(proxy.TakeOver().Wait(), 0);
  }
  stop = true;
  visitors.join();
  EXPECT_EQ(failed, 0);
  EXPECT_GE(served, 80);
}

TEST_F(Takeover, TicketsOfTheOldProcessResumeInTheNewOne) {
  TestCerts certs;
  const CertificateFiles files = certs.Issue({"chat.test"});
  Config config = MakeConfig("window = \"0s\"\ngrace = \"5s\"");
  config.listener =
      "tls.certificates = [{ chain = \"" + files.chain + "\", key = \"" + files.key + "\" }]";
  ProxyProcess proxy(config);
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const SslContext context = MakeClientContext(version);
    SslSession session;
    EXPECT_FALSE(Resume(proxy.port(), context.get(), session));
    for (int generation = 0; generation < 2; ++generation) {
      EXPECT_EQ(proxy.TakeOver().Wait(), 0);
      EXPECT_TRUE(Resume(proxy.port(), context.get(), session)) << version;
    }
  }
}

TEST_F(Takeover, TheNumberOfWorkersMayChange) {
  Config config = MakeConfig("window = \"0s\"\ngrace = \"5s\"");
  config.workers = 1;
  ProxyProcess proxy(config);
  for (const unsigned workers : {3U, 1U, 4U, 2U}) {
    config.workers = workers;
    proxy.Configure(config);
    EXPECT_EQ(proxy.TakeOver().Wait(), 0);
    EXPECT_EQ(proxy.Metric("sluice_workers"), workers);
    // Enough that a socket nobody accepts from would keep one waiting.
    std::vector<RawClient> clients;
    for (int i = 0; i < 40; ++i) {
      clients.push_back(ConnectWebSocket(proxy.port()));
    }
    proxy.AwaitMetric("sluice_sessions_open", 40);
    for (RawClient& client : clients) {
      client.Close();
    }
    proxy.AwaitMetric("sluice_sessions_open", 0);
  }
}

TEST_F(Takeover, ListenersThatTheNewConfigurationAddsAndLeavesOut) {
  Config config = MakeConfig();
  const std::string second = "[[listener]]\nname = \"second\"\naddress = \"127.0.0.1:0\"\n";
  ProxyProcess proxy(config.Text() + second);
  const std::uint16_t port = proxy.port("second");
  RawClient on_second = ConnectWebSocket(port);
  proxy.Configure(config.Text() + "[[listener]]\nname = \"third\"\naddress = \"127.0.0.1:0\"\n");
  Predecessor old = proxy.TakeOver();
  EXPECT_TRUE(proxy.AwaitErr("a socket that was passed in is for no listener name=second"));
  EXPECT_THROW(RawClient{port}, Failure);
  static_cast<void>(ConnectWebSocket(proxy.port("third")));
  static_cast<void>(ConnectWebSocket(proxy.port()));
  ExpectEcho(on_second);
  HurryOld(proxy, old);
  ExpectToldToGo(on_second);
  EXPECT_EQ(old.Wait(), 0);
}

// Successors that fail.

// As nohup, a shell without job control or another parent has told it: they are taken all the same.
TEST_F(Takeover, SignalsThatWereIgnoredAtTheStartAreTaken) {
  const Config config = MakeConfig();
  constexpr std::array kIgnored{SIGHUP, SIGINT, SIGUSR2, SIGCHLD};
  for (const int signal : kIgnored) {
    ::signal(signal, SIG_IGN);
  }
  ProxyProcess proxy(config);
  for (const int signal : kIgnored) {
    ::signal(signal, SIG_DFL);
  }
  proxy.Signal(SIGHUP);
  ASSERT_TRUE(proxy.AwaitErr("reloaded listeners=")) << proxy.err();
  proxy.Configure("nonsense");
  for (int count = 1; count <= 2; ++count) {
    proxy.Signal(SIGUSR2);
    AwaitEndOfSuccessor(proxy, count);
  }
  proxy.Signal(SIGINT);
  EXPECT_EQ(proxy.Wait(), 0);
}

TEST_F(Takeover, ASuccessorWithABadConfigurationEndsAlone) {
  const Config config = MakeConfig();
  ProxyProcess proxy(config);
  const pid_t pid = proxy.pid();
  RawClient session = ConnectWebSocket(proxy.port());
  Config wrong = config;
  wrong.route = "pol = \"app\"";
  proxy.Configure(wrong);
  proxy.Signal(SIGUSR2);
  ASSERT_TRUE(proxy.AwaitErr("the successor has ended")) << proxy.err();
  EXPECT_NE(proxy.err().find("status=78"), std::string::npos) << proxy.err();
  proxy.AwaitMetric("sluice_takeovers_total{result=\"failed\"}", 1);

  ProxyProcess second({"run", "-c", dir.Write("wrong.toml", wrong.Text())});
  EXPECT_EQ(second.Wait(), kBadConfig);
  EXPECT_NE(second.err().find("pol"), std::string::npos);

  // One that fails later, when it has the sockets already: an address that is taken.
  RawBackend taken;
  proxy.Configure(config.Text() + "[[listener]]\nname = \"more\"\naddress = \"127.0.0.1:" +
                  std::to_string(taken.port()) + "\"\n");
  proxy.Signal(SIGUSR2);
  proxy.AwaitMetric("sluice_takeovers_total{result=\"failed\"}", 2);
  AwaitEndOfSuccessor(proxy, 2);
  EXPECT_NE(proxy.err().find("cannot listen on 127.0.0.1:" + std::to_string(taken.port())),
            std::string::npos)
      << proxy.err();

  EXPECT_EQ(proxy.pid(), pid);
  ExpectEcho(session);
  static_cast<void>(ConnectWebSocket(proxy.port()));
  EXPECT_EQ(proxy.Metric("sluice_generation"), 1);

  // And the next one that can, does.
  proxy.Configure(config);
  Predecessor old = proxy.TakeOver();
  ExpectEcho(session);
  HurryOld(proxy, old);
  ExpectToldToGo(session);
  EXPECT_EQ(old.Wait(), 0);
}

// Another program in the place of the binary.
class ReplacedBinary : public Takeover {
 protected:
  ReplacedBinary() {
    const char* set = std::getenv("SLUICE_BIN");
    before_ = set == nullptr ? std::optional<std::string>() : set;
    real_ = ProxyBinary();
    Install(real_);
    ::setenv("SLUICE_BIN", binary_.c_str(), 1);
  }
  ~ReplacedBinary() override {
    if (before_) {
      ::setenv("SLUICE_BIN", before_->c_str(), 1);
    } else {
      ::unsetenv("SLUICE_BIN");
    }
  }

  void Install(const std::string& target) const {
    const std::string beside = binary_ + ".new";
    std::filesystem::create_symlink(target, beside);
    std::filesystem::rename(beside, binary_);
  }

  void InstallScript(const std::string& text) const {
    const std::string script = dir.Write("script", "#!/bin/sh\n" + text + "\n");
    ::chmod(script.c_str(), 0700);
    Install(script);
  }

  std::string real_;
  std::string binary_ = dir.path() + "/sluice";
  std::optional<std::string> before_;
};

TEST_F(ReplacedBinary, ThatEndsAtOnceOrIsKilledHarmsNobody) {
  ProxyProcess proxy(MakeConfig());
  RawClient session = ConnectWebSocket(proxy.port());
  InstallScript("exit 3");
  proxy.Signal(SIGUSR2);
  ASSERT_TRUE(proxy.AwaitErr("status=3"));
  proxy.AwaitMetric("sluice_takeovers_total{result=\"failed\"}", 1);

  Install(dir.path() + "/nothing");
  proxy.Signal(SIGUSR2);
  ASSERT_TRUE(proxy.AwaitErr("cannot start"));
  proxy.AwaitMetric("sluice_takeovers_total{result=\"failed\"}", 2);

  InstallScript("echo it-waits pid=$$ >&2; exec sleep 1000");
  proxy.Signal(SIGUSR2);
  const pid_t waiting = AwaitPid(proxy, "it-waits pid=", 1);
  static_cast<void>(ConnectWebSocket(proxy.port()));
  // Only one at a time.
  proxy.Signal(SIGUSR2);
  ASSERT_TRUE(proxy.AwaitErr("another takeover is under way"));
  EXPECT_EQ(proxy.Metric("sluice_takeovers_total{result=\"refused\"}"), 1);
  ASSERT_EQ(::kill(waiting, SIGKILL), 0);
  ASSERT_TRUE(proxy.AwaitErr("status=137"));
  proxy.AwaitMetric("sluice_takeovers_total{result=\"failed\"}", 3);
  ExpectEcho(session);

  Install(real_);
  Predecessor old = proxy.TakeOver();
  EXPECT_EQ(proxy.Metric("sluice_generation"), 2);
  ExpectEcho(session);
  HurryOld(proxy, old);
  ExpectToldToGo(session);
  EXPECT_EQ(old.Wait(), 0);
}

TEST_F(ReplacedBinary, ThatWaitsDoesNotKeepTheProcessFromEnding) {
  ProxyProcess proxy(MakeConfig("window = \"0s\"\ngrace = \"5s\""));
  InstallScript("echo it-waits pid=$$ >&2; exec sleep 1000 >&- 2>&-");
  proxy.Signal(SIGUSR2);
  const pid_t waiting = AwaitPid(proxy, "it-waits pid=", 1);
  proxy.Signal(SIGTERM);
  EXPECT_EQ(proxy.Wait(), 0);
  ::kill(waiting, SIGKILL);
}

TEST_F(ReplacedBinary, ThatComesWhenTheProcessDrainsIsSentAway) {
  ProxyProcess proxy(MakeConfig());
  RawClient session = ConnectWebSocket(proxy.port());
  const std::string go = dir.path() + "/go";
  InstallScript("echo it-waits >&2; while [ ! -e " + go + " ]; do sleep 0.05; done; exec " + real_ +
                " \"$@\"");
  proxy.Signal(SIGUSR2);
  ASSERT_TRUE(proxy.AwaitErr("it-waits"));
  proxy.Signal(SIGTERM);
  ASSERT_TRUE(proxy.AwaitErr("draining connections="));
  static_cast<void>(dir.Write("go", ""));
  ASSERT_TRUE(proxy.AwaitErr("takeover refused"));
  ASSERT_TRUE(proxy.AwaitErr("status=1"));
  ExpectEcho(session);
  proxy.Signal(SIGTERM);
  ExpectToldToGo(session);
  EXPECT_EQ(proxy.Wait(), 0);
}

// Generations.

TEST_F(Takeover, AThirdGenerationWaitsForTheFirstToEnd) {
  const Config config = MakeConfig();
  ProxyProcess proxy(config);
  RawClient session = ConnectWebSocket(proxy.port());
  Predecessor first = proxy.TakeOver();
  proxy.Signal(SIGUSR2);
  ASSERT_TRUE(proxy.AwaitErr("SIGUSR2: no successor is started"));
  EXPECT_NE(proxy.err().find("at most two generations"), std::string::npos);
  {
    ProxyProcess third({"run", "-c", proxy.config_path()});
    EXPECT_EQ(third.Wait(), kNotNow);
    EXPECT_NE(third.err().find("at most two generations"), std::string::npos) << third.err();
  }
  EXPECT_EQ(proxy.Metric("sluice_takeovers_total{result=\"refused\"}"), 2);
  ExpectEcho(session);
  HurryOld(proxy, first);
  ExpectToldToGo(session);
  EXPECT_EQ(first.Wait(), 0);
  ASSERT_TRUE(proxy.AwaitErr("the process before this one has ended"));
  EXPECT_EQ(proxy.TakeOver().Wait(), 0);
  EXPECT_EQ(proxy.Metric("sluice_generation"), 3);
}

TEST_F(Takeover, ADrainingProcessIsNotTakenOver) {
  ProxyProcess proxy(MakeConfig());
  RawClient session = ConnectWebSocket(proxy.port());
  proxy.Signal(SIGTERM);
  ASSERT_TRUE(proxy.AwaitErr("draining connections="));
  proxy.Signal(SIGUSR2);
  ASSERT_TRUE(proxy.AwaitErr("SIGUSR2: no successor is started"));
  EXPECT_NE(proxy.err().find("drains already"), std::string::npos);
  proxy.Signal(SIGTERM);
  ExpectToldToGo(session);
  EXPECT_EQ(proxy.Wait(), 0);
}

TEST_F(Takeover, BothMayBeToldToStop) {
  const Config config = MakeConfig();
  ProxyProcess first(config);
  RawClient before = ConnectWebSocket(first.port());
  ProxyProcess second(config);
  RawClient after = ConnectWebSocket(second.port());
  second.Signal(SIGTERM);
  ASSERT_TRUE(second.AwaitErr("draining connections="));
  second.Signal(SIGTERM);
  ExpectToldToGo(after);
  EXPECT_EQ(second.Wait(), 0);
  EXPECT_FALSE(std::filesystem::exists(socket()));
  ExpectEcho(before);
  HurryOld(first, first);
  ExpectToldToGo(before);
  EXPECT_EQ(first.Wait(), 0);
}

TEST_F(Takeover, TenGenerationsLeakNoDescriptors) {
  ProxyProcess proxy(MakeConfig("window = \"0s\"\ngrace = \"5s\""));
  EXPECT_EQ(proxy.TakeOver().Wait(), 0);
  ASSERT_TRUE(proxy.AwaitErr("the process before this one has ended"));
  const auto fds = [&] {
    proxy.AwaitMetric("sluice_connections_open{side=\"client\"}", 0);
    return proxy.OpenFds();
  };
  const std::size_t before = fds();
  for (int generation = 3; generation <= 11; ++generation) {
    Predecessor old = proxy.TakeOver();
    const std::string ended =
        "the process before this one has ended pid=" + std::to_string(old.pid());
    EXPECT_EQ(old.Wait(), 0);
    ASSERT_TRUE(proxy.AwaitErr(ended));
    EXPECT_EQ(proxy.Metric("sluice_generation"), generation);
  }
  const Deadline deadline;
  std::size_t now = fds();
  while (now > before && !deadline.passed()) {
    now = fds();  // the connection of the last look may be open still
  }
  EXPECT_LE(now, before);
}

// What else goes along.

TEST_F(Takeover, ABackendThatDrainsStaysOut) {
  EchoBackend b1;
  Config config = MakeConfig();
  config.backends.push_back(b1.port());
  config.pool = "balance = \"round_robin\"\nslow_start = \"0s\"";
  ProxyProcess proxy(config);
  static_cast<void>(proxy.AskJson("POST", "/backends/app/b0/drain", 202));
  EXPECT_EQ(proxy.TakeOver().Wait(), 0);
  EXPECT_EQ(proxy.AskJson("GET", "/backends/app/b0")["draining"], true);
  EXPECT_EQ(proxy.Metric("sluice_backend_draining{backend=\"b0\"}"), 1);
  std::vector<RawClient> clients;
  for (int i = 0; i < 10; ++i) {
    clients.push_back(ConnectWebSocket(proxy.port()));
  }
  EXPECT_EQ(backend.accepts(), 0U);
  EXPECT_EQ(b1.open(), 10U);
  EXPECT_EQ(proxy.AskJson("POST", "/backends/app/b0/undrain")["draining"], false);
  for (int i = 0; i < 4; ++i) {
    clients.push_back(ConnectWebSocket(proxy.port()));
  }
  EXPECT_TRUE(backend.AwaitOpen(2));
}

TEST_F(Takeover, TheTakeoverSocketMayMove) {
  Config config = MakeConfig("window = \"0s\"\ngrace = \"5s\"");
  ProxyProcess proxy(config);
  const std::string moved = dir.path() + "/moved.sock";
  config.server = "takeover_socket = \"" + moved + "\"";
  proxy.Configure(config);
  EXPECT_EQ(proxy.TakeOver().Wait(), 0);
  EXPECT_FALSE(std::filesystem::exists(socket()));
  EXPECT_TRUE(std::filesystem::is_socket(moved));
  {
    ProxyProcess next(config);
    EXPECT_EQ(next.port(), proxy.port());
    EXPECT_EQ(proxy.Wait(), 0);
    config.server.clear();
    next.Configure(config);
    EXPECT_EQ(next.TakeOver().Wait(), 0);
    EXPECT_FALSE(std::filesystem::exists(moved)) << "it has none any more";
    static_cast<void>(ConnectWebSocket(next.port()));
  }
}

// Who may come.

TEST_F(Takeover, GarbageAndSilenceOnTheSocketAreRefused) {
  ProxyProcess proxy(MakeConfig("window = \"0s\"\ngrace = \"5s\""));
  EXPECT_EQ(std::filesystem::status(socket()).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  {
    Stream garbage = ConnectToSocket(socket());
    garbage.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    static_cast<void>(garbage.AwaitEnd());
  }
  ASSERT_TRUE(proxy.AwaitErr("takeover refused uid=" + std::to_string(::geteuid())));
  proxy.AwaitMetric("sluice_takeovers_total{result=\"refused\"}", 1);
  ConnectToSocket(socket()).Close();  // who wants to know whether somebody is here
  // Until that one is dealt with, another is refused at once.
  Stream silent;
  steady_clock::time_point began;
  do {
    began = steady_clock::now();
    silent = ConnectToSocket(socket());
  } while (silent.HasInput(Millis(200)));
  static_cast<void>(silent.AwaitEnd());
  EXPECT_GE(steady_clock::now() - began, Millis(1500));
  EXPECT_LT(steady_clock::now() - began, Millis(8000));
  ASSERT_TRUE(proxy.AwaitErr("it was not heard of within 2 s"));
  EXPECT_EQ(proxy.Metric("sluice_takeovers_total{result=\"failed\"}"), 0);
  static_cast<void>(ConnectWebSocket(proxy.port()));
  EXPECT_EQ(proxy.TakeOver().Wait(), 0);
}

// Exit status: 0 connected and was told something before the end, 1 connected and was not,
// 2 not connected.
int VisitAs(uid_t uid, const std::string& path) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgid(uid) != 0 || ::setuid(uid) != 0) {
      ::_exit(3);
    }
    const int fd = ConnectTo(path);
    if (fd < 0) {
      ::_exit(2);
    }
    char first = 0;
    ::_exit(::read(fd, &first, 1) == 1 ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(Takeover, AnotherUserIsRefused) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root can be another user";
  }
  ProxyProcess proxy(MakeConfig());
  ASSERT_EQ(::chmod(dir.path().c_str(), 0755), 0);
  EXPECT_EQ(VisitAs(kNobody, socket()), 2) << "the file's mode";
  ASSERT_EQ(::chmod(socket().c_str(), 0666), 0);
  EXPECT_EQ(VisitAs(kNobody, socket()), 0) << "told why";
  ASSERT_TRUE(proxy.AwaitErr("takeover refused uid=65534"));
  proxy.AwaitMetric("sluice_takeovers_total{result=\"refused\"}", 1);
  static_cast<void>(ConnectWebSocket(proxy.port()));
}

TEST_F(Takeover, AnOldSocketFileIsReplacedAndAnythingElseIsNot) {
  {
    // Left behind by a process that was killed.
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, socket().c_str(), socket().size());
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  {
    ProxyProcess proxy(MakeConfig());
    EXPECT_EQ(proxy.Metric("sluice_generation"), 1);
  }
  EXPECT_FALSE(std::filesystem::exists(socket()));
  static_cast<void>(dir.Write("t.sock", "precious"));
  ProxyProcess refused({"run", "-c", dir.Write("sluice.toml", MakeConfig().Text())});
  EXPECT_EQ(refused.Wait(), kBadConfig);
  EXPECT_NE(refused.err().find("t.sock"), std::string::npos) << refused.err();
  EXPECT_TRUE(std::filesystem::is_regular_file(socket()));
}

}  // namespace
}  // namespace sluice::test
