#include "tests/bench/load/tls.h"

#include <array>
#include <utility>

#include <openssl/err.h>

#include "tests/bench/socket.h"

namespace sluice::bench {

void DieSsl(const std::string& what) {
  std::array<char, 256> text{};
  const unsigned long code = ERR_get_error();
  if (code == 0) {
    Die(what + ": end of stream");
  }
  ERR_error_string_n(code, text.data(), text.size());
  Die(what + ": " + text.data());
}

SslCtxPtr MakeTls(const std::string& ca, Reading reading) {
  if (ca.empty()) {
    return nullptr;
  }
  SslCtxPtr context(SSL_CTX_new(TLS_client_method()));
  if (SSL_CTX_load_verify_file(context.get(), ca.c_str()) != 1) {
    DieSsl("cannot use " + ca);
  }
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
  // What browsers prefer, and nothing else: the proxies differ in whose preference wins, and
  // AES-256 instead of AES-128 would be measured as a difference between them.
  if (SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_ciphersuites(context.get(), "TLS_AES_128_GCM_SHA256") != 1 ||
      SSL_CTX_set1_groups_list(context.get(), "X25519") != 1) {
    DieSsl("TLS settings");
  }
  // One recv for each record instead of two. Costs a buffer, which thousands of idle sessions do
  // not need.
  SSL_CTX_set_read_ahead(context.get(), reading == Reading::kLean ? 0 : 1);
  if (reading == Reading::kBulk) {
    SSL_CTX_set_default_read_buffer_len(context.get(), std::size_t{256} * 1024);
  }
  return context;
}

Tickets::Tickets(SSL_CTX* context, std::size_t limit) : limit_(limit) {
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
  SSL_CTX_set_app_data(context, this);
  SSL_CTX_sess_set_new_cb(context, &Tickets::OnTicket);
}

SslSessionPtr Tickets::Take() {
  if (kept_.empty()) {
    return nullptr;
  }
  if (kept_.size() == 1) {
    ++reused_;
    return SslSessionPtr(SSL_SESSION_dup(kept_.front().get()));  // OpenSSL takes each only once
  }
  SslSessionPtr oldest = std::move(kept_.front());
  kept_.erase(kept_.begin());
  return oldest;
}

int Tickets::OnTicket(SSL* ssl, SSL_SESSION* session) {
  auto& self = *static_cast<Tickets*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
  if (self.kept_.size() >= self.limit_) {
    return 0;  // OpenSSL frees it
  }
  self.kept_.emplace_back(session);
  return 1;
}

}  // namespace sluice::bench
