// The settings of TLS to the backends of one pool, as one thread uses them.
//
// Each worker has contexts of its own over its own library context, like those of listeners
// (server_context.h). The control thread has some too, for what it asks backends itself. A context
// outlives its sessions.
//
// Sessions are resumed (RFC 5077, RFC 8446 section 2.2): a Destination keeps the newest one that
// its server gave, and offers it at the next connect. A server that is resumed shows no
// certificate, so what a session proves is good for an hour only; then all of it is verified anew.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "proxy/base/clock.h"
#include "proxy/base/result.h"
#include "proxy/tls/settings.h"

namespace sluice::tls {

// A backend as one context knows it. Used with that context alone, so that a session never goes to
// another backend, another name or a pool that trusts others; in the context's thread, and it
// outlives every SSL that was made for it.
class Destination {
 public:
  // `server_name`: a DNS name or a numeric address, never empty.
  explicit Destination(std::string server_name) : server_name_(std::move(server_name)) {}
  Destination(const Destination&) = delete;
  Destination& operator=(const Destination&) = delete;

  [[nodiscard]] const std::string& server_name() const noexcept { return server_name_; }
  // There is a session to resume.
  [[nodiscard]] bool has_session() const noexcept { return session_ != nullptr; }
  // After a handshake that failed: it may have been for the session that was offered.
  void ForgetSession() noexcept { session_.reset(); }

 private:
  friend class ClientContext;

  std::string server_name_;
  SessionPtr session_;     // null: none to resume
  Instant verified_at_{};  // when the server behind session_ last showed its certificate
};

class ClientContext {
 public:
  struct Options {
    std::string ca_file;  // path of a PEM bundle; empty: the authorities of the system
    KeyPair certificate;  // shown to servers that ask for one; empty paths: none
    bool verify = true;
    bool tls13_only = false;
  };

  // Loads and checks everything; an error names the file and says what is wrong with it. Without a
  // `library` it has one of its own.
  [[nodiscard]] static Result<std::unique_ptr<ClientContext>> Make(const Options& options,
                                                                   Library library = nullptr);

  ClientContext(const ClientContext&) = delete;
  ClientContext& operator=(const ClientContext&) = delete;

  // A new client-side session over `bio`, which it takes. Null only when memory is out.
  [[nodiscard]] SslPtr NewSession(Destination& destination, BioPtr bio) const;

 private:
  explicit ClientContext(Library library) noexcept : library_(std::move(library)) {}

  [[nodiscard]] Result<void> Load(const Options& options);

  static int OnNewSession(SSL* ssl, SSL_SESSION* session);

  Library library_;  // before what is made from it
  SslCtxPtr context_;
};

// As for a listener: a digest of the settings and of the content of every file they name.
[[nodiscard]] Result<std::string> Fingerprint(const ClientContext::Options& options);

}  // namespace sluice::tls
