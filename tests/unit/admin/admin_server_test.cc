// Proves that the admin listener takes requests whole and bounded, decides who may ask before the
// handler hears of it, answers in order however late an answer comes, and goes in order. Real
// sockets on loopback: the loop runs in a thread, the client's calls block with a deadline.
#include "proxy/admin/admin_server.h"

#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/net/socket.h"
#include "proxy/tls/self_signed.h"

#include "tests/support/temp_dir.h"

namespace sluice::admin {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr std::string_view kGet = "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n";

std::string Post(std::string_view fields, std::string_view content) {
  return "POST /p HTTP/1.1\r\nHost: localhost\r\n" + std::string(fields) + "\r\n" +
         std::string(content);
}

// A blocking client. What does not come within the deadline reads as the end.
class Client {
 public:
  explicit Client(const net::Address& to) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const timeval deadline{.tv_sec = 20, .tv_usec = 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof(deadline));
    connected_ = ::connect(fd_.get(), to.raw(), to.raw_size()) == 0;
  }

  [[nodiscard]] bool connected() const { return connected_; }
  [[nodiscard]] int fd() const { return fd_.get(); }

  void Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) {
        return;  // what the server answered before it closed is what a test looks at
      }
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
  }

  // One whole answer, by its Content-Length.
  std::string Receive(bool head_only = false) {
    std::size_t end = std::string::npos;
    while ((end = bytes_.find("\r\n\r\n")) == std::string::npos) {
      if (!Fill()) {
        return std::exchange(bytes_, {});
      }
    }
    end += 4;
    const std::size_t field = bytes_.find("Content-Length: ");
    const std::size_t length = head_only || field > end ? 0 : std::stoul(bytes_.substr(field + 16));
    while (bytes_.size() < end + length && Fill()) {
    }
    std::string answer = bytes_.substr(0, end + length);
    bytes_.erase(0, end + length);
    return answer;
  }

  // Everything up to the server's end.
  std::string ReceiveAll() {
    while (Fill()) {
    }
    return std::exchange(bytes_, {});
  }

  void Leave() { fd_.Reset(); }

 private:
  bool Fill() {
    std::array<char, 4096> chunk;
    const ssize_t got = ::recv(fd_.get(), chunk.data(), chunk.size(), 0);
    if (got > 0) {
      bytes_.append(chunk.data(), static_cast<std::size_t>(got));
    }
    return got > 0;
  }

  UniqueFd fd_;
  std::string bytes_;
  bool connected_ = false;
};

class AdminServerTest : public testing::Test {
 protected:
  // The handler echoes what it was asked unless a test sets `on_request`.
  void Start(const AdminAccess& access = {}) {
    auto fd = net::Listen(*net::Address::FromNumeric("127.0.0.1", 0));
    ASSERT_TRUE(fd.has_value());
    address_ = net::Address::OfSocket(fd->get());
    InLoop([&] {
      server_ = std::make_unique<AdminServer>(
          loop_, std::move(*fd), access, context_,
          [this](const AdminRequest& request, AdminResponder answer) {
            if (on_request) {
              on_request(request, std::move(answer));
            } else {
              answer({200, kPlainText,
                      request.method + " " + request.path + " ?" + request.query + " [" +
                          request.content_type + "] " + request.body});
            }
          });
    });
  }

  ~AdminServerTest() override {
    loop_.Post([this] {
      server_.reset();
      context_.reset();
      loop_.Stop();
    });
    thread_.join();
  }

  // Runs `call` in the loop's thread and waits for it.
  void InLoop(const std::function<void()>& call) {
    std::promise<void> done;
    loop_.Post([&] {
      call();
      done.set_value();
    });
    done.get_future().wait();
  }

  // Waits until the loop's thread finds `condition` true; false when it does not in time.
  bool Eventually(const std::function<bool()>& condition) {
    const test::Deadline deadline;
    bool holds = false;
    while (!holds && !deadline.passed()) {
      InLoop([&] { holds = condition(); });
      std::this_thread::yield();
    }
    return holds;
  }

  std::string Ask(std::string_view bytes) {
    Client client(address_);
    client.Send(bytes);
    return client.Receive();
  }

  std::function<void(const AdminRequest&, AdminResponder)> on_request;
  net::Loop loop_;
  net::Address address_;
  // OpenSSL 3.0 wants a library context to end in the thread that made it: both live in the loop's.
  std::shared_ptr<const tls::ServerContext> context_;  // null: plain
  std::unique_ptr<AdminServer> server_;
  std::thread thread_{[this] { loop_.Run(); }};
};

