#include "proxy/tls/server_context.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>

#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>

namespace sluice::tls {
namespace {

std::string Lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

}  // namespace

CertificateInfo Describe(X509* certificate) {
  CertificateInfo info;
  auto* names = static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; i < sk_GENERAL_NAME_num(names); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
    if (name->type == GEN_DNS) {
      info.names.push_back(
          Lower({reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName)),
                 static_cast<std::size_t>(ASN1_STRING_length(name->d.dNSName))}));
    }
  }
  GENERAL_NAMES_free(names);
  if (info.names.empty()) {
    std::array<char, 256> common{};
    if (X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, common.data(),
                                  static_cast<int>(common.size())) > 0) {
      info.names.push_back(Lower(common.data()));
    }
  }
  info.name = info.names.empty() ? "unnamed" : info.names.front();
  std::tm parts{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &parts) == 1) {
    info.not_after = ::timegm(&parts);
  }
  return info;
}

Result<std::string> Fingerprint(const ServerOptions& options) {
  std::vector<std::string> paths;
  for (const KeyPair& pair : options.certificates) {
    paths.push_back(pair.chain);
    paths.push_back(pair.key);
  }
  if (!options.client_ca.empty()) {
    paths.push_back(options.client_ca);
  }
  Digest digest;
  digest.Add(options.realm);
  digest.Add(options.tls13_only ? "1.3" : "1.2");
  digest.Add(options.client_ca.empty() ? "" : "mutual");
  for (const std::string& path : paths) {
    if (auto added = digest.AddFile(path); !added) {
      return tl::unexpected(added.error());
    }
  }
  return digest.Finish();
}

ServerContext::ServerContext(const TicketKeys& keys, Library library)
    : keys_(keys),
      library_(std::move(library)),
      ticket_cipher_(EVP_CIPHER_fetch(library_.get(), "AES-256-CBC", nullptr)) {}

Result<std::unique_ptr<ServerContext>> ServerContext::Make(const ServerOptions& options,
                                                           const TicketKeys& keys,
                                                           Library library) {
  if (!library) {
    auto own = MakeLibrary();
    if (!own) {
      return tl::unexpected(own.error());
    }
    library = std::move(*own);
  }
  ERR_clear_error();
  // make_unique cannot reach the private constructor.
  std::unique_ptr<ServerContext> made(new ServerContext(keys, std::move(library)));
  if (!made->ticket_cipher_) {
    return Err("OpenSSL has no AES-256-CBC: " + TakeErrorText());
  }
  for (const KeyPair& pair : options.certificates) {
    auto context = made->Load(options, pair);
    if (!context) {
      return tl::unexpected(context.error());
    }
    made->infos_.push_back(Describe(SSL_CTX_get0_certificate(context->get())));
    for (const std::string& name : made->infos_.back().names) {
      made->by_name_.emplace(name, context->get());  // the first certificate of a name wins
    }
    made->contexts_.push_back(std::move(*context));
  }
  return made;
}

Result<SslCtxPtr> ServerContext::Load(const ServerOptions& options, const KeyPair& pair) {
  SslCtxPtr context(SSL_CTX_new_ex(library_.get(), nullptr, TLS_server_method()));
  if (!context) {
    return Err("cannot make a TLS context: " + TakeErrorText());
  }
  SSL_CTX* ctx = context.get();
  if (auto applied = ApplyCommonSettings(ctx, options.tls13_only); !applied) {
    return tl::unexpected(applied.error());
  }
  SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set1_groups_list(ctx, "X25519:P-256");
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  // One ticket: each further one costs some 60 us of every handshake, and a client uses one.
  SSL_CTX_set_num_tickets(ctx, 1);
  if (auto used = UseKeyPair(ctx, pair); !used) {
    return tl::unexpected(used.error());
  }
  if (!options.client_ca.empty()) {
    STACK_OF(X509_NAME)* names = SSL_load_client_CA_file(options.client_ca.c_str());
    if (names == nullptr || SSL_CTX_load_verify_file(ctx, options.client_ca.c_str()) != 1) {
      sk_X509_NAME_pop_free(names, X509_NAME_free);
      return Err("cannot use the client CA file " + options.client_ca + ": " + TakeErrorText());
    }
    SSL_CTX_set_client_CA_list(ctx, names);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  // The same on every worker, so that a ticket is good on all of them; another listener, or
  // another client CA, is another realm: a session must not carry over what was proven there.
  const std::string realm = options.realm + '\n' + options.client_ca;
  std::array<unsigned char, SHA256_DIGEST_LENGTH> id{};
  EVP_Q_digest(library_.get(), "SHA256", nullptr, realm.data(), realm.size(), id.data(), nullptr);
  SSL_CTX_set_session_id_context(ctx, id.data(), static_cast<unsigned>(id.size()));

  SSL_CTX_set_app_data(ctx, this);
  // What the macro SSL_CTX_set_tlsext_servername_callback does, without its C cast.
  SSL_CTX_callback_ctrl(ctx, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB,
                        reinterpret_cast<void (*)()>(&ServerContext::OnServerName));
  SSL_CTX_set_tlsext_servername_arg(ctx, this);
  SSL_CTX_set_alpn_select_cb(ctx, &ServerContext::OnAlpn, this);
  SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, &ServerContext::OnTicket);
  ERR_clear_error();
  return context;
}

