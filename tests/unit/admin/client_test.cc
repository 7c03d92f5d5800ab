// Proves that the client of the admin interface reads answers in every framing, gives up on what is
// too late, too large or no HTTP, and speaks TLS only with a server that it has a reason to trust.
#include "proxy/admin/client.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/admin/admin_server.h"
#include "proxy/net/socket.h"
#include "proxy/tls/self_signed.h"

#include "tests/support/temp_dir.h"

namespace sluice::admin {
namespace {

using testing::HasSubstr;

// Answers one connection with fixed bytes once it has got a whole head, then closes it.
class OneAnswer {
 public:
  explicit OneAnswer(std::string answer)
      : fd_(*net::Listen(*net::Address::FromNumeric("127.0.0.1", 0))) {
    endpoint.address = net::Address::OfSocket(fd_.get());
    endpoint.host = endpoint.address.Text();
    thread_ = std::thread([this, answer = std::move(answer)] {
      const Instant deadline = Now() + test::kPatience;
      if (!net::Await(fd_.get(), POLLIN, deadline)) {
        return;
      }
      const UniqueFd peer(::accept(fd_.get(), nullptr, nullptr));
      std::array<char, 4096> chunk;
      while (request_.find("\r\n\r\n") == std::string::npos) {
        const ssize_t got = ::recv(peer.get(), chunk.data(), chunk.size(), 0);
        if (got <= 0) {
          return;
        }
        request_.append(chunk.data(), static_cast<std::size_t>(got));
      }
      ::send(peer.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    });
  }
  ~OneAnswer() { Join(); }

  // What was asked.
  const std::string& request() {
    Join();
    return request_;
  }

  AdminEndpoint endpoint;

 private:
  void Join() {
    if (thread_.joinable()) {
      thread_.join();
    }
  }

  UniqueFd fd_;
  std::string request_;
  std::thread thread_;
};

Result<ClientAnswer> AskOnce(std::string answer) {
  OneAnswer server(std::move(answer));
  return Ask(server.endpoint, {}, test::kPatience);
}

TEST(Ask, ReadsEveryFraming) {
  for (const char* rest :
       {"Content-Length: 5\r\n\r\nhello", "Content-Length: 5\r\n\r\nhello and more",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "\r\nhello"}) {
    const auto answer =
        AskOnce("HTTP/1.1 202 Accepted\r\nContent-Type: a/b\r\n" + std::string(rest));
    ASSERT_TRUE(answer.has_value()) << answer.error().message;
    EXPECT_EQ(answer->status, 202);
    EXPECT_EQ(answer->content_type, "a/b");
    EXPECT_EQ(answer->body, "hello");
  }
  EXPECT_EQ(AskOnce("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")->status, 204);
}

TEST(Ask, SendsWhatTheServerWants) {
  OneAnswer server("HTTP/1.1 204 No Content\r\n\r\n");
  server.endpoint.token = "secret";
  ASSERT_TRUE(Ask(server.endpoint, {"POST", "/a?b=c", "{}"}, test::kPatience).has_value());
  const std::string& request = server.request();
  EXPECT_THAT(request, testing::StartsWith("POST /a?b=c HTTP/1.1\r\n"));
  EXPECT_THAT(request, HasSubstr("\r\nHost: " + server.endpoint.host + "\r\n"));
  EXPECT_THAT(request, HasSubstr("\r\nAuthorization: Bearer secret\r\n"));
  EXPECT_THAT(request, HasSubstr("\r\nContent-Type: application/json\r\n"));
  EXPECT_THAT(request, HasSubstr("\r\nContent-Length: 2\r\n"));
}

TEST(Ask, SaysWhatIsWrongWithAnAnswer) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "closed without an answer"},
      {"HTTP/1.1 200 OK\r\n", "closed without an answer"},
      {"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "closed within its answer"},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "closed within its answer"},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "does not speak HTTP"},
      {"HTTP/1.1 200 OK\r\n\r\n" + std::string(kMostAnswer + 1, 'x'), "more than 8 MiB"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + std::string(kMostAnswer + 1, 'x'),
       "more than 8 MiB"},
  };
  for (const auto& [text, want] : cases) {
    const auto answer = AskOnce(text);
    ASSERT_FALSE(answer.has_value());
    EXPECT_THAT(answer.error().message, HasSubstr(want));
    EXPECT_THAT(answer.error().message, testing::StartsWith("127.0.0.1:"));
  }
}

TEST(Ask, DoesNotWaitForEver) {
  const auto fd = net::Listen(*net::Address::FromNumeric("127.0.0.1", 0));
  ASSERT_TRUE(fd.has_value());
  AdminEndpoint endpoint;
  endpoint.address = net::Address::OfSocket(fd->get());
  endpoint.host = endpoint.address.Text();
  for (const bool tls : {false, true}) {
    if (tls) {
      endpoint.tls.emplace().server_name = "localhost";
    }
    const auto answer = Ask(endpoint, {}, Millis(50));
    ASSERT_FALSE(answer.has_value());
    EXPECT_THAT(answer.error().message, HasSubstr("no answer in time"));
  }
}

TEST(Ask, SaysThatNobodyListens) {
  AdminEndpoint endpoint;
  {
    const auto fd = net::Listen(*net::Address::FromNumeric("127.0.0.1", 0));
    endpoint.address = net::Address::OfSocket(fd->get());
  }
  const auto answer = Ask(endpoint, {}, test::kPatience);
  ASSERT_FALSE(answer.has_value());
  EXPECT_THAT(answer.error().message, HasSubstr("Connection refused"));
}

// An admin server with TLS in a thread of its own.
class AskOverTls : public testing::Test {
 protected:
  AskOverTls() {
    const auto pair = tls::MakeSelfSigned({"*.example.com", "admin.example.com"}, 2);
    const auto other = tls::MakeSelfSigned({"admin.example.com"}, 2);
    chain_ = folder_.Write("a.pem", pair->chain);
    other_ = folder_.Write("other.pem", other->chain);
    tls::ServerOptions options;
    options.certificates = {{chain_, folder_.Write("a.key", pair->key)}};
    auto fd = net::Listen(*net::Address::FromNumeric("127.0.0.1", 0));
    endpoint_.address = net::Address::OfSocket(fd->get());
    endpoint_.host = "localhost";
    endpoint_.tls.emplace();
    std::promise<void> ready;
    loop_.Post([&] {
      auto context = tls::ServerContext::Make(options, keys_);
      EXPECT_TRUE(context.has_value());
      server_ = std::make_unique<AdminServer>(
          loop_, std::move(*fd), AdminAccess{}, std::move(*context),
          [this](const AdminRequest& request, const AdminResponder& answer) {
            ++asked_;
            answer({200, kPlainText, std::string(100'000, 'x') + request.body});
          });
      ready.set_value();
    });
    ready.get_future().wait();
  }

  ~AskOverTls() override {
    loop_.Post([this] {
      server_.reset();
      loop_.Stop();
    });
    thread_.join();
  }

  // Nothing reaches the server unless it is trusted.
  void ExpectMistrust(std::string_view why) {
    const int before = asked_;
    const auto answer = Ask(endpoint_, {}, test::kPatience);
    ASSERT_FALSE(answer.has_value());
    EXPECT_THAT(answer.error().message, HasSubstr("certificate is not to be trusted"));
    EXPECT_THAT(answer.error().message, HasSubstr(why));
    EXPECT_EQ(asked_, before);
  }

  void ExpectTrust() {
    const auto answer = Ask(endpoint_, {"POST", "/", std::string(50'000, 'y')}, test::kPatience);
    ASSERT_TRUE(answer.has_value()) << answer.error().message;
    EXPECT_EQ(answer->body.size(), 150'000U);
  }

  test::TempDir folder_;
  tls::TicketKeys keys_;
  std::string chain_;
  std::string other_;
  AdminEndpoint endpoint_;
  std::atomic<int> asked_ = 0;
  net::Loop loop_;
  std::unique_ptr<AdminServer> server_;
  std::thread thread_{[this] { loop_.Run(); }};
};

TEST_F(AskOverTls, TrustsWhatTheCaFileVouchesForUnderTheRightName) {
  endpoint_.tls->ca_file = chain_;
  for (const char* name : {"admin.example.com", "x.example.com", "127.0.0.1", "::1"}) {
    endpoint_.tls->server_name = name;
    ExpectTrust();
  }
}

TEST_F(AskOverTls, MistrustsAnotherName) {
  endpoint_.tls->ca_file = chain_;
  endpoint_.tls->server_name = "example.com";
  ExpectMistrust("hostname mismatch");
  endpoint_.tls->server_name = "127.0.0.2";
  ExpectMistrust("IP address mismatch");
}

TEST_F(AskOverTls, MistrustsAnotherAuthority) {
  endpoint_.tls->ca_file = other_;
  endpoint_.tls->server_name = "admin.example.com";
  ExpectMistrust("self-signed");
  endpoint_.tls->ca_file.clear();
  ExpectMistrust("self-signed");
}

TEST_F(AskOverTls, TrustsTheServersOwnCertificate) {
  endpoint_.tls->own_certificate = chain_;
  ExpectTrust();
  endpoint_.tls->own_certificate = other_;
  ExpectMistrust("self-signed");
  // The certificate was renewed after the server has read it, and an authority vouches for both.
  endpoint_.tls->ca_file = chain_;
  ExpectTrust();
}

TEST_F(AskOverTls, SaysWhatIsWrongWithItsFiles) {
  endpoint_.tls->ca_file = folder_.path() + "/none.pem";
  endpoint_.tls->server_name = "localhost";
  auto answer = Ask(endpoint_, {}, test::kPatience);
  ASSERT_FALSE(answer.has_value());
  EXPECT_THAT(answer.error().message, HasSubstr("none.pem"));
  endpoint_.tls->ca_file.clear();
  endpoint_.tls->own_certificate = folder_.Write("bad.pem", "no certificate");
  answer = Ask(endpoint_, {}, test::kPatience);
  ASSERT_FALSE(answer.has_value());
  EXPECT_THAT(answer.error().message, HasSubstr("bad.pem"));
}

TEST_F(AskOverTls, SaysThatAPlainClientSpeaksTheWrongLanguage) {
  endpoint_.tls.reset();
  const auto answer = Ask(endpoint_, {}, test::kPatience);
  ASSERT_FALSE(answer.has_value());
  EXPECT_EQ(asked_, 0);
}

TEST(AskOverTlsOfAPlainServer, Fails) {
  OneAnswer server("HTTP/1.1 400 Bad Request\r\n\r\n");
  server.endpoint.tls.emplace().server_name = "localhost";
  const auto answer = Ask(server.endpoint, {}, Millis(500));
  ASSERT_FALSE(answer.has_value());
  EXPECT_THAT(answer.error().message, HasSubstr("TLS handshake"));
}

}  // namespace
}  // namespace sluice::admin