TEST_F(AdminServerTest, AnswersOneRequestAfterTheOther) {
  Start();
  Client client(address_);
  for (int i = 0; i < 3; ++i) {
    client.Send("GET /a/b?x=1&y HTTP/1.1\r\nHost: localhost\r\n\r\n");
    const std::string answer = client.Receive();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
    EXPECT_THAT(answer, HasSubstr("Cache-Control: no-store\r\n"));
    EXPECT_THAT(answer, HasSubstr("\r\n\r\nGET /a/b ?x=1&y [] "));
    EXPECT_THAT(answer, Not(HasSubstr("Connection: close")));
  }
}

TEST_F(AdminServerTest, TakesRequestsInAnyPieces) {
  Start();
  Client client(address_);
  const std::string all =
      Post("Content-Type: t/x\r\nContent-Length: 5\r\n", "hello") +
      Post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n") +
      std::string(kGet);
  for (const char byte : all) {
    client.Send({&byte, 1});
  }
  EXPECT_THAT(client.Receive(), HasSubstr("POST /p ? [t/x] hello"));
  EXPECT_THAT(client.Receive(), HasSubstr("POST /p ? [] abcde"));
  EXPECT_THAT(client.Receive(), HasSubstr("GET /a ? [] "));
  client.Send(all);
  EXPECT_THAT(client.Receive(), HasSubstr("hello"));
  EXPECT_THAT(client.Receive(), HasSubstr("abcde"));
  EXPECT_THAT(client.Receive(), HasSubstr("GET /a"));
}

