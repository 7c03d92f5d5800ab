// TLS to backends, as the control thread knows it: the contexts of every pool, for each worker and
// for the control thread's own questions to backends. A reload keeps the contexts of pools whose
// settings and files are as they were.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/base/result.h"
#include "proxy/config/config.h"
#include "proxy/net/transport.h"
#include "proxy/server/worker_libraries.h"
#include "proxy/session/services.h"
#include "proxy/tls/client_context.h"
#include "proxy/tls/tls_transport.h"

namespace sluice::server {

// The host of a backend as whoever listed it wrote it, looked up since or not.
[[nodiscard]] const std::string& ListedHostOf(const config::Backend& backend) noexcept;

// What the certificate of a backend has to be good for. REQUIRES: the pool has tls.
[[nodiscard]] std::string ServerNameOf(const config::Pool& pool, const config::Backend& backend);

// The TLS settings of a pool, as proxy/tls takes them.
[[nodiscard]] tls::ClientContext::Options TlsOptions(const config::PoolTls& tls);

class BackendTls {
 public:
  // `libraries` outlives it.
  explicit BackendTls(WorkerLibraries& libraries) noexcept : libraries_(libraries) {}

  // What a configuration needs. Everything that can fail has been done.
  class Change {
   private:
    friend class BackendTls;
    struct Entry {
      config::Pool pool;
      std::string fingerprint;  // empty: plain
      std::vector<std::shared_ptr<const tls::ClientContext>> by_worker;
      session::PoolTls own;  // of the control thread
    };
    std::vector<Entry> entries_;
  };

  // Loads authorities and certificates that are new or have changed. The error is one sentence.
  [[nodiscard]] Result<Change> Prepare(const config::Config& config);

  // Makes a prepared change the present. Nothing that Connect() has given may be in use.
  void Commit(Change change) noexcept { entries_ = std::move(change.entries_); }

  // Takes over which backends the pools have, and nothing else: no file is read. REQUIRES: the same
  // pools as before, with the same settings.
  void FollowBackends(const config::Config& config);

  // For the view of a worker: parallel to the pools of the configuration, without sessions to
  // resume.
  [[nodiscard]] std::vector<session::PoolTls> Of(std::size_t worker) const;

  // The client's side of TLS over `fd`, a connected socket that outlives it, to that backend: for
  // the control thread. Null where the pool is plain or not known, or memory is out.
  [[nodiscard]] std::unique_ptr<net::Transport> Connect(std::string_view pool,
                                                        std::string_view backend, int fd);
  // Why the handshake or read that failed last over one of those did so; empty where the connection
  // itself has ended.
  [[nodiscard]] std::string_view failure() const noexcept;

 private:
  using Entry = Change::Entry;

  WorkerLibraries& libraries_;
  tls::Library own_library_;                     // of the control thread; made with the first pool
  std::unique_ptr<tls::SharedBuffers> buffers_;  // the same; made with the first connection
  std::vector<Entry> entries_;                   // in the order of the configuration
};

}  // namespace sluice::server
