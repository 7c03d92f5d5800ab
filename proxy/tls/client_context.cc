#include "proxy/tls/client_context.h"

namespace sluice::tls {
namespace {

// A certificate that has expired, or an authority that is believed no more, is noticed after this
// at the latest.
constexpr Millis kMostUnverified = std::chrono::hours(1);

// SSL_set_app_data without its C cast.
constexpr int kAppData = 0;

}  // namespace

Result<std::unique_ptr<ClientContext>> ClientContext::Make(const Options& options,
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
  std::unique_ptr<ClientContext> made(new ClientContext(std::move(library)));
  if (auto loaded = made->Load(options); !loaded) {
    return tl::unexpected(loaded.error());
  }
  ERR_clear_error();
  return made;
}

Result<void> ClientContext::Load(const Options& options) {
  context_ = SslCtxPtr(SSL_CTX_new_ex(library_.get(), nullptr, TLS_client_method()));
  if (!context_) {
    return Err("cannot make a TLS context: " + TakeErrorText());
  }
  SSL_CTX* ctx = context_.get();
  if (auto applied = ApplyCommonSettings(ctx, options.tls13_only); !applied) {
    return applied;
  }
  if (options.verify) {
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, nullptr);
    if (auto trusted = TrustAuthorities(ctx, options.ca_file); !trusted) {
      return trusted;
    }
  }
  if (!options.certificate.chain.empty()) {
    if (auto used = UseKeyPair(ctx, options.certificate); !used) {
      return used;
    }
  }
  // A key share of the first is sent; the last is what some servers insist on.
  SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384");
  SSL_CTX_set_alpn_protos(ctx, kHttp11.data(), kHttp11.size());
  // Destinations keep the sessions. In a cache of OpenSSL's they would be found by id only.
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(ctx, &ClientContext::OnNewSession);
  return {};
}

SslPtr ClientContext::NewSession(Destination& destination, BioPtr bio) const {
  SslPtr ssl(SSL_new(context_.get()));
  if (!ssl || SSL_set_ex_data(ssl.get(), kAppData, &destination) != 1 ||
      !ExpectServer(ssl.get(), destination.server_name_)) {
    return nullptr;
  }
  if (destination.session_ && Now() - destination.verified_at_ > kMostUnverified) {
    destination.session_.reset();
  }
  if (destination.session_) {
    SSL_set_session(ssl.get(), destination.session_.get());
  }
  BIO* raw = bio.release();
  SSL_set_bio(ssl.get(), raw, raw);  // one reference serves both directions
  SSL_set_connect_state(ssl.get());
  return ssl;
}

// In TLS 1.2 within the handshake, in 1.3 with what is first read. Returns whether it was kept.
int ClientContext::OnNewSession(SSL* ssl, SSL_SESSION* session) {
  auto* destination = static_cast<Destination*>(SSL_get_ex_data(ssl, kAppData));
  if (SSL_session_reused(ssl) != 1) {
    destination->verified_at_ = Now();
  }
  destination->session_ = SessionPtr(session);
  return 1;
}

Result<std::string> Fingerprint(const ClientContext::Options& options) {
  Digest digest;
  digest.Add(options.tls13_only ? "1.3" : "1.2");
  digest.Add(options.verify ? "verified" : "");
  for (const std::string& path :
       {options.ca_file, options.certificate.chain, options.certificate.key}) {
    digest.Add(path.empty() ? "none" : "file");
    if (!path.empty()) {
      if (auto added = digest.AddFile(path); !added) {
        return tl::unexpected(added.error());
      }
    }
  }
  return digest.Finish();
}

}  // namespace sluice::tls