TEST_F(AdminServerTest, AnswersAHeadWithoutTheBody) {
  Start();
  Client client(address_);
  client.Send("HEAD /a HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const std::string answer = client.Receive(true);
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Length: 12\r\n"));  // "GET /a ? [] "
  client.Send(kGet);
  EXPECT_THAT(client.Receive(), StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST_F(AdminServerTest, ClosesWhereTheRequestAsksForIt) {
  Start();
  for (const char* line : {"GET /a HTTP/1.1\r\nConnection: close", "GET /a HTTP/1.0"}) {
    Client client(address_);
    client.Send(std::string(line) + "\r\nHost: localhost\r\n\r\n");
    const std::string answer = client.ReceiveAll();
    EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
    EXPECT_THAT(answer, HasSubstr("GET /a"));
  }
}

TEST_F(AdminServerTest, TellsTheClientToGoOn) {
  Start();
  Client client(address_);
  client.Send(Post("Content-Length: 2\r\nExpect: 100-continue\r\n", ""));
  EXPECT_EQ(client.Receive(true), "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send("hi");
  EXPECT_THAT(client.Receive(), HasSubstr("] hi"));
}

TEST_F(AdminServerTest, BoundsTheContent) {
  Start();
  const std::string most(AdminServer::kMostContent, 'x');
  EXPECT_THAT(Ask(Post("Content-Length: 65536\r\n", most)), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Ask(Post("Transfer-Encoding: chunked\r\n", "10000\r\n" + most + "\r\n0\r\n\r\n")),
              StartsWith("HTTP/1.1 200 "));
  for (const std::string& request :
       {Post("Content-Length: 65537\r\n", ""), Post("Content-Length: 999999999999\r\n", ""),
        Post("Transfer-Encoding: chunked\r\n", "10001\r\n" + most + "y")}) {
    Client client(address_);
    client.Send(request);
    const std::string answer = client.ReceiveAll();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 413 "));
    EXPECT_THAT(answer, HasSubstr("Content-Type: application/problem+json\r\n"));
    EXPECT_THAT(answer, HasSubstr("\"status\":413"));
    EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  }
}

TEST_F(AdminServerTest, RefusesWhatIsNoValidRequest) {
  Start();
  on_request = [](const AdminRequest&, const AdminResponder&) { FAIL(); };
  for (const std::string& request :
       {std::string("GET /a HTTP/1.1\r\n\r\n"), std::string("GET /a\r\n\r\n"),
        Post("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", ""),
        Post("Transfer-Encoding: chunked\r\n", "x\r\n")}) {
    Client client(address_);
    client.Send(request);
    const std::string answer = client.ReceiveAll();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 400 "));
    EXPECT_THAT(answer, HasSubstr("Content-Type: application/problem+json\r\n"));
  }
}

TEST_F(AdminServerTest, DecidesAboutAccessBeforeTheHandler) {
  Start({"0123456789abcdef"});
  on_request = [](const AdminRequest&, const AdminResponder&) { FAIL(); };
  Client client(address_);
  client.Send(Post("Content-Length: 5\r\n", "hello"));
  std::string answer = client.ReceiveAll();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 401 "));
  EXPECT_THAT(answer, HasSubstr("WWW-Authenticate: Bearer\r\n"));
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  answer = Ask("GET /a HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 403 "));
  EXPECT_THAT(answer, Not(HasSubstr("WWW-Authenticate")));
}

TEST_F(AdminServerTest, HoldsRequestsToTheTokenItHasNow) {
  Start({"0123456789abcdef"});
  const std::string old =
      "GET /a HTTP/1.1\r\nHost: a.example\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n";
  Client client(address_);
  client.Send(old);
  EXPECT_THAT(client.Receive(), StartsWith("HTTP/1.1 200 "));
  InLoop([&] { server_->Renew({"another token now"}, nullptr); });
  client.Send(old);
  EXPECT_THAT(client.Receive(), StartsWith("HTTP/1.1 401 "));
}

TEST_F(AdminServerTest, ParsesNoFurtherRequestBeforeTheAnswer) {
  std::vector<AdminResponder> owed;
  Start();
  on_request = [&](const AdminRequest&, AdminResponder answer) {
    owed.push_back(std::move(answer));
  };
  Client client(address_);
  client.Send(
      "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\nGET /b HTTP/1.1\r\nHost: localhost\r\n\r\n");
  ASSERT_TRUE(Eventually([&] { return !owed.empty(); }));
  InLoop([&] {
    EXPECT_EQ(owed.size(), 1U);
    owed[0]({200, kPlainText, "first"});
    owed[0]({200, kPlainText, "again"});  // only the first answer counts
  });
  EXPECT_THAT(client.Receive(), HasSubstr("\r\n\r\nfirst"));
  ASSERT_TRUE(Eventually([&] { return owed.size() == 2; }));
  InLoop([&] { owed[1]({202, kJson, "second"}); });
  const std::string answer = client.Receive();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 202 "));
  EXPECT_THAT(answer, HasSubstr("\r\n\r\nsecond"));
  InLoop([&] { owed.clear(); });
}

TEST_F(AdminServerTest, LetsAnAnswerComeTooLate) {
  std::vector<AdminResponder> owed;
  Start();
  on_request = [&](const AdminRequest&, AdminResponder answer) {
    owed.push_back(std::move(answer));
  };
  Client client(address_);
  client.Send(kGet);
  ASSERT_TRUE(Eventually([&] { return owed.size() == 1; }));
  // A reset, so that the server learns of it although it does not read just now.
  const linger hard{1, 0};
  ::setsockopt(client.fd(), SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  client.Leave();
  InLoop([&] { owed[0]({200, kPlainText, "late"}); });
  EXPECT_TRUE(Eventually([&] { return server_->connections() == 0; }));
  Client other(address_);
  other.Send(kGet);
  ASSERT_TRUE(Eventually([&] { return owed.size() == 2; }));
  InLoop([&] { server_.reset(); });
  InLoop([&] { owed[1]({200, kPlainText, "later still"}); });
  EXPECT_EQ(other.ReceiveAll(), "");
  InLoop([&] { owed.clear(); });
}

TEST_F(AdminServerTest, WaitsForAClientThatReadsSlowly) {
  Start();
  const std::string large(4 << 20, 'x');
  on_request = [&](const AdminRequest&, const AdminResponder& answer) {
    answer({200, kPlainText, large});
  };
  Client client(address_);
  client.Send(std::string(kGet) + std::string(kGet));
  for (int i = 0; i < 2; ++i) {
    const std::string answer = client.Receive();
    EXPECT_THAT(answer.substr(0, 17), StartsWith("HTTP/1.1 200 "));
    EXPECT_EQ(answer.size() - answer.find("\r\n\r\n") - 4, large.size());
  }
}

TEST_F(AdminServerTest, TakesNoMoreClientsThanItHasRoomFor) {
  Start();
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 64; ++i) {
    clients.push_back(std::make_unique<Client>(address_));
    clients.back()->Send(kGet);
    ASSERT_THAT(clients.back()->Receive(), StartsWith("HTTP/1.1 200 "));
  }
  EXPECT_EQ(Ask(kGet), "");
  clients.pop_back();
  EXPECT_TRUE(Eventually([&] { return server_->connections() == 63; }));
  EXPECT_THAT(Ask(kGet), StartsWith("HTTP/1.1 200 "));
}

TEST_F(AdminServerTest, GoesInOrder) {
  std::vector<AdminResponder> owed;
  Start();
  on_request = [&](const AdminRequest& request, AdminResponder answer) {
    if (request.path == "/now") {
      answer({});
    } else {
      owed.push_back(std::move(answer));
    }
  };
  Client idle(address_);
  idle.Send("GET /now HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(idle.Receive(), StartsWith("HTTP/1.1 200 "));
  Client waiting(address_);
  waiting.Send(kGet);
  Client beginning(address_);
  beginning.Send("GET /now HTTP/1.1\r\n");
  ASSERT_TRUE(Eventually([&] { return owed.size() == 1 && server_->connections() == 3; }));
  // As a successor would have it.
  UniqueFd kept;
  InLoop([&] {
    kept = UniqueFd(::dup(server_->socket()));
    server_->StopAccepting();
    server_->StopAccepting();
    EXPECT_EQ(server_->socket(), -1);
  });
  EXPECT_EQ(idle.ReceiveAll(), "");
  beginning.Send("Host: localhost\r\n\r\n");
  EXPECT_THAT(beginning.ReceiveAll(), HasSubstr("Connection: close\r\n"));
  InLoop([&] { owed[0]({200, kPlainText, "done"}); });
  const std::string answer = waiting.ReceiveAll();
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\n\r\ndone"));
  // A connection that comes now waits in the queue of the socket that was passed on.
  Client next(address_);
  ASSERT_TRUE(next.connected());
  InLoop([&] {
    EXPECT_TRUE(UniqueFd(::accept(kept.get(), nullptr, nullptr)).valid());
    owed.clear();
  });
}

// TLS.

class AdminServerTlsTest : public AdminServerTest {
 protected:
  AdminServerTlsTest() {
    InLoop([this] { context_ = MakeContext("a"); });
  }

  std::shared_ptr<const tls::ServerContext> MakeContext(const std::string& name) {
    const auto pair = tls::MakeSelfSigned({"localhost"}, 2);
    EXPECT_TRUE(pair.has_value());
    tls::ServerOptions options;
    options.certificates = {
        {folder_.Write(name + ".pem", pair->chain), folder_.Write(name + ".key", pair->key)}};
    auto made = tls::ServerContext::Make(options, keys_);
    EXPECT_TRUE(made.has_value());
    return std::move(*made);
  }

  test::TempDir folder_;
  tls::TicketKeys keys_;
};

// Asks over TLS; the whole answer, or why there is none.
std::string AskOverTls(const net::Address& address, std::string_view request) {
  const Client client(address);
  const tls::SslCtxPtr context(SSL_CTX_new(TLS_client_method()));
  const tls::SslPtr ssl(SSL_new(context.get()));
  SSL_set_fd(ssl.get(), client.fd());
  if (SSL_connect(ssl.get()) != 1) {
    return "no handshake";
  }
  std::size_t moved = 0;
  SSL_write_ex(ssl.get(), request.data(), request.size(), &moved);
  std::string answer;
  std::array<char, 4096> chunk;
  while (SSL_read_ex(ssl.get(), chunk.data(), chunk.size(), &moved) == 1) {
    answer.append(chunk.data(), moved);
  }
  return answer;
}

TEST_F(AdminServerTlsTest, SpeaksTls) {
  Start();
  const std::string content(50'000, 'x');
  const std::string answer =
      AskOverTls(address_, Post("Connection: close\r\nContent-Length: 50000\r\n", content));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr(content));
}

TEST_F(AdminServerTlsTest, AnswersNobodyInPlainText) {
  Start();
  on_request = [](const AdminRequest&, const AdminResponder&) { FAIL(); };
  Client client(address_);
  client.Send(kGet);
  EXPECT_THAT(client.ReceiveAll(), Not(HasSubstr("HTTP/1.1")));
}

TEST_F(AdminServerTlsTest, TakesANewCertificateWhileOldOnesAreInUse) {
  Start();
  Client half(address_);
  half.Send("\x16\x03\x01");  // the first bytes of a handshake
  ASSERT_TRUE(Eventually([&] { return server_->connections() == 1; }));
  InLoop([&] {
    context_ = MakeContext("b");
    server_->Renew({}, context_);
  });
  EXPECT_THAT(AskOverTls(address_, "GET /a HTTP/1.0\r\nHost: localhost\r\n\r\n"),
              StartsWith("HTTP/1.1 200 "));
  half.Send("\x01\x01");
  InLoop([&] { server_->StopAccepting(); });
  EXPECT_THAT(half.ReceiveAll(), Not(HasSubstr("HTTP")));
}

}  // namespace
}  // namespace sluice::admin
