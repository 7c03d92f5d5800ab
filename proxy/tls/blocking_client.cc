#include "proxy/tls/blocking_client.h"

#include <poll.h>

#include <algorithm>
#include <utility>

#include <openssl/pem.h>

#include "proxy/net/socket.h"
#include "proxy/tls/server_context.h"

namespace sluice::tls {
namespace {

// A name that the certificate is good for.
std::string NameIn(X509* certificate) {
  const CertificateInfo info = Describe(certificate);
  const auto exact = std::find_if(info.names.begin(), info.names.end(),
                                  [](const std::string& name) { return !name.starts_with('*'); });
  if (exact != info.names.end()) {
    return *exact;
  }
  return info.name.starts_with('*') ? "any" + info.name.substr(1) : info.name;
}

}  // namespace

Result<std::unique_ptr<BlockingClient>> BlockingClient::Connect(int fd,
                                                                const ClientOptions& options,
                                                                Instant deadline) {
  ERR_clear_error();
  SslCtxPtr context(SSL_CTX_new(TLS_client_method()));
  if (!context) {
    return Err("cannot make a TLS context: " + TakeErrorText());
  }
  // make_unique cannot reach the private constructor.
  std::unique_ptr<BlockingClient> made(new BlockingClient(fd, std::move(context)));
  if (auto trust = made->Trust(options); !trust) {
    return tl::unexpected(trust.error());
  }
  for (;;) {
    ERR_clear_error();
    const int result = SSL_connect(made->ssl_.get());
    if (result == 1) {
      break;
    }
    if (auto ready = made->AwaitAfter(result, deadline); !ready) {
      return tl::unexpected(Error{"TLS handshake: " + ready.error().message, 0});
    }
  }
  if (auto verified = made->Verify(); !verified) {
    return tl::unexpected(verified.error());
  }
  return made;
}

Result<void> BlockingClient::Trust(const ClientOptions& options) {
  SSL_CTX* ctx = context_.get();
  SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
  // Verify() decides: a certificate that no authority vouches for may be the server's own.
  SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, nullptr);
  if (auto trusted = TrustAuthorities(ctx, options.ca_file); !trusted) {
    return trusted;
  }
  if (!options.own_certificate.empty()) {
    const BioPtr file(BIO_new_file(options.own_certificate.c_str(), "r"));
    own_ = X509Ptr(file ? PEM_read_bio_X509(file.get(), nullptr, nullptr, nullptr) : nullptr);
    if (!own_) {
      return Err("cannot use the certificate " + options.own_certificate + ": " + TakeErrorText());
    }
  }
  ssl_ = SslPtr(SSL_new(ctx));
  if (!ssl_ || SSL_set_fd(ssl_.get(), fd_) != 1) {
    return Err("cannot make a TLS session: " + TakeErrorText());
  }
  std::string name = options.server_name;
  if (name.empty() && own_) {
    name = NameIn(own_.get());
  }
  return ExpectServer(ssl_.get(), name);
}

Result<void> BlockingClient::Verify() const {
  const X509Ptr peer(SSL_get1_peer_certificate(ssl_.get()));
  if (peer && own_ && X509_cmp(peer.get(), own_.get()) == 0) {
    return {};
  }
  const auto verdict = SSL_get_verify_result(ssl_.get());
  if (!peer || verdict != X509_V_OK) {
    return Err(std::string("the server's certificate is not to be trusted: ") +
               X509_verify_cert_error_string(verdict));
  }
  return {};
}

Result<void> BlockingClient::AwaitAfter(int result, Instant deadline) {
  short events = 0;
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      events = POLLIN;
      break;
    case SSL_ERROR_WANT_WRITE:
      events = POLLOUT;
      break;
    case SSL_ERROR_SYSCALL:
      ERR_clear_error();
      return Err("the connection has ended");
    default:
      return Err(TakeErrorText());
  }
  return net::Await(fd_, events, deadline) ? Result<void>() : Err("no answer in time");
}

Result<void> BlockingClient::Write(Bytes bytes, Instant deadline) {
  while (!bytes.empty()) {
    ERR_clear_error();
    std::size_t written = 0;
    const int result = SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &written);
    if (result == 1) {
      bytes = bytes.subspan(written);
    } else if (auto ready = AwaitAfter(result, deadline); !ready) {
      return ready;
    }
  }
  return {};
}

Result<std::size_t> BlockingClient::Read(std::span<std::byte> into, Instant deadline) {
  for (;;) {
    ERR_clear_error();
    std::size_t got = 0;
    const int result = SSL_read_ex(ssl_.get(), into.data(), into.size(), &got);
    if (result == 1) {
      return got;
    }
    if (SSL_get_error(ssl_.get(), result) == SSL_ERROR_ZERO_RETURN) {
      return 0;
    }
    if (auto ready = AwaitAfter(result, deadline); !ready) {
      return tl::unexpected(ready.error());
    }
  }
}

}  // namespace sluice::tls
