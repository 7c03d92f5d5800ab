#include "tests/support/tls_server.h"

#include <string_view>

#include "tests/support/deadline.h"

namespace sluice::test {
namespace {

// Takes http/1.1 when it is offered, and goes on without when it is not.
int ChooseProtocol(SSL*, const unsigned char** out, unsigned char* out_size,
                   const unsigned char* in, unsigned in_size, void*) {
  static constexpr std::string_view kWire = "\x08http/1.1";
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_size, reinterpret_cast<const unsigned char*>(kWire.data()),
                            kWire.size(), in, in_size) != OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

TlsServer::TlsServer(const TlsServerOptions& options) : context_(SSL_CTX_new(TLS_server_method())) {
  SSL_CTX* context = context_.get();
  if (SSL_CTX_use_certificate_chain_file(context, options.certificate.chain.c_str()) != 1 ||
      SSL_CTX_use_PrivateKey_file(context, options.certificate.key.c_str(), SSL_FILETYPE_PEM) !=
          1) {
    throw Failure("TLS server: cannot use the certificate");
  }
  if (options.max_version != 0) {
    SSL_CTX_set_max_proto_version(context, options.max_version);
  }
  if (!options.client_ca.empty()) {
    SSL_CTX_load_verify_locations(context, options.client_ca.c_str(), nullptr);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_alpn_select_cb(context, &ChooseProtocol, nullptr);
  static constexpr std::string_view kSessionContext = "test backend";
  SSL_CTX_set_session_id_context(context,
                                 reinterpret_cast<const unsigned char*>(kSessionContext.data()),
                                 static_cast<unsigned>(kSessionContext.size()));
}

TlsFacts TlsServer::FactsOf(const SSL* ssl) {
  TlsFacts facts;
  if (const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name)) {
    facts.sni = name;
  }
  const unsigned char* alpn = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(ssl, &alpn, &size);
  facts.alpn.assign(reinterpret_cast<const char*>(alpn), size);
  facts.version = SSL_version(ssl);
  facts.resumed = SSL_session_reused(ssl) == 1;
  facts.client_certificate = SSL_get0_peer_certificate(ssl) != nullptr;
  return facts;
}

}  // namespace sluice::test
