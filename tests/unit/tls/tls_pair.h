// A TlsTransport and an OpenSSL client over one socketpair, driven by hand: no loop, no threads.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/base/unique_fd.h"
#include "proxy/tls/openssl_ptr.h"
#include "proxy/tls/self_signed.h"
#include "proxy/tls/server_context.h"
#include "proxy/tls/tls_transport.h"

namespace sluice::tls {

// PEM files that are gone with the test.
class Files {
 public:
  Files() {
    path_ = (std::filesystem::temp_directory_path() / "sluice-tls-XXXXXX").string();
    EXPECT_NE(::mkdtemp(path_.data()), nullptr);
  }
  ~Files() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;

  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ + "/" + name) << text;
    return path_ + "/" + name;
  }

  // A self-signed certificate for these names.
  KeyPair Certificate(const std::vector<std::string>& names) {
    const auto made = MakeSelfSigned(names, 10);
    EXPECT_TRUE(made.has_value());
    const std::string stem = std::to_string(count_++);
    return {Write(stem + ".pem", made->chain), Write(stem + ".key", made->key)};
  }

 private:
  std::string path_;
  int count_ = 0;
};

struct ContextOptions {
  std::vector<KeyPair> certificates{};
  bool tls13_only = false;
  std::string client_ca{};
  std::string realm{};

  [[nodiscard]] ServerOptions Get() const { return {certificates, tls13_only, client_ca, realm}; }
};

inline std::unique_ptr<ServerContext> MakeContext(const ContextOptions& options,
                                                  const TicketKeys& keys) {
  auto made = ServerContext::Make(options.Get(), keys);
  EXPECT_TRUE(made.has_value()) << made.error().message;
  return made ? std::move(*made) : nullptr;
}

// Every member has an initializer, so that a test names only what it cares about.
struct ClientOptions {
  std::string sni{};
  std::vector<std::string> alpn{};
  int max_version = 0;
  SSL_SESSION* resume = nullptr;
  KeyPair certificate{};
  std::string ciphersuites{};  // of TLS 1.3, in the order of preference
};

class TlsPair {
 public:
  TlsPair(const ServerContext& context, SharedBuffers& buffers, const ClientOptions& options = {},
          int socket_buffer = 0)
      : client_context_(SSL_CTX_new(TLS_client_method())) {
    std::array<int, 2> fds{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds.data()), 0);
    server_fd = UniqueFd(fds[0]);
    client_fd = UniqueFd(fds[1]);
    if (socket_buffer > 0) {
      for (const int fd : fds) {
        ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &socket_buffer, sizeof(socket_buffer));
      }
    }
    if (options.max_version != 0) {
      SSL_CTX_set_max_proto_version(client_context_.get(), options.max_version);
    }
    if (!options.ciphersuites.empty()) {
      EXPECT_EQ(SSL_CTX_set_ciphersuites(client_context_.get(), options.ciphersuites.c_str()), 1);
    }
    if (!options.certificate.chain.empty()) {
      EXPECT_EQ(SSL_CTX_use_certificate_chain_file(client_context_.get(),
                                                   options.certificate.chain.c_str()),
                1);
      EXPECT_EQ(SSL_CTX_use_PrivateKey_file(client_context_.get(), options.certificate.key.c_str(),
                                            SSL_FILETYPE_PEM),
                1);
    }
    client = SslPtr(SSL_new(client_context_.get()));
    SSL_set_fd(client.get(), client_fd.get());
    SSL_set_connect_state(client.get());
    if (!options.sni.empty()) {
      std::string name = options.sni;
      SSL_ctrl(client.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name.data());
    }
    std::string wire;
    for (const std::string& protocol : options.alpn) {
      wire += static_cast<char>(protocol.size());
      wire += protocol;
    }
    if (!wire.empty()) {
      SSL_set_alpn_protos(client.get(), reinterpret_cast<const unsigned char*>(wire.data()),
                          static_cast<unsigned>(wire.size()));
    }
    if (options.resume != nullptr) {
      SSL_set_session(client.get(), options.resume);
    }
    server = TlsTransport::Accept(context, server_fd.get(), buffers);
  }

  // Both sides take turns until each is done or has failed.
  bool Handshake() {
    for (int turn = 0; turn < 20; ++turn) {
      if (!client_done && client_error == 0) {
        ERR_clear_error();
        const int result = SSL_do_handshake(client.get());
        client_done = result == 1;
        if (!client_done && SSL_get_error(client.get(), result) != SSL_ERROR_WANT_READ) {
          client_error = ERR_GET_REASON(ERR_peek_error());
        }
      }
      if (server_status == net::IoStatus::kWouldBlock) {
        server_status = server->Handshake();
      }
    }
    ERR_clear_error();
    return client_done && server_status == net::IoStatus::kOk;
  }

  // Everything that the server's side can read now.
  std::string ServerReads() {
    std::array<std::byte, 64 * 1024> into{};
    std::string all;
    for (;;) {
      const net::IoResult got = server->Read(into);
      last_read = got.status;
      if (got.status != net::IoStatus::kOk) {
        return all;
      }
      all += AsText(Bytes(into).first(got.bytes));
    }
  }

  std::string ClientReads() {
    std::array<char, 16 * 1024> into{};
    std::string all;
    for (;;) {
      std::size_t got = 0;
      ERR_clear_error();
      const int result = SSL_read_ex(client.get(), into.data(), into.size(), &got);
      if (result != 1) {
        client_read_error = SSL_get_error(client.get(), result);
        return all;
      }
      all.append(into.data(), got);
    }
  }

  void ClientWrites(const std::string& text) {
    std::size_t written = 0;
    ASSERT_EQ(SSL_write_ex(client.get(), text.data(), text.size(), &written), 1);
    ASSERT_EQ(written, text.size());
  }

  // With the first thing that the server writes, which brings the ticket of TLS 1.3.
  SessionPtr Ticket() {
    static_cast<void>(server->Write(AsBytes("answer")));
    static_cast<void>(ClientReads());
    // A session that was not ended in order would count as bad (SSL_free marks it so).
    SSL_set_shutdown(client.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    return SessionPtr(SSL_get1_session(client.get()));
  }

  UniqueFd server_fd;
  UniqueFd client_fd;

 private:
  SslCtxPtr client_context_;

 public:
  SslPtr client;
  std::unique_ptr<TlsTransport> server;
  bool client_done = false;
  int client_error = 0;
  int client_read_error = 0;
  net::IoStatus server_status = net::IoStatus::kWouldBlock;
  net::IoStatus last_read = net::IoStatus::kWouldBlock;
};

}  // namespace sluice::tls