SslPtr ServerContext::NewSession(BioPtr bio) const {
  SslPtr ssl(SSL_new(contexts_.front().get()));
  if (ssl) {
    BIO* raw = bio.release();
    SSL_set_bio(ssl.get(), raw, raw);  // one reference serves both directions
    SSL_set_accept_state(ssl.get());
  }
  return ssl;
}

SSL_CTX* ServerContext::ForName(std::string_view server_name) const {
  const std::string name = Lower(server_name);
  if (const auto exact = by_name_.find(name); exact != by_name_.end()) {
    return exact->second;
  }
  if (const std::size_t dot = name.find('.'); dot != std::string::npos) {
    // RFC 6125 section 6.4.3: a wildcard stands for exactly one label.
    if (const auto wild = by_name_.find("*" + name.substr(dot)); wild != by_name_.end()) {
      return wild->second;
    }
  }
  return nullptr;
}

int ServerContext::OnServerName(SSL* ssl, int*, void* self) {
  const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  if (name == nullptr) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  SSL_CTX* context = static_cast<ServerContext*>(self)->ForName(name);
  if (context == nullptr) {
    return SSL_TLSEXT_ERR_NOACK;  // the first certificate serves unknown names
  }
  SSL_set_SSL_CTX(ssl, context);
  return SSL_TLSEXT_ERR_OK;
}

int ServerContext::OnAlpn(SSL*, const unsigned char** out, unsigned char* out_size,
                          const unsigned char* in, unsigned int in_size, void*) {
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_size, kHttp11.data(), kHttp11.size(), in, in_size) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_ALERT_FATAL;  // RFC 7301 section 3.2: no_application_protocol
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

int ServerContext::OnTicket(SSL* ssl, unsigned char* name, unsigned char* iv,
                            EVP_CIPHER_CTX* cipher, EVP_MAC_CTX* mac, int seal) {
  // Returns as OpenSSL wants it: 1 go on, 2 go on and issue a fresh ticket, 0 unknown key (a full
  // handshake follows), -1 failed.
  const auto* self = static_cast<const ServerContext*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
  TicketKey key;
  bool newest = true;
  if (seal == 1) {
    key = self->keys_.Newest();
    std::memcpy(name, key.name.data(), key.name.size());
    if (RAND_bytes_ex(self->library_.get(), iv, 16, 0) != 1) {
      return -1;
    }
  } else {
    const auto found = self->keys_.Find(name);
    if (!found) {
      return 0;
    }
    key = found->key;
    newest = found->newest;
  }
  char digest[] = "SHA256";
  const OSSL_PARAM params[] = {
      OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key.hmac.data(), key.hmac.size()),
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_end(),
  };
  if (EVP_MAC_CTX_set_params(mac, params) != 1 ||
      EVP_CipherInit_ex2(cipher, self->ticket_cipher_.get(), key.aes.data(), iv, seal, nullptr) !=
          1) {
    return -1;
  }
  // RFC 8446 appendix C.4: a ticket is to be used once, so each resumption brings the next.
  return newest && SSL_version(ssl) != TLS1_3_VERSION ? 1 : 2;
}

}  // namespace sluice::tls
